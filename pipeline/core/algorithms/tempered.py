"""EM with tempered responsibilities, proportional to (w_k N_k(x))^b.

b < 1 blurs them: deterministic annealing raises b to 1 (Ueda & Nakano 1998, "Deterministic
annealing EM algorithm", Neural Networks 11(2)). b -> infinity makes them hard: the classification
EM algorithm (Celeux & Govaert 1992). Either may lower the log-likelihood.
"""

from pipeline.core.compilation import compiled
from pipeline.core.em import largest_change, set_constants
from pipeline.core.em_map import em_map, expect
from pipeline.core.model import FREE, SHARED
from pipeline.core.vector import LANES, bits, load, minimum, select, splat, store

# Any difference of two exponents that a double shows decides: responsibilities are 0 or 1, and
# shared where exponents are equal.
HARD = 2.0**60


@compiled
def _tempered_map(power, problem, active, unit, theta, constants, sums, work, mapped):
    """Fill ``mapped`` with the M-step from responsibilities to a power; return the residual."""
    n_components = problem.model.n_components
    set_constants(n_components, theta, constants)
    for j in range(0, 2 * LANES * n_components, LANES):
        store(constants, j, load(constants, j) * power)
    expect(problem, theta, constants, sums, work)
    return em_map(problem, active, unit, theta, constants, sums, work, mapped)


@compiled
def memory_rows(n_components):
    """Return how many rows of eight ``annealed`` needs: b, and one set of parameters."""
    return 1 + 3 * n_components


def first_armed(start: float, growth: float) -> int:
    """Return the first iteration of ``annealed`` with b = 1, by the same arithmetic."""
    iteration, power = 1, start
    while power < 1.0:
        iteration, power = iteration + 1, min(power * growth, 1.0)
    return iteration


@compiled
def annealed(
    options, problem, active, unit, theta, constants, sums, work, memory, mapped, residual
):
    """Put the tempered M-step in the place of M(theta): b = start, start * growth, ..., 1.

    Returns
    -------
    residual, likelihood_evaluations, armed
        No rule stops a fit before b is 1: at a smaller one its components may well agree.
    """
    zero, one = splat(0.0), splat(1.0)
    power = load(memory, 0)
    raised = minimum(power * splat(options.growth), one)
    power = select(power > zero, raised, splat(options.start))
    store(memory, 0, power)
    armed = power >= one
    if active & bits(~armed):
        n = 3 * LANES * problem.model.n_components
        # M(theta) is kept in the lanes that need it.
        for j in range(0, n, LANES):
            store(memory, LANES + j, load(mapped, j))
        blurred = _tempered_map(power, problem, active, unit, theta, constants, sums, work, mapped)
        for j in range(0, n, LANES):
            store(mapped, j, select(armed, load(memory, LANES + j), load(mapped, j)))
        residual = select(armed, residual, blurred)
    return residual, select(armed, zero, one), armed


@compiled
def classification(problem, active, unit, theta, constants, sums, work, mapped):
    """Put the M-step from hard responsibilities in the place of M(theta); return the residual.

    A component without points keeps its mean and scale, and has weight 0 where weights are free;
    where means or scales are tied, all means and scales are kept.
    """
    _tempered_map(splat(HARD), problem, active, unit, theta, constants, sums, work, mapped)
    model, n = problem.model, LANES * problem.model.n_components
    if model.means == FREE and model.scales != SHARED:
        for k in range(0, n, LANES):
            empty = ~(load(sums, k) > splat(0.0))
            store(mapped, n + k, select(empty, load(theta, n + k), load(mapped, n + k)))
            scale = select(empty, load(theta, 2 * n + k), load(mapped, 2 * n + k))
            store(mapped, 2 * n + k, scale)
    else:
        # What is tied is made of all components: without one of them nothing is left to step from.
        some = splat(0.0) > splat(1.0)
        for k in range(0, n, LANES):
            some = some | ~(load(sums, k) > splat(0.0))
        for j in range(0, 3 * n, LANES):
            kept = load(theta, j)
            if j < n and model.weights == FREE:
                kept = load(sums, j) / splat(problem.mass)
            store(mapped, j, select(some, kept, load(mapped, j)))
    return largest_change(problem.model.n_components, mapped, theta, unit)
