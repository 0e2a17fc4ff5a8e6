"""What a cell, a fit, a tracked run and a file cost: `python -m benchmarks.scale`, some minutes.

Whole commands are run in temporary folders; the sections of `docs/scale.md` are written from what
they took, and what larger studies take is calculated from it there.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import SETTINGS
from benchmarks.page import PAGE, ROOT, machine, table, write_section
from pipeline.blocks import block_size, fit_block
from pipeline.plan import Cell, Plan, read_plan
from pipeline.samples import written_samples
from pipeline.stages import TIMINGS
from pipeline.store import Block, missing_blocks

SCALE = PAGE.with_name("scale.md")
# What of a command's stages is shown, and its name there.
SHOWN = {
    "generate": "generate",
    "fit": "fit",
    "rest": "fit without its fits",
    "aggregate": "aggregate",
    "report": "report",
}
# 2 mixtures x 2 inits x 125 sizes.
CELLS = 500
NEW = "from nothing"
SIZES = ",".join(str(20 + size) for size in range(CELLS // 4))
GRID = (
    "experiment=convergence",
    "mixture=[overlap_high,notebook]",
    "init=[random_points,kmeans_pp]",
    "schedule.record_replicates=1",
)
FITS = 10**6
TRACKED = 100
FILES = 1000
# Fits of the studies that are calculated, a million in each cell.
STUDIES = (10**6, 10**9, 10**12)
GIB = 2.0**30


@dataclass(frozen=True)
class Cost:
    """What a command took: wall and CPU in seconds, memory in bytes, wall of its stages."""

    wall: float
    cpu: float
    memory: float
    stages: dict[str, float]


def run(folder: Path, module: str, *arguments: str) -> Cost:
    """Run `python -m module arguments` with a folder as working directory.

    Raises
    ------
    RuntimeError
        If the command fails.
    """
    environment = {name: os.environ[name] for name in os.environ if name not in SETTINGS}
    command = [sys.executable, "-m", module, *arguments]
    began = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    # What this child alone has used.
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {child.returncode}")
    stages = {}
    for path in folder.glob(f"results/*/{TIMINGS}"):
        timings = pd.read_parquet(path)
        whole = timings[timings["what"] == timings["stage"]]
        stages = dict(zip(whole["stage"], whole["seconds"], strict=True))
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024.0, stages)


def study(folder: Path, *overrides: str, tracking: str = "none") -> Cost:
    """Run an experiment, all stages in one command."""
    return run(folder, "pipeline", *overrides, f"tracking={tracking}", "report=minimal")


def size(*paths: Path) -> float:
    """Return the bytes of all files below some folders."""
    return float(sum(p.stat().st_size for path in paths for p in path.rglob("*") if p.is_file()))


def fits_alone(folder: Path) -> float:
    """Return the seconds that the fits of a results folder take where nothing else is done."""
    plan = read_plan(folder)
    samples = written_samples(plan, folder)
    work = [
        (plan, cell, samples(cell, block), block)
        for cell in plan.cells
        for block in missing_blocks(cell.replicates, cell.starts, [], block_size(plan, cell))
    ]
    with ThreadPoolExecutor(plan.workers) as pool, ThreadPoolExecutor(plan.workers) as helpers:

        def fit(arguments: tuple[Plan, Cell, np.ndarray | None, Block]) -> None:
            fit_block(*arguments, helpers.map)

        for first in {arguments[1].init: arguments for arguments in work}.values():
            fit(first)  # what is to be compiled
        began = time.perf_counter()
        list(pool.map(fit, work))
        return time.perf_counter() - began


def cells(folder: Path) -> str:
    """Measure what cells cost, and return the table."""
    rows = []
    small = ("schedule.max_iter=5", "replicates=1")
    single = (*GRID, "mixture=[notebook]", "init=[kmeans_pp]", "sample_sizes=[20]", *small)
    nothing, stored = study(folder, *single), study(folder, *single)
    runs = {
        f"one fit each, {NEW}": (nothing, small),
        "one fit each, all stored": (stored, small),
        f"1,000 fits each, {NEW}": (nothing, ("replicates=1000",)),
        "1,000 fits each, all stored": (stored, ("replicates=1000",)),
    }
    for name, (one, overrides) in runs.items():
        cost = study(folder, *GRID, f"sample_sizes=[{SIZES}]", *overrides)
        taken = {stage: cost.stages[stage] - one.stages[stage] for stage in cost.stages}
        alone = fits_alone(folder / "results/convergence") if NEW in name else 0.0
        taken["rest"] = taken["fit"] - alone * (CELLS - 1) / CELLS
        stages = " | ".join(f"{1e3 * taken[s] / (CELLS - 1):.2f}" for s in SHOWN)
        wall, cpu = (
            f"{1e3 * (getattr(cost, what) - getattr(one, what)) / (CELLS - 1):.1f}"
            for what in ("wall", "cpu")
        )
        rows.append(f"{name} | {stages} | {wall} | {cpu}")
        print(rows[-1], flush=True)
    header = " | ".join([f"{CELLS} cells", *SHOWN.values(), "whole command", "its CPU time"])
    return (
        f"Milliseconds per cell ({machine()}); what a command with one cell takes, "
        f"{nothing.wall:.1f} s, is taken off.\n\n{table(header, rows)}"
    )


@dataclass(frozen=True)
class Fit:
    """What a fit costs: CPU in seconds, bytes in the store and in the results, memory in bytes."""

    cpu: float
    stored: float
    written: float
    memory: float
    aggregate: float


def fits(folder: Path) -> Fit:
    """Measure what a fit of the experiment `million` costs."""
    study(folder, "experiment=million", "replicates=100")  # what is to be compiled
    floor = study(folder, "experiment=million", "replicates=101")
    whole = study(folder, "experiment=million", f"replicates={FITS}", "store_dir=whole")
    again = run(folder, "pipeline.stages.aggregate", "experiment=million")
    small = run(folder, "pipeline.stages.aggregate", "--help")
    return Fit(
        cpu=(whole.cpu - floor.cpu) / FITS,
        stored=size(folder / "whole") / FITS,
        written=size(folder / "results/million/fits") / FITS,
        memory=(again.memory - small.memory) / FITS,
        aggregate=whole.stages["aggregate"] / FITS,
    )


def tracked(folder: Path) -> tuple[float, float]:
    """Return the seconds and the bytes of a cell's run in MLflow."""
    sizes = ",".join(str(20 + n) for n in range(TRACKED // 2))
    cost = study(
        folder, *GRID, "mixture=[notebook]", f"sample_sizes=[{sizes}]", "replicates=100",
        tracking="sqlite",
    )  # fmt: skip
    n_bytes = size(folder / "mlartifacts") + (folder / "mlflow.db").stat().st_size
    return cost.stages["track"] / TRACKED, n_bytes / TRACKED


def hashed(folder: Path) -> float:
    """Return the seconds that DVC takes for a small file of a data set."""
    data = folder / "data"
    data.mkdir()
    for index in range(FILES):
        (data / f"{index}.txt").write_text(str(index))
    run(folder, "dvc", "init", "--no-scm", "--quiet")
    floor = run(folder, "dvc", "add", "--quiet", "data/0.txt").wall
    (folder / "data/0.txt.dvc").unlink()
    return (run(folder, "dvc", "add", "--quiet", "data").wall - floor) / FILES


def human(n_bytes: float) -> str:
    """Return bytes in the largest decimal unit that leaves a digit before the point."""
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    power = 0
    while n_bytes >= 1000.0 and power < len(units) - 1:
        n_bytes, power = n_bytes / 1000.0, power + 1
    return f"{n_bytes:.3g} {units[power]}"


def studies(fit: Fit, per_run: float, run_bytes: float, per_file: float) -> str:
    """Calculate what studies with a million fits in every cell need."""
    rows = []
    for n in STUDIES:
        n_cells = n // 10**6
        rows.append(
            " | ".join(
                [
                    f"10^{len(str(n)) - 1}",
                    f"{n_cells:,}",
                    f"{n * fit.cpu / 3600.0:,.3g}",
                    human(n * fit.stored),
                    human(n * fit.written),
                    human(n * fit.memory),
                    f"{n * fit.aggregate / 3600.0:,.2g}",
                    f"{n_cells * per_run / 3600.0:,.2g}",
                    human(n_cells * run_bytes),
                    f"{2 * n_cells * per_file / 3600.0:,.2g}",
                ]
            )
        )
    header = " | ".join(
        ["fits", "cells", "core-hours", "store", "`fits/`", "memory of `aggregate`",
         "hours of `aggregate`", "hours of `track`", "MLflow's files", "hours of DVC for its files"]
    )  # fmt: skip
    return table(header, rows)


def main() -> None:
    """Measure, and write the sections of the page."""
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("cells", "fits", "tracked", "hashed")]
        for folder in folders:
            folder.mkdir()
        write_section("cells", cells(folders[0]), SCALE)
        fit = fits(folders[1])
        per_run, run_bytes = tracked(folders[2])
        per_file = hashed(folders[3])
    rows = [
        f"a fit: CPU time, all stages | {1e6 * fit.cpu:.1f} µs",
        f"a fit in the store | {fit.stored:.0f} B",
        f"a fit in `fits/` | {fit.written:.0f} B",
        f"a fit in the memory of `aggregate` | {fit.memory:.0f} B",
        f"a fit: wall time of `aggregate` | {1e6 * fit.aggregate:.1f} µs",
        f"a cell's run in MLflow | {1e3 * per_run:.0f} ms, {human(run_bytes)}",
        f"a file for DVC | {1e3 * per_file:.1f} ms",
    ]
    text = f"{machine()}; fits of the experiment `million`.\n\n{table('what | cost', rows)}"
    write_section("fits", text, SCALE)
    write_section("studies", studies(fit, per_run, run_bytes, per_file), SCALE)


if __name__ == "__main__":
    main()
