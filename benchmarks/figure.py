"""The picture of how the cost grows."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from pipeline.plots.style import MARKERS, OKABE_ITO, WIDTH, finished, log_axis

BLUE, ORANGE = OKABE_ITO[:2]
GUIDE: dict[str, Any] = {"color": "0.45", "linestyle": (0, (4, 2)), "linewidth": 1.0}
MICRO, MILLI, NANO, THOUSANDS = 1e6, 1e3, 1e9, 1e-3


class Scaling(NamedTuple):
    """What was measured: curves from an abscissa to an ordinate.

    ``exact`` and ``compressed``: points to seconds per iteration; ``components``: for each sample
    size, components to seconds per point, component and iteration; ``replicates``: fits to seconds;
    ``threads``: threads to fits per second.
    """

    exact: dict[int, float]
    compressed: dict[int, float]
    components: dict[int, dict[int, float]]
    replicates: dict[int, float]
    threads: dict[int, float]
    cores: int


@finished
def scaling_figure(measured: Scaling) -> Figure:
    """One panel each for points, components, replicates and threads."""
    figure = Figure(figsize=(WIDTH, 5.8), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    (points, components), (replicates, threads) = figure.subplots(2, 2)
    _points(points, measured)
    _components(components, measured)
    _replicates(replicates, measured)
    _threads(threads, measured)
    for axes in (points, components, replicates, threads):
        axes.grid(axis="x")
    return figure


def _curve(axes: Axes, curve: dict[int, float], factor: float, series: int = 0) -> None:
    axes.plot(
        list(curve),
        factor * np.array(list(curve.values())),
        color=OKABE_ITO[series],
        marker=MARKERS[series],
        markersize=3.5,
    )


def _proportional(axes: Axes, curve: dict[int, float], factor: float) -> None:
    """Draw the line of proportionality through the last point of a curve."""
    x = np.array([min(curve), max(curve)])
    axes.plot(x, factor * curve[max(curve)] * x / max(curve), zorder=1, **GUIDE)


def _points(axes: Axes, measured: Scaling) -> None:
    _proportional(axes, measured.exact, MICRO)
    _curve(axes, measured.exact, MICRO)
    _curve(axes, measured.compressed, MICRO, 1)
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("points in the sample")
    axes.set_ylabel("time per iteration (µs)")
    axes.set_title("(a) Sample size: one fit, K = 2")
    axes.text(0.36, 0.62, "every point", color=BLUE, ha="right", transform=axes.transAxes)
    axes.text(
        0.98,
        0.16,
        "compressed: whole fit of\n500 iterations / 500",
        color=ORANGE,
        ha="right",
        transform=axes.transAxes,
    )


def _components(axes: Axes, measured: Scaling) -> None:
    for series, (n, curve) in enumerate(measured.components.items()):
        _curve(axes, curve, NANO, series)
        last = max(curve)
        axes.annotate(
            f"n = {n}",
            (last, NANO * curve[last]),
            xytext=(0, -14 if series else 8),
            textcoords="offset points",
            color=OKABE_ITO[series],
            ha="right",
        )
    axes.set_ylim(0.0, 1.1 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_xlabel("components K")
    axes.set_ylabel("time per point, component\nand iteration (ns)")
    axes.set_title("(b) Number of components")


def _replicates(axes: Axes, measured: Scaling) -> None:
    _proportional(axes, measured.replicates, MILLI)
    _curve(axes, measured.replicates, MILLI)
    log_axis(axes, "x")
    log_axis(axes, "y")
    axes.set_xlabel("fits in one call")
    axes.set_ylabel("time of the call (ms)")
    axes.set_title("(c) Replicates: n = 40, K = 2, 100 iterations")
    axes.text(0.62, 0.38, "proportional", color=GUIDE["color"], transform=axes.transAxes)


def _threads(axes: Axes, measured: Scaling) -> None:
    last = max(measured.threads)
    perfect = THOUSANDS * measured.threads[1] * np.array([0, 1, measured.cores, last])
    perfect[-1] = perfect[-2]
    axes.plot([0, 1, measured.cores, last], perfect, zorder=1, **GUIDE)
    _curve(axes, measured.threads, THOUSANDS)
    axes.set_xlim(0, 1.05 * last)
    axes.set_ylim(0, 1.2 * perfect[-1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("threads")
    axes.set_ylabel("thousand fits per second")
    axes.set_title(f"(d) Threads on {measured.cores} cores: n = 40, K = 2")
    axes.text(last, 1.06 * perfect[-1], "perfect scaling", color=GUIDE["color"], ha="right")
