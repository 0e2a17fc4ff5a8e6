"""The contract of every init, and what each one promises."""

import numpy as np
import pytest
import scipy.stats

from pipeline.core import random
from pipeline.core.fitting import Schedule, fit
from pipeline.core.inits import searches
from pipeline.core.inits.points import distinct_points
from pipeline.core.inits.registry import number_of_starts
from pipeline.core.mixture import Parameters, mixture_quantiles
from pipeline.core.model import make_model, project
from pipeline.core.outcomes import Outcome
from pipeline.core.starts import (
    INITS,
    check_options,
    complete_options,
    draw_population_starts,
    draw_starts,
    init_evaluations,
)

KEY = random.key_from_hex("ffeeddccbbaa99887766554433221100")
TRUTH = Parameters(np.array([0.2, 0.5, 0.3]), np.array([-3.0, 0.0, 1.0]), np.array([1.0, 0.3, 2.0]))
X = np.random.default_rng(3).normal(0, 2, (12, 30))
MODELS = [make_model(3), make_model(3, "equal", "free", "shared"), make_model(3, [0.2, 0.3, 0.5])]

# What an init needs that has no default.
NEEDED = {"explicit": {"weights": [0.2, 0.3, 0.5], "means": [-1.0, 0.0, 2.0], "scales": [1.0] * 3}}

every_init = pytest.mark.parametrize("name", INITS)
AROUND = ["random_points", "kmeans_pp", "quantiles", "uniform", "grid"]
around_the_data = pytest.mark.parametrize("name", AROUND)


def starts_of(
    name, points=X, model=MODELS[0], replicates=None, starts=range(4), truth=TRUTH, options=None
):
    replicates = range(len(points)) if replicates is None else replicates
    options = options or NEEDED.get(name)
    return draw_starts(name, points, model, truth, KEY, replicates, starts, options)


def uniforms_of(replicate, start, count):
    return random.uniforms(KEY, np.array([[replicate, start]], np.uint64), count)[0]


def test_the_names():
    assert set(INITS) == {
        "notebook", "random_points", "kmeans_pp", "quantiles", "truth", "uniform",
        "random_responsibilities", "kmeans", "perturbed_truth", "short_runs", "grid", "explicit",
    }  # fmt: skip
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
    if INITS[name].deterministic:
        assert distinct == (1 if INITS[name].n_starts is None else 4)
    else:  # many seeds lead k-means to the same clusters
        assert distinct > (6 if name == "kmeans" else 40)


@every_init
def test_streams_differ_between_keys(name):
    key, options = KEY + np.uint64(1), NEEDED.get(name)
    other = draw_starts(name, X, MODELS[0], TRUTH, key, range(12), range(4), options)
    assert np.array_equal(other.means, starts_of(name).means) == INITS[name].deterministic


@pytest.mark.parametrize("model", MODELS, ids=["free", "shared", "fixed"])
@every_init
def test_the_population_has_starts_too(name, model):
    together = draw_population_starts(name, model, TRUTH, KEY, range(3), NEEDED.get(name))
    alone = draw_population_starts(name, model, TRUTH, KEY, [2], NEEDED.get(name))
    for whole, single, projected in zip(together, alone, project(model, together), strict=True):
        assert whole.shape == (1, 3, 3)
        np.testing.assert_array_equal(single[:, 0], whole[:, 2])
        np.testing.assert_allclose(whole, projected, rtol=1e-15)
    np.testing.assert_allclose(together.weights.sum(axis=-1), 1, rtol=1e-15)
    assert np.all(together.scales > 0)


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
    assert np.all(start.weights >= 0)
    np.testing.assert_allclose(start.weights.sum(axis=-1), 1, rtol=1e-15)
    assert np.all(start.scales >= 0)
    if name in ("random_points", "kmeans_pp"):
        assert np.all(np.isin(start.means, points))


@around_the_data
def test_weights_equal_and_scales_the_samples(name):
    start = starts_of(name)
    np.testing.assert_array_equal(start.weights, np.full((12, 4, 3), 1 / 3))
    expected = np.broadcast_to(np.std(X, axis=1)[:, None, None], (12, 4, 3))
    np.testing.assert_allclose(start.scales, expected, rtol=1e-14)


@pytest.mark.parametrize("name", [*AROUND, "kmeans", "random_responsibilities", "short_runs"])
def test_starts_move_with_the_data(name):
    start, moved = starts_of(name), starts_of(name, 4 * X + 1)
    np.testing.assert_allclose(moved.means, 4 * start.means + 1, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moved.scales, 4 * start.scales, rtol=1e-12)
    np.testing.assert_allclose(moved.weights, start.weights, rtol=1e-12)


@pytest.mark.parametrize("name", [*AROUND, "kmeans", "random_responsibilities", "short_runs"])
def test_starts_keep_their_digits_far_from_zero(name):
    points = np.round(X, 6)  # in steps that are multiples of the spacing of doubles at 1e8
    points = np.round(points * 2**20) / 2**20
    start, moved = starts_of(name, points), starts_of(name, points + 1e8)
    np.testing.assert_allclose(moved.means - 1e8, start.means, rtol=0, atol=1e-6)
    np.testing.assert_allclose(moved.scales, start.scales, rtol=1e-6)
    np.testing.assert_allclose(moved.weights, start.weights, rtol=1e-6)


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


@pytest.mark.parametrize("name", [name for name, init in INITS.items() if init.needs_truth])
def test_a_truth_must_be_of_the_models_size(name):
    with pytest.raises(ValueError, match=f"{name} needs a known truth"):
        starts_of(name, truth=None)
    with pytest.raises(ValueError, match=f"{name} has 3 components, the model 2"):
        starts_of(name, model=make_model(2))


def test_only_what_needs_the_truth_reads_it():
    for name, init in INITS.items():
        if not init.needs_truth:
            assert np.array_equal(starts_of(name, truth=None).means, starts_of(name).means)


def test_unknown_init_is_refused():
    with pytest.raises(ValueError, match=r"init: got 'best', must be one of .*notebook"):
        starts_of("best")


def test_uniform_means_are_uniform_over_the_range():
    means = starts_of("uniform", X[:1], starts=range(2000)).means.ravel()
    share = (means - X[0].min()) / np.ptp(X[0])
    assert scipy.stats.kstest(share, "uniform").pvalue > 1e-3


def test_the_range_of_a_population_lies_between_two_quantiles():
    low, high = mixture_quantiles(TRUTH, [0.001, 0.999])
    means = draw_population_starts("uniform", MODELS[0], TRUTH, KEY, range(200)).means
    assert low < means.min() and means.max() < high
    assert np.ptp(means) > 0.97 * (high - low)
    lattice = draw_population_starts("grid", MODELS[0], TRUTH, KEY, range(10)).means
    np.testing.assert_allclose(lattice[0, [0, 9], 2], [low, high], rtol=1e-15)


@pytest.mark.parametrize("offset", [0.0, 1e8])
@pytest.mark.parametrize(("n", "n_components"), [(1, 2), (7, 1), (30, 3), (64, 2), (1001, 5)])
def test_random_responsibilities_by_their_definition(n, n_components, offset):
    x = np.random.default_rng(n).normal(0, 2, n) + offset
    start = starts_of("random_responsibilities", x[None], make_model(n_components), starts=[5])
    exponential = -np.log(uniforms_of(0, 5, n * n_components).reshape(n, n_components))
    responsibilities = exponential / exponential.sum(axis=1, keepdims=True)
    counts = responsibilities.sum(axis=0)
    centred = x - x[0]
    means = responsibilities.T @ centred / counts
    squares = np.sum(responsibilities * (centred[:, None] - means) ** 2, axis=0)
    np.testing.assert_allclose(start.weights[0, 0], counts / n, rtol=1e-13)
    np.testing.assert_allclose(start.means[0, 0] - x[0], means, rtol=1e-12, atol=2e-16 * offset)
    np.testing.assert_allclose(start.scales[0, 0], np.sqrt(squares / counts), rtol=1e-12)


def test_random_responsibilities_are_uniform_on_the_simplex():
    """Of one point, the weights are its responsibilities."""
    start = starts_of("random_responsibilities", X[:1, :1], starts=range(4000))
    marginal = scipy.stats.beta(1, 2)  # of Dirichlet(1, 1, 1)
    for k in range(3):
        assert scipy.stats.kstest(start.weights[0, :, k], marginal.cdf).pvalue > 1e-3


def lloyd(x, means):
    cluster = None
    while True:
        nearest = np.argmin(np.abs(x[:, None] - means), axis=1)
        if np.array_equal(nearest, cluster):
            return cluster, means
        cluster = nearest
        means = np.array(
            [x[cluster == k].mean() if np.any(cluster == k) else means[k] for k in range(3)]
        )


def test_kmeans_against_lloyd():
    seeds, start = starts_of("kmeans_pp").means, starts_of("kmeans")
    for replicate in range(12):
        for number in range(4):
            x = X[replicate]
            cluster, means = lloyd(x, seeds[replicate, number])
            sizes = np.bincount(cluster, minlength=3)
            scales = [x[cluster == k].std() if sizes[k] > 1 else x.std() for k in range(3)]
            found = [part[replicate, number] for part in start]
            np.testing.assert_allclose(found[0], sizes / 30, rtol=1e-14)
            np.testing.assert_allclose(found[1], means, rtol=1e-12)
            np.testing.assert_allclose(found[2], scales, rtol=1e-12)


def test_kmeans_can_stop_early():
    one = starts_of("kmeans", options={"iterations": 1})
    seeds = starts_of("kmeans_pp").means
    nearest = np.argmin(np.abs(X[3][:, None] - seeds[3, 1]), axis=1)
    expected = [X[3][nearest == k].mean() for k in range(3)]
    np.testing.assert_allclose(one.means[3, 1], expected, rtol=1e-12)
    assert not np.array_equal(one.means, starts_of("kmeans").means)


def test_a_cluster_without_spread_has_the_samples_scale():
    points = np.array([[0.1, 0.1, 0.1, 7.0, 9.0]])
    start = starts_of("kmeans", points, make_model(2), starts=range(20))
    tied = start.weights == 0.6
    np.testing.assert_array_equal(tied.sum(axis=-1), 1)
    np.testing.assert_allclose(start.scales[tied], points.std(), rtol=1e-14)
    np.testing.assert_allclose(start.scales[~tied], 1.0, rtol=1e-14)


def test_an_empty_cluster_keeps_its_mean_and_has_no_weight():
    points = np.array([[1.0, 4.0]])
    start = starts_of("kmeans", points, starts=range(20))
    seeds = starts_of("kmeans_pp", points, starts=range(20)).means
    np.testing.assert_array_equal(start.means, seeds)
    np.testing.assert_array_equal(
        np.sort(start.weights, axis=-1), np.tile([0, 0.5, 0.5], (20, 1))[None]
    )
    np.testing.assert_array_equal(start.scales, np.full((1, 20, 3), 1.5))
    ended = fit(points, np.ones(2), start, MODELS[0], "em", Schedule(3))
    assert set(ended.outcome) == {Outcome.EMPTY_COMPONENT}


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_perturbed_truth_by_its_definition(size):
    start = starts_of("perturbed_truth", options={"size": size})
    z = scipy.stats.norm.ppf(uniforms_of(7, 2, 6))
    np.testing.assert_allclose(start.means[7, 2], TRUTH.means + size * TRUTH.scales * z[:3])
    scales = TRUTH.scales * np.exp(size * z[3:] / np.sqrt(2))
    np.testing.assert_allclose(start.scales[7, 2], scales, rtol=1e-13)
    np.testing.assert_array_equal(start.weights, np.broadcast_to(TRUTH.weights, (12, 4, 3)))


def runs_of(points, replicate, start, model, runs, iterations):
    """Return the starts and the ends of the short runs of one fit, each made alone."""
    n_components = model.n_components
    uniform = uniforms_of(replicate, start, runs * n_components).reshape(1, runs, n_components)
    means = distinct_points(points[None], uniform)
    shape = means.shape
    first = Parameters(np.full(shape, 1 / n_components), means, np.full(shape, points.std()))
    first = project(model, first)
    ends = [
        fit(
            points[None],
            np.ones(points.size),
            Parameters(*(part[:, [run]] for part in first)),
            model,
            "em",
            Schedule(iterations),
        )
        for run in range(runs)
    ]
    return first, ends


@pytest.mark.parametrize("model", MODELS, ids=["free", "shared", "fixed"])
def test_short_runs_are_as_good_as_the_best_of_them(model):
    options = {"runs": 4, "iterations": 7}
    found = starts_of("short_runs", model=model, options=options)
    at_start = fit(X, np.ones(30), found, model, "em", Schedule(0)).log_likelihood.reshape(12, 4)
    for replicate, start in [(0, 0), (5, 3), (11, 1)]:
        _, ends = runs_of(X[replicate], replicate, start, model, **options)
        sound = [end for end in ends if end.outcome[0] == Outcome.MAX_ITER]
        best = max(sound, key=lambda end: end.log_likelihood[0])
        np.testing.assert_allclose(at_start[replicate, start], best.log_likelihood[0], rtol=1e-13)
        for part, expected in zip(found, best.parameters, strict=True):
            np.testing.assert_allclose(part[replicate, start], expected[0], rtol=1e-9)


def test_an_init_costs_the_map_evaluations_of_the_fits_that_it_makes(monkeypatch):
    made = []

    def counted(*args):
        fits = fit(*args)
        made.append(fits.map_evaluations.sum())
        return fits

    monkeypatch.setattr(searches, "fit", counted)
    for name in sorted(INITS):
        options = complete_options(name, NEEDED.get(name, {}))
        options |= {key: value for key, value in (("runs", 4), ("iterations", 3)) if key in options}
        made.clear()
        starts_of(name, options=options, starts=range(5))
        assert sum(made) == 12 * 5 * init_evaluations(name, options)
        assert (name == "short_runs") == (sum(made) > 0)


def test_short_runs_leave_out_those_that_degenerate():
    """Two points far out: a run that gives one of them a component of its own collapses there."""
    points = np.concatenate([np.linspace(-1, 1, 8), [40.0, 90.0]])
    options = {"runs": 6, "iterations": 40}
    found = starts_of("short_runs", points[None], starts=range(40), options=options)
    collapsed = 0
    for start in range(40):
        first, ends = runs_of(points, 0, start, MODELS[0], **options)
        outcomes = [end.outcome[0] for end in ends]
        sound = [end for end in ends if end.outcome[0] == Outcome.MAX_ITER]
        collapsed += Outcome.DEGENERATE_SCALE in outcomes
        expected = first.means[0, 0]
        if sound:
            expected = max(sound, key=lambda end: end.log_likelihood[0]).parameters.means[0]
        np.testing.assert_allclose(found.means[0, start], expected, rtol=1e-9)
    assert collapsed > 5


def test_where_all_short_runs_degenerate_the_first_start_stays():
    points, model = np.array([[0.0, 0.0, 1.0, 1.0]]), make_model(2)
    options = {"runs": 2, "iterations": 200}
    found = starts_of("short_runs", points, model, starts=range(20), options=options)
    seen = 0
    for start in range(20):
        first, ends = runs_of(points[0], 0, start, model, **options)
        if all(end.outcome[0] != Outcome.MAX_ITER for end in ends):
            seen += 1
            for part, expected in zip(found, first, strict=True):
                np.testing.assert_array_equal(part[0, start], expected[0, 0])
    assert seen > 3


def test_short_runs_in_pieces_are_the_same(monkeypatch):
    whole = starts_of("short_runs", starts=range(5))
    for most in (1, 20, 70):
        monkeypatch.setattr(searches, "MOST_RUNS", most)
        for part, same in zip(starts_of("short_runs", starts=range(5)), whole, strict=True):
            np.testing.assert_array_equal(part, same)


def test_grid_covers_the_lattice():
    model, options = make_model(2), {"points": 5, "low": -1.0, "high": 3.0}
    complete = complete_options("grid", options)
    assert number_of_starts("grid", complete, model, 1) == 25
    means = starts_of("grid", X[:2], model, starts=range(25), options=options).means
    values = [-1.0, 0.0, 1.0, 2.0, 3.0]
    expected = [[first, second] for first in values for second in values]
    np.testing.assert_array_equal(means, [expected, expected])


def test_grid_reaches_the_ends_of_the_data():
    means = starts_of("grid", X, make_model(1), starts=range(10)).means[..., 0]
    np.testing.assert_allclose(means, np.linspace(X.min(axis=1), X.max(axis=1), 10).T, rtol=1e-13)
    low = starts_of("grid", X, make_model(1), starts=range(10), options={"low": 0.0}).means[..., 0]
    np.testing.assert_array_equal(low[:, [0, 9]], np.stack([np.zeros(12), X.max(axis=1)], axis=1))


def test_grid_of_symmetric_means_is_one_of_t():
    model = make_model(2, "equal", "symmetric", 1.0)
    options = complete_options("grid", {"points": 5, "low": -2.0, "high": 2.0})
    assert number_of_starts("grid", options, model, 1) == 5
    means = starts_of("grid", X[:1], model, starts=range(5), options=options).means
    np.testing.assert_array_equal(means[0, :, 0], [-2, -1, 0, 1, 2])
    np.testing.assert_array_equal(means[0, :, 1], [2, 1, 0, -1, -2])


def test_explicit_is_what_is_given():
    start = starts_of("explicit")
    for part, value in zip(start, NEEDED["explicit"].values(), strict=True):
        np.testing.assert_array_equal(part, np.broadcast_to(value, (12, 4, 3)))


@every_init
def test_options_have_defaults_and_bounds(name):
    needed = NEEDED.get(name, {})
    options = complete_options(name, needed)
    assert list(options) == list(INITS[name].options)
    check_options(name, options, MODELS[0])
    assert complete_options(name, options | {"nothing": None}) == options
    for key, option in INITS[name].options.items():
        for bad in ("text", -1e400, True, {}):
            with pytest.raises(ValueError, match=f"{key}: got .*; allowed: ") as error:
                complete_options(name, needed | {key: bad})
            assert option.allowed in str(error.value)
    with pytest.raises(ValueError, match="nosuch: got 1; allowed: "):
        complete_options(name, needed | {"nosuch": 1})


BITS = """
import numpy as np
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.starts import draw_starts
truth = Parameters(np.array([0.5, 0.5]), np.array([0.0, 2.0]), np.array([2.0, 1.0]))
points = np.linspace(-3.0, 5.0, 101)[None] ** 3
key = np.array([1, 2], np.uint64)
for name in ("uniform", "random_responsibilities", "kmeans", "perturbed_truth", "grid"):
    for part in draw_starts(name, points, make_model(2), truth, key, [0], range(40)):
        print(name, part.tobytes().hex())
"""


def test_starts_have_the_same_bits_on_every_instruction_set(bits_by_cpu):
    printed = bits_by_cpu(BITS)
    assert len(set(printed.values())) == 1
