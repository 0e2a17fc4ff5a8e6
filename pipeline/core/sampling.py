"""Samples drawn from a mixture."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.compilation import compiled
from pipeline.core.random import WORDS_PER_BLOCK, uniform, words

ALLOCATIONS = ("multinomial", "proportional")

# Wichura (1988), PPND16: coefficients of numerator and denominator, highest power first, for the
# centre, the shoulders and the tails.
CENTRE_NUMERATOR = (
    2.50908_09287_30122_6727e3,
    3.34305_75583_58812_8105e4,
    6.72657_70927_00870_0853e4,
    4.59219_53931_54987_1457e4,
    1.37316_93765_50946_1125e4,
    1.97159_09503_06551_4427e3,
    1.33141_66789_17843_7745e2,
    3.38713_28727_96366_6080e0,
)
CENTRE_DENOMINATOR = (
    5.22649_52788_52854_5610e3,
    2.87290_85735_72194_2674e4,
    3.93078_95800_09271_0610e4,
    2.12137_94301_58659_5867e4,
    5.39419_60214_24751_1077e3,
    6.87187_00749_20579_0830e2,
    4.23133_30701_60091_1252e1,
    1.0,
)
SHOULDER_NUMERATOR = (
    7.74545_01427_83414_07640e-4,
    2.27238_44989_26918_45833e-2,
    2.41780_72517_74506_11770e-1,
    1.27045_82524_52368_38258e0,
    3.64784_83247_63204_60504e0,
    5.76949_72214_60691_40550e0,
    4.63033_78461_56545_29590e0,
    1.42343_71107_49683_57734e0,
)
SHOULDER_DENOMINATOR = (
    1.05075_00716_44416_84324e-9,
    5.47593_80849_95344_94600e-4,
    1.51986_66563_61645_71966e-2,
    1.48103_97642_74800_74590e-1,
    6.89767_33498_51000_04550e-1,
    1.67638_48301_83803_84940e0,
    2.05319_16266_37758_82187e0,
    1.0,
)
TAIL_NUMERATOR = (
    2.01033_43992_92288_13265e-7,
    2.71155_55687_43487_57815e-5,
    1.24266_09473_88078_43860e-3,
    2.65321_89526_57612_30930e-2,
    2.96560_57182_85048_91230e-1,
    1.78482_65399_17291_33580e0,
    5.46378_49111_64114_36990e0,
    6.65790_46435_01103_77720e0,
)
TAIL_DENOMINATOR = (
    2.04426_31033_89939_78564e-15,
    1.42151_17583_16445_88870e-7,
    1.84631_83175_10054_68180e-5,
    7.86869_13114_56132_59100e-4,
    1.48753_61290_85061_48525e-2,
    1.36929_88092_27358_05310e-1,
    5.99832_20655_58879_37690e-1,
    1.0,
)


@compiled
def polynomial(coefficients, x):
    """Return the polynomial at x by Horner's rule, coefficients from the highest power down."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


@compiled
def inverse_normal(u):
    """Return the standard normal quantile of u in (0, 1), relative error about 1e-16.

    Wichura (1988), "Algorithm AS 241: The percentage points of the normal distribution", PPND16.
    """
    q = u - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * polynomial(CENTRE_NUMERATOR, r) / polynomial(CENTRE_DENOMINATOR, r)
    r = math.sqrt(-math.log(min(u, 1.0 - u)))
    if r <= 5.0:
        r -= 1.6
        z = polynomial(SHOULDER_NUMERATOR, r) / polynomial(SHOULDER_DENOMINATOR, r)
    else:
        r -= 5.0
        z = polynomial(TAIL_NUMERATOR, r) / polynomial(TAIL_DENOMINATOR, r)
    return math.copysign(z, q)


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
def _draw_multinomial(key, replicates, sample_size, cumulative, means, scales):
    out = np.empty((replicates.size, sample_size))
    for row in range(replicates.size):
        replicate = np.uint64(replicates[row])
        for first in range(0, sample_size, WORDS_PER_BLOCK // 2):
            block = words(
                key[0],
                key[1],
                np.uint64(first // (WORDS_PER_BLOCK // 2) + 1),
                np.uint64(0),
                replicate,
            )
            for j in range(min(WORDS_PER_BLOCK // 2, sample_size - first)):
                label_uniform = uniform(block[2 * j])
                k = 0
                while k < means.size - 1 and label_uniform >= cumulative[k]:
                    k += 1
                out[row, first + j] = means[k] + scales[k] * inverse_normal(
                    uniform(block[2 * j + 1])
                )
    return out


@compiled
def _draw_proportional(key, replicates, counts, means, scales):
    sample_size = counts.sum()
    ends = np.cumsum(counts)
    out = np.empty((replicates.size, sample_size))
    for row in range(replicates.size):
        replicate = np.uint64(replicates[row])
        k = 0
        for first in range(0, sample_size, WORDS_PER_BLOCK):
            block = words(
                key[0], key[1], np.uint64(first // WORDS_PER_BLOCK + 1), np.uint64(0), replicate
            )
            for j in range(min(WORDS_PER_BLOCK, sample_size - first)):
                while first + j >= ends[k]:
                    k += 1
                out[row, first + j] = means[k] + scales[k] * inverse_normal(uniform(block[j]))
    return out


def draw(
    key: NDArray[np.uint64],
    replicates: ArrayLike,
    sample_size: int,
    weights: ArrayLike,
    means: ArrayLike,
    scales: ArrayLike,
    allocation: str,
) -> NDArray[np.float64]:
    """Draw one sample per replicate from a normal mixture, shape (n_replicates, sample_size).

    Parameters
    ----------
    key : uint64, shape (2,)
        Philox key. A row depends on the key and its own replicate only.
    replicates : int64, shape (n_replicates,)
    sample_size : int
    weights, means, scales : float64, shape (K,)
    allocation : {"multinomial", "proportional"}
        Independent labels, or fixed counts (``proportional_counts``) with the points in the
        components' order.
    """
    key = np.asarray(key, np.uint64)
    replicates = np.asarray(replicates, np.int64)
    weights, means, scales = (np.asarray(part, np.float64) for part in (weights, means, scales))
    if allocation == "multinomial":
        # A last weight of 0 must stay impossible: a label past the end takes the last component.
        cumulative = np.cumsum(weights)
        cumulative[np.flatnonzero(weights)[-1] :] = 1.0
        return _draw_multinomial(key, replicates, sample_size, cumulative, means, scales)
    if allocation == "proportional":
        counts = proportional_counts(weights, sample_size)
        return _draw_proportional(key, replicates, counts, means, scales)
    raise ValueError(f"allocation: got {allocation!r}, must be one of {', '.join(ALLOCATIONS)}")
