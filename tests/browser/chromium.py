"""A headless Chromium, for as long as a `with` block lasts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

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
