"""How one fit's log-likelihood and parameters, and many fits' gaps, move with the iteration."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.plots.group import FEWEST_FITS, PARAMETERS, Group
from pipeline.plots.style import (
    LINE_STYLES,
    WIDTH,
    component_colors,
    finished,
    iteration_axis,
    legend_below,
    log_axis,
    series_colors,
)
from pipeline.statistics.bands import gap_quantiles

GAP_FLOOR = 1e-10  # below it the gap is the arithmetic's
MOST_STARTS = 10
MOST_OVERLAID = 3  # components whose trajectories can be told apart for several inits at once


def _panels(
    group: Group, rows: int = 1, height: float = 2.9, sharey: bool = True
) -> tuple[Figure, np.ndarray]:
    """Make `rows` x sample sizes axes, shape (rows, sizes), titled with the sizes."""
    columns = len(group.sizes)
    figure = Figure(figsize=(max(WIDTH, 2.3 * columns), height * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, sharey="row" if sharey else False, squeeze=False)
    for column, size in zip(axes[0], group.sizes, strict=True):
        column.set_title(group.size_label(size))
    figure.suptitle(group.title)
    return figure, axes


@finished
def log_likelihood_trajectories(group: Group) -> Figure | None:
    """Log-likelihood against iteration for replicate 0: a line per start, a colour per init."""
    traces = group.traces[(group.traces["replicate"] == 0) & (group.traces["start"] < MOST_STARTS)]
    if not traces["log_likelihood"].notna().any():
        return None
    colors = series_colors(group.labels)
    figure, panels = _panels(group, sharey=False)
    for axes, size in zip(panels[0], group.sizes, strict=True):
        cells = group.panel(size)
        shown = traces[traces["cell"].isin([cell.id for cell in cells])]
        for cell in cells:
            for start, trace in shown[shown["cell"] == cell.id].groupby("start"):
                axes.plot(
                    trace["iteration"],
                    trace["log_likelihood"],
                    color=colors[group.label(cell)],
                    alpha=1.0 if start == 0 else 0.4,
                    linewidth=1.4 if start == 0 else 0.8,
                    marker="o" if len(trace) <= 20 else None,
                    markersize=3,
                    label=group.label(cell) if start == 0 else None,
                )
        at_truth = group.fits_of(cells[0]).query("replicate == 0")["log_likelihood_truth"]
        for value in at_truth.head(1).dropna():
            axes.axhline(value, color="black", linestyle="--", alpha=0.5, label="at the truth")
        # A start can lie so low that it would flatten everything after it.
        values = shown.loc[shown["iteration"] > 0, "log_likelihood"]
        values = pd.concat([values, at_truth.head(1)]).dropna()
        if len(values) and (span := float(np.ptp(values))) > 0:
            axes.set_ylim(values.min() - 0.15 * span, values.max() + 0.08 * span)
        iteration_axis(axes, shown["iteration"].max() if len(shown) else 1)
    panels[0, 0].set_ylabel("log-likelihood")
    figure.suptitle(f"{group.title}: replicate 0")
    legend_below(figure, panels[0, 0])
    return figure


@finished
def parameter_trajectories(group: Group) -> Figure | None:
    """Parameters of the representative fit against iteration: a colour per component."""
    names = [name for name in PARAMETERS if not (name == "weight" and group.equal_weights)]
    labels = group.labels[: len(LINE_STYLES) if group.n_components <= MOST_OVERLAID else 1]
    styles = dict(zip(labels, LINE_STYLES, strict=False))
    colors = component_colors(group.n_components)
    truth = group.comparable_truth
    figure, panels = _panels(group, len(names), height=2.0)
    for column, size in enumerate(group.sizes):
        traces = {
            group.label(cell): trace
            for cell in group.panel(size)
            if group.label(cell) in styles and len(trace := group.representative(cell))
        }
        longest = max((trace["iteration"].max() for trace in traces.values()), default=1)
        for line, name in enumerate(names):
            axes = panels[line, column]
            for text, trace in traces.items():
                for k, color in enumerate(colors):
                    axes.plot(
                        trace["iteration"],
                        trace[f"{name}_{k}"],
                        color=color,
                        linestyle=styles[text],
                    )
            if truth is not None:
                for k, color in enumerate(colors):
                    value = getattr(truth, f"{name}s")[k]
                    axes.axhline(value, color=color, linestyle="--", linewidth=0.9, alpha=0.7)
            iteration_axis(axes, longest)
            if line < len(names) - 1:
                axes.set_xlabel("")
            if column == 0:
                axes.set_ylabel(name)
    handles = [
        Line2D([], [], color=color, label=f"component {k}") for k, color in enumerate(colors)
    ]
    if len(styles) > 1:
        handles += [
            Line2D([], [], color="0.3", linestyle=style, label=text)
            for text, style in styles.items()
        ]
    figure.suptitle(f"{group.title}: replicate 0" + (f", {labels[0]}" if len(labels) == 1 else ""))
    if truth is not None:
        handles.append(
            Line2D([], [], color="0.3", linestyle="--", linewidth=0.9, alpha=0.7, label="truth")
        )
    legend_below(figure, panels[0, 0], extra=handles)
    return figure


def _gap_panel(group: Group, axes: Axes, size: float, colors: dict[str, str]) -> bool:
    """Draw one size's gap profiles; tell whether there was anything to draw."""
    cells = group.panel(size)
    ends = [float(group.fits_of(cell)["n_iter"].quantile(0.9)) for cell in cells]
    longest = max(1, int(max(ends)))
    iterations = np.unique(np.geomspace(1, longest + 1, 200).round().astype(int) - 1)
    drawn = False
    for cell in cells:
        low, middle, high = gap_quantiles(group.traces_of(cell), iterations)
        color = colors[group.label(cell)]
        shown = middle > GAP_FLOOR
        drawn |= bool(shown.any())
        axes.fill_between(
            iterations,
            np.maximum(low, GAP_FLOOR),
            np.maximum(high, GAP_FLOOR),
            where=high > GAP_FLOOR,
            color=color,
            alpha=0.2,
            linewidth=0,
        )
        axes.plot(iterations[shown], middle[shown], color=color, label=group.label(cell))
    iteration_axis(axes, longest)
    return drawn


@finished
def gap_profile(group: Group) -> Figure | None:
    """Log-likelihood still to be gained against iteration: median and 10-90 % band over fits."""
    if group.fits.groupby("cell").size().max() < FEWEST_FITS:
        return None
    colors = series_colors(group.labels)
    figure, panels = _panels(group)
    drawn = [
        _gap_panel(group, axes, size, colors)
        for axes, size in zip(panels[0], group.sizes, strict=True)
    ]
    if not any(drawn):
        return None
    log_axis(panels[0, 0])
    panels[0, 0].set_ylim(bottom=GAP_FLOOR)
    panels[0, 0].set_ylabel("log-likelihood gap to the fit's end")
    legend_below(figure, panels[0, 0])
    return figure
