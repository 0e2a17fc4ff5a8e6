"""How a fit can end."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.core.compilation import compiled
from pipeline.core.model import FIXED
from pipeline.core.vector import LANES, absolute, load, maximum, splat


class Outcome(IntEnum):
    """The end of a fit, in order of precedence; ``outcome.name.lower()`` is its name in tables."""

    NONFINITE = 0
    DEGENERATE_SCALE = 1
    EMPTY_COMPONENT = 2
    LOG_LIKELIHOOD_DECREASED = 3
    CONVERGED = 4
    MAX_ITER = 5
    ERROR = 6


# Their estimate is finite and not degenerate: nothing has driven the likelihood out of bounds.
WITH_ESTIMATE = (Outcome.LOG_LIKELIHOOD_DECREASED, Outcome.CONVERGED, Outcome.MAX_ITER)
ADVICE: dict[Outcome, str] = {
    Outcome.NONFINITE: (
        "A parameter or the log-likelihood overflowed: look for extreme values in the sample or "
        "the start, and rescale the data."
    ),
    Outcome.DEGENERATE_SCALE: (
        "A component shrank onto one point, where the likelihood is unbounded, or ended at "
        "degeneracy.scale_floor: use another start, more data, shared scales, or a penalty."
    ),
    Outcome.EMPTY_COMPONENT: (
        "A component lost all its points: use another start or fewer components."
    ),
    Outcome.LOG_LIKELIHOOD_DECREASED: (
        "The log-likelihood fell, which this algorithm rules out beyond rounding: report it as a "
        "defect."
    ),
    Outcome.CONVERGED: (
        "The stopping rule fired: the estimate is as close to a fixed point as the rule and its "
        "tolerance promise, no closer."
    ),
    Outcome.MAX_ITER: (
        "The iterations ran out before the stopping rule fired: raise schedule.max_iter or loosen "
        "schedule.stop.tolerance."
    ),
    Outcome.ERROR: "Something unexpected happened; its message is in the log.",
}

# The members as the compiled code reads them.
NONFINITE = int(Outcome.NONFINITE)
DEGENERATE_SCALE = int(Outcome.DEGENERATE_SCALE)
EMPTY_COMPONENT = int(Outcome.EMPTY_COMPONENT)
LOG_LIKELIHOOD_DECREASED = int(Outcome.LOG_LIKELIHOOD_DECREASED)
CONVERGED = int(Outcome.CONVERGED)
MAX_ITER = int(Outcome.MAX_ITER)
GOES_ON = -1

# By how much, relative to max(1, |L|), rounding may lower a monotone algorithm's log-likelihood.
DECREASE = 1e-10


@dataclass(frozen=True)
class Degeneracy:
    """When a component has collapsed, and what keeps it from that.

    ``scale``, in sample standard deviations, and ``count``: below them a fitted scale, or the
    points that a component holds, end the fit. ``scale_floor``, in sample standard deviations:
    scales are kept from falling below it. ``penalty``: the factor c of a penalty (c / n) sum_k
    (u^2 / scale_k^2 + log(scale_k^2 / u^2)) on the log-likelihood, which vanishes for a population
    (see ``pipeline.core.em.m_step``). None: neither.
    """

    scale: float = 1e-6
    count: float = 1e-8
    scale_floor: float | None = None
    penalty: float | None = None


@compiled
def verdict(
    iteration, max_iter, theta, counts, objective, objective_1, fired, floored, model, monotone,
    smallest_scale, smallest_count,
):  # fmt: skip
    """Return the outcome at one row, the first that applies in the order of ``Outcome``.

    A scale that stands at its floor (``floored``) may leave it: it counts at the end only.
    """
    healthy_scales = model.scales == FIXED or theta[2].min() > smallest_scale
    finite = np.isfinite(objective)
    if not np.all(np.isfinite(theta)) or (healthy_scales and not finite):
        return NONFINITE
    if not healthy_scales or (floored and (fired or iteration == max_iter)):
        return DEGENERATE_SCALE
    if not counts.min() >= smallest_count:
        return EMPTY_COMPONENT
    least = objective_1 - DECREASE * max(1.0, abs(objective))
    if monotone and iteration > 0 and objective < least:
        return LOG_LIKELIHOOD_DECREASED
    if fired:
        return CONVERGED
    return MAX_ITER if iteration == max_iter else GOES_ON


@compiled
def sound(
    n_components, theta, sums, unit, iteration, objective, objective_1, scales, monotone,
    smallest_scale, smallest_count,
):  # fmt: skip
    """Return the lanes in which no outcome but ``CONVERGED`` and ``MAX_ITER`` can apply.

    ``verdict`` tells the others apart; where this is true it finds none of them.

    Parameters
    ----------
    theta, sums : rows, shape (3 * K * 8,)
        See ``pipeline.core.em``.
    unit, iteration, objective, objective_1 : vector
    """
    n = LANES * n_components
    infinity = splat(np.inf)
    good = absolute(objective) < infinity
    for j in range(0, n, LANES):
        good = good & (absolute(load(theta, j)) < infinity)
        good = good & (absolute(load(theta, n + j)) < infinity)
        scale = load(theta, 2 * n + j)
        good = good & (scale < infinity)
        if scales != FIXED:
            good = good & (scale > splat(smallest_scale) * unit)
        good = good & (load(sums, j) >= splat(smallest_count))
    if monotone:
        slack = splat(DECREASE) * maximum(absolute(objective), splat(1.0))
        fell = objective < objective_1 - slack
        good = good & ~((iteration > splat(0.0)) & fell)
    return good
