"""What a run shows, against plain loops over the tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runs import (
    NAME_WIDTH,
    DataSource,
    Metric,
    Run,
    final_metrics,
    gap_metrics,
    run_names,
    run_note,
    run_params,
    run_settings,
    thinned,
    trajectory_metrics,
)
from tests.factories import make_study

GRIDS = {
    "one cell": (),
    "sizes and inits": ("sample_sizes=[40,400]", "init=[random_points,kmeans_pp]"),
    "names that begin alike": (
        "mixture=[marron_wand_10_claw,marron_wand_11_double_claw,marron_wand_12_asymmetric_claw]",
        "model=[free,shared_scale]",
        "init=[random_points,kmeans_pp]",
        "sample_sizes=[1000,10000]",
    ),
    "names that are long and alike": (
        "mixture=[]",
        *(
            f"+mixture.a_long_name_{k}_that_goes_on_{k}="
            "{weights: [0.5,0.5], means: [0,1], scales: [1,1]}"
            for k in range(3)
        ),
        "init=[random_points,kmeans_pp,quantiles]",
        "sample_sizes=[1000000,2000000,30000]",
    ),
}


def planned(*overrides):
    from pipeline.config import compose
    from pipeline.planning import make_plan

    return make_plan(compose(overrides))[0]


@pytest.mark.parametrize("overrides", GRIDS.values(), ids=GRIDS)
def test_names_are_told_apart_by_what_the_list_of_runs_shows(overrides):
    cells = planned(*overrides).cells
    names = run_names(cells)
    assert list(names) == [cell.id for cell in cells]
    assert len({name[:NAME_WIDTH] for name in names.values()}) == len(cells)
    assert all(len(name) < 60 for name in names.values())


def test_names_leave_out_what_does_not_vary():
    cells = planned("sample_sizes=[40,400]", "init=[random_points,kmeans_pp]").cells
    assert set(run_names(cells).values()) == {
        "n40 random_points",
        "n40 kmeans_pp",
        "n400 random_points",
        "n400 kmeans_pp",
    }


def test_names_that_are_cut_end_where_a_word_does():
    cells = planned(
        "mixture=[overlap_low,overlap_medium]",
        "init=[random_points,kmeans_pp]",
        "sample_sizes=[100,1000]",
    ).cells
    assert {"n100 random low", "n1000 kmeans medium"} < set(run_names(cells).values())


def test_params_have_the_names_of_the_columns_and_only_the_settings_of_the_cell():
    plan = planned("mixture=[notebook,overlap_low]", "init=[random_points,truth]", "seed=7")
    cell = next(each for each in plan.cells if each.mixture == "overlap_low")
    params, settings = run_params(plan, cell), run_settings(plan, cell)
    assert params["mixture"] == "overlap_low"
    assert params["init"] == cell.init
    assert params["sample_size"] == "40"
    assert params["seed"] == "7"
    assert params["config/mixture/means"] == str(plan.config["mixture"]["overlap_low"]["means"])
    assert params["config/schedule/stop/rule"] == "never"
    assert not any("tracking" in name or "claims" in name for name in params)
    assert "observed" not in params
    assert "notebook" not in set(params.values()) - {params["model"]}
    assert settings["mixture"] == plan.config["mixture"]["overlap_low"]
    assert settings["init"] == plan.config["init"][cell.init]
    assert settings["schedule"] == plan.config["schedule"]
    assert "tracking" not in settings


@given(
    iterations=st.sets(st.integers(0, 10**6), min_size=1, max_size=300),
    kept=st.sets(st.integers(0, 50), max_size=8),
    max_steps=st.integers(2, 80),
)
def test_thinning_keeps_the_ends_and_what_it_is_told_to(iterations, kept, max_steps):
    recorded = np.array(sorted(iterations))
    chosen = thinned(recorded, kept, max_steps)
    assert len(chosen) <= max_steps
    assert set(chosen) <= iterations
    assert {recorded[0], recorded[-1]} <= set(chosen)
    assert (np.diff(chosen) > 0).all()
    if len(kept) + 2 <= max_steps:
        assert kept & iterations <= set(chosen)
    if len(recorded) <= max_steps:
        assert len(chosen) == len(recorded)


def test_thinning_uses_the_steps_it_has_and_spaces_them_geometrically():
    chosen = thinned(np.arange(20_001), [0, 3, 6, 9], 64)
    assert 60 <= len(chosen) <= 64
    assert {0, 3, 6, 9, 20_000} <= set(chosen)
    ratios = chosen[chosen > 50][1:] / chosen[chosen > 50][:-1]
    assert ratios.max() < 1.3


@pytest.fixture(scope="module")
def study():
    return make_study(
        "mixture=[overlap_low]",
        "model=[free]",
        "init=[random_points]",
        "schedule=converge",
        "schedule.stop.tolerance=1e-4",
        "schedule.max_iter=300",
        "replicates=7",
        "starts=2",
    )


def test_a_trajectory_is_the_traces_row_by_row(study):
    rows = study.traces.query("replicate == 0 and start == 0")
    metrics = trajectory_metrics(rows.sample(frac=1.0, random_state=1), 2, [], 10_000)
    for column in ("weight_0", "mean_1", "scale_0"):
        got = {each.step: each.value for each in metrics if each.name == f"params/{column}"}
        assert got == dict(zip(rows["iteration"], rows[column], strict=True))
    got = {
        each.step: each.value for each in metrics if each.name == "log_likelihood/representative"
    }
    assert got == dict(zip(rows["iteration"], rows["log_likelihood"], strict=True))


def test_gaps_are_the_quantiles_of_fits_held_at_their_last_recorded_row(study):
    fits = [
        rows.sort_values("iteration") for _, rows in study.traces.groupby(["replicate", "start"])
    ]
    assert len({rows["iteration"].max() for rows in fits}) > 1
    metrics = gap_metrics(study.traces.sample(frac=1.0, random_state=1), [], 10_000)
    steps = sorted({each.step for each in metrics})
    assert steps == sorted(study.traces["iteration"].unique())
    for name, level in (("median", 0.5), ("q10", 0.1), ("q90", 0.9)):
        got = {m.step: m.value for m in metrics if m.name == f"log_likelihood_gap/{name}"}
        for step in steps:
            gaps = []
            for rows in fits:
                held = rows[rows["iteration"] <= step].iloc[-1]
                gaps.append(rows.iloc[-1]["log_likelihood"] - held["log_likelihood"])
            assert got[step] == pytest.approx(np.quantile(gaps, level), abs=1e-9)
    assert {m.value for m in metrics if m.step == steps[-1]} == {0.0}


def test_gaps_leave_out_fits_without_a_log_likelihood(study):
    broken = study.traces.copy()
    broken.loc[broken["replicate"] == 0, "log_likelihood"] = np.nan
    whole = study.traces[study.traces["replicate"] > 0]
    by_step = {(m.name, m.step): m.value for m in gap_metrics(whole, [], 10_000)}
    for metric in gap_metrics(broken, [], 10_000):
        if (metric.name, metric.step) in by_step:
            assert metric.value == by_step[metric.name, metric.step]
    assert gap_metrics(broken[broken["replicate"] == 0], [], 64) == []
    assert gap_metrics(broken.iloc[:0], [], 64) == []


def test_final_metrics_are_the_numbers_that_are_there():
    row = pd.Series(
        {
            "mixture": "m",
            "observed": None,
            "sample_size": 40,
            "n_converged": 3,
            "converged_share": 0.75,
            "n_iter_q10": 4.0,
            "bias_mean_0": -0.5,
            "bias_mean_0_mcse": np.nan,
            "true_mean_0": 1.0,
            "bias_mean_0_converged": -0.25,
            "rmse_mean_0_converged_mcse": 0.01,
        }
    )
    assert final_metrics(row) == [
        Metric("statistics/n_converged", 0, 3.0),
        Metric("converged_share", 0, 0.75),
        Metric("n_iter/q10", 0, 4.0),
        Metric("statistics/bias_mean_0", 0, -0.5),
    ]


def test_the_note_says_what_one_looks_at(study):
    cell = study.plan.cells[0]
    row, fit = study.convergence.iloc[0], study.fits.iloc[0]
    source = DataSource("overlap_low-n40", "0", "", (7, 40))
    bare = Run(cell.id, "name", "content", {}, {}, source, {}, {})
    pictured = replace(
        bare, snapshots={0: Path("0.png")}, artifacts={"figures/1.png": Path("1.png")}
    )
    note = run_note(study.plan, cell, pictured, row, fit)
    assert study.plan.question in note
    assert "14 fits" in note
    spaced = note.replace("&emsp;", " ")
    assert f"| mean_0 | {row['true_mean_0']:.4g} | {fit['mean_0']:.4g} |" in spaced
    assert f"{row['rmse_mean_0']:.4g} ± {row['rmse_mean_0_mcse']:.2g}" in note
    assert "nan" not in note
    assert "slider" in note
    assert "figures" in note
    plain = run_note(study.plan, cell, bare, row, fit)
    assert "slider" not in plain
    assert "figures" not in plain
