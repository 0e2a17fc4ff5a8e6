"""Confidence intervals of shares and of ratios over replicates, 95 % where none is named.

The starts of a replicate see the same data: what several of them tell is less than as many
replicates would. A share's interval therefore takes the number of independent fits that would have
the same variance (its effective size) for the number of fits.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainccinv, gammaincinv, ndtri, stdtrit

LEVEL = 0.95
NORMAL = float(ndtri(0.5 + LEVEL / 2.0))
# Below it a gamma distribution is normal, to the digits that its quantiles have.
LEAST_SKEWNESS = 1e-6
# The limits of a ratio are looked for on its logarithm, so far from it and to the last bits.
FARTHEST, HALVINGS = 200.0, 60

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


class Unseen(NamedTuple):
    """What one more replicate of each of C cells may do, each (C,).

    Cost and successes where it costs least, and the cost, without a success, where it costs most.
    """

    least: Values
    successes: Values
    most: Values


def ratio_interval(
    cost: Values, successes: Values, first: NDArray[np.int64], unseen: Unseen, level: float = LEVEL
) -> tuple[Values, Values]:
    """Return the limits of what a success costs on average, of C cells.

    Gaffke (2005), "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
    nonnegative variable", Mathematical Methods of Statistics 14, 451-467; Learned-Miller & Thomas
    (2020), "A new confidence interval for the mean of a bounded random variable": the replicates
    have random weights, independent and exponential, and there is one more that nobody saw, the
    worst possible for the upper limit and the best possible for the lower one. A limit is the
    quantile (1 +- level) / 2 of the ratio of the weighted sums. Where all replicates are 0 or 1
    this is Clopper and Pearson's.

    Parameters
    ----------
    cost, successes : shape (N,)
        Of each replicate, those of a cell together.
    first : shape (C,)
        The first replicate of each cell.
    unseen : Unseen

    Returns
    -------
    low, high : shape (C,)
        `high` is infinite without a success.

    Notes
    -----
    The ratio exceeds r with the probability that sum_i G_i (E_i - r C_i) is positive, G the
    weights, E costs and C successes. Its distribution is taken to be the gamma distribution
    (Pearson's type III) with its first three cumulants (j - 1)! sum_i (E_i - r C_i)^j, which is
    exact for a single weight and for many, and else tells a tail's probability to a factor of 2.
    """
    size = np.diff(first, append=len(cost))
    spent, gained = np.add.reduceat(cost, first), np.add.reduceat(successes, first)
    middle = np.where(gained > 0.0, spent / np.where(gained > 0.0, gained, 1.0), 0.0)
    scale = (spent + unseen.most) / np.maximum(gained, 1.0)
    # Powers of what is left of the costs: those of r itself would lose digits.
    rest = cost - np.repeat(middle, size) * successes
    sums, power = {}, np.ones(len(cost))
    for i in range(4):
        product = power
        for j in range(4 - i):
            sums[i, j] = np.add.reduceat(product, first)
            product = product * successes
        power = power * rest

    def limit(more_cost: Values, more_successes: Values | float, portion: float) -> Values:
        """Return the r with a quantile of the weighted sum at 0, by halving."""
        begin, end = np.full(len(first), -FARTHEST), np.full(len(first), FARTHEST)
        for _ in range(HALVINGS):
            log = (begin + end) / 2.0
            r = scale * np.exp(log)
            step, more = r - middle, more_cost - r * more_successes
            mean = sums[1, 0] - step * sums[0, 1] + more
            square = sums[2, 0] - 2.0 * step * sums[1, 1] + step**2 * sums[0, 2] + more**2
            cube = sums[3, 0] - 3.0 * step * sums[2, 1] + 3.0 * step**2 * sums[1, 2]
            cube += more**3 - step**3 * sums[0, 3]
            deviation = np.sqrt(np.where(square > 0.0, square, np.nan))
            above = mean + deviation * _gamma_quantile(2.0 * cube / deviation**3, portion) > 0.0
            begin, end = np.where(above, log, begin), np.where(above, end, log)
        return scale * np.exp(begin)

    low = limit(unseen.least, unseen.successes, (1.0 - level) / 2.0)
    high = limit(unseen.most, 0.0, (1.0 + level) / 2.0)
    return low, np.where(gained > 0.0, high, np.inf)


def _gamma_quantile(skewness: Values, portion: float) -> Values:
    """Return the quantile of the gamma distribution with mean 0, variance 1 and a skewness."""
    shape = 4.0 / np.clip(np.abs(skewness), LEAST_SKEWNESS, 2.0) ** 2
    left = skewness < 0.0
    quantile = np.where(left, gammainccinv(shape, portion), gammaincinv(shape, portion))
    return np.where(left, -1.0, 1.0) * (quantile - shape) / np.sqrt(shape)
