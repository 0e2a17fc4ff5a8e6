"""How points, fitted lines and predicted ones look, in every figure that has them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from pipeline.plots.caption import Captioned
from pipeline.plots.laws import BARS, Law
from pipeline.plots.panels import RIGHT, Look
from pipeline.plots.style import few_log_ticks, log_axis, power_of_ten

FITTED: Look = {"linewidth": 1.2, "linestyle": "solid"}
POOR: Look = {"linewidth": 1.2, "linestyle": (0, (5, 2))}  # of a line that misses its points
PREDICTED: Look = {"linestyle": ":", "linewidth": 1.2}
DOTS = (":", (0, (1, 3)), (0, (1, 1, 1, 4)))  # of several predictions in a panel
SPACE = "\N{NO-BREAK SPACE}"
GREY = "0.35"  # what belongs to several series
# Errors have caps, intervals are thin.
BAR_LOOKS: dict[str, Look] = {
    "mcse": {"capsize": 2, "elinewidth": 1.1},
    "interval": {"capsize": 0, "elinewidth": 0.6},
    "": {"capsize": 0, "elinewidth": 0.0},
}
TICK_LETTER, TICK_GAP = 5.4, 5.0  # points: of a tick's label, and between two
ASIDE, MOST_ASIDE = 0.04, 0.35  # parts of the way to the next value: of a curve, of all
MARGIN = 0.07  # of the width, beside the outermost values


def draw_points(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    label: str,
    look: Look,
    bars: str,
) -> None:
    """Draw points with their bars (a key of `BARS`); what has no logarithm is left out."""
    kept = np.isfinite(y) & (y > 0.0)
    ends = np.array([y - low, high - y])[:, kept]
    ends = np.where(np.isfinite(ends), np.maximum(ends, 0.0), 0.0)
    look = look | {"linestyle": "none"}
    axes.errorbar(x[kept], y[kept], ends, label=label, **BAR_LOOKS[bars], **look)


def draw_laws(axes: Axes, lines: Sequence[tuple[Law, str, float]]) -> list[Line2D]:
    """Draw fitted lines in their colours, and dotted the slopes that are predicted of them.

    With every line comes the factor by which its curve stands aside.
    Return a legend's entry for each predicted slope. Both kinds of lines run through the weighted
    centroid of the points' logarithms, so that they differ in their slopes alone.
    """
    colors: dict[float, list[str]] = {}
    for law, color, place in lines:
        x = np.array([law.factor_low, law.factor_high])
        axes.plot(place * x, law.line(x), color=color, label=f"{law.name}, fitted", **fit_look(law))
        for slope in law.expected:
            colors.setdefault(slope, []).append(color)
            look = PREDICTED | {"linestyle": DOTS[list(colors).index(slope) % len(DOTS)]}
            text = f"{law.name}, predicted {slope:g}"
            axes.plot(place * x, law.predicted(x, slope), color=color, zorder=1, label=text, **look)
    entries = []
    for k, (slope, shared) in enumerate(colors.items()):
        look = PREDICTED | {"linestyle": DOTS[k % len(DOTS)]}
        look["color"] = shared[0] if len(set(shared)) == 1 else GREY
        entries.append(Line2D([], [], label=f"predicted {number(slope)}", **look))
    return entries


def fit_look(law: Law) -> Look:
    """Return the look of a fitted line."""
    return POOR if law.poor else FITTED


def slope_text(law: Law) -> str:
    """Give the slope of a fitted line with its error, and how far the points lie off it."""
    text = f"slope {with_error(law.slope, law.slope_se)}".replace(" ", SPACE)
    if not law.poor:
        return text
    ratio = _ratio(law.chi_square / law.degrees_of_freedom)
    return f"{text}, poor fit: χ²/df{SPACE}={SPACE}{ratio}"


def bar_entries(lines: Sequence[Law]) -> list[Line2D]:
    """Return a legend's entry for each kind of bars that points have, as they look."""
    shown = dict.fromkeys(law.bars for law in lines if (law.high > law.low).any())
    return [
        Line2D([], [], color=GREY, linestyle="none", marker="|", markersize=9,
               markeredgewidth=BAR_LOOKS[kind]["elinewidth"],
               label=f"bars: {'± 1 MCSE' if kind == 'mcse' else BARS[kind]}")
        for kind in shown
    ]  # fmt: skip


def aside(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Return a factor close to 1 for each curve, by which curves stand side by side.

    It moves a curve as a whole, its points and lines.

    Parameters
    ----------
    names : sequence of str
        Of the curves.
    values : array
        Those that the curves share.
    """
    apart = np.diff(np.log(np.unique(values)))
    part = min(ASIDE * (len(names) + 1), MOST_ASIDE) if len(names) > 1 else 0.0
    room = part * float(apart.min(initial=1.0))
    return dict(zip(names, np.exp(np.linspace(-room, room, len(names) + 2)[1:-1]), strict=True))


def note_laws(figure: Captioned, lines: Sequence[Law]) -> None:
    """Say what stands beside fitted lines."""
    known = any(np.isfinite(law.slope_se) for law in lines)
    figure.note("± is a slope's standard error.", when=known)
    figure.note(
        "Dashed: a fitted line that its points do not lie on to within their errors (χ², 0.1 % "
        "level); its slope tells little, and ± is larger by √(χ²/df).",
        when=any(law.poor for law in lines),
    )
    figure.note(
        "Dotted: the slope that a claim of the experiment predicts, through the weighted centroid "
        "of the points' logarithms, as the fitted line is.",
        when=any(law.expected for law in lines),
    )


def number(value: float) -> str:
    """Write a number with a minus sign."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def with_error(value: float, error: float) -> str:
    """Write a number to the second digit of its standard error."""
    if not np.isfinite(error) or error <= 0.0:
        return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    text = f"{value:.{digits}f} ± {error:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value < 10.0 else f"{value:,.0f}"


def value_axis(
    axes: Axes, values: np.ndarray, width: float, places: Iterable[float], *, sizes: bool = False
) -> None:
    """Make the x axis logarithmic, with ticks at the values themselves that have room.

    Parameters
    ----------
    axes : Axes
    values : array
        Positive and finite.
    width : float
        Inches of the axis.
    places : iterable of float
        Factors by which curves stand aside.
    sizes : bool
        Whether they are sample sizes.
    """
    log_axis(axes, "x")
    values = np.unique(values)
    logs = np.log(values)
    reach = max((abs(math.log(place)) for place in places), default=0.0)
    reach += MARGIN * (float(np.ptp(logs)) or 1.0)
    low, high = logs[0] - reach, logs[-1] + reach
    texts = [_size_tick(value) if sizes else f"{value:.3g}" for value in values]
    halves = [TICK_LETTER * len(text) / 2.0 for text in texts]
    # Half of the last one stands in the margin of the figure, or else in the axis.
    beyond = min(halves[-1] - 72.0 * RIGHT, 36.0 * width)
    high = max(high, logs[-1] + (logs[-1] - low) * beyond / (72.0 * width - beyond))
    axes.set_xlim(np.exp(low), np.exp(high))
    middles = 72.0 * width * (logs - low) / (high - low)
    last = len(values) - 1
    kept = [last]  # the ends first, then what has room from the left
    for k in range(last):
        free = all(abs(middles[k] - middles[j]) > halves[k] + halves[j] + TICK_GAP for j in kept)
        kept += [k] if free else []
    kept.sort()
    axes.set_xticks(values[kept], [texts[k] for k in kept])
    axes.xaxis.set_minor_locator(NullLocator())


def _size_tick(size: float) -> str:
    """Write a sample size: 500, 20000, and 10⁵ or 2.5·10⁵ beyond."""
    if size < 100_000:
        return power_of_ten(size)
    rounded = float(f"{size:.2e}")
    exponent = int(np.floor(np.log10(rounded)))
    raised = power_of_ten(10.0**exponent)
    digits = f"{rounded / 10.0**exponent:g}"
    return raised if digits == "1" else f"{digits}·{raised}"


def limit(axes: Axes, values: Any) -> None:
    """Let a bar that reaches down to 0 run out of the y axis, instead of moving its end."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values) & (values > 0.0)]
    if len(values):
        axes.set_ylim(bottom=max(axes.get_ylim()[0], values.min() / 4.0))
    few_log_ticks(axes)
