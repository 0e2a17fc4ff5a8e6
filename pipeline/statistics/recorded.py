"""How a cell's fits ended, and how far their recorded rows are from where they should be.

Distances are max-norms over the parameters in units: 1 for weights, the sample's standard deviation
for means and scales.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.plan import Cell, Plan
from pipeline.statistics.replicates import evaluations_before_row_0, in_plan_order
from pipeline.tables import OUTCOMES, parameter_columns

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]
# From a column of the traces table to its values.
Column = Callable[[str], np.ndarray]

AXES = ("iteration", "map_evaluations")
GAP, TO_FIXED_POINT, TO_TRUTH = (
    "log_likelihood_gap",
    "distance_to_fixed_point",
    "distance_to_truth",
)


class Ends(NamedTuple):
    """How F fits of a cell ended, by replicate and start; each (F,).

    `outcome` is the place in `OUTCOMES`. `map_evaluations` are those of the fit and of its init.
    `reference` is the log-likelihood that the fit is measured from, missing for one that is not
    eligible, and `reached` whether it came there (see `references`). `remaining` is how far, to
    first order, the last row is from the fixed point (see `distance_left`).
    """

    replicate: Integers
    start: Integers
    outcome: Integers
    n_iter: Integers
    map_evaluations: Integers
    sample_scale: Reals
    reference: Reals
    reached: NDArray[np.bool_]
    remaining: Reals

    def at(self, axis: str) -> Integers:
        """Return where each fit ended on an axis."""
        return self.n_iter if axis == "iteration" else self.map_evaluations


def first_order_distance(map_residual: Any, rate: Any) -> Any:
    """Return how far estimates are from their fixed points, (F,), in units; nan where no rate < 1.

    With f the map residual and J the Jacobian of the EM map, theta - theta* = (I - J)^-1 f to first
    order, so that f / (1 - rate) bounds it in the norm in which J is symmetric. It is exact for an
    error along the slowest direction.
    """
    return map_residual / np.where(rate < 1.0, 1.0 - rate, np.nan)


def distance_left(map_residual: Reals, rate: Reals) -> Reals:
    """Return how far estimates are from their fixed points, to first order, in units.

    Without a rate below 1 it is infinite: nobody knows; but 0 where the map residual is.
    """
    left = first_order_distance(map_residual, rate)
    return np.where(map_residual == 0.0, 0.0, np.where(rate < 1.0, left, np.inf))


def ends_of_cells(fits: pd.DataFrame, beside: pd.DataFrame, plan: Plan) -> list[Ends]:
    """Return how the fits ended, cell by cell; `beside` is what `derived` gave for them."""
    names = ["cell", "replicate", "start", "outcome", "n_iter", "map_evaluations", "sample_scale"]
    ordered = in_plan_order(fits[[*names, "map_residual", "rate_theory"]], plan)
    code, levels = pd.factorize(ordered["outcome"])
    outcome = np.array([OUTCOMES.index(level) for level in levels])[code]
    eligible = beside["log_likelihood_gap"].notna()
    reference = beside["reference_log_likelihood"].where(eligible).to_numpy()
    replicate, start, _, n_iter, evaluations, scale = (
        ordered[name].to_numpy() for name in names[1:]
    )
    spent = evaluations + evaluations_before_row_0(plan)[ordered["position"]]
    reached = beside["reached_reference"].to_numpy(bool)
    residual, rate = (ordered[name].to_numpy(float) for name in ("map_residual", "rate_theory"))
    columns = (
        replicate, start, outcome, n_iter, spent, scale.astype(float), reference, reached,
        distance_left(residual, rate),
    )  # fmt: skip
    bounds = np.searchsorted(ordered["position"], np.arange(len(plan.cells) + 1))
    return [_taken(Ends(*columns), slice(a, b)) for a, b in pairwise(bounds.tolist())]


def _taken(ends: Ends, some: slice) -> Ends:
    return Ends._make(values[some] for values in ends)


class Recorded(NamedTuple):
    """F fits of a cell that are recorded in full, and their T rows, by fit and iteration.

    `first` and `stop` say where the rows of a fit begin and end, (F,); the outcome `error` leaves
    none. `at` are the rows' places on each axis (the init's evaluations come before row 0), and
    `distances` what they are away, by quantity; each (T,). A distance is infinite where what it is
    measured from does not exist for this fit: the gap of a fit that is not eligible, the fixed
    point of one that has not converged.
    """

    ends: Ends
    first: Integers
    stop: Integers
    at: dict[str, Integers]
    distances: dict[str, Reals]


def _log_penalty(
    cell: Cell, plan: Plan, ends: Ends, of_rows: Callable[[np.ndarray], np.ndarray], column: Column
) -> np.ndarray | float:
    """Return what a penalty of scales adds to the log-likelihood of each row (see `core.em`)."""
    penalty = plan.config["degeneracy"]["penalty"]
    if penalty is None or cell.sample_size == math.inf:
        return 0.0
    if not isinstance(plan.config["model"][cell.model]["scales"], str):
        return 0.0  # fixed scales are left alone
    total: np.ndarray | float = 0.0
    for k in range(cell.n_components):
        ratio = (of_rows(ends.sample_scale) / column(f"scale_{k}")) ** 2
        total = total + ratio - np.log(ratio)
    return -penalty / cell.sample_size * total


def recorded(cell: Cell, plan: Plan, ends: Ends, column: Column) -> Recorded:
    """Measure how far the rows of a cell's fits are from the reference, their end and the truth.

    Parameters
    ----------
    ends : Ends
        Of all fits of the cell; those whose traces keep only two rows are left out.
    column : callable
        From a name to that column of the traces of the others, by replicate, start and iteration.
    """
    kept = plan.config["schedule"]["record_replicates"]
    if kept != "all":
        ends = _taken(ends, slice(int(np.searchsorted(ends.replicate, kept))))
    fit_number = ends.replicate * cell.starts + ends.start
    row_number = column("replicate") * cell.starts + column("start")
    first = np.searchsorted(row_number, fit_number)
    stop = np.searchsorted(row_number, fit_number, side="right")
    lengths = stop - first

    def of_rows(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, lengths)

    penalised = column("log_likelihood") + _log_penalty(cell, plan, ends, of_rows, column)
    gap = of_rows(ends.reference) - penalised
    distances = {GAP: np.where(np.isnan(gap), np.inf, gap)}
    unit = of_rows(np.where(ends.sample_scale > 0.0, ends.sample_scale, np.nan))
    last = of_rows(stop - 1)
    to_end = np.zeros(len(row_number))
    truth = plan.truth(cell)
    known = truth is not None and len(truth.means) == cell.n_components
    true = np.concatenate(truth) if known and truth is not None else ()
    to_truth = np.zeros(len(row_number)) if known else None
    for place, name in enumerate(parameter_columns(cell.n_components)):
        values = column(name)
        units = 1.0 if name.startswith("weight") else unit
        np.maximum(to_end, np.abs(values - values[last]) / units, out=to_end)
        if to_truth is not None:
            np.maximum(to_truth, np.abs(values - true[place]) / units, out=to_truth)
    fixed = of_rows(ends.outcome == OUTCOMES.index("converged")) & ~np.isnan(to_end)
    distances[TO_FIXED_POINT] = np.where(fixed, to_end, np.inf)
    # Hard assignments have no rate, and stand still at last.
    stands = np.append(distances[TO_FIXED_POINT], np.inf)[np.maximum(stop - 2, first)] == 0.0
    stands &= np.isinf(ends.remaining) & (lengths > 1)
    ends = ends._replace(remaining=np.where(stands, 0.0, ends.remaining))
    if to_truth is not None:
        distances[TO_TRUTH] = np.where(np.isnan(to_truth), np.inf, to_truth)
    spent = column("map_evaluations") + plan.init_evaluations(cell)
    at = dict(zip(AXES, (column("iteration"), spent), strict=True))
    return Recorded(ends, first, stop, at, distances)
