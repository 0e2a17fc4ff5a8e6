"""The population itself: nodes of the true density, and EM on them."""

import mpmath
import numpy as np
import pytest

from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters, mixture_standard_deviation
from pipeline.core.model import make_model, project
from pipeline.core.outcomes import Outcome
from pipeline.core.population import legendre_rule, population_nodes
from pipeline.core.refinement import PANELS, Task, fit_population

TRUTHS = {
    "notebook": ([0.5, 0.5], [0.0, 2.0], [2.0, 1.0]),
    "touching": ([0.5, 0.5], [-0.3, 0.3], [1.0, 1.0]),
    "apart": ([0.3, 0.7], [-10.0, 10.0], [1.0, 1.0]),
    "scales 1 to 1e-4": ([0.5, 0.5], [0.0, 0.5], [1.0, 1e-4]),
    "rare": ([0.999, 0.001], [0.0, 5.0], [1.0, 0.2]),
    "five": ([0.2] * 5, [-4.0, -2.0, 0.0, 2.0, 4.0], [1.0, 0.5, 1.0, 0.2, 1.0]),
}


def mixture(name):
    return Parameters(*(np.array(part, float) for part in TRUTHS[name]))


def batch(parameters):
    return Parameters(*(part[None, None] for part in parameters))


def test_legendre_rule():
    nodes, masses = legendre_rule(10)
    expected_nodes, expected_masses = np.polynomial.legendre.leggauss(10)
    order = np.argsort(nodes)
    np.testing.assert_allclose(nodes[order], expected_nodes, atol=1e-15)
    np.testing.assert_allclose(masses[order], expected_masses, rtol=1e-14)


@pytest.mark.parametrize("width", PANELS)
@pytest.mark.parametrize("name", TRUTHS)
def test_a_fixed_point_is_fixed(name, width):
    truth = mixture(name)
    nodes, masses = population_nodes(truth, [], [], width)
    model = make_model(len(truth.means))
    found = fit(nodes[None], masses, batch(truth), model, "em", Schedule(0), all_lanes=True)
    assert found.map_residual[0] < 1e-14


@pytest.mark.parametrize("name", TRUTHS)
def test_moments_are_the_mixtures(name):
    truth = mixture(name)
    nodes, masses = population_nodes(truth, [], [], PANELS[0])
    scale = mixture_standard_deviation(truth)
    mean = np.sum(truth.weights * truth.means)
    assert masses.sum() == pytest.approx(1, abs=1e-15)
    assert np.sum(masses * nodes) == pytest.approx(mean, abs=1e-14 * max(scale, 1))
    assert np.sqrt(np.sum(masses * (nodes - mean) ** 2)) == pytest.approx(scale, rel=1e-14)


def test_one_iteration_against_integrals_in_thirty_digits():
    truth = mixture("notebook")
    start = Parameters(np.array([0.3, 0.7]), np.array([-1.0, 1.5]), np.array([0.5, 1.5]))
    breaks = [-20, *np.linspace(-6, 6, 25), 22]

    def density(theta, x):
        return [w * mpmath.npdf(x, m, s) for w, m, s in zip(*theta, strict=True)]

    def integral(function):
        with mpmath.workdps(30):
            value = mpmath.quad(
                lambda x: mpmath.fsum(density(truth, x)) * function(x, density(start, x)), breaks
            )
            return float(value)

    expected = integral(lambda x, parts: mpmath.log(mpmath.fsum(parts)))
    counts = [integral(lambda x, p, k=k: p[k] / mpmath.fsum(p)) for k in range(2)]
    means = [integral(lambda x, p, k=k: x * p[k] / mpmath.fsum(p)) / counts[k] for k in range(2)]
    squares = [
        integral(lambda x, p, k=k: (x - means[k]) ** 2 * p[k] / mpmath.fsum(p)) for k in range(2)
    ]
    found = fit_population(truth, batch(start), Task(make_model(2), "em", Schedule(1)), 1e-10)
    assert found.log_likelihood_start[0] == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(found.parameters.weights[0], counts, rtol=1e-14)
    np.testing.assert_allclose(found.parameters.means[0], means, atol=1e-14)
    np.testing.assert_allclose(
        found.parameters.scales[0], np.sqrt(np.array(squares) / counts), rtol=1e-14
    )


@pytest.mark.parametrize("name", ["notebook", "apart", "scales 1 to 1e-4", "rare"])
def test_plain_em_reaches_the_truth(name):
    truth = mixture(name)
    start = Parameters(
        np.full(2, 0.5), truth.means + [-0.2, 0.1] * truth.scales, 1.3 * truth.scales
    )
    schedule = Schedule(20_000, "map_residual", 1e-13, np.array([0]))
    found = fit_population(truth, batch(start), Task(make_model(2), "em", schedule), 1e-10)
    assert found.outcome[0] == Outcome.CONVERGED
    for part, expected in zip(found.parameters, truth, strict=True):
        np.testing.assert_allclose(part[0], expected, atol=1e-9)
    assert found.compression_error_bound[0] < 1e-10


def test_a_start_far_narrower_than_the_truth_is_resolved():
    """One EM step from a spike: its responsibility is that of a point."""
    truth = mixture("notebook")
    spike, wide = 1e-4, 2.0
    start = Parameters(np.array([0.5, 0.5]), np.array([0.7, 0.0]), np.array([spike, wide]))
    found = fit_population(truth, batch(start), Task(make_model(2), "em", Schedule(1)), 1e-10)
    with mpmath.workdps(40):
        edges = [0.7 + spike * z for z in range(-40, 41)]

        def share(x):
            near = mpmath.npdf(x, 0.7, spike)
            density = mpmath.fsum(w * mpmath.npdf(x, m, s) for w, m, s in zip(*truth, strict=True))
            return density * near / (near + mpmath.npdf(x, 0.0, wide))

        expected = float(mpmath.quad(share, edges))
    assert found.parameters.weights[0, 0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "arguments", [("equal",), ("free", "free", "shared"), ("equal", "symmetric", 1.0)]
)
def test_every_model_fits_the_population(arguments):
    truth = Parameters(np.full(2, 0.5), np.array([1.0, -1.0]), np.ones(2))
    model = make_model(2, *arguments)
    start = project(
        model, batch(Parameters(np.array([0.4, 0.6]), np.array([2.0, -1.5]), np.array([1.5, 0.7])))
    )
    task = Task(model, "em", Schedule(20_000, "map_residual", 1e-12))
    found = fit_population(truth, start, task, 1e-10)
    assert found.outcome[0] == Outcome.CONVERGED
    np.testing.assert_allclose(found.parameters.means[0], truth.means, atol=1e-8)
