"""Where other stopping rules would have stopped the fits, read from their complete traces.

A stopping rule changes nothing about a trajectory but its end: what it compared is in the trace, to
the last bit, so that its stop is the one of an actual run with that rule.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config import method_and_options
from pipeline.core.algorithms import Options, first_armed
from pipeline.core.matching import order_of_components, reorder
from pipeline.core.mixture import Parameters, distance
from pipeline.core.outcomes import CONVERGED, DEGENERATE_SCALE, MAX_ITER, NONFINITE
from pipeline.core.stopping import criterion_of_rows
from pipeline.plan import Cell, Plan
from pipeline.tables import OUTCOMES, labelled, parameter_columns, replay_schema

FIT_COLUMNS = ["replicate", "start", "fit_id", "outcome", "sample_scale"]
# Fits times rules that are answered at a time: what bounds the memory.
MOST_ANSWERS = 1 << 18


class Query(NamedTuple):
    """A stopping rule."""

    rule: str
    tolerance: float
    patience: int


def queries(plan: Plan) -> list[Query]:
    """Return the rules that the configuration lists under `replay`, in its order."""
    return [
        Query(entry["rule"], tolerance, entry["patience"])
        for entry in plan.config["replay"]
        for tolerance in entry["tolerances"]
    ]


def rows_read(n_components: int) -> list[str]:
    """Return the columns of the traces table that `stops` reads."""
    keys = ["replicate", "start", "iteration", "map_evaluations", "log_likelihood"]
    return [*keys, "map_residual", "parameter_change", *parameter_columns(n_components)]


def stops(fits: pa.Table, rows: pa.Table, asked: list[Query], cell: Cell, plan: Plan) -> pa.Table:
    """Return where each rule stops each fit: one row per fit and rule, the rules of a fit together.

    Parameters
    ----------
    fits : Table
        F fits of a cell in order, with the columns `FIT_COLUMNS`.
    rows : Table
        All their trace rows in order, with `rows_read`; none of a fit that ended in an error.
    asked : list of Query
    cell : Cell
    plan : Plan

    Returns
    -------
    Table
        The columns that `docs/statistics.md` explains.
    """
    trace = {name: rows[name].to_numpy() for name in rows.column_names}
    theta = _parameters(trace, cell.n_components)
    outcome = pc.index_in(fits["outcome"], pa.array(OUTCOMES)).to_numpy()
    unit = fits["sample_scale"].to_numpy()
    places = np.arange(len(outcome))
    fit = trace["replicate"] * cell.starts + trace["start"]
    fit -= fits["replicate"][0].as_py() * cell.starts + fits["start"][0].as_py()
    begin, last = np.searchsorted(fit, places), np.searchsorted(fit, places, side="right") - 1

    traced = last >= begin
    smallest = np.full(len(outcome), np.nan)
    smallest[traced] = theta.scales[last[traced]].min(axis=1)
    healthy = smallest > plan.config["degeneracy"]["scale"] * unit
    most = plan.config["schedule"]["max_iter"]
    may_stop = trace["iteration"] >= _first_armed(cell, plan)
    may_stop[last[traced & _failed_at_last_row(outcome, healthy)]] = False

    # One entry for each fit and rule from here on.
    rules = dict.fromkeys(query.rule for query in asked)
    criteria = {rule: _criterion(rule, trace, cell) for rule in rules}
    found = [_first_stops(criteria[q.rule], q, may_stop, begin, last) for q in asked]
    stop, fires = (np.stack(part, axis=1).ravel() for part in zip(*found, strict=True))
    by_query = np.tile(np.arange(len(asked)), len(outcome))
    by_fit = np.repeat(places, len(asked))
    # Where a run that its own rule stopped ended before the rule fired, nobody knows.
    floored = _at_floor(theta, fit, unit, cell, plan)
    stopped = outcome == CONVERGED
    stopped[traced] |= floored[last[traced]] & (trace["iteration"][last[traced]] < most)
    known = fires | ~stopped[by_fit]
    there = known & traced[by_fit]
    at, at_end, of = stop[there], last[by_fit[there]], by_fit[there]

    def reals(values: NDArray[np.float64]) -> pa.Array:
        """Return a column from the values at the stops."""
        column = np.full(len(known), np.nan)
        column[there] = np.where(np.isfinite(values), values, np.nan)
        return pa.array(column, pa.float64(), from_pandas=True)

    def integers(values: NDArray[np.int64]) -> pa.Array:
        # A fit that ended in an error has no row, and no iteration.
        column = np.zeros(len(known), np.int64)
        column[there] = values[at]
        return pa.array(column, mask=~known)

    stop_value = np.empty(len(at))
    for q, query in enumerate(asked):
        its = by_query[there] == q
        stop_value[its] = criteria[query.rule][at[its]]
    estimate, end = (Parameters(*(part[i] for part in theta)) for i in (at, at_end))
    converged = (outcome == CONVERGED)[of]
    lost = trace["log_likelihood"][at_end] - trace["log_likelihood"][at]
    truth = plan.truth(cell)
    ordered = reorder(estimate, order_of_components(estimate, truth))
    to_truth = np.full(len(at), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_end = distance(estimate, end, unit[of])
        if truth is not None and truth.means.size == cell.n_components:
            to_truth = distance(ordered, truth, unit[of])
    fired = np.full(len(known), CONVERGED)
    fired[there] = np.where(floored[at], DEGENERATE_SCALE, CONVERGED)
    ends = pa.array(OUTCOMES).take(pa.array(np.where(fires, fired, outcome[by_fit])))
    columns = {
        "cell": pa.repeat(pa.scalar(cell.id), len(known)),
        **{name: fits[name].take(pa.array(by_fit)) for name in ("replicate", "start", "fit_id")},
        "stop_rule": pa.array([query.rule for query in asked]).take(pa.array(by_query)),
        "tolerance": np.array([float(query.tolerance) for query in asked])[by_query],
        "patience": np.array([query.patience for query in asked])[by_query],
        "outcome": pc.if_else(pa.array(known), ends, pa.scalar(None, pa.string())),
        "n_iter": integers(trace["iteration"]),
        "map_evaluations": integers(trace["map_evaluations"]),
        "log_likelihood": reals(trace["log_likelihood"][at]),
        "stop_value": reals(stop_value),
        "distance_to_fixed_point": reals(np.where(converged, to_end, np.nan)),
        "distance_to_truth": reals(to_truth),
        "log_likelihood_lost": reals(np.where(converged, lost, np.nan)),
    }
    parameters = np.concatenate(ordered, axis=1).T
    names = parameter_columns(cell.n_components)
    columns |= {name: reals(part) for name, part in zip(names, parameters, strict=True)}
    return labelled(pa.table(columns), cell, replay_schema(plan.n_components))


def _at_floor(
    theta: Parameters, fit: NDArray[np.int64], unit: NDArray, cell: Cell, plan: Plan
) -> NDArray[np.bool_]:
    """Tell at which rows a scale stands at its floor: a fit that ends there is degenerate."""
    floor = plan.config["degeneracy"]["scale_floor"]
    fixed = not isinstance(plan.config["model"][cell.model]["scales"], str)
    if floor is None or fixed:
        return np.zeros(len(fit), bool)
    return theta.scales.min(axis=1) <= floor * unit[fit]


def _parameters(trace: dict[str, NDArray], n_components: int) -> Parameters:
    names = np.array(parameter_columns(n_components)).reshape(3, n_components)
    return Parameters(*(np.stack([trace[name] for name in part], axis=1) for part in names))


def _first_armed(cell: Cell, plan: Plan) -> int:
    method, settings = method_and_options(plan.config["algorithm"][cell.algorithm])
    return first_armed(method, Options(**settings))


def _failed_at_last_row(outcome: NDArray, healthy: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which fits have a last row that is itself a failure, which no rule can take for its end.

    After numbers that are not finite the last row is the one before, where a rule may stop: so
    always with `nonfinite`, and with `degenerate_scale` where no scale of the last row is. One at
    its floor is a failure of the rule's own making.
    """
    ended_well = (outcome == CONVERGED) | (outcome == MAX_ITER) | (outcome == NONFINITE)
    return ~ended_well & ~((outcome == DEGENERATE_SCALE) & healthy)


def _criterion(rule: str, trace: dict[str, NDArray], cell: Cell) -> NDArray[np.float64]:
    # The population's mass is 1.
    mass = cell.sample_size if np.isfinite(cell.sample_size) else 1.0
    return criterion_of_rows(
        rule,
        trace["iteration"],
        trace["log_likelihood"],
        mass,
        trace["parameter_change"],
        trace["map_residual"],
    )


def _first_stops(
    criterion: NDArray[np.float64],
    query: Query,
    may_stop: NDArray[np.bool_],
    begin: NDArray[np.int64],
    last: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the row where a rule stops each fit, its last one if it does not, and whether it does.

    ``criterion`` and ``may_stop`` are (T,), ``begin`` and ``last``, a fit's first and last row,
    (F,). No rule is met at row 0, so that no streak goes on from one fit to the next.
    """
    met = may_stop & (criterion <= query.tolerance)
    if query.patience > 1:
        row = np.arange(len(met))
        met = row - np.maximum.accumulate(np.where(met, -1, row)) >= query.patience
    rows = np.append(np.flatnonzero(met), len(met))
    first = rows[np.searchsorted(rows, begin)]
    fires = first <= last
    return np.where(fires, first, last), fires
