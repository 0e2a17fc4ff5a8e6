"""Samples: the inverse normal, the allocation, the distribution, the independence of rows."""

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats

from pipeline.core import random, sampling

KEY = random.key_from_hex("00112233445566778899aabbccddeeff")
MIXTURE = ([0.25, 0.75], [-1.0, 2.0], [0.5, 1.5])


def test_inverse_normal_against_scipy():
    u = np.concatenate([np.linspace(1e-9, 1 - 1e-9, 2001), np.logspace(-300, -1, 300)])
    z = np.array([sampling.inverse_normal(value) for value in u])
    # Near u = 1/2 the quantile passes 0: there the error is absolute.
    np.testing.assert_allclose(z, scipy.special.ndtri(u), rtol=4e-15, atol=1e-15)


@pytest.mark.parametrize("u", [2.0**-53, 1e-12, 0.02, 0.0749, 0.0751, 0.3, 0.6, 0.93, 1 - 1e-10])
def test_inverse_normal_against_mpmath(u):
    with mpmath.workdps(40):
        exact = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(u) - 1)
        error = abs(sampling.inverse_normal(u) / exact - 1)
    assert error < 1e-15


@pytest.mark.parametrize(
    ("weights", "sample_size", "counts"),
    [
        ([0.5, 0.5], 40, [20, 20]),
        ([0.5, 0.5], 41, [21, 20]),
        ([0.2, 0.5, 0.3], 4, [1, 2, 1]),
        ([1 / 3, 1 / 3, 1 / 3], 5, [2, 2, 1]),
        ([0.29, 0.71], 100, [29, 71]),
        ([0.0, 1.0], 3, [0, 3]),
        ([0.9, 0.1], 0, [0, 0]),
    ],
)
def test_proportional_counts_by_largest_remainder(weights, sample_size, counts):
    assert sampling.proportional_counts(weights, sample_size).tolist() == counts


@pytest.mark.parametrize("n_components", [1, 2, 7, 15])
def test_proportional_counts_sum_and_stay_within_one(n_components):
    weights = np.random.default_rng(n_components).dirichlet(np.ones(n_components))
    for sample_size in range(60):
        counts = sampling.proportional_counts(weights, sample_size)
        assert counts.sum() == sample_size
        assert np.all(np.abs(counts - sample_size * weights) < 1)


@pytest.mark.parametrize("allocation", sampling.ALLOCATIONS)
def test_sample_follows_the_mixture(allocation):
    x = sampling.draw(KEY, np.arange(40), 500, *MIXTURE, allocation).ravel()

    def distribution(value):
        return sum(w * scipy.stats.norm.cdf(value, m, s) for w, m, s in zip(*MIXTURE, strict=True))

    assert scipy.stats.kstest(x, distribution).pvalue > 1e-3
    mean = 0.25 * -1 + 0.75 * 2
    variance = 0.25 * (0.25 + 1) + 0.75 * (2.25 + 4) - mean**2
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / x.size)


def test_neighbouring_points_and_replicates_are_uncorrelated():
    x = sampling.draw(KEY, np.arange(200), 200, [1.0], [0.0], [1.0], "multinomial")
    bound = 4 / np.sqrt(x.size)
    assert abs(np.mean(x[:, 1:] * x[:, :-1])) < bound
    assert abs(np.mean(x[1:] * x[:-1])) < bound


def test_multinomial_labels_have_the_weights_as_frequencies():
    mixture = ([0.1, 0.0, 0.6, 0.3], [0, 100, 200, 300], [1] * 4)
    x = sampling.draw(KEY, [0], 20_000, *mixture, "multinomial")
    counts = np.bincount(np.rint(x[0] / 100).astype(int), minlength=4)
    assert counts[1] == 0
    assert scipy.stats.chisquare(counts[[0, 2, 3]], [2000, 12_000, 6000]).pvalue > 1e-3


def test_proportional_sample_has_the_components_in_order():
    x = sampling.draw(KEY, range(3), 10, [0.3, 0.7], [0.0, 1000.0], [1.0, 1.0], "proportional")
    assert np.all(x[:, :3] < 500) and np.all(x[:, 3:] > 500)


@pytest.mark.parametrize("allocation", sampling.ALLOCATIONS)
def test_a_row_depends_on_its_replicate_alone(allocation):
    together = sampling.draw(KEY, np.arange(10), 41, *MIXTURE, allocation)
    assert together.shape == (10, 41)
    for replicate in (0, 9, 4):
        alone = sampling.draw(KEY, [replicate], 41, *MIXTURE, allocation)
        np.testing.assert_array_equal(alone[0], together[replicate])
    assert np.unique(together).size == together.size


def test_unknown_allocation_is_refused():
    with pytest.raises(ValueError, match="allocation: got 'systematic', must be one of"):
        sampling.draw(KEY, [0], 4, *MIXTURE, "systematic")
