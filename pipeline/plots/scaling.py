"""How statistics scale: the error of the estimates with the sample size, and the laws asked for."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from pipeline.plots.caption import Captioned
from pipeline.plots.group import PARAMETERS, Group, size_text
from pipeline.plots.laws import Law, statistic_bars
from pipeline.plots.panels import (
    Look,
    Panel,
    add_axes,
    arrange,
    columns_for,
    corner_notes,
    curve_factor,
    curve_names,
    room_for_notes,
    series_looks,
)
from pipeline.plots.style import LINE_STYLES, MARKERS, WIDTH, few_log_ticks, log_axis, styled

REGULAR = -0.5  # slope of the error of a regular estimator
FITTED: Look = {"linewidth": 1.2}
JOINED: Look = {"linewidth": 0.7, "alpha": 0.5}  # of points without a fitted line
PREDICTED: Look = {"color": "0.45", "linestyle": ":", "linewidth": 1.1}
ASIDE = 0.12  # part of the way to the next sample size
FEW_NOTES = 2  # that stand in a corner without touching the lines
HEIGHT = 1.9  # inches of a panel of laws
MOST_TICKS = 5  # sample sizes that are named on an axis
SAME = 1e-9  # relative difference of errors that are one number: of +t and -t, of w and 1 - w


def _looks(group: Group) -> dict[str, Look]:
    """Markers and colours by full label: a colour per curve factor, a marker per other level."""
    factor = curve_factor(group)
    other = "init" if factor == "algorithm" else "algorithm"
    looks = series_looks(curve_names(group, factor))
    facets = curve_names(group, other)
    if len(facets) == 1:
        return {group.label(cell): looks[getattr(cell, factor)] for cell in group.cells}
    found = {}
    for cell in group.cells:
        place = facets.index(getattr(cell, other))
        marker, style = MARKERS[place % len(MARKERS)], LINE_STYLES[place % len(LINE_STYLES)]
        look = looks[getattr(cell, factor)] | {"marker": marker, "linestyle": style}
        found[group.label(cell)] = look
    return found


def error_panels(group: Group, table: pd.DataFrame) -> list[tuple[str, list[int]]]:
    """Return the parameters with an error, those whose errors are the same numbers together."""
    found: list[tuple[str, list[int]]] = []
    for name in PARAMETERS:
        values: list[np.ndarray] = []
        for k in range(group.n_components):
            column = f"rmse_{name}_{k}"
            if column not in table or not table[column].fillna(0.0).gt(0.0).any():
                continue
            rmse = table[column].to_numpy(dtype=float)
            same = [i for i, v in enumerate(values) if np.allclose(v, rmse, SAME, 0.0, True)]
            if same:
                found[len(found) - len(values) + same[0]][1].append(k)
            else:
                values.append(rmse)
                found.append((name, [k]))
    return found


@styled
def error_against_n(group: Group) -> Figure | None:
    """RMSE of every parameter against sample size, with fitted and predicted slopes."""
    table = group.convergence[np.isfinite(group.convergence["sample_size"])].set_index("cell")
    parameters = error_panels(group, table)
    if table["sample_size"].nunique() < 2 or not parameters:
        return None
    looks = _looks(group)
    figure = Captioned(figsize=(WIDTH, WIDTH))
    columns = columns_for(len(parameters), 4 if group.n_components > 3 else 3)
    panels: list[Panel] = []
    fitted, claimed = False, set()
    for place, (name, components) in enumerate(parameters):
        axes = add_axes(figure, None)
        panels.append(Panel(axes, *divmod(place, columns), {}))
        numbers = " and ".join(map(str, components))
        axes.set_title(f"{name}{'s' if len(components) > 1 else ''} {numbers}")
        lines = {
            text: law for law in group.laws
            if (text := _own(group, law)) and law.statistic == f"rmse_{name}_{components[0]}"
        }  # fmt: skip
        starts = _draw_errors(axes, group, table, f"rmse_{name}_{components[0]}", looks, lines)
        notes = [
            (_draw_line(axes, law, looks[text]["color"]), looks[text]["color"])
            for text, law in lines.items()
        ]
        predictions = {law.expected for law in lines.values()} or {None}
        sizes = np.sort(table["sample_size"].unique())
        for slope in sorted({REGULAR if each is None else each for each in predictions}):
            _draw_predicted(axes, sizes, float(np.nanmin(starts)), slope)
            notes += [(f"predicted {_number(slope)}", "0.35")] if slope in predictions else []
        corner_notes(axes, notes)
        fitted = fitted or bool(lines)
        claimed |= {each is not None for each in predictions}
        _size_axis(axes, sizes)
        axes.set_ylabel("RMSE")
    handles = [Line2D([], [], label=text, **look) for text, look in looks.items()]
    if fitted:
        handles.append(Line2D([], [], color="0.2", label="fitted line", **FITTED))
    texts = ["predicted"] * (True in claimed) + ["∝ 1/√n"] * (False in claimed)
    handles.append(Line2D([], [], label=" or ".join(texts), **PREDICTED))
    bars = {f"rmse_{name}_{components[0]}" for name, components in parameters}
    _note_bars(figure, table, bars)
    figure.note("± is a slope's standard error.", when=fitted)
    figure.note(
        "Dotted, from the least error at the smallest size: "
        + " or ".join(
            ["the slope that a claim of the experiment predicts"] * (True in claimed)
            + ["1/√n, a regular estimator's"] * (False in claimed)
        )
        + "."
    )
    figure.note("Points of several curves stand a little aside of their size.", when=len(looks) > 1)
    figure.note(
        "Parameters whose errors are the same numbers share a panel.",
        when=any(len(components) > 1 for _, components in parameters),
    )
    return arrange(figure, panels, group.title, handles, share="", height=1.7)


def _note_bars(figure: Captioned, table: pd.DataFrame, statistics: Iterable[str]) -> None:
    """Say what the bars are, if there are any."""
    ends = {
        "one Monte-Carlo standard error": [f"{name}_mcse" for name in statistics],
        "95 % intervals": [f"{name}_low" for name in statistics if f"{name}_mcse" not in table],
    }
    drawn = [
        text
        for text, columns in ends.items()
        if any(column in table and np.isfinite(table[column]).any() for column in columns)
    ]
    figure.note(f"Bars are {', or else '.join(drawn)}.", when=bool(drawn))


def _own(group: Group, law: Law) -> str | None:
    """Return the label of the cells of a law in the sample size; None where it has another kind."""
    ours = {cell.id for cell in group.cells}
    texts = {group.label(cell) for cell in law.cells}
    same = law.factor == "sample_size" and len(texts) == 1
    if same and law.statistic.startswith("rmse_") and {cell.id for cell in law.cells} <= ours:
        return texts.pop()
    return None


def _draw_errors(
    axes: Axes,
    group: Group,
    table: pd.DataFrame,
    statistic: str,
    looks: dict[str, Look],
    lines: dict[str, Law],
) -> list[float]:
    """Draw a statistic of all cells, joined where no line is fitted; return the first values."""
    value, low, high = (pd.Series(each, table.index) for each in statistic_bars(table, statistic))
    starts = []
    aside = _aside(list(looks), table["sample_size"].to_numpy(dtype=float))
    for text, look in looks.items():
        ids = [cell.id for cell in group.cells if group.label(cell) == text]
        ids = table.loc[table.index.isin(ids), "sample_size"].sort_values().index
        if len(ids):
            starts.append(float(value[ids].iloc[0]))
            x = table.loc[ids, "sample_size"].to_numpy(dtype=float) * aside[text]
            y, down, up = (each[ids].to_numpy() for each in (value, low, high))
            if text not in lines:
                axes.plot(x, y, color=look["color"], linestyle=look["linestyle"], **JOINED)
            _draw_points(axes, x, y, down, up, text, look | {"linestyle": "none"})
    return starts


def _aside(names: list[str], sizes: np.ndarray) -> dict[str, float]:
    """Return a factor close to 1 for each curve, by which bars stand side by side."""
    room = ASIDE * float(np.diff(np.log(np.unique(sizes))).min())
    return dict(zip(names, np.exp(np.linspace(-room, room, len(names) + 2)[1:-1]), strict=True))


def _draw_points(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    label: str,
    look: Look,
) -> None:
    """Draw points with their bars; what has no logarithm is left out."""
    kept = np.isfinite(y) & (y > 0.0)
    bars = np.array([y - low, high - y])[:, kept]
    bars = np.where(np.isfinite(bars), np.maximum(bars, 0.0), 0.0)
    axes.errorbar(x[kept], y[kept], bars, label=label, capsize=2, linewidth=1.1, **look)


def _draw_line(axes: Axes, law: Law, color: str) -> str:
    """Draw a fitted line over the range of its points, and return its slope in words."""
    x = np.array([law.factor_low, law.factor_high])
    axes.plot(x, law.line(x), color=color, label=f"{law.name}, fitted", **FITTED)
    return f"slope {_with_error(law.slope, law.slope_se)}"


def _draw_predicted(axes: Axes, x: np.ndarray, start: float, slope: float) -> None:
    """Draw a predicted slope from a point at the smallest x."""
    ends = np.array([x.min(), x.max()])
    y = start * (ends / ends[0]) ** slope
    axes.plot(ends, y, zorder=1, label=f"predicted {slope:g}", **PREDICTED)


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _with_error(value: float, error: float) -> str:
    """Write a number to the second digit of its standard error."""
    if not np.isfinite(error) or error <= 0.0:
        return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _size_axis(axes: Axes, sizes: np.ndarray) -> None:
    log_axis(axes)
    few_log_ticks(axes)
    log_axis(axes, "x")
    shown = sizes[:: -(-len(sizes) // MOST_TICKS)]
    axes.set_xticks(shown, [size_text(size) for size in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sample size n")


@styled
def scaling_laws(group: Group) -> Figure | None:
    """Statistics against the factors that the experiment asked about, with the fitted lines."""
    together: dict[tuple[str, str], list[Law]] = {}
    for law in group.laws:
        if _own(group, law) is None:
            together.setdefault((law.statistic, law.factor), []).append(law)
    if not together:
        return None
    figure = Captioned(figsize=(WIDTH, WIDTH))
    panels: list[Panel] = []
    names = _law_names([law for lines in together.values() for law in lines])
    looks = series_looks(sorted(set(names.values()), key=list(names.values()).index))
    predicted = False
    columns = columns_for(len(together), 3)
    for place, ((statistic, factor), lines) in enumerate(together.items()):
        axes = add_axes(figure, None)
        panels.append(Panel(axes, *divmod(place, columns), {}))
        notes = []
        for law in lines:
            text = names[id(law)]
            look = looks[text] | {"linestyle": "none"}
            _draw_points(axes, law.x, law.y, law.low, law.high, text, look)
            notes.append((_draw_line(axes, law, look["color"]), look["color"]))
            if law.expected is not None:
                x = np.array([law.factor_low, law.factor_high])
                _draw_predicted(axes, x, float(law.line(x)[0]), law.expected)
                notes.append((f"predicted {_number(law.expected)}", "0.35"))
                predicted = True
        notes = list(dict.fromkeys(notes))
        log_axis(axes, "x")
        log_axis(axes)
        _limit(axes, lines)
        # The lines may come near any corner.
        rising = sum(law.slope > 0.0 for law in lines) * 2 > len(lines)
        corner_notes(axes, notes, "left" if rising else "right")
        if len(notes) > FEW_NOTES:
            room_for_notes(axes, len(notes), HEIGHT)
        for which in ("x", "y"):
            few_log_ticks(axes, which)
        axes.set_title(f"{statistic}\nagainst {factor.replace('_', ' ')}")
    handles = [
        Line2D([], [], label=text, **look | {"linestyle": "none"}) for text, look in looks.items()
    ]
    handles.append(Line2D([], [], color="0.2", label="fitted line", **FITTED))
    if predicted:
        handles.append(Line2D([], [], label="predicted", **PREDICTED))
    drawn = [law for lines in together.values() for law in lines]
    # A statistic has a minus in front where it is negative throughout.
    bars = {law.statistic.removeprefix("\N{MINUS SIGN}") for law in drawn}
    _note_bars(figure, group.convergence, bars)
    errors = any(np.isfinite(law.slope_se) for law in drawn)
    figure.note("± is a slope's standard error.", when=errors)
    figure.note("Dotted: the slope that a claim predicts.", when=predicted)
    figure.note(
        "A line through several truths or models stands with the first.",
        when=any(not set(law.cells) <= set(group.cells) for law in drawn),
    )
    return arrange(figure, panels, group.title, handles, share="", height=HEIGHT)


def _limit(axes: Axes, lines: Sequence[Law]) -> None:
    """Let a bar that reaches down to 0 run out of the axis, instead of moving its end."""
    values = np.concatenate([law.y for law in lines])
    smallest = values[np.isfinite(values) & (values > 0.0)].min()
    axes.set_ylim(bottom=max(axes.get_ylim()[0], smallest / 4.0))


def _law_names(lines: Sequence[Law]) -> dict[int, str]:
    """Name lines, by id, by the labels in which any of them differ, or by their own names."""
    keys = [key for key in lines[0].labels if len({law.labels[key] for law in lines}) > 1]
    names: dict[int, str] = {}
    panels: dict[tuple[str, str], list[str]] = {}
    for law in lines:
        known = [(key, law.labels[key]) for key in keys if law.labels[key] is not None]
        texts = [Group.size_label(v) if key == "sample_size" else str(v) for key, v in known]
        beside = panels.setdefault((law.statistic, law.factor), [])
        if not texts or ", ".join(texts) in beside:
            texts.append(law.name)
        names[id(law)] = ", ".join(texts)
        beside.append(names[id(law)])
    return names
