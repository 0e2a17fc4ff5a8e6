"""Confidence intervals of shares and of ratios over replicates, 95 % where none is named.

The starts of a replicate see the same data: what several of them tell is less than as many
replicates would. A share's interval therefore takes the number of independent fits that would have
the same variance (its effective size) for the number of fits.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

LEVEL = 0.95
NORMAL = float(ndtri(0.5 + LEVEL / 2.0))

Values = NDArray[np.float64]


def student(degrees: ArrayLike, level: float = LEVEL) -> Values:
    """Return the quantile of Student's t that a two-sided interval takes; no degrees: nan."""
    # It takes its time, and the points of a curve share their degrees.
    distinct, place = np.unique(np.asarray(degrees, float), return_inverse=True)
    return stdtrit(np.where(distinct > 0, distinct, np.nan), 0.5 + level / 2.0)[place]


def effective_size(
    share: ArrayLike,
    variance: ArrayLike,
    n_fits: ArrayLike,
    n_replicates: ArrayLike,
    level: float = LEVEL,
) -> Values:
    """Return how many independent fits a share is worth; all arguments broadcast.

    Korn & Graubard (1998), "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", Survey Methodology 24, 193-201:

        n* = p (1 - p) / V  *  (1 - 1/R) / (1 - 1/n)  *  (t_{n-1} / t_{R-1})^2

    For one start per replicate and V = p (1 - p) / n this is n. It is at most n, so that starts
    that happen to balance each other count no more than independent ones; and R where the share
    is 0 or 1, whose variance of 0 says nothing: as if all starts of a replicate were one. One
    replicate tells no variance: nan.

    Parameters
    ----------
    share : p
    variance : V, of p over replicates, by sums of squares over replicates divided by R^2
    n_fits, n_replicates : n and R
    """
    share, variance = np.asarray(share, float), np.asarray(variance, float)
    fits, replicates = np.asarray(n_fits, float), np.asarray(n_replicates, float)
    # The last bits of a variance that is 0 are the arithmetic's.
    telling = variance * fits > 1e-9 * share * (1.0 - share)
    several = replicates > 1
    size = share * (1.0 - share) / np.where(telling, variance, 1.0)
    size = size * (1.0 - 1.0 / replicates) / np.where(several, 1.0 - 1.0 / fits, 1.0)
    size = size * (student(fits - 1.0, level) / student(replicates - 1.0, level)) ** 2
    inside = (share > 0.0) & (share < 1.0)
    size = np.where(inside, np.where(telling, np.minimum(size, fits), fits), replicates)
    return np.where(several, size, np.nan)


def wilson(share: ArrayLike, size: ArrayLike, level: float = LEVEL) -> tuple[Values, Values]:
    """Return the ends of the score interval of a share from `size` independent trials.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference": the p
    with (share - p)^2 <= z^2 p (1 - p) / size.
    """
    share, size = np.asarray(share, float), np.asarray(size, float)
    square = ndtri((1.0 + level) / 2.0) ** 2 / size
    centre = share + square / 2.0
    half = np.sqrt(square * (share * (1.0 - share) + square / 4.0))
    low = np.where(share == 0.0, 0.0 * size, (centre - half) / (1.0 + square))
    high = np.where(share == 1.0, 1.0 + 0.0 * size, (centre + half) / (1.0 + square))
    return np.maximum(low, 0.0), np.minimum(high, 1.0)


def share_interval(
    share: ArrayLike,
    variance: ArrayLike,
    n_fits: ArrayLike,
    n_replicates: ArrayLike,
    level: float = LEVEL,
) -> tuple[Values, Values]:
    """Return Wilson's interval of a share with its `effective_size`; nan from one replicate."""
    return wilson(share, effective_size(share, variance, n_fits, n_replicates, level), level)


def ratio_interval(
    ratio: ArrayLike, error: ArrayLike, n_replicates: ArrayLike, level: float = LEVEL
) -> tuple[Values, Values]:
    """Return the ends of ratio * exp(-+ t_{R-1} error / ratio); nan without an error.

    On the scale of the logarithm: a positive quantity has no interval that begins below 0, and its
    inverse (successes for an evaluation) has the inverse interval.
    """
    ratio, error = np.asarray(ratio, float), np.asarray(error, float)
    relative = error / np.where(ratio > 0.0, ratio, np.nan)
    factor = np.exp(student(np.asarray(n_replicates, float) - 1.0, level) * relative)
    return ratio / factor, ratio * factor
