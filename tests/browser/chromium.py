"""A headless Chromium, and MLflow's server, for as long as a `with` block lasts."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# A busy machine may take minutes for what takes a quiet one seconds.
PATIENCE = 120
SETTINGS = ("--disable-gpu", "--disable-quic", "--disable-sync")
# What MLflow keeps after a first visit: the assistant's panel was seen, "Model training" chosen.
VISITED = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
"""


def executable() -> str | None:
    """Return the Chromium of this machine; Playwright's own is never downloaded."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with an empty profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(SETTINGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_page(browser: Browser, **viewport: int) -> Iterator[Page]:
    """Open a page of a fresh session: nothing that another page set is there."""
    size = {"width": 1500, "height": 1000} | viewport
    context = browser.new_context(viewport={"width": size["width"], "height": size["height"]})
    context.set_default_timeout(1000 * PATIENCE)
    context.add_init_script(VISITED)
    try:
        yield context.new_page()
    finally:
        context.close()


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Serve the store in `folder` on a free port of the loopback, and return the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    line += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    line += ["--artifacts-destination", str(folder / "mlartifacts")]
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            line, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}", folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        # The server has workers of its own: all of its session end.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(server: subprocess.Popen, address: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"mlflow server did not start:\n{log.read_text()}")
