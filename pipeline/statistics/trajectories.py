"""How the fits of a cell move, over its replicates: bands of quantiles against the effort."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.core.fitting import geometric_iterations
from pipeline.statistics.curves import Curve
from pipeline.statistics.recorded import AXES, Recorded

LEVELS = (0.1, 0.5, 0.9)
# Values held at a time: fits times places of the grid.
MOST_VALUES = 1 << 23


def _lengths(group: Recorded, place: NDArray[np.int64], begin: int, end: int) -> NDArray[np.int64]:
    """Return at how many of the places `begin` to `end` of a grid a row stands for its fit, (T,).

    `place` is the first place of the grid that a row has reached, (T,): it stands for the fit from
    there to the next row's place, the last row to the end of the grid.
    """
    until = np.append(place[1:], end)
    until[group.stop[group.stop > group.first] - 1] = end
    return np.clip(until, begin, end) - np.clip(place, begin, end)


def _carried(
    group: Recorded, values: NDArray[np.float64], lengths: NDArray[np.int64], n_places: int
) -> NDArray[np.float64]:
    """Return the value of every fit at some places of a grid, (F, n_places); see `_lengths`.

    Infinite at the first places, where the cell's init is still at work.
    """
    rows = group.stop > group.first
    table = np.full((len(rows), n_places), np.inf)
    n_known = lengths[: group.stop[rows][0]].sum() if rows.any() else 0
    known = np.repeat(values, lengths).reshape(rows.sum(), n_known)
    table[rows, n_places - n_known :] = known
    return table


def _medians_of_starts(values: NDArray[np.float64], starts: int) -> NDArray[np.float64]:
    """Return the median over the starts of each replicate, (F / starts, places)."""
    # Sorting all of a few values takes less time than partitioning them.
    ordered = np.sort(values.reshape(-1, starts, values.shape[1]), axis=1)
    return ordered[:, (starts - 1) // 2 : starts // 2 + 1].mean(axis=1)


def _bands(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quantiles over the first axis: the smallest value that enough are at most."""
    ranks = [max(0, int(np.ceil(level * len(values))) - 1) for level in LEVELS]
    return np.sort(values, axis=0)[ranks]


def trajectories(group: Recorded, cell: str, starts: int) -> Iterator[Curve]:
    """Give the bands of one cell: for each quantity and axis, quantiles on a grid.

    The grid is `geometric_iterations` up to where the last fit ended, that place, and the one of
    row 0. A row stands for a fit until the next one that was recorded, and the last one for ever.
    Before row 0, and where a fit left no row, it is infinitely far. The starts of a replicate are
    replaced by their median first: quantiles are over replicates, and they are order statistics, as
    some distances are infinite.
    """
    of_iteration = _columns(group, "iteration", starts)
    # With plain EM an iteration is a map evaluation.
    one, other = ((group.ends.at(axis), group.at[axis]) for axis in AXES)
    alike = all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    of_evaluation = of_iteration if alike else _columns(group, "map_evaluations", starts)
    for axis, columns in zip(AXES, (of_iteration, of_evaluation), strict=True):
        for quantity, values in zip(group.distances, columns, strict=True):
            yield Curve({"cell": cell, "quantity": quantity, "axis": axis}, values)


def _columns(group: Recorded, axis: str, starts: int) -> list[dict[str, np.ndarray]]:
    """Return the columns of each quantity's bands along one axis."""
    n_fits = len(group.first)
    n_replicates = n_fits // starts
    ends = group.ends.at(axis)
    longest = int(ends.max(initial=0))
    grid = np.union1d(geometric_iterations(longest), [*group.at[axis][:1], longest])
    grid = grid if n_fits else grid[:0]
    place = np.searchsorted(grid, group.at[axis])
    running = 1.0 - np.searchsorted(np.sort(ends), grid, side="right") / max(n_fits, 1)
    bands = np.empty((len(group.distances), len(LEVELS), len(grid)))
    step = max(1, MOST_VALUES // max(n_fits, 1))
    for begin in range(0, len(grid), step):
        end = min(begin + step, len(grid))
        lengths = _lengths(group, place, begin, end)
        for found, values in zip(bands, group.distances.values(), strict=True):
            table = _carried(group, values, lengths, end - begin)
            if starts > 1:
                table = _medians_of_starts(table, starts)
            found[:, begin:end] = _bands(table)
    return [
        {
            "x": grid,
            **{f"q{round(100 * q)}": row for q, row in zip(LEVELS, rows, strict=True)},
            "running_share": running,
            "n": np.full(len(grid), n_replicates),
        }
        for rows in bands
    ]
