"""What an MLflow run shows of a cell: its name, parameters, metrics and note."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.checks import FACTORS
from pipeline.console import counted
from pipeline.plan import NOT_CONTENT, Cell, Plan
from pipeline.planning import AGGREGATED
from pipeline.statistics.bands import gap_quantiles
from pipeline.tables import OUTCOMES, parameter_columns

NAME_WIDTH = 20  # what MLflow's list of runs shows of a name before it cuts it off
# Settings that change no number of a cell, or that the cell's own columns give.
# What the statistics and the page are told, and no fit.
OF_THE_STUDY = (*AGGREGATED, "figures")
NOT_SHOWN = (*NOT_CONTENT, "report", "only", "sample_sizes", "replicates", "starts", "seed")
# Numbers of a cell that MLflow shows under a name of their own; the others keep the name of their
# column under `statistics/`. MLflow groups metrics by what stands before the slash, in alphabetical
# order: the trajectories come before the statistics.
HEADLINES = {
    "converged_share": "converged_share",
    "n_iter_median": "n_iter/median",
    "n_iter_q10": "n_iter/q10",
    "n_iter_q90": "n_iter/q90",
}


class Metric(NamedTuple):
    """One value of a metric; `step` is EM's iteration, 0 for what has none."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class DataSource:
    """The samples behind a cell; `shape` is (replicates, sample_size)."""

    name: str
    digest: str
    path: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class Run:
    """Everything that MLflow shows of a cell but what takes its traces: metrics and note.

    `artifacts` has files by the path that MLflow shows; `content` changes when anything that the
    run shows would.
    """

    cell: str
    name: str
    content: str
    params: dict[str, str]
    settings: dict[str, Any]
    source: DataSource
    snapshots: dict[int, Path]
    artifacts: dict[str, Path]


def run_names(cells: Sequence[Cell]) -> dict[str, str]:
    """Return a short name for each cell, told apart by its first `NAME_WIDTH` characters.

    Factors that are the same in all cells are left out, and so is the prefix that all levels of a
    factor share; if the names still begin alike, the levels are cut where a word ends, then
    anywhere, and at last numbered.
    """
    factors = {
        "size": [f"n{cell.sample_size}" for cell in cells],
        "init": [cell.init for cell in cells],
        "algorithm": [cell.algorithm for cell in cells],
        "model": [cell.model for cell in cells],
        "data": [cell.mixture or str(cell.observed) for cell in cells],
    }
    varying = {name: levels for name, levels in factors.items() if len(set(levels)) > 1}
    if not varying:
        return {cell.id: f"{factors['data'][0]} {factors['size'][0]}" for cell in cells}
    whole = list(varying.values())
    bare = [_without_prefix(levels) for name, levels in varying.items() if name != "size"]
    bare = [factors["size"], *bare] if "size" in varying else bare
    cut = [[[level[:width] for level in levels] for levels in bare] for width in range(9, 1, -1)]
    for candidate in (whole, bare, [_fewest_words(levels) for levels in bare], *cut):
        names = [" ".join(levels) for levels in zip(*candidate, strict=True)]
        if len({name[:NAME_WIDTH] for name in names}) == len(names):
            break
    else:
        names = [f"{k} {' '.join(each)}" for k, each in enumerate(zip(*bare, strict=True))]
    return {cell.id: name for cell, name in zip(cells, names, strict=True)}


def _without_prefix(levels: list[str]) -> list[str]:
    # What the first and the last in order share, all share; cut where a word ends.
    pairs = zip(min(levels), max(levels), strict=False)
    shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return [level[shared.rfind("_") + 1 :] for level in levels]


def _fewest_words(levels: list[str]) -> list[str]:
    for count in range(1, 1 + max(level.count("_") for level in levels)):
        short = {level: "_".join(level.split("_")[:count]) for level in levels}
        if len(set(short.values())) == len(short):
            return [short[level] for level in levels]
    return levels


def run_params(plan: Plan, cell: Cell) -> dict[str, str]:
    """Return the cell's factors under their column names, and its settings as `config/...`.

    What only the study as a whole has (claims, say) and citations are left to `run_settings`:
    MLflow prints all parameters beside every picture.
    """
    columns = (*FACTORS, "sample_size", "n_components", "replicates", "starts")
    params = {name: getattr(cell, name) for name in columns} | {"seed": plan.config["seed"]}
    if plan.overrides:
        params["overrides"] = " ".join(plan.overrides)
    for key, value in run_settings(plan, cell).items():
        if key not in OF_THE_STUDY:
            params |= _flat(f"config/{key}", value)
    shown = {k: v for k, v in params.items() if v is not None and not k.endswith("/source")}
    return {name: str(value) for name, value in shown.items()}


def _flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {key: value}
    return {k: v for name, part in value.items() for k, v in _flat(f"{key}/{name}", part).items()}


def run_settings(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Return the part of the configuration that applies to a cell, by key."""
    return {
        key: value.get(getattr(cell, key), {}) if key in FACTORS else value
        for key, value in plan.config.items()
        if key not in NOT_SHOWN
    }


def thinned(iterations: np.ndarray, kept: Iterable[int], max_steps: int) -> np.ndarray:
    """Choose at most `max_steps` of the recorded iterations, geometrically spaced.

    Parameters
    ----------
    iterations : array of int, shape (n_recorded,), increasing
    kept : iterations to keep where they are recorded, as the first and the last are
    max_steps : int, at least 2

    Returns
    -------
    array of int, shape (at most max_steps,), increasing
    """
    if len(iterations) <= max_steps:
        return iterations
    first, last = iterations[0], iterations[-1]
    always = np.union1d(np.intersect1d(iterations, list(kept)), [first, last])
    if len(always) >= max_steps:
        return always[np.linspace(0, len(always) - 1, max_steps).round().astype(int)]

    def spaced(count: int) -> np.ndarray:
        targets = np.geomspace(1, last - first + 1, count) + first - 1
        nearest = np.searchsorted(iterations, targets.round())
        return np.union1d(always, iterations[np.minimum(nearest, len(iterations) - 1)])

    counts = range(max_steps * 8)
    count = bisect_right(counts, max_steps, key=lambda c: len(spaced(c))) - 1
    return spaced(max(count, 0))


def trajectory_metrics(
    traces: pd.DataFrame, n_components: int, kept: Iterable[int], max_steps: int
) -> list[Metric]:
    """Return the recorded parameters and log-likelihood of one fit, by iteration.

    Parameters
    ----------
    traces : the `traces` rows of one fit
    """
    traces = traces.sort_values("iteration")
    chosen = thinned(traces["iteration"].to_numpy(), kept, max_steps)
    rows = traces[traces["iteration"].isin(chosen)]
    columns = {f"params/{name}": name for name in parameter_columns(n_components)}
    columns["log_likelihood/representative"] = "log_likelihood"
    return [
        Metric(name, int(step), float(value))
        for name, column in columns.items()
        for step, value in zip(rows["iteration"], rows[column], strict=True)
        if np.isfinite(value)
    ]


def gap_metrics(traces: pd.DataFrame, kept: Iterable[int], max_steps: int) -> list[Metric]:
    """Return the quantiles over fits of each fit's distance from its own last log-likelihood.

    A fit counts at every step: between recorded iterations with the last recorded one, after it
    stopped with its last row, a gap of 0.

    Parameters
    ----------
    traces : the `traces` rows of the fits of one cell
    """
    traces = traces.sort_values(["replicate", "start", "iteration"])
    steps = thinned(np.unique(traces["iteration"].to_numpy()), kept, max_steps)
    values = gap_quantiles(traces, steps, (0.5, 0.1, 0.9))
    return [
        Metric(f"log_likelihood_gap/{name}", int(step), float(value))
        for name, row in zip(("median", "q10", "q90"), values, strict=True)
        for step, value in zip(steps, row, strict=True)
        if np.isfinite(value)
    ]


def final_metrics(statistics: pd.Series) -> list[Metric]:
    """Return the numbers of a cell's row of `convergence`, without those that are missing.

    Its settings and true values are no metrics: parameters and the note show them. What is over
    converged fits alone is left to the files: every parameter would have its measures twice.
    """
    metrics = []
    for column, value in statistics.items():
        name = str(column)
        if name in ("sample_size", "replicates", "starts") or name.startswith("true_"):
            continue
        if name != "n_converged" and name.removesuffix("_mcse").endswith("_converged"):
            continue
        if isinstance(value, str) or pd.isna(value) or not np.isfinite(value):
            continue
        metrics.append(Metric(HEADLINES.get(name, f"statistics/{name}"), 0, float(value)))
    return metrics


def run_note(plan: Plan, cell: Cell, run: Run, statistics: pd.Series, estimates: pd.Series) -> str:
    """Return a description of a cell in Markdown: what one looks at, and where to look.

    Parameters
    ----------
    statistics : the cell's row of `convergence`
    estimates : the representative fit's row of `fits`
    """
    factor, name = ("mixture", cell.mixture) if cell.mixture else ("observed", cell.observed)
    source = plan.config[factor][name].get("source")
    if cell.sample_size == math.inf:
        samples = "the population itself of"
    else:
        count = "one sample" if cell.replicates == 1 else f"{cell.replicates} samples"
        samples = f"{count} of {cell.sample_size} points from"
    starts = "" if cell.starts == 1 else f", {cell.starts} starts each"
    paragraphs = [
        f"Algorithm `{cell.algorithm}` from start `{cell.init}`, model `{cell.model}`, "
        f"on {samples} {factor} `{name}`{starts}."
        + (f" Source of `{name}`: {source}" if source else ""),
        _outcome(statistics, estimates),
        _guide(plan, cell, run),
        f"{plan.title}. {plan.question}",
        _table(cell, statistics, estimates),
    ]
    return "\n\n".join(paragraphs)


def _outcome(row: pd.Series, estimates: pd.Series) -> str:
    if row["n_fits"] == 1:
        return (
            f"Outcome: `{estimates['outcome']}` after {counted(estimates['n_iter'], 'iteration')}."
        )
    counts = [
        f"{row[f'n_{outcome}']:.0f} `{outcome}`" for outcome in OUTCOMES if row[f"n_{outcome}"]
    ]
    levels = {"10 %": row["n_iter_q10"], "half": row["n_iter_median"], "90 %": row["n_iter_q90"]}
    reached = [f"{level} {_iterations(value)}" for level, value in levels.items()]
    return (
        f"Outcomes of {row['n_fits']:.0f} fits: {', '.join(counts)}. "
        f"Converged of all fits: {', '.join(reached)}."
    )


def _iterations(value: float) -> str:
    if pd.isna(value):
        return "not within the budget"
    return f"within {counted(int(value), 'iteration')}" if value < math.inf else "never"


def _table(cell: Cell, row: pd.Series, estimates: pd.Series) -> str:
    columns = ["parameter", "truth", "representative fit", "bias ± MCSE", "RMSE ± MCSE"]
    rows = [columns, [":---"] + ["---:"] * 4]
    for name in parameter_columns(cell.n_components):
        error = [
            _number(row.get(f"{kind}_{name}"), row.get(f"{kind}_{name}_mcse"))
            for kind in ("bias", "rmse")
        ]
        rows.append([name, _number(row.get(f"true_{name}")), _number(estimates.get(name)), *error])
    # MLflow sets a table's columns without a gap; the line of dashes stays as it is.
    gaps = [" | " if number == 1 else " |&emsp;" for number in range(len(rows))]
    return "\n".join(f"| {gap.join(cells)} |" for gap, cells in zip(gaps, rows, strict=True))


def _number(value: Any, mcse: Any = None) -> str:
    if value is None or pd.isna(value):
        return ""
    return f"{value:.4g}" if mcse is None or pd.isna(mcse) else f"{value:.4g} ± {mcse:.2g}"


def _fit_name(plan: Plan, cell: Cell) -> str:
    replicate, start = plan.representative(cell)
    return f"replicate {replicate}, start {start}"


def _guide(plan: Plan, cell: Cell, run: Run) -> str:
    one = "the fit" if cell.replicates * cell.starts == 1 else _fit_name(plan, cell)
    recorded = plan.config["schedule"]["record_replicates"]
    over = (
        "all fits"
        if recorded == "all"
        else f"the fits of the first {counted(recorded, 'replicate').removeprefix('1 ')}"
    )
    # One line each: MLflow breaks a paragraph where its source does.
    pictures = (
        f"- **Model metrics, fit**: pictures of {one} with a slider over iterations. Scroll in the "
        "tile, past the parameters, and click the picture to enlarge it."
    )
    lines = [
        "#### Where to look",
        *([pictures] if run.snapshots else []),
        f"- **Model metrics, log_likelihood and params**: the trajectory of {one}; step is EM's "
        "iteration, step 0 the start.",
        "- **Model metrics, log_likelihood_gap**: what a fit still gains before its last iteration "
        f"(median, 10 % and 90 % over {over}); choose a logarithmic y-axis.",
        "- **Model metrics, n_iter and statistics**: one number each for the cell, as in "
        "`convergence.csv`.",
        "- **Artifacts**: the settings" + (", the report's figures." if run.artifacts else "."),
    ]
    return "\n".join(lines)
