r"""The rate of convergence of EM in theory: the spectral radius of its map's Jacobian.

Dempster, Laird & Rubin (1977), section 3: near a fixed point the error of EM is multiplied, in each
iteration, by the Jacobian of the map M, which is the matrix of the fractions of missing
information; Meng & Rubin (1991), "Using EM to obtain asymptotic variance-covariance matrices".

Coordinates. With z_k = (x - mean_k) / scale_k, let the parameters move by

    dw_k = w_k a_k,   dmean_k = scale_k b_k,   dscale_k = scale_k c_k / sqrt(2).

The score of log(w_k N(x; mean_k, scale_k^2)) is then u(z_k) = (1, z, (z^2 - 1) / sqrt(2)), the
orthonormal Hermite polynomials, and r_k changes by dr_k = r_k sum_j (delta_kj - r_j) (a_j, b_j,
c_j) . u(z_j). So the E-step's sums C_ka = sum m r_k u_a(z_k) change by the missing information

    T_ka,jb = sum m r_k (delta_kj - r_j) u_a(z_k) u_b(z_j)

times the change of the parameters. Only products r_k r_j with j != k are needed: 1 - r_k is their
sum, without cancellation.

The M-step. Let s_k = C_k1 / N_k be its change of a mean and q_k its ratio of variances, N_k the
counts, N their sum. In all models, the changes of the new parameters are made of

    e_0 = dC_0,   e_1 = dC_1 - s e_0,   e_2 = dC_2 - sqrt(2) s dC_1 + (1 - q + s^2) / sqrt(2) dC_0:

a' = e_0 / (N w), b' = e_1 / N_k, c' = e_2 / (N_k sqrt(q)) where all is free. A penalty of scales
takes part in q, and divides c' by 1 + 2 a / N_k (1 + 2 a K / N for a shared scale). In coordinates
multiplied by sqrt(N_k), the complete-data information is the identity at a fixed point, and the
Jacobian symmetric. Tied parameters are there a projection onto a unit vector v: (N_k / N)^(1/2) for
a shared scale, (-1)^k N_k^(1/2) / scale_k, normalised, for means +t and -t. What is fixed or equal
has rows of zeros, and is left out.

Constraints need no further care: whatever M maps to satisfies them, so that directions which do not
have eigenvalue 0 (weights that do not sum to 1, scales that are not equal).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.em import set_constants
from pipeline.core.lanes import POINTS_FOR_ALL_LANES, load_masses, load_points, load_theta, units
from pipeline.core.mixture import Parameters
from pipeline.core.model import FIXED, FREE, SHARED, SYMMETRIC, Model
from pipeline.core.spectral import spectral_radii
from pipeline.core.vector import (
    LANES,
    Rows,
    exp2,
    fma,
    hold,
    lane_sum,
    load,
    maximum,
    root,
    rows,
    splat,
    store,
)

ROOT_2 = math.sqrt(2.0)
ROOT_HALF = math.sqrt(0.5)
# Rows of points summed up before their sum is added to the total: rounding errors grow less.
PIECE_ROWS = POINTS_FOR_ALL_LANES


class Workspace(NamedTuple):
    """Rows of eight lanes for one fit in each lane, or one in all, with K components.

    ``theta`` (3, K), ``constants`` (2, K), ``inverse_scales`` (K,): see ``pipeline.core.em``. At a
    row of points: ``shares`` (K,), the responsibilities r_k; ``scores`` (3, K), u_a(z_k);
    ``others`` (K,), sum_j!=k m r_k r_j. ``sums`` and those ``of_piece`` (1 + 3 K, 3 K): first C,
    then T, by components its lower half.
    """

    theta: Rows
    constants: Rows
    inverse_scales: Rows
    shares: Rows
    scores: Rows
    others: Rows
    of_piece: Rows
    sums: Rows


@compiled
def _workspace(memory, n_components):
    """Return addresses in ``memory``, 11 K + 6 K (1 + 3 K) rows long, and one row more."""
    n = LANES * n_components
    sums = 3 * n * (1 + 3 * n_components)
    return Workspace(
        rows(memory, 0), rows(memory, 3 * n), rows(memory, 5 * n), rows(memory, 6 * n),
        rows(memory, 7 * n), rows(memory, 10 * n), rows(memory, 11 * n),
        rows(memory, 11 * n + sums),
    )  # fmt: skip


@compiled
def _set_shares(point, n_components, work):
    """Fill the responsibilities and the scores of a row of points."""
    n = LANES * n_components
    largest = splat(-math.inf)
    for k in range(0, n, LANES):
        d = point - load(work.theta, n + k)
        exponent = fma(-(d * d), load(work.constants, k), load(work.constants, n + k))
        largest = maximum(exponent, largest)
        z = d * load(work.inverse_scales, k)
        store(work.shares, k, exponent)
        store(work.scores, k, splat(1.0))
        store(work.scores, n + k, z)
        store(work.scores, 2 * n + k, fma(z, z, splat(-1.0)) * splat(ROOT_HALF))
    total = splat(0.0)
    for k in range(0, n, LANES):
        power = exp2(load(work.shares, k) - largest)
        store(work.shares, k, power)
        total = total + power
    share = splat(1.0) / total
    for k in range(0, n, LANES):
        store(work.shares, k, load(work.shares, k) * share)


@compiled
def _add_block(factor, scores, k, j, n, sums, first):
    """Add ``factor`` u_a(z_k) u_b(z_j) to the nine sums T_ka,jb."""
    rows_apart = 3 * (n // LANES) * n
    one, two = load(scores, n + j), load(scores, 2 * n + j)
    for a in range(3):
        part = factor * load(scores, a * n + k)
        at = first + a * rows_apart
        store(sums, at, load(sums, at) + part)
        store(sums, at + n, fma(part, one, load(sums, at + n)))
        store(sums, at + 2 * n, fma(part, two, load(sums, at + 2 * n)))


@compiled
def _add_row(mass, n_components, work, sums):
    """Add a row of points to the sums C and T."""
    n, width = LANES * n_components, 3 * n_components
    scores, others = work.scores, work.others
    for k in range(0, n, LANES):
        r = mass * load(work.shares, k)
        for a in range(3):
            at = a * n + k
            store(sums, at, fma(r, load(scores, at), load(sums, at)))
        together = splat(0.0)
        for j in range(0, k, LANES):
            product = r * load(work.shares, j)
            together = together + product
            store(others, j, load(others, j) + product)
            _add_block(-product, scores, k, j, n, sums, width * (LANES + k) + j)
        store(others, k, together)
    for k in range(0, n, LANES):
        _add_block(load(others, k), scores, k, k, n, sums, width * (LANES + k) + k)


@compiled
def _add_piece(x, masses, n_rows, n_components, work):
    """Add the rows of a piece of the sample to the sums."""
    size = 3 * LANES * n_components * (1 + 3 * n_components)
    for i in range(0, size, LANES):
        store(work.of_piece, i, splat(0.0))
    for i in range(0, LANES * n_rows, LANES):
        _set_shares(load(x, i), n_components, work)
        _add_row(load(masses, i), n_components, work, work.of_piece)
    for i in range(0, size, LANES):
        store(work.sums, i, load(work.sums, i) + load(work.of_piece, i))


@compiled
def _complete(n_components, all_lanes, sums):
    """Add up the lanes, where they are one fit, and fill the upper half of T."""
    n, width = LANES * n_components, 3 * n_components
    if all_lanes:
        for i in range(0, 3 * n * (1 + width), LANES):
            store(sums, i, lane_sum(load(sums, i)))
    for k in range(0, n, LANES):
        for j in range(0, k, LANES):
            for a in range(3):
                for b in range(3):
                    block = load(sums, width * (LANES + a * n + k) + b * n + j)
                    store(sums, width * (LANES + b * n + j) + a * n + k, block)


@compiled
def _pool(direction, n, columns, matrix, first_row):
    """Project the K rows of a matrix that belong to one kind of parameter onto a unit vector."""
    for column in range(0, LANES * columns, LANES):
        along = splat(0.0)
        for k in range(0, n, LANES):
            at = columns * (first_row + k) + column
            along = fma(load(direction, k), load(matrix, at), along)
        for k in range(0, n, LANES):
            store(matrix, columns * (first_row + k) + column, load(direction, k) * along)


@compiled
def _set_directions(model, mass, work, inverse_roots, of_means, of_scales):
    """Fill 1 / sqrt(N_k) and the unit vectors of tied means and scales, (K, 8) each."""
    n = LANES * model.n_components
    precision = splat(0.0)
    for k in range(0, n, LANES):
        count = load(work.sums, k)
        inverse = load(work.inverse_scales, k)
        store(inverse_roots, k, splat(1.0) / root(count))
        store(of_scales, k, root(count / splat(mass)))
        precision = precision + count * inverse * inverse
    sign = splat(1.0) / root(precision)
    for k in range(0, n, LANES):
        along = root(load(work.sums, k)) * load(work.inverse_scales, k)
        store(of_means, k, sign * along)
        sign = -sign


@compiled
def _set_changes(model, mass, unit, penalty, work, inverse_roots, of_means, shifts, ratios):
    """Fill what the M-step does to means and variances: s_k and q_k, (K, 8) each."""
    n, sums = LANES * model.n_components, work.sums
    for k in range(0, n, LANES):
        store(shifts, k, load(sums, n + k) * load(inverse_roots, k))
    if model.means == SYMMETRIC:
        _pool(of_means, n, 1, shifts, 0)
    pooled = splat(0.0)
    for k in range(0, n, LANES):
        count = load(sums, k)
        shift = load(shifts, k) * load(inverse_roots, k)
        store(shifts, k, shift)
        first, second = load(sums, n + k) / count, load(sums, 2 * n + k) / count
        ratio = splat(1.0) + splat(ROOT_2) * second - shift * (first + first - shift)
        if penalty is not None:
            inverse = load(work.inverse_scales, k)
            added = splat(2.0 * penalty) * (unit * inverse) * (unit * inverse)
            if model.scales == FREE:
                ratio = fma(count, ratio, added) / (count + splat(2.0 * penalty))
        store(ratios, k, ratio)
        pooled = fma(count / splat(mass), ratio, pooled)
    if model.scales == SHARED:
        if penalty is not None:
            times = splat(float(model.n_components))
            pooled = fma(splat(mass), pooled, times * added)
            pooled = pooled / (splat(mass) + times * splat(2.0 * penalty))
        for k in range(0, n, LANES):
            store(ratios, k, pooled)


@compiled
def _damped(model, mass, count, penalty):
    """Return the part of a variance's M-step that a penalty leaves to the points."""
    if model.scales == SHARED:
        return splat(mass / (mass + 2.0 * penalty * model.n_components))
    return count / (count + splat(2.0 * penalty))


@compiled
def _set_jacobian(model, mass, unit, penalty, work, jacobian):
    """Fill the Jacobian (d, d, 8) from the sums, in the module's coordinates times sqrt(N_k)."""
    n_components = model.n_components
    n, width = LANES * n_components, 3 * n_components
    first, stop = _kinds(model)
    columns = n_components * (stop - first)
    # What a row of points was added with is free again.
    inverse_roots, of_means, of_scales = work.shares, work.others, work.constants
    shifts, ratios = work.scores, work.of_piece
    _set_directions(model, mass, work, inverse_roots, of_means, of_scales)
    _set_changes(model, mass, unit, penalty, work, inverse_roots, of_means, shifts, ratios)
    for k in range(0, n, LANES):
        count, shift, ratio = load(work.sums, k), load(shifts, k), load(ratios, k)
        of_weight = count / (splat(mass) * load(work.theta, k))
        slope = splat(ROOT_2) * shift
        level = splat(ROOT_HALF) * (splat(1.0) - ratio + shift * shift)
        of_scale = splat(1.0) / root(ratio)
        if penalty is not None:
            of_scale = of_scale * _damped(model, mass, count, penalty)
        for b in range(first, stop):
            for j in range(0, n, LANES):
                unit = load(inverse_roots, k) * load(inverse_roots, j)
                row = width * (LANES + k) + b * n + j
                of_count = unit * load(work.sums, row)
                of_sum = unit * load(work.sums, row + width * n)
                of_square = unit * load(work.sums, row + 2 * width * n)
                at = columns * (k - first * n) + (b - first) * n + j
                if first == 0:
                    store(jacobian, at, of_weight * of_count)
                store(jacobian, at + columns * n, of_sum - shift * of_count)
                if stop == 3:
                    change = of_square - slope * of_sum + level * of_count
                    store(jacobian, at + 2 * columns * n, of_scale * change)
    if model.means == SYMMETRIC:
        _pool(of_means, n, columns, jacobian, (1 - first) * n)
    if model.scales == SHARED:
        _pool(of_scales, n, columns, jacobian, (2 - first) * n)


@compiled
def _kinds(model):
    """Return the first of weights, means, scales that is estimated, and the one after the last."""
    return 0 if model.weights == FREE else 1, 2 if model.scales == FIXED else 3


@compiled
def _set_constants(n_components, work):
    """Fill what the parameters are for every point."""
    set_constants(n_components, work.theta, work.constants)
    for k in range(0, LANES * n_components, LANES):
        scale = load(work.theta, 2 * LANES * n_components + k)
        store(work.inverse_scales, k, splat(1.0) / scale)


@compiled
def jacobians(points, masses, thetas, samples, model, penalty):
    """Return the Jacobians of the EM map at some parameters.

    Parameters
    ----------
    points : float64, shape (R, n)
    masses : float64, shape (n,)
    thetas : float64, shape (F, 3, K)
        Weights, means and scales; members of the model.
    samples : int64, shape (F,)
        The row of ``points`` that each belongs to.
    model : Model
    penalty : float or None
        See ``pipeline.core.em.m_step``.

    Returns
    -------
    float64, shape (F, d, d)
        Of what is estimated among weights, means and scales, in this order, K each, in coordinates
        sqrt(N_k) (dw_k / w_k, dmean_k / scale_k, sqrt(2) dscale_k / scale_k).
    """
    n, n_components = points.shape[1], model.n_components
    first_kind, stop_kind = _kinds(model)
    size = n_components * (stop_kind - first_kind)
    out = np.empty((len(thetas), size, size))
    all_lanes = n >= POINTS_FOR_ALL_LANES
    used = 1 if all_lanes else LANES
    piece = LANES * PIECE_ROWS if all_lanes else n
    n_sums = LANES * 3 * n_components * (1 + 3 * n_components)
    at_points = 11 * LANES * n_components + 2 * n_sums
    memory = np.zeros(at_points + 2 * LANES * PIECE_ROWS + LANES * size * size + LANES)
    work = _workspace(memory, n_components)
    x, lane_masses = rows(memory, at_points), rows(memory, at_points + LANES * PIECE_ROWS)
    jacobian = rows(memory, at_points + 2 * LANES * PIECE_ROWS)
    if not all_lanes:
        load_masses(masses, all_lanes, lane_masses)
    mass = masses.sum()

    offsets, exponents = np.zeros(LANES), np.zeros(LANES, np.int64)
    lane_units = np.zeros(LANES)
    for first_fit in range(0, len(thetas), used):
        stop_fit = min(first_fit + used, len(thetas))
        for fit in range(first_fit, stop_fit):
            lane = fit - first_fit
            unit, offsets[lane], exponents[lane] = units(points[samples[fit]], masses, model)
            where = -1 if all_lanes else lane
            for i in range(LANES) if all_lanes else range(lane, lane + 1):
                lane_units[i] = math.ldexp(unit, -exponents[lane])
            load_theta(thetas[fit], offsets[lane], exponents[lane], where, work.theta)
        _set_constants(n_components, work)
        for i in range(0, n_sums, LANES):
            store(work.sums, i, splat(0.0))
        for first in range(0, n, piece):
            stop = min(first + piece, n)
            for fit in range(first_fit, stop_fit):
                lane = fit - first_fit
                where = -1 if all_lanes else lane
                part = points[samples[fit], first:stop]
                load_points(part, offsets[lane], exponents[lane], where, x)
            n_rows = stop - first
            if all_lanes:
                n_rows = (n_rows + LANES - 1) // LANES
                # Lanes of a last row that no points fill have mass 0.
                store(lane_masses, LANES * (n_rows - 1), splat(0.0))
                load_masses(masses[first:stop], all_lanes, lane_masses)
            _add_piece(x, lane_masses, n_rows, n_components, work)
        _complete(n_components, all_lanes, work.sums)
        _set_jacobian(model, mass, load(lane_units, 0), penalty, work, jacobian)
        for fit in range(first_fit, stop_fit):
            for i in range(size):
                for j in range(size):
                    out[fit, i, j] = jacobian[LANES * (size * i + j) + fit - first_fit]
    hold(memory)
    return out


def rate_theory(
    points: NDArray[np.float64],
    masses: NDArray[np.float64],
    parameters: Parameters,
    model: Model,
    wanted: NDArray[np.bool_],
    penalty: float | None = None,
) -> NDArray[np.float64]:
    """Return the spectral radius of the Jacobian of the EM map at the estimates of some fits.

    Parameters
    ----------
    points : float64, shape (R, n)
        One sample per replicate.
    masses : float64, shape (n,)
        Of the points.
    parameters : Parameters, shape (F, K)
        Members of the model; fit r * F / R + s belongs to replicate r.
    model : Model
    wanted : bool, shape (F,)
    penalty : float or None
        Factor of a penalty of scales, see ``pipeline.core.em.m_step``.

    Returns
    -------
    float64, shape (F,)
        Not-a-number where not wanted or not finite.
    """
    rates = np.full(len(wanted), np.nan)
    chosen = np.flatnonzero(wanted)
    if chosen.size:
        thetas = np.stack([part[chosen] for part in parameters], axis=1)
        n_starts = len(wanted) // len(points)
        radii = spectral_radii(
            jacobians(points, masses, thetas, chosen // n_starts, model, penalty)
        )
        rates[chosen] = np.where(np.isfinite(radii), radii, np.nan)
    return rates
