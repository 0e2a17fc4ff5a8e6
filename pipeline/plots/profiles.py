"""Shares of fits that have got somewhere, against what was spent: the curves of `profiles`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from pipeline.plan import Cell
from pipeline.plots.caption import Captioned, listed
from pipeline.plots.group import FAILURES, FEWEST_FITS, Group
from pipeline.plots.panels import (
    LONG,
    Look,
    Panel,
    accompanied,
    arrange,
    curve_factor,
    curve_names,
    effort_axis,
    legend_lines,
    line_look,
    note_effort,
    note_init,
    series_looks,
    size_panels,
)
from pipeline.plots.style import (
    LINE_STYLES,
    few_log_ticks,
    iteration_axis,
    log_axis,
    power_of_ten,
    styled,
)

CENSORED = "Fits that the largest number of iterations cut off are censored."
INTERVALS = "Bands are pointwise 95 % intervals."
DOTTED: Look = {"linestyle": (0, (1, 1))}
# Of each kind: what several targets tell.
FURTHER = {
    "log_likelihood_gap": "The way from one line style to the next is what a smaller gap costs.",
    "distance_to_fixed_point": "The way from one line style to the next is what further digits "
    "cost.",
}
MOST_CURVES = 9  # in a panel
BEYOND = 1.1  # times the last step: an axis that ended there would hide it


def _curves(group: Group, kind: str, axis: str) -> pd.DataFrame:
    table = group.profiles
    table = table[(table["kind"] == kind) & (table["axis"] == axis)]
    return table[table["n"] >= FEWEST_FITS]


def _note_few(figure: Captioned, group: Group, kind: str, what: str) -> None:
    """Say which cells have no curve of this kind."""
    counts = group.profiles.loc[group.profiles["kind"] == kind, "n"]
    figure.note(
        f"Cells with fewer than {FEWEST_FITS} {what} are left out.",
        when=bool((counts < FEWEST_FITS).any()),
    )


def _step(axes: Axes, rows: pd.DataFrame, start: float, label: str, **look: Any) -> None:
    """Draw a curve, 0 from `start` to its first row."""
    x, share = rows["x"].to_numpy(float), rows["share"].to_numpy(float)
    axes.step(np.append(start, x), np.append(0.0, share), where="post", label=label, **look)


def _interval(axes: Axes, rows: pd.DataFrame, look: Look) -> None:
    """Draw the pointwise interval of a curve."""
    axes.fill_between(
        rows["x"], rows["low"], rows["high"], step="post",
        color=look["color"], alpha=0.18, linewidth=0,
    )  # fmt: skip


def _interval_handles(panels: list[Panel], table: pd.DataFrame) -> list[Patch]:
    """Return the legend's entry of the intervals, if they are drawn and there are any."""
    band = Patch(color="0.5", alpha=0.2, linewidth=0, label="95 % interval")
    return [band] if _with_intervals(panels, table) else []


def _with_intervals(panels: list[Panel], table: pd.DataFrame) -> bool:
    return accompanied(panels) and bool(table["low"].notna().any())


def _share_axis(panels: list[Panel], label: str) -> None:
    panels[0].axes.set_ylim(0.0, 1.02)
    panels[0].axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    for panel in panels:
        panel.axes.set_ylabel(label)


def added(curves: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the sum of step functions: `x` and `share`, where any of them changes or ends."""
    x = np.unique(np.concatenate([rows["x"].to_numpy(float) for rows in curves]))
    total = np.zeros(len(x))
    for rows in curves:
        place = np.searchsorted(rows["x"].to_numpy(float), x, side="right")
        total += np.append(0.0, rows["share"].to_numpy(float))[place]
    return pd.DataFrame({"x": x, "share": total})


@styled
def iterations_distribution(group: Group) -> Figure | None:
    """Cumulative incidence of convergence, with its pointwise 95 % band, and of failures."""
    axis, axis_label = effort_axis(group)
    table = _curves(group, "converged", axis)
    if not table["share"].gt(0.0).any():
        return None
    rows = dict(iter(table.groupby("cell", sort=False)))
    failed = pd.concat([_curves(group, kind, axis) for kind in FAILURES])
    factor = curve_factor(group)
    looks = series_looks(curve_names(group, factor))
    figure, panels = size_panels(group, factor, keep=lambda cell: cell.id in rows)
    for panel in panels:
        for name, cell in panel.cells.items():
            curve = rows[cell.id]
            look = line_look(looks[name])
            if accompanied(panels):
                _interval(panel.axes, curve, look)
            _step(panel.axes, curve, 0.0, name, **look)
            kinds = failed[failed["cell"] == cell.id]
            if len(kinds):
                total = added([each for _, each in kinds.groupby("kind", sort=False)])
                _step(panel.axes, total, 0.0, f"{name}, failed", linewidth=0.9, **look | DOTTED)
    _effort(panels, table, axis_label)
    _share_axis(panels, "share converged by then")
    handles: list = legend_lines(looks, panels)
    handles += _interval_handles(panels, table)
    if len(failed):
        handles.append(Line2D([], [], color="0.4", linewidth=0.9, label="failed", **DOTTED))
    cells = [cell for panel in panels for cell in panel.cells.values()]
    figure.note(INTERVALS, when=_with_intervals(panels, table))
    figure.note(
        "Failures compete: their share (dotted) is what a curve never gains.",
        when=bool(len(failed)),
    )
    figure.note(CENSORED, when=group.ended(cells, ["max_iter"]))
    note_effort(figure, group)
    _note_few(figure, group, "converged", "fits")
    return arrange(figure, panels, group.title, handles)


def _effort(panels: list[Panel], table: pd.DataFrame, label: str) -> None:
    """Scale and name the axis of what was spent: logarithmic from the first success, if long."""
    first, last = float(table.loc[table["share"] > 0.0, "x"].min()), float(table["x"].max())
    axes = panels[0].axes
    if first > 0.0 and last >= LONG:
        log_axis(axes, "x")
        axes.set_xlim(0.8 * first, BEYOND * last)
        few_log_ticks(axes, "x")
    else:
        iteration_axis(axes, BEYOND * last)
    for panel in panels:
        panel.axes.set_xlabel(label)


@styled
def log_likelihood_gap_profiles(group: Group) -> Figure | None:
    """Share of fits that have come within a gap of the best, against map evaluations."""
    return _runtime(group, "log_likelihood_gap", "share within the gap", "gap {}")


@styled
def distance_to_fixed_point_profiles(group: Group) -> Figure | None:
    """Share of fits that have come near their fixed point, against map evaluations."""
    label = "share within the distance"
    return _runtime(group, "distance_to_fixed_point", label, "distance {}")


def _runtime(group: Group, kind: str, label: str, target_label: str) -> Figure | None:
    table = _curves(group, kind, "map_evaluations")
    if not table["share"].gt(0.0).any():
        return None
    drawn = set(table["cell"])
    factor = curve_factor(group)
    looks = series_looks(curve_names(group, factor))
    figure, panels = size_panels(group, factor, keep=lambda cell: cell.id in drawn)
    targets = sorted(table["target"].unique())
    few = MOST_CURVES // max(len(panel.cells) for panel in panels)
    few = min(max(few, 1), len(targets), len(LINE_STYLES))
    shown = [targets[int(place)] for place in np.linspace(0, len(targets) - 1, few)]
    left_out, targets = len(targets) - few, shown
    styles = dict(zip(targets, LINE_STYLES, strict=False))
    rows = {key: curve for key, curve in table.groupby(["cell", "target"], sort=False)}
    for panel in panels:
        for name, cell in panel.cells.items():
            for target, style in styles.items():
                look = {"linestyle": style} if len(targets) > 1 else {}
                _step(
                    panel.axes, rows[cell.id, target], 0.0, f"{name}, {target:g}",
                    linewidth=1.4 if target == targets[0] else 1.1, **line_look(looks[name]) | look,
                )  # fmt: skip
    _effort(panels, table[table["target"].isin(targets)], "map evaluations")
    _share_axis(panels, label)
    handles = legend_lines(looks, panels)
    handles += [
        Line2D(
            [], [], color="0.3", linestyle=style, label=target_label.format(power_of_ten(target))
        )
        for target, style in styles.items()
    ]
    last = table[table["target"].isin(targets)].groupby(["cell", "target"]).last()
    cells = [cell for panel in panels for cell in panel.cells.values()]
    figure.note(FURTHER[kind], when=len(targets) > 1)
    lacking = _lacking(group, kind, cells, targets[0], (last["n_unknown"] / last["n"]).max())
    figure.note(lacking, when=lacking != "" and bool((last["share"] < 1.0).any()))
    figure.note(
        f"Of {few + left_out} targets {few} {'is' if few == 1 else 'are'} drawn.",
        when=left_out > 0,
    )
    note_init(figure, group, "map_evaluations")
    _note_few(figure, group, kind, "recorded fits")
    return arrange(figure, panels, group.title + group.recorded_remark(cells), handles)


def _lacking(group: Group, kind: str, cells: Sequence[Cell], target: float, unknown: float) -> str:
    """Say what became of the fits that never came as near as the smallest target.

    `unknown` is the largest share of a curve's fits of which nobody knows.
    """
    if kind == "distance_to_fixed_point":
        if not unknown:
            return "What a curve lacks to 100 % did not converge."
        return (
            f"What a curve lacks to 100 % failed or is not known: up to {100.0 * unknown:.0f} % of "
            "its fits were cut off, or stopped farther from their fixed point than the distance."
        )
    fits = group.recorded_fits(cells)
    failed, converged = fits["outcome"].isin(FAILURES), fits["outcome"] == "converged"
    reasons = {
        "failed": failed,
        "ended near a singularity": converged & fits["near_singular"],
        "ended farther away (at another optimum, or early)": converged
        & (fits["log_likelihood_gap"] > target),
    }
    happened = [reason for reason, which in reasons.items() if which.any()]
    said = f"What a curve lacks to 100 % {listed(happened)}." if happened else ""
    return f"{said} {CENSORED}".strip() if (fits["outcome"] == "max_iter").any() else said


@styled
def algorithm_performance(group: Group) -> Figure | None:
    """Draw performance profiles of the algorithms, from the same samples and starts."""
    return _performance(group, "algorithm")


@styled
def init_performance(group: Group) -> Figure | None:
    """Draw performance profiles of the inits, on the same samples."""
    return _performance(group, "init")


def _performance(group: Group, factor: str) -> Figure | None:
    table = _curves(group, f"{factor}_performance", "factor")
    if not table["share"].gt(0.0).any():
        return None
    rows = dict(iter(table.groupby("cell", sort=False)))
    last = BEYOND * max(float(table["x"].max()), 2.0)
    looks = series_looks(curve_names(group, factor))
    figure, panels = size_panels(group, factor, keep=lambda cell: cell.id in rows)
    for panel in panels:
        for name, cell in panel.cells.items():
            curve, look = rows[cell.id], line_look(looks[name])
            if curve["x"].iloc[-1] < last:  # what was not solved by then never was
                curve = pd.concat([curve, curve.tail(1).assign(x=last)])
            if accompanied(panels):
                _interval(panel.axes, curve, look)
            _step(panel.axes, curve, 1.0, name, **look)
        panel.axes.set_xlabel("cost / least cost")
    axes = panels[0].axes
    log_axis(axes, "x")
    axes.set_xlim(1.0, last)
    few_log_ticks(axes, "x")
    _share_axis(panels, "share solved within this factor")
    handles: list = legend_lines(looks, panels)
    handles += _interval_handles(panels, table)
    note_init(figure, group, "map_evaluations" if factor == "init" else "iteration")
    figure.note(
        "Several starts cost their sum over the number of them that solved it.",
        when=factor == "init" and any(c.starts > 1 for p in panels for c in p.cells.values()),
    )
    figure.note(INTERVALS, when=_with_intervals(panels, table))
    _note_few(
        figure, group, f"{factor}_performance", "fits" if factor == "algorithm" else "replicates"
    )
    return arrange(figure, panels, group.title, handles)
