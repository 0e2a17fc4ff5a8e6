"""What the stages' commands share: arguments, `params.yaml`, exit statuses, timings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from pipeline.command import exit_status
from pipeline.errors import InputError, TrackingError
from pipeline.files import atomic_write
from pipeline.stages import folders, params, record_timings, timed

ROOT = Path(__file__).resolve().parent.parent


def test_arguments_name_folders(workspace):
    (workspace / "here").mkdir()
    assert folders(["experiment=a"]) == [Path("results/a")]
    assert folders(["experiment=a", "experiment=b", "results_dir=x"]) == [Path("x/a"), Path("x/b")]
    assert folders(["here"]) == [Path("here")]
    assert folders([]) == []
    (workspace / "params.yaml").write_text("experiments: [a, b]\n")
    assert folders([]) == [Path("results/a"), Path("results/b")]
    for bad in ("nowhere", "seed=1", "--force"):
        with pytest.raises(InputError, match=bad):
            folders([bad])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("overrides: seed=7", "overrides"),
        ("overrides: [1]", "overrides"),
        ("experiment: [a]", "experiment"),
        ("experiments: [a", "params.yaml"),
        ("just text", "params.yaml"),
    ],
)
def test_bad_params_are_refused(workspace, text, named):
    (workspace / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=named):
        params()


def test_the_projects_own_params_are_good(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert params() == {"experiments": ["notebook", "convergence"], "overrides": []}


def test_plan_reads_the_overrides_of_params(command, workspace):
    (workspace / "params.yaml").write_text("overrides: ['seed=7', 'replicates=3']\n")
    done = command("pipeline.stages.plan", "experiment=notebook", "replicates=2")
    assert done.returncode == 0, done.stderr
    text = (workspace / "results/notebook/plan.yaml").read_text()
    assert "seed: 7" in text and "replicates: 2" in text


@pytest.mark.parametrize(
    "stage",
    ["plan", "generate", "fit", "aggregate", "report", "track", "replay", "replicates_needed"],
)
def test_every_command_refuses_bad_arguments(command, workspace, stage):
    alone = stage in ("replay", "replicates_needed")
    module = f"pipeline.{stage}" if alone else f"pipeline.stages.{stage}"
    for arguments in (["nonsense=1"], ["experiment=nosuch"]):
        done = command(module, *arguments)
        assert done.returncode == 2, (stage, arguments, done.stderr)
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) <= 2
        assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("bad key"), 2),
        (TrackingError("no server"), 3),
        (PermissionError(13, "Permission denied", "results/x"), 1),
        (OSError(28, "No space left on device", "results/y"), 1),
        (MemoryError(), 1),
        (pa.ArrowMemoryError("malloc of size 1048576 failed"), 1),
    ],
)
def test_errors_that_are_the_users_are_told_in_a_line(capsys, error, status):
    def work():
        raise error

    assert exit_status(work) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")


def test_a_full_disk_is_told_in_the_words_of_the_system(workspace, capsys):
    def work():
        with atomic_write(workspace / "table.parquet"):
            raise OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left")

    assert exit_status(work) == 1
    told = capsys.readouterr().err
    assert told == f"error: {os.strerror(28)}: {workspace / 'table.parquet'}\n"


def test_errors_that_are_ours_keep_their_traceback():
    def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exit_status(work)


def test_timings_replace_those_of_the_same_stage(workspace):
    for _ in range(2):
        for stage in ("fit", "report"):
            with timed(stage, workspace):
                time.sleep(0.001)
    table = pd.read_parquet("timings.parquet")
    assert list(table.columns) == ["stage", "what", "cell", "seconds"]
    assert list(table["stage"]) == ["fit", "report"]
    assert (table["seconds"] >= 0.001).all()
    record_timings(workspace, "fit", "block", [("a", 1.0), ("b", 2.0)])
    assert list(pd.read_parquet("timings.parquet")["what"]) == ["fit", "report", "block", "block"]
    record_timings(workspace, "fit", "block", [])
    pd.testing.assert_frame_equal(pd.read_parquet("timings.parquet"), table)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_was(command, workspace, number):
    study = ["experiment=convergence", "tracking=none", "report=minimal", "replicates=1000"]
    study += ["mixture=[overlap_high]", "sample_sizes=[20,40,60,80,100]", "executor.workers=1"]
    line = [sys.executable, "-m", "pipeline", *study]
    process = subprocess.Popen(
        line, cwd=workspace, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    fits = workspace / "results/convergence/fits"
    while not list(fits.glob("[!.]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    began = time.monotonic()
    error = process.communicate(timeout=60)[1]
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in error
    kept = len(list(workspace.glob(".cells/**/*.arrow")))
    assert kept > 0
    parts = list(fits.glob("[!.]*"))
    assert 0 < len(parts) <= kept < 10
    for part in parts:
        assert len(pd.read_parquet(part)) == 1000, "whole, or not there"
    done = command("pipeline", *study)
    assert done.returncode == 0, done.stderr
    total = pd.read_parquet(workspace / "results/convergence/fits")
    assert len(total) == 10 * 1000
    timings = pd.read_parquet(workspace / "results/convergence/timings.parquet")
    again = (timings["what"] == "block").sum()
    assert again + kept == len(list(workspace.glob(".cells/**/*.arrow")))


def test_nobody_reading_the_output_is_no_error():
    line = f"{sys.executable} -m pipeline.list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"
