"""Fan charts show the quantiles of the table."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.plots.conftest import draw, line

QUANTITIES = ("log_likelihood_gap", "distance_to_fixed_point", "distance_to_truth")


def made_up(group, quantity, rows):
    """Return one cell of a group with these bands: x, q10, q50, q90, running_share."""
    cell = group.cells[0]
    table = pd.DataFrame(rows, columns=["x", "q10", "q50", "q90", "running_share"])
    table = table.assign(cell=cell.id, quantity=quantity, axis="iteration", n=50)
    return replace(group, cells=(cell,), trajectories=table)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_median_and_band_are_the_tables(study, quantity):
    figure = draw(study, f"{quantity}_bands")
    high = figure.axes[0].get_ylim()[1]
    longest = figure.axes[0].get_xlim()[1]
    for place, size in enumerate(study.sizes):
        bands = iter(figure.axes[place].collections)
        for cell in study.panel(size):
            rows = study.trajectories
            rows = rows[(rows["cell"] == cell.id) & (rows["quantity"] == quantity)]
            rows = rows[rows["axis"] == "iteration"]
            drawn = line(figure, cell.init, place)
            np.testing.assert_array_equal(drawn[: len(rows), 0], rows["x"])
            finite = np.where(np.isfinite(rows["q50"]), rows["q50"], np.nan)
            np.testing.assert_array_equal(drawn[: len(rows), 1], finite)
            # Carried to the end of the axis.
            assert drawn[-1, 0] >= min(longest / 1.02, rows["x"].iloc[-1])
            assert drawn[-1, 1] == finite[-1] or np.isnan(finite[-1])
            vertices = next(bands).get_paths()[0].vertices
            for x, low, up in zip(rows["x"], rows["q10"], rows["q90"], strict=True):
                at = vertices[vertices[:, 0] == x, 1]
                assert at.min() == min(low, high) and at.max() == min(up, high)


def test_failures_open_the_band_to_the_edge_and_an_infinite_median_is_not_drawn(study):
    rows = [
        (0, 1.0, 2.0, np.inf, 1.0),
        (1, 0.5, np.inf, np.inf, 0.6),
        (2, 0.25, 1.0, np.inf, 0.4),
        (3, 0.125, 0.5, 4.0, 0.0),
    ]
    figure = draw(made_up(study, "distance_to_truth", rows), "distance_to_truth_bands")
    assert np.isnan(line(figure, "random_points")[1, 1])
    low, high = figure.axes[0].get_ylim()
    assert low <= 0.125 and high >= 4.0 and np.isfinite(high)
    assert figure.axes[0].collections[0].get_paths()[0].vertices[:, 1].max() == high


def test_the_triangle_stands_where_half_have_stopped(study):
    rows = [(x, 1.0, 2.0, 3.0, share) for x, share in ((0, 1.0), (4, 0.51), (9, 0.5), (12, 0.0))]
    figure = draw(made_up(study, "distance_to_truth", rows), "distance_to_truth_bands")
    assert line(figure, "random_points, half stopped").tolist() == [[9.0, 0.0]]
    # It is on the axis, wherever the curve is.
    (mark,) = [each for each in figure.axes[0].lines if each.get_marker() == "^"]
    assert mark.get_transform() == figure.axes[0].get_xaxis_transform()
    # The axis ends where hardly a fit still runs.
    assert figure.axes[0].get_xlim()[1] == pytest.approx(9 * 1.02)
    running = [(x, 1.0, 2.0, 3.0, 0.9) for x in (0, 5, 8)]
    figure = draw(made_up(study, "distance_to_truth", running), "distance_to_truth_bands")
    assert not [each for each in figure.axes[0].lines if each.get_marker() == "^"]


def test_gaps_below_rounding_do_not_stretch_the_axis(study):
    rows = [(0, 1.0, 5.0, 9.0, 1.0), (7, 1e-14, 1e-13, 1e-3, 0.2)]
    figure = draw(made_up(study, "log_likelihood_gap", rows), "log_likelihood_gap_bands")
    assert figure.axes[0].get_ylim()[0] > 1e-11


def test_nothing_to_say(study):
    few = study.trajectories.assign(n=4)
    same = study.trajectories.assign(q10=0.0, q50=0.0, q90=0.0)
    lost = study.trajectories.assign(q10=np.inf, q50=np.inf, q90=np.inf)
    for table in (few, same, lost, study.trajectories.iloc[:0]):
        for quantity in QUANTITIES:
            assert draw(replace(study, trajectories=table), f"{quantity}_bands") is None


def test_algorithms_are_compared_by_their_cost(rivals):
    figure = draw(rivals, "distance_to_truth_bands")
    assert {axes.get_xlabel() for axes in figure.axes} == {"", "map evaluations"}
    rows = rivals.trajectories
    rows = rows[(rows["cell"] == rivals.cells[0].id) & (rows["quantity"] == "distance_to_truth")]
    rows = rows[rows["axis"] == "map_evaluations"]
    np.testing.assert_array_equal(line(figure, "em")[: len(rows), 1], rows["q50"])


def test_many_curves_have_no_bands(study):
    cells = tuple(replace(study.cells[0], id=f"c{k}", init=f"i{k}") for k in range(5))
    rows = [(0, 1.0, 2.0, 3.0, 1.0), (5, 0.1, 0.2, 0.3, 0.1)]
    one = made_up(study, "distance_to_truth", rows).trajectories
    table = pd.concat([one.assign(cell=cell.id) for cell in cells])
    for count, bands in ((4, 4), (5, 0)):
        group = replace(study, cells=cells[:count], trajectories=table)
        figure = draw(group, "distance_to_truth_bands")
        assert len(figure.axes[0].collections) == bands
