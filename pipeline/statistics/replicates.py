"""The replicate as the unit of replication: means over starts, and Monte-Carlo standard errors.

The starts of a replicate see the same data, so they are averaged first and every standard error is
taken over the R replicates that have a value. Morris, White & Crowther (2019), "Using simulation
studies to evaluate statistical methods", Statistics in Medicine 38(11), 2074-2102, Table 6.

Fits are sorted once, so that the fits of a replicate and the replicates of a cell stand together;
every sum is then one over contiguous rows, in an order that nothing changes.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.plan import Plan

REPLICATE = ["position", "replicate"]  # a cell's place in the plan, and the data set in the cell
# Values that differ by less than this part of their size are the same: sums round a few times.
ROUNDING = 32.0 * float(np.finfo(float).eps)


class Layout(NamedTuple):
    """Where F sorted fits stand: they are of G replicates of C cells.

    ``position`` (C,) are the places in the plan of the cells that have fits, ``first_replicate``
    (C,) their first replicates, ``cell`` (G,) and ``number`` (G,) the cell and the replicate's
    number in it, ``first_fit`` (G,) its first fit and ``replicate`` (F,) the replicate of a fit;
    cells, replicates and fits are counted from 0 in their order.
    """

    position: NDArray[np.int64]
    first_replicate: NDArray[np.int64]
    cell: NDArray[np.int64]
    number: NDArray[np.int64]
    first_fit: NDArray[np.int64]
    replicate: NDArray[np.int64]


class Moments(NamedTuple):
    """Of the values of replicates, per cell (C,): number, mean, sum of squares about the mean."""

    number: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]


def in_plan_order(fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Sort the fits, so that sums do not depend on the order of rows, and add their position."""
    code, names = pd.factorize(fits["cell"])
    position = pd.Index([cell.id for cell in plan.cells]).get_indexer(names)[code]
    if (position < 0).any():
        raise ValueError(f"cell: got {fits['cell'][position < 0].iloc[0]!r}, which no plan has")
    keys = [position, fits["replicate"].to_numpy(), fits["start"].to_numpy()]
    placed = fits.assign(position=position)
    # As they are read they stand in order; a copy of a million rows takes its time.
    return placed if _sorted(keys) else placed.iloc[np.lexsort(keys[::-1])]


def _sorted(keys: list[NDArray[np.int64]]) -> bool:
    """Tell whether rows are in order of the first key, then of the second, and so on."""
    in_order = np.ones(max(len(keys[0]) - 1, 0), bool)
    for key in reversed(keys):
        in_order = (key[1:] > key[:-1]) | ((key[1:] == key[:-1]) & in_order)
    return bool(in_order.all())


def evaluations_before_row_0(plan: Plan) -> NDArray[np.int64]:
    """Return the map evaluations of each cell's init for one start, (cells,)."""
    return np.array([plan.init_evaluations(cell) for cell in plan.cells], np.int64)


def layout_of(position: NDArray[np.int64], replicate: NDArray[np.int64]) -> Layout:
    """Return where fits stand that are sorted by position and replicate, both (F,)."""
    new_cell = _begins(position)
    new_replicate = new_cell | _begins(replicate)
    first_fit = np.flatnonzero(new_replicate)
    starts_cell = new_cell[first_fit]
    first_replicate = np.flatnonzero(starts_cell)
    return Layout(
        position[first_fit][first_replicate],
        first_replicate,
        np.cumsum(starts_cell) - 1,
        replicate[first_fit],
        first_fit,
        np.cumsum(new_replicate) - 1,
    )


def _begins(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell where a run of equal values begins."""
    return np.append(np.ones(min(len(values), 1), bool), values[1:] != values[:-1])


def counts_of(flags: NDArray[np.bool_], layout: Layout) -> NDArray[np.int64]:
    """Return how many of a cell's fits have their flag (F,) set, shape (C,)."""
    return np.add.reduceat(flags.astype(np.int64), layout.first_fit[layout.first_replicate])


def same(
    values: NDArray[np.float64],
    first: NDArray[np.int64],
    size: NDArray[np.float64] | float = 0.0,
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Tell which groups have values that differ by rounding errors at most.

    Parameters
    ----------
    values : shape (N,)
        Group after group; what is missing is left out.
    first : shape (M,)
        Where each group begins.
    size : shape (M,)
        Of the terms that the values are sums or differences of, where it is larger than theirs.

    Returns
    -------
    same : bool, shape (M,)
        Whether the largest and the smallest value differ by at most `ROUNDING` times the size.
    value : shape (M,)
        The smallest, which stands for all of them there.
    """
    least, most = np.fmin.reduceat(values, first), np.fmax.reduceat(values, first)
    size = np.maximum(np.maximum(np.abs(least), np.abs(most)), size)
    with np.errstate(over="ignore", invalid="ignore"):
        near = most - least <= ROUNDING * np.where(np.isfinite(size), size, 0.0)
    return near | (least == most), least


def means_of_starts(values: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
    """Return the mean over the starts of every replicate (G,), leaving out what is missing.

    Of values that are the `same` it is the value itself, to the last bit.
    """
    if len(layout.first_fit) == len(values):
        return values  # one start each
    there = ~np.isnan(values)
    count = np.add.reduceat(there.astype(np.int64), layout.first_fit)
    total = np.add.reduceat(np.where(there, values, 0.0), layout.first_fit)
    return np.where(*same(values, layout.first_fit), total / np.where(count > 0, count, np.nan))


def moments(means: NDArray[np.float64], layout: Layout) -> Moments:
    """Return the moments over the replicates of every cell, leaving out what is missing.

    In two passes, about the mean: errors keep their digits however large their common part. Values
    that are the `same` have no squares: the rounding errors of a mean are no spread.
    """
    missing = np.isnan(means)
    size = np.diff(layout.first_replicate, append=len(means))
    count = size - np.add.reduceat(missing, layout.first_replicate, dtype=np.int64)
    total = np.add.reduceat(np.where(missing, 0.0, means), layout.first_replicate)
    equal, value = same(means, layout.first_replicate)
    mean = np.where(equal, value, total / np.where(count > 0, count, np.nan))
    with np.errstate(invalid="ignore", over="ignore"):  # a square may be beyond the range
        squares = means - np.repeat(mean, size)
        squares[missing] = 0.0
        squares *= squares
        squares = np.add.reduceat(squares, layout.first_replicate)
    squares[equal] = 0.0
    return Moments(count, mean, squares)


def standard_error(of: Moments, ddof: int = 1) -> NDArray[np.float64]:
    """Return sd / sqrt(R) per cell; missing from R < 2."""
    count = np.where(of.number > 1, of.number, np.nan)
    return np.sqrt(of.squares / (count - ddof) / count)


def mean_and_error(
    values: NDArray[np.float64], layout: Layout, ddof: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of a cell's replicates and its MCSE, both (C,), from values of fits (F,)."""
    found = moments(means_of_starts(values, layout), layout)
    return found.mean, standard_error(found, ddof)


def _layout(index: pd.Index) -> Layout:
    position, replicate = (index.get_level_values(level).to_numpy() for level in REPLICATE)
    return layout_of(position, replicate)


def replicate_means(values: pd.Series) -> pd.Series:
    """Return the mean over the starts of every replicate, leaving out what is missing."""
    layout = _layout(values.index)
    means = means_of_starts(values.to_numpy(float), layout)
    return pd.Series(means, values.index[layout.first_fit])


def mean_and_mcse(values: pd.Series, ddof: int = 1) -> tuple[pd.Series, pd.Series]:
    """Return mean and sd / sqrt(R) over the replicates of every cell; no error from R < 2."""
    layout = _layout(values.index)
    found = moments(values.to_numpy(float), layout)
    cells = pd.Index(layout.position, name="position")
    return pd.Series(found.mean, cells), pd.Series(standard_error(found, ddof), cells)


def share_and_mcse(flags: pd.Series, name: str) -> pd.DataFrame:
    """Return a cell's share p of flags that are set, and its MCSE.

    With p_r the share among the starts of replicate r, MCSE = sqrt(sum_r (p_r - p)^2) / R, which
    for one start is the binomial sqrt(p (1 - p) / R) of a coverage in Table 6.
    """
    mean, error = mean_and_mcse(replicate_means(flags.astype(float)), ddof=0)
    return pd.DataFrame({name: mean, f"{name}_mcse": error})
