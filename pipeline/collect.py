"""One table over the jobs of sweeps: `python -m pipeline.collect [results_dir=DIR]`.

Reads `convergence.parquet` of every job below `<results_dir>/multirun` and writes, there,
`convergence.parquet` and `convergence.csv`: the same rows, after the columns `job`, the folder of
the job, and one `override/<key>` for every key that its command line set. A multirun ends with it.
Jobs of earlier sweeps are among them: a sweep that is to stand alone has a results_dir of its own.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.command import run_command
from pipeline.console import counted
from pipeline.errors import InputError
from pipeline.files import atomic_write, write_text
from pipeline.plan import FILE, MULTIRUN, Plan, read_plan
from pipeline.stages import RESULTS_DIR
from pipeline.tables import STATISTICS, read_statistics

log = logging.getLogger(__name__)

OVERRIDE = "override/"


def collected(place: Path) -> pd.DataFrame:
    """Return the statistics of all jobs below the folder of multiruns, in the order of their names.

    Raises
    ------
    InputError
        If there is no finished job.
    """
    tables = []
    for path in sorted(place.glob(f"*/*/{FILE}")):
        folder = path.parent
        if not (folder / STATISTICS).is_file():
            log.warning("%s: not finished, left out", folder)
            continue
        try:
            plan = read_plan(folder)
            rows = read_statistics(folder, plan)
        except InputError as error:
            log.warning("%s, left out", error)
            continue
        told: dict[str, Any] = {"job": folder.relative_to(place).as_posix()}
        told |= {f"{OVERRIDE}{key}": value for key, value in _overrides(plan)}
        tables.append(pd.concat([pd.DataFrame(told, rows.index), rows], axis=1))
    if not tables:
        raise InputError(f"{place}: no finished job; allowed: the results of python -m pipeline -m")
    table = pd.concat(tables, ignore_index=True)
    # Keys that only some jobs set stand with the others.
    first = [name for name in table if name == "job" or str(name).startswith(OVERRIDE)]
    return table[[*first, *(name for name in table if name not in first)]]


def _overrides(plan: Plan) -> list[tuple[str, str]]:
    pairs = [override.partition("=") for override in plan.overrides]
    return [(key.lstrip("+"), value) for key, _, value in pairs]


def collect(results_dir: Path) -> Path:
    """Write the table of all jobs below a results folder; return its path."""
    place = results_dir / MULTIRUN
    table = collected(place)
    path = place / STATISTICS
    with atomic_write(path) as temporary:
        table.to_parquet(temporary, index=False)
    write_text(path.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
    jobs = counted(table["job"].nunique(), "job")
    log.info("sweep: %s, %s: %s (.csv)", jobs, counted(len(table), "cell"), path)
    return path


def main(arguments: Sequence[str]) -> None:
    """Collect what the command line names."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    results_dir = Path(RESULTS_DIR)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key != "results_dir" or not value:
            raise InputError(f"argument: got {argument!r}; allowed: results_dir=DIR")
        results_dir = Path(value)
    collect(results_dir)


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
