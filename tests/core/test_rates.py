"""The Jacobian of the EM map and its spectral radius."""

import numpy as np
import pytest

from pipeline.core.mixture import Parameters
from pipeline.core.model import FREE, SHARED, SYMMETRIC, make_model, project
from pipeline.core.rates import jacobians, rate_theory, spectral_radii

generator = np.random.default_rng(31)
MODELS = {
    "free": (),
    "equal weights": ("equal",),
    "shared scale": ("free", "free", "shared"),
    "equal weights, shared scale": ("equal", "free", "shared"),
    "fixed scales": ("free", "free", 1.3),
    "means only": ("equal", "free", 0.8),
    "symmetric": ("equal", "symmetric", 1.0),
    "symmetric, free weights": ("free", "symmetric", [0.7, 1.4]),
    "symmetric, shared scale": ("free", "symmetric", "shared"),
}


def models(counts):
    for name, arguments in MODELS.items():
        for n_components in counts:
            if "symmetric" not in name or n_components == 2:
                yield pytest.param(make_model(n_components, *arguments), id=f"{name}-{n_components}")


every_model = pytest.mark.parametrize("model", list(models(range(1, 6))))


def em_map(points, masses, theta, model):
    """EM by its formulas, in complex numbers; ``theta`` (3, K), ``points`` about 0."""
    weights, means, scales = theta
    x = points[:, None]
    log_joint = np.log(weights) - np.log(scales) - ((x - means) / scales) ** 2 / 2
    joint = np.exp(log_joint - log_joint.real.max(axis=1, keepdims=True))
    shares = masses[:, None] * joint / joint.sum(axis=1, keepdims=True)
    counts = shares.sum(axis=0)
    if model.weights == FREE:
        weights = counts / masses.sum()
    else:
        weights = model.fixed_weights + 0j
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
    k = model.n_components
    points = 2.0 * generator.integers(-1, 2, n) + generator.normal(size=n)
    masses = generator.uniform(0.2, 3.0, n) if heavy else np.ones(n)
    theta = project(
        model,
        Parameters(
            generator.dirichlet(np.full(k, 5.0)),
            generator.normal(0.0, 2.0, k),
            generator.uniform(0.6, 1.8, k),
        ),
    )
    return points, masses, theta


@pytest.mark.parametrize("heavy", [False, True], ids=["unit masses", "masses"])
@pytest.mark.parametrize("n", [40, 519, 5003])
@every_model
def test_jacobian_against_the_complex_step(model, n, heavy):
    points, masses, theta = random_case(model, n, heavy)
    expected = expected_jacobian(points, masses, theta, model)
    found = jacobians(points[None], masses, np.array(theta)[None], np.zeros(1, int), model)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max() + 1e-13)
    radius = np.abs(np.linalg.eigvals(expected)).max()
    assert spectral_radii(found[None])[0] == pytest.approx(radius, rel=1e-12, abs=1e-13)
