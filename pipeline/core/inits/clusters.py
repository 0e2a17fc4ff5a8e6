"""Inits that cluster the sample: k-means++ seeding, and Lloyd's iterations from it."""

import math

import numpy as np

from pipeline.core.compilation import compiled
from pipeline.core.inits.registry import Draw, init, integer
from pipeline.core.mixture import Parameters


@compiled
def pick(uniform, n):
    """Return an index below n; the product alone can round up to n."""
    return min(int(uniform * n), n - 1)


@compiled
def _seed(points, uniform):
    n_replicates, n_starts, n_components = uniform.shape
    n = points.shape[1]
    means = np.empty(uniform.shape)
    distance = np.empty(n)
    for r in range(n_replicates):
        for s in range(n_starts):
            distance[:] = np.inf
            means[r, s, 0] = points[r, pick(uniform[r, s, 0], n)]
            for k in range(1, n_components):
                total = 0.0
                for i in range(n):
                    squared = (points[r, i] - means[r, s, k - 1]) ** 2
                    distance[i] = min(distance[i], squared)
                    total += distance[i]
                if total == 0.0:
                    means[r, s, k] = points[r, pick(uniform[r, s, k], n)]
                    continue
                goal = uniform[r, s, k] * total
                cumulative = 0.0
                chosen = 0
                for i in range(n):
                    if distance[i] > 0.0:
                        chosen = i
                        cumulative += distance[i]
                        if cumulative > goal:
                            break
                means[r, s, k] = points[r, chosen]
    return means


@init()
def kmeans_pp(draw: Draw) -> Parameters:
    """Means by k-means++ seeding; weights equal; scales the sample's standard deviation.

    The first mean is a uniformly chosen point, each further one a point chosen with probability
    proportional to the squared distance to the nearest mean so far (Arthur & Vassilvitskii 2007,
    "k-means++: the advantages of careful seeding"); uniformly where all distances are 0.
    """
    return draw.around(_seed(draw.points, draw.uniforms(draw.n_components)))


@compiled
def _lloyd(points, sample_scales, means, iterations):
    """Move the means (R, S, K) to those of their clusters; return the clusters' shares and scales.

    Of two means as near, the first takes the point.
    """
    n_replicates, n_starts, n_components = means.shape
    n = points.shape[1]
    weights, scales = np.empty(means.shape), np.empty(means.shape)
    cluster = np.empty(n, np.int32)
    count, total = np.empty(n_components), np.empty(n_components)
    low, high = np.empty(n_components), np.empty(n_components)
    for r in range(n_replicates):
        for s in range(n_starts):
            mean = means[r, s]
            for i in range(n):
                cluster[i] = -1
            for _ in range(iterations):
                changed = False
                for k in range(n_components):
                    count[k], total[k] = 0.0, 0.0
                for i in range(n):
                    nearest, least = 0, abs(points[r, i] - mean[0])
                    for k in range(1, n_components):
                        distance = abs(points[r, i] - mean[k])
                        if distance < least:
                            nearest, least = k, distance
                    changed |= cluster[i] != nearest
                    cluster[i] = nearest
                    count[nearest] += 1.0
                    # Counted from a point: the mean keeps its digits at any offset.
                    total[nearest] += points[r, i] - points[r, 0]
                if not changed:
                    break
                for k in range(n_components):
                    if count[k] > 0.0:
                        mean[k] = points[r, 0] + total[k] / count[k]
            for k in range(n_components):
                total[k], low[k], high[k] = 0.0, np.inf, -np.inf
            for i in range(n):
                k = cluster[i]
                total[k] += (points[r, i] - mean[k]) ** 2
                low[k], high[k] = min(low[k], points[r, i]), max(high[k], points[r, i])
            for k in range(n_components):
                weights[r, s, k] = count[k] / n
                # Rounding of the mean gives equal points a spread that they do not have.
                spread = high[k] > low[k] and total[k] > 0.0
                scales[r, s, k] = math.sqrt(total[k] / count[k]) if spread else sample_scales[r]
    return weights, scales


@init(options={"iterations": integer(100, 1, 10**6)})
def kmeans(draw: Draw) -> Parameters:
    """Weights, means and scales of the clusters of k-means, from k-means++ seeds.

    Lloyd (1982), "Least squares quantization in PCM": every point goes to the nearest mean and
    every mean to its points' mean, until no point changes its cluster or ``iterations`` times. An
    empty cluster keeps its mean and has weight 0. A cluster without spread (one point, or ties)
    has the sample's standard deviation as its scale: its own, 0, is where the likelihood is
    unbounded, and no EM step leads away from there.
    """
    means = _seed(draw.points, draw.uniforms(draw.n_components))
    weights, scales = _lloyd(draw.points, draw.scales, means, draw.options["iterations"])
    return Parameters(weights, means, scales)
