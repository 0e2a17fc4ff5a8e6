"""The one loop: from starts to outcomes, estimates and traces."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core import algorithms, em
from pipeline.core.compilation import compiled
from pipeline.core.mixture import Parameters, standard_deviation
from pipeline.core.model import Model
from pipeline.core.outcomes import GOES_ON, NONFINITE, Degeneracy, verdict
from pipeline.core.stopping import STOPPING_RULES, fires, largest_change

DEFAULT_DEGENERACY = Degeneracy()


class Schedule(NamedTuple):
    """When a fit stops and which rows its trace keeps.

    ``rule`` is one of ``STOPPING_RULES``; ``record`` is None for every iteration, or the sorted
    iterations to keep (row 0 and the last row are always kept).
    """

    max_iter: int
    rule: str = "never"
    tolerance: float = 0.0
    record: NDArray[np.int64] | None = None


class Trace(NamedTuple):
    """The recorded rows of all fits, T in total, by fit and then by iteration.

    Row t of a fit holds theta_t and the log-likelihood at theta_t; ``parameters`` are (T, K).
    """

    fit: NDArray[np.int64]
    iteration: NDArray[np.int64]
    map_evaluations: NDArray[np.int64]
    log_likelihood: NDArray[np.float64]
    parameters: Parameters


class Fits(NamedTuple):
    """One entry per fit; all but ``outcome`` and ``log_likelihood_start`` are its last trace row.

    Fit ``r * n_starts + s`` is start s of replicate r. ``parameters`` are (F, K).
    """

    outcome: NDArray[np.int8]
    n_iter: NDArray[np.int64]
    map_evaluations: NDArray[np.int64]
    log_likelihood: NDArray[np.float64]
    log_likelihood_start: NDArray[np.float64]
    parameters: Parameters
    trace: Trace


def geometric_iterations(max_iter: int) -> NDArray[np.int64]:
    """Return 0 and the distinct round(10^(j/24)) up to ``max_iter``: dense, then 10 % apart.

    The powers of ten are among them.
    """
    rounded = (round(10 ** (j / 24)) for j in range(24 * len(str(max_iter)) + 1))
    return np.array(sorted({0, *(i for i in rounded if i <= max_iter)}), dtype=np.int64)


@compiled
def _append(indices, values, size, fit, iteration, map_evaluations, log_likelihood, theta):
    """Write one trace row, after doubling the buffers if they are full; return the buffers."""
    if size == indices.shape[0]:
        longer_indices = np.empty((2 * size, indices.shape[1]), np.int64)
        longer_indices[:size] = indices
        indices = longer_indices
        longer_values = np.empty((2 * size, values.shape[1], values.shape[2]))
        longer_values[:size] = values
        values = longer_values
    indices[size, 0] = fit
    indices[size, 1] = iteration
    indices[size, 2] = map_evaluations
    values[size, :3] = theta
    values[size, 3] = log_likelihood
    return indices, values


@compiled
def _run(
    points, masses, starts, n_starts, model, algorithm, monotone, max_iter, rule, tolerance,
    every, record, scale_floor, count_floor, traced,
):  # fmt: skip
    """Run all fits, one after the other.

    Returns
    -------
    outcome : int8, shape (F,)
    last : int64, shape (F,)
        Each fit's last trace row.
    indices : int64, shape (T, 3)
        Fit, iteration and map evaluations of each row.
    values : float64, shape (T, 4, K)
        Weights, means, scales, and the log-likelihood K times over.
    """
    n_fits, n_components = starts.shape[0], starts.shape[2]
    outcomes = np.empty(n_fits, np.int8)
    last = np.empty(n_fits, np.int64)
    indices = np.empty((2 * n_fits + 1, 3), np.int64)
    values = np.empty((2 * n_fits + 1, 4, n_components))
    size = 0

    responsibilities = np.empty((n_components, points.shape[1]))
    counts = np.empty(n_components)
    theta = np.empty((3, n_components))
    theta_1 = np.empty((3, n_components))
    mass = masses.sum()

    for fit in range(n_fits):
        x = points[fit // n_starts]
        unit = standard_deviation(x, masses)
        keep = traced[fit // n_starts]
        next_record = 0
        theta[:] = starts[fit]
        evaluations = evaluations_1 = 0
        log_likelihood_1 = log_likelihood_2 = np.nan
        residual = np.inf
        iteration = 0
        while True:
            log_likelihood = em.e_step(x, masses, theta[0], theta[1], theta[2], responsibilities)
            em.effective_counts(masses, responsibilities, counts)
            fired = iteration > 0 and fires(
                rule, tolerance, iteration, log_likelihood, log_likelihood_1, log_likelihood_2,
                mass, largest_change(theta, theta_1, unit), residual,
            )  # fmt: skip
            outcome = verdict(
                iteration, max_iter, theta, counts, log_likelihood, log_likelihood_1, fired, model,
                monotone, scale_floor * unit, count_floor,
            )  # fmt: skip

            row_is_finite = outcome != NONFINITE and np.isfinite(log_likelihood)
            if not row_is_finite and iteration > 0:
                # The row returned is the one before; it may not have been recorded.
                if indices[size - 1, 1] != iteration - 1:
                    indices, values = _append(
                        indices, values, size, fit, iteration - 1, evaluations_1,
                        log_likelihood_1, theta_1,
                    )  # fmt: skip
                    size += 1
                break

            while next_record < record.size and record[next_record] < iteration:
                next_record += 1
            recorded = every or (next_record < record.size and record[next_record] == iteration)
            if iteration == 0 or outcome != GOES_ON or (keep and recorded):
                indices, values = _append(
                    indices, values, size, fit, iteration, evaluations,
                    log_likelihood if row_is_finite else np.nan, theta,
                )  # fmt: skip
                size += 1
            if outcome != GOES_ON:
                break

            theta_1[:] = theta
            log_likelihood_2, log_likelihood_1 = log_likelihood_1, log_likelihood
            evaluations_1 = evaluations
            step_evaluations, residual = algorithms.step(
                algorithm, x, masses, responsibilities, counts, model, unit, theta_1, theta
            )
            evaluations += step_evaluations
            iteration += 1
        outcomes[fit] = outcome
        last[fit] = size - 1
    return outcomes, last, indices[:size], values[:size]


def fit(
    points: NDArray[np.float64],
    masses: NDArray[np.float64],
    starts: Parameters,
    model: Model,
    algorithm: str,
    schedule: Schedule,
    degeneracy: Degeneracy = DEFAULT_DEGENERACY,
    traced: NDArray[np.bool_] | None = None,
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
    traced : bool, shape (R,)
        Replicates whose traces keep the rows that the schedule names; the others keep row 0 and
        the last. None: all.
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
    if algorithm not in algorithms.ALGORITHMS:
        known = ", ".join(algorithms.ALGORITHMS)
        raise ValueError(f"algorithm: got {algorithm!r}, must be one of {known}")
    if schedule.max_iter < 0:
        raise ValueError(f"max_iter: got {schedule.max_iter}, must be at least 0")

    every = schedule.record is None
    record = np.empty(0) if every else schedule.record
    chosen = algorithms.ALGORITHMS[algorithm]
    outcome, last, indices, values = _run(
        points,
        np.ascontiguousarray(masses, np.float64),
        np.stack([part.reshape(-1, n_components) for part in starts], axis=1),
        n_starts,
        model,
        chosen.code,
        chosen.monotone,
        schedule.max_iter,
        STOPPING_RULES[schedule.rule],
        float(schedule.tolerance),
        every,
        np.ascontiguousarray(record, np.int64),
        degeneracy.scale,
        degeneracy.count,
        np.ones(n_replicates, bool) if traced is None else np.ascontiguousarray(traced, bool),
    )
    trace = Trace(
        indices[:, 0].copy(),
        indices[:, 1].copy(),
        indices[:, 2].copy(),
        values[:, 3, 0].copy(),
        Parameters(*(values[:, row].copy() for row in range(3))),
    )
    first = np.append(0, last[:-1] + 1)
    return Fits(
        outcome,
        trace.iteration[last],
        trace.map_evaluations[last],
        trace.log_likelihood[last],
        trace.log_likelihood[first],
        Parameters(*(part[last] for part in trace.parameters)),
        trace,
    )
