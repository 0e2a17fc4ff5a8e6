"""Fitted scaling laws, together with the points that they were fitted to."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from pipeline.plan import Cell, Plan, matches
from pipeline.statistics.slopes import factor_values, line_points, weights
from pipeline.statistics.slopes import groups as lines_of
from pipeline.tables import LABELS

# A line misses its points where their scatter would be larger than chi^2 less often than this.
POOR = 1e-3


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
        Factor, statistic, and the ends of its bar (nan without one); each of shape (cells,).
    bars
        What these bars are, a key of `BARS`.
    slope, slope_se, intercept
        Of log(y) on log(x), natural logarithms.
    factor_low, factor_high
        Range of the points that were used.
    centre
        The factor at the weighted centroid of the logarithms, which the fitted line runs through.
    chi_square, degrees_of_freedom
        The lack of fit; nan where the points tell nothing of it.
    expected
        The slopes that claims of the experiment predict, without repetition.
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
    bars: str
    slope: float
    slope_se: float
    intercept: float
    factor_low: float
    factor_high: float
    centre: float
    chi_square: float
    degrees_of_freedom: float
    expected: tuple[float, ...]

    def line(self, x: np.ndarray) -> np.ndarray:
        """Return the fitted line at `x`, of the same shape."""
        return np.exp(self.intercept + self.slope * np.log(x))

    def predicted(self, x: np.ndarray, slope: float) -> np.ndarray:
        """Return the line of another slope through the centroid at `x`, of the same shape."""
        return self.line(np.array(self.centre)) * (x / self.centre) ** slope

    @property
    def poor(self) -> bool:
        """Whether the points do not lie on the line to within their errors."""
        freedom = self.degrees_of_freedom
        return freedom > 0 and bool(chdtrc(freedom, self.chi_square) < POOR)


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
        (slope, positions)
        for slope in plan.config["slopes"]
        for positions in lines_of(table, plan, slope)
    ]
    found = []
    for row, (slope, positions) in zip(slopes.to_dict("records"), asked, strict=True):
        if np.isfinite(row["slope"]):
            points = line_points(table, plan, slope, positions)
            weight = weights(points.error)
            centre = float(np.exp(np.average(np.log(points.factor), weights=weight)))
            found.append(_law(plan, table, row, positions, centre))
    return found


def _law(
    plan: Plan, table: pd.DataFrame, row: dict[str, Any], positions: np.ndarray, centre: float
) -> Law:
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
        bars=bar_kind(table, statistic),
        centre=centre,
        **{
            key: float(row[key])
            for key in (
                "slope",
                "slope_se",
                "intercept",
                "factor_low",
                "factor_high",
                "chi_square",
                "degrees_of_freedom",
            )
        },
        expected=_expected(plan, row["name"], cells),
    )


# What bars may be.
BARS = {"mcse": "± one Monte-Carlo standard error", "interval": "95 % interval", "": "no bars"}


def bar_kind(table: pd.DataFrame, statistic: str) -> str:
    """Return what the bars of a statistic are, a key of `BARS`."""
    if f"{statistic}_mcse" in table:
        return "mcse"
    return "interval" if f"{statistic}_low" in table else ""


def statistic_bars(
    table: pd.DataFrame, statistic: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a statistic of every cell and the ends of its bar, each of shape (cells,)."""
    y = table[statistic].to_numpy(dtype=float)
    kind = bar_kind(table, statistic)
    if kind == "mcse":
        error = table[f"{statistic}_mcse"].to_numpy(dtype=float)
        return y, y - error, y + error
    if kind == "interval":
        ends = (table[f"{statistic}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        return y, *ends
    missing = np.full(len(y), np.nan)
    return y, missing, missing


def _expected(plan: Plan, name: str, cells: tuple[Cell, ...]) -> tuple[float, ...]:
    """Return what the claims about a slope expect of the line through these cells."""
    found = []
    for claim in plan.config["claims"]:
        about = claim["slope"] == name and claim["expected"] is not None
        if about and all(matches(cell, claim["where"]) for cell in cells):
            found.append(float(claim["expected"]))
    return tuple(dict.fromkeys(found))
