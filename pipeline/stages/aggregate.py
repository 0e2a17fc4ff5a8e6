"""Stage `aggregate`: the statistics of every cell, from the fits."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline.console import counted
from pipeline.files import atomic_write, reading, write_text
from pipeline.plan import Plan, read_plan
from pipeline.stages import run
from pipeline.statistics.cells import convergence, fit_columns, with_intervals_at
from pipeline.statistics.claims import check as check_claims
from pipeline.statistics.claims import claims, claims_level, counts, sentences
from pipeline.statistics.comparisons import comparisons, rule_comparisons
from pipeline.statistics.curves import Curve, long_table
from pipeline.statistics.latex import latex
from pipeline.statistics.presentation import markdown, tables
from pipeline.statistics.profiles import (
    outcome_profiles,
    performance_profiles,
    rivals,
    target_profiles,
    untold_targets,
)
from pipeline.statistics.recorded import ends_of_cells, recorded
from pipeline.statistics.references import derived
from pipeline.statistics.slopes import slopes
from pipeline.statistics.stop_replay import FIT_COLUMNS, MOST_ANSWERS, queries, rows_read, stops
from pipeline.statistics.trajectories import trajectories
from pipeline.tables import (
    FITS,
    OUTCOMES,
    REPLAY,
    ROW_GROUP,
    STATISTICS,
    TRACES,
    check_fits,
    check_parts,
    fits_columns,
    part_name,
    read_fits,
    replay_schema,
    write_statistics,
)
from pipeline.traces import trace_columns, whole_traces

PROFILES = "profiles.parquet"
TRAJECTORIES = "trajectories.parquet"
log = logging.getLogger(__name__)


def aggregate(folder: Path) -> None:
    """Write the statistics of a results folder: per cell, per fit, and of the whole study."""
    plan = read_plan(folder)
    check_parts(folder, plan, [FITS, TRACES])
    check_claims(plan)
    columns = fit_columns(plan, fits_columns(folder, plan))
    fits = read_fits(folder, [*columns, "fit_id", "sample_scale"])
    check_fits(folder, plan, fits)
    beside = derived(fits, plan)
    with atomic_write(folder / "derived.parquet") as path:
        beside.to_parquet(path, index=False)
    write_replay(folder, plan)
    paired = comparisons(fits, plan, beside)
    if queries(plan):
        paired = pd.concat([paired, rule_comparisons(pd.read_parquet(folder / REPLAY), plan)])
    with atomic_write(folder / "comparisons.parquet") as path:
        paired.to_parquet(path, index=False)
    table = convergence(fits, plan, beside)
    lines = slopes(table, plan)
    judged = claims(_at_claims_level(table, fits, plan), lines, plan)
    for name, rows in (("slopes", lines), ("claims", judged)):
        with atomic_write(folder / f"{name}.parquet") as path:
            rows.to_parquet(path, index=False)
    write_statistics(folder / STATISTICS, table, plan)
    write_curves(folder, plan, fits, beside)
    # Shortest decimals that read back as the same float64.
    write_text(folder / "convergence.csv", table.to_csv(index=False, lineterminator="\n"))
    shown = tables(table)
    write_text(folder / "convergence.md", markdown(plan.title, shown))
    write_text(folder / "convergence.tex", latex(plan.title, shown))
    text = json.dumps(metrics(table) | counts(judged), indent=2, sort_keys=True, allow_nan=False)
    write_text(folder / "metrics.json", text + "\n")
    n_fits = int(table["n_fits"].sum())
    log.info("aggregate: %s, %s", counted(len(table), "cell"), counted(n_fits, "fit"))
    for sentence in sentences(judged):
        log.info("%s", sentence)


def _at_claims_level(table: pd.DataFrame, fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return the statistics with intervals of the level that the claims need, if there are any."""
    if not plan.config["claims"]:
        return table
    return with_intervals_at(table, fits, plan, claims_level(plan, table))


def write_curves(folder: Path, plan: Plan, fits: pd.DataFrame, beside: pd.DataFrame) -> None:
    """Write `profiles.parquet` and `trajectories.parquet`, from the traces of one cell at a time.

    `beside` is what `derived` gave for these fits.
    """
    ends = ends_of_cells(fits, beside, plan)
    kept = plan.config["schedule"]["record_replicates"]
    profiles = list(outcome_profiles(plan.cells, ends))
    bands: list[Curve] = []
    for position, cell in enumerate(plan.cells):
        path = folder / TRACES / part_name(position, cell)
        column = trace_columns(path, None if kept == "all" else kept)
        group = recorded(cell, plan, ends[position], column)
        profiles += target_profiles(group, cell.id, plan.config["targets"])
        bands += trajectories(group, cell.id, cell.starts)
    untold = untold_targets(profiles)
    if untold and (fits["outcome"] == "converged").any():
        log.warning(
            "targets.distance_to_fixed_point: got %s; no fit is known to have come so near, as all "
            "that converged stopped farther away; remedy: a smaller schedule.stop.tolerance",
            ", ".join(f"{target:g}" for target in untold),
        )
    for kind, positions in rivals(plan):
        cells = [plan.cells[position] for position in positions]
        profiles += performance_profiles(cells, [ends[p] for p in positions], kind)
    for name, curves in ((PROFILES, profiles), (TRAJECTORIES, bands)):
        with atomic_write(folder / name) as path:
            long_table(curves).to_parquet(path, index=False)


def write_replay(folder: Path, plan: Plan) -> None:
    """Write the stops of the rules under `replay`, cell by cell; without rules no row."""
    asked = queries(plan)
    if asked:
        check_parts(folder, plan, [TRACES])
    with (
        atomic_write(folder / REPLAY) as path,
        pq.ParquetWriter(path, replay_schema(plan.n_components), compression="zstd") as writer,
    ):
        for index, cell in enumerate(plan.cells if asked else ()):
            part = part_name(index, cell)
            with reading(folder / FITS / part, "fit"):
                fits = pq.ParquetFile(folder / FITS / part).read(FIT_COLUMNS)
            # Of the other replicates the traces are not complete.
            kept = plan.config["schedule"]["record_replicates"]
            n_fits = cell.starts * (
                cell.replicates if kept == "all" else min(kept, cell.replicates)
            )
            where, columns = folder / TRACES / part, rows_read(cell.n_components)
            most = max(1, MOST_ANSWERS // len(asked))
            for first, stop, rows in whole_traces(where, columns, cell.starts, n_fits, most):
                answers = stops(fits.slice(first, stop - first), rows, asked, cell, plan)
                writer.write_table(answers, ROW_GROUP)


def metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return the few numbers of a whole study that `dvc metrics` compares.

    Counts are totals over the cells; `converged_share` is over all fits, `n_iter_median_smallest`
    and `_largest` are the extremes over the cells, `mean_log_likelihood` and `rmse_mean` averages
    over the cells, the latter also over the means. What does not exist, or is infinite, is left
    out.
    """
    counts = ["n_fits", *(f"n_{outcome}" for outcome in OUTCOMES)]
    errors = table.filter(regex=r"^rmse_mean_\d+$")
    result = {
        "n_cells": len(table),
        **{name: int(table[name].sum()) for name in counts},
        "converged_share": table["n_converged"].sum() / table["n_fits"].sum(),
        "n_iter_median_smallest": table["n_iter_median"].min(),
        # A median that the budget ended before is larger than all others: then none is known.
        "n_iter_median_largest": table["n_iter_median"].max(skipna=False),
        "mean_log_likelihood": table["mean_log_likelihood"].mean(),
        "rmse_mean": errors.stack().mean(),
    }
    return {
        name: value if isinstance(value, int) else float(value)
        for name, value in result.items()
        if np.isfinite(value)
    }


if __name__ == "__main__":
    run(aggregate)
