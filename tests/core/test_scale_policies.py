"""What keeps scales from 0, a floor or a penalty: against plain numpy, and never in silence."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from scipy.special import logsumexp

from pipeline.core.algorithms import ALGORITHMS
from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project
from pipeline.core.outcomes import Degeneracy, Outcome
from pipeline.core.rates import rate_theory
from pipeline.core.refinement import Task, fit_compressed, fit_population

# One point apart from the others draws a component of its own.
POINTS = np.array([-0.9, -0.5, -0.35, 0.0, 0.1, 0.4, 0.6, 0.8, 1.1, 1.3, 4.0])
START = ([0.7, 0.3], [0.2, 3.8], [0.6, 0.4])
FLOOR, PENALTY = 0.05, 1.0
TIGHT = Schedule(200_000, "map_residual", 1e-12)
MODELS = {
    "free": (),
    "equal weights": ("equal",),
    "shared scale": ("free", "free", "shared"),
    "symmetric means": ("equal", "symmetric", "shared"),
}

every_model = pytest.mark.parametrize("arguments", MODELS.values(), ids=MODELS)
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
every_monotone = pytest.mark.parametrize(
    "name", [name for name, algorithm in ALGORITHMS.items() if algorithm.monotone]
)


def run(points, start, model, name="em", schedule=TIGHT, **policy):
    points = np.atleast_2d(np.asarray(points, float))
    starts = Parameters(*(np.broadcast_to(part, (len(points), 1, len(part))) for part in start))
    masses, degeneracy = np.ones(points.shape[1]), Degeneracy(**policy)
    return fit(points, masses, project(model, starts), model, name, schedule, degeneracy)


def em_map(points, theta, arguments, floor=0.0, penalty=0.0):
    """Return M(theta), (3, K), by its formulas; ``penalty`` is the factor a."""
    weights_are, means_are, scales_are = (*arguments, *("free",) * 3)[:3]
    weights, means, scales = theta
    joint = np.log(weights) + scipy.stats.norm.logpdf(points[:, None], means, scales)
    shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    counts, variance = shares.sum(axis=0), points.var()
    if weights_are == "free":
        weights = counts / points.size
    means = shares.T @ points / counts
    if means_are == "symmetric":
        t = (shares[:, 0] @ points - shares[:, 1] @ points) / points.size
        means = np.array([t, -t])
    squares = (shares * (points[:, None] - means) ** 2).sum(axis=0)
    if scales_are == "shared":
        squares, counts = np.full(2, squares.mean()), np.full(2, points.size / 2)
    scales = np.sqrt((squares + 2 * penalty * variance) / (counts + 2 * penalty))
    return np.array([weights, means, np.maximum(scales, floor * points.std())])


def log_likelihood(points, theta):
    weights, means, scales = theta
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    joint = logs + scipy.stats.norm.logpdf(points[:, None], means, scales)
    return logsumexp(joint, axis=1).sum()


def penalised(points, theta, penalty):
    ratio = points.var() / np.asarray(theta[2]) ** 2
    return log_likelihood(points, theta) - penalty * np.sum(ratio - np.log(ratio))


def rows_of(fits, i=0):
    chosen = fits.trace.fit == i
    return np.stack([part[chosen] for part in fits.trace.parameters], axis=1)


@pytest.mark.parametrize("policy", [{"scale_floor": FLOOR}, {"penalty": 3.0}])
@every_model
def test_iterates_are_those_of_the_definition(arguments, policy):
    model = make_model(2, *arguments)
    found = run(POINTS, START, model, schedule=Schedule(60), **policy)
    rows = rows_of(found)
    floor, penalty = policy.get("scale_floor", 0.0), policy.get("penalty", 0.0) / POINTS.size
    for t in range(60):
        expected = em_map(POINTS, rows[t], arguments, floor, penalty)
        np.testing.assert_allclose(rows[t + 1], expected, rtol=1e-12, atol=1e-12)
        level = log_likelihood(POINTS, rows[t])
        assert found.trace.log_likelihood[t] == pytest.approx(level, rel=1e-12)


def test_without_a_policy_the_sample_collapses():
    assert run(POINTS, START, make_model(2)).outcome[0] == Outcome.DEGENERATE_SCALE


@every_monotone
def test_a_fit_that_ends_at_the_floor_says_so(name):
    found = run(POINTS, START, make_model(2), name, scale_floor=FLOOR)
    assert found.outcome[0] == Outcome.DEGENERATE_SCALE
    assert found.parameters.scales[0].min() == pytest.approx(FLOOR * POINTS.std(), rel=1e-14)
    # It went on to the optimum on the floor.
    assert found.map_residual[0] <= 1e-11
    expected = run(POINTS, START, make_model(2), scale_floor=FLOOR)
    assert found.log_likelihood[0] == pytest.approx(expected.log_likelihood[0], rel=1e-12)
    assert np.isnan(found.rate_theory[0])


def test_rows_at_the_floor_are_counted():
    found = run(POINTS, START, make_model(2), scale_floor=FLOOR)
    smallest = rows_of(found)[:, 2].min(axis=1)
    at_floor = smallest <= FLOOR * POINTS.std() * (1 + 1e-12)
    assert 0 < found.n_floored[0] == at_floor.sum() < len(smallest)
    assert run(POINTS, START, make_model(2), schedule=Schedule(5)).n_floored[0] == 0


@every_algorithm
def test_no_scale_is_below_the_floor_and_a_start_is_raised(name):
    generator = np.random.default_rng(4)
    points = generator.normal(size=(30, 60))
    start = ([0.5, 0.5], [-0.3, 0.4], [1e-3, 0.5])
    found = run(points, start, make_model(2), name, Schedule(80), scale_floor=0.2)
    floors = 0.2 * points.std(axis=1)[found.trace.fit]
    assert (found.trace.parameters.scales.min(axis=1) >= floors * (1 - 1e-14)).all()
    first = found.trace.iteration == 0
    np.testing.assert_allclose(found.trace.parameters.scales[first, 0], floors[first], rtol=1e-14)


def test_a_scale_may_leave_the_floor():
    """A narrow start within a wide sample: at the floor in row 0, away from it in the end."""
    points = np.concatenate([scipy.stats.norm.ppf((np.arange(200) + 0.5) / 200)] * 2)
    points[200:] = 6 + 0.5 * points[200:]
    start = ([0.5, 0.5], [0.0, 6.0], [1e-3, 0.5])
    found = run(points, start, make_model(2), scale_floor=0.01)
    assert found.outcome[0] == Outcome.CONVERGED
    assert found.n_floored[0] >= 1
    plain = run(points, ([0.5, 0.5], [0.0, 6.0], [1.0, 0.5]), make_model(2))
    assert found.log_likelihood[0] == pytest.approx(plain.log_likelihood[0], rel=1e-12)


@every_model
@every_monotone
def test_a_penalised_fit_is_the_optimum_of_its_objective(name, arguments):
    model = make_model(2, *arguments)
    found = run(POINTS, START, model, name, penalty=PENALTY)
    assert found.outcome[0] == Outcome.CONVERGED
    a = PENALTY / POINTS.size
    theta = np.array([part[0] for part in found.parameters])
    free = [(*arguments, *("free",) * 3)[i] for i in range(3)]

    def unpacked(x):
        share = 1 / (1 + np.exp(-x[0])) if free[0] == "free" else 0.5
        means = x[1:3] if free[1] == "free" else np.array([x[1], -x[1]])
        scales = np.exp(x[3:5]) if free[2] == "free" else np.exp([x[3], x[3]])
        return np.array([[share, 1 - share], means, scales])

    logit = np.log(theta[0, 0] / theta[0, 1])
    at = np.concatenate([[logit], theta[1], np.log(theta[2])])
    best = scipy.optimize.minimize(
        lambda x: -penalised(POINTS, unpacked(x), a), at + 0.01, method="BFGS",
        options={"gtol": 1e-9},
    )  # fmt: skip
    assert penalised(POINTS, theta, a) == pytest.approx(-best.fun, rel=1e-10)
    assert found.log_likelihood[0] == pytest.approx(log_likelihood(POINTS, theta), rel=1e-12)


@every_monotone
def test_the_penalised_objective_never_falls(name):
    points = np.random.default_rng(8).normal(size=(40, 25))
    start = ([0.5, 0.5], [-0.5, 0.5], [1.0, 0.4])
    found = run(points, start, make_model(2), name, Schedule(200), penalty=0.5)
    assert not (found.outcome == Outcome.LOG_LIKELIHOOD_DECREASED).any()
    fell = 0
    for i in range(40):
        rows = rows_of(found, i)
        objective = np.array([penalised(points[i], row, 0.5 / 25) for row in rows])
        assert np.diff(objective).min() >= -1e-11
        fell += (np.diff([log_likelihood(points[i], row) for row in rows]) < -1e-9).any()
    # The log-likelihood alone may fall.
    assert fell > 0


def test_no_penalised_fit_collapses():
    points = np.random.default_rng(3).normal(size=(300, 12))
    start = ([0.5, 0.5], [-0.5, 0.5], [0.3, 0.3])
    plain = run(points, start, make_model(2), schedule=Schedule(5000, "map_residual", 1e-9))
    kept = run(
        points, start, make_model(2), schedule=Schedule(5000, "map_residual", 1e-9), penalty=1.0
    )
    assert (plain.outcome == Outcome.DEGENERATE_SCALE).mean() > 0.1
    # A weight may still vanish, or take more iterations than there are.
    assert not (kept.outcome == Outcome.DEGENERATE_SCALE).any()
    assert (kept.outcome == Outcome.CONVERGED).mean() > 0.98


@every_model
def test_the_rate_in_theory_is_that_of_the_penalised_map(arguments):
    model, a = make_model(2, *arguments), 8.0 / POINTS.size
    found = run(POINTS, START, model, penalty=8.0)
    theta = np.array([part[0] for part in found.parameters])

    def mapped(x):
        return em_map(POINTS, x.reshape(3, 2), arguments, 0.0, a).ravel()

    step = 1e-6
    # Directions within the model.
    weights_are, means_are, scales_are = (*arguments, *("free",) * 3)[:3]
    directions = [[1, -1, 0, 0, 0, 0]] if weights_are == "free" else []
    symmetric, shared = means_are == "symmetric", scales_are == "shared"
    directions += [[0, 0, 1, -1, 0, 0]] if symmetric else np.eye(6)[2:4].tolist()
    directions += [[0, 0, 0, 0, 1, 1]] if shared else np.eye(6)[4:].tolist()
    basis = np.array(directions, float).T
    changes = [
        (mapped(theta.ravel() + step * e) - mapped(theta.ravel() - step * e)) / (2 * step)
        for e in basis.T
    ]
    radius = np.abs(np.linalg.eigvals(np.linalg.pinv(basis) @ np.array(changes).T)).max()
    assert found.rate_theory[0] == pytest.approx(radius, rel=1e-7)
    plain = rate_theory(POINTS[None], np.ones(11), found.parameters, model, np.ones(1, bool))
    assert abs(plain[0] - radius) > 1e-3


@pytest.mark.parametrize("policy", [{"scale_floor": 0.4}, {"penalty": 1e7}])
def test_compressed_fits_keep_the_policy(policy):
    generator = np.random.default_rng(6)
    points = np.concatenate([generator.normal(size=15_000), generator.normal(3, 0.5, size=9_000)])
    model, degeneracy = make_model(2), Degeneracy(**policy)
    start = ([0.5, 0.5], [0.0, 3.0], [1.0, 0.1])
    starts = Parameters(*(np.array(part, float)[None, None] for part in start))
    task = Task(model, "em", Schedule(5000, "map_residual", 1e-9), degeneracy)
    exact = fit(points[None], np.ones(points.size), starts, *task)
    nodes = fit_compressed(points[None], starts, task, 1e-10)
    assert nodes.outcome[0] == exact.outcome[0] and nodes.n_iter[0] == exact.n_iter[0]
    assert nodes.compression_error_bound[0] > 0
    for part, other in zip(nodes.trace.parameters, exact.trace.parameters, strict=True):
        np.testing.assert_allclose(part, other, atol=1e-9)
    assert nodes.map_residual[0] == pytest.approx(exact.map_residual[0], rel=1e-3)
    assert nodes.n_floored[0] == exact.n_floored[0]
    unpenalised = fit(points[None], np.ones(points.size), starts, *task[:3])
    assert abs(unpenalised.log_likelihood[0] - exact.log_likelihood[0]) > 1e-3


def test_a_population_has_a_floor_and_no_penalty():
    truth = Parameters(np.array([0.5, 0.5]), np.array([0.0, 3.0]), np.array([1.0, 0.2]))
    starts = Parameters(*(part[None, None] for part in truth))
    schedule = Schedule(20_000, "map_residual", 1e-12)

    def fitted(**policy):
        task = Task(make_model(2), "em", schedule, Degeneracy(**policy))
        return fit_population(truth, starts, task, 1e-10)

    assert fitted(penalty=5.0).parameters.scales[0] == pytest.approx([1.0, 0.2], rel=1e-9)
    deviation = np.sqrt(0.5 * (1 + 0.04) + 1.5**2)
    floored = fitted(scale_floor=0.25)
    assert floored.outcome[0] == Outcome.DEGENERATE_SCALE
    assert floored.parameters.scales[0, 1] == pytest.approx(0.25 * deviation, rel=1e-9)


def test_fixed_scales_are_left_alone():
    model = make_model(2, "free", "free", [0.01, 2.0])
    plain = run(POINTS, START, model)
    kept = run(POINTS, START, model, scale_floor=0.5, penalty=3.0)
    for part, other in zip(plain.parameters, kept.parameters, strict=True):
        np.testing.assert_array_equal(part, other)
    assert kept.n_floored[0] == 0 and kept.outcome[0] == plain.outcome[0]


@every_monotone
def test_no_algorithm_stalls_at_the_floor(name):
    """A component of few points is held at the floor; the others go on to their optimum."""
    points = np.random.default_rng(12).normal(size=(60, 50))
    points[:, 25:] += 3.0
    start = ([0.4, 0.3, 0.3], [0.0, 2.5, 4.0], [1.0, 0.5, 0.3])
    schedule = Schedule(50_000, "map_residual", 1e-10)
    found = run(points, start, make_model(3), name, schedule, scale_floor=0.2)
    at_floor = found.outcome == Outcome.DEGENERATE_SCALE
    assert at_floor.sum() > 10 and (found.outcome == Outcome.CONVERGED).sum() > 10
    assert (found.n_iter < 50_000).all()
    # The rule stopped them, at the floor as well.
    assert found.stopped.all()
    if name == "bfgs":
        assert found.map_evaluations.max() < 500
        assert found.likelihood_evaluations.max() < 500


def test_a_fit_that_ran_out_of_iterations_at_the_floor_was_not_stopped():
    found = run(POINTS, START, make_model(2), schedule=Schedule(60), scale_floor=FLOOR)
    assert found.outcome[0] == Outcome.DEGENERATE_SCALE and not found.stopped[0]
    assert not run(POINTS, START, make_model(2)).stopped[0]  # collapsed
    assert run(POINTS, START, make_model(2), penalty=1.0).stopped[0]


def test_what_the_penalty_adds_is_told():
    found = run(POINTS, START, make_model(2), penalty=PENALTY)
    theta = np.array([part[0] for part in found.parameters])
    a = PENALTY / POINTS.size
    expected = penalised(POINTS, theta, a) - log_likelihood(POINTS, theta)
    assert found.log_penalty[0] == pytest.approx(expected, rel=1e-10)
    assert run(POINTS, START, make_model(2)).log_penalty[0] == 0.0
