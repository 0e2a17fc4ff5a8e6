"""Stage `aggregate`: the statistics of every cell, from the fits."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.files import atomic_write, write_text
from pipeline.plan import read_plan
from pipeline.stages import run
from pipeline.statistics.cells import convergence, fit_columns
from pipeline.statistics.claims import check as check_claims
from pipeline.statistics.claims import claims, counts, sentences
from pipeline.statistics.comparisons import comparisons
from pipeline.statistics.presentation import latex, markdown, tables
from pipeline.statistics.references import derived
from pipeline.statistics.slopes import slopes
from pipeline.tables import (
    FITS,
    OUTCOMES,
    STATISTICS,
    check_parts,
    fits_columns,
    read_fits,
    write_statistics,
)

log = logging.getLogger(__name__)


def aggregate(folder: Path) -> None:
    """Write the statistics of a results folder: per cell, per fit, and of the whole study."""
    plan = read_plan(folder)
    check_parts(folder, plan, [FITS])
    check_claims(plan)
    fits = read_fits(folder, [*fit_columns(plan, fits_columns(folder, plan)), "fit_id"])
    beside = derived(fits, plan)
    with atomic_write(folder / "derived.parquet") as path:
        beside.to_parquet(path, index=False)
    paired = comparisons(fits, plan, beside)
    with atomic_write(folder / "comparisons.parquet") as path:
        paired.to_parquet(path, index=False)
    table = convergence(fits, plan, beside)
    lines = slopes(table, plan)
    judged = claims(table, lines, plan)
    for name, rows in (("slopes", lines), ("claims", judged)):
        with atomic_write(folder / f"{name}.parquet") as path:
            rows.to_parquet(path, index=False)
    write_statistics(folder / STATISTICS, table, plan)
    # Shortest decimals that read back as the same float64.
    write_text(folder / "convergence.csv", table.to_csv(index=False, lineterminator="\n"))
    shown = tables(table)
    write_text(folder / "convergence.md", markdown(plan.title, shown))
    write_text(folder / "convergence.tex", latex(plan.title, shown))
    text = json.dumps(metrics(table) | counts(judged), indent=2, sort_keys=True, allow_nan=False)
    write_text(folder / "metrics.json", text + "\n")
    log.info("aggregate: %d cells, %d fits", len(table), table["n_fits"].sum())
    for sentence in sentences(judged):
        log.info("%s", sentence)


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
