"""The one loop: eight lanes of fits, from their starts to their outcomes.

A lane whose fit has ended takes the next fit; what a fit returns does not depend on its lane, nor
on what runs in the others.
"""

import math

import numpy as np

from pipeline.core import algorithms, em, observed_rate
from pipeline.core.compilation import compiled
from pipeline.core.em_map import Problem, e_step, em_map
from pipeline.core.lanes import (
    load_masses,
    load_points,
    load_theta,
    read_theta,
    units,
)
from pipeline.core.mixture import LOG_SQRT_2_PI
from pipeline.core.model import Model
from pipeline.core.outcomes import (
    CONVERGED,
    DEGENERATE_SCALE,
    GOES_ON,
    NONFINITE,
    sound,
    verdict,
)
from pipeline.core.stopping import PARAMETER, criterion
from pipeline.core.vector import (
    LANES,
    absolute,
    bits,
    hold,
    load,
    minimum,
    rows,
    select,
    splat,
    store,
)

LOG_2 = math.log(2.0)
# By how much, relative to |L|, the rounding of its sum may lower a log-likelihood.
ROUNDING = 2.0**-48
# What is told of each fit's end.
(
    MAP_RESIDUAL, STOP_VALUE, LIKELIHOOD_EVALUATIONS, RATE_OBSERVED, N_FLOORED, SAMPLE_SCALE,
    STOPPED, LOG_PENALTY,
) = range(8)  # fmt: skip


@compiled
def _append(
    indices, values, size, fit, iteration, map_evaluations, log_likelihood, residual, change, theta
):
    """Write one trace row, after doubling the buffers if they are full; return the buffers."""
    if size == indices.shape[0]:
        indices, values = np.concatenate((indices, indices)), np.concatenate((values, values))
    indices[size, 0] = fit
    indices[size, 1] = iteration
    indices[size, 2] = map_evaluations
    n_components = theta.shape[1]
    for k in range(n_components):
        for row in range(3):
            values[size, row * n_components + k] = theta[row, k]
    # No iteration led to row 0.
    values[size, 3 * n_components] = log_likelihood
    values[size, 3 * n_components + 1] = residual if iteration > 0 else np.nan
    values[size, 3 * n_components + 2] = change if iteration > 0 else np.nan
    return indices, values


# Rows of the lanes' state, read and written eight lanes at a time: the iteration; map and
# likelihood evaluations of the present row and of the one before; L_t, L_(t-1), L_(t-2); the last
# map residual and |M(theta) - theta| at the row before; the value of the stopping rule and how many
# times in a row it was met; the sample's standard deviation in the lane's units; what leads from
# the lane's density to L; the last and the next iteration that the trace keeps; residual and value
# of the row before; the largest change of a parameter that led to the present row and to the one
# before, where one of them is written; L with its penalty, if there is one, at the present row and
# the one before; whether a scale stands at its floor, and how many rows it did so before.
(
    ITERATION, MAPS, MAPS_1, LIKELIHOODS, LIKELIHOODS_1, LEVEL, LEVEL_1, LEVEL_2, RESIDUAL, AT_ROW,
    VALUE, STREAK, UNIT, SHIFT, RECORDED, DUE, RESIDUAL_1, VALUE_1, CHANGE, CHANGE_1, PENALISED,
    PENALISED_1, AT_FLOOR, FLOORED_BEFORE,
) = range(0, 24 * LANES, LANES)  # fmt: skip
STATE = 24 * LANES


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
    state, trend, own, own_rows, offsets, exponents, lane, points, start, masses, mass, model,
    all_lanes, x, theta, lane_model,
):  # fmt: skip
    """Begin a fit in a lane, or in all of them."""
    unit, offset, exponent = units(points, masses, model)
    where = -1 if all_lanes else lane
    load_points(points, offset, exponent, where, x)
    load_theta(start, offset, exponent, where, theta)
    offsets[lane], exponents[lane] = offset, exponent
    for i in range(LANES) if all_lanes else range(lane, lane + 1):
        for row in (ITERATION, MAPS, MAPS_1, LIKELIHOODS, LIKELIHOODS_1, STREAK, DUE):
            state[row + i] = 0
        state[AT_FLOOR + i] = state[FLOORED_BEFORE + i] = 0
        for row in (LEVEL, LEVEL_1, LEVEL_2, PENALISED, PENALISED_1):
            state[row + i] = np.nan
        state[RESIDUAL + i] = np.inf
        observed_rate.begin(trend, i)
        for row in range(own_rows):
            own[LANES * row + i] = 0
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
    attention, fired, state, trend, sums, theta, theta_1, theta_2, fits, next_record, offsets,
    exponents, starts, n_starts, model, monotone, max_iter, every, record, smallest_scale,
    smallest_count, objective, objective_1, traced, outcomes, ends, indices, values, size,
):  # fmt: skip
    """Write what is due of the lanes in ``attention``: rows of their traces and their ends.

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
    units_8 = load(state, UNIT)
    store(state, CHANGE, em.largest_change(model.n_components, theta, theta_1, units_8))
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
            iteration, max_iter, natural, counts, state[objective + lane],
            state[objective_1 + lane], (fired >> lane) & 1 == 1, state[AT_FLOOR + lane] > 0.0,
            model, monotone, smallest_scale * unit, smallest_count,
        )  # fmt: skip
        row_is_finite = outcome != NONFINITE and np.isfinite(log_likelihood)
        if not row_is_finite and iteration > 0:
            # The row returned is the one before.
            iteration -= 1
            _read_row(
                theta_1, offsets[lane], exponents[lane], lane, iteration, starts[fit], natural
            )
            maps, likelihoods = state[MAPS_1 + lane], state[LIKELIHOODS_1 + lane]
            state[AT_FLOOR + lane] = 0
            log_likelihood = state[LEVEL_1 + lane]
            log_penalty = state[objective_1 + lane] - log_likelihood
            residual, value = state[RESIDUAL_1 + lane], state[VALUE_1 + lane]
            change_8 = em.largest_change(model.n_components, theta_1, theta_2, units_8)
            store(state, CHANGE_1, change_8)
            change = state[CHANGE_1 + lane]
        else:
            maps, likelihoods = state[MAPS + lane], state[LIKELIHOODS + lane]
            residual, value = state[RESIDUAL + lane], state[VALUE + lane]
            change = state[CHANGE + lane]
            log_penalty = state[objective + lane] - log_likelihood
            log_likelihood = log_likelihood if row_is_finite else np.nan
        wanted = outcome != GOES_ON or state[DUE + lane] == state[ITERATION + lane]
        if wanted and state[RECORDED + lane] != iteration:
            indices, values = _append(
                indices, values, size, fit, iteration, int(maps), log_likelihood, residual, change,
                natural,
            )  # fmt: skip
            size += 1
            state[RECORDED + lane] = iteration
        if outcome != GOES_ON:
            outcomes[fit] = outcome
            ends[fit, LIKELIHOOD_EVALUATIONS] = likelihoods
            ends[fit, STOP_VALUE] = value
            ends[fit, N_FLOORED] = state[FLOORED_BEFORE + lane] + state[AT_FLOOR + lane]
            ends[fit, SAMPLE_SCALE] = unit
            # A fit that its rule stopped at the floor of a scale is degenerate.
            stopped = outcome == CONVERGED or (
                outcome == DEGENERATE_SCALE and (fired >> lane) & 1 == 1
                and state[AT_FLOOR + lane] > 0.0
            )  # fmt: skip
            ends[fit, STOPPED] = 1.0 if stopped else 0.0
            ends[fit, LOG_PENALTY] = log_penalty
            ends[fit, RATE_OBSERVED] = observed_rate.observed_rate(trend, lane)
            idle |= 1 << lane
        else:
            _set_due(state, next_record, lane, every, record, traced[fit // n_starts])
    return idle, indices, values, size


@compiled
def _objective(problem, penalty, unit, theta, level):
    """Return what must not fall: the log-likelihood and, if there is one, its penalty."""
    if penalty is not None:
        return level + em.log_penalty(problem.model, unit, penalty, theta)
    return level


@compiled
def _floored(n_components, floor, unit, theta):
    """Return 1 in the lanes in which a scale stands at its floor, else 0."""
    smallest = splat(np.inf)
    for j in range(2 * LANES * n_components, 3 * LANES * n_components, LANES):
        smallest = minimum(smallest, load(theta, j))
    return select(smallest <= splat(floor) * unit, splat(1.0), splat(0.0))


@compiled
def run(
    points, masses, all_lanes, starts, n_starts, model, squarem, depth, annealed, classification,
    bfgs, guarded, monotone, max_iter, rule, tolerance, patience, every, record, smallest_scale,
    smallest_count, floor, penalty, traced,
):  # fmt: skip
    """Run all fits; the arguments are those of ``pipeline.core.fitting.fit``, as plain numbers.

    Returns
    -------
    outcome : int8, shape (F,)
    ends : float64, shape (F, 8)
        Map residual at the last row, value of the stopping rule, likelihood evaluations, observed
        rate, rows at which a scale stood at its floor, the sample's standard deviation, whether the
        rule stopped the fit, what a penalty adds to the last log-likelihood.
    indices : int64, shape (T, 3)
        Fit, iteration and map evaluations of each row; those of one fit in their order.
    values : float64, shape (T, 3 K + 3)
        Weights, means, scales; log-likelihood; map residual and largest change, in units.
    """
    n_fits, n_components = starts.shape[0], starts.shape[2]
    outcomes, ends = np.empty(n_fits, np.int8), np.empty((n_fits, 8))
    indices = np.empty((2 * n_fits + 1, 3), np.int64)
    values = np.empty((2 * n_fits + 1, 3 * n_components + 3))

    n = points.shape[1]
    n_rows = (n + LANES - 1) // LANES if all_lanes else n
    used = 1 if all_lanes else LANES
    mass = masses.sum()

    width, points_width = LANES * n_components, LANES * n_rows
    own_rows = algorithms.memory_rows(squarem, depth, annealed, bfgs, n_components)
    # Addresses into one array: see ``pipeline.core.vector.rows``.
    memory = np.zeros(
        STATE + LANES * observed_rate.ROWS + 23 * width + LANES * own_rows + 2 * points_width
        + LANES
    )  # fmt: skip
    state, trend = rows(memory, 0), rows(memory, STATE)
    at = STATE + LANES * observed_rate.ROWS
    theta, theta_1 = rows(memory, at), rows(memory, at + 3 * width)
    sums, constants = rows(memory, at + 6 * width), rows(memory, at + 9 * width)
    work = rows(memory, at + 11 * width)
    lane_model = Model(
        n_components, model.weights, model.means, model.scales,
        rows(memory, at + 18 * width), rows(memory, at + 19 * width),
    )  # fmt: skip
    theta_2 = rows(memory, at + 20 * width)
    own, at = rows(memory, at + 23 * width), at + 23 * width + LANES * own_rows
    x, lane_masses = rows(memory, at), rows(memory, at + points_width)
    plain_rows = load_masses(masses, all_lanes, lane_masses)
    sample = em.Sample(x, lane_masses, n_rows, plain_rows)
    problem = Problem(sample, all_lanes, lane_model, mass, floor, penalty)
    # Where what must not fall is found in the state, now and at the row before.
    objective, objective_1 = (LEVEL, LEVEL_1) if penalty is None else (PENALISED, PENALISED_1)
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
                store(theta_2, j, load(theta_1, j))
                store(theta_1, j, load(theta, j))
            store(state, LEVEL_2, load(state, LEVEL_1))
            store(state, LEVEL_1, load(state, LEVEL))
            if penalty is not None:
                store(state, PENALISED_1, load(state, PENALISED))
            if floor is not None:
                rows_before = load(state, FLOORED_BEFORE) + load(state, AT_FLOOR)
                store(state, FLOORED_BEFORE, rows_before)
            unit = load(state, UNIT)
            at_row = em_map(problem, active | idle, unit, theta_1, constants, sums, work, theta)
            store(state, AT_ROW, at_row)
            residual, maps, likelihoods, armed = algorithms.step(
                squarem, depth, annealed, classification, bfgs, problem, active, unit, theta_1,
                load(state, objective_1), constants, sums, work, own, theta, at_row,
            )  # fmt: skip
            store(state, RESIDUAL_1, load(state, RESIDUAL))
            store(state, RESIDUAL, residual)
            for row, passes in ((MAPS, maps), (LIKELIHOODS, likelihoods)):
                before = load(state, row)
                store(state, row + MAPS_1 - MAPS, before)
                store(state, row, before + passes)
            store(state, ITERATION, load(state, ITERATION) + splat(1.0))

            for lane in range(used) if idle else range(0):
                if not (idle >> lane) & 1:
                    continue
                ends[fits[lane], MAP_RESIDUAL] = state[AT_ROW + lane]
                if next_fit < n_fits:
                    _take(
                        state, trend, own, own_rows, offsets, exponents, lane,
                        points[next_fit // n_starts], starts[next_fit], masses, mass, model,
                        all_lanes, x, theta, lane_model,
                    )  # fmt: skip
                    fits[lane], next_record[lane] = next_fit, 0
                    next_fit += 1
                    active |= 1 << lane
            idle = 0
            if not active:
                break

            unit = load(state, UNIT)
            density = e_step(problem, theta, constants, sums, work)
            level, level_1 = splat(LOG_2) * density - load(state, SHIFT), load(state, LEVEL_1)
            now = _objective(problem, penalty, unit, theta, level)
            before = load(state, objective_1)
            iterations = load(state, ITERATION)
            if guarded is not None:
                # Rounding alone is no fall.
                slack = splat(ROUNDING) * absolute(before)
                refused = iterations > splat(0.0)
                refused = refused & ~algorithms.accepted(bfgs, own, now + slack, before)
                while active & bits(refused):
                    residual = algorithms.refuse(
                        squarem, depth, bfgs, problem, refused, unit, own, theta,
                        load(state, RESIDUAL),
                    )  # fmt: skip
                    store(state, RESIDUAL, residual)
                    density = e_step(problem, theta, constants, sums, work)
                    level = splat(LOG_2) * density - load(state, SHIFT)
                    now = _objective(problem, penalty, unit, theta, level)
                    likelihoods = load(state, LIKELIHOODS)
                    wasted = select(refused, likelihoods + splat(1.0), likelihoods)
                    store(state, LIKELIHOODS, wasted)
                    if bfgs is None:
                        break
                    refused = refused & ~algorithms.accepted(bfgs, own, now + slack, before)
            if penalty is not None:
                store(state, PENALISED, now)
            if floor is not None:
                store(state, AT_FLOOR, _floored(n_components, floor, unit, theta))
            store(state, LEVEL, level)

            residual = load(state, RESIDUAL)
            observed_rate.watch(trend, residual)
            change = residual
            if rule == PARAMETER:
                change = em.largest_change(n_components, theta, theta_1, unit)
            value = criterion(
                rule, iterations, level, level_1, load(state, LEVEL_2), mass, change, residual
            )
            met = (value <= splat(tolerance)) & armed
            streak = select(met, load(state, STREAK) + splat(1.0), splat(0.0))
            store(state, VALUE_1, load(state, VALUE))
            store(state, VALUE, value)
            store(state, STREAK, streak)
            fires_now = streak >= splat(patience)
            goes_on = sound(
                n_components, theta, sums, unit, iterations, now, before, model.scales, monotone,
                smallest_scale, smallest_count,
            )  # fmt: skip
            at_end, is_due = iterations == splat(float(max_iter)), iterations == load(state, DUE)
            fired = bits(fires_now)
            attention = active & bits(fires_now | ~goes_on | at_end | is_due)

        idle, indices, values, size = _attend(
            attention, fired, state, trend, sums, theta, theta_1, theta_2, fits, next_record,
            offsets, exponents, starts, n_starts, model, monotone, max_iter, every, record,
            smallest_scale, smallest_count, objective, objective_1, traced, outcomes, ends, indices,
            values, size,
        )  # fmt: skip
        active &= ~idle
    hold(memory)
    return outcomes, ends, indices[:size], values[:size]
