"""A run that is killed at any moment goes on from its finished blocks to the same bytes."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.locks import alone_in
from tests.conftest import ROOT

STUDY = (
    "experiment=notebook",
    "model=[free]",
    "init=[random_points,kmeans_pp]",
    "sample_sizes=[20,100,300]",
    "replicates=4000",
    "schedule=converge",
    "schedule.record_replicates=3",
    "tracking=none",
    "report=minimal",
)
# What a run says of how fast it was, and the index of the folder above.
NOT_COMPARED = {"timings.parquet"}


def start(folder: Path, *overrides: str, limit: int | None = None) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *STUDY, *overrides],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
        start_new_session=True,
    )


def finish(folder: Path, *overrides: str) -> str:
    run = start(folder, *overrides)
    told = run.communicate()[1]
    assert run.returncode == 0, told
    return told


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of the results and of the store, hidden ones too."""
    paths = [p for name in ("results", ".cells") for p in (folder / name).rglob("*") if p.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path.name not in NOT_COMPARED
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[dict[str, bytes], float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    finish(folder)
    return contents(folder), time.monotonic() - began


def of_results(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith("results/")}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_again_and_again_it_ends_with_the_same_bytes(end, tmp_path, undisturbed):
    whole, seconds = undisturbed
    folder = tmp_path / "study"
    for part in (0.35, 0.6, 0.85):
        run = start(folder)
        time.sleep(part * seconds)
        told_at = time.monotonic()
        os.killpg(run.pid, end) if end == signal.SIGKILL else os.kill(run.pid, end)
        told = run.communicate()[1]
        if run.returncode == 0:
            continue
        if end == signal.SIGKILL:
            assert run.returncode == -signal.SIGKILL
        else:
            assert run.returncode == 130
            assert "the same command goes on from there" in told
            assert time.monotonic() - told_at < 10.0, "a busy machine may take its time"
    told = finish(folder)
    assert "cells:" in told
    assert of_results(contents(folder)) == of_results(whole)
    # Blocks that were finished are not made again, so the store is that of one run.
    stored = {name for name in contents(folder) if name.endswith(".arrow")}
    assert {name for name in whole if name.startswith(".cells/")} - {".cells/lock"} <= stored


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_still_being_imported_ends_with_the_line_too(end):
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "pipeline.list"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        for line in run.stderr:
            if line.endswith("pipeline\n"):
                break
        run.send_signal(end)
        told = run.stderr.read()
    assert run.returncode == 130
    assert "interrupted: " in told
    assert "Traceback" not in told


def test_runs_in_one_results_folder_take_turns_and_one_that_waits_can_be_interrupted(tmp_path):
    """Each once removed the other's temporary files and died of it."""
    folder = tmp_path / "results" / "notebook"
    folder.mkdir(parents=True)
    own = folder / "samples" / ".of-another-run.tmp.npy"
    own.parent.mkdir()
    with alone_in(folder):
        own.touch()
        runs = [start(tmp_path, "replicates=5", f"seed={seed}") for seed in (1, 2)]
        stage = subprocess.Popen(
            [sys.executable, "-m", "pipeline.stages.generate", str(folder)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for run in (*runs, stage):
            # After what the plan has to say.
            assert any("another run is at work" in line for line in run.stderr)
        for run in (runs[0], stage):
            run.send_signal(signal.SIGINT)
            told = run.communicate()[1]
            assert (run.returncode, told.count("\n")) == (130, 1), told
        assert [path for path in folder.rglob("*") if path.is_file()] == [own]
    told = runs[1].communicate()[1]
    assert runs[1].returncode == 0, told
    assert not own.exists(), "what a killed run left behind is removed"
    assert pd.read_parquet(folder / "fits")["replicate"].nunique() == 5


@pytest.mark.parametrize("work", ["lambda: None", "lambda: 3"])
def test_an_interruption_after_the_work_leaves_its_status(work):
    program = (
        "import atexit, os, signal\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        f"from pipeline.command import run_command\nrun_command({work})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (eval(work)() or 0, "")


def test_an_interruption_that_a_library_answers_with_another_error_is_one():
    program = (
        "import os, signal\nfrom pipeline.command import run_command\n"
        "def work():\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n        unbound\n"
        "run_command(work)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 130
    assert run.stderr.startswith("interrupted: ")


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, undisturbed):
    whole, _ = undisturbed
    folder = tmp_path / "study"
    run = start(folder, limit=200_000)
    told = run.communicate()[1]
    assert run.returncode == 1, told
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert ".cells/" in line or "results/" in line, line
    assert not [name for name in contents(folder) if ".tmp" in name], "no pieces are left"
    finish(folder)
    assert of_results(contents(folder)) == of_results(whole)


def test_damaged_blocks_are_told_and_made_again(tmp_path, undisturbed):
    whole, _ = undisturbed
    folder = tmp_path / "study"
    finish(folder)
    first, second, *_ = sorted((folder / ".cells").rglob("*.arrow"))
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    second.write_bytes(damaged)
    told = finish(folder)
    assert told.count("is damaged or gone: computed again") == 2
    assert contents(folder) == whole
