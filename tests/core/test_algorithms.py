"""The contract of every algorithm, and each one against its definition in plain numpy."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from scipy.special import logsumexp

from pipeline.core.algorithms import ALGORITHMS, Options
from pipeline.core.fitting import Schedule, fit, taken
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project
from pipeline.core.outcomes import DECREASE, Outcome
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.core.starts import draw_starts

KEY = key_from_hex("0f1e2d3c4b5a69788796a5b4c3d2e1f0")
# True weights, means and scales.
CASES = {
    "notebook": ([0.5, 0.5], [0.0, 2.0], [2.0, 1.0]),
    "touching": ([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0]),
    "three": ([0.3, 0.4, 0.3], [-3.0, 0.0, 3.0], [1.0, 1.0, 1.0]),
}
COLUMNS = (
    "outcome", "n_iter", "map_evaluations", "likelihood_evaluations", "log_likelihood",
    "map_residual", "stop_value", "rate_observed",
)  # fmt: skip
TIGHT = Schedule(100_000, "map_residual", 1e-10)

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
every_monotone = pytest.mark.parametrize(
    "name", [name for name, algorithm in ALGORITHMS.items() if algorithm.monotone]
)
# BFGS makes long steps: it may climb another hill than EM.
every_follower = pytest.mark.parametrize(
    "name", [name for name, it in ALGORITHMS.items() if it.monotone and name != "bfgs"]
)
every_case = pytest.mark.parametrize("case", CASES)


def problem(case, n=1000, replicates=6, init="kmeans_pp"):
    truth = Parameters(*(np.array(part, float) for part in CASES[case]))
    points = draw(KEY, np.arange(replicates), n, *truth, "multinomial")
    model = make_model(len(truth.means))
    starts = draw_starts(init, points, model, truth, KEY, range(replicates), range(1))
    return points, starts, model


def run(points, starts, model, name, schedule, **options):
    return fit(points, np.ones(points.shape[1]), starts, model, name, schedule, **options)


def em_map(points, theta, power=1.0):
    """Return M(theta), (3, K), and the log-likelihood at theta, by their formulas."""
    weights, means, scales = theta
    joint = np.log(weights) + scipy.stats.norm.logpdf(points[:, None], means, scales)
    log_likelihood = logsumexp(joint, axis=1).sum()
    if power == np.inf:
        shares = (joint == joint.max(axis=1, keepdims=True)).astype(float)
    else:
        shares = np.exp(power * joint - logsumexp(power * joint, axis=1, keepdims=True))
    counts = shares.sum(axis=0)
    means = shares.T @ points / counts
    scales = np.sqrt((shares * (points[:, None] - means) ** 2).sum(axis=0) / counts)
    return np.array([counts / len(points), means, scales]), log_likelihood


def squarem(points, theta, n_iter):
    """Yield the iterates of SqS3 with the bound of Varadhan & Roland's program."""
    bound = 1.0
    yield theta
    unit = 2.0 ** np.frexp(points.std())[1]
    for _ in range(n_iter):
        once, level = em_map(points, theta)
        twice, _ = em_map(points, once)
        # Lengths in the units that the lanes compute in.
        scaled = np.array([1.0, 1 / unit, 1 / unit])[:, None]
        r, v = once - theta, twice - 2 * once + theta
        length = np.linalg.norm(scaled * r) / np.linalg.norm(scaled * v)
        length = min(max(length, 1.0), bound)
        reached = length >= bound
        candidate = theta + 2 * length * r + length**2 * v
        if np.any(candidate[[0, 2]] <= 0):
            candidate = twice
        new, _ = em_map(points, candidate)
        if reached:
            bound *= 4
        if not em_map(points, new)[1] >= level:
            new = twice
            if reached:
                bound = max(1.0, bound / 16)
        theta = new
        yield theta


def anderson(points, theta, n_iter, depth=3):
    """Yield the iterates of DAAREM, by singular values, in the units of the lanes."""
    unit = 2.0 ** np.frexp(points.std())[1]
    scaled = np.repeat([1.0, unit, unit], theta.shape[1])
    x_columns, f_columns, before, shrink, cycle = [], [], None, 0, None
    yield theta
    for _ in range(n_iter):
        mapped, level = em_map(points, theta)
        x, f = theta.ravel() / scaled, (mapped - theta).ravel() / scaled
        if len(x_columns) == depth:
            shrink = max(shrink + (depth if level >= cycle else -depth), -50)
            x_columns, f_columns = [], []
        if not x_columns:
            cycle = level
        new = mapped
        if before is not None:
            x_columns.append(x - before[0])
            f_columns.append(f - before[1])
            left, values, right = np.linalg.svd(np.array(f_columns).T, full_matrices=False)
            projected = values * (left.T @ f)
            part = 1 / (1 + 1.2 ** (25 - shrink))

            def length(damping, values=values, projected=projected):
                return np.sum((projected / (values**2 + damping)) ** 2)

            damping = scipy.optimize.brentq(
                lambda c, part=part, length=length: length(np.exp(c)) / length(0.0) - part,
                np.log(1e-20 * values.max() ** 2),
                np.log(1e20 * values.max() ** 2),
                xtol=1e-14,
            )
            g = right.T @ (projected / (values**2 + np.exp(damping)))
            proposed = x + f - (np.array(x_columns) + np.array(f_columns)).T @ g
            proposed = (proposed * scaled).reshape(theta.shape)
            if np.all(proposed[[0, 2]] > 0) and em_map(points, proposed)[1] >= level:
                new = proposed
        before = x, f
        theta = new
        yield theta


def annealed(points, theta, n_iter):
    power = 0.5
    yield theta
    for _ in range(n_iter):
        theta, _ = em_map(points, theta, power)
        power = min(1.0, power * 1.1)
        yield theta


def classification(points, theta, n_iter):
    yield theta
    for _ in range(n_iter):
        theta, _ = em_map(points, theta, np.inf)
        yield theta


def coordinates(theta, unit):
    return np.concatenate([np.log(theta[0]), theta[1] / unit, np.log(theta[2])])


def from_coordinates(x, unit):
    logits, means, logarithms = x.reshape(3, -1)
    return np.array([np.exp(logits - logsumexp(logits)), means * unit, np.exp(logarithms)])


def gradient(points, x, unit):
    """Return that of the mean log-likelihood, by complex steps."""

    def log_likelihood(x):
        logits, means, logarithms = x.reshape(3, -1)
        z = (points[:, None] - means * unit) / np.exp(logarithms)
        joint = logits - logsumexp(logits) - logarithms - z * z / 2
        return logsumexp(joint, axis=1).mean()

    steps = 1e-30j * np.eye(x.size)
    return np.array([log_likelihood(x + step).imag for step in steps]) / 1e-30


def bfgs(points, theta, n_iter):
    """Yield the iterates of BFGS with a backtracking search, from the complete-data information."""
    unit = 2.0 ** np.frexp(points.std())[1]
    x, matrix, before = coordinates(theta, unit), None, None
    yield theta
    for _ in range(n_iter):
        g, level = gradient(points, x, unit), em_map(points, theta)[1]
        weights, _, scales = theta
        shares = em_map(points, theta)[0][0]
        squared = (scales / unit) ** 2
        first = np.diag(np.concatenate([1 / weights, squared / shares, 1 / (2 * shares)]))
        if before is not None:
            matrix = first if matrix is None else matrix
            s, y = x - before[0], before[1] - g
            rho = 1 / (s @ y)
            left = np.eye(x.size) - rho * np.outer(s, y)
            matrix = left @ matrix @ left.T + rho * np.outer(s, s)
        direction = (first if matrix is None else matrix) @ g
        in_units = direction / np.repeat([1, points.std() / unit, 1], shares.size)
        length = min(1.0, 0.5 / np.abs(in_units).max())
        before = x, g
        for _ in range(12):
            new = x + length * direction
            theta = from_coordinates(new, unit)
            wanted = 1e-4 * length * (g @ direction) * points.size
            if em_map(points, theta)[1] >= level + wanted:
                break
            length *= 0.2
        else:
            raise NotImplementedError
        x = new
        yield theta


def plain(points, theta, n_iter):
    yield theta
    for _ in range(n_iter):
        theta, _ = em_map(points, theta)
        yield theta


DEFINITIONS = {
    "em": plain,
    "squarem": squarem,
    "anderson": anderson,
    "annealed": annealed,
    "classification": classification,
    "bfgs": bfgs,
}


@every_case
@every_algorithm
def test_iterates_are_those_of_the_definition(name, case):
    n_iter = 12
    points, starts, model = problem(case, replicates=2)
    found = run(points, starts, model, name, Schedule(n_iter))
    for replicate in range(2):
        theta = np.array([part[replicate, 0] for part in starts])
        rows = found.trace.fit == replicate
        trace = Parameters(*(part[rows] for part in found.trace.parameters))
        for t, expected in enumerate(DEFINITIONS[name](points[replicate], theta, n_iter)):
            row = np.array([part[t] for part in trace])
            np.testing.assert_allclose(row, expected, rtol=1e-8, atol=1e-8)
            level = em_map(points[replicate], expected)[1]
            assert found.trace.log_likelihood[rows][t] == pytest.approx(level, rel=1e-9)


@every_case
@every_follower
def test_reaches_the_optimum_of_plain_em(name, case):
    points, starts, model = problem(case)
    expected = run(points, starts, model, "em", TIGHT)
    found = run(points, starts, model, name, TIGHT)
    assert (found.outcome == Outcome.CONVERGED).all()
    assert (found.map_residual < 1e-8).all()
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)
    for part, other in zip(found.parameters, expected.parameters, strict=True):
        np.testing.assert_allclose(part, other, atol=1e-6)


@every_case
def test_bfgs_ends_at_an_optimum_and_mostly_at_that_of_em(case):
    points, starts, model = problem(case, replicates=200)
    expected = run(points, starts, model, "em", TIGHT)
    found = run(points, starts, model, "bfgs", TIGHT)
    assert (found.outcome == Outcome.CONVERGED).all()
    assert (found.map_residual < 1e-8).all()
    same = np.isclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12, atol=0)
    assert same.mean() >= 0.95
    passes = found.map_evaluations + found.likelihood_evaluations
    assert np.median(expected.map_evaluations / passes) >= 10


@pytest.mark.parametrize(
    "arguments",
    [("equal",), ("free", "free", "shared"), ("free", "free", 1.5), ("equal", "symmetric", 1.0),
     ("free", "symmetric", "shared")],
)  # fmt: skip
def test_bfgs_reaches_the_optimum_within_the_model(arguments):
    points, starts, _ = problem("touching", replicates=20)
    model = make_model(2, *arguments)
    starts = project(model, starts)
    expected = run(points, starts, model, "em", TIGHT)
    found = run(points, starts, model, "bfgs", TIGHT)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)
    assert np.median(found.likelihood_evaluations) < np.median(found.map_evaluations)


def test_bfgs_keeps_what_is_tied_to_the_last_bit():
    points, starts, _ = problem("touching", n=40, replicates=60, init="random_points")
    schedule = Schedule(5000, "map_residual", 1e-12)
    for arguments in (("free", "free", "shared"), ("equal", "symmetric", "shared")):
        model = make_model(2, *arguments)
        found = run(points, project(model, starts), model, "bfgs", schedule)
        _, means, scales = found.trace.parameters
        assert (scales[:, 0] == scales[:, 1]).all()
        assert arguments[1] == "free" or (means[:, 0] == -means[:, 1]).all()
        assert (found.outcome == Outcome.CONVERGED).all()


def test_a_collapse_within_the_maps_of_squarem_is_one():
    """Both of its next maps are lost: M(theta) has a scale of 0, the map after that nothing."""
    points = np.array([[0.0, 1.0, 1.5, 2.0, 3.5, 5.0]])
    start = Parameters(*(np.array([[part]], float) for part in ([0.5, 0.5], [0, 3], [0.02, 1])))
    found = run(points, start, make_model(2), "squarem", Schedule(50))
    assert found.outcome[0] == Outcome.DEGENERATE_SCALE


@pytest.mark.parametrize("arguments", [(), ("free", "free", "shared")])
def test_a_cluster_without_points_is_an_empty_component(arguments):
    """The wide component is nowhere the larger one, and takes part everywhere."""
    points = np.linspace(-1.0, 1.0, 11)[None]
    model = make_model(2, *arguments)
    start = Parameters(*(np.array([[part]], float) for part in ([0.9, 0.1], [0, 0.1], [1, 2])))
    found = run(points, project(model, start), model, "classification", Schedule(50))
    assert found.outcome[0] == Outcome.EMPTY_COMPONENT
    assert all(np.isfinite(part).all() for part in found.trace.parameters)


@every_case
@every_monotone
def test_the_log_likelihood_never_falls(name, case):
    points, starts, model = problem(case, n=60, replicates=40, init="random_points")
    found = run(points, starts, model, name, Schedule(300))
    assert not (found.outcome == Outcome.LOG_LIKELIHOOD_DECREASED).any()
    same = np.diff(found.trace.fit) == 0
    level = found.trace.log_likelihood
    fall = -np.diff(level)[same] / np.maximum(1, np.abs(level[1:][same]))
    assert np.nanmax(fall) <= DECREASE / 100


@every_algorithm
def test_a_fit_depends_on_its_own_sample_and_start_only(name):
    points, starts, model = problem("three", n=50, replicates=13)
    every = run(points, starts, model, name, Schedule(60, "map_residual", 1e-9))
    for r in (0, 5, 12):
        alone = Parameters(*(part[r : r + 1] for part in starts))
        found = run(points[r : r + 1], alone, model, name, Schedule(60, "map_residual", 1e-9))
        expected = taken(every, np.arange(13) == r)
        for part, other in zip(found.trace.parameters, expected.trace.parameters, strict=True):
            np.testing.assert_array_equal(part, other)
        for column in COLUMNS:
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


@every_algorithm
def test_one_fit_in_all_lanes_is_the_fit_in_one(name):
    points, starts, model = problem("notebook", n=300, replicates=1)
    lane = run(points, starts, model, name, Schedule(15))
    lanes = run(points, starts, model, name, Schedule(15), all_lanes=True)
    for part, other in zip(lane.trace.parameters, lanes.trace.parameters, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "arguments",
    [("equal",), ("free", "free", "shared"), ("free", "free", 1.5), ("equal", "symmetric", 1.0)],
)
@every_algorithm
def test_iterates_stay_in_the_model(name, arguments):
    points, starts, _ = problem("touching", n=200)
    model = make_model(2, *arguments)
    found = run(points, project(model, starts), model, name, Schedule(40))
    for part, projected in zip(
        found.trace.parameters, project(model, found.trace.parameters), strict=True
    ):
        np.testing.assert_allclose(part, projected, rtol=1e-12, atol=1e-12)


@every_algorithm
def test_every_pass_over_the_sample_is_counted(name):
    points, starts, model = problem("notebook", replicates=3)
    found = run(points, starts, model, name, Schedule(20))
    maps = 60 if name == "squarem" else 20
    assert (found.map_evaluations == maps).all()
    # Annealed: 0.5 * 1.1^8 is the first power above 1.
    likelihoods = {"em": 0, "annealed": 8, "classification": 20}.get(name)
    if likelihoods is not None:
        assert (found.likelihood_evaluations == likelihoods).all()


@pytest.mark.parametrize(("name", "least"), [("squarem", 7), ("anderson", 6)])
def test_accelerators_save_map_evaluations(name, least):
    points, starts, model = problem("notebook", replicates=25)
    plain_em = run(points, starts, model, "em", TIGHT)
    fast = run(points, starts, model, name, TIGHT)
    passes = fast.map_evaluations + fast.likelihood_evaluations
    assert np.median(plain_em.map_evaluations / passes) >= least


@pytest.mark.parametrize("name", ["squarem", "anderson", "bfgs"])
def test_accelerators_end_on_hard_samples(name):
    """Three components on a sample of one: a relaxed safeguard can cycle for ever."""
    generator = np.random.default_rng(5)
    points = generator.normal(size=(40, 150))
    model = make_model(3)
    starts = draw_starts("random_points", points, model, None, KEY, range(40), range(1))
    found = run(points, starts, model, name, Schedule(20_000, "map_residual", 1e-9))
    assert not (found.outcome == Outcome.MAX_ITER).any()


def test_no_rule_stops_a_fit_while_it_is_annealed():
    """Equal components are a fixed point of every power."""
    points = np.random.default_rng(2).normal(size=(1, 400))
    start = Parameters(np.full((1, 1, 2), 0.5), np.full((1, 1, 2), 0.2), np.ones((1, 1, 2)))
    schedule = Schedule(100, "map_residual", 1e-3)
    options = Options(start=0.1, growth=1.5)
    found = run(points, start, make_model(2), "annealed", schedule, options=options)
    # 0.1 * 1.5^6 is the first power above 1: iteration 7 is the first of plain EM.
    assert found.n_iter[0] == 7


@every_algorithm
def test_the_map_residual_is_that_of_the_em_map(name):
    points, starts, model = problem("notebook", replicates=2)
    found = run(points, starts, model, name, Schedule(10))
    for r in range(2):
        theta = np.array([part[r] for part in found.parameters])
        change = np.abs(em_map(points[r], theta)[0] - theta)
        change[1:] /= points[r].std()
        assert found.map_residual[r] == pytest.approx(change.max(), rel=1e-6)
