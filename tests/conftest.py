"""What every test shares. `pipeline` comes first: it sets the environment that numpy reads."""

import pipeline  # noqa: F401, I001

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give tests/browser to one process: there is one server and one browser for all of it.

    The marker `xdist_group` is for that, but pytest-xdist 3.8 loses it with pytest 9.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if nodeid.startswith("tests/browser/") else nodeid

    return Scheduling(config, log)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs `python -m <module> <arguments>` in the workspace."""
    home = tmp_path_factory.mktemp("home")

    def run(module: str, *arguments: str, **options) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", module, *arguments]
        environment = {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        }
        environment |= {"HOME": str(home), "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "default"}
        return subprocess.run(
            line, cwd=workspace, env=environment, capture_output=True, text=True, **options
        )

    return run


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a clean copy of the project's tracked and new files, a git repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    copy = tmp_path / "checkout"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for line in (
        ["git", "init", "-q", "-b", "main"],
        ["git", "config", "user.name", "test"],
        ["git", "config", "user.email", "test@localhost"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "-m", "checkout"],
    ):
        subprocess.run(line, cwd=copy, check=True)
    return copy


@pytest.fixture
def bits_by_cpu(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return a function that runs a program compiled for several CPUs and returns what it prints.

    SSE2 alone, AVX2 with fused multiply-add, and what this machine has.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names x86 CPUs")

    def run(program: str) -> dict[str, str]:
        printed = {}
        for cpu in ("generic", "haswell", "host"):
            environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / cpu)}
            if cpu != "host":
                environment |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
            line = [sys.executable, "-c", program]
            done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            printed[cpu] = done.stdout
        return printed

    return run
