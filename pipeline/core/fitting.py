"""Fits: the core's interface to the loop over EM iterations."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core import loop
from pipeline.core.algorithms import ALGORITHMS, Options, choice
from pipeline.core.compilation import compiled
from pipeline.core.lanes import POINTS_FOR_ALL_LANES, units
from pipeline.core.mixture import Parameters
from pipeline.core.model import FIXED, Model
from pipeline.core.outcomes import CONVERGED, Degeneracy
from pipeline.core.rates import rate_theory
from pipeline.core.stopping import STOPPING_RULES

DEFAULT_DEGENERACY = Degeneracy()
DEFAULT_OPTIONS = Options()
NO_TRACE: Any = ()  # a table without columns


class Schedule(NamedTuple):
    """When a fit stops and which rows its trace keeps.

    ``rule`` is one of ``STOPPING_RULES``, which must be met ``patience`` times in a row;
    ``record`` is None for every iteration, or the sorted iterations to keep (row 0 and the last
    row are always kept).
    """

    max_iter: int
    rule: str = "never"
    tolerance: float = 0.0
    record: NDArray[np.int64] | None = None
    patience: int = 1


class Trace(NamedTuple):
    """The recorded rows of all fits, T in total, by fit and then by iteration.

    Row t of a fit holds theta_t and the log-likelihood at theta_t; ``parameters`` are (T, K).
    ``map_residual`` is max |M(theta) - theta| of the map evaluation that led to row t and
    ``parameter_change`` max |theta_t - theta_(t-1)|, both in units and as the stopping rules
    compared them: not-a-number at row 0.
    """

    fit: NDArray[np.int64]
    iteration: NDArray[np.int64]
    map_evaluations: NDArray[np.int64]
    log_likelihood: NDArray[np.float64]
    map_residual: NDArray[np.float64]
    parameter_change: NDArray[np.float64]
    parameters: Parameters


class Fits(NamedTuple):
    """One entry per fit: its outcome, its last trace row, and what is known about it.

    Fit ``r * n_starts + s`` is start s of replicate r. ``parameters`` are (F, K).
    ``map_residual`` is max |M(theta) - theta| in units at the last row, ``stop_value`` what the
    stopping rule compared with its tolerance there, ``rate_observed`` the factor by which an
    iteration shrank the residual in the end, ``rate_theory`` the spectral radius of the EM map's
    Jacobian (both of converged fits): not-a-number where they do not exist.
    ``likelihood_evaluations`` are the passes over the sample beside those of map evaluations.
    ``compression_error_bound`` is 0 for fits to the points themselves. ``n_floored``: at how many
    rows, row 0 included, a scale stood at its floor. ``sample_scale`` is the unit of means and
    scales, the sample's standard deviation (divisor: the total mass). ``stopped``: whether the
    stopping rule ended the fit. ``log_penalty``: what a penalty of scales adds to the
    log-likelihood at the last row, 0 without one.
    """

    outcome: NDArray[np.int8]
    n_iter: NDArray[np.int64]
    map_evaluations: NDArray[np.int64]
    log_likelihood: NDArray[np.float64]
    log_likelihood_start: NDArray[np.float64]
    map_residual: NDArray[np.float64]
    compression_error_bound: NDArray[np.float64]
    likelihood_evaluations: NDArray[np.int64]
    stop_value: NDArray[np.float64]
    rate_observed: NDArray[np.float64]
    rate_theory: NDArray[np.float64]
    n_floored: NDArray[np.int64]
    sample_scale: NDArray[np.float64]
    stopped: NDArray[np.bool_]
    log_penalty: NDArray[np.float64]
    parameters: Parameters
    trace: Trace


def geometric_iterations(max_iter: int) -> NDArray[np.int64]:
    """Return 0 and the distinct round(10^(j/24)) up to ``max_iter``: dense, then 10 % apart.

    The powers of ten are among them.
    """
    rounded = (round(10 ** (j / 24)) for j in range(24 * len(str(max_iter)) + 1))
    return np.array(sorted({0, *(i for i in rounded if i <= max_iter)}), dtype=np.int64)


def last_rows(trace: Trace) -> NDArray[np.int64]:
    """Return where the last row of each fit stands, shape (F,)."""
    return np.append(np.flatnonzero(np.diff(trace.fit)), len(trace.fit) - 1)


def _column_wise(function: Callable[..., NDArray], *tables: Any) -> Any:
    """Apply a function to each column of (nested) named tuples of columns."""
    if isinstance(tables[0], tuple):
        columns = zip(*tables, strict=True)
        return type(tables[0])(*(_column_wise(function, *column) for column in columns))
    return function(*tables)


def taken(fits: Fits, chosen: NDArray[np.bool_]) -> Fits:
    """Return some of the fits, numbered anew; ``chosen`` is (F,)."""
    rows = chosen[fits.trace.fit]
    trace = _column_wise(lambda column: column[rows], fits.trace)
    some = _column_wise(lambda column: column[chosen], fits._replace(trace=NO_TRACE))
    return some._replace(trace=trace._replace(fit=(np.cumsum(chosen) - 1)[trace.fit]))


def joined(parts: Sequence[Fits], places: NDArray[np.int64] | None = None) -> Fits:
    """Return the fits of all parts; ``places`` (F,) says where each goes, by default in turn."""
    sizes = [len(part.outcome) for part in parts]
    places = np.arange(sum(sizes)) if places is None else places
    order = np.argsort(places)
    every = _column_wise(
        lambda *columns: np.concatenate(columns)[order],
        *(part._replace(trace=NO_TRACE) for part in parts),
    )
    of_part = np.split(places, np.cumsum(sizes)[:-1])
    numbered = [
        part.trace._replace(fit=numbers[part.trace.fit])
        for part, numbers in zip(parts, of_part, strict=True)
    ]
    rows = np.argsort(np.concatenate([trace.fit for trace in numbered]), kind="stable")
    trace = _column_wise(lambda *columns: np.concatenate(columns)[rows], *numbered)
    return every._replace(trace=trace)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


@compiled
def _raise_scales(points, masses, scales, model, floor):
    """Raise the starts' scales (R, S, K) to ``floor`` times their sample's standard deviation."""
    for r in range(points.shape[0]):
        unit, _, _ = units(points[r], masses, model)
        for s in range(scales.shape[1]):
            for k in range(scales.shape[2]):
                scales[r, s, k] = max(scales[r, s, k], floor * unit)


def raised(
    points: NDArray[np.float64],
    masses: NDArray[np.float64],
    starts: Parameters,
    model: Model,
    degeneracy: Degeneracy,
) -> Parameters:
    """Return starts (R, S, K) with scales no smaller than the floor, if there is one.

    Parameters
    ----------
    points : float64, shape (R, n)
    masses : float64, shape (n,)
    starts : Parameters, shape (R, S, K)
    model : Model
        Fixed scales stay as they are.
    degeneracy : Degeneracy
    """
    if degeneracy.scale_floor is None or model.scales == FIXED:
        return starts
    scales = np.array(starts.scales, np.float64, order="C")
    _raise_scales(points, masses, scales, model, float(degeneracy.scale_floor))
    return starts._replace(scales=scales)


def fit(
    points: NDArray[np.float64],
    masses: NDArray[np.float64],
    starts: Parameters,
    model: Model,
    algorithm: str,
    schedule: Schedule,
    degeneracy: Degeneracy = DEFAULT_DEGENERACY,
    options: Options = DEFAULT_OPTIONS,
    traced: NDArray[np.bool_] | None = None,
    all_lanes: bool = False,
) -> Fits:
    """Fit every start of every replicate.

    Each fit depends on its own sample and start only: not on the others, their order or number.

    Parameters
    ----------
    points : float64, shape (R, n)
        One sample per replicate.
    masses : float64, shape (n,)
        Of the points; ones for a plain sample.
    starts : Parameters, shape (R, S, K)
        Row 0 of each trace; members of the model (see ``pipeline.core.model.project``).
    model : Model
    algorithm : str
        One of ``ALGORITHMS``.
    schedule : Schedule
    degeneracy : Degeneracy
        Its scale floor raises starts below it.
    options : Options
        Of the algorithm.
    traced : bool, shape (R,)
        Replicates whose traces keep the rows that the schedule names; the others keep row 0 and
        the last. None: all.
    all_lanes : bool
        Let all lanes work on one fit at a time, as they do with large samples.
    """
    # Writable, as numba compiles a second version for read-only arrays (a memory-mapped file's).
    points = np.require(points, np.float64, ["C", "W"])
    n_replicates, n_starts, n_components = starts.means.shape
    if points.ndim != 2 or points.shape[0] != n_replicates or points.shape[1] < 1:
        raise ValueError(f"points: got shape {points.shape}, needs ({n_replicates}, n >= 1)")
    if np.shape(masses) != points.shape[1:]:
        raise ValueError(f"masses: got shape {np.shape(masses)}, needs {points.shape[1:]}")
    if n_components != model.n_components:
        raise ValueError(f"starts: got {n_components} components, needs {model.n_components}")
    if schedule.rule not in STOPPING_RULES:
        raise ValueError(f"rule: got {schedule.rule!r}, must be one of {', '.join(STOPPING_RULES)}")
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise ValueError(f"algorithm: got {algorithm!r}, must be one of {known}")
    if schedule.max_iter < 0:
        raise ValueError(f"max_iter: got {schedule.max_iter}, must be at least 0")
    if schedule.patience < 1:
        raise ValueError(f"patience: got {schedule.patience}, must be at least 1")

    every = schedule.record is None
    record = np.empty(0) if every else schedule.record
    chosen = ALGORITHMS[algorithm]
    masses = np.ascontiguousarray(masses, np.float64)
    starts = raised(points, masses, starts, model, degeneracy)
    floor, penalty = degeneracy.scale_floor, degeneracy.penalty
    if model.scales == FIXED:
        floor = penalty = None
    penalty = None if penalty is None else penalty / float(masses.sum())
    outcome, ends, indices, values = loop.run(
        points,
        masses,
        all_lanes or points.shape[1] >= POINTS_FOR_ALL_LANES,
        np.stack([part.reshape(-1, n_components) for part in starts], axis=1),
        n_starts,
        model,
        *choice(algorithm, options),
        chosen.guarded or None,
        chosen.monotone,
        schedule.max_iter,
        STOPPING_RULES[schedule.rule],
        float(schedule.tolerance),
        float(schedule.patience),
        every,
        np.ascontiguousarray(record, np.int64),
        degeneracy.scale,
        degeneracy.count,
        None if floor is None else float(floor),
        penalty,
        np.ones(n_replicates, bool) if traced is None else np.ascontiguousarray(traced, bool),
    )
    # The lanes write their rows in turn.
    order = np.argsort(indices[:, 0], kind="stable")
    indices, values = indices[order], values[order]
    trace = Trace(
        indices[:, 0].copy(),
        indices[:, 1].copy(),
        indices[:, 2].copy(),
        values[:, -3].copy(),
        _finite(values[:, -2]),
        _finite(values[:, -1]),
        Parameters(*(part.copy() for part in np.split(values[:, :-3], 3, axis=1))),
    )
    last = last_rows(trace)
    first = np.append(0, last[:-1] + 1)
    parameters = Parameters(*(part[last] for part in trace.parameters))
    converged = outcome == CONVERGED
    return Fits(
        outcome,
        trace.iteration[last],
        trace.map_evaluations[last],
        trace.log_likelihood[last],
        trace.log_likelihood[first],
        _finite(ends[:, loop.MAP_RESIDUAL]),
        np.zeros(len(outcome)),
        ends[:, loop.LIKELIHOOD_EVALUATIONS].astype(np.int64),
        _finite(ends[:, loop.STOP_VALUE]),
        np.where(converged, ends[:, loop.RATE_OBSERVED], np.nan),
        rate_theory(points, masses, parameters, model, converged & chosen.smooth, penalty),
        ends[:, loop.N_FLOORED].astype(np.int64),
        ends[:, loop.SAMPLE_SCALE],
        ends[:, loop.STOPPED] > 0.0,
        _finite(ends[:, loop.LOG_PENALTY]),
        parameters,
        trace,
    )
