"""Take the pictures of docs/mlflow.md anew: `python -m tests.browser.screenshots`.

Runs the experiment `convergence` in a folder of its own, serves it and photographs its pages.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, Page

from pipeline.views import PLAIN, View
from tests.browser.chromium import chromium, new_page
from tests.servers import mlflow_server

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURES = ROOT / "docs" / "images"
RUN = "n300 random medium"
OTHER = "n300 random high"
VIEW = View("em-convergence", "")


def main() -> None:
    """Write one picture per page."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        line = [sys.executable, "-m", "pipeline", "experiment=convergence"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(line, cwd=folder, env=environment, check=True)
        with mlflow_server(folder) as address, chromium() as browser:
            photograph(browser, f"{address}/#/experiments/1/runs")


def photograph(browser: Browser, runs: str) -> None:
    """Open each page in a fresh session, wait for what it is about, and take its picture."""
    with new_page(browser) as page:
        page.goto(runs + VIEW.table)
        page.get_by_role("link", name=RUN, exact=True).click()
        page.get_by_text("About this run").wait_for()
        run = page.url.split("/runs/")[1].partition("?")[0]
    pages: dict[str, tuple[str, Callable[[Page], None]]] = {
        "table": (VIEW.table, _table),
        "charts": (VIEW.charts, _charts),
        "run": (f"/{run}{PLAIN}", _overview),
        "pictures": (f"/{run}/model-metrics{PLAIN}", _pictures),
        "figures": (f"/{run}/artifacts{PLAIN}", _figures),
        "compare": (VIEW.table, _compare),
    }
    PICTURES.mkdir(exist_ok=True)
    for name, (address, prepare) in pages.items():
        with new_page(browser, width=1440, height=900) as page:
            page.goto(runs + address)
            prepare(page)
            _save(page.screenshot(animations="disabled"), PICTURES / f"mlflow-{name}.png")


def _table(page: Page) -> None:
    page.get_by_role("link", name=RUN, exact=True).wait_for()


def _charts(page: Page) -> None:
    page.wait_for_function(
        """() => [...document.querySelectorAll('.js-plotly-plot')].filter(
            plot => plot.data.some(line => line.y && line.y.length > 5)).length >= 5"""
    )


def _overview(page: Page) -> None:
    page.get_by_text("Show more").click()
    page.get_by_text("Where to look").wait_for()


def _pictures(page: Page) -> None:
    page.locator("img[src*='get-artifact']").first.wait_for()
    slider = page.get_by_role("slider").first
    for _ in range(2):
        slider.press("ArrowRight")
    page.locator("img[src*='get-artifact']").first.click()
    page.wait_for_function("[...document.images].some(image => image.width > 500)")


def _figures(page: Page) -> None:
    page.get_by_label("figures").get_by_text("figures").click()
    page.get_by_text("parameter_trajectories.png", exact=True).click()
    # The folder of this one machine.
    page.get_by_text("Path: file:").evaluate("path => path.style.visibility = 'hidden'")
    page.wait_for_function("[...document.images].some(image => image.width > 500)")
    # The folder unfolds slowly: nothing can be clicked before it is still.
    page.get_by_text("snapshots.png", exact=True).click(trial=True)


def _compare(page: Page) -> None:
    for name in (RUN, OTHER):
        row = page.locator(".ag-row", has=page.get_by_role("link", name=name, exact=True))
        row.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    for section in ("Visualizations", "Run details"):
        page.get_by_role("button", name=section).click()
    page.get_by_role("switch", name="Parameters - Show diff only").click()
    page.get_by_role("link", name="n_iter/median", exact=True).wait_for()


def _save(png: bytes, path: Path) -> None:
    """Write a picture with a palette, which takes a third of the bytes."""
    with Image.open(BytesIO(png)) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)
    print(path.relative_to(ROOT), path.stat().st_size)


if __name__ == "__main__":
    main()
