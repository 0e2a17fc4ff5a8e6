"""Normal mixtures on the line: parameters, density; the standard deviation of a sample."""

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
