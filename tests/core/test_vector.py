"""The vector type: lanes, IEEE arithmetic, and the accuracy of its exponential and logarithm."""

import math

import mpmath
import numba
import numpy as np
import pytest

from pipeline.core.vector import (
    LANES,
    absolute,
    bits,
    exp2,
    first_lane,
    fma,
    hold,
    lane_sum,
    load,
    log2,
    mask_of,
    maximum,
    root,
    rows,
    select,
    splat,
    store,
)

generator = np.random.default_rng(4)
A, B, C = generator.normal(size=(3, LANES))


@numba.njit(error_model="numpy")
def arithmetic(a, b, c, out):
    x, y, z = load(a, 0), load(b, 0), load(c, 0)
    results = (
        x + y,
        x - y,
        x * y,
        x / y,
        -x,
        fma(x, y, z),
        absolute(x),
        root(absolute(x)),
        maximum(x, y),
        select(x < y, x, z),
        splat(2.5),
        lane_sum(x),
        select(mask_of(bits(x < y)), x, z),
    )
    for i in range(len(results)):
        store(out, LANES * i, results[i])
    return (
        bits(x < y),
        bits(x <= y),
        bits(x > y),
        bits(x >= y),
        bits(x == y),
        bits(~(x < y)),
        bits((x < y) & (x < z)),
        bits((x < y) | (x < z)),
    )


@numba.njit(error_model="numpy")
def add(values):
    return first_lane(lane_sum(load(values, 0)))


def test_sum_of_the_lanes_adds_neighbours_first():
    a = A.tolist()
    assert add(A) == ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))


def as_bits(flags):
    return sum(1 << i for i, flag in enumerate(flags) if flag)


def test_operations_are_those_of_each_lane():
    out = np.empty(13 * LANES)
    masks = arithmetic(A, B, C, out)
    # A product of two doubles fits two doubles: fma is exact before its one rounding.
    with mpmath.workprec(300):
        fused = [float(mpmath.mpf(x) * y + z) for x, y, z in zip(A, B, C, strict=True)]
    expected = [A + B, A - B, A * B, A / B, -A, fused, abs(A), np.sqrt(abs(A))]
    expected += [np.maximum(A, B), np.where(A < B, A, C), np.full(LANES, 2.5)]
    total = ((A[0] + A[1]) + (A[2] + A[3])) + ((A[4] + A[5]) + (A[6] + A[7]))
    expected += [np.full(LANES, total), np.where(A < B, A, C)]
    np.testing.assert_array_equal(out.reshape(-1, LANES), expected)
    wanted = (A < B, A <= B, A > B, A >= B, A == B, A >= B, (A < B) & (A < C), (A < B) | (A < C))
    assert masks == tuple(map(as_bits, wanted))


def test_comparisons_with_not_a_number_are_false():
    missing = np.full(LANES, np.nan)
    masks = arithmetic(missing, B, C, np.empty(13 * LANES))
    assert masks == (0, 0, 0, 0, 0, 2**LANES - 1, 0, 0)


@numba.njit
def double_through_rows(values):
    memory = np.zeros(values.size + LANES)
    place = rows(memory, 0)
    for i in range(values.size):
        place[i] = values[i]
    store(place, 0, load(place, 0) + load(place, 0))
    out = np.empty(values.size)
    for i in range(values.size):
        out[i] = place[i]
    hold(memory)
    return out


def test_rows_are_read_and_written_by_address():
    values = np.arange(2.0 * LANES)
    expected = np.where(values < LANES, 2 * values, values)
    np.testing.assert_array_equal(double_through_rows(values), expected)


@numba.njit(error_model="numpy")
def powers(values, out, logarithm):
    for i in range(0, values.size, LANES):
        x = load(values, i)
        store(out, i, log2(x) if logarithm else exp2(x))


def largest_error(values, found, exact):
    """Return the largest error in units in the last place."""
    errors = []
    with mpmath.workprec(200):
        for x, y in zip(values.tolist(), found.tolist(), strict=True):
            true = exact(mpmath.mpf(x))
            errors.append(abs(mpmath.mpf(y) - true) / math.ulp(float(true)))
    return float(max(errors))


@pytest.mark.parametrize(("low", "high"), [(-1021, 1), (-2, 1), (-1e-3, 1e-3)])
def test_exp2_is_within_one_ulp(low, high):
    values = generator.uniform(low, high, 4000)
    found = np.empty_like(values)
    powers(values, found, False)
    assert largest_error(values, found, lambda x: mpmath.power(2, x)) < 1


@pytest.mark.parametrize(("low", "high"), [(1, 9), (0.999, 1.001), (1e-300, 1e-290), (1, 1e300)])
def test_log2_is_within_three_ulp(low, high):
    values = np.exp(generator.uniform(math.log(low), math.log(high), 4000))
    found = np.empty_like(values)
    powers(values, found, True)
    assert largest_error(values, found, lambda x: mpmath.log(x, 2)) < 3


def test_special_values():
    values = np.array([0.0, 1.0, -1.0, -1021.0, -1021.5, -5000.0, -np.inf, np.nan])
    found = np.empty_like(values)
    powers(values, found, False)
    np.testing.assert_array_equal(found, [1, 2, 0.5, 2.0**-1021, 0, 0, 0, np.nan])
    values = np.array([1.0, 2.0, 0.5, 4.0, 2.0**-1000, np.inf, np.nan, 8.0])
    powers(values, found, True)
    np.testing.assert_array_equal(found, [0, 1, -1, 2, -1000, np.inf, np.nan, 3])
