"""Performance measures of the estimates, with their Monte-Carlo standard errors (MCSE).

Morris, White & Crowther (2019), "Using simulation studies to evaluate statistical methods",
Statistics in Medicine 38(11), 2074-2102, Table 6, which has neither the RMSE nor the relative bias.
Its repetition is the replicate here: with one start each the formulas are those of the table; with
several, their values are means over the starts of a replicate, and the replicates stay independent.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.checks import MEASURES
from pipeline.core.distances import Distances
from pipeline.core.outcomes import WITH_ESTIMATE
from pipeline.plan import Plan
from pipeline.statistics.replicates import (
    Layout,
    Moments,
    counts_of,
    layout_of,
    mean_and_error,
    means_of_starts,
    moments,
    same,
    standard_error,
)
from pipeline.tables import measure_columns, parameter_columns

# Between the fitted and the true density; they need no matching of components.
DISTANCES = Distances._fields
NORMAL_QUANTILE = 1.959963984540054  # of 0.975: half the width of a Wald interval, in its SE
CONVERGED = "_converged"  # ends the name of what is over converged fits alone
# Outcomes of fits whose likelihood nothing has driven out of bounds.
BOUNDED = tuple(outcome.name.lower() for outcome in WITH_ESTIMATE)

Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Estimate(NamedTuple):
    """A performance measure and its MCSE, both per cell (C,)."""

    value: Reals
    mcse: Reals


def optional_columns(n_components: int) -> list[str]:
    """Return the columns of fits that give measures where a study has them."""
    return [name for measure in MEASURES for name in measure_columns(measure, n_components)]


def performance(fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return the counts and the measures of every cell that has fits, by its place in the plan.

    Parameters
    ----------
    fits : DataFrame
        In plan order with `position`, the columns of `fit_columns(plan)` and, where the study has
        them, Wald standard errors (`se_<parameter>`) and distances.
    plan : Plan

    Returns
    -------
    DataFrame
        Counts first; then of each parameter, and of the distances, the measures over all fits with
        a finite estimate, and over the converged ones among them (names that end in `_converged`).
    """
    layout = layout_of(fits["position"].to_numpy(), fits["replicate"].to_numpy())
    finite = finite_fits(fits, plan)
    converged = (fits["outcome"] == "converged").to_numpy()
    wald = with_standard_errors(fits, plan, finite, layout)
    measured = with_distances(fits, finite)
    bases = {"": np.ones(len(fits), bool), CONVERGED: converged}
    columns: dict[str, NDArray] = {}
    for end, among in bases.items():
        columns |= _counts(end, finite & among, ~finite & among, layout)
    matched = fits["relabelled"].isin([True]).to_numpy()
    columns["n_relabelled"] = counts_of(matched, layout)
    for name, counted in (("wald", wald), ("distances", measured)):
        if counted is None:
            continue
        for end, among in bases.items():
            columns[f"n_{name}{end}"] = counts_of(counted & among, layout)
            columns[f"n_{name}_missing{end}"] = counts_of(finite & ~counted & among, layout)
            columns[f"replicates_{name}{end}"] = _replicates_with(counted & among, layout)
    truths = true_parameters(plan)
    for name in truths.columns:
        truth = truths[name].to_numpy()[layout.position]
        error = fits[name].to_numpy(float) - truth[layout.cell][layout.replicate]
        for end, among in bases.items():
            found = accuracy(np.where(finite & among, error, np.nan), truth, layout)
            columns |= _named(found, f"_{name}{end}")
            if wald is not None:
                half = fits[f"se_{name}"].to_numpy(float)
                found = intervals(np.where(wald & among, error, np.nan), half, layout)
                columns |= _named(found, f"_{name}{end}")
    if measured is not None:
        for name in DISTANCES:
            for end, among in bases.items():
                values = np.where(measured & among, fits[name].to_numpy(float), np.nan)
                columns |= _named({name: Estimate(*mean_and_error(values, layout))}, end)
    return pd.DataFrame(columns, index=pd.Index(layout.position, name="position"))


def _counts(end: str, there: Flags, missing: Flags, layout: Layout) -> dict[str, NDArray]:
    return {
        f"n_finite{end}": counts_of(there, layout),
        f"n_missing{end}": counts_of(missing, layout),
        f"replicates_finite{end}": _replicates_with(there, layout),
    }


def _replicates_with(there: Flags, layout: Layout) -> NDArray[np.int64]:
    """Return the number of a cell's replicates that have a fit whose flag is set, (C,)."""
    replicates = np.logical_or.reduceat(there, layout.first_fit).astype(np.int64)
    return np.add.reduceat(replicates, layout.first_replicate)


def _named(measures: dict[str, Estimate], end: str) -> dict[str, Reals]:
    pairs = [(f"{name}{end}", estimate) for name, estimate in measures.items()]
    return {
        column: part
        for name, estimate in pairs
        for column, part in zip((name, f"{name}_mcse"), estimate, strict=True)
    }


def accuracy(error: Reals, truth: Reals, layout: Layout) -> dict[str, Estimate]:
    """Return bias, relative bias, empirical SE, MSE and RMSE of one parameter.

    Parameters
    ----------
    error : shape (F,)
        Estimate minus truth, in the parameter's unit; missing for a fit that does not count and
        where there is no truth.
    truth : shape (C,)
    layout : Layout

    Notes
    -----
    With e a fit's error, (.)_r a mean over the starts of replicate r that count, and R the number
    of replicates that have one:

    * bias = mean((e)_r), MCSE sd((e)_r) / sqrt(R); relative bias: both over the truth, missing
      where that is 0.
    * MSE = mean((e^2)_r), MCSE sd((e^2)_r) / sqrt(R). RMSE = sqrt(MSE), by the delta method with
      MCSE(MSE) / (2 RMSE).
    * empirical SE = sqrt(B + W), the standard deviation of a single fit's estimate: B =
      sd((e)_r)^2 between replicates, W = mean(w_r) within, w_r = ((e - (e)_r)^2)_r. Normal means
      (e)_r give B the standard error b = B sqrt(2 / (R - 1)), W has w = sd(w_r) / sqrt(R), and
      with c the correlation of ((e)_r - bias)^2 and w_r, MCSE = sqrt(b^2 + 2 c b w + w^2) /
      (2 SE). One start: W = 0 and the table's SE / sqrt(2 (R - 1)).

    Where estimates differ by rounding errors at most (a parameter that the model fixes) the MCSEs
    and the empirical SE are 0.
    """
    equal, value = same(error, layout.first_fit[layout.first_replicate], np.abs(truth))
    if equal.any():
        of_fit = layout.cell[layout.replicate]
        error = np.where(equal[of_fit] & ~np.isnan(error), value[of_fit], error)
    with np.errstate(over="ignore", invalid="ignore"):
        means = means_of_starts(error, layout)
        squares = means_of_starts(error**2, layout)
        alone = len(means) == len(error)
        within = None if alone else means_of_starts((error - means[layout.replicate]) ** 2, layout)
    bias, mse = moments(means, layout), moments(squares, layout)
    bias_error, mse_error = standard_error(bias), standard_error(mse)
    scale = np.where(truth == 0.0, np.nan, truth)
    rmse = np.sqrt(mse.mean)
    return {
        "bias": Estimate(bias.mean, bias_error),
        "relative_bias": Estimate(bias.mean / scale, bias_error / np.abs(scale)),
        "empirical_se": _empirical_se(bias, means, within, layout),
        "mse": Estimate(mse.mean, mse_error),
        "rmse": Estimate(rmse, _of_root(rmse, mse_error)),
    }


def _of_root(root: Reals, error_of_square: Reals) -> Reals:
    """Return the standard error of a square root by the delta method; that of a sure 0 is 0."""
    return error_of_square / np.where(root == 0.0, 1.0, 2.0 * root)


def _empirical_se(between: Moments, means: Reals, within: Reals | None, layout: Layout) -> Estimate:
    """Return it from the moments of `means` and the variances `within`, None of one start each."""
    count = np.where(between.number > 1, between.number, np.nan)
    variance = between.squares / (count - 1)
    with np.errstate(over="ignore", invalid="ignore"):
        of_between = variance * np.sqrt(2.0 / (count - 1))
        error = of_between
        if within is not None:
            inside = moments(within, layout)
            deviations = (means - between.mean[layout.cell]) ** 2
            spread = moments(deviations, layout)
            product = (deviations - spread.mean[layout.cell]) * (within - inside.mean[layout.cell])
            together = np.nan_to_num(product, nan=0.0, posinf=np.inf, neginf=-np.inf)
            shared = np.add.reduceat(together, layout.first_replicate)
            sizes = np.sqrt(spread.squares) * np.sqrt(inside.squares)
            correlation = shared / np.where(sizes > 0.0, sizes, np.inf)
            of_within = standard_error(inside)
            error = np.sqrt(error**2 + 2.0 * correlation * error * of_within + of_within**2)
            variance = variance + inside.mean
    value = np.sqrt(variance)
    return Estimate(value, _of_root(value, error))


def intervals(error: Reals, wald_se: Reals, layout: Layout) -> dict[str, Estimate]:
    """Return the model SE and the coverages of Wald intervals of one parameter.

    Parameters
    ----------
    error : shape (F,)
        Estimate minus truth; missing for a fit that does not count.
    wald_se : shape (F,)
        Its standard error on the natural scale; the interval is estimate ± 1.959964 of it.
    layout : Layout

    Notes
    -----
    * coverage = mean((1{|e| <= 1.959964 SE})_r), MCSE sqrt(sum_r (p_r - p)^2) / R, for one start
      the binomial sqrt(p (1 - p) / R).
    * bias-eliminated coverage: the same with the mean estimate of these fits in the truth's place,
      which is taken for given.
    * model SE = sqrt(mean((SE^2)_r)), MCSE sd((SE^2)_r) / (2 sqrt(R) model SE).
    """
    there = ~(np.isnan(error) | np.isnan(wald_se))
    centre = moments(means_of_starts(np.where(there, error, np.nan), layout), layout).mean
    half = NORMAL_QUANTILE * wald_se

    def share(distance: Reals) -> Estimate:
        covered = np.where(there, (np.abs(distance) <= half).astype(float), np.nan)
        return Estimate(*mean_and_error(covered, layout, ddof=0))

    variance, variance_error = mean_and_error(np.where(there, wald_se**2, np.nan), layout)
    root = np.sqrt(variance)
    return {
        "model_se": Estimate(root, _of_root(root, variance_error)),
        "coverage": share(error),
        "coverage_bias_eliminated": share(error - centre[layout.cell][layout.replicate]),
    }


def finite_fits(fits: pd.DataFrame, plan: Plan) -> Flags:
    """Tell for every fit whether its log-likelihood and all its model's parameters are finite."""
    n_components = np.array([cell.n_components for cell in plan.cells])[fits["position"]]
    finite = np.isfinite(fits["log_likelihood"].to_numpy(float))
    for name in parameter_columns(plan.n_components):
        absent = int(name.rpartition("_")[2]) >= n_components
        finite &= absent | np.isfinite(fits[name].to_numpy(float))
    return finite


def with_standard_errors(
    fits: pd.DataFrame, plan: Plan, finite: Flags, layout: Layout
) -> Flags | None:
    """Tell which fits have a Wald SE of every parameter that any fit of their cell has one of.

    None where the study has no such columns. A parameter that the model fixes has no SE in any fit.
    """
    names = [f"se_{name}" for name in parameter_columns(plan.n_components)]
    if not set(names) <= set(fits.columns):
        return None
    every, some = finite.copy(), np.zeros(len(fits), bool)
    for name in names:
        has = finite & np.isfinite(fits[name].to_numpy(float))
        estimated = (counts_of(has, layout) > 0)[layout.cell][layout.replicate]
        every &= has | ~estimated
        some |= has
    return every & some


def with_distances(fits: pd.DataFrame, finite: Flags) -> Flags | None:
    """Tell which fits have all distances; None where the study has no such columns."""
    if not set(DISTANCES) <= set(fits.columns):
        return None
    return finite & np.isfinite(fits[list(DISTANCES)].to_numpy(float)).all(axis=1)


def true_parameters(plan: Plan) -> pd.DataFrame:
    """Return the true parameters per cell; missing unless the truth has the model's size."""
    return pd.DataFrame(
        list(_truths(plan)), columns=parameter_columns(plan.n_components), dtype=float
    )


def _truths(plan: Plan) -> Iterator[dict[str, float]]:
    for cell in plan.cells:
        truth = plan.truth(cell)
        if truth is None or len(truth.means) != cell.n_components:
            yield {}
            continue
        values = np.concatenate([truth.weights, truth.means, truth.scales])
        yield dict(zip(parameter_columns(cell.n_components), values.tolist(), strict=True))
