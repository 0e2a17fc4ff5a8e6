"""Stage `plan`: compose and check the configuration once, and write `plan.yaml`.

`python -m pipeline.stages.plan experiment=NAME [any Hydra override]`; the overrides listed in
`params.yaml` come first, those of the command line after them.
"""

import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from pipeline.command import run_command
from pipeline.config import compose
from pipeline.console import counted
from pipeline.errors import InputError
from pipeline.locks import alone_in
from pipeline.plan import Plan, write_plan
from pipeline.planning import make_plan
from pipeline.stages import params, timed
from pipeline.statistics.claims import check as check_claims

log = logging.getLogger(__name__)


def plan(config: dict[str, Any], folder: Path, overrides: Sequence[str] = ()) -> Plan:
    """Plan a checked configuration into a results folder; nothing is written on bad input."""
    result = planned(config, folder, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        write(result, folder)
    return result


def planned(config: dict[str, Any], folder: Path, overrides: Sequence[str]) -> Plan:
    """Return the plan of a checked configuration, whose samples the folder's disk can hold."""
    result, remarks = make_plan(config, overrides)
    check_claims(result)
    for remark in remarks:
        log.info("%s", remark)
    _check_space(result, folder)
    n_fits = sum(cell.replicates * cell.starts for cell in result.cells)
    n_cells = counted(len(result.cells), "cell")
    log.info("plan: %s: %s, %s", result.experiment, n_cells, counted(n_fits, "fit"))
    return result


def write(result: Plan, folder: Path) -> None:
    """Write `plan.yaml` into a results folder that this process has."""
    with timed("plan", folder):
        write_plan(result, folder)


def _check_space(result: Plan, folder: Path) -> None:
    """Refuse samples that the disk cannot hold, before anything is written."""
    drawn = [data for data in result.data_sets if data.file is not None]
    needed = 8 * sum(data.replicates * data.sample_size for data in drawn)
    existing = next(path for path in [folder, *folder.absolute().parents] if path.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(
            f"sample_sizes, replicates: the samples need {decimal(int(needed))}; allowed: the "
            f"{decimal(free)} that are free in {existing}"
        )


def main() -> None:
    """Plan what the command line and `params.yaml` say."""
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    overrides = [*params()["overrides"], *sys.argv[1:]]
    config = compose(overrides)
    if config["shard"] is not None:
        raise InputError("shard: stages work on whole results; allowed: with python -m pipeline")
    plan(config, Path(config["results_dir"]) / config["experiment"], overrides)


if __name__ == "__main__":
    run_command(main)
