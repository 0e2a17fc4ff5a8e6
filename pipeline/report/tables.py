"""The page's tables: rows of rounded text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.plan import Cell
from pipeline.statistics.presentation import MISSING, minus, rounded, whole, whole_interval
from pipeline.tables import LABELS, OUTCOMES, parameter_columns

# What the page says of a comparison; comparisons.parquet has more.
COMPARED = {
    "converged_share": "converged share",
    "reached_reference_share": "reached the reference",
    "fewer_iterations_share": "fewer iterations",
    "fewer_evaluations_share": "fewer map evaluations",
    "map_evaluations": "map evaluations spent",
    "log_likelihood": "log-likelihood",
}
PAIR = ["cell_a", "cell_b", "level_a", "level_b"]
FACTORS = {"init": "Inits", "algorithm": "Algorithms", "stop_rule": "Stopping rules"}


@dataclass(frozen=True)
class Table:
    """Rows of text under a caption.

    The first `n_labels` columns name the row; `spans` is an upper header over the other columns,
    (text, number of columns).
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_labels: int
    spans: tuple[tuple[str, int], ...] = ()
    left_out: int = 0  # rows that are not here


def _labels(cells: Sequence[Cell]) -> list[str]:
    """Columns that name a cell within its group: what varies, and always size and init."""
    columns = ["sample_size", "init"]
    if len({cell.algorithm for cell in cells}) > 1:
        columns.append("algorithm")
    return columns


def _table(
    caption: str,
    cells: Sequence[Cell],
    columns: Sequence[tuple[str, Sequence[str]]],
    spans: Sequence[tuple[str, int]] = (),
) -> Table:
    labels = _labels(cells)
    names = {"sample_size": "n"}
    rows = zip(*(values for _, values in columns), strict=True)
    return Table(
        caption=caption,
        header=(*(names.get(label, label) for label in labels), *(name for name, _ in columns)),
        rows=tuple(
            (*(_text(getattr(cell, label)) for label in labels), *row)
            for cell, row in zip(cells, rows, strict=True)
        ),
        n_labels=len(labels),
        spans=tuple(spans),
    )


def _statistic(rows: pd.DataFrame, name: str, error: str | None = None) -> list[str]:
    """Return a column with its standard error, if the table has one, rounded."""
    errors = rows.get(error or f"{name}_mcse", pd.Series(np.nan, rows.index))
    return [rounded(value, mcse) for value, mcse in zip(rows[name], errors, strict=True)]


def _ranges(lows: pd.Series, highs: pd.Series) -> list[str]:
    """Return pairs of numbers; a dash where neither is known."""
    pairs = zip(lows, highs, strict=True)
    return [
        MISSING if pd.isna(low) and pd.isna(high) else f"{rounded(low)} to {rounded(high)}"
        for low, high in pairs
    ]


def _whole_ranges(lows: pd.Series, highs: pd.Series) -> list[str]:
    return [whole_interval(low, high) for low, high in zip(lows, highs, strict=True)]


def outcomes_table(cells: Sequence[Cell], rows: pd.DataFrame) -> Table:
    """Tabulate all counts, also the zeros: that nothing failed is a result."""
    columns = [
        ("fits", [str(count) for count in rows["n_fits"]]),
        ("converged share", _statistic(rows, "converged_share")),
    ]
    for outcome in OUTCOMES:
        counts = [str(count) for count in rows[f"n_{outcome}"]]
        columns.append((outcome.replace("_", " "), counts))
    spans = [("", len(columns) - len(OUTCOMES)), ("number of fits that ended as", len(OUTCOMES))]
    return _table("Outcomes", cells, columns, spans)


def convergence_table(cells: Sequence[Cell], rows: pd.DataFrame) -> Table:
    """Tabulate iterations and final log-likelihood."""
    columns = [
        ("median", [whole(median) for median in rows["n_iter_median"]]),
        ("its 95 % interval", _whole_ranges(rows["n_iter_median_low"], rows["n_iter_median_high"])),
        ("10 % to 90 %", _whole_ranges(rows["n_iter_q10"], rows["n_iter_q90"])),
        ("expected running time", _statistic(rows, "expected_running_time")),
        ("mean", _statistic(rows, "log_likelihood_mean")),
        ("per observation", _statistic(rows, "mean_log_likelihood")),
    ]
    spans = [("iterations to convergence", 3), ("map evaluations", 1), ("final log-likelihood", 2)]
    return _table("Iterations and final log-likelihood", cells, columns, spans)


def errors_table(cells: Sequence[Cell], rows: pd.DataFrame) -> Table | None:
    """Tabulate bias and RMSE of the estimated parameters; None without a comparable truth."""
    columns: list[tuple[str, Sequence[str]]] = []
    spans = []
    for name in parameter_columns(cells[0].n_components):
        # A parameter that the model fixes at its true value has no error to show.
        if not rows[f"rmse_{name}"].fillna(0.0).gt(0.0).any():
            continue
        true = rounded(rows[f"true_{name}"].iloc[0])
        spans.append((f"{name.replace('_', ' ')} (true {true})", 2))
        columns.append(("bias", _statistic(rows, f"bias_{name}")))
        columns.append(("RMSE", _statistic(rows, f"rmse_{name}")))
    if not columns:
        return None
    return _table("Errors of the estimates", cells, columns, spans)


def group_tables(cells: Sequence[Cell], convergence: pd.DataFrame) -> dict[str, list[Table]]:
    """Tabulate the statistics of cells by truth and model, in their order."""
    rows = convergence.set_index("cell")
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(f"{cell.mixture or cell.observed}, model {cell.model}", []).append(cell)
    return {
        title: [
            table
            for make in (outcomes_table, convergence_table, errors_table)
            if (table := make(cells, rows.loc[[cell.id for cell in cells]])) is not None
        ]
        for title, cells in groups.items()
    }


def comparison_tables(comparisons: pd.DataFrame, most: int) -> list[Table]:
    """Tabulate what differs between two inits, algorithms or stopping rules on the same data.

    Parameters
    ----------
    comparisons
        Rows of ``comparisons.parquet``; all statistics of a pair follow each other.
    most
        Pairs in a table.
    """
    found = []
    for factor, rows in comparisons.groupby("factor", sort=False):
        shown = {name: text for name, text in COMPARED.items() if (rows["statistic"] == name).any()}
        pairs = {name: rows[rows["statistic"] == name].set_index(PAIR) for name in shown}
        every = pairs["converged_share"]
        first = every.iloc[:most]
        labels = [name for name in LABELS if name != factor and _tells(first, name)]
        header = {"sample_size": "n", "observed": "data"}
        columns = [[_text(value) for value in first[name]] for name in labels]
        columns += [[str(key[place]) for key in first.index] for place in (2, 3)]
        # What is behind the numbers stands before them: a wide table is scrolled.
        counts = ["replicates", "fits left out"]
        left_out = [pairs[name].reindex(first.index)["n_fits_left_out"] for name in shown]
        for number in (first["n_pairs"], np.max(left_out, axis=0)):
            columns.append([_text(value) for value in number])
        for name in shown:
            columns.append(_statistic(pairs[name].reindex(first.index), "difference", "mcse"))
        found.append(
            Table(
                caption=f"{FACTORS.get(str(factor), str(factor))} on the same data{_shared(first)}",
                header=(
                    *(header.get(name, name) for name in labels),
                    "from",
                    "to",
                    *counts,
                    *shown.values(),
                ),
                rows=tuple(zip(*columns, strict=True)),
                n_labels=len(labels) + 2,
                spans=(("compared", len(counts)), ("difference", len(shown))),
                left_out=len(every) - len(first),
            )
        )
    return found


def slopes_table(slopes: pd.DataFrame) -> Table | None:
    """Tabulate the scaling laws; None without any."""
    if slopes.empty:
        return None
    labels = [name for name in LABELS if _tells(slopes, name)]
    columns = [[str(value) for value in slopes["name"]]]
    columns += [[_text(value) for value in slopes[name]] for name in labels]
    columns += [[str(value) for value in slopes[name]] for name in ("statistic", "factor")]
    columns.append(_ranges(slopes["factor_low"], slopes["factor_high"]))
    columns.append(_statistic(slopes, "slope", "slope_se"))
    for name in ("n_points", "n_left_out", "chi_square", "degrees_of_freedom"):
        columns.append([_text(value) for value in slopes[name]])
    names = {"sample_size": "n", "observed": "data"}
    header = ["law", *(names.get(name, name) for name in labels), "statistic", "against", "range"]
    header += ["slope", "points", "left out", "χ²", "degrees of freedom"]
    caption = f"Slopes of log(statistic) against log(factor), standard errors{_shared(slopes)}"
    return Table(caption, tuple(header), tuple(zip(*columns, strict=True)), len(labels) + 1)


def _tells(rows: pd.DataFrame, label: str) -> bool:
    """Whether a label tells rows apart."""
    return bool(rows[label].nunique(dropna=False) > 1)


def _shared(rows: pd.DataFrame) -> str:
    """Return the labels that all rows share, for a caption."""
    shared = [
        _text(rows[name].iloc[0])
        for name in LABELS
        if rows[name].notna().any() and not _tells(rows, name)
    ]
    return f": {', '.join(shared)}" if shared else ""


def _text(value: Any) -> str:
    """Return a label or a count as text: whole numbers in full."""
    if isinstance(value, str):
        return value
    whole = pd.notna(value) and np.isfinite(value) and float(value).is_integer()
    return minus(f"{value:.0f}") if whole else rounded(value)
