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
    `competing` that of the competing events. `variance` and `competing_variance` are the
    infinitesimal jackknife's over replicates. `first` says where each curve begins and `stop` where
    it ends, (C,); `n_fits` and `n_replicates` what is behind it, (C,).
    """

    curve: Integers
    time: Integers
    share: Reals
    variance: Reals
    competing: Reals
    competing_variance: Reals
    first: Integers
    stop: Integers
    n_fits: Integers
    n_replicates: Integers

    def limits(self, level: float = LEVEL) -> tuple[Reals, Reals]:
        """Return the pointwise confidence limits of `share`, each (J,)."""
        fits, replicates = self.n_fits[self.curve], self.n_replicates[self.curve]
        return share_interval(self.share, self.variance, fits, replicates, level)


class Observed(NamedTuple):
    """When and why the fits of C curves ended, N rows sorted by curve and time.

    Where each fit is the only one of its replicate, `replicate` is None and a row stands for
    `alike` fits; else for one. `n_replicates` is (C,).
    """

    curve: Integers
    time: Integers
    cause: Integers
    alike: Integers
    replicate: Integers | None
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
    distinct = np.sort(pairs)
    distinct = distinct[np.append(True, np.diff(distinct) != 0)]
    n_replicates = np.bincount(distinct // width)
    keys = (curve * (stride := int(time.max()) + 1) + time) * (kinds := int(cause.max()) + 1)
    keys += cause
    if len(distinct) == len(pairs):
        keys, count = np.unique(keys, return_counts=True)
        at, cause = np.divmod(keys, kinds)
        return Observed(at // stride, at % stride, cause, count, None, n_replicates)
    order = np.argsort(keys, kind="stable")
    count = np.ones(len(order), np.int64)
    curve, time, cause, pairs = (values[order] for values in (curve, time, cause, pairs))
    return Observed(curve, time, cause, count, pairs, n_replicates)


def _before(values: Reals, group: Integers) -> Reals:
    """Return the sum of the earlier values of each value's group."""
    order = np.argsort(group, kind="stable")
    sums = np.cumsum(values[order]) - values[order]
    begins = np.flatnonzero(np.append(True, np.diff(group[order]) != 0))
    lengths = np.diff(np.append(begins, len(order)))
    result = np.empty(len(order))
    result[order] = sums - np.repeat(sums[begins], lengths)
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
    had_any = rows.cause != CENSORED

    def estimate(mine: NDArray[np.bool_]) -> tuple[Reals, Reals]:
        events = summed(np.where(mine, rows.alike, 0))
        exact = until(np.where(uncensored == 1.0, events, 0))
        share = (exact + until(np.where(uncensored == 1.0, 0.0, events / uncensored))) / n
        jump = 1.0 / (n * uncensored)
        drift = until(jump * events / at_risk) + until(share * hazard)
        # U_i(t) = alpha_i + F(t) beta_i from when fit i left; what is the same for all before.
        alpha = np.where(mine, jump[of_row], 0.0) - drift[of_row]
        alpha = alpha + np.where(had_any, (share * end_weight)[of_row], 0.0)
        beta = exposure[of_row] - np.where(had_any, end_weight[of_row], 0.0)
        still = share * exposure - drift
        # Sums over a replicate's starts: alpha and beta of those that left, and how many have not.
        p = q = left = np.zeros(len(at))
        starts = np.ones(len(at))
        squares = n.astype(float)
        if rows.replicate is not None:
            _, which, size = np.unique(rows.replicate, return_inverse=True, return_counts=True)
            p, q = _before(alpha, which), _before(beta, which)
            left, starts = _before(np.ones(len(which)), which), size[which].astype(float)
            squares = np.repeat(np.add.reduceat(summed(starts), first), lengths)
        remain = starts - left

        def path(change: Reals) -> Reals:
            return until(summed(change * rows.alike))

        variance = path(2.0 * p * alpha + alpha * alpha)
        variance = variance + 2.0 * share * path(p * beta + q * alpha + alpha * beta)
        variance = variance + share * share * path(2.0 * q * beta + beta * beta)
        variance = variance + still * still * (squares - path(2.0 * remain - 1.0))
        if rows.replicate is not None:
            variance = variance + 2.0 * still * path(alpha * (remain - 1.0) - p)
            variance = variance + 2.0 * still * share * path(beta * (remain - 1.0) - q)
        return np.minimum(share, 1.0), np.maximum(variance, 0.0)

    share, variance = estimate(rows.cause == event)
    competing, competing_variance = estimate(had_any & (rows.cause != event))
    return Incidence(
        curves, times, share, variance, competing, competing_variance, first, stop,
        n[first], rows.n_replicates,
    )  # fmt: skip


def quantiles(
    curves: Incidence, portion: float, level: float = LEVEL
) -> tuple[Reals, Reals, Reals]:
    """Return when each curve reaches a portion, and a confidence interval, each (C,).

    The quantile is the smallest time with share >= portion. Its ends are where the upper and the
    lower pointwise limit reach it (Brookmeyer & Crowley 1982, for the cumulative incidence).
    Infinite: the competing events alone leave less than `portion`; for an end, their confidence
    limit does. Missing (nan): the observation ended before; the ends also from one replicate.
    """
    low, high = curves.limits(level)
    fits, replicates = curves.n_fits, curves.n_replicates
    last = curves.stop - 1
    fewest, most = share_interval(
        curves.competing[last], curves.competing_variance[last], fits, replicates, level
    )

    def reached(share: Reals, failing: Reals) -> Reals:
        far = len(share)
        place = np.where(share >= portion, np.arange(far), far)
        place = np.minimum.reduceat(place, curves.first)
        time = np.append(curves.time, 0)[place].astype(float)
        never = np.where(1.0 - failing < portion, np.inf, np.nan)
        return np.where(place < far, time, never)

    middle = reached(curves.share, curves.competing[last])
    begin, end = reached(high, fewest), reached(low, most)
    # Before the first event no fit of R replicates has any: the upper limit of a share of 0.
    square = ndtri(0.5 + level / 2.0) ** 2 / replicates
    begin = np.where((replicates > 1) & (square / (1.0 + square) >= portion), 0.0, begin)
    return middle, begin, end
