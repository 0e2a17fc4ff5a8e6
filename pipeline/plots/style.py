"""The look of every figure: palette, sizes, axes, and byte-for-byte repeatable files."""

from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

STYLE = {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.dpi": 150,
    "figure.titlesize": 10,
    "font.size": 9,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    # Without a fixed salt the ids inside an SVG are random.
    "svg.hashsalt": "em-convergence",
    "savefig.dpi": 150,
}

# Only the fonts that come with matplotlib: another version of them on the machine would take their
# place, with other outlines and other bytes.
fontManager.ttflist = []
for _path in sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf")):
    fontManager.addfont(_path)

# Starting from matplotlib's defaults keeps a user's matplotlibrc out of the files.
styled = mpl.style.context(["default", STYLE])

# Okabe & Ito (2008), told apart with any common colour-vision deficiency; black is the truth's.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
SERIES = OKABE_ITO[:-1]  # without yellow, whose thin lines cannot be seen on white
# The ends of the RdBu colour map, which also colours the points.
BLUE, RED = "#2166ac", "#b2182b"

LINE_STYLES: tuple[Any, ...] = ("solid", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FEWEST_TICKS, MOST_TICKS = 3, 8  # of a logarithmic axis
WIDTH = 7.0  # inches: a page's text width


def finished(draw: Callable[[Any], Figure | None]) -> Callable[[Any], Figure | None]:
    """Draw in the project's style, and lay out once instead of at every rendering."""

    @wraps(draw)
    def drawn(subject: Any) -> Figure | None:
        with mpl.style.context(["default", STYLE]):
            figure = draw(subject)
            if figure is not None:
                figure.draw_without_rendering()
                figure.set_layout_engine("none")
            return figure

    return drawn


def component_looks(n_components: int) -> list[dict[str, Any]]:
    """Colour and line style of the components' curves: blue and red for two, else Okabe-Ito.

    Seven colours are as many as can be told apart: the next seven components have them again, with
    another line style, and so on up to 28.
    """
    turns = [divmod(k, len(OKABE_ITO)) for k in range(n_components)]
    palette = (BLUE, RED) if n_components == 2 else OKABE_ITO
    return [
        {"color": palette[place], "linestyle": LINE_STYLES[turn % len(LINE_STYLES)]}
        for turn, place in turns
    ]


def component_colors(n_components: int) -> list[str]:
    """Colours of the components alone."""
    return [look["color"] for look in component_looks(n_components)]


def series_colors(labels: Sequence[str]) -> dict[str, str]:
    """Colours of inits and algorithms, by label; they come again at other places in `MARKERS`."""
    return dict(zip(labels, cycle(SERIES), strict=False))


def power_of_ten(value: float, _position: int = 0) -> str:
    """Write a tick in plain characters: 0.05, 1, 1000, and 10⁻⁶ or 3·10⁻⁸ beyond."""
    if value <= 0:
        return "0"
    exponent = round(float(np.log10(value)))
    power = bool(np.isclose(value, 10.0**exponent, rtol=1e-6, atol=0.0))
    text = f"{value:g}"
    if (power and -2 <= exponent <= 3) or not (power or "e" in text):
        return text
    digits, _, power_text = ("1", "", str(exponent)) if power else text.partition("e")
    raised = str(int(power_text)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if power else f"{digits}·10{raised}"


def iteration_axis(axes: Axes, last: float, logarithmic_from: float = 100.0) -> None:
    """Scale the x axis for iterations 0 to `last`: linear when short, else logarithmic from 1."""
    axes.set_xlabel("iteration")
    if last >= logarithmic_from:
        axes.set_xscale("symlog", linthresh=1.0, linscale=0.3)
        decades = int(np.ceil(np.log10(last)))
        axes.set_xticks([0.0, *(10.0**power for power in range(decades + 1))])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(power_of_ten))
        axes.set_xlim(0.0, last)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlim(-0.02 * max(last, 1.0), 1.02 * max(last, 1.0))


def log_axis(axes: Axes, which: str = "y") -> None:
    """Make an axis logarithmic with plain labels."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    axis.set_major_formatter(FuncFormatter(power_of_ten))
    axis.set_minor_formatter(FuncFormatter(lambda _value, _position: ""))


def few_log_ticks(axes: Axes, which: str = "y") -> None:
    """Label a logarithmic axis at a few round numbers within its limits, however short it is."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = sorted(axes.get_ylim() if which == "y" else axes.get_xlim())
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for within in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8)):
        ticks = np.multiply.outer(decades, within).ravel()
        ticks = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
        if len(ticks) >= FEWEST_TICKS:
            break
    else:  # so short that it is as good as linear
        linear = MaxNLocator(nbins=4, steps=[1, 2, 5, 10], min_n_ticks=FEWEST_TICKS)
        ticks = np.array(linear.tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
    if len(ticks) > MOST_TICKS and len(within) == 1:
        every = -(-len(ticks) // MOST_TICKS)
        ticks = ticks[np.round(np.log10(ticks)).astype(int) % every == 0]
    axis.set_major_locator(FixedLocator(ticks.tolist()))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(power_of_ten))


def legend_below(figure: Figure, source: Axes, columns: int = 5, extra: Sequence = ()) -> None:
    """One legend for the whole figure, below the panels where it covers no data."""
    handles, labels = source.get_legend_handles_labels()
    handles += list(extra)
    labels += [str(handle.get_label()) for handle in extra]
    if handles:
        # A column takes about 7 points a letter and the handle.
        fitting = int(72 * WIDTH / (7 * max(map(len, labels)) + 40))
        columns = max(1, min(columns, fitting, len(handles)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


@styled
def svg_bytes(figure: Figure) -> bytes:
    """Render `figure` as SVG without a date, a version or a random id."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@styled
def png_bytes(figure: Figure) -> bytes:
    """Render `figure` as PNG without a version."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
