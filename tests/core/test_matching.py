"""Matching against scipy's assignment, numerical Hellinger distances, and ties."""

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats

from pipeline.core.matching import (
    assign,
    match_to_truth,
    order_by_mean,
    reorder,
    squared_hellinger,
)
from pipeline.core.mixture import Parameters

NAN = float("nan")


def parameters(means, scales):
    means, scales = np.array(means, float), np.array(scales, float)
    return Parameters(np.full(means.shape, 1 / means.shape[-1]), means, scales)


@pytest.mark.parametrize("n", range(1, 8))
def test_assignment_against_scipy(n):
    generator = np.random.default_rng(n)
    for cost in generator.random((50, n, n)):
        columns = np.empty(n, np.int64)
        assign(cost, columns)
        np.testing.assert_array_equal(columns, scipy.optimize.linear_sum_assignment(cost)[1])


@pytest.mark.parametrize("n", range(2, 7))
def test_assignment_with_ties_is_a_permutation_of_least_cost(n):
    generator = np.random.default_rng(n)
    for cost in generator.integers(0, 3, (50, n, n)).astype(float):
        columns = np.empty(n, np.int64)
        assign(cost, columns)
        assert sorted(columns) == list(range(n))
        rows, best = scipy.optimize.linear_sum_assignment(cost)
        assert cost[np.arange(n), columns].sum() == cost[rows, best].sum()


@pytest.mark.parametrize("pair", [(0, 1, 0, 1), (0, 1, 2, 1), (0, 0.1, 0, 1), (-1, 2, 0.5, 0.7)])
def test_squared_hellinger_is_its_integral(pair):
    p, q = scipy.stats.norm(*pair[:2]), scipy.stats.norm(*pair[2:])
    integral, _ = scipy.integrate.quad(
        lambda x: 0.5 * (np.sqrt(p.pdf(x)) - np.sqrt(q.pdf(x))) ** 2, -20, 20, points=[-1, 0, 2]
    )
    assert squared_hellinger(*map(float, pair)) == pytest.approx(integral, abs=1e-9)


def test_equal_means_are_matched_by_scale():
    truth = parameters([0, 0], [1, 0.1])
    fitted = parameters([[0.05, -0.05], [0.05, -0.05]], [[0.12, 0.9], [0.9, 0.12]])
    assert match_to_truth(fitted, truth).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_matching_recovers_a_permutation_of_the_truth(n):
    generator = np.random.default_rng(n)
    truth = parameters(generator.normal(0, 3, n), generator.uniform(0.5, 2, n))
    labels = np.array([generator.permutation(n) for _ in range(20)])
    fitted = Parameters(*(part[labels] for part in truth))
    order = match_to_truth(fitted, truth)
    assert order.dtype == np.int64
    matched = reorder(fitted, order)
    np.testing.assert_array_equal(matched.means, np.tile(truth.means, (20, 1)))
    np.testing.assert_array_equal(matched.scales, np.tile(truth.scales, (20, 1)))


def test_components_too_far_to_tell_apart_go_by_mean_for_any_labelling():
    truth = parameters([2, 0], [1, 1])
    fitted = parameters([[1e6, 2e6], [2e6, 1e6]], [[1, 1], [1, 1]])
    matched = reorder(fitted, match_to_truth(fitted, truth))
    assert matched.means.tolist() == [[2e6, 1e6]] * 2


@pytest.mark.parametrize("bad", [[NAN, 1.0], [1.0, np.inf]])
def test_numbers_that_are_not_finite_keep_their_order(bad):
    fitted = parameters([bad, [2.0, 0.0]], [[1, 1], [1, 1]])
    assert match_to_truth(fitted, parameters([0, 2], [1, 1])).tolist() == [[0, 1], [1, 0]]
    assert order_by_mean(fitted).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("scales", [[0, 1], [1e-200, 1e200], [1, 1e300]])
def test_extreme_scales_still_give_a_permutation(scales):
    order = match_to_truth(parameters([[1e200, 0]], [scales]), parameters([0, 1], [1, 1]))
    assert sorted(order[0]) == [0, 1]


def test_order_by_mean_then_scale_then_position():
    fitted = parameters([[2, 1, 1, 1]], [[1, 3, 2, 2]])
    assert order_by_mean(fitted).tolist() == [[2, 3, 1, 0]]


def test_another_number_of_components_is_refused():
    with pytest.raises(ValueError, match="got 2 components, the truth has 3; use order_by_mean"):
        match_to_truth(parameters([[0, 1]], [[1, 1]]), parameters([0, 1, 2], [1, 1, 1]))
