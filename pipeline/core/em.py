"""Expectation-Maximization in eight lanes: the E-step's sums and the M-step.

Dempster, Laird & Rubin (1977), "Maximum likelihood from incomplete data via the EM algorithm". The
sample is a measure: points with masses (1 each for plain data). A lane is a fit of its own, or an
eighth of the points of one fit: the arithmetic is the same, and what differs is how points were
laid out and whether the lanes' sums are added up.

Arrays are rows of eight lanes: row i of ``x`` is ``x[8 i : 8 i + 8]``, component k of a parameter
``[8 k : 8 k + 8]``. ``theta`` holds weights, means and scales, (3, K, 8); ``sums`` holds, per
component, sum m r, sum m r d and sum m r d^2 with d = x - centre.
"""

import math
from typing import NamedTuple

from pipeline.core.compilation import compiled
from pipeline.core.model import FIXED, FREE, SHARED, SYMMETRIC
from pipeline.core.vector import (
    LANES,
    Rows,
    absolute,
    exp2,
    fma,
    lane_sum,
    load,
    log2,
    maximum,
    root,
    select,
    splat,
    store,
)

# exp(-((x - mean) / scale)^2 / 2) = 2^-(HALF_WIDTH (x - mean) / scale)^2
HALF_WIDTH = math.sqrt(0.5 / math.log(2.0))
LOG_2 = math.log(2.0)
# A product of this many numbers in [1, K] is finite up to K = 2^15: one logarithm for all of them.
RUN = 64
# Rows summed up before their sum is added to the total: rounding errors grow with the shorter one.
BLOCK = 1024


class Sample(NamedTuple):
    """The points in their lanes, ``rows`` rows of eight, and their masses.

    ``masses`` are read from row ``plain_rows`` on; the rows before have mass 1.
    """

    x: Rows
    masses: Rows
    rows: int
    plain_rows: int


@compiled
def set_constants(n_components, theta, constants):
    """Fill ``constants`` (2, K, 8): (HALF_WIDTH / scale)^2 and log2(weight / scale)."""
    n = LANES * n_components
    for j in range(0, n, LANES):
        weight, scale = load(theta, j), load(theta, 2 * n + j)
        inverse = splat(1.0) / scale
        factor = splat(HALF_WIDTH) * inverse
        # A scale of 0 has no density: the log-likelihood must say so.
        height = select(scale > splat(0.0), log2(weight * inverse), splat(math.nan))
        store(constants, j, factor * factor)
        store(constants, n + j, height)


@compiled
def _share_out(masses, row, largest, total, product, log_density):
    """Return the mass over the total, and what the row adds to the product or the log2-density."""
    if masses is None:
        return splat(1.0) / total, product * total, log_density + largest
    mass = load(masses, LANES * row)
    return mass / total, product, fma(mass, largest + log2(total), log_density)


@compiled
def _accumulate_two(x, masses, first, stop, theta, about, constants, sums):
    """Do the work of ``accumulate`` for two components, with one exponential a point."""
    one, zero = splat(1.0), splat(0.0)
    mean_0, mean_1 = load(theta, 2 * LANES), load(theta, 3 * LANES)
    rate_0, rate_1 = load(constants, 0), load(constants, LANES)
    height_0, height_1 = load(constants, 2 * LANES), load(constants, 3 * LANES)
    count_0, shift_0, square_0 = zero, zero, zero
    count_1, shift_1, square_1 = zero, zero, zero
    log_density = zero
    for begin in range(first, stop, RUN):
        product = one
        for i in range(begin, min(begin + RUN, stop)):
            point = load(x, LANES * i)
            d_0, d_1 = point - mean_0, point - mean_1
            dd_0, dd_1 = d_0 * d_0, d_1 * d_1
            exponent_0 = fma(-dd_0, rate_0, height_0)
            exponent_1 = fma(-dd_1, rate_1, height_1)
            ratio = exp2(-absolute(exponent_0 - exponent_1))
            total = one + ratio
            largest = maximum(exponent_0, exponent_1)
            larger, product, log_density = _share_out(
                masses, i, largest, total, product, log_density
            )
            smaller = ratio * larger
            first_is_larger = exponent_0 >= exponent_1
            r_0 = select(first_is_larger, larger, smaller)
            r_1 = select(first_is_larger, smaller, larger)
            if about is not None:
                d_0, d_1 = point - load(about, 2 * LANES), point - load(about, 3 * LANES)
                dd_0, dd_1 = d_0 * d_0, d_1 * d_1
            count_0, count_1 = count_0 + r_0, count_1 + r_1
            shift_0, shift_1 = fma(r_0, d_0, shift_0), fma(r_1, d_1, shift_1)
            square_0, square_1 = fma(r_0, dd_0, square_0), fma(r_1, dd_1, square_1)
        log_density = log_density + log2(product)
    if first > 0:
        count_0, count_1 = count_0 + load(sums, 0), count_1 + load(sums, LANES)
        shift_0, shift_1 = shift_0 + load(sums, 2 * LANES), shift_1 + load(sums, 3 * LANES)
        square_0, square_1 = square_0 + load(sums, 4 * LANES), square_1 + load(sums, 5 * LANES)
    store(sums, 0, count_0)
    store(sums, 1 * LANES, count_1)
    store(sums, 2 * LANES, shift_0)
    store(sums, 3 * LANES, shift_1)
    store(sums, 4 * LANES, square_0)
    store(sums, 5 * LANES, square_1)
    return log_density


@compiled
def _accumulate_any(
    x, masses, first, stop, n_components, theta, about, constants, sums, work,
):  # fmt: skip
    """Do the work of ``accumulate`` for any number of components."""
    n = LANES * n_components
    log_density = splat(0.0)
    for j in range(n, 4 * n, LANES):
        store(work, j, splat(0.0))
    for begin in range(first, stop, RUN):
        product = splat(1.0)
        for i in range(begin, min(begin + RUN, stop)):
            point = load(x, LANES * i)
            largest = splat(-math.inf)
            for j in range(0, n, LANES):
                d = point - load(theta, n + j)
                exponent = fma(-(d * d), load(constants, j), load(constants, n + j))
                store(work, j, exponent)
                largest = maximum(exponent, largest)
            total = splat(0.0)
            for j in range(0, n, LANES):
                power = exp2(load(work, j) - largest)
                store(work, j, power)
                total = total + power
            share, product, log_density = _share_out(
                masses, i, largest, total, product, log_density
            )
            for j in range(0, n, LANES):
                r = load(work, j) * share
                d = point - (load(theta, n + j) if about is None else load(about, n + j))
                store(work, n + j, load(work, n + j) + r)
                store(work, 2 * n + j, fma(r, d, load(work, 2 * n + j)))
                store(work, 3 * n + j, fma(r, d * d, load(work, 3 * n + j)))
        log_density = log_density + log2(product)
    for j in range(0, 3 * n, LANES):
        part = load(work, n + j)
        store(sums, j, part if first == 0 else part + load(sums, j))
    return log_density


@compiled
def _accumulate_block(
    x, masses, first, stop, n_components, theta, about, constants, sums, work,
):  # fmt: skip
    """Add the rows from ``first`` to ``stop`` to ``sums``; ``masses`` are None where all are 1."""
    if n_components == 2:
        return _accumulate_two(x, masses, first, stop, theta, about, constants, sums)
    return _accumulate_any(
        x, masses, first, stop, n_components, theta, about, constants, sums, work
    )


@compiled
def accumulate(sample, n_components, theta, about, constants, sums, work):
    """Fill ``sums`` and return the rows' summed log2-density.

    Log-sum-exp in powers of 2: the largest of a point's exponents is taken out before any power.

    Parameters
    ----------
    sample : Sample
    n_components : int
    theta, constants : rows, shapes (3 * K * 8,), (2 * K * 8,)
    about : rows, shape (3 * K * 8,), or None
        Whose means the sums are about; None: those of ``theta``.
    sums : rows, shape (3 * K * 8,)
    work : rows, shape (4 * K * 8,)
        Scratch.
    """
    plain, rows = sample.plain_rows, sample.rows
    log_density = splat(0.0)
    for first in range(0, plain, BLOCK):
        log_density = log_density + _accumulate_block(
            sample.x, None, first, min(first + BLOCK, plain), n_components, theta, about, constants,
            sums, work,
        )  # fmt: skip
    for first in range(plain, rows, BLOCK):
        log_density = log_density + _accumulate_block(
            sample.x, sample.masses, first, min(first + BLOCK, rows), n_components, theta, about,
            constants, sums, work,
        )  # fmt: skip
    return log_density


@compiled
def add_lanes(n_components, sums):
    """Replace the lanes of every sum by their total, in a fixed order."""
    for j in range(0, 3 * LANES * n_components, LANES):
        store(sums, j, lane_sum(load(sums, j)))


# Below this part of the mean square about the old centre, a variance is the difference of two
# nearly equal numbers: it is summed again, about the new mean.
CANCELLED = 0.125


@compiled
def m_step(model, total, sums, about, unit, floor, penalty, theta):
    """Fill ``theta`` with the maximiser of the expected log-likelihood in the model.

    If there is a penalty, of what it makes of it (Chen, Tan & Zhang 2008, "Inference for normal
    mixtures in mean and variance", Statistica Sinica 18): -a times the sum over k
    of u^2 / scale_k^2 + log(scale_k^2 / u^2), u the sample's standard deviation.

    Parameters
    ----------
    model : Model
        Its fixed values are rows, shape (K * 8,), in the lanes' units.
    total : float
        Total mass.
    sums, about : rows, shape (3 * K * 8,)
        From ``accumulate``; counts above 0.
    unit : vector
        The sample's standard deviation.
    floor : float or None
        No scale that is estimated is below this many units.
    penalty : float or None
        The factor a.
    theta : rows, shape (3 * K * 8,)

    Returns
    -------
    mask
        Lanes in which a variance lost digits: call again with sums about the new means.
    """
    n = LANES * model.n_components
    mass = splat(total)
    for k in range(model.n_components):
        j = LANES * k
        if model.weights == FREE:
            store(theta, j, load(sums, j) / mass)
        else:
            store(theta, j, load(model.fixed_weights, j))
        store(theta, n + j, load(about, n + j) + load(sums, n + j) / load(sums, j))
    if model.means == SYMMETRIC:
        # t minimises sum_k (count_k / scale_k^2) ((-1)^k t - mean_k)^2; a shared scale cancels.
        precision_0, precision_1 = load(sums, 0), load(sums, LANES)
        if model.scales == FIXED:
            scale_0, scale_1 = load(model.fixed_scales, 0), load(model.fixed_scales, LANES)
            precision_0 = precision_0 / (scale_0 * scale_0)
            precision_1 = precision_1 / (scale_1 * scale_1)
        mean_0, mean_1 = load(theta, n), load(theta, n + LANES)
        numerator = precision_0 * mean_0 - precision_1 * mean_1
        t = numerator / (precision_0 + precision_1)
        store(theta, n, t)
        store(theta, n + LANES, -t)

    cancelled = splat(1.0) < splat(0.0)
    all_squares, all_about_centres = splat(0.0), splat(0.0)
    for j in range(0, n, LANES):
        if model.scales == FIXED:
            store(theta, 2 * n + j, load(model.fixed_scales, j))
            continue
        count, shift, about_centre = load(sums, j), load(sums, n + j), load(sums, 2 * n + j)
        # sum m r (x - mean)^2 from the sums about the centre.
        delta = load(theta, n + j) - load(about, n + j)
        squares = about_centre - delta * (shift + shift - delta * count)
        squares = maximum(squares, splat(0.0))
        all_squares = all_squares + squares
        all_about_centres = all_about_centres + about_centre
        if model.scales == FREE:
            cancelled = cancelled | (squares < splat(CANCELLED) * about_centre)
            if penalty is not None:
                squares = fma(splat(2.0 * penalty), unit * unit, squares)
                count = count + splat(2.0 * penalty)
            # The reciprocal is there before the squares are.
            store(theta, 2 * n + j, root(squares * (splat(1.0) / count)))
    if model.scales == SHARED:
        cancelled = all_squares < splat(CANCELLED) * all_about_centres
        if penalty is not None:
            times = 2.0 * penalty * model.n_components
            all_squares = fma(splat(times), unit * unit, all_squares)
            mass = mass + splat(times)
        for j in range(0, n, LANES):
            store(theta, 2 * n + j, root(all_squares / mass))
    if floor is not None and model.scales != FIXED:
        for j in range(2 * n, 3 * n, LANES):
            store(theta, j, maximum(load(theta, j), splat(floor) * unit))
    return cancelled


@compiled
def log_penalty(model, unit, penalty, theta):
    """Return what a penalty adds to the log-likelihood (see ``m_step``); 0 for fixed scales."""
    n = LANES * model.n_components
    total = splat(0.0)
    if model.scales != FIXED:
        for j in range(2 * n, 3 * n, LANES):
            ratio = unit / load(theta, j)
            total = total + fma(ratio, ratio, splat(-2.0 * LOG_2) * log2(ratio))
    return splat(-penalty) * total


@compiled
def largest_change(n_components, theta, theta_before, unit):
    """Return each lane's largest change of a parameter, in units (1 for weights).

    Parameters
    ----------
    theta, theta_before : rows, shape (3 * K * 8,)
    unit : vector
        Of means and scales: the sample's standard deviation.
    """
    n = LANES * n_components
    of_weights, of_others = splat(0.0), splat(0.0)
    for j in range(0, n, LANES):
        change = absolute(load(theta, j) - load(theta_before, j))
        of_weights = maximum(of_weights, change)
        for i in range(n + j, 3 * n, n):
            change = absolute(load(theta, i) - load(theta_before, i))
            of_others = maximum(of_others, change)
    # No change is none in any unit, even where all points are equal and the unit is 0.
    of_others = select(of_others > splat(0.0), of_others / unit, of_others)
    return maximum(of_weights, of_others)
