"""Quadrature rules: a few nodes with masses in the place of a measure on an interval."""

import math

import numpy as np

from pipeline.core.compilation import compiled
from pipeline.core.symmetric import diagonalise

# Moments of a measure on [-1, 1] that one rule matches, and its nodes.
MOMENTS = 8
NODES = MOMENTS // 2

# Monic Legendre polynomials: coefficient of v^j in the one of degree i, and the recurrence
# pi_(i+1) = v pi_i - LEGENDRE_STEPS[i] pi_(i-1).
LEGENDRE_STEPS = np.array([0.0] + [i * i / (4.0 * i * i - 1.0) for i in range(1, MOMENTS)])
LEGENDRE = np.zeros((MOMENTS, MOMENTS))
LEGENDRE[0, 0] = 1.0
for _i in range(1, MOMENTS):
    LEGENDRE[_i, 1:] = LEGENDRE[_i - 1, :-1]
    if _i > 1:
        LEGENDRE[_i] -= LEGENDRE_STEPS[_i - 1] * LEGENDRE[_i - 2]

# Below this part of the mass, the squared norm of an orthogonal polynomial is rounding: the measure
# has as many points as the polynomial has roots, or points too close together to be told apart.
SMALLEST_NORM = 1e-14


@compiled
def _recurrence(moments, diagonal, squares):
    """Fill the coefficients of a measure's orthogonal polynomials; return how many nodes it takes.

    Wheeler's algorithm on modified moments, which are well conditioned where monomial ones are not:
    Gautschi (2004), "Orthogonal polynomials: computation and approximation", section 2.1.7.
    """
    before, present = np.zeros(MOMENTS), np.zeros(MOMENTS)
    for i in range(MOMENTS):
        for j in range(i + 1):
            present[i] += LEGENDRE[i, j] * moments[j]
    diagonal[0], squares[0] = present[1] / present[0], 0.0
    for k in range(1, NODES):
        following = np.zeros(MOMENTS)
        for i in range(k, MOMENTS - k):
            following[i] = (
                present[i + 1]
                - diagonal[k - 1] * present[i]
                - squares[k - 1] * before[i]
                + LEGENDRE_STEPS[i] * present[i - 1]
            )
        if not following[k] > SMALLEST_NORM * moments[0]:
            return k
        squares[k] = following[k] / present[k - 1]
        diagonal[k] = following[k + 1] / following[k] - present[k] / present[k - 1]
        before, present = present, following
    return NODES


@compiled
def gauss_rule(moments, nodes, masses):
    """Fill the Gauss rule of a positive measure on [-1, 1]; return its number of nodes.

    The rule has positive masses and the measure's moments. A measure of fewer than four points is
    its own rule.

    Parameters
    ----------
    moments : float64, shape (8,)
        Of v^0 to v^7.
    nodes, masses : float64, shape (4,)

    Notes
    -----
    Golub & Welsch (1969), "Calculation of Gauss quadrature rules": the nodes are the eigenvalues
    of the Jacobi matrix, the masses the squared first components
    of its eigenvectors.
    """
    diagonal, squares = np.empty(NODES), np.empty(NODES)
    size = _recurrence(moments, diagonal, squares)
    matrix, first = np.zeros((NODES, NODES)), np.zeros((1, NODES))
    first[0, 0] = 1.0
    for k in range(size):
        matrix[k, k] = diagonal[k]
        if k:
            matrix[k, k - 1] = matrix[k - 1, k] = math.sqrt(squares[k])
    diagonalise(matrix, first, size)
    for k in range(size):
        nodes[k] = matrix[k, k]
        masses[k] = moments[0] * first[0, k] * first[0, k]
    return size
