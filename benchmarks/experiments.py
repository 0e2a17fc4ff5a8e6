"""Whole experiments by the clock: `python -m benchmarks.experiments`, minutes and gigabytes.

Each is run as a command of its own, with results and store in a temporary folder, once small to
compile what it needs and then as it is.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks import SETTINGS
from benchmarks.page import ROOT, machine, table, write_section
from pipeline.stages import TIMINGS

# Each experiment with what makes it small.
EXPERIMENTS = {"million": "replicates=100", "hundred_million": "sample_sizes=[100000]"}
STAGES = ("generate", "fit", "aggregate", "report")


def run(*overrides: str) -> tuple[float, dict[str, float]]:
    """Return the seconds of a command from start to end, and those of its stages."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipeline", "tracking=none", "report=minimal", *overrides]
        command += [f"results_dir={folder}/results", f"store_dir={folder}/cells"]
        environment = {name: os.environ[name] for name in os.environ if name not in SETTINGS}
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        seconds = time.perf_counter() - began
        (path,) = Path(folder, "results").glob(f"*/{TIMINGS}")
        timings = pd.read_parquet(path)
    whole = timings[timings["what"] == timings["stage"]]
    return seconds, dict(zip(whole["stage"], whole["seconds"], strict=True))


def main() -> None:
    """Run the experiments and write their table."""
    rows = []
    for name, small in EXPERIMENTS.items():
        run(f"experiment={name}", small)
        seconds, stages = run(f"experiment={name}")
        cells = " | ".join(f"{stages[stage]:.1f}" for stage in STAGES)
        rows.append(f"`{name}` | {cells} | {seconds:.1f}")
        print(rows[-1], flush=True)
    header = " | ".join(["experiment", *STAGES, "whole command"])
    write_section("experiments", f"Seconds ({machine()}).\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()
