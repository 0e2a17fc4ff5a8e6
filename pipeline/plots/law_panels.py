"""The scaling laws that the experiment asked for, of any statistic against any factor."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.plots.across import Across, over
from pipeline.plots.caption import Captioned
from pipeline.plots.group import Group
from pipeline.plots.law_lines import (
    aside,
    bar_entries,
    draw_laws,
    draw_points,
    fit_look,
    limit,
    note_laws,
    slope_text,
    value_axis,
)
from pipeline.plots.laws import Law
from pipeline.plots.panels import (
    Panel,
    add_axes,
    arrange,
    columns_for,
    panel_width,
    place_small_legend,
    series_looks,
    small_legend,
)
from pipeline.plots.scaling import laws_of_errors
from pipeline.plots.style import WIDTH, few_log_ticks, log_axis, styled

HEIGHT = 1.9  # inches of a panel
COLUMNS = 2  # of panels, for legends to fit below them
LONGEST = 46  # letters of a panel's heading
# Factors that the experiment sets: their values are the ticks.
DESIGNED = ("sample_size", "n_components", "separation")


@styled
def scaling_laws(group: Group | Across) -> Figure | None:
    """Statistics against the factors that the experiment asked about, with the fitted lines.

    All but the lines that `error_against_n` draws, if it is asked for.
    """
    elsewhere: set[int] = set()
    if isinstance(group, Group) and "error_against_n" in group.figures:
        elsewhere = {id(law) for law in laws_of_errors(group)}
    together: dict[tuple[str, str, str], list[Law]] = {}
    for law in group.laws:
        if id(law) not in elsewhere:
            where = over(law.cells, LONGEST) if isinstance(group, Across) else ""
            together.setdefault((law.statistic, law.factor, where), []).append(law)
    if not together:
        return None
    several = len({where for *_, where in together}) > 1
    drawn = [law for lines in together.values() for law in lines]
    named = [law_names(lines) for lines in together.values()]
    looks = series_looks(list(dict.fromkeys(name for names in named for name in names)))
    figure = Captioned(figsize=(WIDTH, WIDTH))
    columns = columns_for(len(together), COLUMNS)
    width = panel_width(columns, named=True)
    panels: list[Panel] = []
    legends: list[list[Line2D]] = []
    under: dict[int, float] = {}
    for place, ((statistic, factor, where), lines) in enumerate(together.items()):
        axes = add_axes(figure, None)
        panels.append(Panel(axes, *divmod(place, columns), {}))
        entries = []
        values = np.concatenate([law.x for law in lines])
        asides = aside(named[place], values) if factor in DESIGNED else {}
        for law, name in zip(lines, named[place], strict=True):
            look, x = looks[name], law.x * asides.get(name, 1.0)
            draw_points(axes, x, law.y, law.low, law.high, name, look, law.bars)
            text = f"{name}: {slope_text(law)}"
            entries.append(Line2D([], [], label=text, **look | fit_look(law)))
        moved = [(looks[name]["color"], asides.get(name, 1.0)) for name in named[place]]
        entries += draw_laws(axes, [(law, *each) for law, each in zip(lines, moved, strict=True)])
        entries += bar_entries(lines)
        entries, room = small_legend(entries, width)
        legends.append(entries)
        under[panels[-1].line] = max(room, under.get(panels[-1].line, 0.0))
        log_axis(axes)
        limit(axes, [value for law in lines for value in law.y])
        if factor in DESIGNED:
            value_axis(axes, values, width, asides.values(), sizes=factor == "sample_size")
        else:
            log_axis(axes, "x")
            few_log_ticks(axes, "x")
        axes.set_xlabel(factor.replace("_", " "))
        axes.set_ylabel(statistic, fontsize="small")
        heading = textwrap.fill(", ".join(dict.fromkeys(law.name for law in lines)), LONGEST)
        axes.set_title(f"{heading}\n{where}" if several else heading)
    figure.note(
        "Curves, points and lines together, stand a little aside of each other.",
        when=any(len(lines) > 1 and key[1] in DESIGNED for key, lines in together.items()),
    )
    figure.note("A panel's legend stands below it.", when=len(panels) > 1)
    note_laws(figure, drawn)
    arrange(figure, panels, group.title, [], share="", height=HEIGHT, named=True, under=under)
    for panel, entries in zip(panels, legends, strict=True):
        place_small_legend(panel.axes, entries)
    return figure


def law_names(lines: Sequence[Law]) -> list[str]:
    """Name the lines of a panel by the labels in which they differ, or else by their own names."""
    keys = [key for key in lines[0].labels if len({law.labels[key] for law in lines}) > 1]
    names: list[str] = []
    for law in lines:
        known = [(key, law.labels[key]) for key in keys if law.labels[key] is not None]
        texts = [Group.size_label(v) if key == "sample_size" else str(v) for key, v in known]
        if not texts or ", ".join(texts) in names:
            texts.append(law.name)
        names.append(", ".join(texts))
    return names
