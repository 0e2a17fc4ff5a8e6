"""Figures: tables in, matplotlib figures out; nothing is read or written.

To add a figure, write a function of a `Group` and name it in `FIGURES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from pipeline.plots.group import Group, groups
from pipeline.plots.snapshots import cell_snapshots, snapshot_picture, snapshots
from pipeline.plots.style import png_bytes, svg_bytes
from pipeline.plots.summaries import error_against_n, iterations_distribution, outcome_shares
from pipeline.plots.trajectories import (
    gap_profile,
    log_likelihood_trajectories,
    parameter_trajectories,
)

__all__ = [
    "FIGURES",
    "FigureKind",
    "Group",
    "cell_snapshots",
    "groups",
    "png_bytes",
    "snapshot_picture",
    "svg_bytes",
]


@dataclass(frozen=True)
class FigureKind:
    """A figure that every group may have: `draw` gives None where it would say nothing."""

    draw: Callable[[Group], Figure | None]
    title: str
    caption: str

    @property
    def name(self) -> str:
        """The stem of the figure's files."""
        return self.draw.__name__


FIGURES = (
    FigureKind(
        snapshots,
        "The fit, iteration by iteration",
        "Fitted component densities in colour, true ones black and dashed, and the points on the "
        "axis coloured by responsibility (white: undecided). With equal, known weights the curves "
        "are N(x; mean, scale²); otherwise each is multiplied by its weight. The picture reaches "
        "2.5 scales beyond the outermost true means, and its height ends at 2.5 times the highest "
        "true peak: a very narrow early component is cut off. Log-likelihoods are totals.",
    ),
    FigureKind(
        log_likelihood_trajectories,
        "Log-likelihood",
        "Total log-likelihood of one sample (replicate 0) at every recorded iteration; all inits "
        "see the same sample. Thin lines are further starts (ten in all). The axis begins below "
        "the lowest value after the first iteration: a start may lie further down. The dashed line "
        "is the log-likelihood of the true parameters: a fit may end above it, since it adapts to "
        "the sample.",
    ),
    FigureKind(
        parameter_trajectories,
        "Parameters",
        "Parameters of replicate 0, start 0 at every recorded iteration, one colour per component "
        "(matched to the truth), one line style per init (the first four; with more than three "
        "components the first alone); dashed and thin: the truth. Estimates settle at a maximum of "
        "the sample's likelihood, not at the truth.",
    ),
    FigureKind(
        gap_profile,
        "Log-likelihood still to be gained",
        "Gap between a fit's last log-likelihood and its value at the iteration: median over fits "
        "(line) and the range from the 10 % to the 90 % quantile (band). A fit that has stopped "
        "counts with gap 0; gaps below 10⁻¹⁰ are not drawn; the axis ends where nine in ten fits "
        "have stopped.",
    ),
    FigureKind(
        iterations_distribution,
        "Iterations needed",
        "Share of all fits that had converged by an iteration. Fits that failed or were cut off "
        "stay in the denominator: their share is what the curve lacks to 100 %.",
    ),
    FigureKind(
        outcome_shares,
        "Outcomes",
        "How the fits ended. The counts are in the table of outcomes.",
    ),
    FigureKind(
        error_against_n,
        "Error against sample size",
        "Root mean squared error over fits with a finite estimate, with bars of one Monte-Carlo "
        "standard error. The dotted line falls like 1/√n, the rate of a regular estimator, from "
        "the median of the smallest size.",
    ),
)
