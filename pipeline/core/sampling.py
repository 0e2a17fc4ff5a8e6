"""Samples drawn from a mixture."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.compilation import compiled
from pipeline.core.random import WORDS_PER_BLOCK, lane_uniforms, words
from pipeline.core.vector import (
    LANES,
    bits,
    fma,
    load,
    log2,
    polynomial,
    root,
    select,
    splat,
    store,
)

ALLOCATIONS = ("multinomial", "proportional")

# The normal quantile over x = 2 u - 1, for l = log2(1 - x^2): a polynomial in l + 4 on [-8, 0] and
# one in sqrt(-l) - 5 on [2.8125, 7.1875] (l > -52), through their Chebyshev nodes, relative errors
# 1.2e-16 and 0.7e-16, highest power first.
TAIL = -8.0
_centre = polynomial(
    -1.5351641173475757e-23,
    6.037071027819576e-23,
    3.49085593151113e-21,
    5.323371301617344e-21,
    -3.7331539910502125e-19,
    -2.946982855456971e-18,
    1.562126761119088e-17,
    4.209098722698947e-16,
    1.858697616387893e-15,
    -2.838119969656097e-14,
    -4.3427151984049647e-13,
    -6.65301550012397e-13,
    4.059689572700536e-11,
    4.195705632868497e-10,
    -7.443706510236662e-10,
    -5.232683374167859e-08,
    -3.909484947591409e-07,
    2.2240962015541574e-06,
    6.789359971532948e-05,
    0.00048026524020768047,
    -0.0034691469974189692,
    -0.23928215611149856,
    2.217919810404922,
)
_tail = polynomial(
    1.9602305532405755e-17,
    -6.127461118114376e-17,
    -5.802352696054327e-16,
    2.2943376350523162e-15,
    4.407061158109369e-15,
    -2.4190431949138875e-14,
    4.851525818355017e-16,
    -3.597240772376465e-14,
    6.247996928347423e-13,
    -8.437002058942004e-14,
    -1.0946824746028225e-11,
    4.542222187327127e-11,
    -7.284091041203226e-11,
    -1.6616699340398177e-10,
    1.5572110102712265e-09,
    -5.4623884837519155e-09,
    9.6973527827316e-09,
    6.105284612535129e-09,
    -1.1101881670106334e-07,
    4.5813022814911784e-07,
    -1.2879488726609002e-06,
    2.904500207752126e-06,
    -5.9829540402161606e-06,
    1.396055217188651e-05,
    -4.400726876346768e-05,
    0.00016513914006683375,
    -0.0005607873914502001,
    0.0008645466059518176,
    1.1889951213431367,
    5.662697700562169,
)

# Points drawn at a time: their words stay in the nearest cache.
CHUNK = 512


@compiled
def inverse_normal(u):
    """Return the standard normal quantile of eight uniforms, relative error below 4e-16.

    Giles (2010), "Approximating the erfinv function", GPU Computing Gems: over x = 2 u - 1, the
    quantile is a smooth function of log(1 - x^2), with few points in the tail of it (here 1 in
    512). The tail ends at the least and the largest ``uniform``, 2^-53 from 0 and 1.
    """
    logarithm = log2(splat(4.0) * u * (splat(1.0) - u))
    ratio = _centre(logarithm + splat(4.0))
    in_tail = logarithm < splat(TAIL)
    if bits(in_tail) != 0:
        ratio = select(in_tail, _tail(root(-logarithm) - splat(5.0)), ratio)
    return ratio * (u + u - splat(1.0))


def proportional_counts(weights: ArrayLike, sample_size: int) -> NDArray[np.int64]:
    """Return how many of ``sample_size`` points each component gets, shape (K,).

    Largest remainder: the whole parts of sample_size * weight, and one point more for the largest
    fractions until the sum is right; equal fractions go to the lowest index.
    """
    quotas = sample_size * np.asarray(weights, np.float64)
    # A quota that is whole but for rounding (100 * 0.29) must not lose a point to it.
    quotas = np.where(np.abs(quotas - np.rint(quotas)) < 1e-9, np.rint(quotas), quotas)
    counts = np.floor(quotas).astype(np.int64)
    order = np.argsort(counts - quotas, kind="stable")
    counts[order[: sample_size - counts.sum()]] += 1
    return counts


@compiled
def _fill_words(key, replicate, first, labels, normals, count, labelled):
    """Write the words of ``count`` points, and of the rest of a block, from ``first`` on.

    ``first`` is a multiple of eight. Labelled points have words of their own for their labels.
    """
    points_per_block = WORDS_PER_BLOCK // 2 if labelled else WORDS_PER_BLOCK
    for i in range(0, count, points_per_block):
        block = np.uint64((first + i) // points_per_block + 1)
        a, b, c, d = words(key[0], key[1], block, np.uint64(0), replicate)
        if labelled:
            labels[i], normals[i], labels[i + 1], normals[i + 1] = a, b, c, d
        else:
            normals[i], normals[i + 1], normals[i + 2], normals[i + 3] = a, b, c, d


@compiled
def _draw(key, replicates, first, labelled, ends, means, scales, out):
    """Fill ``out`` (R, m) with the points from ``first`` on of the replicates' samples.

    Component k ends where a point's label reaches ``ends[k]``; the label is a uniform number of
    its own (``labelled``) or its position.
    """
    labels, normals = np.empty(CHUNK, np.uint64), np.empty(CHUNK, np.uint64)
    values = np.empty(CHUNK)
    positions = np.arange(float(LANES))
    stop = first + out.shape[1]
    for row in range(replicates.size):
        # From a whole vector on: what comes before ``first`` is drawn and dropped.
        for begin in range(first - first % LANES, stop, CHUNK):
            count = min(CHUNK, stop - begin)
            _fill_words(key, np.uint64(replicates[row]), begin, labels, normals, count, labelled)
            for i in range(0, count, LANES):
                if labelled:
                    label = lane_uniforms(load(labels, i))
                else:
                    label = splat(float(begin + i)) + load(positions, 0)
                mean, scale = splat(means[0]), splat(scales[0])
                for k in range(1, means.size):
                    past = label >= splat(ends[k - 1])
                    mean = select(past, splat(means[k]), mean)
                    scale = select(past, splat(scales[k]), scale)
                z = inverse_normal(lane_uniforms(load(normals, i)))
                store(values, i, fma(scale, z, mean))
            for i in range(max(first - begin, 0), count):
                out[row, begin - first + i] = values[i]


def draw(
    key: NDArray[np.uint64],
    replicates: ArrayLike,
    sample_size: int,
    weights: ArrayLike,
    means: ArrayLike,
    scales: ArrayLike,
    allocation: str,
    positions: range | None = None,
    out: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Draw one sample per replicate from a normal mixture, shape (n_replicates, sample_size).

    Parameters
    ----------
    key : uint64, shape (2,)
        Philox key. A point depends on the key, its replicate and its position only.
    replicates : int64, shape (n_replicates,)
    sample_size : int
    weights, means, scales : float64, shape (K,)
    allocation : {"multinomial", "proportional"}
        Independent labels, or fixed counts (``proportional_counts``) with the points in the
        components' order.
    positions : range, optional
        Draw only these neighbouring points of each sample.
    out : float64, shape (n_replicates, len(positions)), optional
        Where to write the result, which is returned.
    """
    key = np.asarray(key, np.uint64)
    replicates = np.asarray(replicates, np.int64)
    weights, means, scales = (np.asarray(part, np.float64) for part in (weights, means, scales))
    if allocation == "multinomial":
        # A last weight of 0 must stay impossible: a label past the end takes the last component.
        ends = np.cumsum(weights)
        ends[np.flatnonzero(weights)[-1] :] = 1.0
    elif allocation == "proportional":
        ends = np.cumsum(proportional_counts(weights, sample_size)).astype(np.float64)
    else:
        raise ValueError(f"allocation: got {allocation!r}, must be one of {', '.join(ALLOCATIONS)}")
    positions = range(sample_size) if positions is None else positions
    if positions.step != 1 or not 0 <= positions.start <= positions.stop <= sample_size:
        raise ValueError(f"positions: got {positions}, must be neighbours within {sample_size}")
    shape = (replicates.size, len(positions))
    out = np.empty(shape) if out is None else np.asarray(out)
    if out.shape != shape:
        raise ValueError(f"out: got shape {out.shape}, needs {shape}")
    labelled = allocation == "multinomial"
    _draw(key, replicates, positions.start, labelled, ends, means, scales, out)
    return out
