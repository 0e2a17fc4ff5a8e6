"""Gauss rules from moments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.core.quadrature import MOMENTS, NODES, gauss_rule

POWERS = np.arange(MOMENTS)


def rule(points, masses):
    """Return nodes and masses of the rule, from the moments of weighted points."""
    moments = (masses[:, None] * points[:, None] ** POWERS).sum(axis=0)
    nodes, weights = np.empty(NODES), np.empty(NODES)
    size = gauss_rule(moments, nodes, weights)
    return nodes[:size], weights[:size], moments


def test_lebesgue_measure_gives_the_gauss_legendre_rule():
    moments = np.where(POWERS % 2 == 0, 2.0 / (POWERS + 1), 0.0)
    nodes, masses = np.empty(NODES), np.empty(NODES)
    assert gauss_rule(moments, nodes, masses) == NODES
    expected_nodes, expected_masses = np.polynomial.legendre.leggauss(NODES)
    order = np.argsort(nodes)
    np.testing.assert_allclose(nodes[order], expected_nodes, atol=1e-15)
    np.testing.assert_allclose(masses[order], expected_masses, rtol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_as_many_points_as_nodes_are_their_own_rule(size):
    points = np.array([-0.9, 0.75, 0.1, -0.3])[:size]
    masses = np.array([2.0, 1.0, 5.0, 3.0])[:size]
    nodes, weights, _ = rule(points, masses)
    order, expected = np.argsort(nodes), np.argsort(points)
    np.testing.assert_allclose(nodes[order], points[expected], atol=1e-12)
    np.testing.assert_allclose(weights[order], masses[expected], rtol=1e-11)


@given(arrays(float, st.integers(1, 60), elements=st.floats(-1, 1)))
def test_any_points_keep_their_moments_by_positive_masses(points):
    nodes, weights, moments = rule(points, np.ones(len(points)))
    assert np.all(weights > 0)
    assert np.all(np.abs(nodes) <= 1 + 1e-9)
    found = (weights[:, None] * nodes[:, None] ** POWERS).sum(axis=0)
    np.testing.assert_allclose(found, moments, atol=1e-12 * len(points))
