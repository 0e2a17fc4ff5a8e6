"""Paths in the plane of two means: the contours' values by hand, and the paths of the table."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.core.mixture import Parameters
from pipeline.plots import png_bytes, svg_bytes
from pipeline.plots.group import parameters_of
from pipeline.plots.plane import (
    _best,
    _moving,
    _paths,
    _sample,
    contour_drops,
    log_likelihoods,
)
from tests.factories import make_study
from tests.plots.conftest import draw, groups_of


def naive(points, masses, weights, means, scales):
    """Return the log-likelihood by its definition, one point and one component at a time."""
    total = 0.0
    for x, mass in zip(points, masses, strict=True):
        density = 0.0
        for w, m, s in zip(weights, means, scales, strict=True):
            density += w / (s * math.sqrt(2 * math.pi)) * math.exp(-((x - m) ** 2) / (2 * s * s))
        total += mass * math.log(density)
    return total


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_contour_values_are_the_log_likelihood_by_hand(pair):
    random = np.random.default_rng(11)
    points, masses = random.normal(size=30), random.uniform(0.5, 2, 30)
    held = Parameters(np.array([0.2, 0.5, 0.3]), np.array([-1.0, 0.5, 2.0]), np.array([0.5, 1, 2]))
    first, second = np.array([-1.0, 0.0, 3.0]), np.array([-2.0, 1.5])
    heights = log_likelihoods(points, masses, held, pair, (first, second))
    assert heights.shape == (2, 3)
    for i, y in enumerate(second):
        for j, x in enumerate(first):
            means = held.means.copy()
            means[pair[0]], means[pair[1]] = x, y
            expected = naive(points, masses, held.weights, means, held.scales)
            assert heights[i, j] == pytest.approx(expected, rel=1e-13)


def test_points_out_of_reach_are_very_unlikely_and_finite():
    held = Parameters(np.array([0.5, 0.5]), np.array([0.0, 1.0]), np.array([1e-3, 1e-3]))
    values = np.array([0.0, 1.0])
    heights = log_likelihoods(np.array([50.0]), np.ones(1), held, (0, 1), (values, values))
    assert np.isfinite(heights).all() and (heights < -600).all()


def test_the_best_fit_ends_at_its_log_likelihood(study):
    for size in study.sizes:
        held = _best(study, _paths(study, size))
        cells = [cell.id for cell in study.panel(size)]
        fits = study.fits[study.fits["cell"].isin(cells) & (study.fits["replicate"] == 0)]
        best = fits.loc[fits["log_likelihood"].idxmax()]
        np.testing.assert_array_equal(held.means, [best["mean_0"], best["mean_1"]])
        cell = study.panel(size)[0]
        means = tuple(held.means[[k]] for k in (0, 1))
        height = log_likelihoods(*_sample(study, cell, held), held, (0, 1), means)
        assert height[0, 0] == pytest.approx(best["log_likelihood"], rel=1e-12)


def test_paths_are_the_traces_and_end_at_the_estimates(study):
    figure = draw(study, "mean_plane")
    for axes, size in zip(figure.axes, study.sizes, strict=True):
        drawn = [np.asarray(line.get_xydata()) for line in axes.lines if line.get_marker() == "."]
        ends = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "s"]
        (truth,) = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "X"]
        np.testing.assert_array_equal(truth, study.truth.means)
        expected = [
            trace[["mean_0", "mean_1"]].to_numpy()
            for cell in study.panel(size)
            for start in range(2)
            for trace in [
                study.traces[
                    (study.traces["cell"] == cell.id)
                    & (study.traces["replicate"] == 0)
                    & (study.traces["start"] == start)
                ].sort_values("iteration")
            ]
        ]
        assert len(drawn) == len(expected) == 4
        for path, end, trace in zip(drawn, ends, expected, strict=True):
            np.testing.assert_array_equal(path, trace)
            np.testing.assert_array_equal(end, trace[-1])


def test_many_points_are_replaced_by_nodes_that_give_the_same(study):
    random = np.random.default_rng(2)
    points = random.normal([[0.0], [2.0]], [[2.0], [1.0]], (2, 5000)).ravel()
    cell = study.cells[0]
    many = replace(study, points={cell.id: points})
    held = Parameters(np.array([0.5, 0.5]), np.array([0.2, 2.1]), np.array([1.9, 1.0]))
    nodes, masses = _sample(many, cell, held)
    assert len(nodes) < 2000 and masses.sum() == pytest.approx(10_000)
    values = np.array([-1.0, 0.5, 2.0])
    coarse = log_likelihoods(nodes, masses, held, (0, 1), (values, values))
    exact = log_likelihoods(points, np.ones(10_000), held, (0, 1), (values, values))
    np.testing.assert_allclose(coarse, exact, rtol=1e-8)


def test_the_population_is_integrated(study):
    held = Parameters(np.array([0.4, 0.6]), np.array([0.2, 2.1]), np.array([1.9, 1.0]))
    population = replace(study, points={})
    nodes, masses = _sample(population, study.cells[0], held)
    height = log_likelihoods(nodes, masses, held, (0, 1), (held.means[[0]], held.means[[1]]))[0, 0]
    x = np.linspace(-20, 20, 400_001)
    true = np.zeros_like(x)
    for w, m, s in zip(*study.truth, strict=True):
        true += w / s * np.exp(-0.5 * ((x - m) / s) ** 2) / math.sqrt(2 * math.pi)
    fitted = np.zeros_like(x)
    for w, m, s in zip(*held, strict=True):
        fitted += w / s * np.exp(-0.5 * ((x - m) / s) ** 2) / math.sqrt(2 * math.pi)
    expected = np.sum(true * np.log(fitted)) * (x[1] - x[0])
    assert height == pytest.approx(expected, rel=1e-9)


def test_components_whose_means_move_most_are_shown():
    traces = pd.DataFrame(
        {
            "cell": "a",
            "start": [0, 0, 1, 1],
            "mean_0": [0.0, 1.0, 0.0, -1.0],
            "mean_1": [0.0, 0.1, 5.0, 5.0],
            "mean_2": [0.0, -3.0, 0.0, 0.0],
        }
    )
    # Component 1 is far away in one fit, but does not move.
    assert _moving(traces, np.ones(3)) == (0, 2)
    # The contours' lattice has 120 steps over 1.16 times the range of a mean: 3 of component 2,
    # 5.1 of component 1.
    step = 1.16 * 3 / 120
    assert _moving(traces, np.array([1, 1, 1.01 * step])) == (0, 2)
    assert _moving(traces, np.array([1, 1, 0.99 * step])) == (0, 1)
    # Where too few are wide enough, the narrow one that moves most.
    assert _moving(traces, np.array([1e-3, 1, 1e-3])) == (1, 2)
    assert _moving(traces, np.full(3, 1e-3)) == (0, 2)


def test_contours_are_plain_numbers_below_the_top():
    np.testing.assert_allclose(contour_drops(250.0), [0.03, 0.1, 0.3, 1, 3, 10, 30, 100])
    np.testing.assert_allclose(contour_drops(0.3001)[-2:], [0.1, 0.3])


def test_it_repeats_and_says_nothing_of_one_component_or_none(study):
    assert svg_bytes(draw(study, "mean_plane")) == svg_bytes(draw(study, "mean_plane"))
    assert png_bytes(draw(study, "mean_plane")) == png_bytes(draw(study, "mean_plane"))
    assert draw(replace(study, symmetric=True), "mean_plane") is None
    assert draw(replace(study, traces=study.traces.iloc[:0]), "mean_plane") is None
    (single,) = groups_of(
        make_study(
            "experiment=notebook", "mixture=[marron_wand_01_gaussian]", "replicates=1",
            "model=[free]",
        )
    )  # fmt: skip
    assert draw(single, "mean_plane") is None


def test_the_estimate_of_a_failed_fit_is_not_held(study):
    size = study.sizes[0]
    paths = _paths(study, size)
    fits = study.fits.copy()
    held = _best(study, paths)
    worst = fits["log_likelihood"].max() + 1.0
    first = (fits["replicate"] == 0) & (fits["cell"] == study.panel(size)[0].id)
    fits.loc[first & (fits["start"] == 0), ["log_likelihood", "outcome"]] = [
        worst, "degenerate_scale",
    ]  # fmt: skip
    again = _best(replace(study, fits=fits), paths)
    row = fits.loc[first & (fits["start"] == 0)].iloc[0]
    assert again.means.tolist() != parameters_of(row, 2).means.tolist()
    assert held is not None
