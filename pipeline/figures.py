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
        "Fitted component densities in colour and the points on the axis coloured by "
        "responsibility (with two components, white: undecided; with more, a mix of their colours; "
        "a population has no points). True components are black and dashed; of observed data a "
        "histogram stands in their place. With equal, known weights the curves are N(x; mean, "
        "scale²); otherwise each is multiplied by its weight. Where the truth is known, the "
        "picture reaches 2.5 scales beyond the outermost true means. Its height ends at 2.5 times "
        "the highest true peak, or of the histogram: a very narrow component is cut off. Log-"
        "likelihoods are totals (of the population: for mass 1). Where the fit went on beyond the "
        "last of the snapshots, its last iteration is added.",
    ),
    FigureKind(
        "log_likelihood_trajectories",
        "trajectories",
        "Log-likelihood",
        "Total log-likelihood of one sample (replicate 0; of the population: for mass 1) at every "
        "recorded iteration; all inits see the same sample. Thin lines are further starts, if "
        "there are any (ten in all). The axis begins below the lowest value after the first "
        "iteration: a start may lie further down. Where the truth is known, the dashed line is the "
        "log-likelihood of the true parameters: on a sample a fit may end above it, since it "
        "adapts to the sample.",
    ),
    FigureKind(
        "parameter_trajectories",
        "trajectories",
        "Parameters",
        "Parameters of one fit (replicate 0) at every recorded iteration, one colour per "
        "component, one line style per combination of init and algorithm: the first of each init "
        "before others of it, four at most, and with more than three components one alone. The "
        "title says how many of how many. Where the truth is known and has as many components as "
        "the model, components are matched to it, and it is dashed and thin. Estimates settle at a "
        "maximum of the sample's likelihood, not at the truth.",
    ),
    FigureKind(
        "mean_plane",
        "plane",
        "Paths over the log-likelihood",
        "Replicate 0 in the plane of two means (with more than two components, those that move "
        "most, very narrow ones last): a path per start (eight at most of a colour, evenly "
        "spread), with a dot at every recorded iteration. Of more than four combinations of init "
        "and algorithm, four are drawn, the first of each init before others of it, and the title "
        "says so. Contours: total log-likelihood below its highest value in the picture (of the "
        "population: for mass 1), all other parameters held at the best estimate drawn. A path "
        "changes them too, so that it may cross contours downwards, and only the end of the best "
        "fit lies on a top. A cross marks the truth where it is known and has as many components.",
    ),
    FigureKind(
        "log_likelihood_gap",
        "trajectories",
        "Speed of one fit",
        "Gap between the log-likelihood of one fit (replicate 0) at an iteration and its "
        "last one. EM converges linearly: a straight line here. Of fits that were cut off at "
        "the largest number of iterations the curve bends down in the end, because it is measured "
        "from their own last row. Dashed, where there is one: the slope of theory, by which the "
        "gap falls like rate²ᵗ with the iteration t; rate is the largest eigenvalue of the EM "
        "map's derivative at the estimate. The line runs through the last point that the "
        "arithmetic can tell: look how early the curve has joined it. Only plain EM has this rate. "
        "Against map evaluations (of EM: iterations) where algorithms differ. Gaps that are "
        "rounding are not drawn, nor are curves of a single gap.",
    ),
    FigureKind(
        "log_likelihood_gap_bands",
        "bands",
        "Log-likelihood still to be gained",
        "Gap to the best log-likelihood that any fit of the study reached on the same sample: "
        "median over replicates (line) and range from the 10 % to the 90 % quantile (band). A fit "
        "that has stopped is carried at its last row. Fits that failed, and those that ended near "
        "a singularity, are infinitely far, from the first iteration on: a band that runs into the "
        "upper edge, or no line where half of the fits are so. A curve that levels off shows fits "
        "at other optima. The triangle on the axis: half of the fits have stopped; it ends where "
        "95 % have. More than four curves are drawn without bands. Cells with fewer than 5 fits "
        "are left out.",
    ),
    FigureKind(
        "distance_to_fixed_point_bands",
        "bands",
        "Distance to the fixed point",
        "Largest difference of a parameter from the fit's own last row, in units (1 for weights, "
        "the sample's standard deviation for means and scales): median and 10 % to 90 % range over "
        "replicates. A fit that has stopped is carried there, at distance 0; one that did not "
        "converge is infinitely far. The triangle: half of the fits have stopped. More than four "
        "curves are drawn without ranges. Cells with fewer than 5 fits are left out.",
    ),
    FigureKind(
        "distance_to_truth_bands",
        "bands",
        "Distance to the truth",
        "Largest difference of a parameter from the truth, in units (1 for weights, the sample's "
        "standard deviation for means and scales): median and 10 % to 90 % range over replicates. "
        "The curves level off where the sample's own error is larger than what iterations still "
        "change: more of them do not help there. Fits that have stopped are carried at their last "
        "row, failures too. The triangle: half of the fits have stopped. More than four curves are "
        "drawn without ranges. Cells with fewer than 5 fits are left out.",
    ),
    FigureKind(
        "iterations_distribution",
        "profiles",
        "Iterations needed",
        "Share of all fits that have converged by then (cumulative incidence; with up to four "
        "curves with its pointwise 95 % interval, where there is one). Failures, if there are any, "
        "compete: their share (dotted) is what a curve never gains. Fits that the largest number "
        "of iterations cut off are censored. Against map evaluations where algorithms differ, as "
        "their iterations differ in cost. Cells with fewer than 5 fits are left out.",
    ),
    FigureKind(
        "log_likelihood_gap_profiles",
        "profiles",
        "Cost of coming near the best",
        "Share of fits whose log-likelihood has come within a fixed gap of the best one known for "
        "their sample, against the map evaluations spent; one line style per gap (fewer "
        "gaps where there are many curves). What a curve lacks to 100 % failed or went to another "
        "optimum.",
    ),
    FigureKind(
        "distance_to_fixed_point_profiles",
        "profiles",
        "Cost of coming near the fixed point",
        "Share of fits that have come within a fixed distance of their own fixed point (largest "
        "difference of a parameter, in units), against the map evaluations spent. The way from one "
        "line style to the next is what further digits cost.",
    ),
    FigureKind(
        "algorithm_performance",
        "profiles",
        "Algorithms compared",
        "Performance profiles (Dolan and Moré 2002): share of fits that an algorithm finished with "
        "at most so many times the map evaluations (cost) of the fastest one on the same sample "
        "from the same start. At 1: how often it was the fastest. To the right: how many it "
        "finished at all.",
    ),
    FigureKind(
        "init_performance",
        "profiles",
        "Inits compared",
        "The same for inits: share of samples that were solved with at most so many times the map "
        "evaluations of the best init. An init with several starts pays for all of them, and is "
        "credited with each that converged.",
    ),
    FigureKind(
        "basins",
        "basins",
        "Basins of attraction",
        "Where EM ends, by where it starts: each place of the init grid in the colour of the limit "
        "reached from there, for one sample (replicate 0) or the population. With two free means, "
        "the darker a place the more iterations it took; with one, the higher. Limits are told "
        "apart by their parameters, whatever the order of the components. In each panel letters "
        "name them by their log-likelihood, A the best. A colour is the same optimum in all "
        "panels: the nearest one, if no parameter differs by more than 0.2 units (1 for weights, "
        "the sample's standard deviation for means and scales). The legend gives means, log-"
        "likelihood per observation (ℓ/n) and the share of starts that end there, and a letter "
        "stands at the means where the map reaches so far. Starts with two equal means, on the "
        "diagonal, keep them equal. A cross marks the start of the fit that the pictures of single "
        "iterations show.",
    ),
    FigureKind(
        "outcome_shares",
        "outcomes",
        "Outcomes",
        "How the fits ended. The counts are in the table of outcomes.",
    ),
    FigureKind(
        "error_against_n",
        "scaling",
        "Error against sample size",
        "Root mean squared error over fits with a finite estimate, with bars of one Monte-Carlo "
        "standard error. Where the experiment asks for slopes the fitted line is drawn and its "
        "slope given with its standard error; elsewhere thin lines join the points. Dotted, from "
        "the least error at the smallest size: the slope that a claim of the experiment predicts, "
        "where one does, or else 1/√n, a regular estimator's. Points of several curves stand a "
        "little aside of their size. Parameters whose errors are the same numbers share a panel.",
    ),
    FigureKind(
        "scaling_laws",
        "scaling",
        "Scaling laws",
        "Statistics against the factors that the experiment asks about, both logarithmic: bars of "
        "one Monte-Carlo standard error (of quantiles: 95 % intervals), the fitted line over the "
        "points that it was fitted to, and its slope with its standard error. Dotted, where a "
        "claim predicts a slope: that one. A line through several truths or models stands with the "
        "first.",
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
