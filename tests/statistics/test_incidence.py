"""Cumulative incidence against hand-made data, definitions, textbook variances, simulation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta

from pipeline.statistics.incidence import (
    CENSORED,
    COMPETING,
    EVENT,
    cumulative_incidence,
    observed,
    quantiles,
)
from pipeline.statistics.intervals import (
    LEVEL,
    NORMAL,
    Unseen,
    effective_size,
    ratio_interval,
    wilson,
)


def one_curve(time, cause, replicate=None, event=EVENT):
    n = len(time)
    replicate = np.arange(n) if replicate is None else np.array(replicate)
    rows = observed(np.zeros(n, np.int64), replicate, np.array(time), np.array(cause))
    return cumulative_incidence(rows, event)


def quantile(level, time, cause, replicate=None):
    curve, failures = (one_curve(time, cause, replicate, event) for event in (EVENT, COMPETING))
    return [float(end[0]) for end in quantiles(curve, failures, level)]


def naive(time, cause, weight, event):
    """Return the Aalen-Johansen estimate with weighted fits at each distinct time, by its sum."""
    surviving, incidence, path = 1.0, 0.0, []
    for t in sorted(set(time.tolist())):
        at_risk = weight[time >= t].sum()
        events = weight[(time == t) & (cause == event)].sum()
        ended = weight[(time == t) & (cause != CENSORED)].sum()
        incidence += surviving * events / at_risk
        surviving *= 1.0 - ended / at_risk
        path.append(incidence)
    return np.array(path)


# By hand; Y at risk. t = 1: converged, Y = 6: F = 1/6, S = 5/6. t = 2: censored. t = 3: a failure,
# Y = 4: failures 5/6 * 1/4 = 5/24, S = 5/8. t = 4: converged, and one censored after it, Y = 3:
# F = 1/6 + 5/8 * 1/3 = 3/8, S = 5/12. t = 5: converged, Y = 1: F = 3/8 + 5/12 = 19/24.
TIME = [4, 1, 5, 3, 2, 4]
CAUSE = [CENSORED, EVENT, EVENT, COMPETING, CENSORED, EVENT]


def test_six_fits_by_hand():
    curves = one_curve(TIME, CAUSE)
    assert curves.time.tolist() == [1, 2, 3, 4, 5]
    shares = [Fraction(1, 6), Fraction(1, 6), Fraction(1, 6), Fraction(3, 8), Fraction(19, 24)]
    failures = [Fraction(k, 24) for k in (0, 0, 5, 5, 5)]
    np.testing.assert_allclose(curves.share, [float(f) for f in shares], rtol=1e-14)
    competing = one_curve(TIME, CAUSE, event=COMPETING)
    np.testing.assert_allclose(competing.share, [float(f) for f in failures], rtol=1e-14)
    # Failures as censored would give one minus Kaplan-Meier, 1: all converge in the end.
    alone = one_curve(TIME, [CENSORED if c == COMPETING else c for c in CAUSE])
    assert alone.share[-1] == 1.0
    # And dropped they would give 4/5 * ... from five fits: another number at the first time.
    assert curves.share[0] != pytest.approx(1 / 5)


def random_fits(rng):
    n = rng.integers(1, 25)
    replicate = rng.integers(0, rng.integers(1, n + 1), n)
    return replicate, rng.integers(0, 8, n), rng.integers(0, 4, n)


@pytest.mark.parametrize("alone", [False, True], ids=["several starts", "one start"])
@pytest.mark.parametrize("event", [EVENT, 3])
def test_random_tables_equal_the_definition_and_its_derivatives(alone, event):
    """The jackknife's U_i are derivatives by the fits' weights: here, central differences."""
    rng = np.random.default_rng(7)
    samples = [random_fits(rng) for _ in range(60)]
    if alone:
        samples = [(np.arange(len(r)), t, c) for r, t, c in samples]
    every = [np.concatenate(column) for column in zip(*samples, strict=True)]
    code = np.repeat(np.arange(len(samples)), [len(r) for r, _, _ in samples])
    order = rng.permutation(len(code))
    curves = cumulative_incidence(
        observed(code[order], *(column[order] for column in every)), event
    )
    for k, (replicate, time, cause) in enumerate(samples):
        rows = slice(curves.first[k], curves.stop[k])
        n, step = len(time), 1e-5
        assert curves.n_fits[k] == n
        assert curves.n_replicates[k] == len(set(replicate.tolist()))
        assert curves.time[rows].tolist() == sorted(set(time.tolist()))
        plain = naive(time, cause, np.ones(n), event)
        np.testing.assert_allclose(curves.share[rows], plain, atol=1e-13)
        derivatives = np.array(
            [
                naive(time, cause, 1.0 + step * unit, event)
                - naive(time, cause, 1.0 - step * unit, event)
                for unit in np.eye(n)
            ]
        ) / (2 * step)
        variance = sum(derivatives[replicate == r].sum(axis=0) ** 2 for r in set(replicate))
        # Central differences of a rational function: the error is a multiple of step^2 = 1e-10.
        np.testing.assert_allclose(curves.variance[rows], variance, atol=1e-8)


def test_one_start_has_the_textbook_variances():
    rng = np.random.default_rng(3)
    for _ in range(50):
        _, time, cause = random_fits(rng)
        cause = np.minimum(cause, COMPETING)
        for code in (cause, np.minimum(cause, EVENT), np.maximum(cause, EVENT)):
            curves = one_curve(time, code)
            expected = [greenwood_type(time, code, t) for t in curves.time]
            np.testing.assert_allclose(curves.variance, expected, atol=1e-14)
            if (code != CENSORED).all():
                binomial = curves.share * (1 - curves.share) / len(time)
                np.testing.assert_allclose(curves.variance, binomial, atol=1e-14)


def greenwood_type(time, cause, until):
    """Marubini & Valsecchi (1995), by its three sums; Greenwood's where nothing competes."""
    steps, surviving, share = [], 1.0, 0.0
    for t in sorted(set(time[time <= until].tolist())):
        at_risk = int((time >= t).sum())
        ended = int(((time == t) & (cause != CENSORED)).sum())
        events = int(((time == t) & (cause == EVENT)).sum())
        share += surviving * events / at_risk
        steps.append((surviving, share, at_risk, ended, events))
        surviving *= 1.0 - ended / at_risk
    total = 0.0
    for before, at, y, d, d1 in steps:
        gain = share - at
        if d < y:
            total += gain**2 * d / (y * (y - d))
        total += before**2 * d1 * (y - d1) / y**3 - 2 * gain * before * d1 / y**2
    if not (cause == COMPETING).any():
        squares = sum(d / (y * (y - d)) for _, _, y, d, _ in steps if d < y)
        assert total == pytest.approx(surviving**2 * squares, abs=1e-14)
    return total


def test_copies_of_a_start_add_no_precision():
    rng = np.random.default_rng(5)
    time, cause = rng.integers(1, 50, 40), rng.integers(0, 3, 40)
    one = one_curve(time, cause)
    copies = one_curve(np.tile(time, 10), np.tile(cause, 10), np.tile(np.arange(40), 10))
    np.testing.assert_allclose(copies.share, one.share, rtol=1e-12)
    np.testing.assert_allclose(copies.variance, one.variance, rtol=1e-9)
    # Ten copies are worth one fit each, up to what sampling 40 or 400 makes of a variance.
    low, high = copies.limits()
    inside = (one.share > 0.05) & (one.share < 0.95)
    width = (high - low)[inside] / np.subtract(*one.limits()[::-1])[inside]
    assert (width > 1.0).all()
    assert (width < 1.1).all()


def test_times_of_any_size_are_sorted():
    """Curve, time, cause and place of a fit in one number may be beyond 64 bits."""
    replicate, time, cause = random_fits(np.random.default_rng(9))
    near = one_curve(time, cause, replicate)
    far = one_curve(time << 56, cause, replicate)
    assert len(set(replicate.tolist())) < len(replicate)
    assert (far.time == near.time << 56).all()
    np.testing.assert_array_equal(far.share, near.share)
    np.testing.assert_array_equal(far.variance, near.variance)


def test_before_the_first_censoring_a_share_is_a_count():
    """A quantile asks whether a share is at least q: the last bit decides."""
    for n in range(1, 200):
        shares = one_curve(np.arange(n), np.full(n, EVENT)).share
        assert (shares == np.arange(1, n + 1) / n).all()
    early = ([1, 2, 2, 3], [EVENT, CENSORED, EVENT, EVENT])
    curve = np.repeat([0, 1], [4, 10])
    time, cause = np.append(early[0], np.arange(10)), np.append(early[1], np.full(10, EVENT))
    curves = cumulative_incidence(observed(curve, np.arange(14), time, cause))
    assert (curves.share[curves.first[1] :] == np.arange(1, 11) / 10).all()


@pytest.mark.parametrize(
    ("level", "outcomes", "expected"),
    [
        (0.5, "eeee", 20),
        (0.5, "eecc", 20),
        (0.5, "eccc", math.nan),  # it may still converge
        (0.5, "effc", math.nan),  # one half has failed: the other half may converge
        (0.5, "efff", math.inf),
        (0.9, "eeef", math.inf),
        (0.9, "eeec", math.nan),
        (0.1, "fffe", 40),
        (0.1, "cccc", math.nan),
        (0.1, "ffff", math.inf),
    ],
)
def test_quantiles_of_fits_that_end_at_ten_twenty_thirty_forty(level, outcomes, expected):
    causes = {"e": EVENT, "f": COMPETING, "c": CENSORED}
    # Censoring is at the budget, as `max_iter` has it.
    time = [50 if letter == "c" else 10 * k for k, letter in enumerate(outcomes, 1)]
    middle, *_ = quantile(level, time, [causes[letter] for letter in outcomes])
    np.testing.assert_equal(middle, float(expected))


def test_ends_of_an_interval():
    """25 of 100 converge at 1 … 25, the rest fails at 30, or is cut off at 99.

    Wilson's limits of k / 100 reach 0.1 where |k / 100 - 0.1| <= 1.96 sqrt(0.1 * 0.9 / 100):
    the upper from k = 5 on (0.1 - 0.0588 = 0.0412), the lower from k = 16 on.
    """
    rest = ([30] * 75, [COMPETING] * 75)
    time, cause = [*range(1, 26), *rest[0]], [EVENT] * 25 + rest[1]
    assert quantile(0.1, time, cause) == [10.0, 5.0, 16.0]
    # 0.3 is not reached, and cannot be: but within the error of a share of 0.25 it could, from
    # k = 22 on (0.3 - 1.96 sqrt(0.3 * 0.7 / 100) = 0.2102).
    assert quantile(0.3, time, cause) == [math.inf, 22.0, math.inf]
    cut = [*range(1, 26), *[99] * 75], [EVENT] * 25 + [CENSORED] * 75
    middle, low, high = quantile(0.3, *cut)
    assert math.isnan(middle)
    assert low == 22.0
    assert math.isnan(high)
    # One replicate has no interval, however many starts.
    assert np.isnan(quantile(0.1, time, cause, replicate=np.zeros(100, int))[1:]).all()


def test_few_fits_know_no_lower_end():
    """With 20 replicates the 10 % quantile may be before all of them: 0.9^20 = 12 %."""
    assert quantile(0.1, np.arange(10, 30), [EVENT] * 20)[1] == 0.0
    assert quantile(0.5, np.arange(10, 30), [EVENT] * 20)[1] > 10.0


def coverage_error(covered):
    return 4.0 * math.sqrt(0.95 * 0.05 / len(covered))


@pytest.mark.parametrize("starts", [1, 4])
def test_quantiles_are_covered(starts):
    """Simulation: competing failures, a budget, and starts that share their replicate's speed."""
    studies, replicates = 1000, 80
    rng = np.random.default_rng(11)
    shape = (studies, replicates, starts)
    speed = rng.normal(size=(studies, replicates, 1)) * 0.5

    def draw(shape, speed):
        time = np.floor(np.exp(4.0 + speed + 0.3 * rng.normal(size=shape))).astype(int) + 1
        fails = rng.random(shape) < 0.15
        return time, fails

    time, fails = draw(shape, speed)
    cause = np.where(fails, COMPETING, EVENT)
    budget = 150
    cause = np.where(time > budget, CENSORED, cause)
    time = np.minimum(time, budget)
    index = np.indices(shape)
    rows = observed(index[0].ravel(), index[1].ravel(), time.ravel(), cause.ravel())
    curves, failures = cumulative_incidence(rows), cumulative_incidence(rows, COMPETING)
    many = 2_000_000
    long, failed = draw(many, rng.normal(size=many) * 0.5)
    truth = np.where(failed, np.inf, long)
    for level in (0.1, 0.5):
        true = np.quantile(truth, level, method="inverted_cdf")
        middle, low, high = quantiles(curves, failures, level)
        covered = (low <= true) & (true <= high)
        # A discrete quantity: at least 95 %, and not by being uselessly wide.
        assert covered.mean() > 0.95 - coverage_error(covered)
        assert covered.mean() < 0.99
        assert abs(np.median(middle) / true - 1.0) < 0.05
    # 85 % converge in the end: 90 % never do.
    middle, low, high = quantiles(curves, failures, 0.9)
    assert np.isposinf(high[~np.isnan(high)]).all()
    assert not np.isfinite(middle).any() or np.isfinite(middle).mean() < 0.2


def test_pointwise_limits_are_covered_under_censoring():
    """Censoring times that differ between fits, as map evaluations at max_iter do."""
    studies, n = 2000, 60
    rng = np.random.default_rng(12)
    event = rng.exponential(1.0, (studies, n))
    failure = rng.exponential(2.0, (studies, n))
    cut = rng.uniform(0.0, 3.0, (studies, n))
    first = np.minimum(np.minimum(event, failure), cut)
    cause = np.where(first == event, EVENT, np.where(first == failure, COMPETING, CENSORED))
    time = np.ceil(100 * first).astype(int)
    index = np.indices(time.shape)
    curves = cumulative_incidence(
        observed(index[0].ravel(), index[1].ravel(), time.ravel(), cause.ravel())
    )
    low, high = curves.limits()
    for t in (0.3, 1.0):
        truth = 2 / 3 * (1.0 - math.exp(-1.5 * t))  # rates 1 and 1/2
        place = (
            np.searchsorted(
                curves.curve * 1000 + curves.time, np.arange(studies) * 1000 + 100 * t, side="right"
            )
            - 1
        )
        assert abs(curves.share[place].mean() - truth) < 4 * curves.share[place].std() / math.sqrt(
            studies
        )
        covered = (low[place] <= truth) & (truth <= high[place])
        assert abs(covered.mean() - 0.95) < coverage_error(covered) + 0.01  # discrete


# Wilson (1927) for 8 of 10, 0 of 10 and 10 of 10, as tabulated in Newcombe (1998), "Two-sided
# confidence intervals for the single proportion": 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives
# 0 to 0.1611, 29 of 29 gives 0.8830 to 1.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_as_published(successes, n, low, high):
    got = wilson(successes / n, n)
    assert [round(float(end), 4) for end in got] == [low, high]


def test_effective_size():
    p, n = 0.3, 50
    assert effective_size(p, p * (1 - p) / n, n, n) == pytest.approx(n)
    # Starts that always agree are worth R fits (and Student's t of R - 1 instead of S R - 1).
    copies = effective_size(p, p * (1 - p) / 50, 500, 50)
    assert 45 < copies < 50
    # Starts that balance each other are not worth more than independent ones.
    assert effective_size(0.5, 0.0, 500, 50) == 500
    assert effective_size([0.0, 1.0], 0.0, 500, 50).tolist() == [50, 50]
    assert np.isnan(effective_size(0.5, 0.0, 5, 1))


def limits_of(cost, successes, least, most, level=LEVEL):
    """Return the limits of one cell with one start per replicate."""
    unseen = Unseen(*(np.array([float(value)]) for value in (least, 1, most)))
    cost, successes = np.asarray(cost, float), np.asarray(successes, float)
    low, high = ratio_interval(cost, successes, np.array([0]), unseen, level)
    return low.item(), high.item()


@pytest.mark.parametrize(
    ("failures", "n"), [(0, 10), (1, 10), (1, 100), (3, 30), (15, 30), (19, 20)]
)
def test_ratio_interval_of_failures_for_a_success_is_that_of_clopper_and_pearson(failures, n):
    cost = np.repeat([1.0, 0.0], [failures, n - failures])
    low, high = limits_of(cost, 1.0 - cost, 0.0, 1.0)
    least = beta.ppf(0.025, failures, n - failures + 1) if failures else 0.0
    most = beta.ppf(0.975, failures + 1, n - failures)
    # The gamma distribution of three cumulants is not quite the exact one.
    assert low / (1.0 + low) == pytest.approx(least, rel=0.01, abs=1e-60)
    assert high / (1.0 + high) == pytest.approx(most, rel=0.01)


@pytest.mark.parametrize("n", [10, 30, 100])
def test_ratio_interval_is_the_quantile_of_randomly_weighted_ratios(n):
    rng = np.random.default_rng(n)
    successes = (np.arange(n) > n // 12).astype(float)
    cost = np.where(successes > 0, rng.gamma(2.0, 50.0, n), 1500.0)
    low, high = limits_of(cost, successes, 5.0, 2000.0)
    weights = rng.exponential(size=(400_000, n + 1))
    for end, unseen, portion in ((low, (5.0, 1.0), 0.025), (high, (2000.0, 0.0), 0.975)):
        above = np.append(cost, unseen[0]), np.append(successes, unseen[1])
        below = (weights @ above[0] <= end * (weights @ above[1])).mean()
        beyond = min(below, 1.0 - below)
        assert (below < 0.5) == (portion < 0.5)
        # Three cumulants tell the probability of a tail to a factor of 2, and better of many.
        assert abs(math.log(beyond / 0.025)) < (math.log(2.0) if n < 100 else 0.1)


def test_ratio_interval_of_many_replicates_is_the_normal_one():
    rng = np.random.default_rng(5)
    successes = (rng.random(200_000) < 0.7).astype(float)
    cost = rng.gamma(4.0, 25.0, len(successes))
    ratio = cost.sum() / successes.sum()
    half = NORMAL * np.sqrt(np.sum((cost - ratio * successes) ** 2)) / successes.sum()
    low, high = limits_of(cost, successes, 0.0, 300.0)
    assert low == pytest.approx(ratio - half, abs=0.03 * half)
    assert high == pytest.approx(ratio + half, abs=0.03 * half)
    scaled = limits_of(1e6 * cost, successes, 0.0, 3e8)
    assert scaled == pytest.approx((1e6 * low, 1e6 * high), rel=1e-12)


def test_ratio_interval_without_a_success_has_no_end():
    low, high = limits_of(np.full(40, 9.0), np.zeros(40), 0.0, 100.0)
    # Clopper & Pearson: at most this share converges. The replicate that does costs nothing.
    most = 1.0 - 0.025 ** (1 / 40)
    assert low == pytest.approx(9.0 * (1.0 - most) / most, rel=0.01)
    assert high == math.inf


def exactly(time, cause, event):
    """Return the Aalen-Johansen estimate at each distinct time as fractions."""
    surviving, incidence, path = Fraction(1), Fraction(0), {}
    for t in sorted(set(time)):
        at_risk = sum(other >= t for other in time)
        here = [c for other, c in zip(time, cause, strict=True) if other == t]
        incidence += surviving * Fraction(sum(c == event for c in here), at_risk)
        surviving *= 1 - Fraction(sum(c != CENSORED for c in here), at_risk)
        path[t] = incidence
    return path


@pytest.mark.parametrize(
    ("time", "cause", "median"),
    [
        ([1, 2, 3], [CENSORED, EVENT, EVENT], 2.0),
        ([1, 3, 3, 4, 5, 7, 8], [0, 1, 1, 1, 0, 1, 0], 4.0),
        ([1, 2, 4, 7], [CENSORED, CENSORED, EVENT, COMPETING], 4.0),
    ],
)
def test_a_share_that_is_the_portion_reaches_it_after_censoring_too(time, cause, median):
    assert exactly(time, cause, EVENT)[median] == Fraction(1, 2)
    assert quantile(0.5, time, cause)[0] == median


def test_quantiles_are_those_of_exact_arithmetic():
    rng = np.random.default_rng(20)
    reached = 0
    for _ in range(400):
        _, time, cause = random_fits(rng)
        time, cause = time.tolist(), np.minimum(cause, COMPETING).tolist()
        shares, failed = (exactly(time, cause, event) for event in (EVENT, COMPETING))
        for portion in (Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)):
            never = math.inf if 1 - list(failed.values())[-1] < portion else math.nan
            expected = next((t for t, share in shares.items() if share >= portion), never)
            np.testing.assert_equal(quantile(float(portion), time, cause)[0], float(expected))
            reached += portion in shares.values()
    assert reached > 20, "portions must be met exactly in some"


def test_a_curve_that_ends_at_one_is_worth_its_replicates():
    """Rounding must not make a share of 1 one that is almost 1 with a variance of almost 0."""
    rng = np.random.default_rng(3)
    for _ in range(60):
        replicate = np.repeat(np.arange(7), 3)
        time = rng.integers(2, 12, 21)
        cause = np.full(21, EVENT)
        early = rng.choice(21, 3, replace=False)
        time[early], cause[early] = 1, CENSORED
        curve = one_curve(time, cause, replicate)
        assert curve.share[-1] == 1.0
        assert curve.limits()[0][-1] == pytest.approx(wilson(1.0, 7.0)[0], rel=1e-12)
