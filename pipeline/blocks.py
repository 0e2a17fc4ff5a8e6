"""One block of fits of a cell: starts, EM, matching, tables."""

import logging
from collections.abc import Sequence
from pickle import PickleError

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import method_and_options
from pipeline.core.algorithms import Options
from pipeline.core.criteria import Criteria, criteria
from pipeline.core.distances import distances
from pipeline.core.evaluation import Mapping
from pipeline.core.fitting import (
    Degeneracy,
    Fits,
    Schedule,
    Trace,
    fit,
    geometric_iterations,
)
from pipeline.core.information import standard_errors
from pipeline.core.matching import order_of_components, reorder
from pipeline.core.mixture import Parameters
from pipeline.core.model import Model, make_model
from pipeline.core.outcomes import WITH_ESTIMATE, Outcome
from pipeline.core.random import key_from_hex
from pipeline.core.refinement import Task, fit_compressed, fit_population, log_likelihoods
from pipeline.core.starts import draw_population_starts, draw_starts
from pipeline.plan import Cell, Plan
from pipeline.store import Block, Rows
from pipeline.tables import OUTCOMES, measure_columns, parameter_columns

log = logging.getLogger(__name__)

# Bounds of a block: fits (what an interruption loses), sample values (work, so that threads share a
# cell) and trace rows (memory).
MOST_FITS = 8192
MOST_VALUES = 1 << 18
MOST_ROWS = 1 << 22
LEAST_REPLICATES = 8


def block_size(plan: Plan, cell: Cell) -> int:
    """Return how many replicates make a block; it depends on the configuration alone."""
    schedule = plan.config["schedule"]
    recorded = recorded_iterations(schedule)
    rows = 1 + (schedule["max_iter"] if recorded is None else len(recorded))
    by_rows = max(LEAST_REPLICATES, MOST_ROWS // (rows * cell.starts))
    by_values = max(1, int(MOST_VALUES // cell.sample_size))
    return max(1, min(MOST_FITS // cell.starts, by_rows, by_values))


def recorded_iterations(schedule: dict) -> np.ndarray | None:
    """Return the iterations that a traced fit keeps, or None for all of them."""
    record = schedule["record"]
    if record == "all":
        return None
    if record == "geometric":
        return geometric_iterations(schedule["max_iter"])
    return np.array(sorted(record), np.int64)


def cell_model(plan: Plan, cell: Cell) -> Model:
    """Return what EM estimates in a cell, as the core takes it."""
    model = plan.config["model"][cell.model]
    return make_model(cell.n_components, model["weights"], model["means"], model["scales"])


def fit_block(
    plan: Plan, cell: Cell, points: np.ndarray | None, block: Block, mapping: Mapping = map
) -> Rows:
    """Fit a block.

    Parameters
    ----------
    points : float64, shape (stop - first, sample_size), or None
        The samples of the block's replicates; None for the population.
    mapping : callable
        ``map``, or a pool's, which shares the points of large samples out between threads.

    Returns
    -------
    Rows
        As they are stored: without labels, components in their final order.
    """
    replicates = np.arange(block.first, block.stop)
    starts = np.arange(block.first_start, block.stop_start)
    truth = plan.truth(cell)
    try:
        found = _fits(plan, cell, points, replicates, starts, truth, mapping)
        fits, relabelled = _ordered(found, truth)
    except (MemoryError, OSError, EOFError, PickleError):
        # Of the machine, not of a fit: compiled code that a disk has no room for, or has damaged.
        raise
    except Exception:
        if len(replicates) > 1:
            # One unexpected failure must not take the block's other fits with it.
            parts = [
                fit_block(
                    plan,
                    cell,
                    None if points is None else points[i : i + 1],
                    block._replace(first=r, stop=r + 1),
                    mapping,
                )
                for i, r in enumerate(replicates.tolist())
            ]
            return Rows(*(pa.concat_tables(tables) for tables in zip(*parts, strict=True)))
        log.exception("cell %s, replicate %d: outcome 'error'", cell.id, block.first)
        fits, relabelled = _failed(len(starts), cell.n_components), pa.nulls(len(starts))
    at_truth = np.full(len(replicates), np.nan)
    if truth is not None:
        at_truth = log_likelihoods(points, truth, mapping)
    model = cell_model(plan, cell)
    return block_tables(
        fits,
        relabelled,
        criteria(points, fits.parameters, fits.log_likelihood, model, mapping),
        _measured(plan.config["measures"], fits, points, truth, model, mapping),
        np.repeat(replicates, len(starts)),
        np.tile(starts, len(replicates)),
        np.repeat(at_truth, len(starts)),
        plan.config["schedule"]["stop"]["rule"],
    )


def _fits(
    plan: Plan,
    cell: Cell,
    points: np.ndarray | None,
    replicates: np.ndarray,
    starts: np.ndarray,
    truth: Parameters | None,
    mapping: Mapping,
) -> Fits:
    config, schedule = plan.config, plan.config["schedule"]
    init, options = method_and_options(config["init"][cell.init])
    algorithm, settings = method_and_options(config["algorithm"][cell.algorithm])
    key = key_from_hex(cell.start_key)
    kept = schedule["record_replicates"]
    traced = np.full(len(replicates), True) if kept == "all" else replicates < kept
    task = Task(
        cell_model(plan, cell),
        algorithm,
        Schedule(
            max_iter=schedule["max_iter"],
            rule=schedule["stop"]["rule"],
            tolerance=schedule["stop"]["tolerance"] or 0.0,
            record=recorded_iterations(schedule),
            patience=schedule["stop"]["patience"],
        ),
        Degeneracy(**config["degeneracy"]),
        Options(**settings),
    )
    if points is None:
        assert truth is not None and cell.node_tolerance is not None, "a population is a mixture"
        theta = draw_population_starts(init, task.model, truth, key, starts, options)
        return fit_population(truth, theta, task, cell.node_tolerance, traced)
    theta = draw_starts(init, points, task.model, truth, key, replicates, starts, options)
    if cell.node_tolerance is not None:
        return fit_compressed(points, theta, task, cell.node_tolerance, traced, mapping)
    return fit(points, np.ones(points.shape[1]), theta, *task, traced)


def _ordered(fits: Fits, truth: Parameters | None) -> tuple[Fits, pa.Array]:
    """Put components into the order of the truth, or by mean where there is none to match.

    Returns
    -------
    fits : Fits
    relabelled : bool array, shape (F,)
        Whether matching to the truth permuted the components; null where nothing was matched.
    """
    parameters = fits.parameters
    order = order_of_components(parameters, truth)
    unmatched: NDArray[np.bool_] = np.ones(len(order), bool)
    if truth is not None and truth.means.size == parameters.means.shape[1]:
        finite = np.isfinite(parameters.means + parameters.scales)
        unmatched = ~np.asarray(finite.all(axis=1))
    permuted = (order != np.arange(order.shape[1])).any(axis=1)
    trace = fits.trace
    ordered = fits._replace(
        parameters=reorder(parameters, order),
        trace=trace._replace(parameters=reorder(trace.parameters, order[trace.fit])),
    )
    return ordered, pa.array(permuted, mask=unmatched)


def _measured(
    measures: Sequence[str],
    fits: Fits,
    points: np.ndarray | None,
    truth: Parameters | None,
    model: Model,
    mapping: Mapping,
) -> dict[str, np.ndarray]:
    """Return the columns that the config key `measures` asks for, by name, shape (F,) each."""
    values: list[np.ndarray] = []
    for measure in measures:
        if measure == "wald":
            sound = np.isin(fits.outcome, WITH_ESTIMATE)
            errors = standard_errors(points, fits.parameters, model, sound, mapping)
            values += [column for part in errors for column in part.T]
        else:
            values += distances(fits.parameters, truth)
    names = [name for m in measures for name in measure_columns(m, model.n_components)]
    return dict(zip(names, values, strict=True))


def _failed(n_fits: int, n_components: int) -> Fits:
    """Return rows of outcome `error`: no estimate, no trace."""

    def none(n: int) -> Parameters:
        return Parameters(*(np.full((n, n_components), np.nan) for _ in range(3)))

    integers, empty = np.zeros(n_fits, np.int64), np.zeros(0, np.int64)
    missing = np.full(n_fits, np.nan)
    return Fits(
        outcome=np.full(n_fits, Outcome.ERROR, np.int8),
        n_iter=integers,
        map_evaluations=integers,
        log_likelihood=missing,
        log_likelihood_start=missing,
        map_residual=missing,
        compression_error_bound=missing,
        likelihood_evaluations=integers,
        stop_value=missing,
        rate_observed=missing,
        rate_theory=missing,
        n_floored=integers,
        stopped=np.zeros(n_fits, bool),
        log_penalty=missing,
        sample_scale=missing,
        parameters=none(n_fits),
        trace=Trace(empty, empty, empty, np.zeros(0), np.zeros(0), np.zeros(0), none(0)),
    )


def _reals(values: np.ndarray) -> pa.Array:
    """Return float64 with not-a-number as null: a table says 'missing' in one way only."""
    return pa.array(values, pa.float64(), from_pandas=True)


def _parameters(parameters: Parameters) -> dict[str, pa.Array]:
    names = parameter_columns(parameters.means.shape[1])
    columns = (column for part in parameters for column in part.T)
    return dict(zip(names, map(_reals, columns), strict=True))


def block_tables(
    fits: Fits,
    relabelled: pa.Array,
    chosen_by: Criteria,
    measured: dict[str, np.ndarray],
    replicates: np.ndarray,
    starts: np.ndarray,
    log_likelihood_truth: np.ndarray,
    rule: str,
) -> Rows:
    """Turn a block of fits into the tables that are stored, without the cell's labels.

    Parameters
    ----------
    fits : Fits
        Of F fits and T recorded rows, components already in the order of the tables.
    relabelled : bool or null array, shape (F,)
        Whether that order, matched to the truth, is another one than the algorithm's.
    chosen_by : Criteria
        Of the estimates.
    measured : dict of float64 arrays, shape (F,)
        More columns by name.
    replicates, starts : int64 arrays, shape (F,)
    log_likelihood_truth : float64 array, shape (F,)
        Not-a-number where there is no truth.
    rule : str
        The stopping rule.
    """
    unfired = ~fits.stopped
    rules = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(len(unfired), np.int8), mask=unfired), [rule]
    )
    outcomes = pa.DictionaryArray.from_arrays(pa.array(fits.outcome, pa.int8()), list(OUTCOMES))
    fit_columns = {
        "replicate": replicates,
        "start": starts,
        "outcome": outcomes.cast(pa.string()),
        "n_iter": fits.n_iter,
        "map_evaluations": fits.map_evaluations,
        "log_likelihood": _reals(fits.log_likelihood),
        "log_likelihood_start": _reals(fits.log_likelihood_start),
        "log_likelihood_truth": _reals(log_likelihood_truth),
        "rate_observed": _reals(fits.rate_observed),
        "rate_theory": _reals(fits.rate_theory),
        "map_residual": _reals(fits.map_residual),
        "compression_error_bound": _reals(fits.compression_error_bound),
        "likelihood_evaluations": fits.likelihood_evaluations,
        "n_floored": fits.n_floored,
        "log_penalty": _reals(fits.log_penalty),
        "stop_rule": rules.cast(pa.string()),
        "stop_value": _reals(fits.stop_value),
        "sample_scale": _reals(fits.sample_scale),
        **{name: _reals(values) for name, values in chosen_by._asdict().items()},
        **{name: _reals(values) for name, values in measured.items()},
        **_parameters(fits.parameters),
        "relabelled": relabelled.cast(pa.bool_()),
    }
    trace = fits.trace
    trace_columns = {
        "replicate": replicates[trace.fit],
        "start": starts[trace.fit],
        "iteration": trace.iteration,
        "map_evaluations": trace.map_evaluations,
        "log_likelihood": _reals(trace.log_likelihood),
        "map_residual": _reals(trace.map_residual),
        "parameter_change": _reals(trace.parameter_change),
        **_parameters(trace.parameters),
    }
    return Rows(pa.table(fit_columns), pa.table(trace_columns))
