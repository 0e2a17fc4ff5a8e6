"""Which cells share a panel, and that panels stand beside one another and not on top."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.lines import Line2D

from pipeline import plots
from pipeline.figures import FIGURES
from pipeline.plots.panels import (
    arrange,
    columns_for,
    curve_factor,
    effort_axis,
    legend_lines,
    series_looks,
    size_panels,
)
from pipeline.plots.style import STYLE
from tests.factories import make_study
from tests.plots.conftest import groups_of


def test_panels_hold_every_cell_once_under_its_own_heading(study, rivals):
    for group, factor, other in ((study, "init", "algorithm"), (rivals, "algorithm", "init")):
        assert curve_factor(group) == factor
        _, panels = size_panels(group, factor)
        held = [cell.id for panel in panels for cell in panel.cells.values()]
        assert sorted(held) == sorted(cell.id for cell in group.cells)
        for panel in panels:
            for name, cell in panel.cells.items():
                assert name == getattr(cell, factor)
                heading = panel.axes.get_title()
                assert f"n = {cell.sample_size}" in heading
                assert (getattr(cell, other) in heading) == (group is rivals)
    # A line for each init, a column for each size.
    assert [(panel.line, panel.column) for panel in panels] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_panels_of_cells_that_are_not_drawn_are_not_made(rivals):
    _, panels = size_panels(
        rivals, "algorithm", keep=lambda cell: cell.sample_size == 80 or cell.init == "kmeans_pp"
    )
    headings = {panel.axes.get_title() for panel in panels}
    assert headings == {"n = 80, random_points", "n = 40, kmeans_pp", "n = 80, kmeans_pp"}


def test_curves_are_drawn_against_what_can_be_compared(study, rivals):
    assert effort_axis(study) == ("iteration", "iteration")
    assert effort_axis(rivals) == ("map_evaluations", "map evaluations")


@pytest.mark.parametrize("count", range(1, 30))
def test_lines_of_panels_are_about_equally_long(count):
    columns = columns_for(count)
    assert columns <= 4
    lines = -(-count // columns)
    assert lines == -(-count // 4)
    assert columns == 1 or -(-count // (columns - 1)) > lines


@pytest.mark.parametrize("count", [1, 6, 9, 24])
def test_looks_differ(count):
    looks = series_looks([str(k) for k in range(count)])
    assert len({(look["color"], str(look["linestyle"])) for look in looks.values()}) == count


def test_a_legend_fits_the_page(study):
    looks = series_looks(["a", "a name that is quite long, em", *map(str, range(20))])
    figure, panels = size_panels(study, "init")
    handles = [Line2D([], [], label=name) for name in looks]
    with mpl.style.context(["default", STYLE]):
        arrange(figure, panels, "title", handles)
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        lowest = min(panel.axes.get_tightbbox().y0 for panel in panels)
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert box.y1 <= lowest


def test_a_legend_names_what_is_drawn(study):
    _, panels = size_panels(study, "init", keep=lambda cell: cell.init == "kmeans_pp")
    looks = series_looks(["random_points", "kmeans_pp"])
    assert [handle.get_label() for handle in legend_lines(looks, panels)] == ["kmeans_pp"]


@pytest.fixture(scope="module")
def wide():
    """Return five sizes, three inits and two algorithms."""
    (group,) = groups_of(
        make_study(
            "experiment=notebook",
            "model=[free]",
            "init=[random_points,kmeans_pp,quantiles]",
            "algorithm=[em,squarem]",
            "sample_sizes=[20,30,40,50,60]",
            "replicates=5",
            "schedule=converge",
            "schedule.max_iter=30",
            "schedule.stop.tolerance=3e-2",
        )
    )
    return group


OURS = [
    kind
    for kind in FIGURES
    if kind.module in ("trajectories", "bands", "profiles", "scaling", "outcomes")
    and kind.name != "scaling_laws"
]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.name)
def test_many_panels_and_their_ticks_do_not_touch(kind, wide):
    figure = plots.draw(kind, wide)
    assert figure.get_size_inches()[1] < 11.0
    with mpl.style.context(["default", STYLE]):
        figure.draw_without_rendering()
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        legend = figure.legends[0].get_window_extent()
    for one, other in itertools.combinations([*boxes, legend], 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert width < 1.0 or height < 1.0, (one, other)
    assert np.all([box.x1 <= figure.bbox.x1 + 1.0 for box in boxes])
