"""Normal mixtures on the line: parameters, density; a sample's mean and standard deviation."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.vector import LANES, first_lane, fma, lane_sum, load, splat

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


def distance(left: Parameters, right: Parameters, unit: NDArray | float) -> NDArray[np.float64]:
    """Return the largest difference of a parameter (F, K) in each row, shape (F,).

    Means and scales count in units, a float or (F,); the differences of weights as they are.
    """
    weights, means, scales = (np.abs(a - b).max(axis=1) for a, b in zip(left, right, strict=True))
    return np.maximum(weights, np.maximum(means, scales) / unit)


def mixture_standard_deviation(parameters: Parameters) -> float:
    """Return the standard deviation of a mixture (K,)."""
    weights, means, scales = parameters
    centred = means - np.sum(weights * means)
    return float(np.sqrt(np.sum(weights * (scales * scales + centred * centred))))


def mixture_quantiles(parameters: Parameters, levels: NDArray) -> NDArray[np.float64]:
    """Return the quantiles of a mixture (K,) at levels in (0, 1), to 12 digits."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    weights, means, scales = parameters
    reach = 40.0 * np.max(scales)
    low, high = np.min(means) - reach, np.max(means) + reach

    def quantile(level: float) -> float:
        return brentq(lambda x: np.sum(weights * ndtr((x - means) / scales)) - level, low, high)

    # The last bits of a library's normal distribution depend on the CPU.
    unit = 1e-12 * mixture_standard_deviation(parameters)
    return np.array([round(quantile(level) / unit) * unit for level in levels])


@compiled
def centred_sums(points, masses, origin):
    """Return total mass, mean minus ``origin``, and the squares' sum about the mean, in two passes.

    Parameters
    ----------
    points, masses : float64, shape (n,), contiguous
    origin : float
        Near the points: the digits of their mean are counted from it.
    """
    whole = points.size - points.size % LANES
    masses_8, shifts_8 = splat(0.0), splat(0.0)
    for i in range(0, whole, LANES):
        masses_8 = masses_8 + load(masses, i)
        shifts_8 = fma(load(masses, i), load(points, i) - splat(origin), shifts_8)
    mass, shift = first_lane(lane_sum(masses_8)), first_lane(lane_sum(shifts_8))
    for i in range(whole, points.size):
        mass += masses[i]
        shift += masses[i] * (points[i] - origin)
    shift /= mass

    mean = origin + shift
    squares_8 = splat(0.0)
    for i in range(0, whole, LANES):
        distance = load(points, i) - splat(mean)
        squares_8 = fma(load(masses, i) * distance, distance, squares_8)
    squares = first_lane(lane_sum(squares_8))
    for i in range(whole, points.size):
        squares += masses[i] * (points[i] - mean) ** 2
    return mass, shift, squares


@compiled
def mean_and_standard_deviation(points, masses):
    """Return both of a sample (divisor: the total mass); shapes (n,), contiguous."""
    mass, shift, squares = centred_sums(points, masses, points[0])
    return points[0] + shift, math.sqrt(squares / mass)


# Points of a piece of a sample: they stay in the nearest cache for the second pass.
PIECE = 4096


@compiled
def standard_deviations(points):
    """Return the standard deviation of each row of ``points`` (R, n), shape (R,).

    Piece by piece, put together as Chan, Golub & LeVeque (1983) do, "Algorithms for computing the
    sample variance".
    """
    n = points.shape[1]
    out = np.empty(points.shape[0])
    ones = np.ones(min(n, PIECE))
    for row in range(points.shape[0]):
        shift, squares = 0.0, 0.0
        for first in range(0, n, PIECE):
            piece = points[row, first : first + PIECE]
            mass, of_piece, about = centred_sums(piece, ones[: piece.size], points[row, 0])
            delta, total = of_piece - shift, first + mass
            shift += delta * mass / total
            squares += about + delta * delta * first * mass / total
        out[row] = math.sqrt(squares / n)
    return out
