"""Errors and other statistics against a factor, with the lines of `slopes`."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.plots.laws import laws, statistic_bars
from pipeline.plots.scaling import _with_error, error_panels
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
    first = study.convergence.query("sample_size == 40")["rmse_mean_0"].min()
    assert (x0, y0) == (40.0, first)
    assert not figure.axes[place].texts


def test_the_fitted_line_and_its_slope_are_those_of_the_table(rivals):
    figure = draw(rivals, "error_against_n")
    place = panel(figure, "mean 0")
    rows = rivals.slopes[rivals.slopes["name"] == "mean"]
    assert len(rows) == 4
    drawn = [each for each in figure.axes[place].lines if each.get_label() == "mean, fitted"]
    for each, (_, row) in zip(drawn, rows.iterrows(), strict=True):
        x, y = each.get_data()
        assert x.tolist() == [row["factor_low"], row["factor_high"]] == [40.0, 80.0]
        # Natural logarithms; two points are met exactly.
        np.testing.assert_allclose(y, np.exp(row["intercept"]) * x ** row["slope"])
        cells = rivals.convergence.query(
            "init == @row.init and algorithm == @row.algorithm"
        ).sort_values("sample_size")
        np.testing.assert_allclose(y, cells["rmse_mean_0"])
    notes = [text.get_text() for text in figure.axes[place].texts]
    slopes = [f"slope {_with_error(row.slope, row.slope_se)}" for row in rows.itertuples()]
    assert notes[:4] == slopes
    assert not figure.axes[panel(figure, "mean 1")].texts


def test_a_claim_predicts_the_slope_of_its_lines_alone(rivals):
    expected = {law.labels["init"]: law.expected for law in rivals.laws if law.name == "mean"}
    assert expected == {"random_points": None, "kmeans_pp": -0.25}
    figure = draw(rivals, "error_against_n")
    place = panel(figure, "mean 0")
    for slope in (-0.25, -0.5):
        (x0, y0), (x1, y1) = line(figure, f"predicted {slope}", place)
        assert np.log(y1 / y0) / np.log(x1 / x0) == pytest.approx(slope)
    texts = [text.get_text() for text in figure.axes[place].texts]
    # The line of the other init has no claim: the regular slope is not a prediction.
    assert texts[4:] == ["predicted −0.25"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "predicted or ∝ 1/√n"
    unclaimed = replace(rivals, laws=tuple(law for law in rivals.laws if law.expected is None))
    legend = draw(unclaimed, "error_against_n").legends[0]
    assert legend.get_texts()[-1].get_text() == "∝ 1/√n"
    assert "predicted -0.25" not in {
        each.get_label() for each in figure.axes[panel(figure, "mean 1")].lines
    }


def test_other_laws_have_panels_with_their_points(rivals):
    figure = draw(rivals, "scaling_laws")
    headings = [axes.get_title().split("\n") for axes in figure.axes]
    assert headings[0] == ["expected_running_time", "against sample size"]
    assert headings[1][0] in ("bias_mean_1", "−bias_mean_1")
    table = rivals.convergence.set_index("cell")
    for law in rivals.laws:
        if law.name == "mean":
            continue
        place = panel(figure, law.statistic)
        text = f"{law.labels['init']}, {law.labels['algorithm']}"
        x, y, low, high = points(figure, place, text)
        value = table.loc[[cell.id for cell in law.cells], law.statistic.lstrip("−")]
        value = value.abs() if law.statistic.startswith("−") else value
        kept = value > 0.0
        np.testing.assert_array_equal(x, np.array([40.0, 80.0])[kept])
        np.testing.assert_array_equal(y, value[kept])
        mcse = table.loc[value.index, f"{law.statistic.lstrip('−')}_mcse"]
        np.testing.assert_allclose(high - y, mcse[kept])
        np.testing.assert_allclose(y - low, mcse[kept])


def test_nothing_to_say(study, rivals):
    assert draw(study, "scaling_laws") is None
    assert draw(replace(rivals, laws=rivals.laws[:4]), "scaling_laws") is None
    one = study.convergence[study.convergence["sample_size"] == 40]
    assert draw(replace(study, convergence=one), "error_against_n") is None


def test_errors_that_are_the_same_numbers_share_a_panel(study):
    table = study.convergence.assign(
        rmse_mean_1=study.convergence["rmse_mean_0"], rmse_scale_0=0.0, rmse_scale_1=np.nan
    )
    assert error_panels(study, table) == [("weight", [0, 1]), ("mean", [0, 1])]


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


def test_a_line_through_several_mixtures_stands_with_the_first(across):
    together = groups_of(across)
    names = [[law.name for law in group.laws] for group in together]
    assert names == [["apart", "apart", "iterations"], ["iterations"], ["iterations"]]
    law = together[0].laws[0]
    # Ascending in the factor: 2, 3 and 4 scales apart.
    np.testing.assert_allclose(law.x, [2.0, 3.0, 4.0])
    mixtures = ["overlap_high", "overlap_medium", "overlap_low"]
    assert [cell.mixture for cell in law.cells] == mixtures
    table = across.convergence.set_index("cell")
    rmse = [table.loc[cell.id, "rmse_mean_0"] for cell in law.cells]
    assert law.y.tolist() == rmse
    figure = draw(together[0], "scaling_laws")
    place = panel(figure, "rmse_mean_0\nagainst separation")
    _, y, *_ = points(figure, place, "n = 60")
    assert y.tolist() == rmse


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
    assert _with_error(value, error) == text
