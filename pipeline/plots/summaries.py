"""What a cell's fits add up to: iterations needed, outcomes, and errors of the estimates."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.plots.group import FEWEST_FITS, PARAMETERS, Group
from pipeline.plots.style import (
    MARKERS,
    WIDTH,
    finished,
    iteration_axis,
    legend_below,
    log_axis,
    series_colors,
)

# In the order of the bars: converged, cut off, failed.
OUTCOME_COLORS = {
    "converged": "#a6cee3",
    "max_iter": "#e69f00",
    "degenerate_scale": "#b2182b",
    "empty_component": "#cc79a7",
    "nonfinite": "#000000",
    "log_likelihood_decreased": "#5e3c99",
    "error": "#8c510a",
}


@finished
def iterations_distribution(group: Group) -> Figure | None:
    """Share of all fits that have converged within t iterations, a colour per init."""
    converged = group.fits[group.fits["outcome"] == "converged"]
    if len(converged) < FEWEST_FITS:
        return None
    colors = series_colors(group.labels)
    figure = Figure(figsize=(max(WIDTH, 2.3 * len(group.sizes)), 3.4), layout="constrained")
    panels = figure.subplots(1, len(group.sizes), sharey=True, squeeze=False)[0]
    longest = int(converged["n_iter"].max())
    shortest = int(converged["n_iter"].min())
    for axes, size in zip(panels, group.sizes, strict=True):
        for cell in group.panel(size):
            fits = group.fits_of(cell)
            reached = np.sort(fits.loc[fits["outcome"] == "converged", "n_iter"].to_numpy())
            # Fits that did not converge count in the denominator: the curve ends below 1.
            share = np.arange(len(reached) + 1) / len(fits)
            axes.step(
                np.concatenate([[0], reached, [longest * 1.1]]),
                np.append(share, share[-1]),
                where="post",
                color=colors[group.label(cell)],
                label=group.label(cell),
            )
        if longest > 10 * shortest:
            log_axis(axes, "x")
            axes.set_xlim(0.8 * shortest, 1.1 * longest)
            axes.set_xlabel("iteration")
        else:
            iteration_axis(axes, 1.1 * longest, logarithmic_from=np.inf)
        axes.set_title(group.size_label(size))
    panels[0].set_ylim(0.0, 1.02)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0].set_ylabel("fits converged by then")
    figure.suptitle(group.title)
    legend_below(figure, panels[0])
    return figure


@finished
def outcome_shares(group: Group) -> Figure | None:
    """Shares of the outcomes, one bar per cell."""
    if len(group.fits) < FEWEST_FITS:
        return None
    counts = group.convergence.set_index("cell").loc[[cell.id for cell in group.cells]]
    figure = Figure(figsize=(WIDTH, 1.3 + 0.24 * len(group.cells)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(group.cells))
    places = np.arange(len(group.cells))
    for outcome, color in OUTCOME_COLORS.items():
        share = (counts[f"n_{outcome}"] / counts["n_fits"]).to_numpy(dtype=float)
        if share.any():
            axes.barh(
                places, share, left=left, color=color, edgecolor="white",
                linewidth=0.4, label=outcome.replace("_", " "),
            )  # fmt: skip
            left += share
    axes.set_yticks(
        places,
        [f"{group.size_label(cell.sample_size)}, {group.label(cell)}" for cell in group.cells],
    )
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of fits")
    axes.grid(False)
    figure.suptitle(group.title)
    legend_below(figure, axes)
    return figure


@finished
def error_against_n(group: Group) -> Figure | None:
    """RMSE of every parameter against sample size, log-log, with bars of one MCSE."""
    sizes = [size for size in group.sizes if np.isfinite(size)]
    names = [
        name
        for name in PARAMETERS
        if f"rmse_{name}_0" in group.convergence
        and group.convergence[f"rmse_{name}_0"].fillna(0.0).gt(0.0).any()
    ]
    if len(sizes) < 2 or not names:
        return None
    colors = series_colors(group.labels)
    table = group.convergence.set_index("cell")
    components = range(group.n_components)
    figure = Figure(
        figsize=(max(WIDTH, 1.7 * group.n_components), 2.0 * len(names) + 0.6),
        layout="constrained",
    )
    panels = figure.subplots(
        len(names), group.n_components, sharex=True, sharey="row", squeeze=False
    )
    for line, name in enumerate(names):
        for k in components:
            axes = panels[line, k]
            heights = []
            for place, text in enumerate(group.labels):
                cells = [
                    cell for cell in group.cells
                    if group.label(cell) == text and cell.sample_size in sizes
                ]  # fmt: skip
                cells.sort(key=lambda cell: cell.sample_size)
                rows = table.loc[[cell.id for cell in cells]]
                rmse = rows[f"rmse_{name}_{k}"].to_numpy(dtype=float)
                heights.append(rmse)
                axes.errorbar(
                    [cell.sample_size for cell in cells],
                    rmse,
                    yerr=rows[f"rmse_{name}_{k}_mcse"].fillna(0.0).to_numpy(dtype=float),
                    color=colors[text],
                    marker=MARKERS[place % len(MARKERS)],
                    markersize=4,
                    capsize=2,
                    linewidth=1.1,
                    label=text,
                )
            first = np.nanmedian([rmse[0] for rmse in heights])
            axes.plot(
                sizes, first * np.sqrt(sizes[0] / np.array(sizes)), color="0.6", linewidth=0.8,
                linestyle=":", label="∝ 1/√n", zorder=1,
            )  # fmt: skip
            log_axis(axes, short=True)
            log_axis(axes, "x", short=True)
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
            if line == 0:
                axes.set_title(f"component {k}")
            if line == len(names) - 1:
                axes.set_xlabel("sample size n")
        panels[line, 0].set_ylabel(f"RMSE of {name}")
    figure.suptitle(group.title)
    legend_below(figure, panels[0, 0])
    return figure
