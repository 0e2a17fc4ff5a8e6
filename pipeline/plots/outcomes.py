"""How the fits of a cell ended."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.plots.caption import Captioned
from pipeline.plots.group import FEWEST_FITS, Group
from pipeline.plots.style import (
    WIDTH,
    finished,
    legend_below,
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
def outcome_shares(group: Group) -> Figure | None:
    """Shares of the outcomes, one bar per cell."""
    if len(group.fits) < FEWEST_FITS:
        return None
    counts = group.convergence.set_index("cell").loc[[cell.id for cell in group.cells]]
    height = 0.24 if len(group.cells) <= 30 else 0.17
    figure = Captioned(figsize=(WIDTH, 1.2 + height * len(group.cells)), layout="constrained")
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
    axes.set_ylim(len(group.cells) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize="small", length=0)
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlabel("share of fits")
    axes.grid(False)
    figure.suptitle(group.title)
    legend_below(figure, axes)
    all_converged = bool((counts["n_converged"] == counts["n_fits"]).all())
    figure.note("All of them converged.", when=all_converged)
    return figure
