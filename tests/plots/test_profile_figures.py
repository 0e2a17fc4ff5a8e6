"""Step functions of `profiles` are drawn as they are in the table."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.plots.profiles import added
from tests.plots.conftest import draw, line


def rows_of(group, cell, kind, axis, target=None):
    table = group.profiles
    table = table[(table["cell"] == cell.id) & (table["kind"] == kind) & (table["axis"] == axis)]
    return table if target is None else table[table["target"] == target]


def at(curve: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the value of a drawn step function (`post`) just after each x."""
    place = np.searchsorted(curve[:, 0], x, side="right") - 1
    return curve[np.maximum(place, 0), 1]


def test_convergence_is_the_tables_incidence_with_its_interval(study):
    figure = draw(study, "iterations_distribution")
    for place, size in enumerate(study.sizes):
        for number, cell in enumerate(study.panel(size)):
            rows = rows_of(study, cell, "converged", "iteration")
            drawn = line(figure, cell.init, place)
            np.testing.assert_array_equal(at(drawn, rows["x"].to_numpy()), rows["share"])
            assert drawn[0].tolist() == [0.0, 0.0]
            outcomes = study.fits_of(cell)["outcome"]
            if not (outcomes == "max_iter").any():
                assert drawn[-1, 1] == pytest.approx((outcomes == "converged").mean())
            vertices = figure.axes[place].collections[number].get_paths()[0].vertices
            assert vertices[:, 1].max() == rows["high"].max()
            assert vertices[:, 1].min() == rows["low"].min()
    assert {axes.get_xlabel() for axes in figure.axes} == {"iteration"}


def test_failures_are_added_up(study):
    cell = study.cells[0]
    made_up = [
        ("converged", 5.0, 0.25),
        ("converged", 9.0, 0.5),
        ("degenerate_scale", 3.0, 0.125),
        ("degenerate_scale", 8.0, 0.25),
        ("nonfinite", 8.0, 0.125),
        ("nonfinite", 9.0, 0.25),
    ]
    table = pd.DataFrame(made_up, columns=["kind", "x", "share"]).assign(
        cell=cell.id, target=np.nan, axis="iteration", low=0.0, high=1.0, n=8
    )
    figure = draw(replace(study, cells=(cell,), profiles=table), "iterations_distribution")
    drawn = line(figure, "random_points, failed")
    expected = [0.0, 0.125, 0.125, 0.375, 0.5]
    np.testing.assert_array_equal(at(drawn, np.array([2.0, 3.0, 7.0, 8.0, 9.0])), expected)
    assert "failed" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_step_functions_are_added_where_either_changes():
    random = np.random.default_rng(5)
    curves = [
        pd.DataFrame(
            {
                "x": np.sort(random.choice(50, 9, False)).astype(float),
                "share": np.arange(1, 10) / 30,
            }
        )
        for _ in range(3)
    ]
    total = added(curves)
    for x in np.arange(-1.0, 52.0, 0.5):
        naive = sum(
            float(rows.loc[rows["x"] <= x, "share"].max())
            for rows in curves
            if (rows["x"] <= x).any()
        )
        reached = total.loc[total["x"] <= x, "share"]
        assert (reached.iloc[-1] if len(reached) else 0.0) == pytest.approx(naive)


@pytest.mark.parametrize("kind", ["log_likelihood_gap", "distance_to_fixed_point"])
def test_runtime_profiles_show_every_target(study, kind):
    figure = draw(study, f"{kind}_profiles")
    targets = study.profiles.loc[study.profiles["kind"] == kind, "target"].unique()
    assert len(targets) == 3
    styles = set()
    for place, size in enumerate(study.sizes):
        for cell in study.panel(size):
            for target in targets:
                rows = rows_of(study, cell, kind, "map_evaluations", target)
                drawn = line(figure, f"{cell.init}, {target:g}", place)
                np.testing.assert_array_equal(at(drawn, rows["x"].to_numpy()), rows["share"])
    for each in figure.axes[0].lines:
        styles.add((each.get_color(), str(each._dash_pattern)))
    assert len(styles) == 6, "curves of different inits and targets look different"


def test_runtime_profiles_of_many_curves_keep_the_finest_target(study):
    cells = tuple(replace(study.cells[0], id=f"c{k}", init=f"i{k}") for k in range(6))
    kind = "log_likelihood_gap"
    one = study.profiles[study.profiles["cell"] == study.cells[0].id]
    table = pd.concat([one.assign(cell=cell.id) for cell in cells])
    finest = one.loc[one["kind"] == kind, "target"].min()
    figure = draw(replace(study, cells=cells, profiles=table), f"{kind}_profiles")
    names = {each.get_label() for each in figure.axes[0].lines}
    assert names == {f"i{k}, {finest:g}" for k in range(6)}


@pytest.mark.parametrize("factor", ["algorithm", "init"])
def test_performance_profiles_hold_the_rivals_and_go_on_to_the_edge(rivals, factor):
    figure = draw(rivals, f"{factor}_performance")
    other = "init" if factor == "algorithm" else "algorithm"
    assert len(figure.axes) == 4
    checked = 0
    for axes in figure.axes:
        size, level = axes.get_title().removeprefix("n = ").split(", ")
        for cell in rivals.panel(float(size)):
            if getattr(cell, other) != level:
                continue
            rows = rows_of(rivals, cell, f"{factor}_performance", "factor")
            (drawn,) = [x for x in axes.lines if x.get_label() == getattr(cell, factor)]
            drawn = np.asarray(drawn.get_xydata())
            np.testing.assert_array_equal(at(drawn, rows["x"].to_numpy()), rows["share"])
            assert drawn[-1].tolist() == [axes.get_xlim()[1], rows["share"].iloc[-1]]
            checked += 1
    assert checked == len(rivals.cells)


def test_nothing_to_say(study):
    names = ("iterations_distribution", "log_likelihood_gap_profiles", "init_performance")
    few = study.profiles.assign(n=4)
    never = study.profiles.assign(share=0.0)
    for table in (few, never, study.profiles.iloc[:0]):
        for name in names:
            assert draw(replace(study, profiles=table), name) is None
    assert draw(study, "algorithm_performance") is None


PROFILES = (
    "iterations_distribution",
    "log_likelihood_gap_profiles",
    "distance_to_fixed_point_profiles",
    "algorithm_performance",
    "init_performance",
)


@pytest.mark.parametrize("name", PROFILES)
def test_the_last_step_lies_within_the_frame(rivals, name):
    figure = draw(rivals, name)
    table = rivals.profiles
    axis = "factor" if name.endswith("performance") else "map_evaluations"
    kind = name.removesuffix("_profiles").replace("iterations_distribution", "converged")
    last = table.loc[(table["kind"] == kind) & (table["axis"] == axis), "x"].max()
    for axes in figure.axes:
        assert axes.get_xlim()[1] >= 1.09 * last
        assert axes.get_ylabel() in ("", figure.get_supylabel()) or "share" in axes.get_ylabel()
    assert "share" in figure.get_supylabel() + figure.axes[0].get_ylabel()


@pytest.mark.parametrize(
    "name", ["log_likelihood_gap_profiles", "log_likelihood_gap_bands", "distance_to_truth_bands"]
)
@pytest.mark.parametrize(
    ("kept", "said"), [("all", ""), (5, "5 of 6 replicates recorded"), (6, "")]
)
def test_titles_say_how_many_replicates_are_recorded(study, name, kept, said):
    group = replace(study, schedule=dict(study.schedule) | {"record_replicates": kept})
    title = draw(group, name).get_suptitle()
    assert title == f"{study.title}: {said}" if said else title == study.title


def test_evaluations_of_inits_are_told_where_costs_hold_them(rivals):
    spent = dict.fromkeys(rivals.init_evaluations, 0)
    for evaluations, told in ((0, False), (50, True)):
        group = replace(rivals, init_evaluations=spent | {rivals.cells[0].id: evaluations})
        for name in ("log_likelihood_gap_profiles", "init_performance", "iterations_distribution"):
            assert ("before a fit begins" in " ".join(draw(group, name).notes)) == told
