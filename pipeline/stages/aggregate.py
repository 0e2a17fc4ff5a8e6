"""Stage `aggregate`: the statistics of every cell, from the fits."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline.files import atomic_write, write_text
from pipeline.plan import Plan, read_plan
from pipeline.stages import run
from pipeline.statistics.cells import convergence, fit_columns
from pipeline.statistics.references import derived
from pipeline.statistics.stop_replay import FIT_COLUMNS, MOST_ANSWERS, queries, stops, trace_columns
from pipeline.tables import (
    FITS,
    OUTCOMES,
    REPLAY,
    ROW_GROUP,
    STATISTICS,
    TRACES,
    check_parts,
    part_name,
    read_fits,
    replay_schema,
    whole_traces,
    write_statistics,
)

log = logging.getLogger(__name__)


def aggregate(folder: Path) -> None:
    """Write the statistics of a results folder: per cell, per fit, and of the whole study."""
    plan = read_plan(folder)
    check_parts(folder, plan, [FITS])
    fits = read_fits(folder, [*fit_columns(plan), "fit_id"])
    beside = derived(fits, plan)
    with atomic_write(folder / "derived.parquet") as path:
        beside.to_parquet(path, index=False)
    table = convergence(fits, plan, beside)
    write_statistics(folder / STATISTICS, table, plan)
    # Shortest decimals that read back as the same float64.
    write_text(folder / "convergence.csv", table.to_csv(index=False, lineterminator="\n"))
    text = json.dumps(metrics(table), indent=2, sort_keys=True, allow_nan=False)
    write_text(folder / "metrics.json", text + "\n")
    write_replay(folder, plan)
    log.info("aggregate: %d cells, %d fits", len(table), table["n_fits"].sum())


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
            fits = pq.ParquetFile(folder / FITS / part).read(FIT_COLUMNS)
            # Of the other replicates the traces are not complete.
            kept = plan.config["schedule"]["record_replicates"]
            n_fits = cell.starts * (
                cell.replicates if kept == "all" else min(kept, cell.replicates)
            )
            where, columns = folder / TRACES / part, trace_columns(cell.n_components)
            most = max(1, MOST_ANSWERS // len(asked))
            for first, stop, rows in whole_traces(where, columns, cell.starts, n_fits, most):
                answers = stops(fits.slice(first, stop - first), rows, asked, cell, plan)
                writer.write_table(answers, ROW_GROUP)


def metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return the few numbers of a whole study that `dvc metrics` compares.

    Counts are totals over the cells; `converged_share` is over all fits, `n_iter_median_smallest`
    and `_largest` are the extremes over the cells, `mean_log_likelihood` and `rmse_mean` averages
    over the cells, the latter also over the means. What does not exist is left out.
    """
    counts = ["n_fits", *(f"n_{outcome}" for outcome in OUTCOMES)]
    errors = table.filter(regex=r"^rmse_mean_\d+$")
    result = {
        "n_cells": len(table),
        **{name: int(table[name].sum()) for name in counts},
        "converged_share": table["n_converged"].sum() / table["n_fits"].sum(),
        "n_iter_median_smallest": table["n_iter_median"].min(),
        "n_iter_median_largest": table["n_iter_median"].max(),
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
