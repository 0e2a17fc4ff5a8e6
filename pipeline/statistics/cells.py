"""Convergence statistics of every cell, with their Monte-Carlo standard errors (MCSE).

Formulas: Morris, White & Crowther (2019), "Using simulation studies to evaluate statistical
methods", Statistics in Medicine 38(11), 2074-2102, Table 6.
"""

import math
from collections.abc import Collection

import numpy as np
import pandas as pd

from pipeline.plan import Plan
from pipeline.statistics.incidence import (
    CENSORED,
    COMPETING,
    EVENT,
    cumulative_incidence,
    observed,
    quantiles,
)
from pipeline.statistics.intervals import LEVEL, Unseen, ratio_interval, share_interval
from pipeline.statistics.measures import (
    BOUNDED,
    CONVERGED,
    finite_fits,
    optional_columns,
    performance,
    true_parameters,
)
from pipeline.statistics.recorded import first_order_distance
from pipeline.statistics.references import references
from pipeline.statistics.replicates import (
    REPLICATE,
    evaluations_before_row_0,
    in_plan_order,
    mean_and_mcse,
    replicate_means,
    share_and_mcse,
)
from pipeline.tables import LABELS, OUTCOMES, parameter_columns

RATES = ("rate_theory", "rate_observed")
# What has counts of its own of the fits and replicates behind it.
COUNTED_APART = (*RATES, "log_likelihood")


def fit_columns(plan: Plan, available: Collection[str] = ()) -> list[str]:
    """Return the columns of the fits table that the statistics read.

    Of those that a study has only where it asks for them: the ones that are `available`.
    """
    keys = ["cell", "replicate", "start", "outcome", "n_iter", "map_evaluations"]
    keys += ["log_likelihood", *parameter_columns(plan.n_components), "relabelled"]
    keys += [*RATES, "map_residual", "compression_error_bound"]
    optional = ["log_penalty", *optional_columns(plan.n_components)]
    return keys + [name for name in optional if name in available]


def convergence(fits: pd.DataFrame, plan: Plan, beside: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the convergence statistics, one row per cell in plan order.

    Parameters
    ----------
    fits : DataFrame
        One row per fit in any order, with at least the columns `fit_columns(plan)`; components
        already matched to the truth.
    plan : Plan
        Where the cells and their truths are.
    beside : DataFrame
        What `derived` gave for these fits; made here if it is not given.

    Returns
    -------
    DataFrame
        Labels and sizes of the cell, the number of fits of every outcome, then the statistics of
        `convergence_share`, `reference_share`, `iterations`, `running_time`,
        `final_log_likelihood`, the true parameters, `rates`, `numerical_error` and `performance`.
        What does not exist is missing: bias and RMSE without a truth of the model's size, an MCSE
        from one replicate, a mean over no finite fit.

    Raises
    ------
    ValueError
        If `fits` names a cell that the plan does not have.
    """
    ordered = in_plan_order(fits[fit_columns(plan, fits.columns)], plan)
    fits = ordered.set_index(REPLICATE)
    beside = (references(ordered, plan) if beside is None else beside).set_index(fits.index)
    measured = performance(ordered, plan)
    counts = [name for name in measured if name.startswith(("n_", "replicates_"))]
    finite = finite_fits(ordered, plan)
    table = pd.concat(
        [
            _cells(plan),
            outcome_counts(fits),
            convergence_share(fits["outcome"]),
            reference_share(beside),
            iterations(fits),
            running_time(fits, plan),
            measured[counts],
            final_log_likelihood(fits, finite, plan),
            true_parameters(plan).add_prefix("true_"),
            rates(fits),
            numerical_error(fits),
            measured.drop(columns=counts),
        ],
        axis=1,
    )
    counts += [*(f"n_{outcome}" for outcome in OUTCOMES), "n_fits"]
    counts += ["n_near_singular", "n_lone_reference"]
    counts += [f"{what}_{name}" for what in ("n", "replicates") for name in COUNTED_APART]
    table[counts] = table[counts].fillna(0).astype("int64")  # a cell without a fit
    return table.reset_index(drop=True)


def outcome_counts(fits: pd.DataFrame) -> pd.DataFrame:
    """Return the number of fits and the number of every outcome, per cell; 0 where none."""
    flags = {"n_fits": pd.Series(True, fits.index)}
    flags |= {f"n_{outcome}": fits["outcome"] == outcome for outcome in OUTCOMES}
    return pd.DataFrame(flags).groupby(level="position").sum()


def convergence_share(outcome: pd.Series) -> pd.DataFrame:
    """Return the share p of converged fits with Wilson's interval, per cell.

    With p_r the share among the starts of replicate r, MCSE = sqrt(sum_r (p_r - p)^2) / R, which
    for one start is the binomial sqrt(p (1 - p) / R) of a coverage in Table 6. The interval takes
    the effective size that this error makes (see `intervals.effective_size`).
    """
    table = share_and_mcse(outcome == "converged", "converged_share")
    share, error = table["converged_share"], table["converged_share_mcse"]
    n_fits, n_replicates = _sizes(outcome)
    limits = share_interval(share, error**2, n_fits, n_replicates)
    return table.assign(converged_share_low=limits[0], converged_share_high=limits[1])


def _sizes(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of fits and of replicates of every cell that has any."""
    replicates = values.index[~values.index.duplicated()].get_level_values("position")
    fits = values.index.get_level_values("position")
    return fits.value_counts(sort=False).to_numpy(), replicates.value_counts(sort=False).to_numpy()


def reference_share(beside: pd.DataFrame) -> pd.DataFrame:
    """Return the share that reached the reference, and what to know about it, per cell.

    These are the numbers of near-singular fits, which never do, and of fits whose reference nothing
    was compared with. The share and its MCSE are made as in `convergence_share`. The reference is
    taken for given: that it is itself the best of these fits is no part of the error.
    """
    shares = share_and_mcse(beside["reached_reference"], "reached_reference_share")
    counts = beside[["near_singular", "lone_reference"]].groupby(level="position").sum()
    return pd.concat([counts.add_prefix("n_"), shares], axis=1)


def with_intervals_at(
    table: pd.DataFrame, fits: pd.DataFrame, plan: Plan, level: float
) -> pd.DataFrame:
    """Return a table of `convergence` with its intervals of iterations and cost at a level."""
    fits = in_plan_order(fits, plan).set_index(REPLICATE)
    parts = pd.concat([iterations(fits, level), running_time(fits, plan, level)], axis=1)
    ends = parts.filter(regex="_(low|high)$").reindex(range(len(table)))
    return table.assign(**{name: ends[name].to_numpy() for name in ends})


def iterations(fits: pd.DataFrame, level: float = LEVEL) -> pd.DataFrame:
    """Return quantiles of the iterations to convergence with their intervals, per cell.

    They are those of the cumulative incidence of convergence: `max_iter` censors, every failure is
    a competing event (see `incidence.quantiles`). Leaving either out would make a hard cell look
    easy.
    """
    position, curve = np.unique(fits.index.get_level_values("position"), return_inverse=True)
    replicate = fits.index.get_level_values("replicate").to_numpy()
    cause = np.full(len(fits), COMPETING)
    for outcome, code in (("converged", EVENT), ("max_iter", CENSORED)):
        cause[(fits["outcome"] == outcome).to_numpy()] = code
    ends = observed(curve, replicate, fits["n_iter"].to_numpy(), cause)
    curves, failures = cumulative_incidence(ends, EVENT), cumulative_incidence(ends, COMPETING)
    columns = {}
    for name, portion in (("median", 0.5), ("q10", 0.1), ("q90", 0.9)):
        found = quantiles(curves, failures, portion, level)
        for end, values in zip(("", "_low", "_high"), found, strict=True):
            columns[f"n_iter_{name}{end}"] = values
    return pd.DataFrame(columns, pd.Index(position, name="position"))


def running_time(fits: pd.DataFrame, plan: Plan, level: float = LEVEL) -> pd.DataFrame:
    """Return the expected running time in map evaluations, with MCSE and interval, per cell.

    What it costs, on average, to get one converged fit by starting anew until there is one:
    ERT = (evaluations of all fits and their inits) / (number of converged fits), infinite where
    there is none.
    Hansen, Auger, Ros, Mersmann, Tusar & Brockhoff (2021), "COCO: a platform for comparing
    continuous optimizers in a black-box setting", Optimization Methods and Software 36, 114-144.

    Notes
    -----
    A ratio of means over replicates: with E_r and C_r the sums over the starts of replicate r, the
    delta method gives MCSE = sqrt(R / (R - 1) sum_r (E_r - ERT C_r)^2) / sum_r C_r. The interval is
    `intervals.ratio_interval`. The replicate that nobody saw has starts that all go on until
    `max_iter` and fail, or that all converge for what the init costs.
    """
    before = evaluations_before_row_0(plan)[fits.index.get_level_values("position")]
    sums = pd.DataFrame(
        {
            "cost": (fits["map_evaluations"] + before).astype(float),
            "converged": (fits["outcome"] == "converged").astype(float),
        }
    )
    n_fits, n_replicates = _sizes(sums["cost"])
    if not sums.index.is_unique:
        sums = sums.groupby(level=REPLICATE).sum()
    by_cell = sums.groupby(level="position").sum()
    cost, converged = by_cell["cost"].to_numpy(), by_cell["converged"].to_numpy()
    some = converged > 0
    ratio = np.where(some, cost / np.where(some, converged, 1.0), np.inf)
    each = np.repeat(np.where(some, ratio, 0.0), n_replicates)
    residuals = (sums["cost"] - each * sums["converged"]) ** 2
    squares = residuals.groupby(level="position").sum().to_numpy()
    several = some & (n_replicates > 1)
    correction = n_replicates / np.where(several, n_replicates - 1, 1)
    error = np.sqrt(correction * squares) / np.where(some, converged, 1.0)
    error = np.where(several, error, np.nan)
    first = np.cumsum(n_replicates) - n_replicates
    unseen = _unseen_replicate(fits, np.cumsum(n_fits) - n_fits, by_cell.index, plan)
    limits = ratio_interval(
        sums["cost"].to_numpy(), sums["converged"].to_numpy(), first, unseen, level
    )
    low, high = (np.where(n_replicates > 1, limit, np.nan) for limit in limits)
    return pd.DataFrame(
        {
            "expected_running_time": ratio,
            "expected_running_time_mcse": error,
            "expected_running_time_low": low,
            "expected_running_time_high": high,
        },
        by_cell.index,
    )


def _unseen_replicate(
    fits: pd.DataFrame, first: np.ndarray, position: pd.Index, plan: Plan
) -> Unseen:
    """Return what a replicate of each cell may cost: its starts within the budget.

    An iteration costs the same in all fits of a cell; `first` is the first fit of each cell.
    """
    each = fits["map_evaluations"].to_numpy() / np.maximum(fits["n_iter"].to_numpy(), 1)
    each = np.maximum.reduceat(each, first)
    starts = np.array([cell.starts for cell in plan.cells], float)[position]
    least = starts * evaluations_before_row_0(plan)[position]
    return Unseen(least, starts, least + starts * plan.config["schedule"]["max_iter"] * each)


def final_log_likelihood(fits: pd.DataFrame, finite: np.ndarray, plan: Plan) -> pd.DataFrame:
    """Return the mean final log-likelihood per cell, of the sample and per observation.

    Over the finite fits that are not degenerate (`BOUNDED`), as the likelihood of the others
    has no bound, and over the converged ones. MCSE = sd(L_r) / sqrt(R), with L_r the mean over
    these starts of replicate r.
    """
    # The population's log-likelihood is for mass 1.
    sizes = pd.Series([1 if c.sample_size == math.inf else c.sample_size for c in plan.cells])
    columns: dict[str, pd.Series] = {}
    for end, outcomes in (("", BOUNDED), (CONVERGED, ["converged"])):
        values = fits["log_likelihood"].where(finite & fits["outcome"].isin(outcomes))
        means = replicate_means(values)
        mean, error = mean_and_mcse(means)
        if not end:  # of the converged ones `performance` has the numbers
            columns["n_log_likelihood"] = values.groupby(level="position").count()
            columns["replicates_log_likelihood"] = means.groupby(level="position").count()
        for name, size in (("log_likelihood_mean", 1), ("mean_log_likelihood", sizes)):
            columns |= {f"{name}{end}": mean / size, f"{name}{end}_mcse": error / size}
    return pd.DataFrame(columns)


def rates(fits: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rates of convergence, and how many fits and replicates have one, per cell.

    `rate_theory` and `rate_observed` are those of the fits that have them (converged ones): with
    (.)_r the mean over these starts of replicate r, mean((.)_r), MCSE sd((.)_r) / sqrt(R).
    """
    columns: dict[str, pd.Series] = {}
    for name in RATES:
        rate = fits[name].astype(float)
        means = replicate_means(rate)
        mean, error = mean_and_mcse(means)
        columns[f"n_{name}"] = rate.groupby(level="position").count()
        columns[f"replicates_{name}"] = means.groupby(level="position").count()
        columns |= {f"{name}_mean": mean, f"{name}_mean_mcse": error}
    return pd.DataFrame(columns)


def numerical_error(fits: pd.DataFrame) -> pd.Series:
    """Return how far estimates may lie from exact fixed points, in units, largest of each cell.

    What `first_order_distance` gives, and the error bound of the nodes on top. Missing where a fit
    has no rate below 1.
    """
    distance = first_order_distance(fits["map_residual"], fits["rate_theory"].astype(float))
    error = (distance + fits["compression_error_bound"]).fillna(np.inf)
    largest = error.groupby(level="position").max()
    return largest.where(np.isfinite(largest)).rename("numerical_error")


def _cells(plan: Plan) -> pd.DataFrame:
    labels = {name: [getattr(cell, name) for cell in plan.cells] for name in LABELS}
    table = pd.DataFrame({"cell": [cell.id for cell in plan.cells], **labels})
    texts = table.columns.drop("sample_size")
    table = table.astype({name: "str" for name in texts})
    for name in ("replicates", "starts"):
        table[name] = [getattr(cell, name) for cell in plan.cells]
    return table
