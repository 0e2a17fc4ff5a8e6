"""Inits that take points of the sample, its quantiles, its range, or all of it at random."""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.inits.registry import Draw, init
from pipeline.core.mixture import Parameters
from pipeline.core.random import WORDS_PER_BLOCK, words
from pipeline.core.random import uniform as uniform_of
from pipeline.core.vector import LANES, load, log2, store


def distinct_points(
    points: NDArray[np.float64], uniform: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return random points of each sample without replacement; (R, n) and (R, S, K): (R, S, K).

    Distinct by index (their values may tie); a sample of fewer than K points is used more than
    once.
    """
    n = points.shape[1]
    chosen = np.empty(uniform.shape, np.int64)
    for k in range(uniform.shape[2]):
        round_ = k % n
        left = n - round_
        rank = np.minimum(uniform[..., k] * left, left - 1).astype(np.int64)
        # From the rank among the points still left to the index: step over each one taken.
        for taken in np.moveaxis(np.sort(chosen[..., k - round_ : k], axis=-1), -1, 0):
            rank += rank >= taken
        chosen[..., k] = rank
    return np.take_along_axis(points[:, None, :], chosen, axis=2)


@init()
def random_points(draw: Draw) -> Parameters:
    """Means at distinct random points of the sample; weights equal; scales the sample's.

    Forgy (1965), "Cluster analysis of multivariate data".
    """
    return draw.around(distinct_points(draw.points, draw.uniforms(draw.n_components)))


@init(deterministic=True)
def quantiles(draw: Draw) -> Parameters:
    """Means at the (k + 1/2)/K quantiles; weights equal; scales the sample's standard deviation."""
    levels = (np.arange(draw.n_components) + 0.5) / draw.n_components
    return draw.around(draw.quantiles(levels)[:, None, :])


@init()
def uniform(draw: Draw) -> Parameters:
    """Means uniform over the data's range; weights equal; scales the sample's.

    A population has no range: its 0.001 and 0.999 quantiles stand in.
    """
    low, high = np.moveaxis(draw.limits()[:, None, None, :], -1, 0)
    return draw.around(low + draw.uniforms(draw.n_components) * (high - low))


@compiled
def _one_m_step(points, key, streams, n_components):
    """Return weights, means and scales (R, S, K) of responsibilities that are never stored.

    Point i takes words i K to (i + 1) K of its fit's stream. Means and squares are updated point
    by point (West 1979, "Updating mean and variance estimates"): centred, in one pass.
    """
    n_replicates, n_starts, n = streams.shape[0], streams.shape[1], points.shape[1]
    weights = np.zeros((n_replicates, n_starts, n_components))
    means, scales = np.zeros(weights.shape), np.zeros(weights.shape)
    shares = np.empty(LANES * n_components)
    for r in range(n_replicates):
        for s in range(n_starts):
            weight, mean, squares = weights[r, s], means[r, s], scales[r, s]
            for first in range(0, n, LANES):
                for j in range(0, shares.size, WORDS_PER_BLOCK):
                    block = np.uint64((first * n_components + j) // WORDS_PER_BLOCK + 1)
                    four = words(key[0], key[1], block, streams[r, s, 1], streams[r, s, 0])
                    for i in range(WORDS_PER_BLOCK):
                        shares[j + i] = uniform_of(four[i])
                # Exponential variables, up to a factor that the division takes out.
                for j in range(0, shares.size, LANES):
                    store(shares, j, -log2(load(shares, j)))
                for i in range(first, min(first + LANES, n)):
                    x = points[r, i] - points[r, 0]
                    at = (i - first) * n_components
                    total = 0.0
                    for k in range(n_components):
                        total += shares[at + k]
                    for k in range(n_components):
                        responsibility = shares[at + k] / total
                        weight[k] += responsibility
                        before = x - mean[k]
                        mean[k] += responsibility / weight[k] * before
                        squares[k] += responsibility * before * (x - mean[k])
            # Not n: the counts have rounding errors of their own.
            total = 0.0
            for k in range(n_components):
                total += weight[k]
            for k in range(n_components):
                squares[k] = math.sqrt(max(squares[k], 0.0) / weight[k])
                mean[k] += points[r, 0]
                weight[k] /= total
    return weights, means, scales


@init()
def random_responsibilities(draw: Draw) -> Parameters:
    """One M-step from responsibilities that are uniform on the simplex, Dirichlet(1, ..., 1).

    McLachlan & Peel (2000), "Finite Mixture Models", section 2.12, start from random partitions of
    the sample; scikit-learn's ``init_params="random"`` normalises uniforms instead. All components
    lie near the sample's mean: the larger the sample, the nearer.
    """
    return Parameters(*_one_m_step(draw.points, draw.key, draw.streams, draw.n_components))
