"""Evidence: what a cell or a slope tells about a statistic, as an interval or a reason for none."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.console import counted
from pipeline.core.mixture import mixture_standard_deviation
from pipeline.core.starts import INITS
from pipeline.plan import Cell, Plan
from pipeline.statistics import strict_intervals as intervals
from pipeline.statistics.intervals import wilson
from pipeline.statistics.measures import DISTANCES
from pipeline.statistics.sizes import COUNTED, fits_behind, is_share

# Statistics that are never negative, and skewed.
POSITIVE = ("rmse_", "mse_", "empirical_se_", "model_se_", *DISTANCES)
# The numerical error is of first order, in another norm, and of the parameters: a factor for that.
NUMERICAL_MARGIN = 100.0
REACHED = "reached_reference_share"
# Through two points there is always a line.
FEWEST_POINTS = 3


class Interval(NamedTuple):
    """What a cell or a slope tells: the estimate, its interval, and why there is none."""

    estimate: float
    mcse: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: float = math.nan
    reason: str = ""
    exact: tuple[float, float] = (math.nan, math.nan)  # of a share, that the verdict needs too


def _missing(row: pd.Series, cell: Cell, claim: dict[str, Any], statistic: str) -> str:
    """Return the objection that fits without a value make, if they are more than allowed.

    A fit whose reference comes from its own starting point alone may have reached it for want of
    another: no share of such fits is a lack that could be allowed.
    """
    planned = cell.replicates * cell.starts
    if statistic == REACHED and (lone := int(row["n_lone_reference"])):
        return f"{lone} of {planned} fits have a reference from one starting point in {cell.id}"
    missing = planned - int(row[fits_behind(statistic)])
    if missing <= claim["allowed_missing"] * planned:
        return ""
    return f"{missing} of {planned} fits have no value in {cell.id}; allowed_missing accepts more"


def cell_interval(
    row: pd.Series, cell: Cell, claim: dict[str, Any], plan: Plan, level: float
) -> Interval:
    """Return the interval of a statistic of one cell."""
    statistic = claim["statistic"]
    value = float(row[statistic])
    if reason := _missing(row, cell, claim, statistic):
        return Interval(value, reason=reason)
    own = not math.isnan(float(row.get(f"{statistic}_low", math.nan)))
    if not math.isfinite(value) and not own:
        return Interval(value, reason="no finite value")
    mcse = float(row.get(f"{statistic}_mcse", math.nan))
    number = int(row[fits_behind(statistic)])
    # Starts of one replicate may depend on each other: at least this many replicates have a value.
    replicates = -(-number // cell.starts)
    if _deterministic(cell, plan):
        half = _numerical_half_width(row, cell, plan, statistic)
        if math.isnan(half):
            return Interval(value, mcse, n=1.0, reason="not known how far from a fixed point")
        return Interval(value, mcse, value - half, value + half, 1.0)
    if is_share(statistic):
        # The only data set there is: its starts are the independent trials.
        units = number if _one_of_a_kind(cell) else replicates
        n = intervals.effective_number(value, mcse, units, number, level)
        low, high = (float(end) for end in wilson(value, n, level))
        exact = intervals.clopper_pearson(value, n, level)
        return Interval(value, mcse, low, high, n, exact=exact)
    if replicates < intervals.FEWEST_REPLICATES:
        few = f"{counted(replicates, 'replicate')}; allowed: at least {intervals.FEWEST_REPLICATES}"
        return Interval(value, mcse, n=float(replicates), reason=few)
    if own:
        return _from_table(row, statistic, value, mcse, replicates)
    if f"{statistic}_mcse" not in row:
        return Interval(value, n=float(replicates), reason="it has no standard error")
    if not mcse > 0.0:
        none = "its replicates do not differ, so its error is unknown"
        return Interval(value, mcse, n=float(replicates), reason=none)
    positive = statistic.startswith(POSITIVE) and value > 0.0
    interval = intervals.positive_interval if positive else intervals.mean_interval
    return Interval(value, mcse, *interval(value, mcse, replicates, level), float(replicates))


def _from_table(
    row: pd.Series, statistic: str, value: float, mcse: float, replicates: int
) -> Interval:
    """Return the interval that the table itself has, made at the level of the claims.

    A quantile that the budget ended before may be anywhere above what is known.
    """
    low, high = float(row[f"{statistic}_low"]), float(row[f"{statistic}_high"])
    high = math.inf if math.isnan(high) else high
    return Interval(value, mcse, low, high, float(replicates))


def _one_of_a_kind(cell: Cell) -> bool:
    """Tell whether a cell has one data set by design: a population, or observed data."""
    return cell.observed is not None or cell.sample_size == math.inf


def _deterministic(cell: Cell, plan: Plan) -> bool:
    """Tell whether nothing about a cell is random, so that its numbers have no sampling error."""
    init = INITS[plan.config["init"][cell.init]["method"]]
    return _one_of_a_kind(cell) and init.deterministic


def _numerical_half_width(row: pd.Series, cell: Cell, plan: Plan, statistic: str) -> float:
    """Return how far a number without sampling error may be from that of the exact fixed point."""
    if statistic.startswith(COUNTED) or is_share(statistic):
        return 0.0
    unit = 1.0
    truth = plan.truth(cell)
    if truth is not None and ("_mean_" in statistic or "_scale_" in statistic):
        unit = mixture_standard_deviation(truth)
    size = max(abs(float(row[statistic])), unit)
    return NUMERICAL_MARGIN * float(row["numerical_error"]) * size


def slope_interval(
    line: pd.Series,
    positions: np.ndarray,
    claim: dict[str, Any],
    table: pd.DataFrame,
    plan: Plan,
    level: float,
) -> Interval:
    """Return the interval of a fitted slope."""
    value, error = float(line["slope"]), float(line["slope_se"])
    if line["n_left_out"]:
        total = line["n_points"] + line["n_left_out"]
        return Interval(value, error, reason=f"{line['n_left_out']} of {total} points left out")
    if line["n_points"] < FEWEST_POINTS:
        few = f"{counted(line['n_points'], 'point')}; allowed: at least {FEWEST_POINTS}"
        return Interval(value, error, reason=few)
    statistic = line["statistic"]
    random = [place for place in positions if not _deterministic(plan.cells[place], plan)]
    replicates = math.inf
    for place in positions:
        if reason := _missing(table.loc[place], plan.cells[place], claim, statistic):
            return Interval(value, error, reason=reason)
    for place in random:
        behind = int(table.loc[place, fits_behind(statistic)])
        replicates = min(replicates, -(-behind // plan.cells[place].starts))
    if replicates < intervals.FEWEST_REPLICATES:
        number = counted(int(replicates), "replicate")
        few = f"{number} at a point; allowed: at least {intervals.FEWEST_REPLICATES}"
        return Interval(value, error, n=replicates, reason=few)
    if not error > 0.0:
        return Interval(value, error, n=replicates, reason="it has no standard error")
    # Errors that the scatter of the points gave are as uncertain as these are few.
    points = intervals.REPLICATES_PER_DEGREE * float(line["degrees_of_freedom"])
    behind_error = min(replicates, points) if math.isnan(line["chi_square"]) else replicates
    ends = intervals.mean_interval(value, error, behind_error, level)
    return Interval(value, error, *ends, replicates)
