"""Scaling laws: the slope of log(statistic) on log(factor) over the cells of a study."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from pipeline.checks.grid import CELL_KEYS
from pipeline.plan import Plan, matches
from pipeline.statistics.intervals import LEVEL
from pipeline.statistics.replicates import ROUNDING
from pipeline.tables import LABELS

COLUMNS = ("slope", "slope_se", "intercept", "factor_low", "factor_high")
LACK_OF_FIT = ("n_points", "n_left_out", "chi_square", "degrees_of_freedom")
# The labels that a factor is a property of: cells that differ in them are points of one line.
VARIES = {"sample_size": ("sample_size",), "n_components": ("model",), "separation": ("mixture",)}


def separation(plan: Plan) -> np.ndarray:
    """Return the smallest distance between two components of each cell's truth, (cells,).

    |m_j - m_k| / sqrt((s_j^2 + s_k^2) / 2): means m apart in scales s. Missing without a truth, or
    with one component.
    """
    distances = []
    for cell in plan.cells:
        truth = plan.truth(cell)
        if truth is None or len(truth.means) < 2:
            distances.append(np.nan)
            continue
        j, k = np.triu_indices(len(truth.means), 1)
        spread = np.sqrt((truth.scales[j] ** 2 + truth.scales[k] ** 2) / 2.0)
        distances.append(float(np.min(np.abs(truth.means[j] - truth.means[k]) / spread)))
    return np.array(distances, float)


def factor_values(table: pd.DataFrame, plan: Plan, factor: str) -> np.ndarray:
    """Return a numeric property of every cell: shape (cells,), nan where there is none."""
    if factor == "separation":
        return separation(plan)
    if factor == "n_components":
        return np.array([cell.n_components for cell in plan.cells], float)
    return table[factor].to_numpy(float)


def groups(table: pd.DataFrame, plan: Plan, slope: dict[str, Any]) -> list[np.ndarray]:
    """Return the positions of the cells of each line, in plan order of their first cells.

    Cells that `where` matches, together when they agree in the labels `by`. By default these are
    all but the ones that the factor is a property of (`VARIES`). A cell whose factor is infinite,
    as a population's size is, lies on no line.
    """
    by = slope["by"]
    if by is None:
        varies = VARIES.get(slope["factor"], ())
        by = [label for label in CELL_KEYS if label not in varies]
    infinite = np.isinf(factor_values(table, plan, slope["factor"]))
    together: dict[tuple, list[int]] = {}
    for position, cell in enumerate(plan.cells):
        if matches(cell, slope["where"]) and not infinite[position]:
            together.setdefault(tuple(getattr(cell, label) for label in by), []).append(position)
    return [np.array(positions) for positions in together.values()]


def shared_labels(plan: Plan, positions: np.ndarray) -> dict[str, Any]:
    """Return the labels in which cells agree; None for the others."""
    cells = [plan.cells[position] for position in positions]
    values = {label: {getattr(cell, label) for cell in cells} for label in LABELS}
    return {label: value.pop() if len(value) == 1 else None for label, value in values.items()}


class LinePoints(NamedTuple):
    """The points of a line that have logarithms, m of c cells.

    Attributes
    ----------
    used
        Which of the cells, shape (c,).
    factor, value
        Shape (m,); a statistic that is negative throughout is turned round.
    error
        Standard errors of the logarithms of `value`, shape (m,).
    error_from
        As in `slopes.parquet`.
    """

    used: np.ndarray
    factor: np.ndarray
    value: np.ndarray
    error: np.ndarray
    error_from: str


def line_points(
    table: pd.DataFrame, plan: Plan, slope: dict[str, Any], positions: np.ndarray
) -> LinePoints:
    """Return the points of the line through these cells, leaving out what has no logarithm."""
    factor = factor_values(table, plan, slope["factor"])[positions]
    value = table[slope["statistic"]].to_numpy(float)[positions]
    error, error_from = log_errors(table, slope["statistic"])
    error = error[positions]
    if (value[np.isfinite(value)] < 0.0).all():
        value = -value  # a bias may be negative throughout: its size is what scales
    used = np.isfinite(value) & (value > 0.0) & np.isfinite(factor) & (factor > 0.0)
    factor, value, error = factor[used], value[used], error[used]
    if not (error > 0.0).all():
        error_from = "scatter"
    return LinePoints(used, factor, value, error, error_from)


def weights(error: np.ndarray) -> np.ndarray:
    """Return what points with these standard errors weigh in a fit, both of shape (m,)."""
    return 1.0 / error**2 if (error > 0.0).all() else np.ones(len(error))


def fit_line(
    x: np.ndarray, y: np.ndarray, error: np.ndarray, sample: np.ndarray
) -> dict[str, float]:
    """Fit y = intercept + slope x by least squares.

    Parameters
    ----------
    x, y : shape (m,)
    error : shape (m,)
        Standard errors of y. Unless all are positive the points weigh the same.
    sample : shape (m,), int
        Points with the same number share their samples.

    Returns
    -------
    dict
        `slope`, `slope_se`, `intercept`, `chi_square`, `degrees_of_freedom`; missing where the
        points do not tell.

    Notes
    -----
    With weights w = 1 / error^2, slope = sum a y, a = w (x - mean(x)) / sum w (x - mean(x))^2. Its
    variance is at most sum_s (sum_(i in s) |a_i| error_i)^2 over samples s, however the points
    of a sample depend on each other; 1 / sum w (x - mean(x))^2 where no two share one. Where
    chi^2 = sum w residual^2 exceeds its m - 2 degrees of freedom, the standard error is multiplied
    by the Birge ratio sqrt(chi^2 / (m - 2)): the points do not lie on a line to within their
    errors (Birge 1932, Physical Review 40, 207-227; Particle Data Group, Review of Particle
    Physics, 5.2.2, its scale factor). Without errors the scatter about the line gives the standard
    error, with m - 2 degrees of freedom. Residuals that are rounding errors of logarithms are 0.
    """
    freedom = max(len(x) - 2, 0)
    line = {name: np.nan for name in ("slope", "slope_se", "intercept", "chi_square")}
    if len(np.unique(x)) < 2:
        return line | {"degrees_of_freedom": freedom}
    weighted = bool((error > 0.0).all())
    weight = weights(error)
    centred = x - np.average(x, weights=weight)
    share = weight * centred / np.sum(weight * centred**2)
    slope = np.sum(share * y)
    residual = y - np.average(y, weights=weight) - slope * centred
    size = max(1.0, np.abs(y).max()) + abs(slope) * max(1.0, np.abs(x).max())
    if (np.abs(residual) <= ROUNDING * size).all():
        residual[:] = 0.0
    line["slope"] = slope
    line["intercept"] = np.average(y - slope * x, weights=weight)
    if weighted:
        chi_square = np.sum(weight * residual**2)
        bound = np.bincount(sample, np.abs(share) * error)
        line["slope_se"] = np.sqrt(np.sum(bound**2))
        line["chi_square"] = chi_square if freedom else np.nan
        if freedom:
            line["slope_se"] *= np.sqrt(max(1.0, chi_square / freedom))
    elif freedom:
        line["slope_se"] = np.sqrt(np.sum(residual**2) / freedom * np.sum(share**2))
    return {name: float(value) for name, value in line.items()} | {"degrees_of_freedom": freedom}


def log_errors(table: pd.DataFrame, statistic: str) -> tuple[np.ndarray, str]:
    """Return the standard errors of the logarithms of a statistic, (cells,), and their origin.

    * `mcse`: MCSE / |value|, the delta method.
    * `interval`: of a quantile, which has an interval but no MCSE, log(high / low) / (2 z), z the
      normal quantile of the interval's level: an interval of a quantile is carried over to
      the logarithm as it is. McKean & Schrader (1984), "A comparison of methods for studentizing
      the sample median", Communications in Statistics: Simulation and Computation 13, 751-773.
      Missing where an end is: 0, infinite or unknown.
    * `scatter`: there are neither.
    """
    if (name := f"{statistic}_mcse") in table:
        with np.errstate(divide="ignore", invalid="ignore"):  # of what has no logarithm
            return table[name].to_numpy(float) / np.abs(table[statistic].to_numpy(float)), "mcse"
    if {f"{statistic}_low", f"{statistic}_high"} <= set(table):
        low, high = (table[f"{statistic}_{end}"].to_numpy(float) for end in ("low", "high"))
        known = (low > 0.0) & np.isfinite(high)
        ratio = np.where(known, high, np.nan) / np.where(known, low, 1.0)
        return np.log(ratio) / (2.0 * ndtri((1.0 + LEVEL) / 2.0)), "interval"
    return np.full(len(table), np.nan), "scatter"


def slopes(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return the slopes that the experiment asks for, one row per slope and combination of labels.

    Parameters
    ----------
    table : DataFrame
        What `convergence` gave for the plan.
    plan : Plan
        With `slopes` in its config.

    Returns
    -------
    DataFrame
        The columns that `docs/statistics.md` explains.
    """
    rows = []
    for slope in plan.config["slopes"]:
        for positions in groups(table, plan, slope):
            head = {key: slope[key] for key in ("name", "statistic", "factor")}
            rows.append(
                head | shared_labels(plan, positions) | _fitted(table, plan, slope, positions)
            )
    texts = ["name", "statistic", "factor", "error_from"]
    texts += [*(name for name in LABELS if name != "sample_size")]
    result = pd.DataFrame(
        rows,
        columns=["name", "statistic", "factor", *LABELS, *COLUMNS, *LACK_OF_FIT, "error_from"],
    )
    integers = ("n_points", "n_left_out", "degrees_of_freedom")
    kinds = {name: "str" if name in texts else "float64" for name in result.columns}
    return result.astype(kinds | {name: "int64" for name in integers})


def _fitted(
    table: pd.DataFrame, plan: Plan, slope: dict[str, Any], positions: np.ndarray
) -> dict[str, Any]:
    """Fit one line through its cells, leaving out what has no logarithm."""
    used, factor, value, error, error_from = line_points(table, plan, slope, positions)
    keys = {data.id: data.key for data in plan.data_sets}  # two names may mean the same samples
    sample = [keys[plan.cells[position].data_set] for position in positions[used]]
    line = fit_line(np.log(factor), np.log(value), error, pd.factorize(np.array(sample))[0])
    return line | {
        "error_from": error_from,
        "factor_low": float(factor.min()) if len(factor) else np.nan,
        "factor_high": float(factor.max()) if len(factor) else np.nan,
        "n_points": len(factor),
        "n_left_out": int(len(used) - used.sum()),
    }
