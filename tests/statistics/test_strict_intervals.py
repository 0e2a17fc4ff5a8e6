"""Intervals against published values, exact binomial sums and simulation of their errors."""

import math

import mpmath
import numpy as np
import pytest
from scipy.stats import binom

from pipeline.statistics.intervals import wilson
from pipeline.statistics.strict_intervals import (
    clopper_pearson,
    effective_number,
    mean_interval,
    positive_interval,
    student_quantile,
)


# Newcombe (1998), Table I: 0.95 intervals of method 3 (score) and method 5 (exact).
@pytest.mark.parametrize(
    ("successes", "number", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_shares_have_the_published_intervals(successes, number, score, exact):
    assert wilson(successes / number, number, 0.95) == pytest.approx(score, abs=5.1e-5)
    assert clopper_pearson(successes / number, number, 0.95) == pytest.approx(exact, abs=5.1e-5)


def test_wilson_ends_where_the_score_test_does():
    level, share, number = 0.99, 0.3, 50.0
    z = float(mpmath.sqrt(2) * mpmath.erfinv(level))
    for end in wilson(share, number, level):
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / number))


def test_shares_of_none_and_all_have_intervals_inside_the_unit():
    low, high = wilson(0.0, 50, 0.95)
    assert (low, high) == (0.0, pytest.approx(3.8415 / 53.8415, rel=1e-4))
    assert wilson(1.0, 50, 0.95) == (pytest.approx(1 - high), 1.0)
    assert clopper_pearson(1.0, 50, 0.95) == (pytest.approx(0.025 ** (1 / 50)), 1.0)


@pytest.mark.parametrize("level", [0.95, 0.995])
@pytest.mark.parametrize("number", [5, 30, 100])
def test_shares_outside_both_intervals_are_as_rare_as_the_level_says(number, level):
    """Sums over all outcomes: neither side errs more than (1 - level) / 2, at any true share."""
    outcomes = np.arange(number + 1)
    ends = [
        np.transpose([kind(k / number, number, level) for k in outcomes])
        for kind in (wilson, clopper_pearson)
    ]
    low, high = np.minimum(*(e[0] for e in ends)), np.maximum(*(e[1] for e in ends))
    tail, worst_of_wilson = (1 - level) / 2, 0.0
    for share in np.linspace(0.0005, 0.9995, 1999):
        chance = binom.pmf(outcomes, number, share)
        assert chance[low > share].sum() <= tail * (1 + 1e-9)
        assert chance[high < share].sum() <= tail * (1 + 1e-9)
        worst_of_wilson = max(worst_of_wilson, chance[ends[0][0] > share].sum())
    assert worst_of_wilson > 4 * tail  # why the exact interval is asked too


def test_clusters_that_agree_count_once_and_clusters_that_do_not_count_every_trial():
    rng = np.random.default_rng(1)
    replicates, starts = 400, 5
    every = rng.random((replicates, starts)) < 0.3
    for flags, expected in (
        (every, replicates * starts),
        (np.repeat(every[:, :1], starts, axis=1), replicates),
    ):
        means = flags.mean(axis=1)
        share = means.mean()
        mcse = np.sqrt(((means - share) ** 2).sum()) / replicates
        got = effective_number(share, mcse, replicates, flags.size, 0.95)
        assert replicates <= got <= flags.size
        # The variance of 400 means is known to sqrt(2 / 399) = 7 %.
        assert got == pytest.approx(expected, rel=0.25)


def test_an_effective_number_of_few_clusters_claims_little():
    # Ten replicates of 100 starts that agree by chance are ten trials: their spread is unknown.
    assert effective_number(0.5, 1e-4, 10, 1000, 0.95) == 10.0
    assert effective_number(1.0, 0.0, 70, 7000, 0.95) == 70.0
    assert effective_number(0.0, math.nan, 1, 100, 0.95) == 1.0
    assert effective_number(0.5, 0.1, 25, 25, 0.95) == 25.0


def test_quantiles_are_those_of_student():
    # Abramowitz & Stegun, Table 26.10: t with 5 and 30 degrees of freedom.
    assert student_quantile(0.95, 35) == pytest.approx(2.571, abs=5e-4)
    assert student_quantile(0.99, 210) == pytest.approx(2.750, abs=5e-4)
    assert student_quantile(0.95, math.inf) == pytest.approx(1.960, abs=5e-4)


@pytest.mark.parametrize("level", [0.95, 0.995])
@pytest.mark.parametrize("replicates", [30, 100])
def test_intervals_err_no_more_than_their_level(replicates, level):
    """Of normal values (bias), their root mean square (RMSE), and exponential ones (cost)."""
    rng = np.random.default_rng(5)
    studies = 20_000
    values = rng.normal(size=(studies, replicates))
    squares, costs = values**2, rng.exponential(size=(studies, replicates))

    def mean_and_mcse(x):
        return x.mean(axis=1), x.std(axis=1, ddof=1) / math.sqrt(replicates)

    mse, mse_mcse = mean_and_mcse(squares)
    rmse = np.sqrt(mse)
    allowed = 1 - level
    allowed += 3 * math.sqrt(allowed * level / studies)
    for kind, (estimate, mcse), truth in (
        (mean_interval, mean_and_mcse(values), 0.0),
        (positive_interval, (rmse, mse_mcse / (2 * rmse)), 1.0),
        (positive_interval, mean_and_mcse(costs), 1.0),
    ):
        ends = [kind(e, s, replicates, level) for e, s in zip(estimate, mcse, strict=True)]
        low, high = np.transpose(ends)
        # A claim that ends at the truth errs on one side.
        assert (low > truth).mean() <= allowed
        assert (high < truth).mean() <= allowed
