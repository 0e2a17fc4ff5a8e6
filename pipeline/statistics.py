"""Convergence statistics of every cell, with their Monte-Carlo standard errors (MCSE).

The replicate is the unit of replication: the starts of a replicate see the same data, so they are
averaged first and every standard error is taken over the R replicates that have a value. Formulas:
Morris, White & Crowther (2019), "Using simulation studies to evaluate statistical methods",
Statistics in Medicine 38(11), 2074-2102, Table 6.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.plan import Plan
from pipeline.references import references
from pipeline.tables import LABELS, OUTCOMES, parameter_columns

REPLICATE = ["position", "replicate"]  # a cell's place in the plan, and the data set in the cell


def fit_columns(plan: Plan) -> list[str]:
    """Return the columns of the fits table that `convergence` reads."""
    keys = ["cell", "replicate", "start", "outcome", "n_iter", "log_likelihood"]
    return keys + parameter_columns(plan.n_components)


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
        `convergence_share`, `reference_share`, `iterations`, `final_log_likelihood` and, for each
        parameter, `accuracy`. What does not exist is missing: bias and RMSE without a truth of the
        model's size, an MCSE from one replicate, a mean over no finite fit.

    Raises
    ------
    ValueError
        If `fits` names a cell that the plan does not have.
    """
    ordered = _in_plan_order(fits[fit_columns(plan)], plan)
    fits = ordered.set_index(REPLICATE)
    beside = (references(ordered, plan) if beside is None else beside).set_index(fits.index)
    truths = true_parameters(plan)
    finite = _finite(fits, plan)
    parts = [
        _cells(plan),
        outcome_counts(fits),
        convergence_share(fits["outcome"]),
        reference_share(beside),
        iterations(fits["n_iter"]),
        finite.groupby(level="position").sum().rename("n_finite"),
        final_log_likelihood(fits["log_likelihood"].where(finite), plan),
    ]
    for name in parameter_columns(plan.n_components):
        error = (fits[name] - truths[name].reindex(fits.index, level="position")).where(finite)
        parts += [truths[name].rename(f"true_{name}"), accuracy(error, name)]
    table = pd.concat(parts, axis=1)
    counts = [column for column in table.columns if column.startswith("n_")]
    counts = [column for column in counts if not column.startswith("n_iter")]
    table[counts] = table[counts].fillna(0).astype("int64")  # a cell without a fit
    return table.reset_index(drop=True)


def derived(fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return what a fit is beside the other fits of its replicate, one row per fit in plan order.

    `cell`, `replicate`, `start`, `fit_id`, and the columns of `references`.
    """
    fits = _in_plan_order(fits, plan)
    names = fits[["cell", "replicate", "start", "fit_id"]]
    return pd.concat([names, references(fits, plan)], axis=1).reset_index(drop=True)


def outcome_counts(fits: pd.DataFrame) -> pd.DataFrame:
    """Return the number of fits and the number of every outcome, per cell; 0 where none."""
    flags = {"n_fits": pd.Series(True, fits.index)}
    flags |= {f"n_{outcome}": fits["outcome"] == outcome for outcome in OUTCOMES}
    return pd.DataFrame(flags).groupby(level="position").sum()


def convergence_share(outcome: pd.Series) -> pd.DataFrame:
    """Return the share p of converged fits, per cell.

    With p_r the share among the starts of replicate r, MCSE = sqrt(sum_r (p_r - p)^2) / R, which
    for one start is the binomial sqrt(p (1 - p) / R) of a coverage in Table 6.
    """
    return _share(outcome == "converged", "converged_share")


def reference_share(beside: pd.DataFrame) -> pd.DataFrame:
    """Return the number of near-singular fits, and the share that reached the reference, per cell.

    The share and its MCSE are made as in `convergence_share`. The reference is taken for given:
    that it is itself the best of these fits is no part of the error.
    """
    shares = _share(beside["reached_reference"], "reached_reference_share")
    near_singular = beside["near_singular"].groupby(level="position").sum()
    return pd.concat([near_singular.rename("n_near_singular"), shares], axis=1)


def _share(flags: pd.Series, name: str) -> pd.DataFrame:
    mean, error = _mean_and_mcse(_replicate_means(flags.astype(float)), ddof=0)
    return pd.DataFrame({name: mean, f"{name}_mcse": error})


def iterations(n_iter: pd.Series) -> pd.DataFrame:
    """Return median, 0.1 and 0.9 quantile of the iterations over all fits, per cell.

    A fit that was cut off counts with the iterations it ran: leaving it out would make a hard cell
    look easy. Quantiles interpolate linearly between order statistics.
    """
    quantiles = n_iter.astype(float).groupby(level="position").quantile(np.array([0.5, 0.1, 0.9]))
    names = {0.5: "n_iter_median", 0.1: "n_iter_q10", 0.9: "n_iter_q90"}
    return quantiles.unstack()[list(names)].rename(columns=names)


def final_log_likelihood(log_likelihood: pd.Series, plan: Plan) -> pd.DataFrame:
    """Return the mean final log-likelihood per cell, of the sample and per observation.

    MCSE = sd(L_r) / sqrt(R), with L_r the mean over the finite starts of replicate r.
    """
    mean, error = _mean_and_mcse(_replicate_means(log_likelihood))
    columns = {"log_likelihood_mean": mean, "log_likelihood_mean_mcse": error}
    # The population's log-likelihood is for mass 1.
    sizes = pd.Series([1 if c.sample_size == math.inf else c.sample_size for c in plan.cells])
    columns |= {"mean_log_likelihood": mean / sizes, "mean_log_likelihood_mcse": error / sizes}
    return pd.DataFrame(columns)


def accuracy(error: pd.Series, name: str) -> pd.DataFrame:
    """Return bias and root mean squared error of one parameter, per cell.

    Parameters
    ----------
    error : Series
        Estimate minus truth of every fit, in the parameter's unit; missing where there is no
        finite estimate or no truth.
    name : str
        The parameter.

    Notes
    -----
    With e a fit's error and (.)_r the mean over the finite starts of replicate r:
    bias = mean((e)_r), MCSE sd((e)_r) / sqrt(R);
    MSE = mean((e^2)_r), MCSE sd((e^2)_r) / sqrt(R);
    RMSE = sqrt(MSE), MCSE by the delta method MCSE(MSE) / (2 RMSE), and 0 where every error is 0
    (a parameter that the model fixes at its true value).
    """
    bias, bias_error = _mean_and_mcse(_replicate_means(error))
    mse, mse_error = _mean_and_mcse(_replicate_means(error**2))
    rmse = np.sqrt(mse)
    return pd.DataFrame(
        {
            f"bias_{name}": bias,
            f"bias_{name}_mcse": bias_error,
            f"rmse_{name}": rmse,
            f"rmse_{name}_mcse": mse_error / (2.0 * rmse).where(rmse != 0.0, 1.0),
        }
    )


def gap_quantiles(
    traces: pd.DataFrame, iterations: np.ndarray, quantiles: Sequence[float] = (0.1, 0.5, 0.9)
) -> np.ndarray:
    """Return the quantiles over fits of the gap log L(last row) - log L(theta_t), per iteration t.

    A fit that has stopped stays at its last row (gap 0); an iteration that a thinned trace left
    out has the value of the last recorded one before it. Fits whose last log-likelihood is missing
    are left out.

    Parameters
    ----------
    traces
        One cell's rows: replicate, start, iteration, log_likelihood, sorted by these.
    iterations
        Shape (m,).

    Returns
    -------
    ndarray, shape (len(quantiles), m), in units of log-likelihood; empty of fits: nan.
    """
    fit = traces.groupby(["replicate", "start"], sort=False).ngroup().to_numpy()
    at = traces["iteration"].to_numpy()
    log_likelihood = traces["log_likelihood"].to_numpy(dtype=float)
    if not len(fit):
        return np.full((len(quantiles), len(iterations)), np.nan)
    last_row = np.flatnonzero(np.append(np.diff(fit) != 0, True))
    # One sorted key for (fit, iteration), so that one search serves every fit.
    stride = max(int(at.max()), int(np.max(iterations))) + 1
    wanted = np.arange(len(last_row))[:, None] * stride + np.asarray(iterations)
    rows = np.searchsorted(fit * stride + at, wanted, side="right") - 1
    gaps = log_likelihood[last_row][:, None] - log_likelihood[rows]
    gaps = gaps[np.isfinite(gaps).all(axis=1)]
    if not len(gaps):
        return np.full((len(quantiles), len(iterations)), np.nan)
    return np.quantile(gaps, quantiles, axis=0)


def true_parameters(plan: Plan) -> pd.DataFrame:
    """Return the true parameters per cell; missing unless the truth has the model's size."""
    rows = []
    for cell in plan.cells:
        truth = plan.truth(cell)
        row = {}
        if truth is not None and len(truth.means) == cell.n_components:
            values = np.concatenate([truth.weights, truth.means, truth.scales])
            row = dict(zip(parameter_columns(cell.n_components), values.tolist(), strict=True))
        rows.append(row)
    return pd.DataFrame(rows, columns=parameter_columns(plan.n_components), dtype=float)


def _cells(plan: Plan) -> pd.DataFrame:
    labels = {name: [getattr(cell, name) for cell in plan.cells] for name in LABELS}
    table = pd.DataFrame({"cell": [cell.id for cell in plan.cells], **labels})
    texts = table.columns.drop("sample_size")
    table = table.astype({name: "str" for name in texts})
    for name in ("replicates", "starts"):
        table[name] = [getattr(cell, name) for cell in plan.cells]
    return table


def _in_plan_order(fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Sort the fits, so that sums do not depend on the order of rows, and add their position."""
    code, names = pd.factorize(fits["cell"])
    position = pd.Index([cell.id for cell in plan.cells]).get_indexer(names)[code]
    if (position < 0).any():
        raise ValueError(f"cell: got {fits['cell'][position < 0].iloc[0]!r}, which no plan has")
    order = np.lexsort((fits["start"], fits["replicate"], position))
    return fits.assign(position=position).iloc[order]


def _finite(fits: pd.DataFrame, plan: Plan) -> pd.Series:
    """Tell for every fit whether its log-likelihood and all its model's parameters are finite."""
    n_components = np.array([cell.n_components for cell in plan.cells])
    n_components = n_components[fits.index.get_level_values("position")]
    finite = np.isfinite(fits["log_likelihood"].to_numpy(float))
    for name in parameter_columns(plan.n_components):
        absent = int(name.rpartition("_")[2]) >= n_components
        finite &= absent | np.isfinite(fits[name].to_numpy(float))
    return pd.Series(finite, fits.index)


def _replicate_means(values: pd.Series) -> pd.Series:
    """Return the mean over the starts of every replicate, leaving out what is missing."""
    if values.index.is_unique:
        return values  # one start each
    return values.groupby(level=REPLICATE).mean()


def _mean_and_mcse(values: pd.Series, ddof: int = 1) -> tuple[pd.Series, pd.Series]:
    """Return mean and sd / sqrt(R) over the replicates of every cell; no error from R < 2."""
    by_cell = values.groupby(level="position")
    count = by_cell.count()
    return by_cell.mean(), (by_cell.std(ddof=ddof) / np.sqrt(count)).where(count > 1)
