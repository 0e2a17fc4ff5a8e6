"""Which figures there are; the functions that draw them are in `pipeline.plots`.

To add one, write a function of a `Group` in a module there and name it here. This list stands apart
because matplotlib takes a while to load, and a configuration that names figures does not need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FigureKind:
    """A figure that every group of cells may have.

    Attributes
    ----------
    name
        Of the function, and the end of its files' stems.
    module
        Of `pipeline.plots`, which holds the function.
    title
        For the page.
    caption
        What to see, true of every figure of this kind. What holds for some of them alone the
        function notes where it draws it (`pipeline.plots.caption`).
    """

    name: str
    module: str
    title: str
    caption: str


FIGURES = (
    FigureKind(
        "snapshots",
        "snapshots",
        "The fit, iteration by iteration",
        "Fitted component densities in colour, at the iteration above each panel; log-likelihoods "
        "are totals.",
    ),
    FigureKind(
        "log_likelihood_trajectories",
        "trajectories",
        "Log-likelihood",
        "Total log-likelihood at every recorded iteration.",
    ),
    FigureKind(
        "parameter_trajectories",
        "trajectories",
        "Parameters",
        "Parameters of a fit (replicate 0) at every recorded iteration, one colour per component.",
    ),
    FigureKind(
        "mean_plane",
        "plane",
        "Paths over the log-likelihood",
        "Paths in the plane of two means, with a dot at every recorded iteration. Contours: total "
        "log-likelihood below its highest value in the picture, all other parameters held at the "
        "best estimate drawn. A path may change these too: it may cross contours downwards, and "
        "need not end on a top.",
    ),
    FigureKind(
        "log_likelihood_gap",
        "gaps",
        "Speed of one fit",
        "Gap between the log-likelihood of a fit (replicate 0) at an iteration and its "
        "last one: a straight line where EM converges linearly.",
    ),
    FigureKind(
        "log_likelihood_gap_bands",
        "bands",
        "Log-likelihood still to be gained",
        "Gap to the best log-likelihood that any fit of the study reached on the same sample.",
    ),
    FigureKind(
        "distance_to_fixed_point_bands",
        "bands",
        "Distance to the fixed point",
        "Largest difference of a parameter from the fit's own last row, in units (1 for weights, "
        "the sample's standard deviation for means and scales).",
    ),
    FigureKind(
        "distance_to_truth_bands",
        "bands",
        "Distance to the truth",
        "Largest difference of a parameter from the truth, in units (1 for weights, the sample's "
        "standard deviation for means and scales).",
    ),
    FigureKind(
        "iterations_distribution",
        "profiles",
        "Iterations needed",
        "Share of all fits that have converged by then (cumulative incidence).",
    ),
    FigureKind(
        "log_likelihood_gap_profiles",
        "profiles",
        "Cost of coming near the best",
        "Share of fits whose log-likelihood has come within a fixed gap of the best one known for "
        "their sample, against the map evaluations spent.",
    ),
    FigureKind(
        "distance_to_fixed_point_profiles",
        "profiles",
        "Cost of coming near the fixed point",
        "Share of fits that have come within a fixed distance of their own fixed point, against "
        "the map evaluations spent; the distance is the largest difference of a parameter, in "
        "units (1 for weights, the sample's standard deviation for means and scales).",
    ),
    FigureKind(
        "algorithm_performance",
        "profiles",
        "Algorithms compared",
        "Performance profiles (Dolan and Moré 2002): share of problems (a sample and a start) that "
        "an algorithm solved, that is converged to the best optimum known, with at most so many "
        "times the map evaluations (cost) of the fastest one that did. At 1: how often it was the "
        "fastest. To the right: how many it solved at all.",
    ),
    FigureKind(
        "init_performance",
        "profiles",
        "Inits compared",
        "Performance profiles (Dolan and Moré 2002): share of samples on which an init led to the "
        "best optimum known with at most so many times the map evaluations (cost) of the best "
        "init. At 1: how often it was the best. To the right: on how many it led there at all.",
    ),
    FigureKind(
        "basins",
        "basins",
        "Basins of attraction",
        "Where EM ends, by where it starts: each place of the init grid in the colour of the limit "
        "reached from there. Limits are told apart by their parameters, whatever the order of the "
        "components.",
    ),
    FigureKind(
        "outcome_shares",
        "outcomes",
        "Outcomes",
        "How the fits of each cell ended. The counts are in the table of outcomes.",
    ),
    FigureKind(
        "error_against_n",
        "scaling",
        "Error against sample size",
        "Root mean squared error over fits with a finite estimate.",
    ),
    FigureKind(
        "scaling_laws",
        "law_panels",
        "Scaling laws",
        "Statistics against the factors that the experiment asks about, both logarithmic, with the "
        "fitted line over the points that it was fitted to, and its slope.",
    ),
    FigureKind(
        "rates",
        "rates",
        "Rate of convergence",
        "The factor by which an iteration shrank the error in the end, as each fit showed it and "
        "as theory gives it at the estimate (the spectral radius of EM's Jacobian). Left: on the "
        "dashed line they agree; the axes stretch towards 1, where EM is slow. Right: how far they "
        "differ.",
    ),
    FigureKind(
        "stop_replay",
        "replayed",
        "What stopping rules cost and leave",
        "Each rule stops the same fits: the distance to the fixed point that is left (largest "
        "difference of a parameter, in units: 1 for weights, the sample's standard deviation for "
        "means and scales) against the map evaluations spent. A line runs through a rule's "
        "tolerances, the tighter the further to the right; points are medians over fits, bars "
        "reach from the 10 % to the 90 % quantile. Numbers beside points are tolerances: "
        "−6 is 10⁻⁶.",
    ),
)


def chosen(wanted: str | Sequence[str]) -> list[FigureKind]:
    """Return the figures that a configuration asks for, in its order: `all`, or names."""
    if wanted == "all":
        return list(FIGURES)
    by_name = {kind.name: kind for kind in FIGURES}
    return [by_name[name] for name in wanted]
