"""The Jacobian of the EM map and its spectral radius."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import FREE, SHARED, SYMMETRIC, make_model, project
from pipeline.core.outcomes import Outcome
from pipeline.core.population import population_nodes
from pipeline.core.rates import jacobians, rate_theory
from pipeline.core.refinement import Task, fit_compressed, fit_population
from pipeline.core.spectral import spectral_radii
from tests.core.models import models

SEED = 31
every_model = pytest.mark.parametrize("model", list(models(range(1, 6))))


def em_map(points, masses, theta, model):
    """EM by its formulas, in complex numbers; ``theta`` (3, K), ``points`` about 0."""
    weights, means, scales = theta
    x = points[:, None]
    log_joint = np.log(weights) - np.log(scales) - ((x - means) / scales) ** 2 / 2
    joint = np.exp(log_joint - log_joint.real.max(axis=1, keepdims=True))
    shares = masses[:, None] * joint / joint.sum(axis=1, keepdims=True)
    counts = shares.sum(axis=0)
    weights = counts / masses.sum() if model.weights == FREE else model.fixed_weights + 0j
    if model.means == SYMMETRIC:
        # With a shared scale, the common factor is not to be differentiated.
        signs = np.array([1, -1])
        precision = 1 if model.scales == SHARED else 1 / model.fixed_scales**2
        t = np.sum(precision * signs * (shares * x).sum(axis=0)) / np.sum(precision * counts)
        means = signs * t
    else:
        means = (shares * x).sum(axis=0) / counts
    squares = (shares * (x - means) ** 2).sum(axis=0)
    if model.scales == FREE:
        scales = np.sqrt(squares / counts)
    elif model.scales == SHARED:
        scales = np.full(len(counts), np.sqrt(squares.sum() / masses.sum()))
    else:
        scales = model.fixed_scales + 0j
    return np.array([weights, means, scales]), counts.real


def complex_step(points, masses, theta, model):
    """Return the map's Jacobian (3 K, 3 K) in the parameters themselves, and the counts."""
    theta = np.array(theta)
    columns = []
    for i in range(theta.size):
        moved = theta.astype(complex)
        moved.flat[i] += 1e-30j
        mapped, counts = em_map(points, masses, moved, model)
        columns.append(mapped.imag.ravel() / 1e-30)
    return np.array(columns).T, counts


def expected_jacobian(points, masses, theta, model):
    """Return the Jacobian of what is estimated, in the coordinates of ``jacobians``."""
    jacobian, counts = complex_step(points, masses, theta, model)
    weights, _, scales = theta
    units = np.sqrt(counts) * np.array([1 / weights, 1 / scales, np.sqrt(2) / scales])
    units = units.ravel()
    jacobian = units[:, None] * jacobian / units
    kinds = [model.weights == FREE, True, model.scales in (FREE, SHARED)]
    chosen = np.repeat(kinds, model.n_components)
    return jacobian[np.ix_(chosen, chosen)]


def random_case(model, n, heavy):
    generator = np.random.default_rng(SEED)
    k = model.n_components
    points = 2.0 * generator.integers(-1, 2, n) + generator.normal(size=n)
    masses = generator.uniform(0.2, 3.0, n) if heavy else np.ones(n)
    start = (
        generator.dirichlet(np.full(k, 5.0)),
        generator.normal(0.0, 2.0, k),
        generator.uniform(0.6, 1.8, k),
    )
    return points, masses, project(model, Parameters(*start))


def rate_of(points, masses, theta, model):
    """Return the rate of one mixture (K,)."""
    batch = Parameters(*(part[None] for part in theta))
    return rate_theory(points[None], masses, batch, model, np.ones(1, bool))[0]


@pytest.mark.parametrize("heavy", [False, True], ids=["unit masses", "masses"])
@pytest.mark.parametrize("n", [40, 519, 5003])
@every_model
def test_jacobian_against_the_complex_step(model, n, heavy):
    points, masses, theta = random_case(model, n, heavy)
    expected = expected_jacobian(points, masses, theta, model)
    found = jacobians(points[None], masses, np.array(theta)[None], np.zeros(1, int), model, None)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max() + 1e-13)
    radius = np.abs(np.linalg.eigvals(expected)).max()
    assert spectral_radii(found[None])[0] == pytest.approx(radius, rel=1e-12, abs=1e-13)


def converged_fits(model, n, separation):
    """Fit four samples from near their truths."""
    generator = np.random.default_rng(SEED)
    centres = separation * np.arange(model.n_components)
    if model.means == SYMMETRIC:
        centres = np.array([0.5, -0.5]) * separation
    points = generator.choice(centres, (4, n)) + generator.normal(size=(4, n))
    ones = np.ones(model.n_components)
    start = project(model, Parameters(ones / ones.size, 1.2 * centres, 1.1 * ones))
    starts = Parameters(*(np.tile(part, (4, 1, 1)) for part in start))
    schedule = Schedule(200_000, "map_residual", 1e-13)
    return points, fit(points, np.ones(n), starts, model, "em", schedule)


@pytest.mark.parametrize("n", [60, 700])
@every_model
def test_rate_at_converged_fits(model, n):
    points, fits = converged_fits(model, n, 3.0)
    converged = fits.outcome == Outcome.CONVERGED
    assert converged.any()
    np.testing.assert_array_equal(np.isnan(fits.rate_theory), ~converged)
    for index in np.flatnonzero(converged):
        theta = np.array([part[index] for part in fits.parameters])
        jacobian, _ = complex_step(points[index], np.ones(n), theta, model)
        values = np.linalg.eigvals(jacobian)
        assert fits.rate_theory[index] == pytest.approx(np.abs(values).max(), rel=1e-10, abs=1e-12)
        # Those of fractions of missing information; 1 where two components coincide.
        assert np.abs(values.imag).max() < 1e-7
        assert values.real.min() > -1e-7
        assert values.real.max() < 1 + 1e-7


@pytest.mark.parametrize("model", list(models([2, 3])))
def test_changes_of_a_long_run_shrink_at_this_rate(model):
    points, fits = converged_fits(model, 400, 2.5)
    seen = 0
    for index in np.flatnonzero(fits.outcome == Outcome.CONVERGED):
        rate = fits.rate_theory[index]
        if not 0.1 < rate < 0.995:
            continue
        theta = np.array([part[index] for part in fits.parameters])
        jacobian, _ = complex_step(points[index], np.ones(400), theta, model)
        values, vectors = np.linalg.eig(jacobian)
        # From along the slowest direction, that the others have died out before the digits end.
        slowest = vectors[:, np.argmax(np.abs(values))].real.reshape(theta.shape)
        start = Parameters(*(theta + 1e-5 * slowest)[:, None, None])
        run = fit(points[[index]], np.ones(400), start, model, "em", Schedule(4000))
        path = np.hstack(run.trace.parameters)
        changes = np.linalg.norm(np.diff(path, axis=0), axis=1)
        late = np.flatnonzero(changes > 1e-9)[-1]
        assert changes[late + 1] / changes[late] == pytest.approx(rate, rel=3e-6)
        seen += 1
    assert seen


@pytest.mark.parametrize("arguments", [(), ("free", "free", "shared"), ("equal", "free", 2.0)])
def test_one_component_arrives_in_one_step(arguments):
    model = make_model(1, *arguments)
    points, masses, theta = random_case(model, 50, True)
    assert rate_of(points, masses, theta, model) == 0


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_saddle_in_closed_form(scale):
    """Two equal components at the sample's mean: what moves them apart grows by variance ratio."""
    generator = np.random.default_rng(SEED)
    model = make_model(2, "equal", "free", scale)
    points = generator.normal(5.0, 1.0, 100)
    theta = Parameters(np.full(2, 0.5), np.full(2, points.mean()), np.full(2, scale))
    expected = points.var() / scale**2
    assert rate_of(points, np.ones(100), theta, model) == pytest.approx(expected, rel=1e-13)


def test_population_of_components_far_apart():
    truth = Parameters(np.array([0.3, 0.7]), np.array([-6.0, 6.0]), np.array([1.0, 1.0]))
    nodes, masses = population_nodes(truth, [], [], 0.25)
    assert 0 < rate_of(nodes, masses, truth, make_model(2)) < 1e-5


@pytest.mark.parametrize("separation", [1.0, 2.0, 4.0])
def test_population_by_the_points_of_a_grid(separation):
    truth = Parameters(np.array([0.4, 0.6]), np.array([0.0, separation]), np.array([1.0, 0.7]))
    start = Parameters(*(part[None, None] for part in truth))
    task = Task(make_model(2), "em", Schedule(100, "map_residual", 1e-10))
    found = fit_population(truth, start, task, 1e-10).rate_theory[0]
    x = np.linspace(-12.0, 14.0, 20_001)
    z = (x[:, None] - truth.means) / truth.scales
    masses = np.sum(truth.weights / truth.scales * np.exp(-0.5 * z**2), axis=1)
    jacobian, _ = complex_step(x, masses / masses.sum(), np.array(truth), task.model)
    assert found == pytest.approx(np.abs(np.linalg.eigvals(jacobian)).max(), rel=1e-10)


def test_compressed_samples_have_the_rate_of_their_points():
    generator = np.random.default_rng(SEED)
    truth = Parameters(np.array([0.4, 0.6]), np.array([0.0, 3.0]), np.array([1.0, 0.7]))
    chosen = generator.random(30_001) < truth.weights[0]
    points = np.where(chosen, generator.normal(0, 1, 30_001), generator.normal(3, 0.7, 30_001))
    points += 1e3
    start = Parameters(
        truth.weights[None, None], truth.means[None, None] + 1e3, truth.scales[None, None]
    )
    task = Task(make_model(2), "em", Schedule(2000, "map_residual", 1e-10))
    fits = fit_compressed(points[None], start, task, 1e-10)
    theta = Parameters(*(part[0] for part in fits.parameters))
    expected = rate_of(points, np.ones(points.size), theta, task.model)
    assert fits.rate_theory[0] == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    shift=st.floats(-1e3, 1e3),
    factor=st.floats(1e-3, 1e3),
    flip=st.booleans(),
    seed=st.integers(0, 99),
)
def test_affine_maps_and_orders_change_nothing(shift, factor, flip, seed):
    draw = np.random.default_rng(seed)
    model = make_model(3)
    points, theta = draw.normal(size=80) * 2, draw.normal(size=3)
    theta = Parameters(draw.dirichlet(np.ones(3) * 5), theta, draw.uniform(0.5, 2, 3))
    factor = -factor if flip else factor
    order = draw.permutation(3)
    moved = Parameters(theta.weights, factor * theta.means + shift, abs(factor) * theta.scales)
    moved = Parameters(*(part[order] for part in moved))
    expected = rate_of(points, np.ones(80), theta, model)
    # The digits that the data lose by the shift.
    tolerance = 1e-12 * (1 + abs(shift / factor))
    found = rate_of(factor * draw.permutation(points) + shift, np.ones(80), moved, model)
    assert found == pytest.approx(expected, rel=tolerance)


def test_an_offset_costs_only_the_digits_of_the_data():
    model = make_model(2)
    # Multiples of 2^-20 are exact at an offset of 1e8.
    points, masses, theta = random_case(model, 600, False)
    points, means = np.round(points * 2**20) / 2**20, np.round(theta.means * 2**20) / 2**20
    theta = theta._replace(means=means)
    moved = theta._replace(means=means + 1e8)
    expected = rate_of(points, masses, theta, model)
    assert rate_of(points + 1e8, masses, moved, model) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [40, 600])
def test_a_fit_in_a_batch_has_the_bits_that_it_has_alone(n):
    generator = np.random.default_rng(SEED)
    model = make_model(3)
    points = generator.normal(size=(5, n))
    theta = Parameters(
        generator.dirichlet(np.ones(3) * 5, 10),
        generator.normal(size=(10, 3)),
        generator.uniform(0.5, 2, (10, 3)),
    )
    wanted = np.arange(10) != 4
    rates = rate_theory(points, np.ones(n), theta, model, wanted)
    assert np.isnan(rates[4])
    for index in np.flatnonzero(wanted):
        one = Parameters(*(part[index] for part in theta))
        assert rate_of(points[index // 2], np.ones(n), one, model) == rates[index]


def test_what_is_not_finite_is_missing():
    model = make_model(2)
    theta = Parameters(np.full(2, 0.5), np.array([0.0, np.nan]), np.ones(2))
    assert np.isnan(rate_of(np.arange(9.0), np.ones(9), theta, model))
    theta = Parameters(np.full(2, 0.5), np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert np.isnan(rate_of(np.arange(9.0), np.ones(9), theta, model))


PROGRAM = """
import numpy as np
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project
from pipeline.core.rates import rate_theory

generator = np.random.default_rng(3)
for arguments in ((), ("equal", "free", "shared")):
    for n, n_components in ((40, 2), (40, 3), (5003, 4)):
        points = 2.0 * generator.integers(-1, 2, (9, n)) + generator.random((9, n))
        theta = Parameters(*generator.uniform(0.5, 2.0, (3, 9, n_components)))
        weights = theta.weights / theta.weights.sum(axis=1, keepdims=True)
        model = make_model(n_components, *arguments)
        theta = project(model, theta._replace(weights=weights))
        rates = rate_theory(points, np.ones(n), theta, model, np.ones(9, bool))
        print([rate.hex() for rate in rates])
"""


def test_every_instruction_set_gives_the_same_bits(bits_by_cpu):
    found = bits_by_cpu(PROGRAM)
    assert len(set(found.values())) == 1, found
