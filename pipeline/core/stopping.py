"""Stopping rules: when the iterations count as converged."""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.vector import LANES, absolute, load, maximum, select, splat, store

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
def criterion(
    rule,
    iteration,
    log_likelihood,
    log_likelihood_1,
    log_likelihood_2,
    mass,
    change,
    residual,
):
    """Return what a rule compares with its tolerance: it fires where this is no larger.

    Parameters
    ----------
    rule : int
        One of ``STOPPING_RULES``.
    iteration : vector
    log_likelihood, log_likelihood_1, log_likelihood_2 : vector
        L_t, L_(t-1) and L_(t-2); not-a-number where there is none.
    mass : float
        The sample size n.
    change : vector
        Largest |theta_t - theta_(t-1)| in units.
    residual : vector
        Largest |M(theta) - theta| in units, of the map evaluation that led to row t.

    Returns
    -------
    vector
        Not-a-number where there is nothing to compare: before iteration 1 (Aitken: 2).

    Notes
    -----
    Aitken: L_inf = L_(t-1) + (L_t - L_(t-1)) / (1 - a) with a the ratio of the last two increases
    (Boehning, Dietz, Schaub, Schlattmann & Lindsay 1994, "The distribution of the likelihood ratio
    for mixtures of densities from the one-parameter exponential family").
    """
    one, none = splat(1.0), splat(math.nan)
    begun = iteration >= one
    increase = log_likelihood - log_likelihood_1
    if rule == LOG_LIKELIHOOD_ABSOLUTE:
        return select(begun, absolute(increase), none)
    if rule == MEAN_LOG_LIKELIHOOD_ABSOLUTE:
        return select(begun, absolute(increase) / splat(mass), none)
    if rule == LOG_LIKELIHOOD_RELATIVE:
        return select(begun, absolute(increase) / maximum(absolute(log_likelihood), one), none)
    if rule == PARAMETER:
        return select(begun, change, none)
    if rule == MAP_RESIDUAL:
        return select(begun, residual, none)
    if rule == AITKEN:
        ratio = increase / (log_likelihood_1 - log_likelihood_2)
        limit = log_likelihood_1 + increase / (one - ratio)
        limit = select(increase == splat(0.0), log_likelihood, limit)
        return select(iteration > one, absolute(limit - log_likelihood), none)
    return none


@compiled
def _fill_criterion(rule, iteration, log_likelihood, mass, change, residual, out):
    """Fill ``out`` row by row, eight at a time; ``log_likelihood`` begins two rows before it."""
    for i in range(0, out.size, LANES):
        value = criterion(
            rule, load(iteration, i), load(log_likelihood, i + 2), load(log_likelihood, i + 1),
            load(log_likelihood, i), mass, load(change, i), load(residual, i),
        )  # fmt: skip
        store(out, i, value)


def criterion_of_rows(
    rule: str,
    iteration: NDArray[np.int64],
    log_likelihood: NDArray[np.float64],
    mass: float,
    change: NDArray[np.float64],
    residual: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return ``criterion`` at every row of complete traces, to the last bit as the loop had it.

    Parameters
    ----------
    rule : str
        One of ``STOPPING_RULES``.
    iteration, log_likelihood, change, residual : shape (T,)
        One fit after the other, each with all its rows from row 0 on.
    mass : float

    Returns
    -------
    float64, shape (T,)
    """
    n = len(iteration)
    after = -n % LANES
    out = np.empty(n + after)
    # What stands before a fit's row 0 is compared with nothing.
    levels = np.pad(log_likelihood, (2, after), constant_values=math.nan)
    others = [np.pad(np.asarray(part, float), (0, after)) for part in (iteration, change, residual)]
    _fill_criterion(STOPPING_RULES[rule], others[0], levels, float(mass), *others[1:], out)
    return out[:n]
