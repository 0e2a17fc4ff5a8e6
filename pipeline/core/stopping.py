"""Stopping rules: when the iterations count as converged."""

from pipeline.core.compilation import compiled

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
def largest_change(theta, theta_before, unit):
    """Return the largest change of any parameter, each in its unit.

    Parameters
    ----------
    theta, theta_before : float64, shape (3, K)
        Weights, means, scales.
    unit : float
        Of means and scales: the sample's standard deviation. That of weights is 1.
    """
    largest = 0.0
    for row in range(3):
        for k in range(theta.shape[1]):
            change = abs(theta[row, k] - theta_before[row, k])
            # No change is none in any unit, even where all points are equal and the unit is 0.
            if row > 0 and change > 0:
                change /= unit
            largest = max(largest, change)
    return largest


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
    """Return whether a rule stops the fit at ``iteration`` >= 1.

    Parameters
    ----------
    rule : int
        One of ``STOPPING_RULES``.
    tolerance : float
    log_likelihood, log_likelihood_1, log_likelihood_2 : float
        L_t, L_(t-1) and L_(t-2) (the last is not read at t = 1).
    mass : float
        The sample size n.
    change : float
        Largest |theta_t - theta_(t-1)| in units.
    residual : float
        Largest |M(theta) - theta| in units, of the map evaluation that led to row t.

    Notes
    -----
    Aitken: L_inf = L_(t-1) + (L_t - L_(t-1)) / (1 - a) with a the ratio of the last two increases
    (Boehning, Dietz, Schaub, Schlattmann & Lindsay 1994, "The distribution of the likelihood ratio
    for mixtures of densities from the one-parameter exponential family").
    """
    increase = log_likelihood - log_likelihood_1
    if rule == LOG_LIKELIHOOD_ABSOLUTE:
        return abs(increase) <= tolerance
    if rule == MEAN_LOG_LIKELIHOOD_ABSOLUTE:
        return abs(increase) / mass <= tolerance
    if rule == LOG_LIKELIHOOD_RELATIVE:
        return abs(increase) <= tolerance * max(1.0, abs(log_likelihood))
    if rule == PARAMETER:
        return change <= tolerance
    if rule == MAP_RESIDUAL:
        return residual <= tolerance
    if rule == AITKEN and iteration >= 2:
        limit = log_likelihood
        if increase != 0.0:
            ratio = increase / (log_likelihood_1 - log_likelihood_2)
            limit = log_likelihood_1 + increase / (1.0 - ratio)
        return abs(limit - log_likelihood) <= tolerance
    return False
