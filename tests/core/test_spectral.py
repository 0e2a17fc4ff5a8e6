"""Spectral radii of small matrices against numpy's eigenvalues."""

import numpy as np
import pytest

from pipeline.core.spectral import spectral_radii


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_spectral_radii_of_any_matrices(size):
    generator = np.random.default_rng(31)
    # Those of random matrices are complex more often than not.
    matrices = generator.normal(size=(19, size, size)) * 10.0 ** generator.integers(
        -9, 9, (19, 1, 1)
    )
    expected = np.abs(np.linalg.eigvals(matrices)).max(axis=1)
    np.testing.assert_allclose(spectral_radii(matrices), expected, rtol=1e-12)


def test_spectral_radii_of_special_matrices():
    turn = np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    cases = [
        (np.zeros((2, 2)), 0.0),
        (np.array([[0.0, 1e5], [0.0, 0.0]]), 0.0),
        (0.3 * turn, 0.3),
        (np.diag([0.5, -0.5]), 0.5),
        (np.diag([1.0, 1.0 - 2.0**-40]), 1.0),
        (np.diag([1.0, 1.0 - 2.0**-25]), 1.0),
        (np.diag([1e-200, 1e-250]), 1e-200),
        (np.array([[0.9, 1.0], [0.0, 0.9]]), 0.9),
        (np.full((2, 2), np.nan), np.nan),
    ]
    found = spectral_radii(np.array([matrix for matrix, _ in cases]))
    np.testing.assert_allclose(found, [radius for _, radius in cases], rtol=3e-14)
