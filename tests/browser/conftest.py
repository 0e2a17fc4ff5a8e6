"""A small study, MLflow's server over its runs, and a browser: one of each for all tests here."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.browser.chromium import chromium, executable, new_page
from tests.conftest import ROOT
from tests.servers import mlflow_server

OVERRIDES = (
    "experiment=convergence",
    "mixture=[overlap_low]",
    "sample_sizes=[60]",
    "replicates=5",
    "schedule.snapshots=[0,3,10]",
)


@pytest.fixture(scope="session")
def browser():
    if executable() is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def results(browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the pipeline as a user does; return the folder of results."""
    folder = tmp_path_factory.mktemp("study")
    line = [sys.executable, "-m", "pipeline", *OVERRIDES]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "results" / "convergence"


@pytest.fixture(scope="session")
def statistics(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "convergence.parquet").set_index("init")


@pytest.fixture(scope="session")
def address(results: Path) -> Iterator[str]:
    with mlflow_server(results.parent.parent) as started:
        yield started


@pytest.fixture
def page(browser):
    with new_page(browser) as opened:
        yield opened
