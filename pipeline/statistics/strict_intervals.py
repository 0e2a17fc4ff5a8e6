"""Confidence intervals that claims are judged by: of a mean, a share, a slope.

Each is at least as wide as the textbook's where that errs more often than its level says.
"""

import numpy as np
from scipy.special import betaincinv, ndtri, stdtrit

# With fewer replicates an MCSE says too little to judge a claim by.
FEWEST_REPLICATES = 30
# The variance of R values with kurtosis k is as uncertain as that of 2R / (k - 1) + 1 normal ones;
# k = 15 is that of a squared normal error, which an MSE is the mean of.
REPLICATES_PER_DEGREE = 7.0


def student_quantile(level: float, replicates: float) -> float:
    """Return the two-sided t quantile with `replicates` / 7 degrees of freedom.

    R - 1 would be right for normal values. An MCSE of skewed, heavy-tailed ones is much less
    certain than that: by Satterthwaite's (1946) matching of variances that of R squared normal
    errors has R / 7 degrees of freedom.
    """
    return float(stdtrit(replicates / REPLICATES_PER_DEGREE, (1.0 + level) / 2.0))


def mean_interval(mean: float, mcse: float, replicates: float, level: float) -> tuple[float, float]:
    """Return mean -+ t MCSE, with `student_quantile`."""
    half = student_quantile(level, replicates) * mcse
    return mean - half, mean + half


def positive_interval(
    mean: float, mcse: float, replicates: float, level: float
) -> tuple[float, float]:
    """Return mean · exp(-+ t MCSE / mean): the interval of the logarithm, by the delta method.

    For means that cannot be negative: where such a mean is small by chance, so is its MCSE, and the
    symmetric interval ends too soon above.
    """
    half = student_quantile(level, replicates) * mcse / mean
    factor = float(np.exp(min(half, 700.0)))  # below the largest float64
    return mean / factor, mean * factor


def clopper_pearson(share: float, number: float, level: float) -> tuple[float, float]:
    """Return the exact binomial interval of Clopper & Pearson (1934).

    Its tails never err more often than (1 - level) / 2. Wilson's do where few trials differ from
    the others: after 1 success in 100 its 0.95 interval begins at 0.0018, a share that
    shows a success in 16 of 100 such studies.
    """
    successes, tail = share * number, (1.0 - level) / 2.0
    low = 0.0 if share == 0.0 else float(betaincinv(successes, number - successes + 1.0, tail))
    high = (
        1.0 if share == 1.0 else float(betaincinv(successes + 1.0, number - successes, 1.0 - tail))
    )
    return low, high


def effective_number(
    share: float, mcse: float, replicates: int, number: int, level: float
) -> float:
    """Return how many independent trials `number` trials in `replicates` clusters are worth.

    p (1 - p) / Var(p), times (z / t)^2 with t of replicates - 1 degrees of freedom because the
    variance is estimated: Korn & Graubard (1998), "Confidence intervals for proportions with small
    expected number of positive counts estimated from survey data", Survey Methodology 24,
    193-201. At least the number of replicates, which it is if trials of a replicate all agree (and
    at 0 or 1 or with few replicates, where nothing tells whether they do), at most that of trials.
    """
    if number == replicates or not 0.0 < share < 1.0 or replicates < FEWEST_REPLICATES:
        return float(replicates)
    variance = mcse * mcse * replicates / (replicates - 1.0)
    if not variance > 0.0:
        return float(replicates)
    upper = (1.0 + level) / 2.0
    shrunk = float(ndtri(upper) / stdtrit(replicates - 1.0, upper)) ** 2
    return min(float(number), max(float(replicates), share * (1.0 - share) / variance * shrunk))
