"""Quadrature rules: a few nodes with masses in the place of a measure on an interval."""

import math

import numpy as np

from pipeline.core.compilation import compiled

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
JACOBI_SWEEPS = 8


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
    of the Jacobi matrix, found here by Jacobi's rotations, the masses the squared first components
    of its eigenvectors.
    """
    diagonal, squares = np.empty(NODES), np.empty(NODES)
    size = _recurrence(moments, diagonal, squares)
    matrix, first = np.zeros((NODES, NODES)), np.zeros(NODES)
    first[0] = 1.0
    for k in range(size):
        matrix[k, k] = diagonal[k]
        if k:
            matrix[k, k - 1] = matrix[k - 1, k] = math.sqrt(squares[k])
    for _ in range(JACOBI_SWEEPS):
        largest = 0.0
        for i in range(size):
            for j in range(i):
                largest = max(largest, abs(matrix[i, j]))
                if matrix[i, j] == 0.0:
                    continue
                half = (matrix[j, j] - matrix[i, i]) / (2.0 * matrix[i, j])
                tangent = math.copysign(1.0, half) / (abs(half) + math.sqrt(half * half + 1.0))
                cosine = 1.0 / math.sqrt(tangent * tangent + 1.0)
                sine = tangent * cosine
                for k in range(size):
                    a, b = matrix[k, i], matrix[k, j]
                    matrix[k, i], matrix[k, j] = cosine * a - sine * b, sine * a + cosine * b
                for k in range(size):
                    a, b = matrix[i, k], matrix[j, k]
                    matrix[i, k], matrix[j, k] = cosine * a - sine * b, sine * a + cosine * b
                matrix[i, j] = matrix[j, i] = 0.0
                a, b = first[i], first[j]
                first[i], first[j] = cosine * a - sine * b, sine * a + cosine * b
        if largest < 1e-17:
            break
    for k in range(size):
        nodes[k] = matrix[k, k]
        masses[k] = moments[0] * first[k] * first[k]
    return size
