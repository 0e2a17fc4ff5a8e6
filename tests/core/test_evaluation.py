"""One E-step and M-step on a large sample, in chunks."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.core import evaluation
from pipeline.core.evaluation import evaluate
from pipeline.core.fitting import Schedule, fit
from pipeline.core.lanes import units
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project

generator = np.random.default_rng(12)
POINTS = np.concatenate([generator.normal(0, 1, 9_000), generator.normal(4, 0.5, 11_003)])
MODELS = {
    "free": (),
    "equal weights": ("equal",),
    "shared scale": ("free", "free", "shared"),
    "symmetric": ("equal", "symmetric", 1.0),
}


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("arguments", MODELS.values(), ids=MODELS)
def test_equals_the_fit_that_takes_no_iteration(arguments, n_components, monkeypatch):
    if "symmetric" in arguments and n_components != 2:
        pytest.skip("two components")
    monkeypatch.setattr(evaluation, "CHUNK", 7_000)
    model = make_model(n_components, *arguments)
    theta = [np.full(n_components, 1 / n_components), np.linspace(-1, 5, n_components), [0.8, 1, 2]]
    theta[2] = np.array(theta[2][:n_components])
    start = project(model, Parameters(*(part[None, None] for part in theta)))
    ones = np.ones(POINTS.size)
    expected = fit(POINTS[None], ones, start, model, "em", Schedule(0))
    measure = units(POINTS, ones, model)
    moved = Parameters(*(part[0, 0] for part in start))
    moved = moved._replace(means=moved.means - measure[1])
    log_likelihood, residual = evaluate(POINTS, moved, model, measure)
    assert log_likelihood == pytest.approx(expected.log_likelihood[0], rel=1e-14)
    assert residual == pytest.approx(expected.map_residual[0], rel=1e-12)


def test_a_variance_that_loses_digits_is_summed_again():
    # The component's mean is far from its points: its squares cancel by fourteen digits.
    points = generator.normal(0.0, 1e-7, 20_000) + 1.0
    model = make_model(1)
    theta = Parameters(np.ones(1), np.array([-1e3]), np.array([1e3]))
    unit = float(np.std(points))
    _, residual = evaluate(points, theta, model, (unit, 0.0, 0))
    mapped = 1e3 - unit
    assert residual == pytest.approx(max(mapped, points.mean() + 1e3) / unit, rel=1e-13)


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 500)
    model = make_model(2)
    theta = Parameters(np.array([0.4, 0.6]), np.array([0.0, 3.0]), np.array([1.0, 1.0]))
    measure = (1.0, 0.5, 1)
    with ThreadPoolExecutor(4) as pool:
        assert evaluate(POINTS, theta, model, measure) == evaluate(
            POINTS, theta, model, measure, pool.map
        )
