"""Criteria of model choice: AIC, BIC and ICL of a fit; smaller is better for all three.

Akaike (1974), "A new look at the statistical model identification"; Schwarz (1978), "Estimating the
dimension of a model"; Biernacki, Celeux & Govaert (2000), "Assessing a mixture model for clustering
with the integrated completed likelihood".
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.em import BLOCK, HALF_WIDTH, RUN
from pipeline.core.evaluation import CHUNK, Mapping
from pipeline.core.loop import LOG_2
from pipeline.core.mixture import Parameters
from pipeline.core.model import FREE, SHARED, SYMMETRIC, Model
from pipeline.core.vector import (
    LANES,
    exp2,
    first_lane,
    fma,
    hold,
    lane_sum,
    load,
    log2,
    maximum,
    rows,
    select,
    splat,
    store,
)


class Criteria(NamedTuple):
    """The criteria of F fits, each of shape (F,); not-a-number where one does not exist."""

    aic: NDArray[np.float64]
    bic: NDArray[np.float64]
    icl: NDArray[np.float64]


def free_parameters(model: Model) -> int:
    """Return the number d of parameters that EM estimates in a model."""
    weights = model.n_components - 1 if model.weights == FREE else 0
    means = 1 if model.means == SYMMETRIC else model.n_components
    scales = {FREE: model.n_components, SHARED: 1}.get(model.scales, 0)
    return weights + means + scales


def criteria(
    points: NDArray[np.float64] | None,
    parameters: Parameters,
    log_likelihoods: NDArray[np.float64],
    model: Model,
    mapping: Mapping = map,
) -> Criteria:
    """Return AIC = 2 d - 2 L, BIC = d log n - 2 L and ICL = BIC + 2 * entropy.

    Parameters
    ----------
    points : float64, shape (R, n), or None
        The samples; None for a population, which has no size and none of the criteria.
    parameters : Parameters, shape (F, K)
        The estimates, F / R of each sample, sample by sample.
    log_likelihoods : float64, shape (F,)
        L at the estimates, a total over the sample.
    """
    if points is None:
        missing = np.full(log_likelihoods.shape, np.nan)
        return Criteria(missing, missing, missing)
    d = free_parameters(model)
    bic = d * _natural_log(float(points.shape[1])) - 2.0 * log_likelihoods
    icl = bic + 2.0 * assignment_entropies(points, parameters, mapping)
    return Criteria(2.0 * d - 2.0 * log_likelihoods, bic, icl)


def assignment_entropies(
    points: NDArray[np.float64], parameters: Parameters, mapping: Mapping = map
) -> NDArray[np.float64]:
    """Return -sum_i sum_k r_ik log r_ik of the responsibilities r, shape (F,); at least 0.

    Arguments as for ``criteria``. Not-a-number where parameters are not those of a mixture.
    """
    n_samples, n = points.shape
    theta = np.stack(parameters, axis=1).reshape(n_samples, -1, 3, parameters.means.shape[1])
    if n <= CHUNK:
        return _entropies(np.ascontiguousarray(points), theta).ravel()
    total = np.zeros(theta.shape[:2])
    for sample in range(n_samples):

        def chunk(first: int, sample: int = sample) -> NDArray[np.float64]:
            part = np.ascontiguousarray(points[sample : sample + 1, first : first + CHUNK])
            return _entropies(part, theta[sample : sample + 1])[0]

        # In the order of the chunks, whichever is done first.
        for part in mapping(chunk, range(0, n, CHUNK)):
            total[sample] += part
    return total.ravel()


@compiled
def _natural_log(x):
    """Return log x, the same to the last bit on every machine."""
    return LOG_2 * first_lane(log2(splat(x)))


@compiled
def _set_constants(theta, constants):
    """Fill ``constants`` (3, K, 8): means, HALF_WIDTH / scale, log2(weight / scale).

    Returns whether the parameters (3, K) are those of a mixture.
    """
    n_components = theta.shape[1]
    n = LANES * n_components
    good = True
    for k in range(n_components):
        weight, mean, scale = theta[0, k], theta[1, k], theta[2, k]
        good &= 0.0 <= weight <= 1.0 and 0.0 < scale < math.inf and abs(mean) < math.inf
        # A component without weight takes part in nothing.
        height = splat(-math.inf)
        if weight > 0.0:
            height = log2(splat(weight / scale))
        store(constants, LANES * k, splat(mean))
        store(constants, n + LANES * k, splat(HALF_WIDTH / scale))
        store(constants, 2 * n + LANES * k, height)
    return good


@compiled
def _row(point, n, constants, work):
    """Return sum_k p_k, and sum_k p_k log2 p_k over it, with p_k the ratios to the largest."""
    largest = splat(-math.inf)
    for j in range(0, n, LANES):
        z = (point - load(constants, j)) * load(constants, n + j)
        exponent = fma(-z, z, load(constants, 2 * n + j))
        store(work, j, exponent)
        largest = maximum(exponent, largest)
    total, products = splat(0.0), splat(0.0)
    for j in range(0, n, LANES):
        difference = load(work, j) - largest
        power = exp2(difference)
        total = total + power
        products = products + select(power > splat(0.0), power * difference, splat(0.0))
    return total, products / total


@compiled
def _entropy(points, n_components, constants, work):
    """Return the entropy of all responsibilities, in bits.

    Of a point: log2(sum_k p_k) - sum_k p_k log2 p_k / sum_k p_k. Eight points at a time, and one
    logarithm for the product of ``RUN`` sums, each within [1, K].
    """
    n = LANES * n_components
    whole = points.size // LANES
    entropy = splat(0.0)
    for block in range(0, whole, BLOCK):
        of_block = splat(0.0)
        for begin in range(block, min(block + BLOCK, whole), RUN):
            product = splat(1.0)
            for i in range(begin, min(begin + RUN, whole)):
                total, mean = _row(load(points, LANES * i), n, constants, work)
                product = product * total
                of_block = of_block - mean
            of_block = of_block + log2(product)
        entropy = entropy + of_block
    rest = first_lane(lane_sum(entropy))
    for i in range(LANES * whole, points.size):
        total, mean = _row(splat(points[i]), n, constants, work)
        rest += first_lane(log2(total) - mean)
    return rest


@compiled
def _entropies(points, theta):
    """Return the entropies (R, S) of the fits ``theta`` (R, S, 3, K) to ``points`` (R, n)."""
    n_samples, n_starts, _, n_components = theta.shape
    width = LANES * n_components
    memory = np.empty(4 * width + LANES)
    constants, work = rows(memory, 0), rows(memory, 3 * width)
    out = np.empty((n_samples, n_starts))
    for sample in range(n_samples):
        for start in range(n_starts):
            if _set_constants(theta[sample, start], constants):
                bits = _entropy(points[sample], n_components, constants, work)
                out[sample, start] = max(LOG_2 * bits, 0.0)
            else:
                out[sample, start] = math.nan
    hold(memory)
    return out
