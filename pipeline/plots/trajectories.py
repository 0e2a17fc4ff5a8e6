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
from pipeline.plots.group import FAILURES, PARAMETERS, Group, samples_shown
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
    effort,
    effort_axis,
    effort_scale,
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
LINEAR = 1.2  # how far residuals may be off the rate: the gap's line is then off by its square
MOST_STARTS = 10
MOST_OVERLAID = 3  # components whose trajectories can be told apart for several inits at once
TRUE_VALUE: Look = {"linestyle": "--", "linewidth": 0.9, "alpha": 0.7}
THEORY: Look = {"color": "black", "linestyle": "--", "linewidth": 0.9}
ONLY_PLAIN = " Only plain EM has this rate."
SPOILED = 5.0  # a few low fits may take so much of a panel's height, relative to the others
SHARED = "0.2"  # of a note that is about several curves
TRUTH: Look = {"color": "black", "linestyle": "--", "alpha": 0.5}
RECORD: Look = {"marker": "o", "markersize": 2.2}
AFTER: Look = {"marker": "v", "markersize": 5, "linestyle": "none"}


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
    """Log-likelihood against effort for replicate 0: a line per start, a colour per init."""
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
    cells = [cell for panel in panels for cell in panel.cells.values()]
    places = {cell.id: effort(group, cell, of_cell[cell.id]) for cell in cells}
    scale = effort_scale(max(place.max() for place in places.values()))
    for panel in panels:
        for name, cell in panel.cells.items():
            _, representative = group.representatives[cell.id]
            for start, trace in of_cell[cell.id].groupby("start"):
                thick = start == representative
                panel.axes.plot(
                    effort(group, cell, trace),
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
        low, high = _heights(shown, at_truth)
        if high > low:
            span = high - low
            panel.axes.set_ylim(low - 0.15 * span, high + 0.08 * span)
        dashed |= len(at_truth) > 0
        if math.isfinite(panel.sample_size):
            overtaken |= bool((shown["log_likelihood"].max() > at_truth).any())
        below |= bool((shown["log_likelihood"] < panel.axes.get_ylim()[0]).any())
        panel.axes.yaxis.set_major_locator(MaxNLocator(5))
        panel.axes.tick_params(axis="y", labelsize=7.5)  # seven characters and more
        longest = max(places[cell.id].max() for cell in panel.cells.values())
        iteration_axis(panel.axes, longest, logarithmic_from=scale)
        panel.axes.set_xlabel(effort_axis(group)[1])
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
    figure.note("Starts that are much worse than others lie below the axis.", when=below)
    note_effort(figure, group)
    title = f"{group.title}: {samples_shown(cells)}"
    return arrange(figure, panels, title, handles, share="", left=LEFT + 0.18, height=2.0)


def _heights(traces: pd.DataFrame, at_truth: pd.Series) -> tuple[float, float]:
    """Return the lowest and the highest log-likelihood that a panel has to show.

    All that follows the starts, which can lie so low that they would flatten the rest. Where a few
    fits stay so low for some iterations, only where these end, and what better half of the fits
    went through.
    """
    fits = traces[traces["log_likelihood"].notna()].groupby(["cell", "start"])["log_likelihood"]
    later = traces[traces["iteration"] > 0].groupby(["cell", "start"])["log_likelihood"]
    lowest = later.min().dropna()
    needed = np.concatenate([fits.last(), at_truth])
    if not len(lowest):
        return float(np.min(needed, initial=np.inf)), float(np.max(needed, initial=-np.inf))
    high = max(float(traces["log_likelihood"].max()), *needed)
    enough = min(float(lowest.quantile(0.5, interpolation="higher")), *needed)
    low = min(float(lowest.min()), *needed)
    return (enough if high - low > SPOILED * (high - enough) > 0.0 else low), high


def theory_anchor(
    gaps: np.ndarray, residuals: np.ndarray, iterations: np.ndarray, rate: float, floor: float
) -> int:
    """Return the row at which a gap is compared with the theoretical rate; -1 where there is none.

    The last one that stands well above the arithmetic, and where the gap to the fit's last row is
    that to the fixed point to within 1 %: what is left at the end, rate^(2 (T - t)) of it, is less.
    There the fit must be in its linear phase already: from there to the end the map residual falls
    like rate^(T - t), to within a factor of `LINEAR`. A trace that is thinned may have no such row.
    """
    if not 0.0 < rate < 1.0:
        return -1
    steps = iterations[-1] - iterations
    fit = np.flatnonzero((gaps > 100.0 * floor) & (rate ** (2.0 * steps) < 0.01))
    if not len(fit):
        return -1
    anchor = int(fit[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        lacking = np.log(residuals[anchor] / residuals[-1]) + steps[anchor] * math.log(rate)
    return anchor if abs(lacking) <= math.log(LINEAR) else -1


def _plain_rate(group: Group, cell: Cell) -> float:
    """Return the theoretical rate of the representative fit where it is that of the gap, or nan."""
    fit = group.representative_fit(cell)
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


def _thinned(trace: pd.DataFrame) -> bool:
    """Tell whether iterations between those that are drawn, or right after them, were left out."""
    last = int(np.flatnonzero(_gaps(trace)[1])[-1])
    return bool((np.diff(trace["iteration"].iloc[: last + 2]) > 1).any())


def _draw_gap(axes: Axes, trace: pd.DataFrame, place: np.ndarray, look: Look, name: str) -> float:
    """Draw one fit's gap; return the last place to be seen.

    Of a thinned trace the records are marked, and the one that follows them, whose gap is rounding
    or 0, stands on the axis: somewhere between the two the gap went on falling.
    """
    gaps, shown = _gaps(trace)
    if not _thinned(trace):
        axes.plot(place[shown], gaps[shown], **line_look(look), label=name)
        return float(place[shown][-1])
    axes.plot(place[shown], gaps[shown], **line_look(look), **RECORD, label=name)
    after = place[np.flatnonzero(shown)[-1] + 1]
    axes.plot(
        after, 0.0, **(AFTER | {"color": look["color"]}), clip_on=False,
        transform=axes.get_xaxis_transform(), label=f"{name}, next record", zorder=5,
    )  # fmt: skip
    return float(after)


def _draw_theory(axes: Axes, trace: pd.DataFrame, rate: float, before: float, name: str) -> bool:
    """Draw the line of plain EM's rate as far as the curve; tell whether there is one.

    It begins `before` evaluations to the right.
    """
    iterations = trace["iteration"].to_numpy(dtype=float)
    gaps, shown = _gaps(trace)
    last = iterations[shown][-1]
    floor = gap_floor(trace["log_likelihood"].iloc[-1])
    residuals = trace["map_residual"].to_numpy(dtype=float)
    anchor = theory_anchor(gaps, residuals, iterations, rate, floor)
    if anchor < 0 or shown.sum() < FEWEST_COMPARED:
        return False
    slope = 2.0 * math.log(rate)
    # Back to where the line would have begun, or met the height of the first iterate's gap.
    top = math.log(gaps[1] / gaps[anchor]) / slope
    ends = np.array([max(-iterations[anchor], top), last - iterations[anchor]])
    line = gaps[anchor] * np.exp(slope * ends)
    places = before + iterations[anchor] + ends
    axes.plot(places, line, zorder=3, label=f"{name}, theory", **THEORY)
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
    ends: list[float] = []
    rated = rounded = thinned = unrated = False
    for panel in panels:
        rates: dict[str, str] = {}
        first = len(ends)
        for name, cell in panel.cells.items():
            trace = traces[cell.id]
            place = effort(group, cell, trace)
            ends.append(_draw_gap(panel.axes, trace, place, looks[name], name))
            thinned |= _thinned(trace)
            rounded |= not _gaps(trace)[1][:-1].all()  # the last one is 0
            rate = _plain_rate(group, cell)
            text = f"rate {rate_text(rate)}"
            if text in rates and not accompanied([panel]):
                rates[text] = SHARED
            elif _draw_theory(panel.axes, trace, rate, place[0], name):
                rates[text] = SHARED if text in rates else looks[name]["color"]
            else:
                unrated |= math.isfinite(rate)
        corner_notes(panel.axes, list(rates.items()))
        rated |= bool(rates)
        longest = max(1.0, *ends[first:])
        iteration_axis(panel.axes, longest, logarithmic_from=np.inf)
        panel.axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.axes.set_xlabel(effort_axis(group)[1])
        panel.axes.set_ylabel("log-likelihood gap to the fit's end")
    log_axis(panels[0].axes)
    few_log_ticks(panels[0].axes)
    handles = legend_lines(looks, panels)
    if rated:
        handles.append(
            Line2D([], [], label="theory: falls like rate\N{SUPERSCRIPT TWO}ᵗ", **THEORY)
        )
    if thinned:
        handles.append(Line2D([], [], label="next record", color="0.4", **AFTER))
    cells = [cell for cell in group.cells if cell.id in drawn]
    figure.note(
        "Dots are the recorded iterations; what happened between two of them is not known. A "
        "triangle on the axis is the record after the last gap that is drawn: by then it is "
        "rounding, or the fit has ended.",
        when=thinned,
    )
    _note_gap(figure, group, cells, rated, rounded)
    figure.note(
        "A curve of plain EM without a dashed line has no record at which its gap can be shown and "
        "already falls at the rate of theory.",
        when=unrated,
    )
    title = f"{group.title}: {samples_shown(cells)}"
    return arrange(figure, panels, title, handles, share="y", height=2.1)


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
    outcomes = {group.representative_fit(cell)["outcome"] for cell in cells}
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
    """Estimated parameters of the representative fit against effort: a colour per component."""
    names = group.estimated
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
    places = {cell: effort(group, cell, trace) for cell, trace in traces.items()}
    scale = effort_scale(max(place[-1] for place in places.values()))
    for place, size in enumerate(sizes):
        block, column = divmod(place, columns)
        cells = {group.label(cell): cell for cell in traces if cell.sample_size == size}
        longest = max(places[cell][-1] for cell in cells.values())
        for row, name in enumerate(names):
            axes = add_axes(figure, first.get(name), "y")
            first.setdefault(name, axes)
            for text, cell in cells.items():
                trace = traces[cell]
                style = {"linestyle": styles[text]} if len(styles) > 1 else {}
                for k, look in enumerate(looks):
                    axes.plot(places[cell], trace[f"{name}_{k}"], **look | style)
            if truth is not None:
                for value, look in zip(getattr(truth, f"{name}s"), looks, strict=True):
                    axes.axhline(value, color=look["color"], **TRUE_VALUE)
            iteration_axis(axes, longest, logarithmic_from=scale)
            axes.set_xlabel(effort_axis(group)[1])
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
    figure.note("Parameters that the model fixes are left out.", when=len(names) < len(PARAMETERS))
    note_effort(figure, group)
    title = f"{group.title}: {samples_shown(traces)}{group.remark(labels)}"
    return arrange(figure, panels, title, handles, share="y", height=1.5)
