"""Errors and other statistics against a factor, with the lines of `slopes`."""

import itertools
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.plots import across as lines_across
from pipeline.plots.across import over
from pipeline.plots.group import estimated
from pipeline.plots.law_lines import value_axis, with_error
from pipeline.plots.laws import laws, statistic_bars
from pipeline.plots.scaling import error_panels, laws_of_errors
from pipeline.plots.style import STYLE, few_log_ticks, log_axis, power_of_ten
from tests.factories import make_study
from tests.plots.conftest import draw, groups_of, line


def panel(figure, heading):
    (place,) = [k for k, axes in enumerate(figure.axes) if axes.get_title().startswith(heading)]
    return place


def points(figure, place, text):
    """Return x, y and the lower and upper ends of the bars of a curve of points."""
    (found,) = [each for each in figure.axes[place].containers if each.get_label() == text]
    segments = np.array(found[2][0].get_segments())
    x, y = found[0].get_data()
    return x, y, segments[:, 0, 1], segments[:, 1, 1]


def test_errors_and_their_bars_are_the_tables(study):
    figure = draw(study, "error_against_n")
    for name in ("weight_0", "mean_0", "mean_1", "scale_0", "scale_1"):
        heading = "weights 0 and 1" if name == "weight_0" else name.replace("_", " ")
        for init in ("random_points", "kmeans_pp"):
            rows = study.convergence.query("init == @init").sort_values("sample_size")
            x, y, low, high = points(figure, panel(figure, heading), init)
            # Aside of the sizes by a small part of the way to the next.
            assert np.all(np.abs(np.log(x / rows["sample_size"])) < 0.15 * np.log(2.0))
            np.testing.assert_array_equal(y, rows[f"rmse_{name}"])
            mcse = rows[f"rmse_{name}_mcse"].to_numpy()
            np.testing.assert_allclose(low, y - mcse)
            np.testing.assert_allclose(high, y + mcse)
    assert len(figure.axes) == 5


def test_without_slopes_the_regular_rate_is_drawn(study):
    figure = draw(study, "error_against_n")
    place = panel(figure, "mean 0")
    (x0, y0), (x1, y1) = line(figure, "predicted -0.5", place)
    assert np.log(y1 / y0) / np.log(x1 / x0) == pytest.approx(-0.5)
    assert (x0, x1) == (40.0, 80.0)
    # Through the weighted centroid of all points, in natural logarithms.
    table = study.convergence
    weight = list((table["rmse_mean_0"] / table["rmse_mean_0_mcse"]) ** 2)
    x, y = (
        sum(w * np.log(v) for w, v in zip(weight, table[name], strict=True)) / sum(weight)
        for name in ("sample_size", "rmse_mean_0")
    )
    assert np.log(y0) == pytest.approx(y - 0.5 * (np.log(40.0) - x))
    assert figure.axes[place].get_legend() is None


def entries(axes):
    """Return the lines of a panel's own legend, as one line each."""
    legend = axes.get_legend()
    texts = [] if legend is None else [text.get_text() for text in legend.get_texts()]
    return [" ".join(text.split()) for text in texts]


def aside_of(figure, place, text, sizes=(40.0, 80.0)):
    """Return the factor by which a curve stands aside: that of its points."""
    x, *_ = points(figure, place, text)
    np.testing.assert_allclose(x / np.array(sizes), x[0] / sizes[0])
    return x[0] / sizes[0]


def test_the_fitted_line_and_its_slope_are_those_of_the_table(rivals):
    figure = draw(rivals, "error_against_n")
    place = panel(figure, "mean 0")
    rows = rivals.slopes[rivals.slopes["name"] == "mean"]
    assert len(rows) == 4
    drawn = [each for each in figure.axes[place].lines if each.get_label() == "mean, fitted"]
    for each, (_, row) in zip(drawn, rows.iterrows(), strict=True):
        x, y = each.get_data()
        x = x / aside_of(figure, place, f"{row['init']}, {row['algorithm']}")
        np.testing.assert_allclose(x, [row["factor_low"], row["factor_high"]])
        np.testing.assert_allclose(x, [40.0, 80.0])
        # Natural logarithms; two points are met exactly.
        np.testing.assert_allclose(y, np.exp(row["intercept"]) * x ** row["slope"])
        cells = rivals.convergence.query(
            "init == @row.init and algorithm == @row.algorithm"
        ).sort_values("sample_size")
        np.testing.assert_allclose(y, cells["rmse_mean_0"])
    slopes = [f"slope {with_error(row.slope, row.slope_se)}" for row in rows.itertuples()]
    assert entries(figure.axes[place])[:4] == slopes
    assert not entries(figure.axes[panel(figure, "mean 1")])


def test_a_claim_predicts_the_slope_of_its_lines_alone(rivals):
    expected = {law.labels["init"]: law.expected for law in rivals.laws if law.name == "mean"}
    assert expected == {"random_points": (), "kmeans_pp": (-0.25,)}
    figure = draw(rivals, "error_against_n")
    axes = figure.axes[panel(figure, "mean 0")]
    drawn = [each for each in axes.lines if "predicted" in each.get_label()]
    assert [each.get_label() for each in drawn] == ["mean, predicted -0.25"] * 2
    for each in drawn:
        (x0, y0), (x1, y1) = each.get_xydata()
        assert np.log(y1 / y0) / np.log(x1 / x0) == pytest.approx(-0.25)
    assert entries(axes)[4:] == ["predicted −0.25"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "∝ 1/√n"  # of the other panels
    assert "predicted -0.25" not in {
        each.get_label() for each in figure.axes[panel(figure, "mean 1")].lines
    }


def test_predicted_lines_run_through_the_weighted_centroid(rivals):
    """The one point that the fitted line has, too, whatever its slope."""
    figure = draw(rivals, "error_against_n")
    place = panel(figure, "mean 0")
    law = next(law for law in rivals.laws if law.name == "mean" and law.expected)
    label = rivals.label(law.cells[0])
    rows = rivals.convergence.set_index("cell").loc[[cell.id for cell in law.cells]]
    total = x = y = 0.0
    for row in rows.itertuples():  # of the logarithms: their errors are MCSE / RMSE
        weight = (row.rmse_mean_0 / row.rmse_mean_0_mcse) ** 2
        total += weight
        x += weight * np.log(row.sample_size)
        y += weight * np.log(row.rmse_mean_0)
    x, y = x / total, y / total
    assert np.log(law.centre) == pytest.approx(x)
    assert np.log(law.line(np.array(law.centre))) == pytest.approx(y)
    drawn = next(each for each in figure.axes[place].lines if "predicted" in each.get_label())
    (x0, y0), (x1, y1) = np.log(drawn.get_xydata())
    moved = np.log(aside_of(figure, place, label))
    assert y0 + (y1 - y0) * (x + moved - x0) / (x1 - x0) == pytest.approx(y)
    # It differs from what begins at the first point.
    assert y0 != pytest.approx(np.log(rows["rmse_mean_0"].iloc[0]), abs=1e-6)


def test_two_claims_about_one_curve_are_both_drawn(rivals):
    law = next(law for law in rivals.laws if law.name == "mean")
    twice = (law._replace(expected=(-0.5,)), law._replace(name="other", expected=(-0.25,)))
    figure = draw(replace(rivals, laws=twice), "error_against_n")
    axes = figure.axes[panel(figure, "mean 0")]
    drawn = {each.get_label() for each in axes.lines}
    assert {"mean, predicted -0.5", "other, predicted -0.25"} <= drawn
    assert entries(axes)[1:] == ["predicted −0.5", "predicted −0.25"]
    assert len(entries(axes)) == 3  # the fitted line is one
    styles = [each.get_linestyle() for each in axes.get_legend().get_lines()[1:]]
    figure = draw(replace(rivals, laws=(law._replace(expected=(-0.5, -0.25)),)), "error_against_n")
    both = figure.axes[panel(figure, "mean 0")]
    assert entries(both) == entries(axes)
    patterns = [line._unscaled_dash_pattern for line in axes.get_legend().get_lines()[1:]]
    assert patterns[0] != patterns[1], styles


def test_a_law_of_any_component_of_a_panel_is_drawn(rivals):
    law = next(law for law in rivals.laws if law.name == "mean")
    other = law._replace(name="w1", statistic="rmse_weight_1")
    group = replace(rivals, laws=(other,))
    figure = draw(group, "error_against_n")
    assert line(figure, "w1, fitted", panel(figure, "weights 0 and 1")).shape == (2, 2)
    assert laws_of_errors(group) == [other]


def test_every_law_is_drawn_once(rivals):
    """By one of the two figures: by the other where the first is not asked for."""
    mean = [law for law in rivals.laws if law.name == "mean"]
    assert laws_of_errors(rivals) == mean
    laws = (*mean, mean[0]._replace(name="fixed", statistic="rmse_weight_7"))
    group = replace(rivals, laws=laws)
    figure = draw(group, "scaling_laws")
    assert [axes.get_title() for axes in figure.axes] == ["fixed"]
    alone = replace(rivals, laws=laws, figures=("scaling_laws",))
    figure = draw(alone, "scaling_laws")
    assert [axes.get_title() for axes in figure.axes] == ["mean", "fixed"]
    assert len([each for each in figure.axes[0].lines if "fitted" in each.get_label()]) == 4


def test_other_laws_have_panels_with_their_points(rivals):
    figure = draw(rivals, "scaling_laws")
    laws_of_panels = {
        "expected_running_time": "cost",
        "bias_mean_1": "bias",
        "−bias_mean_1": "bias",
    }
    names = [axes.get_ylabel() for axes in figure.axes]
    assert names == list(dict.fromkeys(law.statistic for law in rivals.laws if law.name != "mean"))
    assert [axes.get_title() for axes in figure.axes] == [laws_of_panels[name] for name in names]
    assert {axes.get_xlabel() for axes in figure.axes} == {"sample size"}
    table = rivals.convergence.set_index("cell")
    for law in rivals.laws:
        if law.name == "mean":
            continue
        place = names.index(law.statistic)
        # Labels in which the lines of a panel agree are not in their names.
        beside = [other for other in rivals.laws if other.statistic == law.statistic]
        keys = [k for k in law.labels if len({other.labels[k] for other in beside}) > 1]
        text = ", ".join(law.labels[k] for k in keys) or law.name
        x, y, low, high = points(figure, place, text)
        value = table.loc[[cell.id for cell in law.cells], law.statistic.lstrip("−")]
        value = value.abs() if law.statistic.startswith("−") else value
        kept = value > 0.0
        assert np.all(np.abs(np.log(x / np.array([40.0, 80.0])[kept])) < 0.2 * np.log(2.0))
        np.testing.assert_array_equal(y, value[kept])
        mcse = table.loc[value.index, f"{law.statistic.lstrip('−')}_mcse"]
        np.testing.assert_allclose(high - y, mcse[kept])
        np.testing.assert_allclose(y - low, mcse[kept])
        slope = f"{text}: slope {with_error(law.slope, law.slope_se)}"
        assert slope in entries(figure.axes[place])
        assert "bars: ± 1 MCSE" in entries(figure.axes[place])


def test_a_line_that_its_points_do_not_lie_on_is_dashed(rivals):
    """99.9 % quantile of chi-squared with one degree of freedom: 10.8."""
    law = next(law for law in rivals.laws if law.name == "mean")
    for chi_square, poor in ((10.0, False), (11.5, True), (np.nan, False)):
        ours = law._replace(chi_square=chi_square, degrees_of_freedom=1.0)
        assert ours.poor is poor
        figure = draw(replace(rivals, laws=(ours,)), "error_against_n")
        axes = figure.axes[panel(figure, "mean 0")]
        (drawn,) = [each for each in axes.lines if each.get_label() == "mean, fitted"]
        assert drawn.get_linestyle() == ("--" if poor else "-")
        assert ("poor fit: χ²/df = 12" in entries(axes)[0]) is poor
    assert not law._replace(chi_square=0.0, degrees_of_freedom=0.0).poor


def test_nothing_to_say(study, rivals):
    assert draw(study, "scaling_laws") is None
    assert draw(replace(rivals, laws=rivals.laws[:4]), "scaling_laws") is None
    one = study.convergence[study.convergence["sample_size"] == 40]
    assert draw(replace(study, convergence=one), "error_against_n") is None


def test_errors_that_are_the_same_numbers_share_a_panel(study):
    table = study.convergence.assign(
        rmse_mean_1=study.convergence["rmse_mean_0"], rmse_scale_0=0.0, rmse_scale_1=np.nan
    )
    found = error_panels(study, table)
    assert found == [("weight", (0, 1)), ("mean", (0, 1))]
    assert [each.title for each in found] == ["weights 0 and 1", "means 0 and 1"]
    for components, title in (
        ((3,), "mean 3"),
        ((1, 2, 3, 4, 5), "means 1–5"),
        ((0, 2, 3, 4), "means 0, 2–4"),
        ((0, 1, 3), "means 0, 1, 3"),
    ):
        assert found[1]._replace(components=components).title == title


def test_parameters_that_the_model_fixes_are_not_drawn(study):
    assert study.estimated == ("weight", "mean", "scale")
    figure = draw(replace(study, estimated=("mean",)), "error_against_n")
    assert [axes.get_title() for axes in figure.axes] == ["mean 0", "mean 1"]


@pytest.mark.parametrize(
    ("weights", "scales", "n_components", "names"),
    [
        ("free", "shared", 2, ("weight", "mean", "scale")),
        ("equal", "free", 2, ("mean", "scale")),
        ([0.3, 0.7], [1.0, 2.0], 2, ("mean",)),
        ("free", 1.0, 3, ("weight", "mean")),
        ("free", "free", 1, ("mean", "scale")),
    ],
)
def test_what_a_model_estimates(weights, scales, n_components, names):
    model = {"weights": weights, "scales": scales, "means": "free"}
    assert estimated(model, n_components) == names


def series(axes):
    """Return colour, marker and fill of each series of points in a panel."""
    return [
        (each[0].get_color(), each[0].get_marker(), each[0].get_fillstyle())
        for each in axes.containers
    ]


@pytest.mark.parametrize("algorithms", [1, 2, 3])
@pytest.mark.parametrize("inits", [1, 3, 4, 8, 12])
def test_no_two_series_of_a_panel_look_alike(study, inits, algorithms):
    """However many there are, and the legend names every one as it looks."""
    one = [cell for cell in study.cells if cell.init == "kmeans_pp"]
    cells, rows = [], []
    table = study.convergence.set_index("cell")
    for i in range(inits):
        for a in range(algorithms):
            for cell in one:
                names = {"init": f"init{i}", "algorithm": f"algorithm{a}"}
                cells.append(replace(cell, id=f"{cell.id}-{i}-{a}", **names))
                rows.append({**table.loc[cell.id], **names, "cell": cells[-1].id})
    group = replace(study, cells=tuple(cells), convergence=type(table)(rows))
    figure = draw(group, "error_against_n")
    blocks = len(figure.axes) // 5
    assert len(figure.axes) == 5 * blocks
    for axes in figure.axes:
        found = series(axes)
        assert len(found) == inits * algorithms // blocks
        assert len(set(found)) == len(found)
        assert len(found) <= max(8, inits)
    assert len({axes.get_title() for axes in figure.axes}) == len(figure.axes)
    legend = figure.legends[0]
    looks = [(each.get_color(), each.get_marker()) for each in legend.get_lines()]
    assert set(looks[:-1]) == {each[:2] for each in series(figure.axes[0])}
    # No axis cuts a point off.
    for axes in figure.axes:
        x = np.concatenate([each[0].get_xdata() for each in axes.containers])
        assert axes.get_xlim()[0] < x.min() and x.max() < axes.get_xlim()[1]


@pytest.fixture(scope="module")
def across():
    """Return a study with lines through several mixtures."""
    return make_study(
        "experiment=notebook",
        "mixture=[overlap_low,overlap_medium,overlap_high]",
        "model=[free]",
        "init=[kmeans_pp]",
        "sample_sizes=[60,90]",
        "replicates=4",
        "schedule=converge",
        "schedule.max_iter=40",
        "schedule.stop.tolerance=1e-2",
        "slopes=[{name: apart, statistic: rmse_mean_0, factor: separation},"
        "{name: iterations, statistic: n_iter_median, factor: sample_size}]",
    )


def test_a_line_through_several_mixtures_belongs_to_none_of_them(across):
    together = groups_of(across)
    assert [[law.name for law in group.laws] for group in together] == [["iterations"]] * 3
    tables = {"convergence": across.convergence}
    tables["slopes"] = _all_slopes(across, across.convergence)
    whole = lines_across(across.plan, tables)
    assert [law.name for law in whole.laws] == ["apart", "apart"]
    assert whole.title == "overlap_low, overlap_medium and overlap_high, model free"
    law = whole.laws[0]
    # Ascending in the factor: 2, 3 and 4 scales apart.
    np.testing.assert_allclose(law.x, [2.0, 3.0, 4.0])
    mixtures = ["overlap_high", "overlap_medium", "overlap_low"]
    assert [cell.mixture for cell in law.cells] == mixtures
    table = across.convergence.set_index("cell")
    rmse = [table.loc[cell.id, "rmse_mean_0"] for cell in law.cells]
    assert law.y.tolist() == rmse
    figure = draw(whole, "scaling_laws")
    assert figure.get_suptitle() == whole.title
    _, y, *_ = points(figure, panel(figure, "apart"), "n = 60")
    assert y.tolist() == rmse
    # Ticks are the separations themselves.
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["2", "3", "4"]
    alone = across.plan.cells[:2]
    assert over(alone, 40) == "overlap_low, model free"
    assert over(whole.cells, 40) == "3 mixtures, model free"
    without = tables | {"slopes": tables["slopes"].assign(slope=np.nan)}
    assert lines_across(across.plan, without) is None


def test_lines_that_were_not_fitted_are_left_out(across):
    table = across.convergence
    (first, *_) = groups_of(across)
    slopes = first.slopes.assign(slope=np.nan)
    complete = laws(across.plan, table, _all_slopes(across, table))
    assert len(complete) == 5
    assert laws(across.plan, table, _all_slopes(across, table).assign(slope=np.nan)) == []
    assert len(slopes)


def _all_slopes(study, table):
    from pipeline.statistics.slopes import slopes

    return slopes(table, study.plan)


def test_a_statistic_that_is_negative_throughout_is_turned_round(across):
    columns = {"rmse_mean_0": -across.convergence["rmse_mean_0"]}
    table = across.convergence.assign(**columns)
    law = laws(across.plan, table, _all_slopes(across, table))[0]
    plain = laws(across.plan, across.convergence, _all_slopes(across, across.convergence))[0]
    assert law.statistic == "−rmse_mean_0"
    assert law.slope == plain.slope
    assert law.centre == plain.centre
    for name in ("y", "low", "high"):
        np.testing.assert_allclose(getattr(law, name), getattr(plain, name))


def test_bars_are_standard_errors_or_else_intervals(study):
    table = study.convergence
    y, low, high = statistic_bars(table, "rmse_mean_0")
    np.testing.assert_allclose(high - y, table["rmse_mean_0_mcse"])
    np.testing.assert_allclose(y - low, table["rmse_mean_0_mcse"])
    _, low, high = statistic_bars(table, "n_iter_median")
    np.testing.assert_array_equal(low, table["n_iter_median_low"])
    np.testing.assert_array_equal(high, table["n_iter_median_high"])
    assert np.isnan(statistic_bars(table, "n_converged")[1]).all()


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-0.4707, 0.0211, "−0.471 ± 0.021"),
        (1.5, 0.32, "1.50 ± 0.32"),
        (-3.2, 12.0, "−3 ± 12"),
        (0.51234, np.nan, "0.512"),
    ],
)
def test_slopes_are_written_to_the_second_digit_of_their_error(value, error, text):
    assert with_error(value, error) == text


@pytest.mark.parametrize("last", [4000, 20000, 100_000, 123_456, 10**7])
def test_the_largest_size_is_not_cut_off(study, last):
    sizes = study.convergence["sample_size"].where(study.convergence["sample_size"] == 40, last)
    group = replace(study, convergence=study.convergence.assign(sample_size=sizes))
    figure = draw(group, "error_against_n")
    with mpl.style.context(["default", STYLE]):
        figure.draw_without_rendering()
        for axes in figure.axes:
            boxes = [each.get_window_extent() for each in axes.get_xticklabels()]
            assert boxes[-1].x1 < figure.bbox.x1
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.088, 0.165, ["0.1", "0.12", "0.14", "0.16"]),
        (0.7, 1.01, ["0.7", "0.8", "0.9", "1"]),
        (45.0, 82.0, ["50", "60", "70", "80"]),
        (0.05, 0.2, ["0.05", "0.1", "0.2"]),
    ],
)
def test_ticks_of_a_short_axis_are_evenly_spaced(low, high, texts):
    axes = Figure().add_subplot()
    log_axis(axes)
    axes.set_ylim(low, high)
    few_log_ticks(axes)
    assert [power_of_ten(round(tick, 9)) for tick in axes.get_yticks()] == texts
    if len(texts) == 4:
        np.testing.assert_allclose(np.diff(axes.get_yticks()), np.diff(axes.get_yticks())[0])


def test_counts_have_ticks_of_their_own_without_collisions():
    for values, width, kept in (
        ([2, 3, 4, 5, 6], 2.7, ["2", "3", "4", "5", "6"]),
        ([500, 510, 4000, 4100], 1.6, ["500", "4100"]),
    ):
        axes = Figure().add_subplot()
        value_axis(axes, np.array(values, float), width, [1.0], sizes=True)
        assert [text.get_text() for text in axes.get_xticklabels()] == kept
