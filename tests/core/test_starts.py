"""The contract of every init, and what each one promises."""

import numpy as np
import pytest
import scipy.stats

from pipeline.core import random
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project
from pipeline.core.starts import INITS, draw_starts

KEY = random.key_from_hex("ffeeddccbbaa99887766554433221100")
TRUTH = Parameters(np.array([0.2, 0.5, 0.3]), np.array([-3.0, 0.0, 1.0]), np.array([1.0, 0.3, 2.0]))
X = np.random.default_rng(3).normal(0, 2, (12, 30))
MODELS = [make_model(3), make_model(3, "equal", "free", "shared"), make_model(3, [0.2, 0.3, 0.5])]

every_init = pytest.mark.parametrize("name", INITS)
around_the_data = pytest.mark.parametrize("name", ["random_points", "kmeans_pp", "quantiles"])


def starts_of(name, points=X, model=MODELS[0], replicates=None, starts=range(4), truth=TRUTH):
    replicates = range(len(points)) if replicates is None else replicates
    return draw_starts(name, points, model, truth, KEY, replicates, starts)


def test_the_five_names():
    assert set(INITS) >= {"notebook", "random_points", "kmeans_pp", "quantiles", "truth"}
    assert all(init.description.endswith(".") for init in INITS.values())


@pytest.mark.parametrize("model", MODELS, ids=["free", "shared", "fixed"])
@every_init
def test_starts_are_members_of_the_model(name, model):
    start = starts_of(name, model=model)
    for part, projected in zip(start, project(model, start), strict=True):
        assert part.shape == (12, 4, 3)
        np.testing.assert_allclose(part, projected, rtol=1e-15)
    np.testing.assert_allclose(start.weights.sum(axis=-1), 1, rtol=1e-15)
    assert np.all(start.scales > 0)


@every_init
def test_a_start_depends_on_its_own_replicate_and_number_alone(name):
    together = starts_of(name)
    some = starts_of(name, X[[7, 2]], replicates=[7, 2], starts=[3])
    alone = starts_of(name, X[[5]], replicates=[5], starts=[1])
    for whole, part, single in zip(together, some, alone, strict=True):
        np.testing.assert_array_equal(part[:, 0], whole[[7, 2], 3])
        np.testing.assert_array_equal(single[0, 0], whole[5, 1])


@every_init
def test_only_deterministic_inits_repeat_themselves(name):
    """On one sample throughout, so that only the stream can make a difference."""
    means = starts_of(name, np.tile(X[:1], (12, 1))).means.reshape(48, 3)
    distinct = len(np.unique(means, axis=0))
    assert distinct == 1 if INITS[name].deterministic else distinct > 40


@every_init
def test_streams_differ_between_keys(name):
    other = draw_starts(name, X, MODELS[0], TRUTH, KEY + np.uint64(1), range(12), range(4))
    assert np.array_equal(other.means, starts_of(name).means) == INITS[name].deterministic


@pytest.mark.parametrize(
    "points",
    [[2.0], [2.0, 2.0, 2.0, 2.0], [1.0, 4.0], [1e6, 1e6, 1e6 + 1], [0.0, 1e200, -1e200, 1.0]],
    ids=["one", "ties", "two", "offset", "huge"],
)
@every_init
def test_poor_data_still_give_a_start(name, points):
    with np.errstate(over="ignore", invalid="ignore"):
        start = starts_of(name, np.array([points]))
    assert np.all(np.isfinite(start.means))
    if name in ("random_points", "kmeans_pp"):
        assert np.all(np.isin(start.means, points))


@around_the_data
def test_weights_equal_and_scales_the_samples(name):
    start = starts_of(name)
    np.testing.assert_array_equal(start.weights, np.full((12, 4, 3), 1 / 3))
    expected = np.broadcast_to(np.std(X, axis=1)[:, None, None], (12, 4, 3))
    np.testing.assert_allclose(start.scales, expected, rtol=1e-14)


@around_the_data
def test_starts_move_with_the_data(name):
    start, moved = starts_of(name), starts_of(name, 4 * X + 1)
    np.testing.assert_allclose(moved.means, 4 * start.means + 1, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moved.scales, 4 * start.scales, rtol=1e-12)


def test_notebook_is_uniform():
    start = starts_of("notebook", starts=range(500))
    for values in (start.means, start.scales):
        assert scipy.stats.kstest(values.ravel(), "uniform").pvalue > 1e-3
    together = np.corrcoef(np.reshape([start.means, start.scales], (2, -1)))[0, 1]
    assert abs(together) < 4 / np.sqrt(start.means.size)


def test_random_points_are_distinct_and_every_choice_is_as_likely():
    points = np.arange(5.0)[None]
    means = starts_of("random_points", points, starts=range(12_000)).means[0]
    assert np.all(np.diff(np.sort(means, axis=1), axis=1) > 0)
    _, counts = np.unique(means, axis=0, return_counts=True)
    assert len(counts) == 5 * 4 * 3
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_more_components_than_points_use_each_point_before_any_twice():
    points = np.array([[1.0, 2.0]])
    means = starts_of("random_points", points, make_model(5), starts=range(50)).means
    np.testing.assert_array_equal(np.sort(means[0, :, :2], axis=1), [[1, 2]] * 50)
    np.testing.assert_array_equal(np.sort(means[0, :, 2:4], axis=1), [[1, 2]] * 50)


def test_kmeans_pp_by_its_definition():
    means = starts_of("kmeans_pp").means
    for replicate in range(12):
        for start in range(4):
            stream = np.array([[replicate, start]], np.uint64)
            uniform = random.uniforms(KEY, stream, 3)[0]
            x = X[replicate]
            chosen = [x[int(30 * uniform[0])]]
            for u in uniform[1:]:
                squares = np.min([(x - mean) ** 2 for mean in chosen], axis=0)
                share = np.cumsum(squares) / squares.sum()
                chosen.append(x[np.searchsorted(share, u, side="right")])
            np.testing.assert_array_equal(means[replicate, start], chosen)


def test_kmeans_pp_takes_points_in_proportion_to_squared_distance():
    points = np.array([[0.0, 1.0, 3.0]])
    means = starts_of("kmeans_pp", points, make_model(2), starts=range(9000)).means[0]
    observed = [np.sum(means[means[:, 0] == 0, 1] == second) for second in (1.0, 3.0)]
    total = sum(observed)
    assert scipy.stats.chisquare(observed, [total * 0.1, total * 0.9]).pvalue > 1e-3


@pytest.mark.parametrize("n_components", [1, 2, 3, 5])
def test_quantiles_against_numpy(n_components):
    means = starts_of("quantiles", model=make_model(n_components)).means
    levels = (np.arange(n_components) + 0.5) / n_components
    expected = np.quantile(X, levels, axis=1).T
    np.testing.assert_allclose(means[:, 0], expected, rtol=1e-13, atol=1e-14)


def test_truth_is_the_truth():
    start = starts_of("truth")
    for part, value in zip(start, TRUTH, strict=True):
        np.testing.assert_array_equal(part, np.broadcast_to(value, (12, 4, 3)))


def test_truth_needs_one_of_the_models_size():
    with pytest.raises(ValueError, match="needs a known truth"):
        starts_of("truth", truth=None)
    with pytest.raises(ValueError, match="truth has 3 components, the model 2"):
        starts_of("truth", model=make_model(2))


def test_only_what_needs_the_truth_reads_it():
    for name, init in INITS.items():
        if not init.needs_truth:
            assert np.array_equal(starts_of(name, truth=None).means, starts_of(name).means)


def test_unknown_init_is_refused():
    with pytest.raises(ValueError, match="init: got 'best', must be one of notebook"):
        starts_of("best")
