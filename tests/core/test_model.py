"""Models: what the config may say, and projection onto what it says."""

import numpy as np
import pytest

from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project

START = Parameters(
    np.array([[0.2, 0.8], [0.5, 0.5]]),
    np.array([[1.0, -3.0], [0.0, 4.0]]),
    np.array([[1.0, 2.0], [0.5, 0.1]]),
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "n_components: got 0"),
        ((2, "fre"), "weights: got 'fre', must be free, equal or fixed numbers"),
        ((2, [0.5, 0.4]), "weights: .* must sum to 1, not 0.9"),
        ((2, [1.5, -0.5]), "weights: .* above 0"),
        ((2, [0.2, 0.3, 0.5]), "weights: got 3 fixed numbers .* 2 components"),
        ((2, 0.5), "weights: got 1 fixed numbers"),
        ((2, {"a": 1}), "weights: got {'a': 1}"),
        ((2, "free", "fixed"), "means: got 'fixed', must be free or symmetric"),
        ((2, "free", "free", [1.0]), "scales: got 1 fixed numbers"),
        ((2, "free", "free", 0.0), "scales: .* above 0"),
        ((2, "free", "free", [1.0, float("nan")]), "scales: .* finite"),
        ((2, "free", "free", "equal"), "scales: got 'equal', must be free, shared or"),
        ((3, "free", "symmetric", 1.0), "symmetric needs n_components = 2, got 3"),
        ((2, "free", "symmetric", "free"), "no closed-form M-step; use scales: shared or fixed"),
    ],
)
def test_what_has_no_meaning_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(*arguments)


def test_one_number_fixes_every_scale():
    assert make_model(3, scales=2).fixed_scales.tolist() == [2.0, 2.0, 2.0]


def test_a_free_model_leaves_a_start_alone():
    for part, projected in zip(START, project(make_model(2), START), strict=True):
        np.testing.assert_array_equal(part, projected)
        assert not np.shares_memory(part, projected)


def test_fixed_values_replace_the_start():
    projected = project(make_model(2, [0.3, 0.7], "free", [1.0, 5.0]), START)
    assert projected.weights.tolist() == [[0.3, 0.7]] * 2
    assert projected.scales.tolist() == [[1.0, 5.0]] * 2
    np.testing.assert_array_equal(projected.means, START.means)


def test_symmetric_and_shared():
    projected = project(make_model(2, "free", "symmetric", "shared"), START)
    assert projected.means.tolist() == [[2.0, -2.0], [-2.0, 2.0]]
    expected = [np.sqrt(0.2 * 1 + 0.8 * 4), np.sqrt(0.5 * 0.25 + 0.5 * 0.01)]
    np.testing.assert_allclose(projected.scales, np.transpose([expected, expected]), rtol=1e-15)


def test_equal_weights_enter_the_shared_scale():
    projected = project(make_model(2, "equal", "free", "shared"), START)
    assert projected.scales[0, 0] == pytest.approx(np.sqrt((1 + 4) / 2), rel=1e-15)


@pytest.mark.parametrize(
    "member",
    [
        make_model(2),
        make_model(2, "equal", "symmetric", 1.0),
        make_model(2, "equal", "symmetric", "shared"),
        make_model(2, [0.25, 0.75], "free", "shared"),
    ],
    ids=str,
)
def test_projection_is_idempotent_for_any_batch(member):
    once = project(member, START)
    for first, second in zip(once, project(member, once), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-15)
    alone = project(member, Parameters(*(part[1] for part in START)))
    for whole, single in zip(once, alone, strict=True):
        np.testing.assert_array_equal(whole[1], single)
