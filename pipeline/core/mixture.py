"""Normal mixtures on the line: parameters, density; a sample's mean and standard deviation."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.vector import LANES, fma, load, splat, sum_of_lanes

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
def mean_and_standard_deviation(points, masses):
    """Return both of a sample (divisor: the total mass), centred, in two passes.

    Parameters
    ----------
    points, masses : float64, shape (n,), contiguous
    """
    whole = points.size - points.size % LANES
    origin = points[0]
    masses_8, shifts_8 = splat(0.0), splat(0.0)
    for i in range(0, whole, LANES):
        masses_8 = masses_8 + load(masses, i)
        shifts_8 = fma(load(masses, i), load(points, i) - splat(origin), shifts_8)
    mass, shift = sum_of_lanes(masses_8), sum_of_lanes(shifts_8)
    for i in range(whole, points.size):
        mass += masses[i]
        shift += masses[i] * (points[i] - origin)
    mean = origin + shift / mass

    squares_8 = splat(0.0)
    for i in range(0, whole, LANES):
        distance = load(points, i) - splat(mean)
        squares_8 = fma(load(masses, i) * distance, distance, squares_8)
    squares = sum_of_lanes(squares_8)
    for i in range(whole, points.size):
        squares += masses[i] * (points[i] - mean) ** 2
    return mean, math.sqrt(squares / mass)


@compiled
def standard_deviation(points, masses):
    """Return the standard deviation of a sample, as ``mean_and_standard_deviation`` does."""
    return mean_and_standard_deviation(points, masses)[1]


@compiled
def standard_deviations(points, masses):
    """Return the standard deviation of each row of ``points`` (R, n), shape (R,)."""
    out = np.empty(points.shape[0])
    for row in range(points.shape[0]):
        out[row] = standard_deviation(points[row], masses)
    return out
