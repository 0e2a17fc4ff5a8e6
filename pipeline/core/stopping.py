"""Stopping rules: when the iterations count as converged."""

from pipeline.core.compilation import compiled
from pipeline.core.vector import absolute, maximum, select, splat

NEVER = 0
LOG_LIKELIHOOD_ABSOLUTE = 1
MEAN_LOG_LIKELIHOOD_ABSOLUTE = 2
LOG_LIKELIHOOD_RELATIVE = 3
PARAMETER = 4
MAP_RESIDUAL = 5
AITKEN = 6

STOPPING_RULES: dict[str, int] = {
    "never": NEVER,
    "log_likelihood_absolute": LOG_LIKELIHOOD_ABSOLUTE,
    "mean_log_likelihood_absolute": MEAN_LOG_LIKELIHOOD_ABSOLUTE,
    "log_likelihood_relative": LOG_LIKELIHOOD_RELATIVE,
    "parameter": PARAMETER,
    "map_residual": MAP_RESIDUAL,
    "aitken": AITKEN,
}


@compiled
def fires(
    rule,
    tolerance,
    iteration,
    log_likelihood,
    log_likelihood_1,
    log_likelihood_2,
    mass,
    change,
    residual,
):
    """Return the lanes whose fits a rule stops at their ``iteration`` >= 1.

    Parameters
    ----------
    rule : int
        One of ``STOPPING_RULES``.
    tolerance : float
    iteration : vector
    log_likelihood, log_likelihood_1, log_likelihood_2 : vector
        L_t, L_(t-1) and L_(t-2); not-a-number where there is none.
    mass : float
        The sample size n.
    change : vector
        Largest |theta_t - theta_(t-1)| in units.
    residual : vector
        Largest |M(theta) - theta| in units, of the map evaluation that led to row t.

    Notes
    -----
    Aitken: L_inf = L_(t-1) + (L_t - L_(t-1)) / (1 - a) with a the ratio of the last two increases
    (Boehning, Dietz, Schaub, Schlattmann & Lindsay 1994, "The distribution of the likelihood ratio
    for mixtures of densities from the one-parameter exponential family").
    """
    bound = splat(tolerance)
    begun = iteration >= splat(1.0)
    increase = log_likelihood - log_likelihood_1
    if rule == LOG_LIKELIHOOD_ABSOLUTE:
        return begun & (absolute(increase) <= bound)
    if rule == MEAN_LOG_LIKELIHOOD_ABSOLUTE:
        return begun & (absolute(increase) / splat(mass) <= bound)
    if rule == LOG_LIKELIHOOD_RELATIVE:
        size = maximum(absolute(log_likelihood), splat(1.0))
        return begun & (absolute(increase) <= bound * size)
    if rule == PARAMETER:
        return begun & (change <= bound)
    if rule == MAP_RESIDUAL:
        return begun & (residual <= bound)
    if rule == AITKEN:
        one, zero = splat(1.0), splat(0.0)
        ratio = increase / (log_likelihood_1 - log_likelihood_2)
        limit = log_likelihood_1 + increase / (one - ratio)
        limit = select(increase == zero, log_likelihood, limit)
        return (iteration >= splat(2.0)) & (absolute(limit - log_likelihood) <= bound)
    return iteration < iteration
