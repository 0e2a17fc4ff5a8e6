"""Claims: what a source says, judged by confidence intervals of what the study measured.

An interval inside the claimed region supports a claim, one disjoint from it refutes it. Whatever
weakens the evidence - few replicates, fits without a value, no standard error - leaves a claim
inconclusive, so that less of a study never confirms more.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pipeline.checks.questions import REGION
from pipeline.checks.values import refuse
from pipeline.errors import InputError
from pipeline.plan import Plan, matches
from pipeline.statistics.cells import convergence, fit_columns
from pipeline.statistics.evidence import Interval, cell_interval, slope_interval
from pipeline.statistics.presentation import digits_apart
from pipeline.statistics.sizes import is_share
from pipeline.statistics.slopes import groups
from pipeline.tables import LABELS, fits_schema

DIGITS = 5  # significant ones of a sentence, where they tell an interval from the claimed region
VERDICTS = ("supported", "refuted", "inconclusive")


def known_statistics(plan: Plan) -> set[str]:
    """Return the numeric columns that `convergence` will have: it is asked with one made-up fit."""
    schema = fits_schema(plan.n_components, measures=plan.config["measures"])
    kinds = {field.name: str(field.type) for field in schema}
    row = {name: "" if kinds[name] == "string" else 1.0 for name in fit_columns(plan, kinds)}
    row |= {"cell": plan.cells[0].id, "outcome": "converged"}
    integers = {name: "int64" for name in row if kinds[name] == "int64"}
    table = convergence(pd.DataFrame([row]).astype(integers), plan)
    numeric = set(table.select_dtypes("number").columns) - {"sample_size"}
    return {name for name in numeric if not name.endswith("_mcse")}


def check(plan: Plan) -> None:
    """Refuse slopes and claims of what the study does not have, or no share can be.

    Raises
    ------
    InputError
        Naming the slope or claim.
    """
    asked = [("slopes", slope, "statistic") for slope in plan.config["slopes"]]
    asked += [("slopes", slope, "factor") for slope in plan.config["slopes"]]
    asked += [("claims", c, "statistic") for c in plan.config["claims"] if c["slope"] is None]
    if not asked:
        return
    known = known_statistics(plan)
    for key, entry, part in asked:
        factors = {"sample_size", "n_components", "separation"} if part == "factor" else set()
        if entry[part] not in known | factors:
            also = f"{', '.join(sorted(factors))}, or " if factors else ""
            raise InputError(
                f"{key}: {entry['name']}: {part}: got {entry[part]!r}; allowed: {also}"
                "a number that convergence.parquet has of this study"
            )
    for claim in plan.config["claims"]:
        _check_share(claim)
    sizes = pd.DataFrame({"sample_size": [cell.sample_size for cell in plan.cells]})
    sizes = sizes.reindex(columns=["sample_size", *known], fill_value=1.0)
    for claim in plan.config["claims"]:
        if claim["slope"] is not None and not list(_lines(claim, sizes, plan)):
            raise InputError(
                f"claims: {claim['name']}: where: no line of slope {claim['slope']} matches "
                f"{claim['where']!r}; allowed: labels that all points of a line share"
            )


def _check_share(claim: dict[str, Any]) -> None:
    """Refuse a region that no share can be in."""
    low, high = region(claim)
    if claim["slope"] is None and is_share(claim["statistic"]) and (low > 1.0 or high < 0.0):
        part = next(part for part in REGION if claim[part] is not None)
        key = f"claims: {claim['name']}: {part}"
        refuse(key, claim[part], "a region that a share can be in, 0 to 1")


def claims_level(plan: Plan, table: pd.DataFrame) -> float:
    """Return the level of each interval: corrected for all that are judged together (`claims`)."""
    return _level(plan, len(_asked(plan, table)))


def _level(plan: Plan, number: int) -> float:
    return 1.0 - (1.0 - plan.config["claims_level"]) / max(number, 1)


def _asked(plan: Plan, table: pd.DataFrame) -> list[tuple[dict[str, Any], tuple[int, np.ndarray]]]:
    return [
        (claim, place)
        for claim in plan.config["claims"]
        for place in (_lines if claim["slope"] else _cells)(claim, table, plan)
    ]


def claims(table: pd.DataFrame, fitted: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Judge every claim of the experiment in each of its cells, or on each of its slopes.

    Parameters
    ----------
    table : DataFrame
        What `convergence` gave for the plan, with intervals `_low` and `_high` of `claims_level`
        (`cells.with_intervals_at`).
    fitted : DataFrame
        What `slopes` gave for it.
    plan : Plan
        With `claims` and `claims_level` in its config.

    Returns
    -------
    DataFrame
        One row per claim and cell or slope; the columns that `docs/statistics.md` explains.

    Notes
    -----
    The level of each of the m intervals is 1 - (1 - `claims_level`) / m (Bonferroni): the
    probability that any verdict `supported` or `refuted` is wrong is at most 1 - `claims_level`. m
    counts what was asked, whatever came out.
    """
    asked = _asked(plan, table)
    level = _level(plan, len(asked))
    rows = []
    for claim, (number, positions) in asked:
        if claim["slope"]:
            line = fitted.loc[number]
            head = {"cell": None, **{label: line[label] for label in LABELS}}
            found = slope_interval(line, positions, claim, table, plan, level)
        else:
            cell = plan.cells[number]
            head = {"cell": cell.id, **{label: getattr(cell, label) for label in LABELS}}
            found = cell_interval(table.loc[number], cell, claim, plan, level)
        low, high = region(claim)
        said, reason = _judge(found, low, high)
        row = {key: claim[key] for key in ("name", "claim", "source", "statistic", "slope")} | head
        row |= {"estimate": found.estimate, "mcse": found.mcse, "low": found.low}
        row |= {"high": found.high, "region_low": low, "region_high": high, "level": level}
        rows.append(row | {"n": found.n, "verdict": said, "reason": reason})
    return _table(rows)


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    texts = ["name", "claim", "source", "statistic", "slope", "cell"]
    numbers = ["estimate", "mcse", "low", "high", "region_low", "region_high", "level", "n"]
    words = ["verdict", "reason", "claim_verdict"]
    table = pd.DataFrame(rows, columns=[*texts, *LABELS, *numbers, *words])
    texts += [*(label for label in LABELS if label != "sample_size"), *words]
    verdicts = table.groupby("name", sort=False)["verdict"].agg(set)
    table["claim_verdict"] = table["name"].map(verdicts.map(_together))
    return table.astype({name: "str" if name in texts else "float64" for name in table.columns})


def _together(verdicts: set[str]) -> str:
    """Return a claim's verdict: one cell refutes it, every cell must support it."""
    if "refuted" in verdicts:
        return "refuted"
    return "supported" if verdicts == {"supported"} else "inconclusive"


def counts(table: pd.DataFrame) -> dict[str, int]:
    """Return the number of claims, and of those with each verdict."""
    verdicts = table.drop_duplicates("name")["claim_verdict"]
    return {"n_claims": len(verdicts)} | {
        f"n_claims_{verdict}": int((verdicts == verdict).sum()) for verdict in VERDICTS
    }


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """Say each claim's verdict in a line, with the row that decided it."""
    for name, rows in table.groupby("name", sort=False):
        said = rows["claim_verdict"].iloc[0]
        row = rows[rows["verdict"] == said].iloc[0]
        where = row["cell"] if pd.notna(row["cell"]) else f"slope {row['slope']}"
        measured = [row[name] for name in ("estimate", "low", "high")]
        region_ends = [row[name] for name in ("region_low", "region_high")]
        digits = digits_apart(measured, region_ends, DIGITS)
        number, low, high = (f"{value:.{digits}g}" for value in measured)
        if pd.notna(row["low"]) and pd.notna(row["high"]):
            number += f" [{low}, {high}]"
        claimed = "claimed [{}, {}]".format(*(f"{end:.{digits}g}" for end in region_ends))
        which = f"{(rows['verdict'] == said).sum()} of {len(rows)}, " if len(rows) > 1 else ""
        because = f"; {row['reason']}" if row["reason"] else ""
        yield f"claim {name}: {said} ({which}{where}: {number}, {claimed}{because})"


def region(claim: dict[str, Any]) -> tuple[float, float]:
    """Return the ends of the closed region that a claim names."""
    if claim["expected"] is not None:
        return claim["expected"] - claim["margin"], claim["expected"] + claim["margin"]
    if claim["between"] is not None:
        return claim["between"][0], claim["between"][1]
    low, high = claim["at_least"], claim["at_most"]
    return (-math.inf if low is None else low), (math.inf if high is None else high)


def verdict(low: float, high: float, region_low: float, region_high: float) -> str:
    """Return what an interval says about a region; nothing where an end is missing."""
    if region_low <= low <= high <= region_high:
        return "supported"
    return "refuted" if high < region_low or low > region_high else "inconclusive"


def _judge(found: Interval, low: float, high: float) -> tuple[str, str]:
    """Return the verdict on one interval, and why where it is inconclusive."""
    if found.reason:
        return "inconclusive", found.reason
    said = verdict(found.low, found.high, low, high)
    if said == "inconclusive":
        return said, "the interval is neither inside the claimed region nor outside"
    if not math.isnan(found.exact[0]) and verdict(*found.exact, low, high) != said:
        ends = f"{found.exact[0]:.4g} to {found.exact[1]:.4g}"
        return "inconclusive", f"the exact binomial interval, {ends}, reaches beyond Wilson's"
    return said, ""


def _cells(
    claim: dict[str, Any], table: pd.DataFrame, plan: Plan
) -> Iterator[tuple[int, np.ndarray]]:
    for position, cell in enumerate(plan.cells):
        if matches(cell, claim["where"]):
            yield position, np.array([position])


def _lines(
    claim: dict[str, Any], table: pd.DataFrame, plan: Plan
) -> Iterator[tuple[int, np.ndarray]]:
    """Give the rows of `slopes` that a claim means, and the positions of each one's cells."""
    number = 0
    for slope in plan.config["slopes"]:
        for positions in groups(table, plan, slope):
            together = all(matches(plan.cells[place], claim["where"]) for place in positions)
            if slope["name"] == claim["slope"] and together:
                yield number, positions
            number += 1
