"""How single fits move with the iteration: log-likelihood, its gap to the end, and parameters."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.plan import GRID, Cell
from pipeline.plots.caption import POPULATION, Captioned, note_other_truth
from pipeline.plots.group import FAILURES, PARAMETERS, Group
from pipeline.plots.panels import (
    LEFT,
    Look,
    Panel,
    accompanied,
    add_axes,
    arrange,
    columns_for,
    corner_notes,
    curve_factor,
    curve_names,
    effort_axis,
    legend_lines,
    line_look,
    note_effort,
    series_looks,
    size_panels,
)
from pipeline.plots.style import (
    LINE_STYLES,
    WIDTH,
    component_looks,
    few_log_ticks,
    iteration_axis,
    log_axis,
    styled,
)

SMALLEST_GAP = 1e-10
ROUNDING = 2.0**-48  # of a log-likelihood: sixteen times its last digit
FEWEST_SHOWN = 2  # gaps above the arithmetic: one alone is no curve
FEWEST_COMPARED = 3  # of them for a slope to be compared with
MOST_STARTS = 10
MOST_OVERLAID = 3  # components whose trajectories can be told apart for several inits at once
TRUE_VALUE: Look = {"linestyle": "--", "linewidth": 0.9, "alpha": 0.7}
THEORY: Look = {"color": "black", "linestyle": "--", "linewidth": 0.9}
ONLY_PLAIN = " Only plain EM has this rate."
SHARED = "0.2"  # of a note that is about several curves
TRUTH: Look = {"color": "black", "linestyle": "--", "alpha": 0.5}


def gap_floor(log_likelihood: float) -> float:
    """Return the gap below which differences from this log-likelihood are the arithmetic's."""
    return max(SMALLEST_GAP, ROUNDING * abs(log_likelihood))


def _starts(group: Group, cell: Cell) -> np.ndarray:
    """Return the first starts; of a lattice, where these are neighbours, evenly spread ones."""
    if group.inits[cell.init]["method"] == GRID:
        return group.spread_starts(cell, MOST_STARTS)
    return np.arange(MOST_STARTS)


@styled
def log_likelihood_trajectories(group: Group) -> Figure | None:
    """Log-likelihood against iteration for replicate 0: a line per start, a colour per init."""
    traces = group.traces[group.traces["replicate"] == 0]
    starts = {cell.id: _starts(group, cell) for cell in group.cells}
    of_cell = {
        cell: rows[rows["start"].isin(starts[cell])]
        for cell, rows in traces.groupby("cell", sort=False)
    }
    if not any(rows["log_likelihood"].notna().any() for rows in of_cell.values()):
        return None
    factor = curve_factor(group)
    looks = series_looks(curve_names(group, factor))
    figure, panels = size_panels(
        group, factor, keep=lambda cell: cell.id in of_cell, share="", most_columns=3
    )
    handles = legend_lines(looks, panels)
    dashed = overtaken = below = False
    for panel in panels:
        for name, cell in panel.cells.items():
            _, representative = group.representatives[cell.id]
            for start, trace in of_cell[cell.id].groupby("start"):
                thick = start == representative
                panel.axes.plot(
                    trace["iteration"],
                    trace["log_likelihood"],
                    **line_look(looks[name]),
                    alpha=1.0 if thick else 0.4,
                    linewidth=1.4 if thick else 0.8,
                    marker="o" if len(trace) <= 20 else None,
                    markersize=3,
                    label=name if thick else None,
                )
        shown = pd.concat([of_cell[cell.id] for cell in panel.cells.values()])
        fits = group.fits_of(next(iter(panel.cells.values())))
        at_truth = fits.loc[fits["replicate"] == 0, "log_likelihood_truth"].head(1).dropna()
        for value in at_truth:
            panel.axes.axhline(value, **TRUTH)
        # A start can lie so low that it would flatten everything after it.
        values = shown.loc[shown["iteration"] > 0, "log_likelihood"]
        values = pd.concat([values, at_truth]).dropna()
        if len(values) and (span := float(np.ptp(values))) > 0:
            panel.axes.set_ylim(values.min() - 0.15 * span, values.max() + 0.08 * span)
        dashed |= len(at_truth) > 0
        if math.isfinite(panel.sample_size):
            overtaken |= bool((shown["log_likelihood"].max() > at_truth).any())
        below |= bool((shown["log_likelihood"] < panel.axes.get_ylim()[0]).any())
        panel.axes.yaxis.set_major_locator(MaxNLocator(5))
        panel.axes.tick_params(axis="y", labelsize=7.5)  # seven characters and more
        iteration_axis(panel.axes, shown["iteration"].max())
        panel.axes.set_ylabel("log-likelihood")
    if dashed:
        handles.append(Line2D([], [], label="at the truth", **TRUTH))
    figure.note(
        "All curves of a panel are of one sample.",
        when=any(len(panel.cells) > 1 and math.isfinite(panel.sample_size) for panel in panels),
    )
    figure.note(POPULATION, when=any(math.isinf(panel.sample_size) for panel in panels))
    most = max(cell.starts for panel in panels for cell in panel.cells.values())
    further = "further starts" if most <= MOST_STARTS else f"the next {MOST_STARTS - 1} starts"
    figure.note(f"Thin lines are {further}.", when=most > 1)
    figure.note(
        "A fit may end above the dashed line, the log-likelihood of the true parameters, since it "
        "adapts to the sample.",
        when=overtaken,
    )
    figure.note("The lowest starting values lie below the axis.", when=below)
    title = f"{group.title}: replicate 0"
    return arrange(figure, panels, title, handles, share="", left=LEFT + 0.18, height=2.0)


def theory_anchor(gaps: np.ndarray, iterations: np.ndarray, rate: float, floor: float) -> int:
    """Return the row at which a gap is compared with the theoretical rate; -1 where there is none.

    The last one that stands well above the arithmetic, and where the gap to the fit's last row is
    that to the fixed point to within 1 %: what is left at the end, rate^(2 (T - t)) of it, is less.
    """
    if not 0.0 < rate < 1.0:
        return -1
    left = rate ** (2.0 * (iterations[-1] - iterations))
    fit = np.flatnonzero((gaps > 100.0 * floor) & (left < 0.01))
    return int(fit[-1]) if len(fit) else -1


def _representative_fit(group: Group, cell: Cell) -> pd.Series:
    fits = group.fits_of(cell)
    replicate, start = group.representatives[cell.id]
    (row,) = np.flatnonzero((fits["replicate"] == replicate) & (fits["start"] == start))
    return fits.iloc[row]


def _plain_rate(group: Group, cell: Cell) -> float:
    """Return the theoretical rate of the representative fit where it is that of the gap, or nan."""
    fit = _representative_fit(group, cell)
    # Where a penalty is maximised too, the log-likelihood alone has a slope at the fixed point.
    if group.methods[cell.algorithm] != "em" or fit.get("log_penalty", 0.0) != 0.0:
        return math.nan
    return float(fit["rate_theory"])


def rate_text(rate: float) -> str:
    """Write a rate with three digits, and two of what it lacks to 1."""
    if not 0.0 < rate < 1.0:
        return f"{rate:.3g}"
    digits = 3 if rate < 0.9 else 1 - math.floor(math.log10(1.0 - rate))
    return f"{rate:.{max(3, digits)}f}"


def _gaps(trace: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the gaps to a fit's last row, and which of them are more than the arithmetic's."""
    values = trace["log_likelihood"].to_numpy(dtype=float)
    gaps = values[-1:] - values
    return gaps, gaps > (gap_floor(values[-1]) if len(values) else SMALLEST_GAP)


def _draw_gap(axes: Axes, trace: pd.DataFrame, axis: str, look: Look, name: str) -> float:
    """Draw one fit's gap; return the last place to be seen."""
    gaps, shown = _gaps(trace)
    axes.plot(trace[axis][shown], gaps[shown], **line_look(look), label=name)
    return float(trace[axis][shown].iloc[-1])


def _draw_theory(axes: Axes, trace: pd.DataFrame, rate: float, last: float, name: str) -> bool:
    """Draw the line of plain EM's rate up to `last`; tell whether there is one."""
    iterations = trace["iteration"].to_numpy(dtype=float)
    gaps, shown = _gaps(trace)
    floor = gap_floor(trace["log_likelihood"].iloc[-1])
    anchor = theory_anchor(gaps, iterations, rate, floor)
    if anchor < 0 or shown.sum() < FEWEST_COMPARED:
        return False
    slope = 2.0 * math.log(rate)
    # Back to where the line would have begun, or met the height of the first iterate's gap.
    top = math.log(gaps[1] / gaps[anchor]) / slope
    ends = np.array([max(-iterations[anchor], top), last - iterations[anchor]])
    line = gaps[anchor] * np.exp(slope * ends)
    axes.plot(iterations[anchor] + ends, line, zorder=3, label=f"{name}, theory", **THEORY)
    return True


@styled
def log_likelihood_gap(group: Group) -> Figure | None:
    """Gap of one fit to its last log-likelihood, with the slope of EM's theoretical rate."""
    traces = {cell.id: group.representative(cell) for cell in group.cells}
    traces = {key: trace[np.isfinite(trace["log_likelihood"])] for key, trace in traces.items()}
    drawn = {key for key, trace in traces.items() if _gaps(trace)[1].sum() >= FEWEST_SHOWN}
    if not drawn:
        return None
    factor = curve_factor(group)
    looks = series_looks(curve_names(group, factor))
    figure, panels = size_panels(group, factor, keep=lambda cell: cell.id in drawn, share="y")
    axis, axis_label = effort_axis(group)
    ends: list[float] = []
    rated = rounded = False
    for panel in panels:
        rates: dict[str, str] = {}
        first = len(ends)
        for name, cell in panel.cells.items():
            trace = traces[cell.id]
            ends.append(_draw_gap(panel.axes, trace, axis, looks[name], name))
            rounded |= not _gaps(trace)[1][:-1].all()  # the last one is 0
            rate = _plain_rate(group, cell)
            text = f"rate {rate_text(rate)}"
            if text in rates and not accompanied([panel]):
                rates[text] = SHARED
            elif _draw_theory(panel.axes, trace, rate, ends[-1], name):
                rates[text] = SHARED if text in rates else looks[name]["color"]
        corner_notes(panel.axes, list(rates.items()))
        rated |= bool(rates)
        longest = max(1.0, *ends[first:])
        iteration_axis(panel.axes, longest, logarithmic_from=np.inf)
        panel.axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.axes.set_xlabel(axis_label)
        panel.axes.set_ylabel("log-likelihood gap to the fit's end")
    log_axis(panels[0].axes)
    few_log_ticks(panels[0].axes)
    handles = legend_lines(looks, panels)
    if rated:
        handles.append(
            Line2D([], [], label="theory: falls like rate\N{SUPERSCRIPT TWO}ᵗ", **THEORY)
        )
    _note_gap(figure, group, [cell for cell in group.cells if cell.id in drawn], rated, rounded)
    return arrange(figure, panels, f"{group.title}: replicate 0", handles, share="y", height=2.1)


def _note_gap(
    figure: Captioned, group: Group, cells: Sequence[Cell], rated: bool, rounded: bool
) -> None:
    """Say where curves end, and what the dashed lines are."""
    figure.note(
        "Dashed, the slope of theory: the gap falls like rate²ᵗ with the iteration t, rate being "
        "the largest eigenvalue of the EM map's derivative at the estimate. The line runs through "
        "the last point that the arithmetic can tell: look how early the curve has joined it."
        f"{'' if all(group.methods[c.algorithm] == 'em' for c in cells) else ONLY_PLAIN}",
        when=rated,
    )
    outcomes = {_representative_fit(group, cell)["outcome"] for cell in cells}
    ended = [
        *["were cut off at the largest number of iterations"] * ("max_iter" in outcomes),
        *["failed"] * bool(outcomes & set(FAILURES)),
    ]
    figure.note(
        f"Curves of fits that {' or '.join(ended)} bend down in the end, since they too are "
        "measured from their own last row.",
        when=bool(ended),
    )
    figure.note("Gaps that are rounding are not drawn.", when=rounded)
    figure.note(
        f"Fits with fewer than {FEWEST_SHOWN} gaps above rounding are left out.",
        when=len(cells) < len(group.cells),
    )
    figure.note(POPULATION, when=any(math.isinf(cell.sample_size) for cell in cells))
    note_effort(figure, group)


@styled
def parameter_trajectories(group: Group) -> Figure | None:
    """Parameters of the representative fit against iteration: a colour per component."""
    names = [name for name in PARAMETERS if not (name == "weight" and group.equal_weights)]
    labels = group.chosen(len(LINE_STYLES) if group.n_components <= MOST_OVERLAID else 1)
    styles = dict(zip(labels, LINE_STYLES, strict=False))
    looks = component_looks(group.n_components)
    truth = group.comparable_truth
    traces = {
        cell: trace
        for cell in group.cells
        if group.label(cell) in styles and len(trace := group.representative(cell))
    }
    if not traces:
        return None
    sizes = sorted({cell.sample_size for cell in traces})
    columns = columns_for(len(sizes))
    figure = Captioned(figsize=(WIDTH, WIDTH))
    panels: list[Panel] = []
    first: dict[str, Axes] = {}
    for place, size in enumerate(sizes):
        block, column = divmod(place, columns)
        cells = {group.label(cell): cell for cell in traces if cell.sample_size == size}
        longest = max(traces[cell]["iteration"].max() for cell in cells.values())
        for row, name in enumerate(names):
            axes = add_axes(figure, first.get(name), "y")
            first.setdefault(name, axes)
            for text, cell in cells.items():
                trace = traces[cell]
                style = {"linestyle": styles[text]} if len(styles) > 1 else {}
                for k, look in enumerate(looks):
                    axes.plot(trace["iteration"], trace[f"{name}_{k}"], **look | style)
            if truth is not None:
                for value, look in zip(getattr(truth, f"{name}s"), looks, strict=True):
                    axes.axhline(value, color=look["color"], **TRUE_VALUE)
            iteration_axis(axes, longest)
            axes.set_ylabel(name)
            if row == 0:
                axes.set_title(group.size_label(size))
            line = block * len(names) + row
            panels.append(Panel(axes, line, column, cells, ticks=row == len(names) - 1))
    handles = [Line2D([], [], **look, label=f"component {k}") for k, look in enumerate(looks)]
    if len(styles) > 1:
        handles += [
            Line2D([], [], color="0.3", linestyle=style, label=text)
            for text, style in styles.items()
        ]
    if truth is not None:
        handles.append(Line2D([], [], color="0.3", label="truth", **TRUE_VALUE))
    figure.note("Components are matched to the truth, dashed and thin.", when=truth is not None)
    figure.note(
        "EM climbs to a maximum of the sample's likelihood, which is not at the truth.",
        when=truth is not None and any(map(math.isfinite, sizes)),
    )
    note_other_truth(figure, group)
    title = f"{group.title}: replicate 0{group.remark(labels)}"
    return arrange(figure, panels, title, handles, share="y", height=1.5)
