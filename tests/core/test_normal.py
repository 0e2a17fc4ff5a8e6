"""The normal distribution function against mpmath."""

import mpmath
import numpy as np

from pipeline.core.compilation import compiled
from pipeline.core.normal import normal_tail
from pipeline.core.vector import LANES, load, store


@compiled
def tails(z, heights, out):
    """Fill both values of ``normal_tail`` for z (m * 8,)."""
    for i in range(0, z.size, LANES):
        height, tail = normal_tail(load(z, i))
        store(heights, i, height)
        store(out, i, tail)


def test_the_tail_against_mpmath():
    z = np.concatenate([np.linspace(0.0, 8.0, 800), np.geomspace(8.0, 37.0, 200)])
    heights, found = np.empty(1000), np.empty(1000)
    tails(z, heights, found)
    with mpmath.workdps(40):
        expected = [mpmath.erfc(mpmath.mpf(float(v)) / mpmath.sqrt(2)) / 2 for v in z]
        peaks = [mpmath.exp(-(mpmath.mpf(float(v)) ** 2) / 2) for v in z]
        factor = [float(tail / peak) for tail, peak in zip(expected, peaks, strict=True)]
    np.testing.assert_allclose(found / heights, factor, rtol=1e-15)
    # A rounding error of z^2 / 2, which grows with it, is one of the logarithm.
    np.testing.assert_allclose(found[:800], np.array(expected[:800], float), rtol=1e-14)
    np.testing.assert_allclose(found, np.array(expected, float), rtol=2e-13)


def test_at_zero_and_far_out():
    z = np.array([0.0, 1e3, 1e10, 1e200, np.inf, 38.0, 40.0, 0.0])
    heights, found = np.empty(8), np.empty(8)
    tails(z, heights, found)
    np.testing.assert_allclose(found[[0, 7]], 0.5, rtol=3e-16)
    np.testing.assert_array_equal(found[1:5], 0.0)
    np.testing.assert_array_equal(heights[1:5], 0.0)
