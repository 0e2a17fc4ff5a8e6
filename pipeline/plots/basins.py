"""Basins of attraction: to which limit EM goes, from every start of a lattice."""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pipeline.core.mixture import mixture_quantiles
from pipeline.core.starts import POPULATION_LIMITS, sample_limits
from pipeline.plan import GRID, Cell
from pipeline.plots.caption import Captioned
from pipeline.plots.group import Group, samples_shown
from pipeline.plots.limits import HUES, TOLERANCE, Limit, limits, same_colors
from pipeline.plots.style import WIDTH, finished, power_of_ten

SHADED = (0.02, 0.98)  # quantiles of the iterations between which shades differ
LIGHTEST = 0.35  # of a colour, the rest white: from there the fewest iterations
COLUMNS = 3
LEGEND_LINE = 0.17  # inches
TITLE = 0.24  # inches above the panels
START: dict[str, Any] = {
    "marker": "P", "markersize": 7, "markerfacecolor": "black", "markeredgecolor": "white",
    "linestyle": "",
}  # fmt: skip


def lattice(group: Group, cell: Cell) -> np.ndarray:
    """Return the values of a starting mean on the cell's lattice, ascending, shape (points,).

    The traces' first rows hold them too, but in an order that is matched to the truth.
    """
    options = group.inits[cell.init]
    points = group.points.get(cell.id)
    if points is not None:
        low, high = sample_limits(points[None])[0]
    else:
        assert group.truth is not None, "a population has a truth"
        low, high = mixture_quantiles(group.truth, POPULATION_LIMITS)
    low = low if options.get("low") is None else options["low"]
    high = high if options.get("high") is None else options["high"]
    return np.linspace(low, high, round(cell.starts ** (1.0 / _free_means(group))))


def _free_means(group: Group) -> int:
    return 1 if group.symmetric else group.n_components


def _shades(iterations: np.ndarray, norm: LogNorm) -> np.ndarray:
    share = np.nan_to_num(np.asarray(norm(np.maximum(iterations, 1.0)), float))
    return LIGHTEST + (1.0 - LIGHTEST) * share


def _colors(
    places: np.ndarray, named: Sequence[Limit], iterations: np.ndarray, norm: LogNorm
) -> np.ndarray:
    """RGB of each fit, shape (fits, 3): its limit's colour, lighter for fewer iterations."""
    full = np.array([to_rgb(limit.color) for limit in named])[places]
    shade = _shades(iterations, norm)[:, None]
    return 1.0 - shade * (1.0 - full)


def _borders(places: np.ndarray, edges: np.ndarray) -> list:
    """Return the sides between cells (rows: y) of different places, as segments."""
    y, x = np.nonzero(places[:, 1:] != places[:, :-1])
    upright = np.stack([edges[[x + 1, x + 1]], edges[[y, y + 1]]], axis=-1)
    y, x = np.nonzero(places[1:] != places[:-1])
    level = np.stack([edges[[x, x + 1]], edges[[y + 1, y + 1]]], axis=-1)
    return [*np.moveaxis(upright, 1, 0), *np.moveaxis(level, 1, 0)]


def _draw_map(
    axes: Axes,
    values: np.ndarray,
    starts: np.ndarray,
    places: np.ndarray,
    colors: np.ndarray,
    named: Sequence[Limit],
    marked: int,
) -> None:
    """Draw two starting means, the first one to the right, the second one upwards; mark a start."""
    size = len(values)
    # The last mean changes fastest with the number of the start.
    right, up = starts // size, starts % size
    image = np.ones((size, size, 3))
    image[up, right] = colors
    of_limit = np.full((size, size), -1)
    of_limit[up, right] = places
    step = values[1] - values[0]
    edges = np.append(values - step / 2, values[-1] + step / 2)
    extent = (edges[0], edges[-1], edges[0], edges[-1])
    axes.imshow(image, extent=extent, origin="lower", interpolation="nearest", zorder=1)
    axes.add_collection(
        LineCollection(_borders(of_limit, edges), colors="black", linewidths=0.3, zorder=2)
    )
    for limit in named:
        for x, y in sorted(set(permutations(limit.means, 2))):
            if edges[0] < min(x, y) and max(x, y) < edges[-1]:
                axes.text(
                    x, y, limit.name, ha="center", va="center", fontsize=7, zorder=4,
                    bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "linewidth": 0.7},
                )  # fmt: skip
    axes.plot(values[marked // size], values[marked % size], **START, zorder=5)
    axes.set_xlabel("starting mean, component 0")
    axes.grid(False)


def _draw_strip(
    axes: Axes, values: np.ndarray, starts: np.ndarray, iterations: np.ndarray, colors: list[str]
) -> None:
    """Draw one starting mean to the right, and the iterations upwards."""
    step = values[1] - values[0]
    axes.bar(values[starts], iterations, step, color=colors, zorder=2)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.set_xlim(values[0] - step / 2, values[-1] + step / 2)
    axes.set_ylim(0.0, 1.05 * max(1.0, float(iterations.max())))


def _legend(
    axes: Axes,
    places: np.ndarray,
    named: Sequence[Limit],
    marks: Sequence[Line2D],
    size: float,
    below: float,
) -> None:
    """Name the limits of a sample of this size below its panel."""
    counts = np.bincount(places, minlength=len(named))
    handles: list[Artist] = []
    for limit, count in zip(named, counts, strict=True):
        where = ", ".join(f"{mean:.2f}" for mean in limit.means)
        if limit.estimate is not None:
            # Of the population it is that already.
            mean = limit.log_likelihood / (size if math.isfinite(size) else 1.0)
            where += f"; ℓ/n {mean:.3f}"
        where = where.replace("-", "\N{MINUS SIGN}")
        share = 100.0 * count / len(places)
        percent = f"{share:.0f} %" if share >= 1 else f"{share:.1g} %"
        text = f"{limit.name}: {where + '; ' if where else ''}{percent}"
        handles.append(Patch(facecolor=limit.color, label=text))
    axes.legend(
        handles=[*handles, *marks], loc="upper center", bbox_to_anchor=(0.5, below),
        handlelength=1.0, fontsize=7.5,
    )  # fmt: skip


def _shade_bar(figure: Figure, panels: np.ndarray, norm: LogNorm) -> None:
    greys = LinearSegmentedColormap.from_list("shades", [(1.0 - LIGHTEST,) * 3, (0.0, 0.0, 0.0)])
    bar = figure.colorbar(
        mpl.cm.ScalarMappable(norm, greys), ax=panels, location="bottom", shrink=0.5, aspect=40,
        extend="both",
        pad=0.02,
    )  # fmt: skip
    bar.set_label("iterations: the darker a colour, the more")
    bar.locator = LogLocator(subs=(1.0, 2.0, 5.0))
    bar.minorlocator = NullLocator()
    bar.update_ticks()
    bar.ax.xaxis.set_major_formatter(FuncFormatter(power_of_ten))


def _with_lattice(group: Group) -> list[tuple[Cell, pd.DataFrame]]:
    """Return the cells with a lattice of one or two means, and their fits of one replicate."""
    if _free_means(group) > 2:
        return []
    on_lattice = [cell for cell in group.cells if group.inits[cell.init]["method"] == GRID]
    fits = [group.fits_of(cell).query("replicate == 0") for cell in on_lattice]
    return [pair for pair in zip(on_lattice, fits, strict=True) if len(pair[1])]


@finished
def basins(group: Group) -> Figure | None:
    """Map the limits that EM reaches from a lattice of starting means, a panel per cell."""
    cells = _with_lattice(group)
    if not cells:
        return None
    spent = np.concatenate([fits["n_iter"].to_numpy(float) for _, fits in cells])
    shortest, longest = np.quantile(np.maximum(spent, 1.0), SHADED)
    norm = LogNorm(shortest, max(longest, 1.1 * shortest), clip=True)
    flat = _free_means(group) == 2
    columns = min(COLUMNS, len(cells)) if flat else 1
    lines = -(-len(cells) // columns)
    found = [limits(fits, group.n_components) for _, fits in cells]
    entries = max(len(named) for _, named in found) + flat
    height = (0.93 * WIDTH / max(columns, 2) if flat else 1.2) + 0.25 + LEGEND_LINE * entries
    inches = height * lines + 0.8
    below_title = ConstrainedLayoutEngine(rect=(0.0, 0.0, 1.0, 1.0 - TITLE / inches))
    figure = Captioned(figsize=(WIDTH, inches), layout=below_title)
    panels = figure.subplots(lines, columns, squeeze=False)
    colored = same_colors([named for _, named in found])
    for axes, (cell, fits), (places, _), named in zip(
        panels.flat, cells, found, colored, strict=False
    ):
        values = lattice(group, cell)
        iterations = fits["n_iter"].to_numpy(float)
        starts = fits["start"].to_numpy()
        if flat:
            colors = _colors(places, named, iterations, norm)
            _, marked = group.representatives[cell.id]
            _draw_map(axes, values, starts, places, colors, named, marked)
        else:
            full = [named[place].color for place in places]
            _draw_strip(axes, values, starts, iterations, full)
            axes.set_xlabel("starting mean t of component 0; the other starts at \N{MINUS SIGN}t")
            axes.set_ylabel("iterations")
        several = len(group.labels) > 1
        size = group.size_label(cell.sample_size)
        axes.set_title(f"{size}, {group.label(cell)}" if several else size)
        marks = [Line2D([], [], label="start of the fit shown step by step", **START)] * flat
        _legend(axes, places, named, marks, cell.sample_size, -0.25 if flat else -0.35)
    for axes in panels.flat[len(cells) :]:
        axes.set_visible(False)
    if flat:
        for axes in panels[:, 0]:
            axes.set_ylabel("starting mean, component 1")
        _shade_bar(figure, panels, norm)
    _note(figure, colored, flat)
    shown = samples_shown(cell for cell, _ in cells)
    figure.suptitle(f"{group.title}: {shown}", y=1.0 - 0.05 / inches, va="top")
    return figure


def _note(figure: Captioned, panels: Sequence[Sequence[Limit]], flat: bool) -> None:
    """Say what colours and letters mean, as far as there are some."""
    names = {limit.name for named in panels for limit in named}
    lettered = any(limit.estimate is not None for named in panels for limit in named)
    order = "in each panel A is the best" if len(panels) > 1 else "A is the best"
    figure.note(
        f"Of each limit the legend has means, log-likelihood per observation (ℓ/n; {order}) and "
        "the share of starts that end there"
        f"{'; its letter stands at the means, where the map reaches so far' if flat else ''}.",
        when=lettered,
    )
    figure.note(
        "A colour is the same optimum in all panels: the nearest one, if no parameter differs by "
        f"more than {TOLERANCE:g} units (1 for weights, the sample's standard deviation for means "
        "and scales).",
        when=lettered and len(panels) > 1,
    )
    figure.note(f"Other: limits beyond the {len(HUES)} largest.", when="other" in names)
    figure.note(
        "Starts with two equal means, on the diagonal, keep them equal. A cross marks the start of "
        "the fit that the pictures of single iterations show.",
        when=flat,
    )
