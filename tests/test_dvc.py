"""DVC on a fresh copy of the project: what an edit reruns, and nothing else."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.servers import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
ALL = {"plan", "generate", "fit", "aggregate", "report", "track"}
ALWAYS = {"plan", "track"}

# What MLflow itself does with its libraries is not this project's.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def dvc(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reproduce(checkout: Path) -> set[str]:
    """Reproduce the notebook's experiment; return the stages that ran."""
    out = dvc(checkout, "repro", "track@notebook")
    return {name for name in ALL if f"Running stage '{name}@notebook'" in out}


def edit(checkout: Path, name: str, old: str, new: str) -> None:
    path = checkout / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def git_status(checkout: Path) -> str:
    line = ["git", "status", "--porcelain"]
    return subprocess.run(line, cwd=checkout, capture_output=True, text=True, check=True).stdout


def test_reruns_follow_what_changed(checkout: Path):
    assert reproduce(checkout) == ALL
    # The outputs' hashes are those of the committed dvc.lock.
    assert git_status(checkout) == ""

    assert reproduce(checkout) == ALWAYS

    edit(checkout, "conf/mixture/notebook.yaml", "notebook:", "# a remark\nnotebook:")
    assert reproduce(checkout) == ALWAYS

    snapshots = ("snapshots: [0, 3, 6, 9]", "snapshots: [0, 9]")
    edit(checkout, "conf/schedule/notebook.yaml", *snapshots)
    assert reproduce(checkout) == ALWAYS | {"report"}

    edit(checkout, "conf/schedule/notebook.yaml", "max_iter: 9", "max_iter: 8")
    assert reproduce(checkout) == ALL - {"generate"}

    edit(checkout, "conf/experiment/notebook.yaml", "seed: 1", "seed: 2")
    assert reproduce(checkout) == ALL

    subprocess.run(["git", "checkout", "-q", "."], cwd=checkout, check=True)
    assert reproduce(checkout) == ALWAYS
    assert git_status(checkout) == ""


@pytest.fixture
def small(checkout: Path) -> Path:
    """Return a checkout whose only experiment is the notebook's, without figures."""
    edit(checkout, "params.yaml", "  - convergence\n", "")
    edit(checkout, "conf/experiment/notebook.yaml", "seed: 1", "seed: 1\nreport: minimal")
    commit(checkout, "notebook alone")
    return checkout


def commit(checkout: Path, message: str) -> None:
    for line in (["git", "add", "-A"], ["git", "commit", "-q", "-m", message]):
        subprocess.run(line, cwd=checkout, check=True)


def runs_in_mlflow(checkout: Path) -> dict[str, Run]:
    """Return the runs of the notebook's experiment by the results folder that they name."""
    client = MlflowClient(f"sqlite:///{checkout / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("notebook")
    runs = client.search_runs([experiment.experiment_id])
    named = {run.data.tags["results"]: run for run in runs}
    assert len(named) == len(runs)
    return named


def test_an_experiment_in_the_workspace(small: Path):
    dvc(small, "exp", "run", "-n", "seven", "-S", 'overrides=["seed=7"]')
    plan = yaml.safe_load((small / "results/notebook/plan.yaml").read_text())
    assert plan["config"]["seed"] == 7
    assert "seed=7" in dvc(small, "params", "diff")
    assert "results/notebook/metrics.json" in dvc(small, "metrics", "diff")
    assert "mean_log_likelihood" in dvc(small, "metrics", "show")
    # Its files are the workspace's, and so are its runs.
    (run,) = runs_in_mlflow(small).values()
    assert run.data.tags["results"] == "results/notebook"
    assert run.info.run_name == "notebook n40"


@pytest.fixture
def queue(small: Path) -> Iterator[Path]:
    """Return a checkout, and stop the workers of its queue in the end."""
    yield small
    dvc(small, "queue", "stop", "--kill")


def test_queued_experiments_are_in_the_workspaces_store(queue: Path):
    seeds = {"seven": 7, "eight": 8}
    for name, seed in seeds.items():
        dvc(queue, "exp", "run", "--queue", "-n", name, "-S", f'overrides=["seed={seed}"]')
    # At once, and before there is a store.
    dvc(queue, "queue", "start", "--jobs", "2")
    end = time.monotonic() + PATIENCE
    while (told := dvc(queue, "queue", "status")).count("Success") < len(seeds):
        assert "Failed" not in told and time.monotonic() < end, told
        time.sleep(1)
    runs = runs_in_mlflow(queue)
    assert set(runs) == {f"{name}:results/notebook" for name in seeds}

    dvc(queue, "repro")
    runs = runs_in_mlflow(queue)
    assert set(runs) == {"results/notebook", *(f"{name}:results/notebook" for name in seeds)}
    commit(queue, "reproduced")
    shown = json.loads(dvc(queue, "exp", "show", "--json", "--rev", "HEAD~1"))
    (baseline,) = [each for each in shown if each["rev"] != "workspace"]
    metrics = {
        each["name"]: each["revs"][0]["data"]["metrics"]["results/notebook/metrics.json"]["data"]
        for each in baseline["experiments"]
    }
    assert set(metrics) == set(seeds)
    for name, seed in seeds.items():
        run = runs[f"{name}:results/notebook"]
        assert run.info.status == "FINISHED"
        assert run.info.run_name == f"{name} notebook n40"
        assert run.data.params["seed"] == str(seed)
        assert run.data.params["overrides"] == f"seed={seed}"
        # The notebook is one cell: the study's numbers are the cell's.
        rmse = [run.data.metrics[f"statistics/rmse_mean_{k}"] for k in range(2)]
        assert metrics[name]["rmse_mean"] == pytest.approx(sum(rmse) / 2)
        # Where it was computed is no more; what is shown of it is in the workspace.
        assert run.info.artifact_uri.startswith((queue / "mlartifacts").as_uri())
        assert (Path(run.info.artifact_uri.removeprefix("file://")) / "settings.yaml").is_file()
        assert not list((queue / ".dvc/tmp/exps").glob("*/results"))
    assert "results/notebook/metrics.json" in dvc(queue, "metrics", "diff", *seeds)


def test_what_dvc_tracks_is_deterministic_and_names_no_machine():
    lock = (ROOT / "dvc.lock").read_text()
    assert not re.search(r"[ :]/[a-z]+/", lock)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages) == ALL
    for stage in stages.values():
        assert "persist" not in str(stage)
        assert "matrix" in stage


@pytest.mark.parametrize("experiment", ["notebook", "convergence"])
def test_every_reproduced_experiment_is_locked(experiment: str):
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert {f"{stage}@{experiment}" for stage in ALL} <= set(locked)
