"""Eigenvalues and eigenvectors of small symmetric matrices.

Not a library's: the last bits of LAPACK depend on the library and the CPU.
"""

import math

from pipeline.core.compilation import compiled

MOST_SWEEPS = 20
# Of the largest element: what is left beside the diagonal is rounding.
ROUNDING = 1e-17


@compiled
def diagonalise(matrix, vectors, size):
    """Turn a symmetric matrix into its eigenvalues, on the diagonal, by Jacobi's rotations.

    Parameters
    ----------
    matrix : float64, shape (>= size, >= size)
    vectors : float64, shape (>= rows, >= size)
        Rows that the rotations are applied to: of the identity, they become those of the matrix of
        eigenvectors, one in a column.
    size : int
    """
    for _ in range(MOST_SWEEPS):
        largest, beside = 0.0, 0.0
        for i in range(size):
            for j in range(size):
                largest = max(largest, abs(matrix[i, j]))
                if i != j:
                    beside = max(beside, abs(matrix[i, j]))
        if not beside > ROUNDING * largest:
            return
        for i in range(size):
            for j in range(i):
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
                for k in range(vectors.shape[0]):
                    a, b = vectors[k, i], vectors[k, j]
                    vectors[k, i], vectors[k, j] = cosine * a - sine * b, sine * a + cosine * b
