"""Every fit beside the others of its sample and model: the reference optimum, and who reached it.

The global maximum of a mixture's likelihood is unknown (and infinite where a scale may go to 0: Day
1969), so the best optimum that any fit of the study found stands for it.
"""

import numpy as np
import pandas as pd

from pipeline.plan import Plan
from pipeline.statistics.replicates import in_plan_order
from pipeline.tables import parameter_columns

# Outcomes of fits that can be a reference: where a component collapses the likelihood is unbounded,
# and what went wrong is no candidate.
ELIGIBLE = ("converged", "max_iter")


def references(fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Compare the fits of the same sample and model: all inits, algorithms and starts.

    Parameters
    ----------
    fits : DataFrame
        One row per fit in plan order, with `position`, its cell's place in the plan, `replicate`,
        `start`, `outcome`, `log_likelihood` and the scales.
    plan : Plan
        With `reference.tolerance` and `reference.scale_ratio` in its config.

    Returns
    -------
    DataFrame
        The columns that `docs/statistics.md` explains, with the index of `fits`. What depends on
        the fit's own log-likelihood is missing, or False, for a fit that is not eligible.
    """
    settings = plan.config["reference"]
    singular = near_singular(fits, plan.n_components, settings["scale_ratio"])
    eligible = fits["outcome"].isin(ELIGIBLE) & ~singular
    # Without a penalty of scales, or where nothing is known of one, it is the log-likelihood.
    penalty = fits["log_penalty"].fillna(0.0) if "log_penalty" in fits else 0.0
    own = (fits["log_likelihood"] + penalty).where(eligible)
    compared, _ = pd.factorize(np.array([f"{cell.data_set} {cell.model}" for cell in plan.cells]))
    sample = [compared[fits["position"]], fits["replicate"]]
    together = own.groupby(sample, sort=False)
    reference = together.transform("max")
    at_truth = own.where(_from_truth(plan)[fits["position"]])
    gap = reference - own
    point = pd.Series(_starting_points(fits, plan), fits.index).where(eligible)
    began = point.groupby(sample, sort=False)
    return pd.DataFrame(
        {
            "reference_log_likelihood": reference,
            "truth_log_likelihood": at_truth.groupby(sample, sort=False).transform("max"),
            "log_likelihood_gap": gap,
            "reached_reference": gap <= settings["tolerance"] * reference.abs().clip(lower=1.0),
            "lone_reference": eligible & (began.transform("min") == began.transform("max")),
            "near_singular": singular,
            "rank": together.rank(method="min", ascending=False),
            "best_of_replicate": _first_best(own, [fits["position"], fits["replicate"]]),
        },
        fits.index,
    )


def near_singular(fits: pd.DataFrame, n_components: int, scale_ratio: float) -> pd.Series:
    """Tell which fits have a scale below `scale_ratio` times their largest.

    Such a fit has most often climbed towards a singularity of the likelihood, a component on a few
    neighbouring points, and not come near enough to be called degenerate (Hathaway 1985 constrains
    this ratio to keep the likelihood bounded).
    """
    scales = fits[[name for name in parameter_columns(n_components) if name.startswith("scale")]]
    return scales.min(axis=1) < scale_ratio * scales.max(axis=1)


def _starting_points(fits: pd.DataFrame, plan: Plan) -> np.ndarray:
    """Return a number for what each fit starts from, shape (F,): algorithms share their row 0."""
    init, _ = pd.factorize(np.array([cell.start_key for cell in plan.cells]))
    most = max(cell.starts for cell in plan.cells)
    return init[fits["position"]] * most + fits["start"].to_numpy()


def _from_truth(plan: Plan) -> np.ndarray:
    """Tell for every cell whether its init is the truth."""
    inits = plan.config["init"]
    return np.array([inits[cell.init]["method"] == "truth" for cell in plan.cells])


def _first_best(values: pd.Series, keys: list[pd.Series]) -> pd.Series:
    """Mark the first row of each group that has its largest value; none where all are missing."""
    best = values == values.groupby(keys, sort=False).transform("max")
    return best & (best.groupby(keys, sort=False).cumsum() == 1)


def derived(fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return what a fit is beside the other fits of its replicate, one row per fit in plan order.

    `cell`, `replicate`, `start`, `fit_id`, and the columns of `references`.
    """
    fits = in_plan_order(fits, plan)
    names = fits[["cell", "replicate", "start", "fit_id"]]
    return pd.concat([names, references(fits, plan)], axis=1).reset_index(drop=True)
