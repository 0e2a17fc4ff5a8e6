"""Fan charts: how far the fits of a cell are on their way, over its replicates."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.plots.caption import Captioned, listed
from pipeline.plots.gaps import SMALLEST_GAP, gap_floor
from pipeline.plots.group import FAILURES, FEWEST_FITS, Group
from pipeline.plots.panels import (
    MOST_ACCOMPANIED,
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
    series_looks,
    size_panels,
)
from pipeline.plots.style import few_log_ticks, iteration_axis, log_axis, styled

SMALLEST_DISTANCE = 1e-14
STILL_RUNNING = 0.05  # the axis ends where fewer do
NARROW = 1000.0  # an axis over less has labels within its decades
BANDS = "bands reach from the 10 % to the 90 % quantile"
BANDS_LEFT_OUT = f"without bands, as some panel has more than {MOST_ACCOMPANIED} curves"
# Of each quantity: where fits are that have stopped, and what a curve tells that levels off.
CARRIED = {
    "log_likelihood_gap": "A fit that has stopped is carried at its last row",
    "distance_to_fixed_point": "A fit that has converged is carried at distance 0",
    "distance_to_truth": "A fit that has stopped is carried at its last row, whatever its outcome",
}
LEVEL = {
    "log_likelihood_gap": "Where a curve levels off, fits ended at other optima, or early.",
    "distance_to_truth": "Where a curve levels off, the sample's own error is larger than what "
    "further iterations change.",
}


@styled
def log_likelihood_gap_bands(group: Group) -> Figure | None:
    """Gap to the best log-likelihood: median and 10-90 % band over replicates."""
    largest = group.fits["log_likelihood"].abs()
    largest = largest[np.isfinite(largest)].max()
    floor = gap_floor(largest) if len(group.fits) else SMALLEST_GAP
    return _fan(group, "log_likelihood_gap", "log-likelihood gap to the best", floor)


@styled
def distance_to_fixed_point_bands(group: Group) -> Figure | None:
    """Distance to the fit's own fixed point: median and 10-90 % band over replicates."""
    label = "distance to the fixed point (units)"
    return _fan(group, "distance_to_fixed_point", label, SMALLEST_DISTANCE)


@styled
def distance_to_truth_bands(group: Group) -> Figure | None:
    """Distance to the truth: median and 10-90 % band over replicates."""
    label = "distance to the truth (units)"
    return _fan(group, "distance_to_truth", label, SMALLEST_DISTANCE)


def _fan(group: Group, quantity: str, label: str, floor: float) -> Figure | None:
    axis, axis_label = effort_axis(group)
    table = group.trajectories
    table = table[(table["quantity"] == quantity) & (table["axis"] == axis)]
    few = bool((table["n"] < FEWEST_FITS).any())
    table = table[table["n"] >= FEWEST_FITS]
    rows = dict(iter(table.groupby("cell", sort=False)))
    values = table[["q10", "q50", "q90"]].to_numpy(dtype=float)
    seen = values[np.isfinite(values) & (values > floor)]
    if not len(seen):
        return None
    low, high = float(seen.min()) / 1.5, float(seen.max()) * 1.5
    factor = curve_factor(group)
    looks = series_looks(curve_names(group, factor))
    figure, panels = size_panels(group, factor, keep=lambda cell: cell.id in rows)
    banded = accompanied(panels)
    longest = float(table.loc[table["running_share"] > STILL_RUNNING, "x"].max())
    for panel in panels:
        for name, cell in panel.cells.items():
            _draw(panel, rows[cell.id], longest, looks[name], name, high if banded else None)
        panel.axes.set_ylabel(label)
    log_axis(panels[0].axes)
    panels[0].axes.set_ylim(low, high)
    if high < NARROW * low:
        few_log_ticks(panels[0].axes)
    for panel in panels:
        iteration_axis(panel.axes, longest)
        panel.axes.set_xlabel(axis_label)
    handles: list = legend_lines(looks, panels)
    if banded:
        band = Patch(color="0.5", alpha=0.2, linewidth=0, label="10 % to 90 % of replicates")
        handles.append(band)
    if any(line.get_marker() == "^" for panel in panels for line in panel.axes.lines):
        stopped: Look = {"marker": "^", "color": "0.4", "linestyle": "none", "markersize": 5}
        handles.append(Line2D([], [], label="half of the fits have stopped", **stopped))
    _note(figure, group, quantity, table, longest, banded, floor)
    note_effort(figure, group)
    figure.note(f"Cells with fewer than {FEWEST_FITS} recorded replicates are left out.", when=few)
    drawn = [cell for panel in panels for cell in panel.cells.values()]
    return arrange(figure, panels, group.title + group.recorded_remark(drawn), handles)


def _draw(
    panel: Panel, rows: pd.DataFrame, longest: float, look: Look, name: str, high: float | None
) -> None:
    """Draw a cell's band, if `high` says where it ends, its median, and when half had stopped."""
    if rows["x"].iloc[-1] < longest:  # from where the last fit stopped all are carried
        rows = pd.concat([rows, rows.tail(1).assign(x=longest)])
    x, middle = rows["x"].to_numpy(float), rows["q50"].to_numpy(float)
    if high is not None:
        lower, upper = rows["q10"].to_numpy(float), rows["q90"].to_numpy(float)
        panel.axes.fill_between(
            x, np.minimum(lower, high), np.minimum(upper, high),
            color=look["color"], alpha=0.18, linewidth=0,
        )  # fmt: skip
        for edge in (lower, upper):
            edge = np.where(np.isfinite(edge), edge, np.nan)
            panel.axes.plot(x, edge, color=look["color"], linewidth=0.5, alpha=0.6)
    middle = np.where(np.isfinite(middle), middle, np.nan)
    panel.axes.plot(x, middle, **line_look(look), label=name)
    stopped = x[rows["running_share"].to_numpy() <= 0.5]
    if len(stopped):
        panel.axes.plot(
            stopped[0], 0.0, marker="^", markersize=5, color=look["color"], clip_on=False,
            transform=panel.axes.get_xaxis_transform(), label=f"{name}, half stopped", zorder=5,
        )  # fmt: skip


def _note(
    figure: Captioned,
    group: Group,
    quantity: str,
    table: pd.DataFrame,
    longest: float,
    banded: bool,
    floor: float,
) -> None:
    """Say what the lines are, and where the fits are that stopped, and those that failed."""
    drawn = set(table["cell"])
    cells = [cell for cell in group.cells if cell.id in drawn]
    shown = table[table["x"] <= longest]
    gap = quantity == "log_likelihood_gap"
    fits = group.recorded_fits(cells) if gap else group.recorded(group.fits, cells)
    figure.note(f"Lines are medians over replicates, {BANDS if banded else BANDS_LEFT_OUT}.")
    figure.note(
        "Of several starts a replicate has their median.",
        when=any(cell.starts > 1 for cell in cells),
    )
    end = f"; the axis ends where {100 * (1 - STILL_RUNNING):g} % of every cell's fits have stopped"
    figure.note(
        f"{CARRIED[quantity]}{end if (table['x'] > longest).any() else ''}.",
        when=bool((shown["running_share"] < 1.0).any()),
    )
    lost = _lost(fits, quantity)
    seen = [
        *["where more than a tenth are, the band runs into the upper edge"]
        * bool(banded and np.isinf(shown["q90"]).any()),
        *["where more than half are, there is no line"] * bool(np.isinf(shown["q50"]).any()),
    ]
    figure.note(
        f"Fits that {lost} are infinitely far, from the first iteration on"
        f"{': ' if seen else ''}{'; '.join(seen)}.",
        when=bool(lost),
    )
    last = table.groupby("cell")["q90" if banded else "q50"].last()
    figure.note(
        LEVEL.get(quantity, ""),
        when=bool((np.isfinite(last) & (last > floor)).any())
        and quantity in LEVEL
        and bool((fits["outcome"] == "converged").any()),
    )


def _lost(fits: pd.DataFrame, quantity: str) -> str:
    """Say what some of the fits did that a quantity has no value for; nothing without such."""
    outcomes = set(fits["outcome"])
    if quantity == "distance_to_fixed_point":
        return "did not converge" if outcomes - {"converged"} else ""
    if quantity == "distance_to_truth":
        return "ended with an error" if "error" in outcomes else ""
    failed = fits["outcome"].isin(FAILURES)
    near = bool((fits["near_singular"] & ~failed).any())
    return listed(["failed"] * bool(failed.any()) + ["ended near a singularity"] * near)
