"""The one loop: eight lanes of fits, from their starts to their outcomes.

A lane whose fit has ended takes the next fit; what a fit returns does not depend on its lane, nor
on what runs in the others.
"""

import math

import numpy as np

from pipeline.core import algorithms, em
from pipeline.core.compilation import compiled
from pipeline.core.lanes import (
    load_points,
    load_theta,
    read_theta,
    row_masses,
    units,
)
from pipeline.core.mixture import LOG_SQRT_2_PI
from pipeline.core.outcomes import GOES_ON, NONFINITE, sound, verdict
from pipeline.core.stopping import fires
from pipeline.core.vector import LANES, bits, load, splat, store

LOG_2 = math.log(2.0)


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
    state, offsets, exponents, lane, sample, start, masses, mass, model, all_lanes, x, theta,
    fixed_scales,
):  # fmt: skip
    """Begin a fit in a lane, or in all of them."""
    unit, offset, exponent = units(sample, masses, model)
    where = -1 if all_lanes else lane
    load_points(sample, offset, exponent, where, x)
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
            fixed_scales[LANES * k + i] = math.ldexp(model.fixed_scales[k], -exponent)


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
    size = 0

    n = points.shape[1]
    rows = (n + LANES - 1) // LANES if all_lanes else n
    used = 1 if all_lanes else LANES
    row_mass, plain_rows = row_masses(masses, rows, all_lanes)
    mass = masses.sum()

    width = LANES * n_components
    x = np.zeros(LANES * rows)
    theta, theta_1 = np.ones(3 * width), np.ones(3 * width)
    sums, constants = np.ones(3 * width), np.ones(2 * width)
    work = np.ones(8 * width)
    fixed_scales = np.ones(width)
    state = np.zeros(STATE)
    fits, next_record = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    offsets, exponents = np.zeros(LANES), np.zeros(LANES, np.int64)
    natural, counts = np.empty((3, n_components)), np.empty(n_components)

    next_fit = active = 0
    idle = (1 << used) - 1
    while True:
        if idle:
            for lane in range(used):
                if (idle >> lane) & 1 and next_fit < n_fits:
                    replicate = next_fit // n_starts
                    _take(
                        state, offsets, exponents, lane, points[replicate], starts[next_fit],
                        masses, mass, model, all_lanes, x, theta, fixed_scales,
                    )  # fmt: skip
                    fits[lane], next_record[lane] = next_fit, 0
                    next_fit += 1
                    active |= 1 << lane
            idle = 0
            if active == 0:
                break

        em.set_constants(theta, constants)
        density = em.accumulate(x, row_mass, plain_rows, theta, theta, constants, sums, work)
        if all_lanes:
            em.add_lanes(sums)
            store(state, LEVEL, density)
            em.add_lanes(state[LEVEL : LEVEL + LANES])
            density = load(state, LEVEL)
        level = splat(LOG_2) * density - load(state, SHIFT)
        store(state, LEVEL, level)

        iterations, level_1 = load(state, ITERATION), load(state, LEVEL_1)
        change = load(state, RESIDUAL)
        fired = fires(
            rule, tolerance, iterations, level, level_1, load(state, LEVEL_2), mass,
            change, change,
        )  # fmt: skip
        goes_on = sound(
            theta, sums, load(state, UNIT), iterations, level, level_1, model.scales, monotone,
            scale_floor, count_floor,
        )  # fmt: skip
        at_end, is_due = iterations == splat(float(max_iter)), iterations == load(state, DUE)
        attention = active & bits(fired | ~goes_on | at_end | is_due)
        fired_bits = bits(fired)
        lane = 0
        while attention >> lane:
            if not (attention >> lane) & 1:
                lane += 1
                continue
            fit, iteration = fits[lane], int(state[ITERATION + lane])
            keep = traced[fit // n_starts]
            read_theta(theta, offsets[lane], exponents[lane], lane, natural)
            if iteration == 0:
                natural[:] = starts[fit]
            for k in range(n_components):
                counts[k] = sums[LANES * k + lane]
            unit = math.ldexp(state[UNIT + lane], exponents[lane])
            log_likelihood = state[LEVEL + lane]
            outcome = verdict(
                iteration, max_iter, natural, counts, log_likelihood, state[LEVEL_1 + lane],
                (fired_bits >> lane) & 1 == 1, model, monotone, scale_floor * unit, count_floor,
            )  # fmt: skip
            row_is_finite = outcome != NONFINITE and np.isfinite(log_likelihood)
            if not row_is_finite and iteration > 0:
                # The row returned is the one before.
                read_theta(theta_1, offsets[lane], exponents[lane], lane, natural)
                if iteration == 1:
                    natural[:] = starts[fit]
                iteration -= 1
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
                _set_due(state, next_record, lane, every, record, keep)
            lane += 1

        active &= ~idle
        theta, theta_1 = theta_1, theta
        store(state, LEVEL_2, level_1)
        store(state, LEVEL_1, level)
        residual, evaluated = algorithms.step(
            algorithm, x, row_mass, plain_rows, all_lanes, active | idle, model, fixed_scales, mass,
            load(state, UNIT), theta_1, constants, sums, work, theta,
        )  # fmt: skip
        store(state, RESIDUAL, residual)
        if idle:
            for lane in range(used):
                if (idle >> lane) & 1:
                    residuals[fits[lane]] = state[RESIDUAL + lane]
        evaluations_1 = load(state, EVALUATIONS)
        store(state, EVALUATIONS_1, evaluations_1)
        store(state, EVALUATIONS, evaluations_1 + splat(float(evaluated)))
        store(state, ITERATION, iterations + splat(1.0))
    return outcomes, residuals, indices[:size], values[:size]
