"""Figures of single fits: log-likelihoods and parameters."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.plots.conftest import draw


@pytest.mark.parametrize(
    "name", ["log_likelihood_trajectories", "parameter_trajectories", "log_likelihood_gap"]
)
def test_algorithms_are_drawn_against_map_evaluations_with_those_of_the_init(rivals, name):
    spent = {cell.id: 50 * (cell.init == "kmeans_pp") for cell in rivals.cells}
    traces = rivals.traces.assign(map_evaluations=3 * rivals.traces["iteration"])
    figure = draw(replace(rivals, traces=traces, init_evaluations=spent), name)
    assert {axes.get_xlabel() for axes in figure.axes} - {""} == {"map evaluations"}
    curves = [each for axes in figure.axes for each in axes.lines if len(each.get_xdata()) > 4]
    assert {float(curve.get_xdata()[0]) for curve in curves} == {0.0, 50.0}
    assert {float(np.diff(curve.get_xdata())[0]) for curve in curves} == {3.0}
    # One kind of axis in all panels, however short some are.
    assert len({axes.get_xscale() for axes in figure.axes}) == 1
    assert "before a fit begins" in " ".join(figure.notes)


def test_one_fit_that_stays_low_does_not_flatten_the_others(study):
    (cell,) = study.panel(40)[:1]
    heights = {0: [-900.0, -120.0, -105.0, -100.0], 1: [-900.0, -800.0, -500.0, -101.0]}
    heights[2] = [-300.0, -118.0, -104.0, -100.0]
    rows = [
        {"cell": cell.id, "replicate": 0, "start": s, "iteration": t, "map_evaluations": t}
        | {"log_likelihood": value}
        for s, values in heights.items()
        for t, value in enumerate(values)
    ]
    fits = study.fits.assign(log_likelihood_truth=-103.0)
    figure = draw(
        replace(study, cells=(cell,), traces=pd.DataFrame(rows), fits=fits),
        "log_likelihood_trajectories",
    )
    low, high = figure.axes[0].get_ylim()
    # From the way of the better half (-118 and up) and every end.
    assert -125.0 < low < -118.0 and -100.0 < high < -95.0
    assert "below the axis" in " ".join(figure.notes)


def test_parameters_that_the_model_fixes_are_not_drawn(study):
    figure = draw(replace(study, estimated=("mean",)), "parameter_trajectories")
    assert [axes.get_ylabel() for axes in figure.axes] == ["mean", ""]


@pytest.mark.parametrize(
    "name", ["log_likelihood_trajectories", "parameter_trajectories", "log_likelihood_gap"]
)
def test_titles_name_the_sample_or_the_population(study, name):
    assert draw(study, name).get_suptitle().endswith(": replicate 0")
    cells = tuple(replace(cell, sample_size=np.inf) for cell in study.panel(40))
    traces = study.traces[study.traces["cell"].isin([cell.id for cell in cells])]
    population = draw(replace(study, cells=cells, traces=traces), name)
    assert population.get_suptitle().endswith(": population")


def test_parameters_are_those_of_the_representative_fit(study):
    figure = draw(study, "parameter_trajectories")
    cell = study.panel(40)[0]
    trace = study.representative(cell)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["n = 40", "", "", "n = 80", "", ""]
    for place, name in enumerate(("weight", "mean", "scale")):
        axes = figure.axes[place]
        for k in (0, 1):
            assert axes.lines[k].get_ydata().tolist() == trace[f"{name}_{k}"].tolist()
        across = [each for each in axes.lines if list(each.get_xdata()) == [0, 1]]
        truth = {each.get_ydata()[0] for each in across}
        assert truth == set(getattr(study.truth, f"{name}s"))


def test_many_sizes_of_parameters_wrap_into_blocks(study):
    cells, traces = [], []
    for size in (10, 20, 30, 40, 50, 60):
        cells.append(replace(study.cells[0], id=f"c{size}", sample_size=size))
        traces.append(study.representative(study.cells[0]).assign(cell=f"c{size}"))
    first = {cell.id: (0, 0) for cell in cells}
    group = replace(study, cells=tuple(cells), traces=pd.concat(traces), representatives=first)
    figure = draw(group, "parameter_trajectories")
    places = [tuple(np.round(axes.get_position().p0, 6)) for axes in figure.axes]
    assert len({x for x, _ in places}) == 3 and len({y for _, y in places}) == 6
    assert len(set(places)) == 18


def test_starts_and_the_truth_are_in_the_log_likelihoods(study):
    figure = draw(study, "log_likelihood_trajectories")
    cell = study.panel(40)[0]
    drawn = [
        each
        for each in figure.axes[0].lines
        if each.get_color() == figure.axes[0].lines[0].get_color()
    ]
    traces = study.traces[(study.traces["cell"] == cell.id) & (study.traces["replicate"] == 0)]
    for each, (_, trace) in zip(drawn, traces.groupby("start"), strict=True):
        assert each.get_ydata().tolist() == trace["log_likelihood"].tolist()
    (truth,) = [each for each in figure.axes[0].lines if each.get_linestyle() == "--"]
    expected = study.fits_of(cell).query("replicate == 0")["log_likelihood_truth"].iloc[0]
    assert truth.get_ydata()[0] == expected
