"""Fits to a measure in the place of the points: compressed samples, and the population.

Every fit is made on coarse nodes and again on finer ones, until two runs in a row agree: same
outcome, same number of iterations, and every recorded parameter within the tolerance. The finer run
is returned, and the difference of the two recorded as its error bound: each halving of the width
divides the error by more than a hundred.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.algorithms import Options
from pipeline.core.compression import bin_points, levels, nodes_of
from pipeline.core.evaluation import Mapping, evaluate
from pipeline.core.fitting import (
    DEFAULT_DEGENERACY,
    DEFAULT_OPTIONS,
    Fits,
    Schedule,
    Trace,
    fit,
    joined,
    last_rows,
    raised,
    taken,
)
from pipeline.core.lanes import units
from pipeline.core.mixture import Parameters, distance, mixture_standard_deviation
from pipeline.core.model import FIXED, SYMMETRIC, Model, make_model
from pipeline.core.outcomes import CONVERGED, MAX_ITER, Degeneracy
from pipeline.core.population import population_nodes

# From this many points on, compressing a sample costs less than it saves.
FEWEST_POINTS = 20_000
# Nodes per point at which the points themselves are used.
MOST_NODES = 0.25
# A fit on bins is believed where all its scales have at least this many widths; and where they have
# this many more, what two runs differ by is rounding.
WIDTHS_PER_SCALE = 4.0
WIDTHS_OF_ROUNDING = 32.0
# Widths of a population's panels, in scales.
PANELS = (0.5, 0.25, 0.125, 0.0625)


class Task(NamedTuple):
    """What is fitted and how: the arguments of ``pipeline.core.fitting.fit`` of these names."""

    model: Model
    algorithm: str
    schedule: Schedule
    degeneracy: Degeneracy = DEFAULT_DEGENERACY
    options: Options = DEFAULT_OPTIONS


def fit_compressed(
    points: NDArray[np.float64],
    starts: Parameters,
    task: Task,
    tolerance: float,
    traced: NDArray[np.bool_] | None = None,
    mapping: Mapping = map,
) -> Fits:
    """Fit every start of every large sample on the Gauss rules of its bins.

    The last log-likelihood and the map residual are evaluated on the points themselves. A fit that
    no bins resolve (a scale shrinks towards 0) is made on the points.

    Parameters
    ----------
    points : float64, shape (R, n)
    starts : Parameters, shape (R, S, K)
    task : Task
    tolerance : float
        Bound of the error of every recorded parameter, in units (1 for weights, else the sample's
        standard deviation).
    traced : bool, shape (R,)
        See ``pipeline.core.fitting.fit``.
    mapping : callable
        ``map``, or a pool's, which shares the points out between threads.
    """
    parts = []
    for r, sample in enumerate(points):
        row = Parameters(*(part[r : r + 1] for part in starts))
        row = raised(points[r : r + 1], np.ones(sample.size), row, task.model, task.degeneracy)
        of_sample = Parameters(*(part[0] for part in row))
        keep = traced is None or bool(traced[r])
        parts.append(_fit_sample(sample, of_sample, task, tolerance, keep, mapping))
    return joined(parts)


def _fit_sample(
    points: NDArray[np.float64],
    starts: Parameters,
    task: Task,
    tolerance: float,
    keep: bool,
    mapping: Mapping,
) -> Fits:
    bins = bin_points(points, mapping)
    # Nodes are not rounded to the floats around the data: they are measured from near their mean.
    origin = 0.0 if task.model.means == SYMMETRIC else bins.centre
    moved = starts._replace(means=starts.means - origin)
    pending = np.arange(len(starts.means))
    parts, places = [], []
    before = None
    for wide in levels(bins):
        nodes, masses = nodes_of(wide, origin)
        if nodes.size > MOST_NODES * points.size:
            break
        now = _fit_nodes(nodes, masses, _rows(moved, pending), task)
        measure = units(nodes, masses, task.model)
        smallest = _smallest_scales(now)
        done = np.zeros(len(pending), bool)
        if before is not None:
            same, error = _difference(before, now, measure[0])
            done = same & (error <= tolerance) & (smallest >= WIDTHS_PER_SCALE * wide.width)
            done |= _ended_well(now) & (smallest >= WIDTHS_OF_ROUNDING * wide.width)
            if done.any():
                chosen = taken(now._replace(compression_error_bound=error), done)
                chosen = _evaluated(chosen, points, origin, task, measure, mapping)
                parts.append(_restored(chosen, _rows(starts, pending[done]), origin, task, keep))
                places.append(pending[done])
        before, pending = taken(now, ~done), pending[~done]
        if not pending.size:
            break
    if pending.size:
        left = Parameters(*(part[None] for part in _rows(starts, pending)))
        exact = fit(
            points[None], np.ones(points.size), left, task.model, task.algorithm, task.schedule,
            task.degeneracy, task.options, np.array([keep]),
        )  # fmt: skip
        parts.append(exact)
        places.append(pending)
    return joined(parts, np.concatenate(places))


def fit_population(
    truth: Parameters,
    starts: Parameters,
    task: Task,
    tolerance: float,
    traced: NDArray[np.bool_] | None = None,
) -> Fits:
    """Fit every start to the population itself; log-likelihoods are for mass 1.

    A penalty, which does not grow with the sample, vanishes beside the population's likelihood.

    Parameters
    ----------
    truth : Parameters, shape (K_true,)
    starts : Parameters, shape (1, S, K)
    task : Task
    tolerance : float
    traced : bool, shape (1,)
        See ``fit_compressed``.
    """
    parts = []
    keep = traced is None or bool(traced[0])
    task = task._replace(degeneracy=replace(task.degeneracy, penalty=None))
    if task.degeneracy.scale_floor is not None and task.model.scales != FIXED:
        least = task.degeneracy.scale_floor * mixture_standard_deviation(truth)
        starts = starts._replace(scales=np.maximum(starts.scales, least))
    for s in range(starts.means.shape[1]):
        start = Parameters(*(part[0, s : s + 1] for part in starts))
        seen, before = start, None
        for width in PANELS:
            nodes, masses = population_nodes(truth, seen.means.ravel(), seen.scales.ravel(), width)
            now = _fit_nodes(nodes, masses, start, task)
            if before is not None:
                same, error = _difference(before, now, units(nodes, masses, task.model)[0])
                now = now._replace(compression_error_bound=error)
                if same[0] and error[0] <= tolerance:
                    break
            before, seen = now, _path(now)
        parts.append(_restored(now, start, 0.0, task, keep))
    return joined(parts)


def log_likelihoods(
    points: NDArray[np.float64] | None, parameters: Parameters, mapping: Mapping = map
) -> NDArray[np.float64]:
    """Return the log-likelihood of each sample, a row of ``points`` (R, n), under one mixture.

    A total over the sample, shape (R,), by the kernel that fits. Without points: the one of the
    mixture's own population, for mass 1, shape (1,).
    """
    model = make_model(parameters.means.size)
    task = Task(model, "em", Schedule(0))
    if points is None:
        start = Parameters(*(part[None, None] for part in parameters))
        return fit_population(parameters, start, task, np.inf).log_likelihood_start
    if points.shape[1] < FEWEST_POINTS:
        shape = (len(points), 1, model.n_components)
        starts = Parameters(*(np.broadcast_to(part, shape) for part in parameters))
        return fit(points, np.ones(points.shape[1]), starts, *task).log_likelihood_start
    offset = float(np.sum(parameters.weights * parameters.means))
    exponent = math.frexp(mixture_standard_deviation(parameters))[1]
    moved = parameters._replace(means=parameters.means - offset)
    found = [evaluate(row, moved, model, (1.0, offset, exponent), mapping)[0] for row in points]
    return np.array(found)


def _rows(parameters: Parameters, chosen: NDArray) -> Parameters:
    return Parameters(*(part[chosen] for part in parameters))


def _fit_nodes(
    nodes: NDArray[np.float64], masses: NDArray[np.float64], starts: Parameters, task: Task
) -> Fits:
    """Fit the starts (S, K), recording iterations 2^i besides those that are wanted."""
    schedule = task.schedule
    if schedule.record is not None:
        powers = 2 ** np.arange(max(1, schedule.max_iter).bit_length())
        powers = powers[powers <= schedule.max_iter]
        schedule = schedule._replace(record=np.union1d(schedule.record, powers))
    batch = Parameters(*(part[None] for part in starts))
    return fit(
        nodes[None], masses, batch, task.model, task.algorithm, schedule, task.degeneracy,
        task.options, all_lanes=True,
    )  # fmt: skip


def _difference(before: Fits, now: Fits, unit: float) -> tuple[NDArray, NDArray]:
    """Compare two runs of the same fits.

    Returns
    -------
    same : bool, shape (F,)
        Whether outcome and number of iterations are equal.
    error : float64, shape (F,)
        Largest difference of a recorded parameter, in units; of the last row where not the same.
    """
    same = (before.outcome == now.outcome) & (before.n_iter == now.n_iter)
    error = distance(before.parameters, now.parameters, unit)
    rows = same[now.trace.fit]
    left = _rows(before.trace.parameters, same[before.trace.fit])
    right = _rows(now.trace.parameters, rows)
    np.maximum.at(error, now.trace.fit[rows], distance(left, right, unit))
    return same, error


def _ended_well(fits: Fits) -> NDArray[np.bool_]:
    return np.isin(fits.outcome, (CONVERGED, MAX_ITER))


def _smallest_scales(fits: Fits) -> NDArray[np.float64]:
    """Return the smallest scale in the recorded rows of each fit, shape (F,)."""
    smallest = fits.parameters.scales.min(axis=1)
    np.minimum.at(smallest, fits.trace.fit, fits.trace.parameters.scales.min(axis=1))
    return smallest


def _path(fits: Fits) -> Parameters:
    """Return the parameters at the start, the iterations 2^i and the end."""
    iteration = fits.trace.iteration
    chosen = (iteration & (iteration - 1)) == 0
    chosen[-1] = True
    return _rows(fits.trace.parameters, chosen)


def _evaluated(
    fits: Fits,
    points: NDArray[np.float64],
    origin: float,
    task: Task,
    measure: tuple[float, float, int],
    mapping: Mapping,
) -> Fits:
    """Put log-likelihood and map residual at the last rows as they are on the points."""
    unit, offset, exponent = measure
    log_likelihood, residual = fits.log_likelihood.copy(), fits.map_residual.copy()
    for i in range(len(fits.outcome)):
        last = Parameters(*(part[i] for part in fits.parameters))
        last = last._replace(means=last.means - offset)
        log_likelihood[i], residual[i] = evaluate(
            points, last, task.model, (unit, origin + offset, exponent), mapping, task.degeneracy
        )
    trace = fits.trace.log_likelihood.copy()
    trace[last_rows(fits.trace)] = log_likelihood
    return fits._replace(
        log_likelihood=log_likelihood,
        map_residual=residual,
        trace=fits.trace._replace(log_likelihood=trace),
    )


def _restored(fits: Fits, starts: Parameters, origin: float, task: Task, keep: bool) -> Fits:
    """Return fits in the data's coordinates, with the rows that were asked for."""
    trace = fits.trace
    wanted = trace.iteration == 0
    wanted[last_rows(trace)] = True
    if keep:
        record = task.schedule.record
        wanted |= True if record is None else np.isin(trace.iteration, record)
    moved = trace.parameters._replace(means=trace.parameters.means + origin)
    # Row 0 is the start, to the last bit.
    first = (trace.iteration == 0)[:, None]
    exact = [np.where(first, s[trace.fit], m) for s, m in zip(starts, moved, strict=True)]
    at_end = last_rows(trace)
    return fits._replace(
        parameters=Parameters(*(part[at_end] for part in exact)),
        trace=Trace(
            trace.fit[wanted],
            trace.iteration[wanted],
            trace.map_evaluations[wanted],
            trace.log_likelihood[wanted],
            trace.map_residual[wanted],
            trace.parameter_change[wanted],
            Parameters(*(part[wanted] for part in exact)),
        ),
    )
