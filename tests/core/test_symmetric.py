"""Jacobi's rotations against numpy."""

import numpy as np
import pytest

from pipeline.core.symmetric import diagonalise


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("kind", ["random", "singular", "diagonal", "graded"])
def test_eigenvalues_and_vectors(size, kind):
    generator = np.random.default_rng(size)
    half = generator.normal(size=(size, size))
    if kind == "singular":
        half[0] = half[-1]
    if kind == "diagonal":
        half = np.diag(np.diag(half))
    if kind == "graded":
        half *= 10.0 ** -np.arange(size)
    matrix = half.T @ half
    turned, vectors = matrix.copy(), np.eye(size)
    diagonalise(turned, vectors, size)
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-14)
    rebuilt = vectors @ np.diag(np.diag(turned)) @ vectors.T
    np.testing.assert_allclose(rebuilt, matrix, atol=1e-14 * size * scale)
    found, expected = np.sort(np.diag(turned)), np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(found, expected, atol=1e-14 * size * scale)
