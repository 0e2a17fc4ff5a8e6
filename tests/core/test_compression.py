"""A sample's bins and the nodes in the place of its points."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.core import compression
from pipeline.core.compression import FEWEST_BINS, MOMENTS, bin_points, levels, nodes_of

generator = np.random.default_rng(11)
POINTS = generator.normal(3.0, 2.0, 50_000)
POWERS = np.arange(MOMENTS)


def expected_moments(points, bins):
    """Return the moments of every bin by its definition."""
    n_bins = len(bins.moments)
    position = (points - bins.centre) / bins.width + n_bins / 2
    index = np.floor(position).astype(int)
    inside = (index >= 0) & (index < n_bins)
    moments = np.zeros((n_bins, MOMENTS))
    v = 2 * (position - index) - 1
    np.add.at(moments, index[inside], v[inside, None] ** POWERS)
    return moments, points[~inside]


def test_moments_of_every_level_are_those_of_the_points():
    points = np.append(POINTS, [500.0, -1e6])
    sizes = []
    for bins in levels(bin_points(points)):
        moments, outside = expected_moments(points, bins)
        np.testing.assert_allclose(bins.moments, moments, atol=1e-13 * len(points))
        assert set(outside) == set(bins.outside)
        sizes.append(len(bins.moments))
    assert sizes[0] == FEWEST_BINS
    assert all(b == 2 * a for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize("origin", [0.0, 3.25])
def test_nodes_have_the_moments_of_the_sample(origin):
    for bins in levels(bin_points(POINTS)):
        nodes, masses = nodes_of(bins, origin)
        assert np.all(masses > 0)
        z = (POINTS - 3.0) / 2.0
        for power in range(MOMENTS):
            found = np.sum(masses * ((nodes + origin - 3.0) / 2.0) ** power)
            assert found == pytest.approx(np.sum(z**power), abs=1e-12 * np.sum(np.abs(z) ** power))


def test_few_distinct_values_become_themselves():
    points = np.repeat([1.0, 2.0, 7.0], [10_000, 30_000, 5_000])
    *_, finest = levels(bin_points(points))
    nodes, masses = nodes_of(finest, 0.0)
    # Rounding in the sums may leave a node of no mass.
    nodes, masses = nodes[masses > 1e-6], masses[masses > 1e-6]
    np.testing.assert_allclose(nodes, [1.0, 2.0, 7.0], atol=1e-13)
    np.testing.assert_allclose(masses, [10_000, 30_000, 5_000], rtol=1e-11)


def test_points_all_equal_are_no_bins():
    bins = bin_points(np.full(40_000, 2.5))
    assert bins.moments.shape == (0, MOMENTS)
    assert bins.outside.size == 40_000


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(compression, "CHUNK", 1000)
    alone = bin_points(POINTS)
    with ThreadPoolExecutor(4) as pool:
        together = bin_points(POINTS, pool.map)
    assert np.array_equal(alone.moments, together.moments)
    assert np.array_equal(alone.outside, together.outside)
