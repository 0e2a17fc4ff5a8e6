"""Which fits of two positions are compared, and what either side of a replicate is.

All positions see the same data, so a pair is compared replicate by replicate. Algorithms and
stopping rules begin at the same points too, and are compared start by start: what one side has no
value of is left out of both. The starts of different inits have nothing in common but the data, so
each side is the mean over its own ones, and who is earlier is asked of all pairs of starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.replicates import Layout, layout_of, means_of_starts

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]
Places = tuple[Integers, Integers, Integers]  # pair, and places of its two sides


class Pair(NamedTuple):
    """Two positions that differ in one factor alone, and what the table says of them."""

    a: int
    b: int
    same_starts: bool
    labels: dict[str, Any]


class Sides(NamedTuple):
    """Of common replicates (N,): the value of either side, and the number of fits in the two."""

    a: Reals
    b: Reals
    n_fits: Integers


class Totals(NamedTuple):
    """Of pairs (P,): the replicates that either side has, and the fits of both sides."""

    replicates: Integers
    fits: Integers


@dataclass(frozen=True)
class OwnStarts:
    """The N replicates that both sides of a pair have, pair after pair.

    ``a`` and ``b`` (N,) are places among all replicates, whose fits stand as in ``of_fits``;
    ``layout`` has the N for fits, each its own replicate, of as many of the P pairs as have any.
    """

    a: Integers
    b: Integers
    of_fits: Layout
    layout: Layout

    def means(self, values: Reals) -> Sides:
        """Return the means of values of fits (F,) over each side's starts that have one."""
        means = means_of_starts(values, self.of_fits)
        number = _number(~np.isnan(values), self.of_fits)
        return Sides(means[self.a], means[self.b], number[self.a] + number[self.b])

    def earlier(self, times: Reals) -> Sides:
        """Return the shares of all pairs of starts in which this side is earlier.

        Notes
        -----
        Times are whole numbers, and infinity for never. Mann and Whitney's count in each
        replicate: one sort by (replicate, time), in which the times of b, moved to a's replicate,
        find how many of a are below them, and how many are not above.
        """
        if len(self.of_fits.first_fit) == len(times):  # one start each, nothing to sort
            return _shares(times[self.a], times[self.b], self.layout)
        known = ~np.isnan(times)
        number = _number(known, self.of_fits)
        end = np.cumsum(number)
        finite = np.isfinite(times)
        never = np.int64(np.max(times, initial=0.0, where=finite)) + 1
        time = np.where(finite, times, never)[known].astype(np.int64)
        keys = np.sort(self.of_fits.replicate[known] * (never + 1) + time)
        n_a, n_b = number[self.a], number[self.b]
        asked = _ranges(end[self.b] - n_b, n_b)
        moved = keys[asked] + np.repeat((self.a - self.b) * (never + 1), n_b)
        first_a, end_asked = end[self.a] - n_a, np.cumsum(n_b)
        before, until = (
            np.append(0, np.cumsum(np.searchsorted(keys, moved, side) - np.repeat(first_a, n_b)))
            for side in ("left", "right")
        )
        pairs = n_a * n_b
        of = np.where(pairs > 0, pairs, np.nan)
        earlier_a = before[end_asked] - before[end_asked - n_b]
        earlier_b = pairs - (until[end_asked] - until[end_asked - n_b])
        return Sides(earlier_a / of, earlier_b / of, n_a + n_b)


@dataclass(frozen=True)
class SameStarts:
    """The starts that both sides of a pair have, pair after pair.

    ``a`` and ``b`` (M,) are places among all fits; ``layout`` has the M starts for fits, of N
    replicates, of as many of the P pairs as have any. ``own`` has the same N replicates, and
    ``whole`` (N,) tells whether neither side has any other start there.
    """

    a: Integers
    b: Integers
    layout: Layout
    own: OwnStarts
    whole: NDArray[np.bool_]

    def means(self, values: Reals) -> Sides:
        """Return the means of values of fits (F,) over the starts of which neither is missing."""
        sides = self.own.means(values)
        # Where nothing is missing each side's own starts are the shared ones.
        first, size = self.layout.first_fit, _sizes(self.layout, len(self.a))
        ragged = np.flatnonzero(~(self.whole & (sides.n_fits == 2 * size)))
        rows = _ranges(first[ragged], size[ragged])
        layout = layout_of(np.zeros(len(rows), np.int64), np.repeat(ragged, size[ragged]))
        a, b = values[self.a[rows]], values[self.b[rows]]
        missing = np.isnan(a) | np.isnan(b)
        a[missing] = b[missing] = np.nan
        sides.a[ragged] = means_of_starts(a, layout)
        sides.b[ragged] = means_of_starts(b, layout)
        sides.n_fits[ragged] = 2 * _number(~missing, layout)
        return sides

    def earlier(self, times: Reals) -> Sides:
        """Return the shares of starts that are earlier on this side; never is infinity."""
        return _shares(times[self.a], times[self.b], self.layout)


def _shares(a: Reals, b: Reals, layout: Layout) -> Sides:
    """Return the shares of matched times, both (M,), that are earlier on this side."""
    known = _number(~(np.isnan(a) | np.isnan(b)), layout)
    of = np.where(known > 0, known, np.nan)
    return Sides(_number(a < b, layout) / of, _number(b < a, layout) / of, 2 * known)


def _sizes(layout: Layout, n_fits: int) -> Integers:
    """Return the number of fits of every replicate (G,)."""
    return np.diff(layout.first_fit, append=n_fits)


def _ranges(first: Integers, size: Integers) -> Integers:
    """Return first, first + 1, ... of every range, one after the other."""
    return np.arange(size.sum()) + np.repeat(first - (np.cumsum(size) - size), size)


def _number(flags: NDArray[np.bool_], layout: Layout) -> Integers:
    """Return how many fits of every replicate (G,) have their flag set."""
    if len(layout.first_fit) == len(flags):
        return flags.astype(np.int64)
    return np.add.reduceat(flags.astype(np.int64), layout.first_fit)


def match(
    layout: Layout, start: Integers, pairs: Sequence[Pair]
) -> tuple[SameStarts, OwnStarts, Totals]:
    """Find what the sides of pairs have in common.

    Parameters
    ----------
    layout : Layout
        Of all F fits, by position and replicate.
    start : shape (F,)
        Sorted within each replicate.
    pairs : sequence of Pair

    Returns
    -------
    SameStarts, OwnStarts
        Of the pairs with `same_starts`, and of the others; their layouts' positions are places in
        `pairs`.
    Totals
    """
    size = _sizes(layout, len(start))
    first_fit = np.append(layout.first_fit, len(start))
    end_replicate = np.append(layout.first_replicate[1:], len(layout.number))
    spans = zip(layout.first_replicate.tolist(), end_replicate.tolist(), strict=True)
    span = dict(zip(layout.position.tolist(), spans, strict=True))
    # A start's name in its position: replicate and number.
    name = layout.number[layout.replicate] * (start.max(initial=0) + 1) + start
    starts: list[Places] = []
    replicates: list[Places] = []
    union, fits = [], []
    for index, pair in enumerate(pairs):
        (first_a, end_a), (first_b, end_b) = (span.get(one, (0, 0)) for one in (pair.a, pair.b))
        fits_a, fits_b = first_fit[[first_a, end_a]], first_fit[[first_b, end_b]]
        in_a, in_b = _common(layout.number[first_a:end_a], layout.number[first_b:end_b])
        union.append(end_a - first_a + end_b - first_b - len(in_a))
        fits.append(int(np.diff(fits_a)[0] + np.diff(fits_b)[0]))
        if pair.same_starts:
            in_a, in_b = _common(name[slice(*fits_a)], name[slice(*fits_b)])
            starts.append((np.full(len(in_a), index), fits_a[0] + in_a, fits_b[0] + in_b))
        else:
            replicates.append((np.full(len(in_a), index), first_a + in_a, first_b + in_b))
    pair_of, a, b = _joined(replicates)
    own = OwnStarts(a, b, layout, layout_of(pair_of, a))
    pair_of, a, b = _joined(starts)
    shared = layout_of(pair_of, layout.replicate[a])
    in_a, in_b = layout.replicate[a[shared.first_fit]], layout.replicate[b[shared.first_fit]]
    common = _sizes(shared, len(a))
    whole = (size[in_a] == common) & (size[in_b] == common)
    same = SameStarts(a, b, shared, OwnStarts(in_a, in_b, layout, shared), whole)
    return same, own, Totals(np.array(union, np.int64), np.array(fits, np.int64))


def _joined(parts: list[Places]) -> Places:
    none = np.zeros(0, np.int64)
    pair, a, b = (np.concatenate(part) for part in zip((none, none, none), *parts, strict=True))
    return pair, a, b


def _common(of_a: Integers, of_b: Integers) -> tuple[Integers, Integers]:
    """Return where the names that two sorted lists share stand in either."""
    if np.array_equal(of_a, of_b):
        return np.arange(len(of_a)), np.arange(len(of_a))
    _, in_a, in_b = np.intersect1d(of_a, of_b, assume_unique=True, return_indices=True)
    return in_a, in_b
