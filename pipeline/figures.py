"""Which figures there are; the functions that draw them are in `pipeline.plots`.

To add one, write a function of a `Group` in a module there and name it here. This list stands apart
because matplotlib takes a while to load, and a configuration that names figures does not need it.
"""

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
    title, caption
        For the page; the caption says what to see.
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
        "Fitted component densities in colour, true ones black and dashed, and the points on the "
        "axis coloured by responsibility (white: undecided). With equal, known weights the curves "
        "are N(x; mean, scale²); otherwise each is multiplied by its weight. The picture reaches "
        "2.5 scales beyond the outermost true means, and its height ends at 2.5 times the highest "
        "true peak: a very narrow early component is cut off. Log-likelihoods are totals.",
    ),
    FigureKind(
        "log_likelihood_trajectories",
        "trajectories",
        "Log-likelihood",
        "Total log-likelihood of one sample (replicate 0) at every recorded iteration; all inits "
        "see the same sample. Thin lines are further starts (ten in all). The axis begins below "
        "the lowest value after the first iteration: a start may lie further down. The dashed line "
        "is the log-likelihood of the true parameters: a fit may end above it, since it adapts to "
        "the sample.",
    ),
    FigureKind(
        "parameter_trajectories",
        "trajectories",
        "Parameters",
        "Parameters of replicate 0, start 0 at every recorded iteration, one colour per component "
        "(matched to the truth), one line style per init (the first four; with more than three "
        "components the first alone); dashed and thin: the truth. Estimates settle at a maximum of "
        "the sample's likelihood, not at the truth.",
    ),
    FigureKind(
        "mean_plane",
        "plane",
        "Paths over the log-likelihood",
        "Replicate 0 in the plane of two means (with more than two components, those that move "
        "most): a path per start (eight at most of each init or algorithm, evenly spread), with a "
        "dot at every recorded iteration. Contours: total log-likelihood below its highest value "
        "in the picture (the population: for mass 1), all other parameters held at the best "
        "estimate drawn. A path changes them too, so that it may cross contours downwards, and "
        "only the end of the best fit lies on a top.",
    ),
    FigureKind(
        "gap_profile",
        "trajectories",
        "Log-likelihood still to be gained",
        "Gap between a fit's last log-likelihood and its value at the iteration: median over fits "
        "(line) and the range from the 10 % to the 90 % quantile (band). A fit that has stopped "
        "counts with gap 0; gaps below 10⁻¹⁰ are not drawn; the axis ends where nine in ten fits "
        "have stopped.",
    ),
    FigureKind(
        "iterations_distribution",
        "summaries",
        "Iterations needed",
        "Share of all fits that had converged by an iteration. Fits that failed or were cut off "
        "stay in the denominator: their share is what the curve lacks to 100 %.",
    ),
    FigureKind(
        "basins",
        "basins",
        "Basins of attraction",
        "Where EM ends, by where it starts: each place of the init grid in the colour of the limit "
        "reached from there, the darker the more iterations it took (with one free mean: the "
        "higher), for replicate 0. Limits are told apart by their parameters, whatever the order "
        "of the components, and named by their log-likelihood, A the best; the legend gives their "
        "means and the share of starts that end there, and a letter stands at the means where the "
        "map reaches so far. Starts with two equal means, on the diagonal, keep them equal.",
    ),
    FigureKind(
        "outcome_shares",
        "summaries",
        "Outcomes",
        "How the fits ended. The counts are in the table of outcomes.",
    ),
    FigureKind(
        "error_against_n",
        "summaries",
        "Error against sample size",
        "Root mean squared error over fits with a finite estimate, with bars of one Monte-Carlo "
        "standard error. The dotted line falls like 1/√n, the rate of a regular estimator, from "
        "the median of the smallest size.",
    ),
    FigureKind(
        "rates",
        "rates",
        "Rate of convergence",
        "The factor by which an iteration shrank the error in the end, as each fit showed it and "
        "as theory gives it at the estimate (the spectral radius of EM's Jacobian). Left: on the "
        "dashed line they agree; the axes stretch towards 1, where EM is slow. Right: how far they "
        "differ. Only fits whose trace settled on one rate have an observed one; rates of 1 and "
        "more (saddles) are not drawn.",
    ),
    FigureKind(
        "stop_replay",
        "replayed",
        "What stopping rules cost and leave",
        "Each rule stops the same fits: map evaluations spent against the distance to the fixed "
        "point that is left (the largest of all parameters, in units). A line runs through a "
        "rule's tolerances, the tighter the further to the right; points are medians over fits, "
        "bars reach from the 10 % to the 90 % quantile. Hollow: the rule did not stop all fits "
        "before they ended; where it stopped less than half, there is no point. For plain EM the "
        "rules parameter and map_residual are one and the same.",
    ),
)
