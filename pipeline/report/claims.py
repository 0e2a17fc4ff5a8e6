"""The page's first section: claims, what was measured, and the verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.statistics.claims import VERDICTS
from pipeline.statistics.evidence import is_share
from pipeline.statistics.presentation import MISSING, digits_apart, minus
from pipeline.tables import LABELS

MOST_ROWS = 20  # of one claim
DIGITS = 10  # significant ones, where they tell an interval from the claimed region
WORST_FIRST = ("refuted", "inconclusive", "supported")


@dataclass(frozen=True)
class Evidence:
    """One cell's or slope's part in a claim, in words."""

    where: str
    measured: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict; `left_out` rows of evidence are not on the page."""

    name: str
    text: str
    source: str
    statistic: str
    region: str
    verdict: str
    evidence: tuple[Evidence, ...]
    left_out: int


def claims_of(claims: pd.DataFrame, slopes: pd.DataFrame) -> list[Claim]:
    """Put `claims.parquet` into words.

    Parameters
    ----------
    claims
        One row per claim and cell or slope; those of one claim agree in what is claimed.
    slopes
        `slopes.parquet`: what a claimed slope is a slope of.
    """
    found = []
    for name, rows in claims.groupby("name", sort=False):
        first = rows.iloc[0]
        order = rows["verdict"].map(WORST_FIRST.index)
        shown = rows
        if len(rows) > MOST_ROWS:
            shown = rows.loc[order.sort_values(kind="stable").index[:MOST_ROWS]]
        found.append(
            Claim(
                name=str(name),
                text=first["claim"],
                source=first["source"],
                statistic=_statistic(first, slopes),
                region=_region(first["region_low"], first["region_high"], _digits(shown, DIGITS)),
                verdict=first["claim_verdict"],
                evidence=tuple(_evidence(row) for row in shown.to_dict("records")),
                left_out=len(rows) - len(shown),
            )
        )
    return found


def verdict_counts(claims: Sequence[Claim]) -> str:
    """Count the verdicts in words: "2 supported, 1 refuted"."""
    counts = [sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS]
    said = zip(counts, VERDICTS, strict=True)
    return ", ".join(f"{count} {verdict}" for count, verdict in said if count)


def _statistic(row: pd.Series, slopes: pd.DataFrame) -> str:
    if pd.isna(row["slope"]):
        return str(row["statistic"])
    line = slopes[slopes["name"] == row["slope"]].iloc[0]
    return f"slope of log {line['statistic']} against log {line['factor']}"


def _evidence(row: dict[str, Any]) -> Evidence:
    labels = [name for name in LABELS if pd.notna(row[name])]
    where = ", ".join(f"n = {_size(row[name])}" if name == "sample_size" else str(row[name])
                      for name in labels)  # fmt: skip
    share = pd.notna(row["statistic"]) and is_share(row["statistic"])
    low, high = row["low"], row["high"]
    step = high - low if math.isfinite(high - low) and high > low else math.nan
    least = _digits(pd.DataFrame([row]), 2)
    measured = number(row["estimate"], step, least)
    if pd.notna(low) and pd.notna(high):
        ends = f"{number(low, step, least)} to {number(high, step, least)}"
        sampled = f", {100 * row['level']:.6g} % interval {ends}"
        exact = f" ({ends} with the numerical error; there is no sampling error)"
        measured += exact if row["n"] == 1 and not share else sampled
    if 1 < row["n"] < math.inf:
        units = f"{row['n']:{',.0f' if row['n'] >= 1e3 else '.4g'}}"
        measured += f", from {units} {'independent fits' if share else 'replicates'}"
    return Evidence(where or "all cells", measured, row["verdict"], row["reason"])


def _size(size: float) -> str:
    return "\N{INFINITY}" if math.isinf(size) else f"{size:.0f}"


def _region(low: float, high: float, digits: int) -> str:
    least, most = number(low, least=digits), number(high, least=digits)
    if math.isinf(low):
        return f"at most {most}"
    return f"at least {least}" if math.isinf(high) else f"{least} to {most}"


def _digits(rows: pd.DataFrame, least: int) -> int:
    """Return how many digits tell what was measured from the claimed region."""
    measured, claimed = rows[["estimate", "low", "high"]], rows[["region_low", "region_high"]]
    return digits_apart(measured.to_numpy().ravel(), claimed.to_numpy()[0], least)


def number(value: float, step: float = math.nan, least: int = 2) -> str:
    """Write a number with three digits from the order of `step`; with 10 of its own without one.

    `least` is how many digits it has at least.
    """
    if pd.isna(value):
        return MISSING
    if math.isinf(value):
        return minus(f"{'-' if value < 0 else ''}\N{INFINITY}")
    digits = DIGITS
    if value and step > 0:
        digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(step)) + 3
    return minus(f"{value:.{max(min(digits, DIGITS), least)}g}")
