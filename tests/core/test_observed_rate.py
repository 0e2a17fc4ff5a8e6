"""The rate of convergence that a fit's own residuals show."""

import numba
import numpy as np
import pytest

from pipeline.core import observed_rate
from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.outcomes import Outcome
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.core.vector import LANES, hold, rows, splat

KEY = key_from_hex("89abcdef0123456789abcdef01234567")


@numba.njit
def rate_of(residuals):
    memory = np.zeros((observed_rate.ROWS + 1) * LANES)
    state = rows(memory, 0)
    for residual in residuals:
        observed_rate.watch(state, splat(residual))
    rate = observed_rate.observed_rate(state, 3)
    hold(memory)
    return rate


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9, 0.99, 0.9999])
def test_a_geometric_sequence_has_its_ratio(rate):
    steps = int(np.log(1e-15) / np.log(rate))
    residuals = 3.0 * rate ** np.arange(steps)
    expected = np.nan if rate == 0.05 else rate
    assert rate_of(residuals) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_equals_a_least_squares_line_over_the_last_windows():
    generator = np.random.default_rng(4)
    t = np.arange(400)
    residuals = 0.95**t * np.exp(1e-7 * generator.normal(size=400))
    y = np.log2(residuals[residuals > observed_rate.FLOOR])
    window = np.floor(y / observed_rate.BITS)
    # Noise at a border opens a window again: take the runs of equal windows.
    runs = np.flatnonzero(np.diff(window)) + 1
    last = y[runs[-2] :]
    slope = np.polynomial.polynomial.polyfit(np.arange(last.size), last, 1)[1]
    assert rate_of(residuals) == pytest.approx(2.0**slope, rel=1e-12)


@pytest.mark.parametrize("count", range(12))
def test_too_few_residuals_have_no_rate(count):
    """From 2^-4 on: one residual in its window, four in the next; a sixth opens the third."""
    rate = rate_of(0.5 ** np.arange(4, 4 + count))
    assert np.isnan(rate) == (count < 6)


@pytest.mark.parametrize("slower", [0.3, 0.35, 0.38])
def test_a_rate_that_has_not_settled_is_missing(slower):
    """Two directions: the faster one is still in the last residuals above the floor."""
    t = np.arange(60)
    assert np.isnan(rate_of(0.4**t + 2 * slower**t))
    assert rate_of(0.4**t + 1e-9 * slower**t) == pytest.approx(0.4, rel=1e-5)


def test_a_rate_has_five_digits_or_is_missing():
    """Shared scales leave few iterations: half of these rates are not settled."""
    truth = Parameters(np.array([0.5, 0.5]), np.array([0.0, 3.0]), np.array([1.0, 1.0]))
    points = draw(KEY, range(100), 1000, *truth, "multinomial")
    starts = Parameters(*(np.tile(part, (100, 1, 1)) for part in truth))
    model = make_model(2, "free", "free", "shared")
    schedule = Schedule(10_000, "map_residual", 1e-13, np.array([0]))
    found = fit(points, np.ones(1000), starts, model, "em", schedule)
    there = np.isfinite(found.rate_observed)
    assert 20 < there.sum() < 80
    np.testing.assert_allclose(found.rate_observed[there], found.rate_theory[there], rtol=2e-5)


def test_rounding_zeros_and_infinities_are_not_residuals():
    geometric = 0.5 ** np.arange(4, 32)
    disturbed = np.concatenate([[np.inf, np.nan], geometric, np.full(50, 1e-16), [0.0]])
    assert rate_of(disturbed) == pytest.approx(0.5, rel=1e-12)


def test_agrees_with_the_last_ratio_of_changes():
    truth = Parameters(np.array([0.5, 0.5]), np.array([0.0, 2.0]), np.array([2.0, 1.0]))
    points = draw(KEY, range(8), 1000, *truth, "multinomial")
    starts = Parameters(*(np.tile(part, (8, 1, 1)) for part in truth))
    found = fit(
        points, np.ones(1000), starts, make_model(2), "em", Schedule(20_000, "map_residual", 1e-9)
    )
    for r in range(8):
        means = found.trace.parameters.means[found.trace.fit == r][:, 0]
        steps = np.abs(np.diff(means))
        ratio = (steps[-1] / steps[-31]) ** (1 / 30)
        assert found.rate_observed[r] == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("distance", [1.5, 2.0, 3.0])
def test_agrees_with_the_theory_to_six_digits(distance):
    """Two definitions that share no code: a line through residuals, and EM's Jacobian."""
    truth = Parameters(np.array([0.4, 0.6]), np.array([0.0, distance]), np.array([1.0, 0.7]))
    points = draw(KEY, range(10), 500, *truth, "multinomial")
    starts = Parameters(*(np.tile(part, (10, 1, 1)) for part in truth))
    schedule = Schedule(200_000, "map_residual", 1e-12, np.array([0]))
    found = fit(points, np.ones(500), starts, make_model(2), "em", schedule)
    assert (found.outcome == Outcome.CONVERGED).all()
    np.testing.assert_allclose(found.rate_observed, found.rate_theory, rtol=1e-6)


def test_a_fit_that_did_not_converge_has_none():
    points = np.random.default_rng(1).normal(size=(1, 200))
    start = Parameters(np.full((1, 1, 2), 0.5), np.array([[[-1.0, 1.0]]]), np.ones((1, 1, 2)))
    found = fit(points, np.ones(200), start, make_model(2), "em", Schedule(50))
    assert np.isnan(found.rate_observed[0])
