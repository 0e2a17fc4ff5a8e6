"""Figures: what they show, that they repeat byte for byte, and the quantiles behind one."""

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline import plots
from pipeline.figures import FIGURES
from pipeline.plots import png_bytes, snapshot_pngs, svg_bytes
from pipeline.plots.group import parameters_of
from pipeline.plots.outcomes import OUTCOME_COLORS
from pipeline.plots.snapshots import Subject, snapshot_picture, snapshot_rows
from pipeline.plots.style import STYLE, few_log_ticks, power_of_ten
from pipeline.statistics.bands import gap_quantiles
from pipeline.tables import OUTCOMES
from tests.plots.conftest import draw, line

# These need a study of their own, in the tests of their modules.
ELSEWHERE = {"basins", "rates", "stop_replay"}


@pytest.fixture(
    params=[kind for kind in FIGURES if kind.name not in ELSEWHERE], ids=lambda kind: kind.name
)
def drawable(request, study, rivals):
    """Return a figure's kind and a group that it says something about."""
    needs_rivals = ("algorithm_performance", "scaling_laws")
    return request.param, rivals if request.param.name in needs_rivals else study


def test_every_figure_is_drawn_labelled_and_repeats_to_the_byte(drawable):
    kind, group = drawable
    first, second = plots.draw(kind, group), plots.draw(kind, group)
    assert svg_bytes(first) == svg_bytes(second)
    assert png_bytes(first) == png_bytes(second)
    assert b"<dc:date>" not in svg_bytes(first)
    visible = [axes for axes in first.axes if axes.get_visible()]
    assert any(axes.get_xlabel() or "against" in axes.get_title() for axes in visible)
    assert first.legends or all(axes.get_legend() for axes in visible)
    assert kind.title


def test_nothing_is_cut_off(drawable):
    kind, group = drawable
    figure = plots.draw(kind, group)
    with mpl.style.context(["default", STYLE]):
        box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.01 and box.y0 > -0.01
    assert box.x1 < width + 0.01 and box.y1 < height + 0.01


def test_drawing_ignores_and_keeps_the_users_settings(study):
    plain = png_bytes(draw(study, "outcome_shares"))
    with mpl.rc_context({"font.size": 25, "axes.facecolor": "red"}):
        assert png_bytes(draw(study, "outcome_shares")) == plain
        assert mpl.rcParams["font.size"] == 25


def test_one_fit_has_no_distributions(notebook):
    drawn = {kind.name for kind in FIGURES if plots.draw(kind, notebook) is not None}
    one_fit = {"log_likelihood_trajectories", "log_likelihood_gap", "parameter_trajectories"}
    assert drawn == {"snapshots", "mean_plane", *one_fit}


def test_the_notebooks_pictures(notebook):
    """Iterations 0, 3, 6, 9 on [-5, 5]; curves N_k, not halved; RdBu points, component 0 blue."""
    figure = draw(notebook, "snapshots")
    assert [axes.get_title().split(",")[0] for axes in figure.axes] == [
        f"Iteration {t}" for t in (0, 3, 6, 9)
    ]
    trace = notebook.representative(notebook.cells[0]).set_index("iteration", drop=False)
    points = notebook.points[notebook.cells[0].id]
    for axes, t in zip(figure.axes, (0, 3, 6, 9), strict=True):
        assert axes.get_xlim() == (-5.0, 5.0)
        row = trace.loc[t]
        assert f"{row['log_likelihood']:.3f}".replace("-", "\N{MINUS SIGN}") in axes.get_title()
        true_0, true_1, fitted_0, fitted_1 = [
            each for each in axes.lines if len(each.get_xdata()) > 2
        ]
        # The notebook's formulas, literally.
        for curve, mean, scale in (
            (true_0, 0.0, 2.0),
            (true_1, 2.0, 1.0),
            (fitted_0, row["mean_0"], row["scale_0"]),
            (fitted_1, row["mean_1"], row["scale_1"]),
        ):
            x = curve.get_xdata()
            normal = np.exp(-0.5 * ((x - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
            np.testing.assert_allclose(curve.get_ydata(), normal, rtol=1e-12)
        assert true_0.get_linestyle() == "--" and true_0.get_alpha() == 0.5
        (scatter,) = [each for each in axes.collections if len(each.get_offsets()) == 40]
        density = [
            np.exp(-0.5 * ((points - row[f"mean_{k}"]) / row[f"scale_{k}"]) ** 2)
            / row[f"scale_{k}"]
            for k in (0, 1)
        ]
        expected = mpl.colormaps["RdBu"](density[0] / (density[0] + density[1]))
        np.testing.assert_allclose(scatter.get_facecolors(), expected, atol=0.011)
        np.testing.assert_array_equal(scatter.get_offsets()[:, 0], points)


def test_free_weights_are_drawn_as_weighted_densities(study):
    row = study.representative(study.cells[0]).iloc[-1]
    figure = snapshot_picture(Subject(None, study.truth, 2, True), row)
    fitted = line(figure, "fitted component 0")
    peak = row["weight_0"] / (row["scale_0"] * np.sqrt(2 * np.pi))
    assert fitted[:, 1].max() == pytest.approx(peak, rel=1e-3)
    assert figure.axes[0].get_ylabel() == "weight × density"


def test_a_fit_that_stopped_early_is_shown_once_and_says_so():
    trace = pd.DataFrame({"iteration": [0, 1, 2, 4, 7]})
    rows = snapshot_rows(trace, [0, 3, 6, 9, 12])
    # 3 and 6 were not recorded: the last rows before them; 9 and 12 lie beyond the end.
    assert [(row["iteration"], stopped) for row, stopped in rows] == [
        (0, False),
        (2, False),
        (4, False),
        (7, True),
    ]


def test_the_figure_of_snapshots_ends_where_the_fit_ends(study):
    """The last row is added where the snapshots end before it, to the figure alone."""
    cell = study.cells[0]
    last = int(study.representative(cell)["iteration"].iloc[-1])
    assert last > 3
    for wanted, stopped in (([0, 2], True), ([0, last], False), ([0, last + 5], True)):
        group = replace(study, schedule=dict(study.schedule) | {"snapshots": wanted})
        figure = draw(group, "snapshots")
        titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
        iterations = [0, last] if wanted[1] >= last else [0, wanted[1], last]
        starts = [f"Iteration {iteration}" for iteration in iterations]
        starts[-1] = f"Stopped at iteration {last}" if stopped else starts[-1]
        assert len(titles) == len(starts)
        for title, start in zip(titles, starts, strict=True):
            assert title.startswith((f"{start},", f"{start}\n"))
        expected = [min(iteration, last) for iteration in wanted]
        assert [iteration for iteration, _ in snapshot_pngs(group, cell)] == expected


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("degenerate_scale", "Collapsed (degenerate scale) at iteration"),
        ("empty_component", "Collapsed (empty component) at iteration"),
        ("nonfinite", "Failed (not finite) at iteration"),
        ("converged", "Stopped at iteration"),
        ("max_iter", "Stopped at iteration"),
    ],
)
def test_the_last_picture_says_how_a_fit_ended(study, outcome, words):
    cell = study.cells[0]
    last = int(study.representative(cell)["iteration"].iloc[-1])
    for wanted in ([0, 2], [0, last + 5], [0, last]):
        group = replace(
            study,
            schedule=dict(study.schedule) | {"snapshots": wanted},
            fits=study.fits.assign(outcome=outcome),
        )
        axes = [each for each in draw(group, "snapshots").axes if each.get_visible()]
        first, *_, end = [each.get_title() for each in axes]
        assert first.startswith("Iteration 0")
        # What failed did so even where a picture of just that iteration was asked for.
        plain = wanted[1] == last and words.startswith("Stopped")
        assert end.startswith(f"Iteration {last}" if plain else f"{words} {last}")


def test_what_is_not_drawn_is_said_once_however_many_panels_there_are(study):
    points = {cell.id: np.linspace(-9.0, 9.0, 900) for cell in study.cells}
    group = replace(
        study, points=points, schedule=dict(study.schedule) | {"snapshots": [0, 1, 2, 3, 4]}
    )
    figure = draw(group, "snapshots")
    labels = {axes.get_xlabel() for axes in figure.axes if axes.get_visible()}
    assert labels == {"", "x"}
    assert figure.get_suptitle().count("1 in 3 points drawn") == 1
    renderer = FigureCanvasAgg(figure).get_renderer()
    title = figure._suptitle.get_window_extent(renderer)
    assert title.x0 >= 0 and title.x1 <= figure.bbox.width
    assert not any(title.overlaps(axes.title.get_window_extent(renderer)) for axes in figure.axes)


def test_some_of_many_curves_cover_the_inits(study):
    cells = tuple(
        replace(study.cells[0], id=f"{init}{algorithm}", init=init, algorithm=algorithm)
        for init in "abc"
        for algorithm in ("em", "squarem")
    )
    first = {cell.id: (0, 0) for cell in cells}
    group = replace(
        study, cells=cells, representatives=first, init_evaluations=dict.fromkeys(first, 0)
    )
    assert group.chosen(6) == group.labels and group.remark(group.labels) == ""
    four = ["a, em", "a, squarem", "b, em", "c, em"]
    assert group.chosen(4) == four and group.remark(four) == ", 4 of 6 curves"
    assert group.chosen(2) == ["a, em", "b, em"]
    assert group.remark(group.chosen(1)) == ", a, em (1 of 6 curves)"
    for name in ("mean_plane", "parameter_trajectories"):
        # The cells' rows: those of the first one, under every name.
        of_first = (study.traces_of(study.cells[0]), study.fits_of(study.cells[0]))
        traces, fits = (
            pd.concat([table.assign(cell=cell.id) for cell in cells], ignore_index=True)
            for table in of_first
        )
        points = {cell.id: study.points[study.cells[0].id] for cell in cells}
        figure = draw(replace(group, traces=traces, fits=fits, points=points), name)
        assert figure.get_suptitle().endswith(", 4 of 6 curves")
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert [text for text in texts if ", " in text] == four


def test_snapshot_pngs_name_the_iteration_shown(study):
    cell = study.cells[0]
    shown = [iteration for iteration, _ in snapshot_pngs(study, cell)]
    recorded = study.representative(cell)["iteration"]
    wanted = study.schedule["snapshots"]
    last_recorded = {recorded[recorded <= iteration].max() for iteration in wanted}
    assert shown == sorted(last_recorded)
    assert len(shown) > 2


@pytest.mark.parametrize("n_components", [1, 3, 9])
def test_pictures_of_any_number_of_components(n_components):
    k = np.arange(n_components)
    values = {"iteration": 4, "log_likelihood": -12.5}
    for i in k:
        values |= {f"weight_{i}": 1 / n_components, f"mean_{i}": float(i), f"scale_{i}": 0.5}
    row = pd.Series(values)
    points = np.linspace(-1, n_components, 1001)
    figure = snapshot_picture(Subject(points, None, n_components, True), row)
    fitted = [each for each in figure.axes[0].lines if "fitted" in each.get_label()]
    assert len({(each.get_color(), each.get_linestyle()) for each in fitted}) == n_components
    (scatter,) = figure.axes[0].collections
    assert len(scatter.get_offsets()) == 334
    assert "every 3th" not in figure.axes[0].get_xlabel()
    assert "1 in 3 points drawn" in figure.axes[0].get_xlabel()


def test_collapsed_and_missing_components_do_not_stop_a_picture():
    row = pd.Series(
        {"iteration": 2, "log_likelihood": np.inf}
        | {"weight_0": 0.5, "mean_0": 0.0, "scale_0": 0.0}
        | {"weight_1": np.nan, "mean_1": np.nan, "scale_1": np.nan}
    )
    points = np.array([-1.0, 0.0, 1.0])
    truth = parameters_of(pd.Series({"weight_0": 1.0, "mean_0": 0.0, "scale_0": 1.0}), 1)
    assert png_bytes(snapshot_picture(Subject(points, truth, 2, True), row))
    assert png_bytes(snapshot_picture(Subject(points, None, 2, True), row, stopped=True))


def test_gap_quantiles_carry_stopped_fits_and_unrecorded_iterations():
    traces = pd.DataFrame(
        {
            "replicate": [0, 0, 0, 1, 1, 2, 2, 3, 3],
            "start": 0,
            "iteration": [0, 2, 4, 0, 1, 0, 3, 0, 1],
            "log_likelihood": [-10.0, -6.0, -5.0, -9.0, -2.0, -8.0, -7.0, -1.0, np.nan],
        }
    )
    iterations = np.array([0, 1, 2, 3, 4, 50])
    gaps = np.array([[5.0, 5, 1, 1, 0, 0], [7.0, 0, 0, 0, 0, 0], [1.0, 1, 1, 0, 0, 0]])
    expected = np.quantile(gaps, [0.1, 0.5, 0.9], axis=0)
    np.testing.assert_array_equal(gap_quantiles(traces, iterations), expected)
    assert np.isnan(gap_quantiles(traces.iloc[:0], iterations)).all()


def test_outcome_bars_fill_the_whole_and_know_every_outcome(study):
    assert set(OUTCOME_COLORS) == set(OUTCOMES)
    bars = draw(study, "outcome_shares").axes[0].patches
    widths = pd.Series([bar.get_width() for bar in bars])
    places = [bar.get_y() for bar in bars]
    np.testing.assert_allclose(widths.groupby(places).sum(), 1.0)


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.name)
def test_no_figure_falls_over_fits_that_all_failed(kind, study, notebook):
    for group in (study, notebook):
        failed = group.fits.assign(outcome="degenerate_scale", rate_theory=np.nan)
        figure = plots.draw(kind, replace(group, fits=failed))
        assert figure is None or png_bytes(figure)


def test_a_fit_without_a_trace_is_left_out(study):
    first = study.cells[0].id
    traces = study.traces[study.traces["cell"] != first]
    group = replace(study, traces=traces)
    assert draw(group, "snapshots") is None
    assert draw(group, "parameter_trajectories") is not None
    nothing = replace(study, traces=study.traces.iloc[:0])
    for kind in FIGURES:
        figure = plots.draw(kind, nothing)
        assert figure is None or png_bytes(figure)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.05, "0.05"),
        (1.0, "1"),
        (1e3, "1000"),
        (1e4, "10⁴"),
        (1e-6, "10⁻⁶"),
        (3e-8, "3·10⁻⁸"),
        (1.5e7, "1.5·10⁷"),
        (300.0, "300"),
        (1.0 - 1e-9, "1"),
    ],
)
def test_power_of_ten(value, text):
    assert power_of_ten(value) == text


def test_figures_use_no_font_of_the_machine():
    from matplotlib import font_manager, get_data_path

    for family in ("DejaVu Sans", "a font that is not there"):
        assert font_manager.findfont(family).startswith(get_data_path())


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 2000.0, [1, 10, 100, 1000]),
        (0.9, 40.0, [1, 3, 10, 30]),
        (90.0, 1000.0, [100, 300, 1000]),
        (0.21, 0.48, [0.3, 0.4]),
        (271.0, 346.0, [280, 300, 320, 340]),
        (1e-16, 0.02, [1e-16, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2]),
        (0.055, 0.095, [0.06, 0.07, 0.08, 0.09]),
    ],
)
def test_a_short_logarithmic_axis_has_a_few_round_ticks(low, high, expected):
    axes = Figure().subplots()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    few_log_ticks(axes)
    if len(expected) >= 3:
        np.testing.assert_allclose(axes.get_yticks(), expected)
    else:
        assert set(np.round(axes.get_yticks(), 12)) > set(expected)
