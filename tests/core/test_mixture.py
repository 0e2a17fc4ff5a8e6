"""Density, log-likelihood and standard deviation against scipy and numpy."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from pipeline.core import mixture
from pipeline.core.mixture import Parameters
from pipeline.core.refinement import log_likelihoods

TRUTH = Parameters(np.array([0.2, 0.5, 0.3]), np.array([-3.0, 0.0, 1.0]), np.array([1.0, 0.3, 2.0]))
generator = np.random.default_rng(1)
X = generator.normal(0, 3, (4, 25))


def expected_components(x):
    return np.array([w * scipy.stats.norm.pdf(x, m, s) for w, m, s in zip(*TRUTH, strict=True)])


def test_densities_against_scipy():
    x = np.linspace(-8, 8, 101)
    parts = mixture.component_densities(x, TRUTH)
    assert parts.shape == (3, 101)
    np.testing.assert_allclose(parts, expected_components(x), rtol=1e-13)
    np.testing.assert_allclose(mixture.density(x, TRUTH), parts.sum(axis=0), rtol=1e-15)


def test_density_integrates_to_one():
    area, _ = scipy.integrate.quad(
        lambda x: mixture.density(np.array([x]), TRUTH)[0], -30, 30, points=[-3, 0, 1], limit=200
    )
    assert area == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("n", [25, 800])
def test_log_likelihood_is_the_sum_of_log_densities(n):
    points = np.resize(X, (3, n))
    expected = [np.log(expected_components(x).sum(axis=0)).sum() for x in points]
    np.testing.assert_allclose(log_likelihoods(points, TRUTH), expected, rtol=1e-13)


@pytest.mark.parametrize("level", [1e-9, 0.05, 0.5, 0.99])
def test_quantiles(level):
    found = mixture.mixture_quantiles(TRUTH, np.array([level]))[0]
    z = (found - TRUTH.means) / TRUTH.scales
    assert TRUTH.weights @ scipy.stats.norm.cdf(z) == pytest.approx(level, rel=1e-9)


def test_standard_deviation_of_a_mixture():
    def moment(power):
        return scipy.integrate.quad(
            lambda x: x**power * mixture.density(np.array([x]), TRUTH)[0], -40, 40, limit=200
        )[0]

    expected = np.sqrt(moment(2) - moment(1) ** 2)
    assert mixture.mixture_standard_deviation(TRUTH) == pytest.approx(expected, rel=1e-10)


def test_log_likelihood_far_out_does_not_underflow():
    points = np.array([[1e4, 0.0]])
    z = (1e4 - 1) / 2
    far = np.log(0.3) - np.log(2) - 0.5 * np.log(2 * np.pi) - z * z / 2
    near = np.log(expected_components(points[0, 1:]).sum())
    assert log_likelihoods(points, TRUTH)[0] == pytest.approx(far + near, rel=1e-14)


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_standard_deviation_keeps_its_digits_at_an_offset(offset):
    x = X + offset
    # Subtracting the offset is exact here: both sides see the same rounded points.
    expected = np.std(x - offset, axis=1)
    np.testing.assert_allclose(mixture.standard_deviations(x), expected, rtol=1e-13)


@pytest.mark.parametrize("n", [4095, 4096, 4097, 10_001])
def test_standard_deviation_of_a_large_sample_in_pieces(n):
    x = np.random.default_rng(2).normal(1e6, 1.0, (2, n)) + np.arange(n) / n
    expected = [np.std(row - 1e6) for row in x]
    np.testing.assert_allclose(mixture.standard_deviations(x), expected, rtol=1e-13)


def test_masses_of_the_standard_deviation_count_as_copies():
    masses = np.array([1.0, 3.0, 2.0])
    points = np.array([0.5, -1.0, 4.0])
    copies = np.repeat(points, masses.astype(int))
    assert mixture.mean_and_standard_deviation(points, masses)[1] == pytest.approx(
        np.std(copies), rel=1e-15
    )


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 23, 1000])
def test_mean_and_standard_deviation_against_numpy(n):
    points, masses = generator.normal(5, 2, n), generator.uniform(0.5, 2, n)
    mean = np.average(points, weights=masses)
    scale = np.sqrt(np.average((points - mean) ** 2, weights=masses))
    found = mixture.mean_and_standard_deviation(points, masses)
    np.testing.assert_allclose(found, (mean, scale), rtol=1e-14, atol=1e-15)


def test_equal_points_have_no_spread():
    assert mixture.mean_and_standard_deviation(np.full(7, 0.1), np.ones(7))[1] == 0
