"""Panels of curves: which cells share one, what tells their curves apart, and where they stand.

Margins are fixed in inches: figures of one kind look alike, and no layout has to be solved for.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.plan import Cell
from pipeline.plots.caption import Captioned
from pipeline.plots.group import Group
from pipeline.plots.style import LINE_STYLES, MARKERS, SERIES, WIDTH

MOST_COLUMNS = 4
WIDEST = 4.2  # inches: a single panel need not fill the page
PAGE, LOWEST = 8.0, 1.1  # inches for the lines of panels, and of a panel at least
LEFT, RIGHT, TOP = 0.72, 0.12, 0.3
HEADING, BETWEEN, BELOW, LEGEND_LINE = 0.24, 0.15, 0.46, 0.18
SECOND = 0.14  # line of a heading
BESIDE, OWN_Y, OWN_X = 0.3, 0.3, 0.22  # room for the ticks of every panel
LABEL = 0.2  # inches that the name of a y axis takes
NAME = 0.17  # inches more between panels of which each names its axes
SMALL = 7.0  # points: letters of a legend below its own panel
SMALL_LETTER, SMALL_HANDLE = 0.56, 29.0  # its letters' width, of their height; points beside them
NOTE = 9.5  # points of a line
LETTER, HANDLE = 5.2, 46.0  # points of a legend's entry: of each letter, and of the rest

# Curves in a panel: of more, their bands and other companions could not be told apart.
MOST_ACCOMPANIED = 4
LONG = 100.0  # an axis of effort that reaches further is logarithmic

Look = dict[str, Any]


class Panel(NamedTuple):
    """Axes in a grid, and the cells whose curves they hold, by the names of these curves.

    ``ticks``: whether the ticks of its x axis are labelled; if not, the panel below has the same.
    """

    axes: Axes
    line: int
    column: int
    cells: dict[str, Cell]
    ticks: bool = True

    @property
    def sample_size(self) -> float:
        """Of all its cells, where panels differ in it."""
        return next(iter(self.cells.values())).sample_size


def series_looks(names: Sequence[str]) -> dict[str, Look]:
    """Colour, line style and marker of each of several curves; colours come again, dashed."""
    looks = {}
    for place, name in enumerate(names):
        turn = place // len(SERIES) % len(LINE_STYLES)
        marker = MARKERS[place % len(MARKERS)]
        looks[name] = {"color": SERIES[place % len(SERIES)], "linestyle": LINE_STYLES[turn]}
        looks[name] |= {"marker": marker, "markersize": 4}
    return looks


def line_look(look: Look) -> Look:
    """Return what a curve without markers needs."""
    return {key: look[key] for key in ("color", "linestyle")}


def curve_factor(group: Group) -> str:
    """Return the factor whose levels share a panel: the one of more levels, algorithms on a tie."""
    inits = len({cell.init for cell in group.cells})
    algorithms = len({cell.algorithm for cell in group.cells})
    return "algorithm" if algorithms > 1 and algorithms >= inits else "init"


def curve_names(group: Group, factor: str) -> list[str]:
    """Return the levels of a factor, in plan order."""
    return list(dict.fromkeys(getattr(cell, factor) for cell in group.cells))


def effort_axis(group: Group) -> tuple[str, str]:
    """Return what curves are drawn against, and its name: iterations of two algorithms differ."""
    if len({cell.algorithm for cell in group.cells}) > 1:
        return "map_evaluations", "map evaluations"
    return "iteration", "iteration"


def effort(group: Group, cell: Cell, trace: pd.DataFrame) -> np.ndarray:
    """Return where rows of a cell's traces stand on `effort_axis`, shape (rows,).

    What its init spent comes first.
    """
    axis, _ = effort_axis(group)
    before = group.init_evaluations[cell.id] if axis == "map_evaluations" else 0
    return trace[axis].to_numpy(float) + before


def effort_scale(longest: float) -> float:
    """Return from what length on an axis of `effort` is logarithmic: one scale in all panels."""
    return 0.0 if longest >= LONG else math.inf


def note_effort(figure: Captioned, group: Group) -> None:
    """Say why the axis counts map evaluations, if it does."""
    figure.note(
        "The axis counts map evaluations, as iterations of algorithms may differ in cost.",
        when=effort_axis(group)[0] != "iteration",
    )
    note_init(figure, group, effort_axis(group)[0])


def note_init(figure: Captioned, group: Group, axis: str) -> None:
    """Say that inits have spent map evaluations, if they have and the axis counts them."""
    figure.note(
        "Map evaluations that an init spends before a fit begins are counted.",
        when=axis != "iteration" and any(group.init_evaluations.values()),
    )


def columns_for(count: int, most: int = MOST_COLUMNS) -> int:
    """Return how many panels stand side by side, so that all lines are about equally long."""
    return math.ceil(count / math.ceil(count / most))


def size_panels(
    group: Group,
    factor: str,
    *,
    keep: Callable[[Cell], bool] = lambda _cell: True,
    share: str = "xy",
    most_columns: int = MOST_COLUMNS,
) -> tuple[Captioned, list[Panel]]:
    """Make a panel for each sample size and each level of the other factor that has cells.

    Parameters
    ----------
    group : Group
    factor : str
        `init` or `algorithm`: cells that differ in it share a panel. Every level of the other one
        begins a new line.
    keep : callable
        Which cells are drawn.
    share : str
        Axes that all panels have in common: `x`, `y`, both or none.
    most_columns : int
        Panels side by side.
    """
    other = "init" if factor == "algorithm" else "algorithm"
    facets = curve_names(group, other)
    kept = [cell for cell in group.cells if keep(cell)]
    sizes = sorted({cell.sample_size for cell in kept})
    figure = Captioned(figsize=(WIDTH, WIDTH))
    panels: list[Panel] = []
    # One size: the levels stand side by side.
    columns = columns_for(len(facets) if len(sizes) == 1 else len(sizes), most_columns)
    line = column = 0
    for facet in facets:
        if column and len(sizes) > 1:
            line, column = line + 1, 0
        for size in sizes:
            cells = {
                getattr(cell, factor): cell
                for cell in kept
                if cell.sample_size == size and getattr(cell, other) == facet
            }
            if not cells:
                continue
            if column == columns:
                line, column = line + 1, 0
            axes = add_axes(figure, panels[0].axes if panels else None, share)
            title = group.size_label(size)
            axes.set_title(f"{title}, {facet}" if len(facets) > 1 else title)
            panels.append(Panel(axes, line, column, cells))
            column += 1
    return figure, panels


def add_axes(figure: Figure, first: Axes | None, share: str = "") -> Axes:
    """Add axes, to be put in their place by `arrange`, that may share theirs with the first."""
    return figure.add_axes(
        (0.0, 0.0, 1.0, 1.0),
        sharex=first if "x" in share else None,
        sharey=first if "y" in share else None,
    )


def panel_width(columns: int, share: str = "", left: float = LEFT, *, named: bool = False) -> float:
    """Return the inches of a panel that `arrange` makes beside as many others."""
    room = WIDTH - left - RIGHT - (columns - 1) * _between(share, named)
    return min(WIDEST, room / columns)


def _between(share: str, named: bool) -> float:
    return BESIDE + (0.0 if "y" in share else OWN_Y) + (NAME if named else 0.0)


def arrange(
    figure: Figure,
    panels: Sequence[Panel],
    title: str,
    handles: Sequence[Any],
    *,
    height: float = 1.9,
    share: str = "xy",
    left: float = LEFT,
    named: bool = False,
    under: Mapping[int, float] | None = None,
) -> Figure:
    """Put every panel in its place, with one title above them and one legend below.

    Parameters
    ----------
    figure, panels
        Labels of axes are set on every panel; those inside the grid are taken away, and several
        lines with the same y axis have its label once.
    title : str
    handles : sequence of artists with labels
        Of the legend.
    height : float
        Inches of a panel; less where a page would not hold all lines.
    share : str
        Axes that neighbours have in common: only the outer ones have labels at their ticks.
    left : float
        Inches for the y axis of the first column.
    named : bool
        Whether every panel keeps the labels of its axes, as they differ.
    under : mapping
        Inches of further room below a line of panels, by its number.
    """
    under = under or {}
    columns = max(panel.column for panel in panels) + 1
    lowest = {panel.column: panel.line for panel in panels}  # the last one of each column
    ticks = {
        id(panel.axes): panel.line == lowest[panel.column] or (panel.ticks and "x" not in share)
        for panel in panels
    }
    between = _between(share, named)
    width = panel_width(columns, share, left, named=named)
    block = columns * width + (columns - 1) * between
    margin = max(left, (WIDTH - block) / 2.0) if width == WIDEST else left
    height = max(LOWEST, min(height, PAGE / (max(lowest.values()) + 1) - HEADING))
    tops, down = [], TOP
    for line in range(max(lowest.values()) + 1):
        members = [panel for panel in panels if panel.line == line]
        titles = [panel.axes.get_title() for panel in members]
        down += max(HEADING + SECOND * title.count("\n") if title else 0.0 for title in titles)
        tops.append(down)
        down += height + BETWEEN + (OWN_X if any(ticks[id(p.axes)] for p in members) else 0.0)
        down += under.get(line, 0.0) + (NAME if named else 0.0)
    legend_columns, legend_lines = _legend_shape(handles)
    below = BELOW + under.get(max(lowest.values()), 0.0)
    total = tops[-1] + height + below + LEGEND_LINE * legend_lines + 0.06
    figure.set_size_inches(WIDTH, total)
    for panel in panels:
        axes = panel.axes
        x, y = margin + panel.column * (width + between), tops[panel.line] + height
        axes.set_position((x / WIDTH, 1.0 - y / total, width / WIDTH, height / total))
        axes.yaxis.set_label_coords(-(left - LABEL) / width, 0.5)
        axes.tick_params(
            labelbottom=ticks[id(axes)], labelleft=panel.column == 0 or "y" not in share
        )
        if panel.line < lowest[panel.column] and not named:
            axes.set_xlabel("")
        if panel.column > 0 and not named:
            axes.set_ylabel("")
    names = {panel.axes.get_ylabel() for panel in panels if panel.column == 0}
    if len(names) == 1 and max(lowest.values()) > 0 and not named:
        for panel in panels:
            panel.axes.set_ylabel("")
        middle = 1.0 - (tops[0] + tops[-1] + height) / 2.0 / total
        figure.supylabel(
            names.pop(),
            x=(margin - left + 0.06) / WIDTH,
            y=middle,
            ha="left",
            va="center",
            fontsize="medium",
        )
    figure.suptitle(title, y=1.0 - 0.07 / total, verticalalignment="top")
    if handles:
        labels = [str(handle.get_label()) for handle in handles]
        figure.legend(
            handles, labels, loc="lower center", ncols=legend_columns, borderaxespad=0.2,
            labelspacing=0.3,
        )  # fmt: skip
    return figure


def _legend_shape(handles: Sequence[Any]) -> tuple[int, int]:
    """Return columns and lines of a legend that fits the page; it is filled column by column."""
    widths = [LETTER * len(str(handle.get_label())) + HANDLE for handle in handles]
    for columns in range(len(widths), 1, -1):
        lines = math.ceil(len(widths) / columns)
        columns = math.ceil(len(widths) / lines)
        if sum(max(widths[i : i + lines]) for i in range(0, len(widths), lines)) < 72 * WIDTH:
            return columns, lines
    return 1, len(widths)


def legend_lines(looks: dict[str, Look], panels: Iterable[Panel]) -> list[Line2D]:
    """Return the legend's entries of the curves that some panel holds."""
    held = {name for panel in panels for name in panel.cells}
    return [
        Line2D([], [], label=name, **line_look(look))
        for name, look in looks.items()
        if name in held
    ]


def accompanied(panels: Iterable[Panel]) -> bool:
    """Tell whether curves may have bands: no panel holds too many."""
    return all(len(panel.cells) <= MOST_ACCOMPANIED for panel in panels)


def corner_notes(axes: Axes, notes: Sequence[tuple[str, str]], side: str = "right") -> None:
    """Write lines of text with their colours into an upper corner."""
    x = 1.0 if side == "right" else 0.0
    for place, (text, color) in enumerate(notes):
        axes.annotate(
            text, (x, 1.0), (2 - 4 * x, -2 - NOTE * place), xycoords="axes fraction",
            textcoords="offset points", color=color, fontsize=7.5, ha=side, va="top",
        )  # fmt: skip


def small_legend(handles: Iterable[Any], width: float) -> tuple[list[Any], float]:
    """Break the labels of a panel's own legend into lines that fit below it.

    Return the handles and the inches that they need, `width` inches being there.
    """
    letters = int((72.0 * width - SMALL_HANDLE) / (SMALL_LETTER * SMALL))
    handles, lines = list(handles), 0
    for handle in handles:
        text = textwrap.fill(str(handle.get_label()), letters, break_on_hyphens=False)
        handle.set_label(text)
        lines += 1 + text.count("\n")
    return handles, (SMALL * (1.2 * lines + 0.3 * len(handles)) + 4.0) / 72.0 if handles else 0.0


def place_small_legend(axes: Axes, handles: Sequence[Any]) -> None:
    """Put a panel's own legend below it, once it is arranged."""
    if not handles:
        return
    height = axes.get_window_extent().height / axes.figure.dpi
    down = OWN_X + 0.02 + (LABEL if axes.get_xlabel() else 0.0)
    labels = [str(handle.get_label()) for handle in handles]
    axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0.0, -down / height), borderaxespad=0.0,
        borderpad=0.0, labelspacing=0.3, handlelength=3.2, fontsize=SMALL,
    )  # fmt: skip
