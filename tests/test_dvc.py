"""DVC on a fresh copy of the project: what an edit reruns, and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
ALL = {"plan", "generate", "fit", "aggregate", "report", "track"}
ALWAYS = {"plan", "track"}


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


def test_experiments_with_overrides(checkout: Path):
    # One experiment keeps the test short.
    edit(checkout, "params.yaml", "  - convergence\n", "")
    for line in (["git", "add", "-A"], ["git", "commit", "-q", "-m", "notebook alone"]):
        subprocess.run(line, cwd=checkout, check=True)
    dvc(checkout, "exp", "run", "-S", 'overrides=["seed=7"]')
    plan = yaml.safe_load((checkout / "results/notebook/plan.yaml").read_text())
    assert plan["config"]["seed"] == 7
    assert "seed=7" in dvc(checkout, "params", "diff")
    assert "results/notebook/metrics.json" in dvc(checkout, "metrics", "diff")
    assert "mean_log_likelihood" in dvc(checkout, "metrics", "show")


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
