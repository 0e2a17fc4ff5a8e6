"""Runtime profiles: the share of fits that have got somewhere, against what was spent.

The targets are the configuration's, not the best or worst that a study happened to see: Hansen,
Auger, Ros, Mersmann, Tusar & Brockhoff (2021), "COCO: a platform for comparing continuous
optimizers in a black-box setting". Performance profiles are those of Dolan & More (2002),
"Benchmarking optimization software with performance profiles".
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.plan import Cell, Plan
from pipeline.statistics.curves import Curve
from pipeline.statistics.incidence import (
    CENSORED,
    COMPETING,
    EVENT,
    Incidence,
    cumulative_incidence,
    observed,
)
from pipeline.statistics.recorded import AXES, GAP, TO_FIXED_POINT, Ends, Recorded
from pipeline.tables import OUTCOMES

# Factors of the best cost at which a performance profile is evaluated, 10 % apart.
PER_DECADE = 24

Labels = dict[str, str | float]
Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


def _steps(
    curves: Incidence,
    labels: Sequence[Labels],
    x: Reals | None = None,
    unknown: Sequence[int] | None = None,
) -> Iterator[Curve]:
    """Give the times at which a share changes, and the last one, of every curve.

    Parameters
    ----------
    labels : of the C curves
    x : what the times stand for, themselves by default
    unknown : how many fits of each curve may have had the event unseen, 0 by default
    """
    low, high = curves.limits()
    before = np.append(0.0, curves.share[:-1])
    before[curves.first] = 0.0
    changes = curves.share > before
    changes[curves.stop - 1] = True
    kept = np.flatnonzero(changes)
    time = curves.time[kept]
    columns = {
        "x": time.astype(float) if x is None else x[time],
        "share": curves.share[kept],
        "low": low[kept],
        "high": high[kept],
        "n": curves.n_fits[curves.curve[kept]],
        "n_unknown": np.array(unknown or [0] * len(labels), np.int64)[curves.curve[kept]],
    }
    ends = np.searchsorted(kept, curves.stop)
    for begin, end, label in zip(np.append(0, ends[:-1]), ends, labels, strict=True):
        yield Curve(label, {name: values[begin:end] for name, values in columns.items()})


def _labels(cell: str, kind: str, axis: str, target: float = np.nan) -> Labels:
    return {"cell": cell, "kind": kind, "target": target, "axis": axis}


def outcome_profiles(cells: Sequence[Cell], ends: Sequence[Ends]) -> Iterator[Curve]:
    """Give the cumulative incidence of convergence, and of each failure there was, in every cell.

    `max_iter` censors; all other outcomes compete.
    """
    curve = np.repeat(np.arange(len(cells)), [len(each.outcome) for each in ends])
    replicate, outcome = _joined(ends, "replicate"), _joined(ends, "outcome")
    # From 1 on, as 0 is what censors.
    cause = np.where(outcome == OUTCOMES.index("max_iter"), CENSORED, outcome + 1)
    happened = np.zeros((len(cells), len(OUTCOMES)), bool)
    happened[curve, outcome] = True
    happened[:, OUTCOMES.index("converged")] = True
    for axis, column in zip(AXES, ("n_iter", "map_evaluations"), strict=True):
        rows = observed(curve, replicate, _joined(ends, column), cause)
        for place, name in enumerate(OUTCOMES):
            if name != "max_iter" and happened[:, place].any():
                labels = [_labels(cell.id, name, axis) for cell in cells]
                curves = _steps(cumulative_incidence(rows, place + 1), labels)
                yield from itertools.compress(curves, happened[:, place])


def _joined(ends: Sequence[Ends], name: str) -> Integers:
    return np.concatenate([getattr(each, name) for each in ends])


def first_rows(group: Recorded, distance: Reals, target: float) -> Integers:
    """Return the first row of each fit whose distance, (T,), is within `target`; -1: none, (F,)."""
    near = np.flatnonzero(distance <= target)
    place = np.searchsorted(near, group.first)
    row = np.append(near, -1)[place]
    return np.where(row < group.stop, row, -1)


def target_profiles(group: Recorded, cell: str, targets: dict[str, list[float]]) -> Iterator[Curve]:
    """Give the share of a cell's recorded fits that have come within each target.

    A fit that `max_iter` cut off above a gap is censored there, near-singular or not: it might have
    left the singularity. One that ended otherwise never reaches it.

    The distance of a row to the fixed point is at most that to the last row and what that one has
    left (`Ends.remaining`). Where a fit was cut off, or has more than the target left, nobody knows
    when it came within it, if it did: it counts as one that did not, and in `n_unknown`.
    Without a recorded fit there is no curve.
    """
    ends = group.ends
    if not len(ends.outcome):
        return
    cut, missed = ends.outcome == OUTCOMES.index("max_iter"), np.full(len(ends.outcome), COMPETING)
    converged = ends.outcome == OUTCOMES.index("converged")
    at_most = np.repeat(ends.remaining, group.stop - group.first)
    at_most += group.distances[TO_FIXED_POINT]
    labels, times, causes, unknown = [], [], [], []
    for quantity, distance, otherwise in (
        (GAP, group.distances[GAP], np.where(cut, CENSORED, COMPETING)),
        (TO_FIXED_POINT, at_most, missed),
    ):
        for target in targets[quantity]:
            row = first_rows(group, distance, target)
            untold = (cut | (converged & (row < 0))) & (quantity == TO_FIXED_POINT)
            for axis in AXES:
                at = np.append(group.at[axis], 0)  # there may be no row at all
                times.append(np.where(row < 0, ends.at(axis), at[row]))
                causes.append(np.where(row < 0, otherwise, EVENT))
                labels.append(_labels(cell, quantity, axis, target))
                unknown.append(int(untold.sum()))
    curve = np.repeat(np.arange(len(labels)), len(ends.outcome))
    replicate = np.tile(ends.replicate, len(labels))
    rows = observed(curve, replicate, np.concatenate(times), np.concatenate(causes))
    yield from _steps(cumulative_incidence(rows), labels, unknown=unknown)


def untold_targets(curves: Iterable[Curve]) -> list[float]:
    """Return the distances to the fixed point of which a study tells nothing, in their order.

    No fit is known to have come so near, and some may have.
    """
    told: dict[float, bool] = {}
    for curve in curves:
        if curve.labels["kind"] == TO_FIXED_POINT:
            target, columns = float(curve.labels["target"]), curve.columns
            tells = bool(columns["share"][-1] > 0.0 or columns["n_unknown"][-1] == 0)
            told[target] = told.get(target, False) or tells
    return [target for target, tells in told.items() if not tells]


def _costs(cells: Sequence[Ends], by_replicate: bool) -> tuple[Integers, Reals]:
    """Return the replicate of each problem, (P,), and what each cell spent on it, (cells, P).

    A fit costs its map evaluations and its init's, if it solved the problem: it converged, and to
    the reference, as a solver that stops elsewhere has solved another one. A replicate costs those
    of all its starts over the number of them that solved it. Infinite where none did.
    """
    replicates, costs = [], []
    for ends in cells:
        replicate, spent = ends.replicate, ends.map_evaluations.astype(float)
        converged = ends.outcome == OUTCOMES.index("converged")
        solved = (converged & ends.reached).astype(float)
        if by_replicate:
            spent, solved = np.bincount(replicate, spent), np.bincount(replicate, solved)
            replicate = np.arange(len(spent))
        replicates.append(replicate)
        costs.append(np.where(solved > 0, spent / np.maximum(solved, 1.0), np.inf))
    return replicates[0], np.array(costs)


def performance_profiles(cells: Sequence[Cell], ends: Sequence[Ends], kind: str) -> Iterator[Curve]:
    """Give the share of problems that each of several cells solved within a factor of the best.

    Parameters
    ----------
    cells, ends : cells that differ in one factor only, and the fits of each
    kind : str
        `algorithm_performance`: a problem is a replicate and start. `init_performance`: a problem
        is a replicate, as the starts of two inits have nothing in common.
    """
    replicate, costs = _costs(ends, by_replicate=kind == "init_performance")
    best = costs.min(axis=0)
    solved = np.isfinite(costs)
    ratios = np.where(solved, costs / np.where(np.isfinite(best), best, 1.0), 1.0)
    decades = int(np.ceil(np.log10(ratios.max()))) + 1
    factors = 10.0 ** (np.arange(PER_DECADE * decades + 1) / PER_DECADE)
    place = np.searchsorted(factors, ratios)
    place = np.where(solved, place, place.max())
    curve = np.repeat(np.arange(len(cells)), len(replicate))
    cause = np.where(solved, EVENT, COMPETING)
    rows = observed(curve, np.tile(replicate, len(cells)), place.ravel(), cause.ravel())
    labels = [_labels(cell.id, kind, "factor") for cell in cells]
    yield from _steps(cumulative_incidence(rows), labels, factors)


def rivals(plan: Plan) -> Iterator[tuple[str, list[int]]]:
    """Give the positions of cells that differ in their algorithm only, and in their init only."""
    for factor, other in (("algorithm", "init"), ("init", "algorithm")):
        groups: dict[tuple[str, str, str], dict[str, int]] = {}
        for position, cell in enumerate(plan.cells):
            levels = groups.setdefault((cell.data_set, cell.model, getattr(cell, other)), {})
            levels[getattr(cell, factor)] = position
        for levels in groups.values():
            if len(levels) > 1:
                yield f"{factor}_performance", list(levels.values())
