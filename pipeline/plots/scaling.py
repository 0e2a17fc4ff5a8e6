"""How the error of the estimates scales with the sample size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.plan import Cell
from pipeline.plots.caption import Captioned
from pipeline.plots.group import PARAMETERS, Group
from pipeline.plots.law_lines import (
    GREY,
    PREDICTED,
    aside,
    draw_laws,
    draw_points,
    fit_look,
    limit,
    note_laws,
    slope_text,
    value_axis,
)
from pipeline.plots.laws import Law, statistic_bars
from pipeline.plots.panels import (
    Look,
    Panel,
    add_axes,
    arrange,
    columns_for,
    curve_factor,
    curve_names,
    panel_width,
    place_small_legend,
    series_looks,
    small_legend,
)
from pipeline.plots.style import LINE_STYLES, MARKERS, WIDTH, log_axis, styled
from pipeline.statistics.slopes import log_errors, weights

REGULAR = -0.5  # slope of the error of a regular estimator
JOINED: Look = {"linewidth": 0.7, "alpha": 0.5}  # of points without a fitted line
HEIGHT = 1.7  # inches of a panel
MOST_SERIES = 8  # of inits and algorithms together: of more, each level of one has its own panels
SAME = 1e-9  # relative difference of errors that are one number: of +t and -t, of w and 1 - w


class Errors(NamedTuple):
    """The errors of parameters that are the same numbers."""

    parameter: str
    components: tuple[int, ...]

    @property
    def statistics(self) -> tuple[str, ...]:
        """Columns of `convergence`."""
        return tuple(f"rmse_{self.parameter}_{k}" for k in self.components)

    @property
    def title(self) -> str:
        """Such as: weight 0, means 0 and 1, scales 0, 2–5."""
        if len(self.components) == 1:
            return f"{self.parameter} {self.components[0]}"
        return f"{self.parameter}s {_ranges(self.components)}"


def _ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers: 0 and 1, 1–5, or 0, 2–4."""
    runs: list[list[int]] = []
    for each in numbers:
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    texts = [
        f"{run[0]}–{run[-1]}" if len(run) > 2 else f"{', '.join(map(str, run))}" for run in runs
    ]
    return " and ".join(map(str, numbers)) if len(numbers) == 2 else ", ".join(texts)


def error_panels(group: Group, table: pd.DataFrame) -> list[Errors]:
    """Return the estimated parameters with an error, those of the same numbers together."""
    found: list[Errors] = []
    for name in group.estimated:
        values: dict[int, np.ndarray] = {}  # by position in `found`
        for k in range(group.n_components):
            column = f"rmse_{name}_{k}"
            if column not in table or not table[column].fillna(0.0).gt(0.0).any():
                continue
            rmse = table[column].to_numpy(dtype=float)
            same = [i for i, v in values.items() if np.allclose(v, rmse, SAME, 0.0, True)]
            if same:
                before = found[same[0]]
                found[same[0]] = before._replace(components=(*before.components, k))
            else:
                values[len(found)] = rmse
                found.append(Errors(name, (k,)))
    return found


def _finite(group: Group) -> pd.DataFrame:
    """Return the statistics of the cells that are no populations, by cell id."""
    return group.convergence[np.isfinite(group.convergence["sample_size"])].set_index("cell")


def laws_of_errors(group: Group) -> list[Law]:
    """Return the lines that `error_against_n` draws: through one curve of one of its panels."""
    drawn = {name for each in error_panels(group, _finite(group)) for name in each.statistics}
    return [
        law
        for law in group.laws
        if law.factor == "sample_size"
        and law.statistic in drawn
        and len({group.label(cell) for cell in law.cells}) == 1
    ]


def facet_cells(group: Group) -> dict[str, list[Cell]]:
    """Return the cells of each block of panels, by its name: one block, if it is not too full."""
    inits, algorithms = (curve_names(group, factor) for factor in ("init", "algorithm"))
    if min(len(inits), len(algorithms)) == 1 or len(group.labels) <= MOST_SERIES:
        return {"": list(group.cells)}
    other = "init" if curve_factor(group) == "algorithm" else "algorithm"
    return {
        level: [cell for cell in group.cells if getattr(cell, other) == level]
        for level in curve_names(group, other)
    }


def curve_looks(group: Group) -> dict[str, Look]:
    """Return the look of each curve by full label: no two of one panel have the same.

    A colour per level of the curve factor and a marker per level of the other one, if these share
    panels; or else a colour and a marker per level of the curve factor.
    """
    factor = curve_factor(group)
    other = "init" if factor == "algorithm" else "algorithm"
    looks, beside = series_looks(curve_names(group, factor)), curve_names(group, other)
    shared = len(beside) > 1 and len(facet_cells(group)) == 1
    found = {}
    for cell in group.cells:
        look = looks[getattr(cell, factor)]
        if shared:
            place = beside.index(getattr(cell, other))
            look = look | {"marker": MARKERS[place], "linestyle": LINE_STYLES[place]}
        found[group.label(cell)] = look
    return found


@styled
def error_against_n(group: Group) -> Figure | None:
    """RMSE of every estimated parameter against sample size, with fitted and predicted slopes."""
    table = _finite(group)
    parameters = error_panels(group, table)
    if table["sample_size"].nunique() < 2 or not parameters:
        return None
    facets = facet_cells(group)
    looks, laws = curve_looks(group), laws_of_errors(group)
    figure = Captioned(figsize=(WIDTH, WIDTH))
    columns = columns_for(len(parameters), 4 if group.n_components > 3 else 3)
    width = panel_width(columns)
    panels: list[Panel] = []
    legends: list[list[Line2D]] = []
    under: dict[int, float] = {}
    guided = False
    for facet, (level, cells) in enumerate(facets.items()):
        ours = {cell.id for cell in cells}
        sizes = table["sample_size"].to_numpy(dtype=float)
        asides = aside(list(dict.fromkeys(group.label(cell) for cell in cells)), sizes)
        for place, errors in enumerate(parameters):
            line, column = divmod(place, columns)
            line += facet * -(-len(parameters) // columns)
            axes = add_axes(figure, None)
            panels.append(Panel(axes, line, column, {}))
            axes.set_title(f"{errors.title}, {level}" if level else errors.title)
            axes.set_ylabel("RMSE")
            lines: dict[str, list[Law]] = {}
            for law in laws:
                if law.statistic in errors.statistics and law.cells[0].id in ours:
                    lines.setdefault(group.label(law.cells[0]), []).append(law)
            rows = table[table.index.isin(ours)]
            _draw_errors(axes, group, rows, errors.statistics[0], looks, lines, asides)
            entries = _draw_laws(axes, lines, looks, asides)
            if not any(law.expected for each in lines.values() for law in each):
                guided |= _draw_regular(axes, rows, errors.statistics[0])
            entries, room = small_legend(entries, width)
            legends.append(entries)
            under[line] = max(room, under.get(line, 0.0))
            log_axis(axes)
            limit(axes, rows[errors.statistics[0]])
            value_axis(axes, sizes, width, asides.values(), sizes=True)
            axes.set_xlabel("sample size n")
    handles = _entries(group, looks, facets, guided)
    _note(figure, group, table, parameters, laws, guided)
    arrange(figure, panels, group.title, handles, share="", height=HEIGHT, under=under)
    for panel, entries in zip(panels, legends, strict=True):
        place_small_legend(panel.axes, entries)
    return figure


def _draw_errors(
    axes: Axes,
    group: Group,
    table: pd.DataFrame,
    statistic: str,
    looks: dict[str, Look],
    lines: dict[str, list[Law]],
    asides: dict[str, float],
) -> None:
    """Draw a statistic of cells, joined where no line is fitted."""
    value, low, high = (pd.Series(each, table.index) for each in statistic_bars(table, statistic))
    for text, place in asides.items():
        ids = [cell.id for cell in group.cells if group.label(cell) == text]
        ids = table.loc[table.index.isin(ids), "sample_size"].sort_values().index
        if len(ids):
            look = looks[text]
            x = table.loc[ids, "sample_size"].to_numpy(dtype=float) * place
            y, down, up = (each[ids].to_numpy() for each in (value, low, high))
            if text not in lines:
                axes.plot(x, y, color=look["color"], linestyle=look["linestyle"], **JOINED)
            draw_points(axes, x, y, down, up, text, look, "mcse")


def _draw_laws(
    axes: Axes, lines: dict[str, list[Law]], looks: dict[str, Look], asides: dict[str, float]
) -> list[Line2D]:
    """Draw the lines of all curves of a panel; return their legend."""
    entries: dict[tuple[str, str], Line2D] = {}
    drawn = []
    for text, laws in lines.items():
        for law in laws:
            color = looks[text]["color"]
            drawn.append((law, color, asides[text]))
            label = slope_text(law)
            # Two names of one line have one entry.
            entries[text, label] = Line2D([], [], color=color, label=label, **fit_look(law))
    return [*entries.values(), *draw_laws(axes, drawn)]


def _draw_regular(axes: Axes, table: pd.DataFrame, statistic: str) -> bool:
    """Draw the slope of a regular estimator through the weighted centroid of all points, if any."""
    value = table[statistic].to_numpy(dtype=float)
    used = np.isfinite(value) & (value > 0.0)
    if not used.any():
        return False
    weight = weights(log_errors(table, statistic)[0][used])
    size = np.log(table["sample_size"].to_numpy(dtype=float)[used])
    x, y = (np.average(each, weights=weight) for each in (size, np.log(value[used])))
    ends = np.array([table["sample_size"].min(), table["sample_size"].max()])
    line = np.exp(y + REGULAR * (np.log(ends) - x))
    axes.plot(ends, line, color=GREY, zorder=1, label=f"predicted {REGULAR:g}", **PREDICTED)
    return True


def _entries(
    group: Group, looks: dict[str, Look], facets: dict[str, list[Cell]], guided: bool
) -> list[Line2D]:
    """Return the figure's legend: every curve once, by its level where panels name the other."""
    if len(facets) > 1:
        factor = curve_factor(group)
        looks = {getattr(cell, factor): looks[group.label(cell)] for cell in group.cells}
    handles = [Line2D([], [], label=text, **look) for text, look in looks.items()]
    if guided:
        handles.append(Line2D([], [], color=GREY, label="∝ 1/√n", **PREDICTED))
    return handles


def _note(
    figure: Captioned,
    group: Group,
    table: pd.DataFrame,
    parameters: Sequence[Errors],
    laws: Sequence[Law],
    guided: bool,
) -> None:
    """Say what the figure holds."""
    columns = [f"{each.statistics[0]}_mcse" for each in parameters]
    known = any(column in table and np.isfinite(table[column]).any() for column in columns)
    figure.note("Bars are one Monte-Carlo standard error.", when=known)
    note_laws(figure, laws)
    figure.note(
        "Dotted and grey: 1/√n, a regular estimator's, through the weighted centroid of the "
        "points' logarithms.",
        when=guided,
    )
    figure.note(
        "Curves, points and lines together, stand a little aside of each other.",
        when=len(group.labels) > 1,
    )
    figure.note(
        "Parameters whose errors are the same numbers share a panel.",
        when=any(len(each.components) > 1 for each in parameters),
    )
    figure.note(
        "Parameters that the model fixes are left out.", when=len(group.estimated) < len(PARAMETERS)
    )
