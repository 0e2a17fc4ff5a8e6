"""SQUAREM: squared iterative extrapolation.

Varadhan & Roland (2008), "Simple and globally convergent methods for accelerating the convergence
of any EM algorithm", Scandinavian Journal of Statistics 35(2), scheme S3. With r = M(theta) - theta
and v = M(M(theta)) - 2 M(theta) + theta, the iterate is M(theta + 2 a r + a^2 v), a = |r| / |v|
between 1 (two EM steps and a third) and a bound that grows fourfold when it is reached. An iterate
whose log-likelihood is below that of theta is refused, without allowance, for M(M(theta)).
"""

import math

from pipeline.core.compilation import compiled
from pipeline.core.em_map import e_step, em_map
from pipeline.core.vector import (
    LANES,
    absolute,
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

GROWTH = 4.0
# Rows of memory before the parameters: the bound, whether it was reached, the fallback's residual.
BOUND, REACHED, RESIDUAL, HEAD = 0, LANES, 2 * LANES, 3 * LANES


@compiled
def memory_rows(n_components):
    """Return how many rows of eight ``step`` needs: three, and three sets of parameters."""
    return 3 + 9 * n_components


@compiled
def step(problem, active, unit, theta, constants, sums, work, memory, mapped, residual):
    """Put the next iterate in the place of M(theta) in ``mapped``; return the last residual."""
    n = 3 * LANES * problem.model.n_components
    once, twice = rows_from(memory, HEAD), rows_from(memory, HEAD + n)
    candidate = rows_from(memory, HEAD + 2 * n)
    for j in range(0, n, LANES):
        store(once, j, load(mapped, j))
    e_step(problem, once, constants, sums, work)
    residual = em_map(problem, active, unit, once, constants, sums, work, twice)
    store(memory, RESIDUAL, residual)

    squared_r, squared_v = splat(0.0), splat(0.0)
    for j in range(0, n, LANES):
        r = load(once, j) - load(theta, j)
        v = load(twice, j) - load(once, j) - r
        squared_r, squared_v = fma(r, r, squared_r), fma(v, v, squared_v)
    bound = maximum(load(memory, BOUND), splat(1.0))
    length = root(squared_r / squared_v)
    # No curvature that a double shows: two steps of EM.
    length = select(squared_v > splat(0.0), length, splat(1.0))
    length = minimum(maximum(length, splat(1.0)), bound)
    reached = length >= bound
    store(memory, BOUND, select(reached, bound * splat(GROWTH), bound))
    store(memory, REACHED, select(reached, splat(1.0), splat(0.0)))

    inside = squared_r >= splat(0.0)
    for j in range(0, n, LANES):
        start = load(theta, j)
        r = load(once, j) - start
        v = load(twice, j) - load(once, j) - r
        value = fma(length * length, v, fma(length + length, r, start))
        store(candidate, j, value)
        if j < n // 3 or j >= 2 * n // 3:
            inside = inside & (value > splat(0.0))
    for j in range(0, n, LANES):
        store(candidate, j, select(inside, load(candidate, j), load(twice, j)))
    e_step(problem, candidate, constants, sums, work)
    return em_map(problem, active, unit, candidate, constants, sums, work, mapped)


@compiled
def refuse(n_components, refused, memory, theta, residual):
    """Put M(M(theta)) in the place of the refused iterates; return the residuals.

    Where that is not finite, as after a collapse, M(theta): it tells what happened.
    """
    n = 3 * LANES * n_components
    finite = splat(0.0) < splat(1.0)
    for j in range(0, n, LANES):
        finite = finite & (absolute(load(memory, HEAD + n + j)) < splat(math.inf))
    for j in range(0, n, LANES):
        once, twice = load(memory, HEAD + j), load(memory, HEAD + n + j)
        store(theta, j, select(refused, select(finite, twice, once), load(theta, j)))
    bound = load(memory, BOUND)
    # The bound that was reached and raised goes down below what it was.
    lower = bound / splat(GROWTH * GROWTH)
    reached = load(memory, REACHED) > splat(0.0)
    store(memory, BOUND, select(refused & reached, maximum(lower, splat(1.0)), bound))
    return select(refused, load(memory, RESIDUAL), residual)
