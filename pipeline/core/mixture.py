"""Normal mixtures on the line: parameters, density, log-likelihood."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)


class Parameters(NamedTuple):
    """A mixture, or a batch of them: the components are the last axis of each array.

    A scale is a standard deviation.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    scales: NDArray[np.float64]


def component_densities(points: NDArray, parameters: Parameters) -> NDArray:
    """Return each component's weighted density, weight_k N(x; mean_k, scale_k^2), shape (K, n)."""
    weights, means, scales = (np.asarray(part)[:, None] for part in parameters)
    z = (np.asarray(points)[None, :] - means) / scales
    return weights / (math.sqrt(2.0 * math.pi) * scales) * np.exp(-0.5 * z * z)


def density(points: NDArray, parameters: Parameters) -> NDArray:
    """Return the mixture's density at ``points``, shape (n,)."""
    return component_densities(points, parameters).sum(axis=0)


@compiled
def log_component_density(x, weight, mean, scale):
    """Return log(weight N(x; mean, scale^2))."""
    z = (x - mean) / scale
    return math.log(weight) - math.log(scale) - LOG_SQRT_2_PI - 0.5 * z * z


@compiled
def log_likelihood(points, masses, weights, means, scales):
    """Return the log-likelihood of a sample (a total, not an average), by log-sum-exp.

    Parameters
    ----------
    points, masses : float64, shape (n,)
    weights, means, scales : float64, shape (K,)
    """
    total = 0.0
    for i in range(points.size):
        largest = -math.inf
        for k in range(means.size):
            largest = max(
                largest, log_component_density(points[i], weights[k], means[k], scales[k])
            )
        density_ratio = 0.0
        for k in range(means.size):
            log_density = log_component_density(points[i], weights[k], means[k], scales[k])
            density_ratio += math.exp(log_density - largest)
        total += masses[i] * (largest + math.log(density_ratio))
    return total


@compiled
def log_likelihoods(points, masses, weights, means, scales):
    """Return the log-likelihood of each row of ``points`` (R, n) under one mixture, shape (R,)."""
    out = np.empty(points.shape[0])
    for row in range(points.shape[0]):
        out[row] = log_likelihood(points[row], masses, weights, means, scales)
    return out


@compiled
def standard_deviation(points, masses):
    """Return the standard deviation of a sample (divisor: the total mass), centred, in two passes.

    Parameters
    ----------
    points, masses : float64, shape (n,)
    """
    mass = 0.0
    shift = 0.0
    for i in range(points.size):
        mass += masses[i]
        shift += masses[i] * (points[i] - points[0])
    mean = points[0] + shift / mass
    squares = 0.0
    for i in range(points.size):
        squares += masses[i] * (points[i] - mean) ** 2
    return math.sqrt(squares / mass)


@compiled
def standard_deviations(points, masses):
    """Return the standard deviation of each row of ``points`` (R, n), shape (R,)."""
    out = np.empty(points.shape[0])
    for row in range(points.shape[0]):
        out[row] = standard_deviation(points[row], masses)
    return out
