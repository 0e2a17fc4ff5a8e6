"""BFGS on the observed log-likelihood: the outsider that EM and its accelerators are compared with.

Nocedal & Wright (2006), "Numerical Optimization", 2nd ed., algorithm 6.1, with a backtracking line
search for a sufficient increase as in Nash (1990), "Compact Numerical Methods for Computers",
algorithm 21. Coordinates without constraints: log w_k (the
weights are normalised), mean_k, log scale_k; what the model ties moves together, what it fixes has
gradient 0. The gradient per unit mass comes from the sums of the E-step alone (Salakhutdinov,
Roweis & Ghahramani 2003, "Optimization with EM and expectation-conjugate-gradient"):

    (N_k - N w_k) / N,   S_1k / (N scale_k^2),   (S_2k / scale_k^2 - N_k) / N,

with N_k, S_1k, S_2k the sums of r_k, r_k d and r_k d^2, d = x - mean_k; a penalty of scales adds
its own. The first matrix is the inverse of the complete-data information, with which the first step
is near that of EM (Jamshidian & Jennrich 1997, "Acceleration of the EM algorithm by using
quasi-Newton methods"): from the identity, fits far from their optimum lose components. Where no
step along a direction will do, the iterate is M(theta) and the matrix begins anew. A trial's scales
are raised to the floor, if there is one; one that stands there and would go on falling stays out of
the search, and the matrix begins anew where that changes (Bertsekas 1982, "Projected Newton methods
for optimization problems with simple constraints").
"""

import math

from pipeline.core.compilation import compiled
from pipeline.core.model import FREE, SHARED, SYMMETRIC
from pipeline.core.vector import (
    LANES,
    absolute,
    exp2,
    fma,
    load,
    maximum,
    minimum,
    root,
    rows_from,
    select,
    splat,
    store,
)

LOG2_E = 1.0 / math.log(2.0)
# Of the increase that the slope promises, what a step must bring.
SUFFICIENT = 1e-4
SHRINK = 0.2
MOST_TRIALS = 12
# No first step of a line search moves a mean by more than this part of the unit, or a logarithm
# by more than this.
REACH = 0.5
# The cosine of a step and the gradient's change from which on the change is more than rounding.
CURVED = 2.0**-40
# Rows of memory before the vectors: 0 before a first step, 1 while the matrix is the first one, 2
# after; the length of the step along the direction; the slope there; the trials of this step; which
# scales stand at their floor, as the digits of a binary number.
KNOWN, LENGTH, SLOPE, TRIALS, HELD, HEAD = range(0, 6 * LANES, LANES)


@compiled
def memory_rows(n_components):
    """Return how many rows of eight ``step`` needs.

    Its own five; theta, M(theta), the gradient there, the one before, the direction, the matrix
    times the gradient's change, the first matrix's diagonal; the matrix, d x d with d = 3 K.
    """
    return 5 + 21 * n_components + 9 * n_components * n_components


@compiled
def _set_gradient(problem, penalty, theta, sums, unit, gradient):
    """Fill the gradient of the log-likelihood per unit mass, in the model."""
    model, n = problem.model, LANES * problem.model.n_components
    share = splat(1.0 / problem.mass)
    all_scales = splat(0.0)
    for k in range(0, n, LANES):
        count, scale = load(sums, k), load(theta, 2 * n + k)
        precision = splat(1.0) / (scale * scale)
        of_weight = fma(count, share, -load(theta, k))
        of_mean = load(sums, n + k) * precision * share
        of_scale = fma(load(sums, 2 * n + k), precision, -count)
        if penalty is not None:
            of_scale = of_scale + splat(2.0 * penalty) * fma(unit * unit, precision, splat(-1.0))
        of_scale = of_scale * share
        if model.weights != FREE:
            of_weight = splat(0.0)
        all_scales = all_scales + of_scale
        store(gradient, k, of_weight)
        store(gradient, n + k, of_mean)
        store(gradient, 2 * n + k, of_scale)
    if model.means == SYMMETRIC:
        half = splat(0.5) * (load(gradient, n) - load(gradient, n + LANES))
        store(gradient, n, half)
        store(gradient, n + LANES, -half)
    if model.scales != FREE:
        together = splat(0.0)
        if model.scales == SHARED:
            together = all_scales / splat(float(model.n_components))
        for k in range(0, n, LANES):
            store(gradient, 2 * n + k, together)


@compiled
def _hold_scales(problem, floor, unit, theta, gradient, memory):
    """Take the scales that would fall below the floor out of the gradient; return the new lanes.

    Lanes in which they are not those of the step before, or in which that step was cut short.
    """
    n = LANES * problem.model.n_components
    held, digit = splat(0.0), splat(1.0)
    for k in range(2 * n, 3 * n, LANES):
        stands = load(theta, k) <= splat(floor) * unit
        stays = stands & ~(load(gradient, k) > splat(0.0))
        store(gradient, k, select(stays, splat(0.0), load(gradient, k)))
        held = held + select(stands, digit, splat(0.0))
        digit = digit + digit
    changed = ~(held == load(memory, HELD))
    store(memory, HELD, held)
    return changed


@compiled
def _anew(problem, floor, unit, theta, gradient, memory, known):
    """Return what is known of the matrix after a change of the scales that are held."""
    if floor is not None:
        changed = _hold_scales(problem, floor, unit, theta, gradient, memory)
        known = select(changed, splat(0.0), known)
    return known


@compiled
def _set_diagonal(problem, theta, sums, diagonal):
    """Fill the inverse of the complete-data information per unit mass, in the model."""
    model, n = problem.model, LANES * problem.model.n_components
    mass, precision = splat(problem.mass), splat(0.0)
    for k in range(0, n, LANES):
        count, scale = load(sums, k), load(theta, 2 * n + k)
        share = mass / count
        precision = precision + splat(1.0) / (scale * scale * share)
        store(diagonal, k, splat(1.0) / load(theta, k))
        store(diagonal, n + k, scale * scale * share)
        store(diagonal, 2 * n + k, splat(0.5) * share)
    if model.means == SYMMETRIC:
        store(diagonal, n, splat(2.0) / precision)
        store(diagonal, n + LANES, splat(2.0) / precision)
    if model.scales == SHARED:
        for k in range(0, n, LANES):
            store(diagonal, 2 * n + k, splat(0.5 * model.n_components))


@compiled
def _update_matrix(d, known, length, gradient, before, direction, product, diagonal, matrix):
    """Put the last step s and what it did to the gradient into the matrix; return the mask of it.

    With y = gradient before - gradient (the objective is maximised) and rho = 1 / s'y:
    H + rho ((1 + rho y'Hy) s s' - H y s' - s y'H).
    """
    zero, one = splat(0.0), splat(1.0)
    curvature, squared_s, squared_y = zero, zero, zero
    for i in range(0, d, LANES):
        s, y = length * load(direction, i), load(before, i) - load(gradient, i)
        curvature = fma(s, y, curvature)
        squared_s, squared_y = fma(s, s, squared_s), fma(y, y, squared_y)
    useful = (known > zero) & (curvature > splat(CURVED) * root(squared_s) * root(squared_y))
    first = known < splat(2.0)
    for i in range(0, d, LANES):
        for j in range(0, d, LANES):
            at = (d // LANES) * i + j
            anew = load(diagonal, i) if i == j else zero
            store(matrix, at, select(first, anew, load(matrix, at)))
    quadratic = zero
    for i in range(0, d, LANES):
        total = zero
        for j in range(0, d, LANES):
            change = load(before, j) - load(gradient, j)
            total = fma(load(matrix, (d // LANES) * i + j), change, total)
        store(product, i, total)
        quadratic = fma(total, load(before, i) - load(gradient, i), quadratic)
    rho = select(useful, one / curvature, zero)
    weight = rho * fma(rho, quadratic, one)
    for i in range(0, d, LANES):
        s_i = length * load(direction, i)
        for j in range(0, d, LANES):
            s_j = length * load(direction, j)
            at = (d // LANES) * i + j
            cross = fma(load(product, i), s_j, s_i * load(product, j))
            value = fma(weight * s_i, s_j, load(matrix, at)) - rho * cross
            store(matrix, at, select(useful, value, load(matrix, at)))
    return useful


@compiled
def _move(problem, floor, chosen, unit, memory, theta):
    """Put theta + length * direction in its place, in the chosen lanes."""
    model, n = problem.model, LANES * problem.model.n_components
    base, direction = rows_from(memory, HEAD), rows_from(memory, HEAD + 12 * n)
    length = load(memory, LENGTH)
    logarithm = length * splat(LOG2_E)
    total = splat(0.0)
    for k in range(0, n, LANES):
        weight = load(base, k) * exp2(logarithm * load(direction, k))
        total = total + weight
        mean = fma(length, load(direction, n + k), load(base, n + k))
        scale = load(base, 2 * n + k) * exp2(logarithm * load(direction, 2 * n + k))
        if floor is not None:
            scale = maximum(scale, splat(floor) * unit)
        store(theta, k, select(chosen, weight, load(theta, k)))
        store(theta, n + k, select(chosen, mean, load(theta, n + k)))
        store(theta, 2 * n + k, select(chosen, scale, load(theta, 2 * n + k)))
    if model.weights == FREE:
        for k in range(0, n, LANES):
            weight = load(theta, k)
            store(theta, k, select(chosen, weight / total, weight))
    # What is tied stays so to the last bit: nothing would bring it together again.
    if model.means == SYMMETRIC:
        store(theta, n + LANES, -load(theta, n))
    if model.scales == SHARED:
        for k in range(2 * n + LANES, 3 * n, LANES):
            store(theta, k, load(theta, 2 * n))


@compiled
def step(problem, unit, theta, sums, memory, mapped):
    """Put the first trial of a line search in the place of M(theta) in ``mapped``.

    ``sums`` are those of the E-step at theta.
    """
    n = LANES * problem.model.n_components
    d = 3 * n
    zero, one = splat(0.0), splat(1.0)
    base, fallback = rows_from(memory, HEAD), rows_from(memory, HEAD + d)
    gradient, before = rows_from(memory, HEAD + 2 * d), rows_from(memory, HEAD + 3 * d)
    direction, product = rows_from(memory, HEAD + 4 * d), rows_from(memory, HEAD + 5 * d)
    diagonal, matrix = rows_from(memory, HEAD + 6 * d), rows_from(memory, HEAD + 7 * d)
    for i in range(0, d, LANES):
        store(before, i, load(gradient, i))
        store(base, i, load(theta, i))
        store(fallback, i, load(mapped, i))
    _set_gradient(problem, problem.penalty, theta, sums, unit, gradient)
    _set_diagonal(problem, theta, sums, diagonal)
    known, length = load(memory, KNOWN), load(memory, LENGTH)
    known = _anew(problem, problem.floor, unit, theta, gradient, memory, known)
    useful = _update_matrix(
        d, known, length, gradient, before, direction, product, diagonal, matrix
    )
    known = select(useful, splat(2.0), maximum(known, one))

    slope, steepest = zero, zero
    for i in range(0, d, LANES):
        total = zero
        for j in range(0, d, LANES):
            total = fma(load(matrix, (d // LANES) * i + j), load(gradient, j), total)
        # What is held has gradient 0.
        total = select(load(gradient, i) == zero, zero, total)
        store(direction, i, total)
        slope = fma(total, load(gradient, i), slope)
        steepest = fma(load(diagonal, i) * load(gradient, i), load(gradient, i), steepest)
    uphill = slope > zero
    slope = select(uphill, slope, steepest)
    farthest = zero
    for i in range(0, d, LANES):
        value = select(uphill, load(direction, i), load(diagonal, i) * load(gradient, i))
        store(direction, i, value)
        if n <= i < 2 * n:
            value = value / unit
        farthest = maximum(farthest, absolute(value))
    store(memory, KNOWN, select(uphill, known, one))
    store(memory, SLOPE, slope * splat(problem.mass))
    store(memory, LENGTH, minimum(one, splat(REACH) / farthest))
    store(memory, TRIALS, one)
    _move(problem, problem.floor, zero < one, unit, memory, mapped)


@compiled
def enough(memory, level, level_before):
    """Return the lanes in which the trial raises the log-likelihood by enough, or is M(theta)."""
    wanted = splat(SUFFICIENT) * load(memory, LENGTH) * load(memory, SLOPE)
    last = load(memory, TRIALS) > splat(float(MOST_TRIALS))
    return (level >= level_before + wanted) | last


@compiled
def refuse(problem, refused, unit, memory, theta):
    """Put the next trial, or M(theta) after the last, in the place of those refused."""
    n = LANES * problem.model.n_components
    trials = load(memory, TRIALS)
    store(memory, TRIALS, select(refused, trials + splat(1.0), trials))
    length = load(memory, LENGTH)
    store(memory, LENGTH, select(refused, length * splat(SHRINK), length))
    _move(problem, problem.floor, refused, unit, memory, theta)
    last = refused & (trials >= splat(float(MOST_TRIALS)))
    for i in range(0, 3 * n, LANES):
        store(theta, i, select(last, load(memory, HEAD + 3 * n + i), load(theta, i)))
    store(memory, KNOWN, select(last, splat(0.0), load(memory, KNOWN)))
