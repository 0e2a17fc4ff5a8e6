"""Statistics as tables for people, and in Markdown: few columns, rounded to the MCSE."""

import re
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.tables import LABELS, OUTCOMES

MISSING = "–"
EVERY_DIGIT = 17  # of a float64: different numbers differ in them
PARAMETER = re.compile(r"true_((?:weight|mean|scale)_\d+)")
MEASURES = {"bias": "bias", "empirical_se": "empirical SE", "rmse": "RMSE", "coverage": "coverage"}
DISTANCES = {
    "total_variation": "total variation",
    "hellinger": "Hellinger",
    "kullback_leibler": "Kullback-Leibler",
    "wasserstein_1": "Wasserstein-1",
}
BRACKETS = f"In brackets the Monte-Carlo standard error. {MISSING}: does not exist."
NOTE = (
    f"{BRACKETS} Bias, empirical SE and RMSE are over all fits with a finite estimate; coverage is "
    "over those of them with standard errors, and distances over those with all four: columns "
    '"without" count the others. The same over converged fits alone, and every other column, '
    "unrounded, are in convergence.csv."
)
OUTCOMES_NOTE = (
    "The estimate of a fit that failed is its last finite iterate, so that only fits without one "
    "have no estimate. Reached reference: the share of fits whose log-likelihood is that of the "
    "best optimum known of their sample."
)
ITERATIONS_NOTE = (
    "Evaluations per convergence: the expected running time, map evaluations of all fits over the "
    f"number of converged ones. An end {MISSING} of an interval is beyond the iterations allowed."
)
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


class Listing(NamedTuple):
    """Rows of text under a caption; the first ``n_labels`` columns name the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_labels: int
    note: str = ""  # sentences below the caption


def rounded(value: Any, mcse: Any = None) -> str:
    """Round for reading: to two digits of the Monte-Carlo standard error, given in brackets.

    Without a standard error (one replicate, or a quantity that does not vary): four significant
    digits, all those before the point, and no brackets. A missing value is a dash, an infinite
    one ∞. Very large and very small numbers are written with a power of ten.

    Examples
    --------
    >>> rounded(0.123456, 0.0456)
    '0.123 (0.046)'
    >>> rounded(12345.678, 321)
    '12350 (320)'
    >>> rounded(1.5e-9, 1e-9)
    '1.5e−09 (1.0e−09)'
    >>> rounded(12.34567)
    '12.35'
    """
    if value is None or pd.isna(value):
        return MISSING
    if np.isinf(value):
        return minus(f"{'-' if value < 0 else ''}\N{INFINITY}")
    if mcse is None or pd.isna(mcse) or not 0 < mcse < np.inf:
        return minus(f"{value + 0.0:{'.0f' if 1e3 <= abs(value) < 1e9 else '.4g'}}")
    # Of the error as it is shown: 0.0996 is 0.10.
    shown = f"{mcse:.1e}"
    decimals = 1 - int(shown.partition("e")[2])
    if -4 <= decimals <= 8:
        shown = f"{round(Decimal(float(mcse)), decimals):.{max(decimals, 0)}f}"
    return minus(f"{_ending_at(decimals, float(value))} ({shown})")


def _ending_at(decimals: int, value: float) -> str:
    """Write a number to the place 10^-decimals, as far as a float64 has digits."""
    exact = Decimal(value)
    if exact:
        decimals = min(decimals, sys.float_info.dig - 1 - exact.adjusted())
    near = round(exact, decimals)
    size = near.adjusted()
    if not near:  # no minus sign before a zero
        return f"{0:.{decimals}f}" if 0 <= decimals <= 8 else "0"
    if decimals < -4 or (decimals > 8 and size < -4):
        return f"{near.scaleb(-size):.{size + decimals}f}e{size:+03d}"
    return f"{near:.{max(decimals, 0)}f}"


def whole(value: float, spec: str = "") -> str:
    """Write a count, or a quantile of counts, with all its digits; `spec` "," groups them."""
    if pd.isna(value):
        return MISSING
    return "\N{INFINITY}" if np.isinf(value) else f"{value:{spec}.0f}"


def whole_interval(low: float, high: float, spec: str = "") -> str:
    """Write an interval of counts; an end that the budget does not let see is a dash."""
    if pd.isna(low) and pd.isna(high):
        return MISSING
    return f"{whole(low, spec)} to {whole(high, spec)}"


def digits_apart(numbers: Iterable[float], others: Iterable[float], least: int) -> int:
    """Return how many significant digits tell the ones from the others, at least `least`."""
    pairs = [(a, b) for a, b in product(numbers, others) if a < b or a > b]
    for digits in range(least, EVERY_DIGIT):
        if all(f"{a:.{digits}g}" != f"{b:.{digits}g}" for a, b in pairs):
            return digits
    return EVERY_DIGIT


def minus(text: str) -> str:
    """Return a number with a minus sign in the place of the hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def tables(convergence: pd.DataFrame) -> list[Listing]:
    """Choose what people look at first: how fits ended, what they took, how good estimates are.

    Parameters
    ----------
    convergence : DataFrame
        One row per cell.

    Returns
    -------
    list of Listing
        One row per cell each, named by the labels that vary: outcomes; iterations and
        log-likelihood; one per parameter that has a truth and an error in some cell; distances
        where there are any.
    """
    if convergence.empty:
        return []
    found = [_outcomes(convergence), _iterations(convergence)]
    for name in convergence:
        match = PARAMETER.fullmatch(str(name))
        # A parameter that every model fixes at its truth has nothing to show.
        if match and convergence[f"rmse_{match[1]}"].fillna(0.0).gt(0.0).any():
            found.append(_parameter(convergence, match[1]))
    if set(DISTANCES) <= set(convergence):
        columns = {text: _column(convergence, name) for name, text in DISTANCES.items()}
        columns |= {"without": _counts(convergence["n_distances_missing"])}
        found.append(
            _listing("Distances of the fitted from the true density", convergence, columns)
        )
    return found


def _outcomes(convergence: pd.DataFrame) -> Listing:
    columns = {"fits": _counts(convergence["n_fits"])}
    for outcome in OUTCOMES:
        counts = convergence[f"n_{outcome}"]
        if counts.any():
            columns[outcome.replace("_", " ")] = _counts(counts)
    columns["no finite iterate"] = _counts(convergence["n_missing"])
    matched = convergence.filter(regex="^true_").notna().any(axis=1)
    if matched.any():
        counts = convergence["n_relabelled"].where(matched)
        columns["relabelled"] = [_label(count) for count in counts]
    columns["converged share"] = _column(convergence, "converged_share")
    columns["reached reference"] = _column(convergence, "reached_reference_share")
    return _listing("Outcomes: numbers of fits", convergence, columns, OUTCOMES_NOTE)


def _iterations(convergence: pd.DataFrame) -> Listing:
    names = {
        "n_iter_median": "median",
        "n_iter_q10": "10 %",
        "n_iter_q90": "90 %",
        "expected_running_time": "evaluations per convergence",
        "mean_log_likelihood": "log-likelihood per observation",
    }
    columns = {}
    for name, text in names.items():
        counted = name.startswith("n_iter")
        columns[text] = (
            [whole(value) for value in convergence[name]] if counted else _column(convergence, name)
        )
        if name == "n_iter_median":
            ends = zip(convergence[f"{name}_low"], convergence[f"{name}_high"], strict=True)
            columns["its 95 % interval"] = [whole_interval(low, high) for low, high in ends]
    caption = "Iterations (quantiles), map evaluations and final log-likelihood"
    return _listing(caption, convergence, columns, ITERATIONS_NOTE)


def _parameter(convergence: pd.DataFrame, name: str) -> Listing:
    columns = {"truth": _column(convergence, f"true_{name}")}
    for measure, text in MEASURES.items():
        if f"{measure}_{name}" in convergence:
            columns[text] = _column(convergence, f"{measure}_{name}")
    if f"coverage_{name}" in convergence:
        columns["without SE"] = _counts(convergence["n_wald_missing"])
    return _listing(f"Estimates of {name}", convergence, columns)


def _counts(counts: pd.Series) -> list[str]:
    return [str(count) for count in counts]


def _column(convergence: pd.DataFrame, name: str) -> list[str]:
    """Return a column rounded, with its standard error where the table has one."""
    errors = convergence.get(f"{name}_mcse", pd.Series(np.nan, convergence.index))
    return [rounded(value, mcse) for value, mcse in zip(convergence[name], errors, strict=True)]


def _listing(
    caption: str, convergence: pd.DataFrame, columns: dict[str, list[str]], note: str = ""
) -> Listing:
    varying = [name for name in LABELS if convergence[name].nunique(dropna=False) > 1]
    # A study of one cell is named by its data.
    names = varying or ["mixture" if convergence["mixture"].notna().all() else "observed"]
    labels = [[_label(value) for value in convergence[name]] for name in names]
    header = [{"sample_size": "n"}.get(name, name) for name in names]
    rows = zip(*labels, *columns.values(), strict=True)
    return Listing(caption, (*header, *columns), tuple(rows), len(names), note)


def _label(value: Any) -> str:
    return value if isinstance(value, str) else whole(value)


def markdown(title: str, listings: Sequence[Listing]) -> str:
    """Return a page of tables in GitHub's Markdown, columns aligned for reading as text too."""
    parts = [f"# {_in_markdown(title)}", _in_markdown(NOTE)]
    for listing in listings:
        cells = [[_in_markdown(text) for text in row] for row in (listing.header, *listing.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
        named = [place < listing.n_labels for place in range(len(widths))]
        align = [str.ljust if name else str.rjust for name in named]
        lines = [
            [put(text, width) for put, text, width in zip(align, row, widths, strict=True)]
            for row in cells
        ]
        rule = [
            f":{'-' * (width - 1)}" if name else f"{'-' * (width - 1)}:"
            for name, width in zip(named, widths, strict=True)
        ]
        rows = [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]
        parts.append(f"## {_in_markdown(listing.caption)}")
        if listing.note:
            parts.append(_in_markdown(listing.note))
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _in_markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))
