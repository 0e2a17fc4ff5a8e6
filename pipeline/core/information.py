r"""Standard errors of the estimates: the inverse of the observed information of the sample.

The observed information is the negative Hessian of the log-likelihood at the estimate. With z_k =
(x - mean_k) / scale_k, let the parameters move by

    dw_k = w_k a_k,   dmean_k = scale_k b_k,   dscale_k = scale_k c_k / sqrt(2).

The derivatives of f_k = w_k N(x; mean_k, scale_k^2) are then those of a product: f_k u(z_k) with
u(z) = (1, z, (z^2 - 1) / sqrt(2)), and f_k G(z_k) with the symmetric matrix

    G(z) = (0,  z,        (z^2 - 1) / sqrt(2)
                z^2 - 1,  (z^3 - 3 z) / sqrt(2)
                          (z^4 - 5 z^2 + 2) / 2).

As the log-likelihood is the sum of log(sum_k f_k), and r_k = f_k / sum_j f_j,

    I_ka,jb = sum r_k u_a(z_k) r_j u_b(z_j) - delta_kj sum r_k G_ab(z_k).

Louis (1982), "Finding the observed information matrix when using the EM algorithm", has the same
matrix as the complete-data information less the covariance of the complete-data score given the
data: add and subtract sum r_k u_a u_b in the blocks j = k.

Within a model the parameters move along few directions, all of them linear (weights that sum to
one, means at +t and -t, one scale), the columns of a matrix B in these coordinates. The covariance
of the estimates is B (B' I B)^-1 B' (McLachlan & Peel 2000, "Finite Mixture Models", section 2.15).
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.em import HALF_WIDTH
from pipeline.core.evaluation import CHUNK, Mapping
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
    splat,
    store,
)

ROOT_HALF = math.sqrt(0.5)
# Sums over a component's points: of r, and of r times z, z^2 - 1, z^3 - 3 z, z^4 - 5 z^2 + 2.
MOMENTS = 5
# Rows of points summed up before their sum is added to the total: rounding errors grow less.
BLOCK = 512
# A pivot below this part of the complete-data information is rounding: the information is singular.
# At a fixed point the part is at most 1 - the rate of EM.
SMALLEST_PIVOT = 2.0**-40


def standard_errors(
    points: NDArray[np.float64] | None,
    parameters: Parameters,
    model: Model,
    wanted: NDArray[np.bool_],
    mapping: Mapping = map,
) -> Parameters:
    """Return the standard errors of estimates, from the observed information.

    Parameters
    ----------
    points : float64, shape (R, n), or None
        The samples; None for a population, which has no sampling error.
    parameters : Parameters, shape (F, K)
        The estimates, F / R of each sample, sample by sample; members of the model.
    model : Model
    wanted : bool, shape (F,)
        Those that are estimates: finite, with scales above 0.
    mapping : callable
        ``map``, or a pool's, which shares the points of large samples out between threads.

    Returns
    -------
    Parameters, shape (F, K)
        In the units of the parameters. Not-a-number for what the model fixes, and for whole fits
        that are not wanted, or whose information is not positive definite or not finite.
    """
    errors = np.full((len(wanted), 3, model.n_components), np.nan)
    if points is not None:
        theta = np.ascontiguousarray(np.stack(parameters, axis=1))
        if points.shape[1] <= CHUNK:
            _fill(np.ascontiguousarray(points), theta, model, wanted, errors)
        else:
            for fit in np.flatnonzero(wanted):
                sample = points[fit * len(points) // len(wanted)]
                _solve(_sums_by_chunks(sample, theta[fit], mapping), theta[fit], model, errors[fit])
    return Parameters(errors[:, 0], errors[:, 1], errors[:, 2])


def _sums_by_chunks(
    points: NDArray[np.float64], theta: NDArray[np.float64], mapping: Mapping
) -> NDArray[np.float64]:
    def chunk(first: int) -> NDArray[np.float64]:
        return _sums(np.ascontiguousarray(points[first : first + CHUNK]), theta)

    # In the order of the chunks, whichever is done first.
    parts = iter(mapping(chunk, range(0, points.size, CHUNK)))
    return sum(parts, next(parts))


@compiled
def _add_row(point, mass, n_components, constants, work, sums):
    """Add eight points to the lanes' sums: lower triangle of the scores' products, moments."""
    n = LANES * n_components
    scores, powers = work, 3 * n
    largest = splat(-math.inf)
    for k in range(0, n, LANES):
        z = (point - load(constants, k)) * load(constants, n + k)
        exponent = fma(splat(-HALF_WIDTH * HALF_WIDTH) * z, z, load(constants, 2 * n + k))
        store(scores, n + k, z)
        store(work, powers + k, exponent)
        largest = maximum(exponent, largest)
    total = splat(0.0)
    for k in range(0, n, LANES):
        power = exp2(load(work, powers + k) - largest)
        store(work, powers + k, power)
        total = total + power
    share = mass / total
    moments = 3 * n_components * (3 * n + LANES) // 2
    for k in range(0, n, LANES):
        r, z = share * load(work, powers + k), load(scores, n + k)
        square = z * z
        first, second = r * z, r * (square - splat(1.0))
        store(scores, k, r)
        store(scores, n + k, first)
        store(scores, 2 * n + k, second * splat(ROOT_HALF))
        third = first * (square - splat(3.0))
        fourth = r * fma(square, square - splat(5.0), splat(2.0))
        at = moments + MOMENTS * k
        store(sums, at, load(sums, at) + r)
        store(sums, at + LANES, load(sums, at + LANES) + first)
        store(sums, at + 2 * LANES, load(sums, at + 2 * LANES) + second)
        store(sums, at + 3 * LANES, load(sums, at + 3 * LANES) + third)
        store(sums, at + 4 * LANES, load(sums, at + 4 * LANES) + fourth)
    at = 0
    for i in range(0, 3 * n, LANES):
        score = load(scores, i)
        for j in range(0, i + LANES, LANES):
            store(sums, at, fma(score, load(scores, j), load(sums, at)))
            at += LANES


@compiled
def _set_constants(theta, constants):
    """Fill ``constants`` (3, K, 8): means, 1 / scale, log2(weight / scale)."""
    n_components = theta.shape[1]
    n = LANES * n_components
    for k in range(n_components):
        # A component without weight takes part in nothing.
        height = splat(-math.inf)
        if theta[0, k] > 0.0:
            height = log2(splat(theta[0, k] / theta[2, k]))
        store(constants, LANES * k, splat(theta[1, k]))
        store(constants, n + LANES * k, splat(1.0 / theta[2, k]))
        store(constants, 2 * n + LANES * k, height)


@compiled
def _sums(points, theta):
    """Return the sums over a sample (n,) at parameters (3, K).

    First the lower triangle of sum r_k u_a r_j u_b, row by row, of size 3 K (3 K + 1) / 2, weights
    before means before scales; then the moments (K, 5).
    """
    n_components = theta.shape[1]
    n_sums = 3 * n_components * (3 * n_components + 1) // 2 + MOMENTS * n_components
    width = LANES * n_components
    memory = np.zeros(7 * width + LANES * n_sums + 2 * LANES)
    constants, work = rows(memory, 0), rows(memory, 3 * width)
    last, sums = rows(memory, 7 * width), rows(memory, 7 * width + LANES)
    out = np.zeros(n_sums)
    _set_constants(theta, constants)
    whole = points.size - points.size % LANES
    one = splat(1.0)
    for block in range(0, whole, LANES * BLOCK):
        for i in range(block, min(block + LANES * BLOCK, whole), LANES):
            _add_row(load(points, i), one, n_components, constants, work, sums)
        if block + LANES * BLOCK < whole:
            for i in range(n_sums):
                out[i] += first_lane(lane_sum(load(sums, LANES * i)))
                store(sums, LANES * i, splat(0.0))
    if whole < points.size:
        # Lanes that no points fill have mass 0, and a point that does no harm.
        for lane in range(LANES):
            last[lane] = points[min(whole + lane, points.size - 1)]
        point = load(last, 0)
        for lane in range(LANES):
            last[lane] = 1.0 if whole + lane < points.size else 0.0
        _add_row(point, load(last, 0), n_components, constants, work, sums)
    for i in range(n_sums):
        out[i] += first_lane(lane_sum(load(sums, LANES * i)))
    hold(memory)
    return out


@compiled
def _directions(theta, model):
    """Return B, shape (3 K, d): how the module's coordinates move along what the model leaves free.

    The largest weight makes up for the changes of the others: a small one would be lost in it.
    """
    n = model.n_components
    matrix = np.zeros((3 * n, 3 * n))
    d = 0
    if model.weights == FREE:
        last = theta[0].argmax()
        for k in range(n):
            if k != last:
                matrix[k, d] = 1.0
                matrix[last, d] = -theta[0, k] / theta[0, last]
                d += 1
    if model.means == SYMMETRIC:
        matrix[n, d] = 1.0
        matrix[n + 1, d] = -theta[2, 0] / theta[2, 1]
        d += 1
    else:
        for k in range(n):
            matrix[n + k, d] = 1.0
            d += 1
    if model.scales == FREE:
        for k in range(n):
            matrix[2 * n + k, d] = 1.0
            d += 1
    elif model.scales == SHARED:
        for k in range(n):
            matrix[2 * n + k, d] = 1.0
        d += 1
    return matrix[:, :d]


@compiled
def _information(sums, n_components):
    """Return the observed information (3 K, 3 K) in the module's coordinates from the sums."""
    size = 3 * n_components
    information = np.empty((size, size))
    at = 0
    for i in range(size):
        for j in range(i + 1):
            information[i, j] = information[j, i] = sums[at]
            at += 1
    for k in range(n_components):
        moments = sums[at + MOMENTS * k : at + MOMENTS * (k + 1)]
        weight, mean, scale = k, n_components + k, 2 * n_components + k
        information[mean, weight] -= moments[1]
        information[scale, weight] -= ROOT_HALF * moments[2]
        information[mean, mean] -= moments[2]
        information[scale, mean] -= ROOT_HALF * moments[3]
        information[scale, scale] -= 0.5 * moments[4]
        information[weight, mean] = information[mean, weight]
        information[weight, scale] = information[scale, weight]
        information[mean, scale] = information[scale, mean]
    return information


@compiled
def _reduced(information, counts, directions):
    """Return B' I B, and the diagonal of B' N B with N the counts: shapes (d, d) and (d,).

    N is the complete-data information at a fixed point.
    """
    size, d = directions.shape
    n_components = counts.size
    product, out, complete = np.zeros((size, d)), np.zeros((d, d)), np.zeros(d)
    for p in range(d):
        for j in range(size):
            along = directions[j, p]
            if along != 0.0:
                complete[p] += along * along * counts[j % n_components]
                for i in range(size):
                    product[i, p] += information[i, j] * along
    for p in range(d):
        for i in range(size):
            along = directions[i, p]
            if along != 0.0:
                for q in range(p + 1):
                    out[p, q] += along * product[i, q]
    return out, complete


@compiled
def _factorised(matrix, complete):
    """Turn the lower triangle of a symmetric matrix into its Cholesky factor.

    Returns whether it is positive definite beyond rounding.
    """
    d = complete.size
    for p in range(d):
        for q in range(p + 1):
            value = matrix[p, q]
            for i in range(q):
                value -= matrix[p, i] * matrix[q, i]
            if q < p:
                matrix[p, q] = value / matrix[q, q]
            elif SMALLEST_PIVOT * complete[p] < value < math.inf:
                matrix[p, p] = math.sqrt(value)
            else:
                return False
    return True


@compiled
def _solve(sums, theta, model, out):
    """Fill ``out`` (3, K) with the standard errors; leave it where there are none."""
    n_components = model.n_components
    counts = sums[sums.size - MOMENTS * n_components :: MOMENTS]
    directions = _directions(theta, model)
    factor, complete = _reduced(_information(sums, n_components), counts, directions)
    if not _factorised(factor, complete):
        return
    d = complete.size
    solution = np.empty(d)
    for i in range(3 * n_components):
        # The norm of the solution y of L y = B_i.
        square = 0.0
        for p in range(d):
            value = directions[i, p]
            for q in range(p):
                value -= factor[p, q] * solution[q]
            solution[p] = value / factor[p, p]
            square += solution[p] * solution[p]
        if square > 0.0:
            kind, k = i // n_components, i % n_components
            unit = theta[0, k] if kind == 0 else theta[2, k]
            out[kind, k] = math.sqrt(square) * (unit * ROOT_HALF if kind == 2 else unit)


@compiled
def _fill(points, theta, model, wanted, out):
    """Fill ``out`` (F, 3, K) where wanted."""
    n_starts = len(theta) // len(points)
    for fit in range(len(theta)):
        if wanted[fit]:
            _solve(_sums(points[fit // n_starts], theta[fit]), theta[fit], model, out[fit])
