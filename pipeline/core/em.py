"""Expectation-Maximization: the E-step, the sufficient statistics and the M-step.

Dempster, Laird & Rubin (1977), "Maximum likelihood from incomplete data via the EM algorithm". The
sample is a measure: points with masses (1 each for plain data). A parameter vector ``theta`` has
shape (3, K): weights, means, scales.
"""

import math

from pipeline.core.compilation import compiled
from pipeline.core.mixture import LOG_SQRT_2_PI
from pipeline.core.model import FIXED, FREE, SHARED, SYMMETRIC


@compiled
def e_step(points, masses, weights, means, scales, responsibilities):
    """Return the log-likelihood and fill ``responsibilities``, by log-sum-exp.

    Parameters
    ----------
    points, masses : float64, shape (n,)
    weights, means, scales : float64, shape (K,)
    responsibilities : float64, shape (K, n)
        Filled with r_k(x_i) = weight_k N_k(x_i) / sum_j weight_j N_j(x_i).

    Returns
    -------
    float
        sum_i mass_i log sum_k weight_k N(x_i; mean_k, scale_k^2).
    """
    n_components = means.size
    for k in range(n_components):
        log_factor = math.log(weights[k]) - math.log(scales[k]) - LOG_SQRT_2_PI
        for i in range(points.size):
            z = (points[i] - means[k]) / scales[k]
            responsibilities[k, i] = log_factor - 0.5 * z * z
    log_likelihood = 0.0
    for i in range(points.size):
        largest = responsibilities[0, i]
        for k in range(1, n_components):
            largest = max(largest, responsibilities[k, i])
        total = 0.0
        for k in range(n_components):
            responsibilities[k, i] = math.exp(responsibilities[k, i] - largest)
            total += responsibilities[k, i]
        for k in range(n_components):
            responsibilities[k, i] /= total
        log_likelihood += masses[i] * (largest + math.log(total))
    return log_likelihood


@compiled
def effective_counts(masses, responsibilities, counts):
    """Fill ``counts`` (K,) with sum_i mass_i r_k(x_i)."""
    for k in range(counts.size):
        counts[k] = 0.0
        for i in range(masses.size):
            counts[k] += masses[i] * responsibilities[k, i]


@compiled
def weighted_means(points, masses, responsibilities, counts, centres, means):
    """Fill ``means`` (K,) with sum_i mass_i r_k(x_i) x_i / count_k.

    The sums run over x_i - centre_k, with ``centres`` (K,) the current means: no digits are lost to
    an offset of the data.
    """
    for k in range(means.size):
        shift = 0.0
        for i in range(points.size):
            shift += masses[i] * responsibilities[k, i] * (points[i] - centres[k])
        means[k] = centres[k] + shift / counts[k]


@compiled
def centred_squares(points, masses, responsibilities, means, squares):
    """Fill ``squares`` (K,) with sum_i mass_i r_k(x_i) (x_i - mean_k)^2."""
    for k in range(means.size):
        squares[k] = 0.0
        for i in range(points.size):
            deviation = points[i] - means[k]
            squares[k] += masses[i] * responsibilities[k, i] * deviation * deviation


@compiled
def m_step(points, masses, responsibilities, counts, model, theta, theta_new):
    """Fill ``theta_new`` (3, K) with the maximiser of the expected log-likelihood in the model.

    Parameters
    ----------
    points, masses : float64, shape (n,)
    responsibilities : float64, shape (K, n)
        At ``theta``.
    counts : float64, shape (K,)
        Effective counts; each must be above 0.
    model : Model
    theta : float64, shape (3, K)
        The current parameters; their means serve as origins for the sums and do not otherwise
        influence the result.
    theta_new : float64, shape (3, K)
    """
    weights, means, scales = theta_new[0], theta_new[1], theta_new[2]
    total = counts.sum()

    for k in range(counts.size):
        weights[k] = counts[k] / total if model.weights == FREE else model.fixed_weights[k]

    weighted_means(points, masses, responsibilities, counts, theta[1], means)
    if model.means == SYMMETRIC:
        # t minimises sum_k (count_k / scale_k^2) ((-1)^k t - mean_k)^2; a shared scale cancels.
        precision_0, precision_1 = counts[0], counts[1]
        if model.scales == FIXED:
            precision_0 /= model.fixed_scales[0] ** 2
            precision_1 /= model.fixed_scales[1] ** 2
        numerator = precision_0 * means[0] - precision_1 * means[1]
        means[0] = numerator / (precision_0 + precision_1)
        means[1] = -means[0]

    if model.scales == FIXED:
        scales[:] = model.fixed_scales
        return
    squares = scales
    centred_squares(points, masses, responsibilities, means, squares)
    if model.scales == SHARED:
        scales[:] = math.sqrt(squares.sum() / total)
    else:
        for k in range(counts.size):
            scales[k] = math.sqrt(squares[k] / counts[k])
