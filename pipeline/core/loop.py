"""The one loop: eight lanes of fits, from their starts to their outcomes.

A lane whose fit has ended takes the next fit; what a fit returns does not depend on its lane, nor
on what runs in the others.
"""

import math

import numpy as np

from pipeline.core import algorithms, em
from pipeline.core.compilation import compiled
from pipeline.core.lanes import (
    load_masses,
    load_points,
    load_theta,
    read_theta,
    units,
)
from pipeline.core.mixture import LOG_SQRT_2_PI
from pipeline.core.model import Model
from pipeline.core.outcomes import GOES_ON, NONFINITE, sound, verdict
from pipeline.core.stopping import fires
from pipeline.core.vector import LANES, bits, hold, lane_sum, load, rows, splat, store

LOG_2 = math.log(2.0)


@compiled
def _append(indices, values, size, fit, iteration, map_evaluations, log_likelihood, theta):
    """Write one trace row, after doubling the buffers if they are full; return the buffers."""
    if size == indices.shape[0]:
        indices, values = np.concatenate((indices, indices)), np.concatenate((values, values))
    indices[size, 0] = fit
    indices[size, 1] = iteration
    indices[size, 2] = map_evaluations
    for k in range(theta.shape[1]):
        for row in range(3):
            values[size, row, k] = theta[row, k]
        values[size, 3, k] = log_likelihood
    return indices, values


# Rows of the lanes' state, (11, 8), read and written eight lanes at a time: the iteration and map
# evaluations of the present row (and of the one before), L_t, L_(t-1), L_(t-2), the last map
# residual, the sample's standard deviation in the lane's units, what leads from the lane's density
# to L, and the last and the next iteration that the trace keeps.
ITERATION, EVALUATIONS, EVALUATIONS_1 = 0 * LANES, 1 * LANES, 2 * LANES
LEVEL, LEVEL_1, LEVEL_2, RESIDUAL = 3 * LANES, 4 * LANES, 5 * LANES, 6 * LANES
UNIT, SHIFT, RECORDED, DUE = 7 * LANES, 8 * LANES, 9 * LANES, 10 * LANES
STATE = 11 * LANES


@compiled
def _set_due(state, next_record, lane, every, record, keep):
    """Set the iteration after the present one that the lane's trace keeps."""
    iteration = state[ITERATION + lane]
    if not keep:
        state[DUE + lane] = np.inf
    elif every:
        state[DUE + lane] = iteration + 1
    else:
        at = next_record[lane]
        while at < record.size and record[at] <= iteration:
            at += 1
        next_record[lane] = at
        state[DUE + lane] = record[at] if at < record.size else np.inf


@compiled
def _take(
    state, offsets, exponents, lane, points, start, masses, mass, model, all_lanes, x, theta,
    lane_model,
):  # fmt: skip
    """Begin a fit in a lane, or in all of them."""
    unit, offset, exponent = units(points, masses, model)
    where = -1 if all_lanes else lane
    load_points(points, offset, exponent, where, x)
    load_theta(start, offset, exponent, where, theta)
    offsets[lane], exponents[lane] = offset, exponent
    for i in range(LANES) if all_lanes else range(lane, lane + 1):
        for row in (ITERATION, EVALUATIONS, EVALUATIONS_1, DUE):
            state[row + i] = 0
        for row in (LEVEL, LEVEL_1, LEVEL_2):
            state[row + i] = np.nan
        state[RESIDUAL + i] = np.inf
        state[RECORDED + i] = -1
        state[UNIT + i] = math.ldexp(unit, -exponent)
        # p(x) dx is the same in any unit: a lane's unit is 2^exponent of the data's.
        state[SHIFT + i] = mass * (LOG_2 * exponent + LOG_SQRT_2_PI)
        for k in range(model.n_components):
            lane_model.fixed_weights[LANES * k + i] = model.fixed_weights[k]
            lane_model.fixed_scales[LANES * k + i] = math.ldexp(model.fixed_scales[k], -exponent)


@compiled
def _read_row(theta, offset, exponent, lane, iteration, start, out):
    """Read a row's parameters (3, K) in the data's units; row 0 is the start, to the last bit."""
    read_theta(theta, offset, exponent, lane, out)
    if iteration == 0:
        for row in range(3):
            for k in range(out.shape[1]):
                out[row, k] = start[row, k]


@compiled
def _attend(
    attention, fired, state, sums, theta, theta_1, fits, next_record, offsets, exponents,
    starts, n_starts, model, monotone, max_iter, every, record, scale_floor, count_floor, traced,
    outcomes, indices, values, size,
):  # fmt: skip
    """Write what is due of the lanes in ``attention``: rows of their traces and their outcomes.

    Returns
    -------
    idle : int
        Bit i: whether the fit in lane i has ended.
    indices, values, size
        The trace rows, perhaps in longer buffers, and how many there are.
    """
    idle = 0
    natural = np.empty((3, model.n_components))
    counts = np.empty(model.n_components)
    for lane in range(LANES):
        if not (attention >> lane) & 1:
            continue
        fit, iteration = fits[lane], int(state[ITERATION + lane])
        _read_row(theta, offsets[lane], exponents[lane], lane, iteration, starts[fit], natural)
        for k in range(model.n_components):
            counts[k] = sums[LANES * k + lane]
        unit = math.ldexp(state[UNIT + lane], exponents[lane])
        log_likelihood = state[LEVEL + lane]
        outcome = verdict(
            iteration, max_iter, natural, counts, log_likelihood, state[LEVEL_1 + lane],
            (fired >> lane) & 1 == 1, model, monotone, scale_floor * unit, count_floor,
        )  # fmt: skip
        row_is_finite = outcome != NONFINITE and np.isfinite(log_likelihood)
        if not row_is_finite and iteration > 0:
            # The row returned is the one before.
            iteration -= 1
            _read_row(
                theta_1, offsets[lane], exponents[lane], lane, iteration, starts[fit], natural
            )
            evaluations = int(state[EVALUATIONS_1 + lane])
            log_likelihood = state[LEVEL_1 + lane]
        else:
            evaluations = int(state[EVALUATIONS + lane])
            log_likelihood = log_likelihood if row_is_finite else np.nan
        wanted = outcome != GOES_ON or state[DUE + lane] == state[ITERATION + lane]
        if wanted and state[RECORDED + lane] != iteration:
            indices, values = _append(
                indices, values, size, fit, iteration, evaluations, log_likelihood, natural
            )
            size += 1
            state[RECORDED + lane] = iteration
        if outcome != GOES_ON:
            outcomes[fit] = outcome
            idle |= 1 << lane
        else:
            _set_due(state, next_record, lane, every, record, traced[fit // n_starts])
    return idle, indices, values, size


@compiled
def run(
    points, masses, all_lanes, starts, n_starts, model, algorithm, monotone, max_iter, rule,
    tolerance, every, record, scale_floor, count_floor, traced,
):  # fmt: skip
    """Run all fits; the arguments are those of ``pipeline.core.fitting.fit``, as plain numbers.

    Returns
    -------
    outcome : int8, shape (F,)
    residuals : float64, shape (F,)
        Largest |M(theta) - theta| in units, at the last row.
    indices : int64, shape (T, 3)
        Fit, iteration and map evaluations of each row; those of one fit in their order.
    values : float64, shape (T, 4, K)
        Weights, means, scales, and the log-likelihood K times over.
    """
    n_fits, n_components = starts.shape[0], starts.shape[2]
    outcomes, residuals = np.empty(n_fits, np.int8), np.empty(n_fits)
    indices = np.empty((2 * n_fits + 1, 3), np.int64)
    values = np.empty((2 * n_fits + 1, 4, n_components))

    n = points.shape[1]
    n_rows = (n + LANES - 1) // LANES if all_lanes else n
    used = 1 if all_lanes else LANES
    mass = masses.sum()

    width, points_width = LANES * n_components, LANES * n_rows
    # Addresses into one array: see ``pipeline.core.vector.rows``.
    memory = np.zeros(STATE + 17 * width + 2 * points_width + LANES)
    state, theta, theta_1 = rows(memory, 0), rows(memory, STATE), rows(memory, STATE + 3 * width)
    sums, constants = rows(memory, STATE + 6 * width), rows(memory, STATE + 9 * width)
    work = rows(memory, STATE + 11 * width)
    lane_model = Model(
        n_components, model.weights, model.means, model.scales,
        rows(memory, STATE + 15 * width), rows(memory, STATE + 16 * width),
    )  # fmt: skip
    x = rows(memory, STATE + 17 * width)
    lane_masses = rows(memory, STATE + 17 * width + points_width)
    plain_rows = load_masses(masses, all_lanes, lane_masses)
    sample = em.Sample(x, lane_masses, n_rows, plain_rows)
    fits, next_record = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    offsets, exponents = np.zeros(LANES), np.zeros(LANES, np.int64)

    # Not literals, for which numba would compile what they are given to once more.
    size = next_fit = active = np.int64(0)
    idle = (1 << used) - 1
    while active or idle:
        attention = fired = 0
        while not attention:
            # A lane whose fit has ended computes one step more: it tells the map residual.
            for j in range(0, 3 * width, LANES):
                store(theta_1, j, load(theta, j))
            store(state, LEVEL_2, load(state, LEVEL_1))
            store(state, LEVEL_1, load(state, LEVEL))
            residual, evaluated = algorithms.step(
                algorithm, sample, all_lanes, active | idle, lane_model, mass, load(state, UNIT),
                theta_1, constants, sums, work, theta,
            )  # fmt: skip
            evaluations_1 = load(state, EVALUATIONS)
            iterations = load(state, ITERATION) + splat(1.0)
            store(state, RESIDUAL, residual)
            store(state, EVALUATIONS_1, evaluations_1)
            store(state, EVALUATIONS, evaluations_1 + splat(float(evaluated)))
            store(state, ITERATION, iterations)

            for lane in range(used) if idle else range(0):
                if not (idle >> lane) & 1:
                    continue
                residuals[fits[lane]] = state[RESIDUAL + lane]
                if next_fit < n_fits:
                    _take(
                        state, offsets, exponents, lane, points[next_fit // n_starts],
                        starts[next_fit], masses, mass, model, all_lanes, x, theta, lane_model,
                    )  # fmt: skip
                    fits[lane], next_record[lane] = next_fit, 0
                    next_fit += 1
                    active |= 1 << lane
            idle = 0
            if not active:
                break

            em.set_constants(n_components, theta, constants)
            density = em.accumulate(sample, n_components, theta, None, constants, sums, work)
            if all_lanes:
                em.add_lanes(n_components, sums)
                density = lane_sum(density)
            level = splat(LOG_2) * density - load(state, SHIFT)
            store(state, LEVEL, level)

            iterations, level_1 = load(state, ITERATION), load(state, LEVEL_1)
            change = load(state, RESIDUAL)
            fires_now = fires(
                rule, tolerance, iterations, level, level_1, load(state, LEVEL_2), mass,
                change, change,
            )  # fmt: skip
            goes_on = sound(
                n_components, theta, sums, load(state, UNIT), iterations, level, level_1,
                model.scales, monotone, scale_floor, count_floor,
            )  # fmt: skip
            at_end, is_due = iterations == splat(float(max_iter)), iterations == load(state, DUE)
            fired = bits(fires_now)
            attention = active & bits(fires_now | ~goes_on | at_end | is_due)

        idle, indices, values, size = _attend(
            attention, fired, state, sums, theta, theta_1, fits, next_record, offsets, exponents,
            starts, n_starts, model, monotone, max_iter, every, record, scale_floor, count_floor,
            traced, outcomes, indices, values, size,
        )  # fmt: skip
        active &= ~idle
    hold(memory)
    return outcomes, residuals, indices[:size], values[:size]
