"""Standard errors from the observed information, against independent Hessians and simulation."""

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from pipeline.core import information as module
from pipeline.core.fitting import Schedule, fit
from pipeline.core.information import standard_errors
from pipeline.core.mixture import Parameters
from pipeline.core.model import FREE, SHARED, SYMMETRIC, make_model, project
from pipeline.core.outcomes import Outcome
from tests.core.models import models

SEED = 17


def estimates(model, n, replicates=1, separation=3.0):
    """Return samples and converged estimates of them (one start each, near the truth)."""
    generator = np.random.default_rng(SEED)
    centres = separation * np.arange(model.n_components)
    if model.means == SYMMETRIC:
        centres = np.array([0.5, -0.5]) * separation
    points = generator.choice(centres, (replicates, n)) + generator.normal(size=(replicates, n))
    ones = np.ones(model.n_components)
    start = project(model, Parameters(ones / ones.size, 1.1 * centres, ones))
    starts = Parameters(*(np.tile(part, (replicates, 1, 1)) for part in start))
    fits = fit(points, np.ones(n), starts, model, "em", Schedule(100_000, "map_residual", 1e-13))
    return points, fits.parameters, fits.outcome == Outcome.CONVERGED


def free_coordinates(theta, model):
    """Return what the model leaves free: weights but the last, means or t, scales or the scale."""
    weights, means, scales = theta
    free = list(weights[:-1]) if model.weights == FREE else []
    free += [means[0]] if model.means == SYMMETRIC else list(means)
    return free + {FREE: list(scales), SHARED: [scales[0]]}.get(model.scales, [])


def parameters_of(free, theta, model):
    """Return weights, means and scales at free coordinates; ``theta`` has what is not free."""
    weights, means, scales = theta
    free = list(free)
    k = model.n_components
    if model.weights == FREE:
        weights, free = [*free[: k - 1], 1 - sum(free[: k - 1])], free[k - 1 :]
    if model.means == SYMMETRIC:
        means, free = [free[0], -free[0]], free[1:]
    else:
        means, free = free[:k], free[k:]
    if model.scales == SHARED:
        scales = [free[0]] * k
    elif model.scales == FREE:
        scales = free
    return [*weights, *means, *scales]


def log_likelihood(points, free, theta, model):
    """Return the log-likelihood by its definition, in mpmath's numbers."""
    values = parameters_of(free, theta, model)
    k = model.n_components
    components = list(zip(values[:k], values[k : 2 * k], values[2 * k :], strict=True))
    total = mpf(0)
    for x in points:
        total += mp.log(sum(w / s * mp.exp(-(((x - m) / s) ** 2) / 2) for w, m, s in components))
    return total - len(points) * mp.log(2 * mp.pi) / 2


def errors_by_definition(points, theta, model):
    """Return standard errors (3, K) by 50-digit differences of the log-likelihood; None if none."""
    with mpmath.workdps(50):
        x = [mpf(float(value)) for value in points]
        theta = [[mpf(float(value)) for value in part] for part in theta]
        centre = free_coordinates(theta, model)
        h, d = mpf(10) ** -12, len(centre)

        def at(*moves):
            moved = list(centre)
            for place, move in moves:
                moved[place] += move
            return log_likelihood(x, moved, theta, model)

        hessian = mpmath.matrix(d, d)
        for p in range(d):
            for q in range(p + 1):
                value = at((p, h), (q, h)) - at((p, h), (q, -h)) - at((p, -h), (q, h))
                value += at((p, -h), (q, -h))
                hessian[p, q] = hessian[q, p] = value / (4 * h * h)
        covariance = mpmath.inverse(-hessian)
        if min(mpmath.eigsy(-hessian, eigvals_only=True)) <= 0:
            return None
        # The parameters move linearly: differences give their directions exactly.
        zero = parameters_of(centre, theta, model)
        rows = []
        for p in range(d):
            moved = [c + (1 if place == p else 0) for place, c in enumerate(centre)]
            pairs = zip(parameters_of(moved, theta, model), zero, strict=True)
            rows.append([a - b for a, b in pairs])
        moves = mpmath.matrix(rows)
        whole = moves.T * covariance * moves
        found = [float(mp.sqrt(whole[i, i])) for i in range(len(zero))]
    found = np.array(found).reshape(3, -1)
    return np.where(found > 0, found, np.nan)


def errors_of(points, theta, model):
    """Return the standard errors (3, K) of one mixture (3, K)."""
    batch = Parameters(*(np.asarray(part, float)[None] for part in theta))
    found = standard_errors(points[None], batch, model, np.ones(1, bool))
    return np.array([part[0] for part in found])


@pytest.mark.parametrize("model", list(models([1, 2, 3])))
def test_against_the_hessian_of_the_definition(model):
    points, parameters, converged = estimates(model, 45)
    assert converged.all()
    theta = [part[0] for part in parameters]
    expected = errors_by_definition(points[0], theta, model)
    np.testing.assert_allclose(errors_of(points[0], theta, model), expected, rtol=1e-10)


@pytest.mark.parametrize("model", list(models([2])))
def test_away_from_a_maximum_it_is_still_the_hessian(model):
    """What EM did not bring to its end has a score: the Hessian must not rely on there being none.

    The information there is positive definite in some of these models, in others it is not.
    """
    points, parameters, _ = estimates(model, 40)
    theta = np.array([part[0] for part in parameters])
    moved = project(model, Parameters(theta[0], theta[1] * 1.05, theta[2] * 1.03))
    expected = errors_by_definition(points[0], moved, model)
    found = errors_of(points[0], moved, model)
    if expected is None:
        assert np.isnan(found).all()
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def louis(points, theta):
    """Return Louis' matrix (3 K, 3 K): complete-data information less covariance of its score."""
    weights, means, scales = theta
    k = weights.size
    out = np.zeros((3 * k, 3 * k))
    for x in points:
        z = (x - means) / scales
        joint = weights / scales * np.exp(-(z**2) / 2)
        shares = joint / joint.sum()
        scores = np.zeros((k, 3 * k))  # of log f_j, for each component j that the point may be of
        for j in range(k):
            scores[j, [j, k + j, 2 * k + j]] = (
                1 / weights[j],
                z[j] / scales[j],
                (z[j] ** 2 - 1) / scales[j],
            )
            out[j, j] += shares[j] / weights[j] ** 2
            out[k + j, k + j] += shares[j] / scales[j] ** 2
            out[2 * k + j, 2 * k + j] += shares[j] * (3 * z[j] ** 2 - 1) / scales[j] ** 2
            out[k + j, 2 * k + j] += shares[j] * 2 * z[j] / scales[j] ** 2
            out[2 * k + j, k + j] += shares[j] * 2 * z[j] / scales[j] ** 2
        mean = shares @ scores
        out -= (scores.T * shares) @ scores - np.outer(mean, mean)
    return out


@pytest.mark.parametrize("n_components", [1, 2, 4])
def test_the_information_is_louis(n_components):
    generator = np.random.default_rng(SEED)
    points = generator.normal(0.0, 2.0, 61)
    theta = np.array(
        [
            generator.dirichlet(np.full(n_components, 5.0)),
            generator.normal(size=n_components),
            generator.uniform(0.6, 1.8, n_components),
        ]
    )
    found = module._information(module._sums(points, theta), n_components)
    units = np.array([theta[0], theta[2], theta[2] * np.sqrt(0.5)]).ravel()
    expected = louis(points, theta) * np.outer(units, units)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("n", [3, 8, 40, 4096, 4099, 9000])
def test_one_component_in_closed_form(n):
    points = np.random.default_rng(SEED).normal(3.0, 2.0, n)
    theta = np.array([[1.0], [points.mean()], [points.std()]])
    found = errors_of(points, theta, make_model(1))
    assert np.isnan(found[0, 0]) or found[0, 0] == 0
    assert found[1, 0] == pytest.approx(points.std() / np.sqrt(n), rel=1e-12)
    assert found[2, 0] == pytest.approx(points.std() / np.sqrt(2 * n), rel=1e-12)


def test_components_far_apart_are_samples_of_their_own():
    generator = np.random.default_rng(SEED)
    left, right = generator.normal(0.0, 1.0, 300), generator.normal(1e3, 0.1, 100)
    points = generator.permutation(np.concatenate([left, right]))
    scales = np.array([left.std(), right.std()])
    counts = np.array([300, 100])
    theta = np.array([counts / 400, [left.mean(), right.mean()], scales])
    expected = [
        np.full(2, np.sqrt(0.75 * 0.25 / 400)),
        scales / np.sqrt(counts),
        scales / np.sqrt(2 * counts),
    ]
    np.testing.assert_allclose(errors_of(points, theta, make_model(2)), expected, rtol=1e-12)


@pytest.mark.parametrize("model", list(models([2, 3])))
def test_what_is_fixed_is_missing_and_what_is_tied_is_equal(model):
    points, parameters, _ = estimates(model, 300)
    weights, means, scales = errors_of(points[0], [part[0] for part in parameters], model)
    assert np.isnan(weights).all() if model.weights != FREE else (weights > 0).all()
    assert (means > 0).all()
    assert np.isnan(scales).all() if model.scales not in (FREE, SHARED) else (scales > 0).all()
    if model.n_components == 2 and model.weights == FREE:
        assert weights[0] == pytest.approx(weights[1], rel=1e-12)
    if model.means == SYMMETRIC:
        assert means[0] == pytest.approx(means[1], rel=1e-12)
    if model.scales == SHARED:
        np.testing.assert_allclose(scales, scales[0], rtol=1e-12)


@pytest.mark.parametrize("model", list(models([3])))
def test_the_order_of_the_components_does_not_matter(model):
    points, parameters, _ = estimates(model, 200)
    theta = np.array([part[0] for part in parameters])
    order = [2, 0, 1]
    expected = errors_of(points[0], theta, model)[:, order]
    np.testing.assert_allclose(errors_of(points[0], theta[:, order], model), expected, rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_units_and_origin_do_not_matter(offset, unit):
    model = make_model(2)
    points, parameters, _ = estimates(model, 400)
    # Multiples of 2^-20 are exact at an offset of 1e8.
    points, means = (np.round(part * 2**20) / 2**20 for part in (points[0], parameters.means[0]))
    theta = np.array([parameters.weights[0], means, parameters.scales[0]])
    expected = errors_of(points, theta, model)
    assert np.isfinite(expected).all()
    moved = np.array([theta[0], (means + offset) * unit, theta[2] * unit])
    found = errors_of((points + offset) * unit, moved, model)
    tolerance = 1e-11 if offset == 0 else 1e-6
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance)
    np.testing.assert_allclose(found[1:], expected[1:] * unit, rtol=tolerance)


def test_a_tiny_weight_keeps_its_digits():
    generator = np.random.default_rng(SEED)
    points = np.concatenate(
        [generator.normal(0, 1, 250), generator.normal(1, 1.5, 200), [9.0, 9.5]]
    )
    start = Parameters(*(np.array([[v]]) for v in ([0.5, 0.4, 0.1], [0, 1, 9.2], [1.0, 1.5, 0.3])))
    model = make_model(3)
    schedule = Schedule(200_000, "map_residual", 1e-13)
    fits = fit(points[None], np.ones(points.size), start, model, "em", schedule)
    theta = [part[0] for part in fits.parameters]
    expected = errors_by_definition(points, theta, model)
    np.testing.assert_allclose(errors_of(points, theta, model), expected, rtol=1e-8)


def test_two_equal_components_have_no_standard_errors():
    points = np.random.default_rng(SEED).normal(size=100)
    theta = np.array([[0.5, 0.5], [points.mean()] * 2, [points.std()] * 2])
    assert np.isnan(errors_of(points, theta, make_model(2))).all()
    # Nor where the likelihood has a saddle: the sample is wider than the two components.
    model = make_model(2, "equal", "free", 0.5)
    theta = np.array([[0.5, 0.5], [points.mean()] * 2, [0.5, 0.5]])
    assert np.isnan(errors_of(points, theta, model)).all()


def test_what_is_not_finite_not_wanted_or_a_population_is_missing():
    model = make_model(2)
    points, parameters, _ = estimates(model, 50, replicates=4)
    good = standard_errors(points, parameters, model, np.ones(4, bool))
    broken = Parameters(*(part.copy() for part in parameters))
    broken.means[1, 0], broken.scales[2, 1] = np.nan, 0.0
    found = standard_errors(points, broken, model, np.array([False, True, True, True]))
    for part, expected in zip(found, good, strict=True):
        assert np.isnan(part[:3]).all()
        np.testing.assert_array_equal(part[3], expected[3])
    for part in standard_errors(None, parameters, model, np.ones(4, bool)):
        assert part.shape == (4, 2) and np.isnan(part).all()


def test_a_fit_in_a_batch_has_the_bits_that_it_has_alone():
    model = make_model(2)
    points, parameters, _ = estimates(model, 61, replicates=6)
    # Three samples with two fits each.
    found = standard_errors(points[:3], parameters, model, np.ones(6, bool))
    for index in range(6):
        one = errors_of(points[index // 2], [part[index] for part in parameters], model)
        np.testing.assert_array_equal([part[index] for part in found], one)


def test_chunks_and_pools_change_nothing_but_the_rounding(monkeypatch):
    model = make_model(2)
    points, parameters, _ = estimates(model, 5000, replicates=4)
    wanted = np.array([True, False, True, True])
    whole = standard_errors(points[:2], parameters, model, wanted)
    monkeypatch.setattr(module, "CHUNK", 1024)
    chunked = standard_errors(points[:2], parameters, model, wanted)

    def backwards(function, items):
        return reversed([function(item) for item in reversed(list(items))])

    pooled = standard_errors(points[:2], parameters, model, wanted, backwards)
    for a, b, c in zip(whole, chunked, pooled, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-11)
        np.testing.assert_array_equal(c, b)


@pytest.mark.parametrize("arguments", [(), ("free", "free", "shared"), ("equal",)])
def test_intervals_cover_the_truth(arguments):
    """At n = 2000 the 95 % Wald interval of each parameter covers it in 95 % of 1000 samples."""
    generator = np.random.default_rng(SEED)
    model, replicates, n = make_model(2, *arguments), 1000, 2000
    truth = Parameters(np.array([0.5, 0.5]), np.array([0.0, 3.5]), np.array([1.0, 1.0]))
    points = generator.choice(truth.means, (replicates, n)) + generator.normal(size=(replicates, n))
    starts = Parameters(*(np.tile(part, (replicates, 1, 1)) for part in truth))
    fits = fit(points, np.ones(n), starts, model, "em", Schedule(5000, "map_residual", 1e-10))
    errors = standard_errors(points, fits.parameters, model, fits.outcome == Outcome.CONVERGED)
    for kind, (estimate, error, true) in enumerate(
        zip(fits.parameters, errors, truth, strict=True)
    ):
        if kind == 0 and model.weights != FREE:
            continue
        covered = np.mean(np.abs(estimate - true) <= 1.959964 * error, axis=0)
        # Four standard errors of a share of 1000, and what is left of the bias at this n.
        np.testing.assert_allclose(covered, 0.95, atol=4 * np.sqrt(0.95 * 0.05 / replicates))
        ratio = error.mean(axis=0) / estimate.std(axis=0, ddof=1)
        np.testing.assert_allclose(ratio, 1, atol=4 / np.sqrt(2 * replicates))


PROGRAM = """
import numpy as np
from pipeline.core.information import standard_errors
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model

i = np.arange(1003.0)
noise = sum((i * step) % 1.0 - 0.5 for step in (0.618033988, 0.414213562, 0.732050807))
points = (5.0 * (i % 5 >= 2) + 2.0 * noise)[None]
for arguments in ((), ("free", "free", "shared")):
    theta = Parameters(*(np.array([v]) for v in ([.4, .6], [0.0, 5.0], [1.0, 1.0])))
    found = standard_errors(points, theta, make_model(2, *arguments), np.ones(1, bool))
    print([float(v).hex() for part in found for v in part[0]])
"""


def test_every_instruction_set_gives_the_same_bits(bits_by_cpu):
    printed = bits_by_cpu(PROGRAM)
    assert len(set(printed.values())) == 1
    assert printed["host"].count("nan") == 0
