"""Crossings of two mixture densities, and the distances that are closed forms between them.

See ``pipeline.core.distances``: D = F - G, E = int D.
"""

import math
from typing import NamedTuple

from pipeline.core.compilation import compiled
from pipeline.core.em import HALF_WIDTH
from pipeline.core.normal import normal_tail
from pipeline.core.vector import (
    LANES,
    Rows,
    absolute,
    bits,
    exp2,
    first_lane,
    fma,
    load,
    log2,
    maximum,
    select,
    splat,
    store,
)

# Nodes of a panel, two rows of eight, from left to right.
PANEL_NODES = 2 * LANES
INVERSE_ROOT = 1.0 / math.sqrt(2.0 * math.pi)
# Up to this part of the densities, their difference is rounding.
EQUAL = 2.0**-46
# A zero is found when what it can still change is below this (scale of the truth: 1).
FOUND = 1e-17
MOST_SECTIONS = 18
# How often the gap between two nodes is looked into for two crossings.
MOST_ZOOMS = 4
ALL_LANES = (1 << LANES) - 1


class Pair(NamedTuple):
    """The fitted and the true mixture in eight equal lanes, and room for one row of work.

    A mixture of K components is (5, K, 8): means, 1 / scales, log2(weight / scale) less an integer
    that none of them exceeds, weights, scales. ``peak`` is what densities are divided by for it.
    """

    fitted: Rows
    n_fitted: int
    true: Rows
    n_true: int
    work: Rows
    peak: float


@compiled
def density(x, n, constants, work):
    """Return a mixture's density over the peak, its log2, and its derivative at a row of points."""
    largest = splat(-math.inf)
    for k in range(0, n, LANES):
        w = (x - load(constants, k)) * load(constants, n + k) * splat(HALF_WIDTH)
        exponent = fma(-w, w, load(constants, 2 * n + k))
        store(work, k, exponent)
        largest = maximum(exponent, largest)
    total, slope = splat(0.0), splat(0.0)
    for k in range(0, n, LANES):
        ratio = exp2(load(work, k) - largest)
        inverse = load(constants, n + k)
        total = total + ratio
        slope = fma(ratio * (load(constants, k) - x) * inverse, inverse, slope)
    height = exp2(largest)
    return height * total, largest + log2(total), height * slope


@compiled
def excess(x, pair):
    """Return f - g and its derivative at a row of points, over the peak; 0 where it is rounding."""
    f, _, f_slope = density(x, pair.n_fitted, pair.fitted, pair.work)
    g, _, g_slope = density(x, pair.n_true, pair.true, pair.work)
    return significant(f, g), f_slope - g_slope


@compiled
def significant(f, g):
    """Return f - g, 0 where it is rounding."""
    difference = f - g
    equal = absolute(difference) <= splat(EQUAL) * (f + g)
    return select(equal, splat(0.0), difference)


@compiled
def _add_cumulative(x, n, constants, distribution, integral, sign):
    """Add ``sign`` times a mixture's distribution function and its integral to two rows."""
    for k in range(0, n, LANES):
        weight, scale = load(constants, 3 * n + k), load(constants, 4 * n + k)
        z = (x - load(constants, k)) * load(constants, n + k)
        height, tail = normal_tail(absolute(z))
        below = select(z < splat(0.0), tail, splat(1.0) - tail)
        distribution = fma(splat(sign) * weight, below, distribution)
        # int Phi = z Phi(z) + phi(z)
        inner = fma(height, splat(INVERSE_ROOT), z * below)
        integral = fma(splat(sign) * weight * scale, inner, integral)
    return distribution, integral


@compiled
def cumulative(x, pair):
    """Return D = F - G and its integral from the left at a row of points."""
    zero = splat(0.0)
    distribution, integral = _add_cumulative(x, pair.n_fitted, pair.fitted, zero, zero, 1.0)
    return _add_cumulative(x, pair.n_true, pair.true, distribution, integral, -1.0)


@compiled
def _fractions(low, high, place):
    """Return the eight points that cut an interval into nine; ``place`` is a row of work."""
    for lane in range(LANES):
        place[lane] = low + (high - low) * ((lane + 1.0) / (LANES + 1.0))
    return load(place, 0)


@compiled
def _zero(low, high, at_low, at_high, of_density, pair, place):
    """Return a zero of f - g, or of D, between points where it has opposite signs.

    Nine parts at a time, then by a line.
    """
    factor = pair.peak if of_density else 1.0
    sign = splat(1.0 if at_low > 0.0 else -1.0)
    for _ in range(MOST_SECTIONS):
        if (high - low) * factor * max(abs(at_low), abs(at_high)) <= FOUND:
            break
        x = _fractions(low, high, place)
        if of_density:
            values, _ = excess(x, pair)
        else:
            values, _ = cumulative(x, pair)
        beyond = bits(values * sign <= splat(0.0))
        lane = 0
        while lane < LANES and not (beyond >> lane) & 1:
            lane += 1
        store(place, LANES, values)
        if lane < LANES:
            high, at_high = place[lane], place[LANES + lane]
        if lane > 0:
            low, at_low = place[lane - 1], place[LANES + lane - 1]
    share = abs(at_low) / (abs(at_low) + abs(at_high))
    return low + (high - low) * share if share >= 0.0 else low


# The state of the scan from left to right: the last node at which f and g differ, f - g and its
# derivative there; the last crossing, D there; E at the last zero of D; the sums of both distances.
AT_X, AT_H, SLOPE, CROSSING, AT_D, AT_E, VARIATION, WASSERSTEIN = range(8)


@compiled
def _opposite(a, b):
    """Return whether one is above and the other below 0 (a product could vanish)."""
    return a < 0.0 < b or b < 0.0 < a


@compiled
def _pass_crossing(low, high, at_low, at_high, pair, state, place):
    """Go on from the last crossing to the one between two points."""
    crossing = _zero(low, high, at_low, at_high, True, pair, place)
    d_row, _ = cumulative(splat(crossing), pair)
    d, before = first_lane(d_row), state[AT_D]
    state[VARIATION] += abs(d - before)
    if d == 0.0 or _opposite(d, before):
        # Between components far apart D is 0, to the last bit or not, over a long way.
        zero = crossing
        if d != 0.0:
            zero = _zero(state[CROSSING], crossing, before, d, False, pair, place)
        _, e_row = cumulative(splat(zero), pair)
        e = first_lane(e_row)
        state[WASSERSTEIN] += abs(e - state[AT_E])
        state[AT_E] = e
    state[CROSSING], state[AT_D] = crossing, d


@compiled
def _zoom(low, high, at_low, at_high, pair, state, place):
    """Look for two crossings between two nodes of one sign, where f - g comes near to 0."""
    first, last = low, high
    sign = splat(1.0 if at_low > 0.0 else -1.0)
    for _ in range(MOST_ZOOMS):
        x = _fractions(first, last, place)
        values, slopes = excess(x, pair)
        beyond = bits(values * sign < splat(0.0))
        if beyond:
            lane = 0
            while not (beyond >> lane) & 1:
                lane += 1
            middle = place[lane]
            store(place, LANES, values)
            at_middle = place[LANES + lane]
            _pass_crossing(low, middle, at_low, at_middle, pair, state, place)
            _pass_crossing(middle, high, at_middle, at_high, pair, state, place)
            return
        # The gap where it turns from falling to rising.
        rising = bits(slopes * sign >= splat(0.0))
        lane = 0
        while lane < LANES and not (rising >> lane) & 1:
            lane += 1
        step = (last - first) / (LANES + 1.0)
        first, last = first + lane * step, first + (lane + 1) * step


@compiled
def scan(nodes, pair, state, place):
    """Go through a panel's nodes: their places, f - g, its derivative, ``nodes`` (3, 16)."""
    for i in range(PANEL_NODES):
        x, h, slope = nodes[i], nodes[PANEL_NODES + i], nodes[2 * PANEL_NODES + i]
        if h == 0.0:
            continue
        before, at_before = state[AT_X], state[AT_H]
        falls = _opposite(at_before, state[SLOPE])
        if _opposite(at_before, h):
            _pass_crossing(before, x, at_before, h, pair, state, place)
        elif falls and not _opposite(h, slope):
            _zoom(before, x, at_before, h, pair, state, place)
        state[AT_X], state[AT_H], state[SLOPE] = x, h, slope


@compiled
def is_plain(nodes, state):
    """Return whether f and g do not come near to each other at a panel's nodes, nor before them."""
    sign = splat(1.0 if state[AT_H] > 0.0 else -1.0)
    falling = 1 if _opposite(state[AT_H], state[SLOPE]) else 0
    same = ALL_LANES
    for row in range(2):
        h = load(nodes, PANEL_NODES + LANES * row)
        slope = load(nodes, 2 * PANEL_NODES + LANES * row)
        same &= bits(h * sign > splat(0.0))
        falling |= bits(slope * sign < splat(0.0)) << (1 + LANES * row)
    turns = falling & ~(falling >> 1) & ((1 << PANEL_NODES) - 1)
    return state[AT_H] != 0.0 and same == ALL_LANES and turns == 0
