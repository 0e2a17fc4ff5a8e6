"""Figures of single fits: gaps, and the slope that theory gives them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.plots.gaps import gap_floor, rate_text, theory_anchor
from pipeline.plots.group import Group
from tests.plots.conftest import draw, line


def linear(group: Group, rate: float, theory: float, last: int, **columns: float) -> Group:
    """Return one cell of a group, its representative fit's gap to a limit 5 rate^(2 t)."""
    cell = group.cells[0]
    t = np.arange(last + 1)
    trace = pd.DataFrame(
        {"cell": cell.id, "replicate": 0, "start": 0, "iteration": t, "map_evaluations": t}
    )
    trace["log_likelihood"] = -100.0 - 5.0 * rate ** (2.0 * t)
    trace["map_residual"] = np.where(t > 0, 0.3 * rate**t, np.nan)
    fits = group.fits[group.fits["cell"] == cell.id].assign(rate_theory=theory, **columns)
    return replace(group, cells=(cell,), fits=fits, traces=trace)


def labels(figure) -> set[str]:
    return {each.get_label() for each in figure.axes[0].lines}


def test_the_gap_is_that_to_the_fits_last_row(study):
    figure = draw(study, "log_likelihood_gap")
    for place, size in enumerate(study.sizes):
        for cell in study.panel(size):
            trace = study.representative(cell)
            gap = trace["log_likelihood"].iloc[-1] - trace["log_likelihood"]
            shown = gap > 1e-10
            expected = np.column_stack([trace["iteration"], gap])[shown]
            np.testing.assert_array_equal(line(figure, cell.init, place), expected)


def test_rounding_is_not_drawn_as_a_gap(study):
    group = linear(study, 0.5, np.nan, last=60)
    drawn = line(draw(group, "log_likelihood_gap"), "random_points")
    # 5 * 0.25^t falls below 1e-10 at t = 18.
    assert drawn[:, 0].tolist() == list(range(18))
    # A log-likelihood of -10^8 has a last digit of 1.5e-8.
    assert gap_floor(-1e8) > 1.5e-8
    assert gap_floor(-100.0) == 1e-10


@pytest.mark.parametrize("rate", [0.3, 0.9, 0.99])
def test_the_theoretical_line_lies_on_a_gap_of_its_rate(study, rate):
    group = linear(study, rate, rate, last=int(16 / -np.log(rate)))
    figure = draw(group, "log_likelihood_gap")
    ends = line(figure, "random_points, theory")
    np.testing.assert_allclose(ends[:, 1], 5.0 * rate ** (2.0 * ends[:, 0]), rtol=0.02)
    # Over nearly all of the curve, not a piece of it.
    curve = line(figure, "random_points")
    assert ends[0, 0] <= 1.01 and ends[1, 0] == curve[-1, 0]
    (note,) = [text.get_text() for text in figure.axes[0].texts]
    assert note == f"rate {rate:.3f}"


def test_another_rate_has_another_slope(study):
    # Of several directions the slowest is 0.95; the residual is in it, the gap does not tell yet.
    group = linear(study, 0.9, 0.95, last=150)
    traces = group.traces.assign(map_residual=0.95 ** group.traces["iteration"])
    figure = draw(replace(group, traces=traces), "log_likelihood_gap")
    (t0, y0), (t1, y1) = line(figure, "random_points, theory")
    assert np.log(y1 / y0) / (t1 - t0) == pytest.approx(2.0 * np.log(0.95))


@pytest.mark.parametrize(
    "theory",
    [np.nan, 1.0, 1.2, 0.0],
)
def test_no_line_without_a_rate_below_1(study, theory):
    assert labels(draw(linear(study, 0.9, theory, last=150), "log_likelihood_gap")) == {
        "random_points"
    }


def test_no_line_where_the_gap_is_not_ems(study):
    group = linear(study, 0.9, 0.9, last=150)
    assert "random_points, theory" in labels(draw(group, "log_likelihood_gap"))
    other = replace(group, methods={"em": "squarem"})
    assert "random_points, theory" not in labels(draw(other, "log_likelihood_gap"))
    # With a penalty the log-likelihood itself is not at a maximum: its gap falls like rate^t.
    penalised = linear(study, 0.9, 0.9, last=150, log_penalty=-0.3)
    assert "random_points, theory" not in labels(draw(penalised, "log_likelihood_gap"))


def test_fewer_than_two_gaps_are_no_curve_and_fewer_than_three_no_slope(study):
    group = linear(study, 1e-3, 1e-3, last=4)
    drawn = []
    for kept in ([0, 4], [0, 1, 4], [0, 1, 2, 4]):  # gaps above the arithmetic: 1, 2 and 2
        some = replace(group, traces=group.traces[group.traces["iteration"].isin(kept)])
        figure = draw(some, "log_likelihood_gap")
        drawn.append(None if figure is None else labels(figure))
    thinned = {"random_points", "random_points, next record"}
    assert drawn == [None, thinned, {"random_points"}]
    # With a third one there is something to compare.
    more = labels(draw(linear(study, 0.02, 0.02, last=12), "log_likelihood_gap"))
    assert more == {"random_points", "random_points, theory"}


def test_panels_without_a_curve_are_left_out(study):
    short = [cell.id for cell in study.panel(40)]
    traces = study.traces
    traces = traces[~traces["cell"].isin(short) | traces["iteration"].eq(0)]
    figure = draw(replace(study, traces=traces), "log_likelihood_gap")
    assert [axes.get_title() for axes in figure.axes] == ["n = 80"]


def test_the_anchor_is_where_the_end_of_the_fit_does_not_matter():
    t = np.arange(200)
    limit = 3.0 * 0.9 ** (2.0 * t)
    gaps = limit - limit[-1]
    residuals = 0.9**t
    anchor = theory_anchor(gaps, residuals, t, 0.9, 1e-10)
    assert gaps[anchor] == pytest.approx(limit[anchor], rel=0.01)
    assert gaps[anchor] > 1e-8 >= gaps[anchor + 1]
    # A fit that a loose rule stopped early: the end matters before the arithmetic does.
    early = limit[:40] - limit[39]
    anchor = theory_anchor(early, residuals[:40], t[:40], 0.9, 1e-10)
    assert early[anchor] == pytest.approx(limit[anchor], rel=0.01)
    assert early[anchor + 1] != pytest.approx(limit[anchor + 1], rel=0.01)
    # Ten iterations at 0.99 tell nothing.
    assert theory_anchor(limit[:10] - limit[9], 0.99 ** t[:10], t[:10], 0.99, 1e-10) == -1


@pytest.mark.parametrize(("plateau", "drawn"), [(150, True), (250, False)])
def test_no_line_from_a_record_before_the_linear_phase(study, plateau, drawn):
    """A fit stands still, then falls at its rate; the trace keeps 0, 100, 200 and the end, 300."""
    group = linear(study, 0.9, 0.9, last=300)
    t = np.arange(301.0)
    fall = np.maximum(t - plateau, 0.0)
    traces = group.traces.assign(
        log_likelihood=-100.0 - 5.0 * 0.9 ** (2.0 * fall), map_residual=0.3 * 0.9**fall
    )
    # By then what is left of the gap is little enough whether it falls already or not.
    kept = traces[traces["iteration"].isin([0, 50, 100, 200, 300])]
    figure = draw(replace(group, traces=kept), "log_likelihood_gap")
    assert ("random_points, theory" in labels(figure)) == drawn
    said = "without a dashed line" in " ".join(figure.notes)
    assert said != drawn
    if drawn:  # through the record at 200, where it falls
        t0, y0 = line(figure, "random_points, theory")[0]
        assert y0 * 0.81 ** (200 - t0) == pytest.approx(5.0 * 0.81**50, rel=0.02)


def test_records_of_a_thinned_trace_are_marked_and_the_next_one_is_on_the_axis(study):
    group = linear(study, 0.9, np.nan, last=150)
    whole = draw(group, "log_likelihood_gap")
    (curve,) = whole.axes[0].lines
    assert curve.get_marker() == "None" and "Dots" not in " ".join(whole.notes)
    kept = group.traces[group.traces["iteration"].isin([0, 1, 2, 40, 150])]
    figure = draw(replace(group, traces=kept), "log_likelihood_gap")
    (curve,) = [each for each in figure.axes[0].lines if each.get_label() == "random_points"]
    assert curve.get_marker() == "o" and curve.get_xdata().tolist() == [0, 1, 2, 40]
    assert line(figure, "random_points, next record").tolist() == [[150.0, 0.0]]
    assert "Dots" in " ".join(figure.notes) and figure.axes[0].get_xlim()[1] >= 150


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.5, "0.500"), (0.95, "0.950"), (0.99187, "0.9919"), (0.9999912, "0.9999912"), (1.0, "1")],
)
def test_a_rate_keeps_two_digits_of_what_it_lacks_to_1(rate, text):
    assert rate_text(rate) == text
