"""The page for people: one self-contained HTML file from the plan, the statistics and figures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.core.outcomes import ADVICE
from pipeline.plan import Cell, Plan
from pipeline.statistics.presentation import MISSING, minus, rounded
from pipeline.tables import OUTCOMES, parameter_columns

FACTORS = ("model", "init", "algorithm", "observed")
ENVIRONMENT = Environment(
    loader=PackageLoader("pipeline"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Picture:
    """A rendered figure: `image` is SVG or PNG bytes, `group` the heading it belongs under."""

    group: str
    title: str
    caption: str
    image: bytes

    @property
    def data_uri(self) -> str:
        """The image as text that an ``img`` can hold."""
        kind = "png" if self.image.startswith(b"\x89PNG") else "svg+xml"
        return f"data:image/{kind};base64,{base64.b64encode(self.image).decode('ascii')}"


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


def _numbers(values: Any) -> str:
    if isinstance(values, (list, tuple)):
        return ", ".join(minus(f"{value:.4g}") for value in values)
    return MISSING if values is None else str(values)


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
            (*(str(getattr(cell, label)) for label in labels), *row)
            for cell, row in zip(cells, rows, strict=True)
        ),
        n_labels=len(labels),
        spans=tuple(spans),
    )


def _statistic(rows: pd.DataFrame, name: str) -> list[str]:
    """Return a column with its standard error, if the table has one, rounded."""
    errors = rows.get(f"{name}_mcse", pd.Series(np.nan, rows.index))
    return [rounded(value, mcse) for value, mcse in zip(rows[name], errors, strict=True)]


def _ranges(lows: pd.Series, highs: pd.Series) -> list[str]:
    """Return pairs of numbers of iterations; a dash where neither is known."""
    pairs = zip(lows, highs, strict=True)
    return [
        MISSING if pd.isna(low) and pd.isna(high) else f"{rounded(low)} to {rounded(high)}"
        for low, high in pairs
    ]


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
        ("median", _statistic(rows, "n_iter_median")),
        ("its 95 % interval", _ranges(rows["n_iter_median_low"], rows["n_iter_median_high"])),
        ("10 % to 90 %", _ranges(rows["n_iter_q10"], rows["n_iter_q90"])),
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


def _group_tables(plan: Plan, convergence: pd.DataFrame) -> dict[str, list[Table]]:
    rows = convergence.set_index("cell")
    groups: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        groups.setdefault(f"{cell.mixture or cell.observed}, model {cell.model}", []).append(cell)
    return {
        title: [
            table
            for make in (outcomes_table, convergence_table, errors_table)
            if (table := make(cells, rows.loc[[cell.id for cell in cells]])) is not None
        ]
        for title, cells in groups.items()
    }


def _mixtures(plan: Plan) -> list[dict[str, str]]:
    parts = ("weights", "means", "scales", "allocation", "source")
    return [
        {"name": name} | {part: _numbers(mixture.get(part)) for part in parts}
        for name, mixture in plan.config["mixture"].items()
    ]


def _described(name: str, entry: Mapping[str, Any]) -> str:
    """Return a factor's entry in a line, without what is empty or repeats its name.

    A path is left out: it names a place on one machine.
    """
    described = ", ".join(
        f"{key.replace('_', ' ')} {_numbers(value)}"
        for key, value in entry.items()
        if value not in (None, "") and key != "path" and (key, value) != ("method", name)
    )
    return f"{name} ({described})" if described else name


def _settings(plan: Plan) -> list[tuple[str, str]]:
    """Return what was run, as name and value, in the order of the configuration's keys."""
    config = plan.config
    settings = [
        (factor, "; ".join(_described(name, entry) for name, entry in config[factor].items()))
        for factor in FACTORS
        if config[factor]
    ]
    schedule = config["schedule"]
    stop = schedule["stop"]
    rule = stop["rule"].replace("_", " ")
    tolerance = "" if stop["tolerance"] is None else f" at most {stop['tolerance']:g}"
    settings += [
        ("stopping rule", f"{rule}{tolerance}; at most {schedule['max_iter']:,} iterations"),
        ("recorded iterations", _numbers(schedule["record"])),
        ("recorded replicates", _numbers(schedule["record_replicates"])),
        ("sample sizes", ", ".join(map(str, dict.fromkeys(c.sample_size for c in plan.cells)))),
        ("replicates", ", ".join(map(str, sorted({cell.replicates for cell in plan.cells})))),
        ("starts per replicate", ", ".join(map(str, sorted({c.starts for c in plan.cells})))),
        ("seed", str(config["seed"])),
    ]
    return settings


def _summary(convergence: pd.DataFrame) -> str:
    """Return in a sentence how many fits there are and how they ended."""
    n_fits = int(convergence["n_fits"].sum())
    ends = [
        f"{outcome.replace('_', ' ')} {count:,}"
        for outcome in OUTCOMES
        if (count := int(convergence[f"n_{outcome}"].sum()))
    ]
    cells = f"{len(convergence):,} cell{'s' if len(convergence) != 1 else ''}"
    return f"{cells}, {n_fits:,} fit{'s' if n_fits != 1 else ''}. Outcomes: {', '.join(ends)}."


def render_report(
    plan: Plan, convergence: pd.DataFrame, pictures: Sequence[Picture], remark: str = ""
) -> str:
    """Render the page.

    Parameters
    ----------
    plan
        Of the experiment.
    convergence
        One row per cell of the plan.
    pictures
        In the order of the page; those of one group follow each other.
    remark
        What the page leaves out, for the reader.

    Returns
    -------
    str
        HTML that needs no other file, no network and no script, and holds no date, path, run or
        duration: the same results give the same page.
    """
    by_group: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_group.setdefault(picture.group, []).append(picture)
    return ENVIRONMENT.get_template("report.html.jinja").render(
        plan=plan,
        summary=_summary(convergence),
        mixtures=_mixtures(plan),
        settings=_settings(plan),
        pictures=by_group,
        remark=remark,
        tables=_group_tables(plan, convergence),
        one_replicate=all(cell.replicates == 1 for cell in plan.cells),
        advice=[(outcome.name.lower().replace("_", " "), ADVICE[outcome]) for outcome in ADVICE],
    )
