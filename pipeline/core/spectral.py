"""Spectral radii of many small matrices, by Gelfand's formula, the same bits everywhere."""

import math

import numpy as np

from pipeline.core.compilation import compiled
from pipeline.core.vector import (
    LANES,
    absolute,
    bits,
    exp2,
    fma,
    hold,
    load,
    log2,
    rows,
    select,
    splat,
    store,
)

# A power that differs by less from its square, both of norm 1, will not change any more.
SETTLED = 2.0**-46
# After this many squarings, what is left to come is below the last bit.
MOST_SQUARINGS = 56
# A matrix of norm 1 whose square is smaller is nilpotent.
VANISHED = 1e-290
ALL_LANES = (1 << LANES) - 1


@compiled
def _square(size, matrix, out):
    """Fill ``out`` with the square of a matrix (d, d, 8); return the sum of its absolute values."""
    norm = splat(0.0)
    for i in range(0, LANES * size, LANES):
        for j in range(0, LANES * size, LANES):
            entry = splat(0.0)
            for k in range(0, LANES * size, LANES):
                entry = fma(load(matrix, size * i + k), load(matrix, size * k + j), entry)
            store(out, size * i + j, entry)
            norm = norm + absolute(entry)
    return norm


@compiled
def _radius(size, matrix, square):
    """Return the spectral radius of a matrix (d, d, 8), which is lost, by its powers 2^i.

    Gelfand's formula: with B_0 = A / |A| and B_(i+1) = B_i^2 / |B_i^2|, the logarithm of the radius
    is log |A| + sum log |B_i^2| / 2^(i+1). Rounding errors of a square count 2^-(i+1) times.
    """
    n_entries = LANES * size * size
    scale = splat(0.0)
    for i in range(0, n_entries, LANES):
        scale = scale + absolute(load(matrix, i))
    # A matrix of zeros, or of what is not finite, has the radius ``scale``.
    settled = ~((scale > splat(0.0)) & (scale < splat(math.inf)))
    for i in range(0, n_entries, LANES):
        store(matrix, i, load(matrix, i) / scale)
    exponent, share = splat(0.0), splat(1.0)
    for _ in range(MOST_SQUARINGS):
        norm = _square(size, matrix, square)
        inverse, change = splat(1.0) / norm, splat(0.0)
        for i in range(0, n_entries, LANES):
            entry = load(square, i) * inverse
            change = change + absolute(entry - load(matrix, i))
            store(matrix, i, entry)
        share = splat(0.5) * share
        vanished = ~(norm > splat(VANISHED))
        same = change <= splat(SETTLED)
        step = select(vanished, splat(-math.inf), share * log2(norm))
        # Where all terms to come have this norm, they add up to one more term.
        step = select(same, step + step, step)
        exponent = select(settled, exponent, exponent + step)
        settled = settled | same | vanished
        if bits(settled) == ALL_LANES:
            break
    return scale * exp2(exponent)


@compiled
def spectral_radii(matrices):
    """Return the spectral radius of each of ``matrices`` (F, d, d), shape (F,).

    Accurate to the rounding errors of the matrix times the condition of its eigenvectors, for
    complex eigenvalues as well. No LAPACK, whose last bits depend on the library.
    """
    n_matrices, size = matrices.shape[0], matrices.shape[1]
    out = np.empty(n_matrices)
    width = LANES * size * size
    memory = np.zeros(2 * width + 2 * LANES)
    matrix, square = rows(memory, 0), rows(memory, width)
    radii = rows(memory, 2 * width)
    for first in range(0, n_matrices, LANES):
        stop = min(first + LANES, n_matrices)
        for at in range(first, stop):
            for i in range(size):
                for j in range(size):
                    matrix[LANES * (size * i + j) + at - first] = matrices[at, i, j]
        for at in range(stop, first + LANES):
            for i in range(size * size):
                matrix[LANES * i + at - first] = 0.0
        store(radii, 0, _radius(size, matrix, square))
        for at in range(first, stop):
            out[at] = radii[at - first]
    hold(memory)
    return out
