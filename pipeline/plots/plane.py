"""Paths of EM in the plane of two means, over the log-likelihood."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.core.compression import bin_points, levels, nodes_of
from pipeline.core.mixture import Parameters, component_densities
from pipeline.core.population import population_nodes
from pipeline.plan import Cell
from pipeline.plots.caption import POPULATION, Captioned, note_other_truth
from pipeline.plots.group import Group, parameters_of, samples_shown
from pipeline.plots.style import WIDTH, finished, legend_below, series_colors

MOST_STARTS = 8  # of a cell
MOST_SERIES = 4  # inits and algorithms: paths of more lie upon one another
POINTS = 121  # of the contours' lattice, each way
COLUMNS = 3
MARGIN = 0.08  # of the range of the paths, on every side
# Larger samples are replaced by nodes, as the fits do: the contours would take seconds.
MOST_POINTS = 4000
WIDTHS = 0.25  # of bins and panels, in scales of the narrowest component
CONTOURS = 8
LABELLED = 5  # of them, the outermost: those within lie too close together
LOWEST = 1e-300  # of a density: its logarithm is finite, and far below every contour
SOUND = ("converged", "max_iter")


def log_likelihoods(
    nodes: np.ndarray,
    masses: np.ndarray,
    held: Parameters,
    pair: tuple[int, int],
    means: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return the log-likelihood at all pairs of two means, the other parameters held.

    Parameters
    ----------
    nodes, masses
        The sample, shape (n,) each.
    held
        The mixture, shape (K,).
    pair
        Which two components.
    means
        Values of the first mean, shape (G,), and of the second, shape (H,).

    Returns
    -------
    float64, shape (H, G)
    """
    others = [k for k in range(len(held.means)) if k not in pair]
    rest = component_densities(nodes, Parameters(*(part[others] for part in held))).sum(axis=0)
    # A component at many places is as many components.
    first, second = (
        component_densities(
            nodes,
            Parameters(
                np.full_like(values, held.weights[k]), values, np.full_like(values, held.scales[k])
            ),
        )
        for k, values in zip(pair, means, strict=True)
    )
    return np.stack([np.log(np.maximum(first + (row + rest), LOWEST)) @ masses for row in second])


def _sample(group: Group, cell: Cell, held: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of replicate 0 with masses, or nodes for the population or many points."""
    points = group.points.get(cell.id)
    if points is None:
        assert group.truth is not None, "a population has a truth"
        return population_nodes(group.truth, held.means, held.scales, WIDTHS)
    if len(points) <= MOST_POINTS:
        return points, np.ones_like(points)
    bins = bin_points(np.ascontiguousarray(points, float))
    finer = levels(bins)
    chosen = next((each for each in finer if each.width <= WIDTHS * float(held.scales.min())), bins)
    return nodes_of(chosen, 0.0)


def _paths(group: Group, size: float) -> list[tuple[Cell, pd.DataFrame]]:
    """Return the traces of some starts of replicate 0, evenly spread, by cell that is drawn."""
    paths = []
    shown = group.chosen(MOST_SERIES)
    for cell in group.panel(size):
        if group.label(cell) not in shown:
            continue
        starts = group.spread_starts(cell, MOST_STARTS)
        traces = group.traces_of(cell)
        traces = traces[(traces["replicate"] == 0) & traces["start"].isin(starts)]
        paths += [(cell, trace) for _, trace in traces.groupby("start") if len(trace) > 1]
    return paths


def _fits(group: Group, paths: list[tuple[Cell, pd.DataFrame]]) -> pd.DataFrame:
    """Return the rows of the drawn fits."""
    keys = {(cell.id, trace["start"].iloc[0]) for cell, trace in paths}
    fits = group.fits[group.fits["replicate"] == 0]
    pairs = zip(fits["cell"], fits["start"], strict=True)
    return fits[np.array([pair in keys for pair in pairs], bool)]


def _best(group: Group, paths: list[tuple[Cell, pd.DataFrame]]) -> Parameters | None:
    """Return the estimate of the drawn fit that has the largest log-likelihood."""
    fits = _fits(group, paths)
    fits = fits[fits["outcome"].isin(SOUND)].dropna(subset="log_likelihood")
    if fits.empty:
        return None
    return parameters_of(fits.loc[fits["log_likelihood"].idxmax()], group.n_components)


def _moving(traces: pd.DataFrame, scales: np.ndarray) -> tuple[int, int]:
    """Return the two components whose means move most, in their order.

    Components narrower than the contours' lattice come last: off their few points they add nothing
    to the log-likelihood, which is flat but for peaks between the lattice's points.

    Parameters
    ----------
    traces
        Of all that is drawn.
    scales
        That the components are held at, shape (K,).
    """
    means = [f"mean_{k}" for k in range(len(scales))]
    by_fit = traces.groupby(["cell", "start"])[means]
    moved = (by_fit.max() - by_fit.min()).sum().to_numpy()
    steps = [float(np.ptp(_spread(traces[mean].to_numpy()))) / (POINTS - 1) for mean in means]
    first, second = sorted(np.lexsort((-moved, scales < steps))[:2].tolist())
    return first, second


def contour_drops(deepest: float) -> np.ndarray:
    """Return how far below the top the contours are, ascending: 1 and 3 times powers of ten."""
    exponents = np.arange(np.floor(np.log10(deepest)) - CONTOURS, np.log10(deepest) + 1)
    drops = np.outer(10.0**exponents, [1.0, 3.0]).ravel()
    return drops[drops <= deepest][-CONTOURS:]


def _contours(axes: Axes, values: tuple[np.ndarray, np.ndarray], heights: np.ndarray) -> None:
    top = float(heights.max())
    # The corners may lie very deep; nine tenths of the plane have contours.
    deepest = top - float(np.quantile(heights, 0.1))
    if not deepest > 0:
        return
    drops = contour_drops(deepest)
    shades = [str(shade) for shade in np.linspace(0.78, 1.0, len(drops) + 1)]
    below, levels_below = heights - top, (-drops[::-1]).tolist()
    axes.contourf(
        *values, below, levels=[*levels_below, 0.0], colors=shades[1:], extend="neither", zorder=0
    )
    axes.set_facecolor(shades[0])
    lines = axes.contour(
        *values, below, levels=levels_below, colors="0.6", linewidths=0.5, linestyles="solid",
        zorder=1,
    )  # fmt: skip
    axes.clabel(
        lines,
        levels_below[:LABELLED],
        fontsize=6,
        colors="0.35",
        fmt=lambda drop: f"\N{MINUS SIGN}{-drop:g}",
        inline=True,
    )


def _draw_path(axes: Axes, trace: pd.DataFrame, pair: tuple[int, int], color: str) -> None:
    x, y = (trace[f"mean_{k}"].to_numpy() for k in pair)
    axes.plot(x, y, color=color, linewidth=1.0, marker=".", markersize=2.5, zorder=3)
    axes.plot(
        x[:1], y[:1], color=color, marker="o", markersize=5, markerfacecolor="white", zorder=4
    )
    axes.plot(
        x[-1:], y[-1:], color=color, marker="s", markersize=5.5, markeredgecolor="black",
        markeredgewidth=0.7, zorder=5,
    )  # fmt: skip


def _spread(*values: np.ndarray) -> np.ndarray:
    """Return the contours' lattice, shape (POINTS,), around everything that is drawn."""
    known = np.concatenate(values)
    low, high = np.nanmin(known), np.nanmax(known)
    margin = MARGIN * ((high - low) or 1.0)
    return np.linspace(low - margin, high + margin, POINTS)


@finished
def mean_plane(group: Group) -> Figure | None:
    """Draw the paths of replicate 0 in the plane of two means over the log-likelihood."""
    paths = {size: _paths(group, size) for size in group.sizes}
    best = {size: _best(group, paths[size]) for size in group.sizes}
    estimates = {size: held for size, held in best.items() if held is not None}
    shown = list(estimates)
    if group.n_components < 2 or group.symmetric or not shown:
        return None
    traces = pd.concat([trace for size in shown for _, trace in paths[size]])
    pair = _moving(traces, np.min([held.scales for held in estimates.values()], axis=0))
    labels = group.chosen(MOST_SERIES)
    colors = series_colors(labels)
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    height = {1: 4.2, 2: 3.2}.get(columns, 2.5)
    figure = Captioned(figsize=(WIDTH, height * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    truth = group.comparable_truth
    for axes, size in zip(panels.flat, shown, strict=False):
        held = estimates[size]
        true = [np.array([]) if truth is None else truth.means[[k]] for k in pair]
        first, second = (
            _spread(true[i], *(trace[f"mean_{k}"].to_numpy() for _, trace in paths[size]))
            for i, k in enumerate(pair)
        )
        sample = _sample(group, group.panel(size)[0], held)
        _contours(axes, (first, second), log_likelihoods(*sample, held, pair, (first, second)))
        for cell, trace in paths[size]:
            _draw_path(axes, trace, pair, colors[group.label(cell)])
        axes.plot(*true, color="black", marker="X", markersize=7, markeredgecolor="white", zorder=6)
        axes.set_xlim(first[0], first[-1])
        axes.set_ylim(second[0], second[-1])
        axes.set_title(group.size_label(size))
        axes.set_xlabel(f"mean of component {pair[0]}")
        axes.grid(False)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(f"mean of component {pair[1]}")
    handles = [
        Line2D([], [], color=color, linewidth=1.0, marker=".", markersize=2.5, label=label)
        for label, color in colors.items()
    ]
    marks = [("o", "white", "0.3", "start"), ("s", "0.3", "black", "end")]
    marks += [("X", "black", "white", "truth")] if truth is not None else []
    handles += [
        Line2D(
            [], [], linestyle="", marker=marker, markerfacecolor=face, markeredgecolor=edge,
            label=label,
        )
        for marker, face, edge, label in marks
    ]  # fmt: skip
    drawn = samples_shown(group.panel(size)[0] for size in shown)
    figure.suptitle(f"{group.title}: {drawn}{group.remark(labels)}")
    legend_below(figure, panels[0, 0], extra=handles)
    _note(figure, group, paths, shown)
    return figure


def _note(
    figure: Captioned,
    group: Group,
    paths: dict[float, list[tuple[Cell, pd.DataFrame]]],
    shown: list[float],
) -> None:
    """Say which fits are drawn, and which are not."""
    drawn = [path for size in shown for path in paths[size]]
    figure.note(
        "The two means are those that move most, those of very narrow components last.",
        when=group.n_components > 2,
    )
    figure.note(
        f"Of more than {MOST_STARTS} starts {MOST_STARTS} have a path, evenly spread.",
        when=any(cell.starts > MOST_STARTS for cell, _ in drawn),
    )
    figure.note(
        "The path of a fit that failed ends where it did.",
        when=not _fits(group, drawn)["outcome"].isin(SOUND).all(),
    )
    note_other_truth(figure, group)
    figure.note(POPULATION, when=math.inf in shown)
    figure.note(
        "Sample sizes of which every fit failed are left out.", when=len(shown) < len(group.sizes)
    )
