"""How single fits move with the iteration: log-likelihood and parameters."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.plan import GRID, Cell
from pipeline.plots.caption import POPULATION, Captioned, note_other_truth
from pipeline.plots.group import PARAMETERS, Group, samples_shown
from pipeline.plots.panels import (
    LEFT,
    Look,
    Panel,
    add_axes,
    arrange,
    columns_for,
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
    iteration_axis,
    styled,
)

MOST_STARTS = 10
MOST_OVERLAID = 3  # components whose trajectories can be told apart for several inits at once
TRUE_VALUE: Look = {"linestyle": "--", "linewidth": 0.9, "alpha": 0.7}
SPOILED = 5.0  # a few low fits may take so much of a panel's height, relative to the others
TRUTH: Look = {"color": "black", "linestyle": "--", "alpha": 0.5}


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
