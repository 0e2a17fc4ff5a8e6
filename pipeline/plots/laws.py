"""Fitted scaling laws, together with the points that they were fitted to."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.plan import Cell, Plan, matches
from pipeline.statistics.slopes import factor_values
from pipeline.statistics.slopes import groups as lines_of
from pipeline.tables import LABELS


class Law(NamedTuple):
    """A row of `slopes`, the cells behind it, and their points.

    Attributes
    ----------
    name, statistic, factor
        As configured; the statistic has a minus in front where it is negative throughout.
    labels
        Those in which the cells agree: None for the others.
    cells
        By factor.
    x, y, low, high
        Factor, statistic, and the ends of its bar: one MCSE on either side, or the interval that
        `convergence` has in its place, or none (nan); each of shape (cells,).
    slope, slope_se, intercept
        Of log(y) on log(x), natural logarithms.
    factor_low, factor_high
        Range of the points that were used.
    expected
        The slope that a claim of the experiment predicts; None without one.
    """

    name: str
    statistic: str
    factor: str
    labels: dict[str, Any]
    cells: tuple[Cell, ...]
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    slope: float
    slope_se: float
    intercept: float
    factor_low: float
    factor_high: float
    expected: float | None

    def line(self, x: np.ndarray) -> np.ndarray:
        """Return the fitted line at `x`, of the same shape."""
        return np.exp(self.intercept + self.slope * np.log(x))


def laws(plan: Plan, convergence: pd.DataFrame, slopes: pd.DataFrame) -> list[Law]:
    """Return the lines that were fitted, without those that had too few points.

    Parameters
    ----------
    plan : Plan
        With `slopes` and `claims` in its config.
    convergence, slopes : DataFrame
        What `aggregate` made for this plan: its slopes are in the order of the configuration.
    """
    table = convergence.set_index("cell").loc[[cell.id for cell in plan.cells]].reset_index()
    asked = [
        positions for slope in plan.config["slopes"] for positions in lines_of(table, plan, slope)
    ]
    found = []
    for row, positions in zip(slopes.to_dict("records"), asked, strict=True):
        if np.isfinite(row["slope"]):
            found.append(_law(plan, table, row, positions))
    return found


def _law(plan: Plan, table: pd.DataFrame, row: dict[str, Any], positions: np.ndarray) -> Law:
    x = factor_values(table, plan, row["factor"])[positions]
    positions, x = positions[np.argsort(x, kind="stable")], np.sort(x, kind="stable")
    cells = tuple(plan.cells[position] for position in positions)
    statistic = row["statistic"]
    y, low, high = (values[positions] for values in statistic_bars(table, statistic))
    name = statistic
    if (y[np.isfinite(y)] < 0.0).all():
        name, y, low, high = f"\N{MINUS SIGN}{statistic}", -y, -high, -low
    return Law(
        name=row["name"],
        statistic=name,
        factor=row["factor"],
        labels={key: None if pd.isna(row[key]) else row[key] for key in LABELS},
        cells=cells,
        x=x,
        y=y,
        low=low,
        high=high,
        **{
            key: float(row[key])
            for key in ("slope", "slope_se", "intercept", "factor_low", "factor_high")
        },
        expected=_expected(plan, row["name"], cells),
    )


def statistic_bars(
    table: pd.DataFrame, statistic: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a statistic of every cell and the ends of its bar, each of shape (cells,)."""
    y = table[statistic].to_numpy(dtype=float)
    if f"{statistic}_mcse" in table:
        error = table[f"{statistic}_mcse"].to_numpy(dtype=float)
        return y, y - error, y + error
    if f"{statistic}_low" in table:
        ends = (table[f"{statistic}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        return y, *ends
    missing = np.full(len(y), np.nan)
    return y, missing, missing


def _expected(plan: Plan, name: str, cells: tuple[Cell, ...]) -> float | None:
    """Return what the first claim about a slope expects of the line through these cells."""
    for claim in plan.config["claims"]:
        about = claim["slope"] == name and claim["expected"] is not None
        if about and all(matches(cell, claim["where"]) for cell in cells):
            return float(claim["expected"])
    return None
