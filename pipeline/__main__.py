"""All stages in one process: `python -m pipeline experiment=NAME [any Hydra override]`.

With `-m` it is a Hydra multirun: every job has its own folder below `results_dir`/multirun.
"""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException

from pipeline.collect import collect
from pipeline.command import run_command, told
from pipeline.config import CONF, checked, compose
from pipeline.errors import InputError
from pipeline.locks import alone_in
from pipeline.plan import MULTIRUN, digest
from pipeline.planning import make_plan
from pipeline.stages import timed
from pipeline.tables import read_statistics
from pipeline.terminal import print_help, print_summary

log = logging.getLogger(__name__)

# Hydra's own flags: shown or swept by Hydra itself.
HYDRA_FLAGS = {"-m", "--multirun", "--hydra-help", "-c", "--cfg", "-i", "--info"}
HYDRA_FLAGS |= {"-sc", "--shell-completion", "--version"}
SHOWN_ONLY = HYDRA_FLAGS - {"-m", "--multirun"}


def run_shard(config: dict[str, Any]) -> None:
    """Compute a shard of a checked configuration's blocks into the store, and nothing else."""
    from pipeline.computing import Shard, complete
    from pipeline.samples import drawn_samples

    plan, _ = make_plan(config)
    shard = Shard(*map(int, config["shard"].split("/")))
    stored = complete(plan, drawn_samples(plan), shard)
    log.info(
        "shard %d of %d: %d blocks computed into %s; when all shards are done, the same command "
        "without shard assembles the results",
        shard.number, shard.of, len(stored.timings), config["store_dir"],
    )  # fmt: skip


def run_stages(config: dict[str, Any], folder: Path, overrides: Sequence[str] = ()) -> None:
    """Run every stage on a checked configuration, into one results folder."""
    from pipeline.stages.aggregate import aggregate
    from pipeline.stages.fit import fit
    from pipeline.stages.generate import generate
    from pipeline.stages.plan import planned, write
    from pipeline.stages.report import report
    from pipeline.stages.track import track

    made = planned(config, folder, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        write(made, folder)
        for stage in (generate, fit, aggregate, report, track):
            with timed(stage.__name__, folder):
                stage(folder)
        statistics = read_statistics(folder, made)
    print_summary(made, statistics, folder)


def run(config: dict[str, Any], folder: Path, overrides: Sequence[str]) -> None:
    """Do what a checked configuration says."""
    if config["shard"] is None:
        run_stages(config, folder, overrides)
    else:
        run_shard(config)


def job_folder(results_dir: str, experiment: str, overrides: str) -> Path:
    """Return the folder of one job of a multirun, named by its overrides."""
    name = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", overrides) or "defaults"
    if name != overrides or len(name) > 80:
        name = f"{name[:80]}-{digest(overrides)[:8]}"
    return Path(results_dir) / MULTIRUN / name / experiment


def multirun() -> list[int]:
    """Hand the command line to Hydra, which sweeps or shows.

    Returns
    -------
    list of int
        Exit statuses of jobs that failed by an error that is the user's; the others go on.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    failed: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def job(composed: Any) -> None:
        settings = HydraConfig.get()
        config = checked(composed, settings.runtime.choices["experiment"])
        folder = Path(config["results_dir"]) / config["experiment"]
        if settings.mode == RunMode.MULTIRUN:
            name = settings.job.override_dirname
            folder = job_folder(config["results_dir"], config["experiment"], name)
        try:
            run(config, folder, list(settings.overrides.task))
        except Exception as error:
            status = told(error)
            if status is None:
                raise
            failed.append(status)

    job()
    return failed


def sweep_overrides(arguments: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job of a multirun, as Hydra's basic sweeper makes them."""
    from hydra import initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = [argument for argument in arguments if not argument.startswith("-")]
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            # It knows the options that a glob can match.
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create(loader).parse_overrides(overrides)
            batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        jobs = [list(job) for batch in batches for job in batch]
    except (HydraException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"overrides: got {' '.join(overrides)}; {reason}") from error
    if not jobs:
        raise InputError(
            f"overrides: got {' '.join(overrides)}; allowed: patterns that match an option"
        )
    return jobs


def main(arguments: Sequence[str]) -> int:
    """Run, sweep or show what the command line says, and return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print_help()
        return 0
    if not HYDRA_FLAGS & set(arguments):
        config = compose(arguments)
        run(config, Path(config["results_dir"]) / config["experiment"], arguments)
        return 0
    if {"-m", "--multirun"} & set(arguments):
        # Every job is checked before the first one runs, and before Hydra makes a folder.
        configs = [compose(overrides) for overrides in sweep_overrides(arguments)]
        for config in configs:
            make_plan(config)
        for config in configs:
            # Hydra would answer a folder that cannot be made with a traceback.
            Path(config["results_dir"]).mkdir(parents=True, exist_ok=True)
        failed = multirun()
        if not SHOWN_ONLY & set(arguments) and len(failed) < len(configs):
            for results_dir in {c["results_dir"]: c for c in configs if c["shard"] is None}:
                collect(Path(results_dir))
        if failed:
            log.error("%d of %d jobs failed: see the errors above", len(failed), len(configs))
        # The first failure's: a status that tells what to mend.
        return next(iter(failed), 0)
    multirun()
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
