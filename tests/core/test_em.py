"""EM against independent implementations, its definition and its invariants."""

import math
import warnings

import mpmath
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project

generator = np.random.default_rng(5)
X = np.concatenate([generator.normal(0, 2, 20), generator.normal(2, 1, 20)])
START_2 = Parameters(np.array([0.4, 0.6]), np.array([0.3, 0.9]), np.array([0.8, 0.35]))
START_3 = Parameters(
    np.array([0.2, 0.5, 0.3]), np.array([-1.0, 0.5, 2.5]), np.array([1.0, 0.6, 1.5])
)
STARTS = {2: START_2, 3: START_3}

# Arguments of make_model.
MODELS = {
    "free": (2, "free", "free", "free"),
    "equal weights": (2, "equal", "free", "free"),
    "fixed weights": (2, [0.3, 0.7], "free", "free"),
    "shared scale": (2, "free", "free", "shared"),
    "fixed scales": (2, "free", "free", [1.5, 0.7]),
    "symmetric": (2, "equal", "symmetric", 1.0),
    "symmetric, free weights": (2, "free", "symmetric", 0.5),
    "symmetric, shared scale": (2, "equal", "symmetric", "shared"),
    "symmetric, unequal scales": (2, "free", "symmetric", [1.0, 2.5]),
    "three components": (3, "free", "free", "free"),
    "three components, shared scale": (3, "equal", "free", "shared"),
}
MASSES = {"unit": np.ones(40), "unequal": np.linspace(0.25, 3, 40)}

every_model = pytest.mark.parametrize("arguments", MODELS.values(), ids=MODELS)


def trajectory(points, masses, start, model, iterations):
    """Return the trace of one fit from a start (K,), made a member of the model."""
    batch = project(model, Parameters(*(part[None, None] for part in start)))
    return fit(np.array([points]), masses, batch, model, "em", Schedule(iterations)).trace


def theta_of(trace, row):
    return np.array([part[row] for part in trace.parameters])


def assert_equal_in_units(theta, expected, tolerance=1e-12):
    """Weights absolutely, means in units of their scale, scales relatively."""
    theta, expected = np.asarray(theta, float), np.asarray(expected, float)
    unit = np.stack([np.ones_like(expected[2]), expected[2], expected[2]])
    assert np.max(np.abs(theta - expected) / unit) <= tolerance


def scalar_e_step(points, masses, theta):
    """Responsibilities times masses (a list per component) and log-likelihood, by the formulas."""
    shares = [[] for _ in theta[0]]
    terms = []
    for x, mass in zip(points, masses, strict=True):
        joint = [
            w * math.exp(-(((x - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
            for w, m, s in zip(*theta, strict=True)
        ]
        terms.append(mass * math.log(sum(joint)))
        for share, part in zip(shares, joint, strict=True):
            share.append(mass * part / sum(joint))
    return shares, math.fsum(terms)


def scalar_m_step(points, shares, theta, weights, means, scales):
    """M-step in plain Python with exact sums; constraints as in make_model."""
    n_components = len(shares)
    counts = [math.fsum(share) for share in shares]
    n = math.fsum(counts)

    def average(share, values):
        return math.fsum(r * v for r, v in zip(share, values, strict=True)) / math.fsum(share)

    new_weights = [count / n for count in counts] if weights == "free" else theta[0]
    centres = [average(share, points) for share in shares]
    if means == "symmetric":
        precision = [c / s**2 for c, s in zip(counts, theta[2], strict=True)]
        t = (precision[0] * centres[0] - precision[1] * centres[1]) / sum(precision)
        centres = [t, -t]
    variances = [
        average(share, [(x - m) ** 2 for x in points])
        for share, m in zip(shares, centres, strict=True)
    ]
    new_scales = theta[2]
    if scales == "free":
        new_scales = [math.sqrt(v) for v in variances]
    elif scales == "shared":
        pooled = math.fsum(c * v for c, v in zip(counts, variances, strict=True)) / n
        new_scales = [math.sqrt(pooled)] * n_components
    return [list(new_weights), centres, list(new_scales)]


@pytest.mark.parametrize("masses", MASSES.values(), ids=MASSES)
@every_model
def test_fifty_iterations_against_plain_python(arguments, masses):
    trace = trajectory(X, masses, STARTS[arguments[0]], make_model(*arguments), 50)
    theta = theta_of(trace, 0).tolist()
    for row in range(51):
        shares, log_likelihood = scalar_e_step(X.tolist(), masses.tolist(), theta)
        assert trace.log_likelihood[row] == pytest.approx(log_likelihood, rel=1e-12)
        assert_equal_in_units(theta_of(trace, row), theta)
        theta = scalar_m_step(X.tolist(), shares, theta, *arguments[1:])


def test_fifty_iterations_against_the_notebook():
    """r_k = N_k / sum_j N_j without weights; weighted mean; weighted std about the new mean."""
    trace = trajectory(X, np.ones(40), START_2, make_model(2, "equal"), 50)
    means, scales = START_2.means, START_2.scales
    for row in range(51):
        assert_equal_in_units(theta_of(trace, row), [[0.5, 0.5], means, scales])
        densities = np.array(
            [scipy.stats.norm(m, s).pdf(X) for m, s in zip(means, scales, strict=True)]
        )
        responsibilities = densities / densities.sum(axis=0)
        means = np.array([np.average(X, weights=r) for r in responsibilities])
        scales = np.array(
            [
                np.sqrt(np.average((X - m) ** 2, weights=r))
                for m, r in zip(means, responsibilities, strict=True)
            ]
        )


@pytest.mark.parametrize("start", STARTS.values(), ids=["K=2", "K=3"])
def test_fifty_iterations_against_scikit_learn(start):
    n_components = start.means.size
    trace = trajectory(X, np.ones(40), start, make_model(n_components), 50)
    other = GaussianMixture(
        n_components,
        covariance_type="full",
        reg_covar=0,
        max_iter=1,
        tol=0,
        warm_start=True,
        weights_init=start.weights,
        means_init=start.means[:, None],
        precisions_init=start.scales[:, None, None] ** -2.0,
    )
    for row in range(1, 51):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            other.fit(X[:, None])
        expected = [other.weights_, other.means_[:, 0], np.sqrt(other.covariances_[:, 0, 0])]
        assert_equal_in_units(theta_of(trace, row), expected)
        assert trace.log_likelihood[row] == pytest.approx(40 * other.score(X[:, None]), rel=1e-12)


def test_offset_of_a_million_against_mpmath():
    """Only the rounding of the means themselves may show: half a unit in the last place a row."""
    points = X[:12] / 8 + 1e6
    start = START_3._replace(means=START_3.means / 8 + 1e6, scales=START_3.scales / 8)
    trace = trajectory(points, np.ones(12), start, make_model(3), 10)
    with mpmath.workdps(40):
        x = [mpmath.mpf(value) for value in points]
        theta = [[mpmath.mpf(value) for value in part] for part in start]
        for row in range(11):
            tolerance = 3 * (row + 1) * 2.0**-33 / min(map(float, theta[2])) + 1e-12
            assert_equal_in_units(
                [theta_of(trace, row)[0], theta_of(trace, row)[1] - 1e6, theta_of(trace, row)[2]],
                [theta[0], [m - 10**6 for m in theta[1]], theta[2]],
                tolerance,
            )
            joint = [
                [w * mpmath.npdf(value, m, s) for w, m, s in zip(*theta, strict=True)]
                for value in x
            ]
            log_likelihood = mpmath.fsum(mpmath.log(mpmath.fsum(line)) for line in joint)
            assert abs(trace.log_likelihood[row] - log_likelihood) < 12 * 10 * tolerance
            r = [[part / mpmath.fsum(line) for part in line] for line in joint]
            for k in range(3):
                count = mpmath.fsum(line[k] for line in r)
                mean = mpmath.fsum(line[k] * v for line, v in zip(r, x, strict=True)) / count
                squares = [line[k] * (v - mean) ** 2 for line, v in zip(r, x, strict=True)]
                scale = mpmath.sqrt(mpmath.fsum(squares) / count)
                theta[0][k], theta[1][k], theta[2][k] = count / 12, mean, scale


def expected_complete_log_likelihood(points, shares, theta):
    weights, means, scales = (np.asarray(part)[:, None] for part in theta)
    log_joint = np.log(weights) + scipy.stats.norm.logpdf(points, means, scales)
    return np.sum(shares * log_joint)


@every_model
def test_m_step_maximises_over_the_model(arguments):
    """Any small move within the model lowers Q, to second order: its gradient is 0."""
    model = make_model(*arguments)
    theta = np.array(project(model, STARTS[arguments[0]]))
    masses = MASSES["unequal"]
    shares, _ = scalar_e_step(X, masses, theta)
    best = theta_of(trajectory(X, masses, Parameters(*theta), model, 1), 1)

    def q(parameters):
        return expected_complete_log_likelihood(X, np.array(shares), parameters)

    directions = 0
    h = 1e-5
    for index in np.ndindex(theta.shape):
        ahead, behind = (np.array(best) for _ in range(2))
        ahead[index] += h
        behind[index] -= h
        for moved in (ahead, behind):
            moved[0] /= moved[0].sum()
        moves = [np.array(project(model, Parameters(*moved))) for moved in (ahead, behind)]
        if np.max(np.abs(moves[0] - best)) < h / 10:
            continue
        directions += 1
        gradient = (q(moves[0]) - q(moves[1])) / (2 * h)
        assert abs(gradient) < 1e-6 * abs(q(best))
        assert q(moves[0]) < q(best) and q(moves[1]) < q(best)
    assert directions > 0


def test_a_component_a_thousand_scales_away_gets_nothing():
    points = np.array([0.0, 0.5, 1000.0])
    start = Parameters(np.full(2, 0.5), np.array([0.0, 1000.0]), np.ones(2))
    trace = trajectory(points, np.ones(3), start, make_model(2, scales=1.0), 1)
    expected = 3 * math.log(0.5) - 1.5 * math.log(2 * math.pi) - 0.125
    assert trace.log_likelihood[0] == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(theta_of(trace, 1), [[2 / 3, 1 / 3], [0.25, 1000], [1, 1]], 1e-15)


def test_one_component_reaches_mean_and_standard_deviation_in_one_step():
    start = Parameters(np.ones(1), np.array([0.3]), np.array([5.0]))
    trace = trajectory(X, np.ones(40), start, make_model(1), 3)
    for row in (1, 2, 3):
        assert_equal_in_units(theta_of(trace, row), [[1.0], [X.mean()], [X.std()]], 1e-15)


@every_model
def test_a_fixed_point_is_fixed(arguments):
    model = make_model(*arguments)
    long = trajectory(X, np.ones(40), STARTS[arguments[0]], model, 20_000)
    limit = Parameters(*theta_of(long, -1))
    again = trajectory(X, np.ones(40), limit, model, 5)
    for row in range(6):
        assert_equal_in_units(theta_of(again, row), limit, 1e-13)


samples = st.lists(st.floats(-50, 50), min_size=3, max_size=25)
positive = st.floats(0.05, 20)


@st.composite
def problems(draw):
    """Draw a sample, a start and a model of two or three components."""
    arguments = draw(st.sampled_from(list(MODELS.values())))
    n_components = arguments[0]
    weights = np.array(draw(st.lists(positive, min_size=n_components, max_size=n_components)))
    means = draw(st.lists(st.floats(-50, 50), min_size=n_components, max_size=n_components))
    scales = draw(st.lists(positive, min_size=n_components, max_size=n_components))
    start = Parameters(weights / weights.sum(), np.array(means), np.array(scales))
    return np.array(draw(samples)), start, make_model(*arguments)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(problems())
def test_the_log_likelihood_never_falls(problem):
    points, start, model = problem
    trace = trajectory(points, np.ones(points.size), start, model, 30)
    values = trace.log_likelihood
    # The terms of the sum may be much larger than their total: bound the rounding by the terms.
    nearest = [
        np.max(np.min(np.abs((points[:, None] - m) / s), axis=1)) ** 2
        for m, s in zip(trace.parameters.means, trace.parameters.scales, strict=True)
    ]
    size = 10 + np.abs(np.log(trace.parameters.scales)).max(axis=1) + nearest
    rounding = 4 * points.size * np.finfo(float).eps * (size[1:] + size[:-1])
    assert np.all(np.diff(values) >= -rounding)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(problems())
def test_swapping_two_components_swaps_the_trajectory(problem):
    points, start, model = problem
    if model.n_components != 2 or model.means != 0 or model.weights == 2 or model.scales == 2:
        model = make_model(start.means.size)
    swap = np.arange(start.means.size)
    swap[[0, 1]] = [1, 0]
    trace = trajectory(points, np.ones(points.size), start, model, 10)
    swapped = trajectory(
        points, np.ones(points.size), Parameters(*(part[swap] for part in start)), model, 10
    )
    if start.means.size == 2:
        # Sums of two terms commute: the same bits.
        for part, other in zip(trace.parameters, swapped.parameters, strict=True):
            np.testing.assert_array_equal(part, other[:, swap])
    else:
        row = min(1, trace.iteration[-1])
        assert_equal_in_units(theta_of(swapped, row)[:, swap], theta_of(trace, row), 1e-9)


def moved(start, factor, offset):
    return Parameters(start.weights, factor * start.means + offset, factor * start.scales)


@pytest.mark.parametrize("n_components", [2, 3])
@pytest.mark.parametrize(("factor", "offset"), [(8.0, 0.0), (1e-3, 0.0), (3.0, 1e6)])
def test_moving_the_data_moves_the_trajectory(n_components, factor, offset):
    start, model = STARTS[n_components], make_model(n_components)
    trace = trajectory(X, np.ones(40), start, model, 50)
    other = trajectory(factor * X + offset, np.ones(40), moved(start, factor, offset), model, 50)
    expected = moved(trace.parameters, factor, offset)
    # The points themselves are rounded to eps times the offset.
    tolerance = 1e-12 + 100 * np.finfo(float).eps * offset / factor
    for row in (1, 10, 50):
        assert_equal_in_units(
            theta_of(other, row), np.array([part[row] for part in expected]), tolerance
        )
    np.testing.assert_allclose(
        other.log_likelihood, trace.log_likelihood - 40 * math.log(factor), atol=40 * tolerance
    )


@every_model
def test_doubled_masses_change_no_parameter_and_double_the_log_likelihood(arguments):
    model, start = make_model(*arguments), STARTS[arguments[0]]
    once = trajectory(X, np.ones(40), start, model, 20)
    twice = trajectory(X, np.full(40, 2.0), start, model, 20)
    for part, other in zip(once.parameters, twice.parameters, strict=True):
        np.testing.assert_array_equal(part, other)
    # Unit masses share one logarithm among many points: 40 roundings of 2^-53 lie between.
    np.testing.assert_allclose(2 * once.log_likelihood, twice.log_likelihood, rtol=40 * 2**-53)


@every_model
def test_a_mass_of_two_is_a_point_twice(arguments):
    model, start = make_model(*arguments), STARTS[arguments[0]]
    masses = 1.0 + (np.arange(40) % 3)
    heavy = trajectory(X, masses, start, model, 20)
    copies = np.repeat(X, masses.astype(int))
    copied = trajectory(copies, np.ones(copies.size), start, model, 20)
    for row in range(21):
        assert_equal_in_units(theta_of(heavy, row), theta_of(copied, row))
    np.testing.assert_allclose(heavy.log_likelihood, copied.log_likelihood, rtol=1e-12)
