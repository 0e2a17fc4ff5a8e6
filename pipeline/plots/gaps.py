"""The gap of a fit's log-likelihood to its end, and the slope that theory gives it."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.plan import Cell
from pipeline.plots.caption import POPULATION, Captioned
from pipeline.plots.group import FAILURES, Group, samples_shown
from pipeline.plots.panels import (
    Look,
    accompanied,
    arrange,
    corner_notes,
    curve_factor,
    curve_names,
    effort,
    effort_axis,
    legend_lines,
    line_look,
    note_effort,
    series_looks,
    size_panels,
)
from pipeline.plots.style import (
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
THEORY: Look = {"color": "black", "linestyle": "--", "linewidth": 0.9}
ONLY_PLAIN = " Only plain EM has this rate."
SHARED = "0.2"  # of a note that is about several curves
RECORD: Look = {"marker": "o", "markersize": 2.2}
AFTER: Look = {"marker": "v", "markersize": 5, "linestyle": "none"}


def gap_floor(log_likelihood: float) -> float:
    """Return the gap below which differences from this log-likelihood are the arithmetic's."""
    return max(SMALLEST_GAP, ROUNDING * abs(log_likelihood))


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
