"""A large sample as a few hundred nodes with masses.

r_k(x), x r_k(x), x^2 r_k(x) and log p(x) are smooth on the scale of the smallest fitted scale. The
points of a bin that is narrow beside it are replaced by the Gauss rule of their own empirical
measure: positive masses with the same moments up to the seventh. EM on the nodes is a true EM, its
error falls like (width / scale)^8, and an iteration costs the same for any number of points.

The work is one pass over the points, which adds up the moments of narrow bins. They are additive:
chunks of points are added in a fixed order, whatever the threads, and neighbouring bins are joined
into wider ones without the points.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.evaluation import CHUNK, Mapping
from pipeline.core.mixture import mean_and_standard_deviation
from pipeline.core.quadrature import MOMENTS, NODES, gauss_rule
from pipeline.core.vector import LANES, load, select, splat, store

# The bins reach this many standard deviations to either side of the mean. By Chebyshev's inequality
# at most one point in 64 lies beyond; it stays a node of its own.
REACH = 8.0
# Neighbours are joined down to this many bins: a quarter of a standard deviation each.
FEWEST_BINS = 64
# More would not fit a core's cache.
MOST_BINS = 1 << 16
# Points that tell where the sample lies.
SOUNDING = 1 << 16
GOLDEN_RATIO = 0.6180339887498949


class Bins(NamedTuple):
    """A sample cut into bins of equal width.

    ``moments`` (bins, 8): sums of v^0 to v^7 over a bin's points, with v in [-1, 1] across the bin.
    ``outside`` (m,): the points beyond the bins, as they are.
    """

    centre: float
    width: float
    moments: NDArray[np.float64]
    outside: NDArray[np.float64]


@compiled
def _add_moments(points, centre, width, n_bins):
    """Return the moments (bins * 8,) of some points, and the points outside."""
    moments = np.zeros(n_bins * LANES)
    outside = np.empty(points.size)
    n_outside = 0
    # Lane i holds v^i = v^(bit 0) (v^2)^(bit 1) (v^4)^(bit 2).
    digits = np.zeros((3, LANES))
    for lane in range(LANES):
        for digit in range(3):
            digits[digit, lane] = (lane >> digit) & 1
    one = splat(1.0)
    has_one = load(digits[0], 0) == one
    has_two = load(digits[1], 0) == one
    has_four = load(digits[2], 0) == one
    inverse = 1.0 / width
    middle = 0.5 * n_bins
    for i in range(points.size):
        position = (points[i] - centre) * inverse + middle
        if not 0.0 <= position < n_bins:
            outside[n_outside] = points[i]
            n_outside += 1
            continue
        index = int(position)
        v = 2.0 * (position - index) - 1.0
        square = v * v
        powers = select(has_one, splat(v), one) * select(has_two, splat(square), one)
        powers = powers * select(has_four, splat(square * square), one)
        at = LANES * index
        store(moments, at, load(moments, at) + powers)
    return moments, outside[:n_outside].copy()


@compiled
def _sounding(points):
    """Return about the mean and standard deviation of a large sample."""
    sounding = np.empty(min(points.size, SOUNDING))
    for i in range(sounding.size):
        # Spread out without a period, which could meet one of the data's.
        sounding[i] = points[int(i * GOLDEN_RATIO % 1.0 * points.size)]
    return mean_and_standard_deviation(sounding, np.ones(sounding.size))


def bin_points(points: NDArray[np.float64], mapping: Mapping = map) -> Bins:
    """Cut a sample into narrow bins around its mean.

    Parameters
    ----------
    points : float64, shape (n,)
        Finite.
    mapping : callable
        ``map``, or a pool's, which shares the chunks out between threads.
    """
    n_bins = FEWEST_BINS
    while n_bins < min(points.size / 16, MOST_BINS):
        n_bins *= 2
    centre, scale = _sounding(points)
    width = 2.0 * REACH * scale / n_bins
    if not 0.0 < width < np.inf:
        return Bins(centre, width, np.zeros((0, MOMENTS)), points)

    def chunk(first: int) -> Bins:
        part = points[first : first + CHUNK]
        return Bins(centre, width, *_add_moments(part, centre, width, n_bins))

    moments, outside = np.zeros(n_bins * MOMENTS), []
    for part in mapping(chunk, range(0, points.size, CHUNK)):
        moments += part.moments
        outside.append(part.outside)
    return Bins(centre, width, moments.reshape(n_bins, MOMENTS), np.concatenate(outside))


@compiled
def _join(moments):
    """Return the moments of pairs of neighbouring bins, shape (bins / 2, 8)."""
    joined = np.zeros((moments.shape[0] // 2, MOMENTS))
    for j in range(moments.shape[0]):
        # v of the wide bin is (v + shift) / 2.
        shift = 1.0 if j % 2 else -1.0
        for k in range(MOMENTS):
            total, coefficient = 0.0, 1.0
            for i in range(k, -1, -1):
                total += coefficient * moments[j, i]
                coefficient *= shift * i / (k - i + 1)
            joined[j // 2, k] += total * 0.5**k
    return joined


def levels(bins: Bins) -> Iterator[Bins]:
    """Yield bins of half the width again and again, down to those given."""
    stack = [bins]
    while len(stack[-1].moments) > FEWEST_BINS:
        wide = stack[-1]
        stack.append(wide._replace(width=2.0 * wide.width, moments=_join(wide.moments)))
    while stack:
        yield stack.pop()


@compiled
def _rules(moments, centre, width):
    n_bins = moments.shape[0]
    nodes, masses = np.empty(n_bins * NODES), np.empty(n_bins * NODES)
    rule_nodes, rule_masses = np.empty(NODES), np.empty(NODES)
    size = 0
    for j in range(n_bins):
        if moments[j, 0] == 0.0:
            continue
        middle = centre + (j - 0.5 * n_bins + 0.5) * width
        for i in range(gauss_rule(moments[j], rule_nodes, rule_masses)):
            nodes[size] = middle + 0.5 * width * rule_nodes[i]
            masses[size] = rule_masses[i]
            size += 1
    return nodes[:size].copy(), masses[:size].copy()


def nodes_of(bins: Bins, origin: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the nodes, measured from ``origin``, and their masses, shape (m,) each."""
    nodes, masses = _rules(bins.moments, bins.centre - origin, bins.width)
    return (
        np.concatenate([nodes, bins.outside - origin]),
        np.concatenate([masses, np.ones(bins.outside.size)]),
    )
