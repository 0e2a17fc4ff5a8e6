"""Compressed fits beside the exact kernel on the same points."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.core import refinement
from pipeline.core.fitting import Schedule, fit, geometric_iterations, last_rows
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project
from pipeline.core.outcomes import Outcome
from pipeline.core.random import key_from_hex
from pipeline.core.refinement import FEWEST_POINTS, Task, fit_compressed, log_likelihoods
from pipeline.core.sampling import draw
from pipeline.core.starts import draw_starts

KEY = key_from_hex("5566778899aabbcc5566778899aabbcc")
TOLERANCE = 1e-10
N = 60_000
# True weights, means and scales.
CASES = {
    "notebook": ([0.5, 0.5], [0.0, 2.0], [2.0, 1.0]),
    "touching": ([0.5, 0.5], [-0.3, 0.3], [1.0, 1.0]),
    "apart": ([0.5, 0.5], [-3.0, 3.0], [1.0, 1.0]),
    "far apart": ([0.5, 0.5], [-10.0, 10.0], [1.0, 1.0]),
    "three": ([0.3, 0.3, 0.4], [-2.0, 0.0, 3.0], [1.0, 0.3, 2.0]),
    "five": ([0.2] * 5, [-4.0, -2.0, 0.0, 2.0, 4.0], [1.0] * 5),
    "rare": ([0.999, 0.001], [0.0, 5.0], [1.0, 0.2]),
    "offset": ([0.5, 0.5], [1e6, 1e6 + 2.0], [2.0, 1.0]),
}
FIFTY = Schedule(50)
CONVERGE = Schedule(2_000, "map_residual", 1e-8, geometric_iterations(2_000))


def problem(name, replicates=1, n=N):
    truth = Parameters(*(np.array(part, float) for part in CASES[name]))
    return draw(KEY, np.arange(replicates), n, *truth, "multinomial"), truth


def both(points, starts, model, schedule, tolerance=TOLERANCE):
    task = Task(model, "em", schedule)
    exact = fit(points, np.ones(points.shape[1]), starts, *task)
    return fit_compressed(points, starts, task, tolerance), exact


def distance(left, right, unit):
    return max(
        np.max(np.abs(a - b)) / u for a, b, u in zip(left, right, (1, unit, unit), strict=True)
    )


@pytest.mark.parametrize("schedule", [FIFTY, CONVERGE], ids=["fifty", "converge"])
@pytest.mark.parametrize("init", ["truth", "kmeans_pp"])
@pytest.mark.parametrize("name", CASES)
def test_estimates_iterations_and_traces_are_those_of_the_points(name, init, schedule):
    points, truth = problem(name)
    model = make_model(len(truth.means))
    starts = draw_starts(init, points, model, truth, KEY, [0], range(1))
    found, exact = both(points, starts, model, schedule)
    unit = points.std()
    assert found.outcome[0] == exact.outcome[0]
    assert found.n_iter[0] == exact.n_iter[0]
    np.testing.assert_array_equal(found.trace.iteration, exact.trace.iteration)
    rounding = 1e-14 + 4e-16 * np.max(np.abs(points)) / unit
    bound = found.compression_error_bound[0] + rounding
    assert 0 <= found.compression_error_bound[0] <= TOLERANCE
    assert distance(found.parameters, exact.parameters, unit) <= min(bound, 1e-9)
    assert distance(found.trace.parameters, exact.trace.parameters, unit) <= bound
    np.testing.assert_allclose(found.log_likelihood, exact.log_likelihood, rtol=1e-13)
    np.testing.assert_allclose(found.trace.log_likelihood, exact.trace.log_likelihood, rtol=1e-12)
    # The residual of an estimate that is off by the bound.
    assert found.map_residual[0] == pytest.approx(exact.map_residual[0], abs=2 * bound)
    first = found.trace.iteration == 0
    for part, start in zip(found.trace.parameters, starts, strict=True):
        np.testing.assert_array_equal(part[first], start[0])


@pytest.mark.parametrize(
    "arguments",
    [("equal",), ("free", "free", "shared"), ("free", "free", 1.5), ("equal", "symmetric", 1.0)],
)
def test_every_model(arguments):
    points, truth = problem("touching")
    model = make_model(2, *arguments)
    starts = project(model, Parameters(*(part[None, None] for part in truth)))
    found, exact = both(points, starts, model, CONVERGE)
    assert found.compression_error_bound[0] > 0
    assert found.n_iter[0] == exact.n_iter[0]
    assert distance(found.parameters, exact.parameters, points.std()) < 1e-12


def test_the_last_row_is_evaluated_on_the_points():
    points, truth = problem("notebook")
    model = make_model(2)
    starts = draw_starts("kmeans_pp", points, model, truth, KEY, [0], range(1))
    # Two runs agree on anything: what is returned comes from far too few nodes.
    found = fit_compressed(points, starts, Task(model, "em", CONVERGE), 1e-3)
    estimate = Parameters(*(part[None] for part in found.parameters))
    again = fit(points, np.ones(N), estimate, model, "em", Schedule(0))
    assert found.log_likelihood[0] == pytest.approx(again.log_likelihood[0], rel=1e-14)
    assert found.trace.log_likelihood[-1] == found.log_likelihood[0]
    assert found.map_residual[0] == pytest.approx(again.map_residual[0], rel=1e-6)


def test_a_collapse_that_no_bins_resolve_is_run_on_the_points():
    points, _ = problem("notebook")
    points[0, :3] = 30.0
    model = make_model(2)
    start = Parameters(np.array([[[0.999, 0.001]]]), np.array([[[1.0, 30.0]]]), np.ones((1, 1, 2)))
    found, exact = both(points, start, model, CONVERGE)
    assert found.outcome[0] == exact.outcome[0] == Outcome.DEGENERATE_SCALE
    assert found.compression_error_bound[0] == 0
    for part, expected in zip(found.trace.parameters, exact.trace.parameters, strict=True):
        np.testing.assert_array_equal(part, expected)


def test_a_narrow_component_gets_narrow_bins():
    weights, means, scales = np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.array([1.0, 0.02])
    points = draw(KEY, [0], 400_000, weights, means, scales, "multinomial")
    model = make_model(2)
    starts = Parameters(*(part[None, None] for part in (weights, means + 0.01, scales * 1.5)))
    found, exact = both(points, starts, model, CONVERGE)
    assert found.compression_error_bound[0] > 0
    assert found.n_iter[0] == exact.n_iter[0]
    assert distance(found.parameters, exact.parameters, points.std()) < 1e-12


def test_more_nodes_than_points_are_worth_are_not_used(monkeypatch):
    monkeypatch.setattr(refinement, "MOST_NODES", 1e-3)
    points, truth = problem("notebook")
    model = make_model(2)
    starts = draw_starts("truth", points, model, truth, KEY, [0], range(1))
    found, exact = both(points, starts, model, FIFTY)
    assert found.compression_error_bound[0] == 0
    for part, expected in zip(found.parameters, exact.parameters, strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("record", [None, [0, 3, 17], list(geometric_iterations(60))])
def test_the_trace_has_the_rows_that_the_schedule_names(record):
    points, truth = problem("three")
    model = make_model(3)
    starts = draw_starts("random_points", points, model, truth, KEY, [0], range(2))
    schedule = Schedule(60, record=None if record is None else np.array(record))
    found, exact = both(points, starts, model, schedule)
    np.testing.assert_array_equal(found.trace.iteration, exact.trace.iteration)
    np.testing.assert_array_equal(found.trace.fit, exact.trace.fit)
    at_end = last_rows(found.trace)
    np.testing.assert_array_equal(found.trace.parameters.means[at_end], found.parameters.means)


def test_replicates_without_a_trace_keep_its_ends():
    points, truth = problem("apart", replicates=2)
    model = make_model(2)
    starts = draw_starts("random_points", points, model, truth, KEY, range(2), range(1))
    task = Task(model, "em", FIFTY)
    found = fit_compressed(points, starts, task, TOLERANCE, np.array([False, True]))
    assert found.trace.iteration[found.trace.fit == 0].tolist() == [0, 50]
    assert found.trace.iteration[found.trace.fit == 1].tolist() == list(range(51))


def test_a_fit_depends_on_its_own_sample_and_start_only():
    points, truth = problem("three", replicates=2)
    model = make_model(3)
    starts = draw_starts("random_points", points, model, truth, KEY, range(2), range(3))
    task = Task(model, "em", CONVERGE)
    every = fit_compressed(points, starts, task, TOLERANCE)
    for r in range(2):
        for s in range(3):
            alone = Parameters(*(part[r : r + 1, s : s + 1] for part in starts))
            found = fit_compressed(points[r : r + 1], alone, task, TOLERANCE)
            assert found.compression_error_bound[0] == every.compression_error_bound[3 * r + s]
            assert found.log_likelihood[0] == every.log_likelihood[3 * r + s]
            rows = every.trace.fit == 3 * r + s
            for part, expected in zip(found.trace.parameters, every.trace.parameters, strict=True):
                np.testing.assert_array_equal(part, expected[rows])


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr("pipeline.core.compression.CHUNK", 7_000)
    monkeypatch.setattr("pipeline.core.evaluation.CHUNK", 7_000)
    points, truth = problem("notebook")
    model = make_model(2)
    starts = draw_starts("random_points", points, model, truth, KEY, [0], range(1))
    task = Task(model, "em", CONVERGE)
    alone = fit_compressed(points, starts, task, TOLERANCE)
    with ThreadPoolExecutor(4) as pool:
        together = fit_compressed(points, starts, task, TOLERANCE, mapping=pool.map)
    assert alone.log_likelihood[0] == together.log_likelihood[0]
    assert alone.map_residual[0] == together.map_residual[0]
    for part, expected in zip(alone.trace.parameters, together.trace.parameters, strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("n", [FEWEST_POINTS - 1, FEWEST_POINTS, N])
def test_log_likelihood_of_a_large_sample_is_the_sum_of_log_densities(n):
    points, truth = problem("offset", replicates=2, n=n)
    z = (points[..., None] - truth.means) / truth.scales
    densities = truth.weights / truth.scales * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    expected = np.log(densities.sum(axis=-1)).sum(axis=-1)
    np.testing.assert_allclose(log_likelihoods(points, truth), expected, rtol=1e-13)
