"""When fits converge, with those that were cut off and those that failed in their right places.

A fit that `max_iter` cut off is right-censored: it would have gone on. One that failed will never
converge: failures are competing events, neither dropped nor censored. What estimates the share of
fits that have had an event by then is the cumulative incidence: Aalen & Johansen (1978), "An
empirical transition matrix for non-homogeneous Markov chains based on censored observations",
Scandinavian Journal of Statistics 5, 141-150. One minus the Kaplan-Meier estimate, which takes
failures for censored, would be too large.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.statistics.intervals import LEVEL, share_interval

# Causes of the end of a fit's observation; any other number is one more competing event.
CENSORED, EVENT, COMPETING = 0, 1, 2

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


class Incidence(NamedTuple):
    """Cumulative incidences of C curves, at each distinct time of each curve, J in all.

    `curve` and `time` are sorted; `share` is the estimate from that time on, up to the next, and
    `variance` the infinitesimal jackknife's over replicates. `first` says where each curve begins
    and `stop` where it ends, (C,); `n_fits` and `n_replicates` what is behind it, (C,).
    """

    curve: Integers
    time: Integers
    share: Reals
    variance: Reals
    first: Integers
    stop: Integers
    n_fits: Integers
    n_replicates: Integers

    def limits(self, level: float = LEVEL) -> tuple[Reals, Reals]:
        """Return the pointwise confidence limits of `share`, each (J,)."""
        fits, replicates = self.n_fits[self.curve], self.n_replicates[self.curve]
        return share_interval(self.share, self.variance, fits, replicates, level)


class Together(NamedTuple):
    """Which of N rows share their replicate, one of G.

    `order` sorts the rows by replicate, those of a replicate as they are, (N,); `first` is where
    each replicate begins in that order and `size` how many rows it has, (G,). `remain` counts the
    rows of a row's replicate from itself on, (N,).
    """

    order: Integers
    first: Integers
    size: Integers
    remain: Integers


class Observed(NamedTuple):
    """When and why the fits of C curves ended, N rows sorted by curve and time.

    Where each fit is the only one of its replicate, `together` is None and a row stands for `alike`
    fits; else for one. `n_replicates` is (C,).
    """

    curve: Integers
    time: Integers
    cause: Integers
    alike: Integers
    together: Together | None
    n_replicates: Integers


def observed(curve: Integers, replicate: Integers, time: Integers, cause: Integers) -> Observed:
    """Sort what was seen of n >= 1 fits.

    Parameters
    ----------
    curve : int, shape (n,)
        Which curve a fit belongs to, from 0; every curve has a fit.
    replicate : int, shape (n,)
        What shares data within a curve.
    time : int, shape (n,)
        Iterations or evaluations at which the fit's observation ended.
    cause : int, shape (n,)
        `CENSORED`, `EVENT`, `COMPETING` or another positive number.
    """
    pairs = curve * (width := int(replicate.max()) + 1) + replicate
    distinct = pairs if (np.diff(pairs) >= 0).all() else np.sort(pairs)
    distinct = distinct[np.append(True, np.diff(distinct) != 0)]
    n_replicates = np.bincount(distinct // width)
    keys = (curve * (stride := int(time.max()) + 1) + time) * (kinds := int(cause.max()) + 1)
    keys += cause
    if len(distinct) == len(pairs):
        keys, count = np.unique(keys, return_counts=True)
        at, cause = np.divmod(keys, kinds)
        return Observed(at // stride, at % stride, cause, count, None, n_replicates)
    order = _order(keys)
    count = np.ones(len(order), np.int64)
    together = _together(pairs[order])
    return Observed(curve[order], time[order], cause[order], count, together, n_replicates)


def _order(keys: Integers) -> Integers:
    """Return what sorts keys from 0 on, equal ones as they are."""
    n = len(keys)
    if int(keys.max()) >= np.iinfo(np.int64).max // n:
        return np.argsort(keys, kind="stable")
    # Distinct numbers are sorted several times sooner than a stable sort finds its order.
    return np.sort(keys * n + np.arange(n)) % n


def _together(replicate: Integers) -> Together:
    order = _order(replicate)
    first = np.flatnonzero(np.append(True, np.diff(replicate[order]) != 0))
    size = np.diff(np.append(first, len(order)))
    remain = np.empty_like(order)
    remain[order] = np.repeat(first + size, size) - np.arange(len(order))
    return Together(order, first, size, remain)


def _before(values: Reals, together: Together) -> Reals:
    """Return the sum of the earlier values of each value's replicate."""
    ordered = values[together.order]
    sums = np.cumsum(ordered) - ordered
    result = np.empty(len(values))
    result[together.order] = sums - np.repeat(sums[together.first], together.size)
    return result


def cumulative_incidence(rows: Observed, event: int = EVENT) -> Incidence:
    """Return the Aalen-Johansen estimates of one cause, of many curves at once.

    All other causes but `CENSORED` compete. Events come before censoring at the same time.

    Notes
    -----
    With Y fits at risk, d events of any kind and d_1 of the kind in question at a time, and S the
    Kaplan-Meier estimate of having had none, F(t) = sum_{s <= t} S(s-) d_1(s) / Y(s). It is
    computed from the Kaplan-Meier estimate G of not being censored, S(s-) / Y(s) = 1 / (n G(s-)):
    before the first censoring F is a count over n to the last bit.

    The variance is that of the infinitesimal jackknife over replicates, sum_r (sum_{i in r} U_i)^2
    with U_i(t) = dF(t) / dw_i, the derivative by the weight of fit i:

        U_i(t) = sum_{s <= min(t, T_i)} S(s-) (dN_1i - d_1/Y) / Y
                                        - (F(t) - F(s)) (dN_i - d/Y) / (Y - d).

    For a single start this is the delta method's, "Greenwood-type" (Marubini & Valsecchi 1995,
    "Analysing survival data from clinical trials and observational studies", chapter 10): with no
    competing events Greenwood's, with no censoring F (1 - F) / n.
    """
    at = rows.curve * (int(rows.time.max()) + 1) + rows.time
    begins = np.flatnonzero(np.append(True, np.diff(at) != 0))
    of_row = np.cumsum(np.append(0, np.diff(at) != 0))
    curves, times = rows.curve[begins], rows.time[begins]
    first = np.flatnonzero(np.append(True, np.diff(curves) != 0))
    lengths = np.diff(np.append(first, len(curves)))
    stop = first + lengths

    def summed(values: NDArray) -> NDArray:
        """Sum rows within each time."""
        return np.add.reduceat(values, begins)

    def until(values: NDArray) -> NDArray:
        """Sum times up to each, within its curve."""
        sums = np.cumsum(values)
        return sums - np.repeat(sums[first] - values[first], lengths)

    leaving = summed(rows.alike)
    censored = summed(np.where(rows.cause == CENSORED, rows.alike, 0))
    n = np.repeat(np.add.reduceat(leaving, first), lengths)
    at_risk = n - until(leaving) + leaving
    ended = leaving - censored
    stays = np.where(at_risk > leaving, 1.0 - censored / np.maximum(at_risk - ended, 1), 1.0)
    logs = np.log(stays)
    uncensored = np.exp(until(logs) - logs)  # G(t-); 1 before the first censoring
    hazard = np.where(at_risk > ended, ended / (at_risk * np.maximum(at_risk - ended, 1.0)), 0.0)
    end_weight = np.where(at_risk > ended, 1.0 / np.maximum(at_risk - ended, 1.0), 0.0)
    exposure = until(hazard)
    events = summed(np.where(rows.cause == event, rows.alike, 0))
    exact = until(np.where(uncensored == 1.0, events, 0))
    share = (exact + until(np.where(uncensored == 1.0, 0.0, events / uncensored))) / n
    jump = 1.0 / (n * uncensored)
    drift = until(jump * events / at_risk) + until(share * hazard)
    # U_i(t) = alpha_i + F(t) beta_i from when fit i left; what is the same for all before. Fits
    # that left at one time have one of three: censored, of the cause in question, or of another.
    kind = 3 * of_row + np.where(rows.cause == event, 1, np.where(rows.cause == CENSORED, 0, 2))
    ended_late = share * end_weight
    alpha = np.stack([-drift, jump - drift + ended_late, ended_late - drift], axis=1).ravel()[kind]
    beta = np.stack([exposure, *2 * [exposure - end_weight]], axis=1).ravel()[kind]
    still = share * exposure - drift

    def path(change: NDArray) -> NDArray:
        return until(summed(change))

    if rows.together is None:
        variance = path(alpha * alpha * rows.alike)
        variance = variance + 2.0 * share * path(alpha * beta * rows.alike)
        variance = variance + share * share * path(beta * beta * rows.alike)
        variance = variance + still * still * (at_risk - leaving)
    else:
        # Sums over a replicate's starts: alpha and beta of those that left, and how many have not.
        p, q = _before(alpha, rows.together), _before(beta, rows.together)
        remain = rows.together.remain
        squares = path(2.0 * remain - 1.0)
        variance = path(2.0 * p * alpha + alpha * alpha)
        variance = variance + 2.0 * share * path(p * beta + q * alpha + alpha * beta)
        variance = variance + share * share * path(2.0 * q * beta + beta * beta)
        variance = variance + still * still * (np.repeat(squares[stop - 1], lengths) - squares)
        variance = variance + 2.0 * still * path(alpha * (remain - 1.0) - p)
        variance = variance + 2.0 * still * share * path(beta * (remain - 1.0) - q)
    share, variance = np.minimum(share, 1.0), np.maximum(variance, 0.0)
    return Incidence(curves, times, share, variance, first, stop, n[first], rows.n_replicates)


def quantiles(
    curves: Incidence, failures: Incidence, portion: float, level: float = LEVEL
) -> tuple[Reals, Reals, Reals]:
    """Return when each curve reaches a portion, and a confidence interval, each (C,).

    The quantile is the smallest time with share >= portion. Its ends are where the upper and the
    lower pointwise limit reach it (Brookmeyer & Crowley 1982, for the cumulative incidence).
    Infinite: the competing events alone leave less than `portion`; for an end, their confidence
    limit does. Missing (nan): the observation ended before; the ends also from one replicate.

    Parameters
    ----------
    curves, failures : Incidence
        Of an event and of all that competes with it, in the same fits.
    portion : float
    level : float
        Of the confidence interval.
    """
    low, high = curves.limits(level)
    fits, replicates = curves.n_fits, curves.n_replicates
    failing = failures.share[failures.stop - 1]
    variance = failures.variance[failures.stop - 1]
    fewest, most = share_interval(failing, variance, fits, replicates, level)

    def reached(share: Reals, failed: Reals) -> Reals:
        far = len(share)
        place = np.where(share >= portion, np.arange(far), far)
        place = np.minimum.reduceat(place, curves.first)
        time = np.append(curves.time, 0)[place].astype(float)
        never = np.where(1.0 - failed < portion, np.inf, np.nan)
        return np.where(place < far, time, never)

    middle = reached(curves.share, failing)
    begin, end = reached(high, fewest), reached(low, most)
    # Before the first event no fit of R replicates has any: the upper limit of a share of 0.
    square = ndtri(0.5 + level / 2.0) ** 2 / replicates
    begin = np.where((replicates > 1) & (square / (1.0 + square) >= portion), 0.0, begin)
    return middle, begin, end
