"""Samples: the inverse normal, the allocation, the distribution, the independence of rows."""

from itertools import pairwise

import mpmath
import numba
import numpy as np
import pytest
import scipy.special
import scipy.stats

from pipeline.core import random, sampling
from pipeline.core.vector import LANES, load, store

KEY = random.key_from_hex("00112233445566778899aabbccddeeff")
MIXTURE = ([0.25, 0.75], [-1.0, 2.0], [0.5, 1.5])


@numba.njit(error_model="numpy")
def fill_quantiles(words, out):
    for i in range(0, words.size, LANES):
        store(out, i, sampling.inverse_normal(random.lane_uniforms(load(words, i))))


def quantiles(numbers):
    """Return the inverse normal of (j + 1/2) / 2^52 for integers j, a multiple of eight of them."""
    words = np.array(numbers, np.uint64) << np.uint64(12)
    out = np.empty(words.size)
    fill_quantiles(words, out)
    return out


LAST = 2**52 - 1
HALF = 2**51
# 1 - (2 u - 1)^2 = 2^-8, where the tail begins.
BORDER = int((1 - np.sqrt(1 - 2.0**-8)) / 2 * 2**52)
NUMBERS = np.array(
    [
        *range(8),
        *range(BORDER - 4, BORDER + 4),
        *range(HALF - 8, HALF),
        *np.logspace(0, 15.6, 992).astype(np.int64),
        *np.linspace(0, HALF - 1, 1000).astype(np.int64),
    ]
)


def test_inverse_normal_against_mpmath():
    with mpmath.workdps(40):
        uniforms = [(mpmath.mpf(int(j)) + 0.5) / 2**52 for j in NUMBERS]
        exact = [mpmath.sqrt(2) * mpmath.erfinv(2 * u - 1) for u in uniforms]
        found = map(mpmath.mpf, quantiles(NUMBERS).tolist())
        errors = [abs(z / true - 1) for z, true in zip(found, exact, strict=True)]
    assert max(errors) < 4e-16


def test_inverse_normal_against_scipy():
    numbers = np.random.default_rng(5).integers(0, LAST, 80_000, endpoint=True)
    u = (numbers + 0.5) / 2.0**52
    np.testing.assert_allclose(quantiles(numbers), scipy.special.ndtri(u), rtol=4e-15, atol=1e-15)


def test_inverse_normal_is_odd_about_a_half():
    np.testing.assert_array_equal(quantiles(LAST - NUMBERS), -quantiles(NUMBERS))


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


@pytest.mark.parametrize("sample_size", [0, 1, 2, 7, 8, 41, sampling.CHUNK, 1100])
@pytest.mark.parametrize("allocation", sampling.ALLOCATIONS)
def test_points_are_quantiles_of_the_words_of_their_position(allocation, sample_size):
    """Words 2 j and 2 j + 1 are label and normal of point j, or word j is its normal alone."""
    weights, means, scales = map(np.array, ([0.2, 0.0, 0.5, 0.3], [-3, 99, 0, 1], [1, 9, 0.3, 2]))
    found = sampling.draw(KEY, [4], sample_size, weights, means, scales, allocation)
    words = np.random.Philox(key=KEY, counter=[0, 0, 4, 0]).random_raw(2 * sample_size)
    uniforms = ((words >> np.uint64(12)) + 0.5) / 2.0**52
    if allocation == "multinomial":
        labels, normals = uniforms.reshape(-1, 2).T
        k = np.searchsorted(np.cumsum(weights), labels, side="right")
    else:
        normals = uniforms[:sample_size]
        k = np.repeat(np.arange(4), sampling.proportional_counts(weights, sample_size))
    expected = means[k] + scales[k] * scipy.special.ndtri(normals)
    np.testing.assert_allclose(found[0], expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("allocation", sampling.ALLOCATIONS)
def test_a_sample_can_be_drawn_in_parts(allocation):
    replicates, n = [5, 2], 2 * sampling.CHUNK + 77
    whole = sampling.draw(KEY, replicates, n, *MIXTURE, allocation)
    parts = np.full((2, n), np.nan)
    ends = [0, 0, 1, 3, 8, 17, 24, sampling.CHUNK - 1, sampling.CHUNK + 1, n - 9, n]
    for first, stop in pairwise(ends):
        positions, out = range(first, stop), parts[:, first:stop]
        drawn = sampling.draw(KEY, replicates, n, *MIXTURE, allocation, positions, out)
        assert np.shares_memory(drawn, parts) == (first < stop)
        alone = sampling.draw(KEY, replicates, n, *MIXTURE, allocation, positions)
        np.testing.assert_array_equal(alone, whole[:, first:stop])
    np.testing.assert_array_equal(parts, whole)


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


@pytest.mark.parametrize("positions", [range(-1, 2), range(3, 5), range(3, 2), range(0, 4, 2)])
def test_positions_outside_the_sample_are_refused(positions):
    with pytest.raises(ValueError, match="positions: got range"):
        sampling.draw(KEY, [0], 4, *MIXTURE, "multinomial", positions)


def test_out_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"out: got shape \(1, 3\), needs \(1, 4\)"):
        sampling.draw(KEY, [0], 4, *MIXTURE, "multinomial", out=np.empty((1, 3)))


def test_every_instruction_set_draws_the_same_bits(bits_by_cpu):
    assert len(set(bits_by_cpu(PROGRAM).values())) == 1


PROGRAM = """
import hashlib
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import ALLOCATIONS, draw

key = key_from_hex("00112233445566778899aabbccddeeff")
digest = hashlib.sha256()
for allocation in ALLOCATIONS:
    for n in (41, 5000):
        points = draw(key, range(3), n, [0.2, 0.5, 0.3], [-3, 0, 1], [1, 0.3, 2], allocation)
        digest.update(points.tobytes())
print(digest.hexdigest())
"""
