"""The report's page in a browser: it is whole, asks nothing of the network, and plays the fits."""

import re
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Locator, Page, TimeoutError, expect


@pytest.fixture
def report(page: Page, results: Path) -> Page:
    """Open the report from the disk; at the end nothing was asked for, and nothing went wrong."""
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda told: told.type == "error" and complaints.append(told.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((results / "report.html").as_uri())
    yield page
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert complaints == []


def test_every_figure_of_the_report_is_loaded(report, results):
    assert report.locator("img").count() >= 5
    broken = report.evaluate(
        """async () => {
            const broken = [];
            for (const image of document.images) {
                try { await image.decode(); } catch { broken.push(image.alt); }
                if (!image.naturalWidth) broken.push(image.alt);
            }
            return broken;
        }"""
    )
    assert broken == []
    expect(report.get_by_role("heading", level=1)).to_have_text("Convergence and overlap")


@pytest.fixture
def player(report: Page) -> Locator:
    return report.locator("section.player").first


def shown(player: Locator) -> tuple[int, str]:
    """Return the iteration that the player shows, and its log-likelihood as printed."""
    text = player.locator("output").inner_text()
    found = re.match(r"Iteration ([\d, ]+), log-likelihood (−?\d+(?:\.\d+)?)", text)
    assert found, text
    return int(re.sub(r"\D", "", found[1])), found[2].replace("−", "-")


def curves(player: Locator) -> list[str]:
    return player.locator("svg.picture path").evaluate_all("all => all.map(path => path.outerHTML)")


def slide(slider: Locator, position: int) -> None:
    slider.evaluate(
        """(slider, position) => {
            slider.value = position;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
        }""",
        position,
    )


def test_the_slider_shows_the_recorded_iterations(player, results):
    traces = pd.read_parquet(results / "traces").query("replicate == 0 and start == 0")
    slider = player.get_by_role("slider", name="Iteration")
    first, last = (int(slider.get_attribute(end)) for end in ("min", "max"))
    seen = {}
    for position in (first, (first + last) // 2, last):
        slide(slider, position)
        iteration, printed = shown(player)
        digits = len(printed.partition(".")[2])
        recorded = traces.loc[traces["iteration"] == iteration, "log_likelihood"]
        assert printed in [f"{value:.{digits}f}" for value in recorded]
        seen[iteration] = curves(player)
    assert min(seen) == 0
    assert len(seen) == 3
    drawn = list(seen.values())
    assert all(drawn)
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2]


def test_the_player_plays_and_pauses(player):
    slider = player.get_by_role("slider", name="Iteration")
    slide(slider, int(slider.get_attribute("min")))
    changed = "([output, before]) => output.textContent !== before"
    output = player.locator("output").element_handle()
    button = player.get_by_role("button", name="Play").element_handle()
    before = output.text_content()
    button.click()
    player.page.wait_for_function(changed, arg=[output, before])
    button.click()
    before = output.text_content()
    with pytest.raises(TimeoutError):
        player.page.wait_for_function(changed, arg=[output, before], timeout=1500)
    assert shown(player)[0] < int(slider.get_attribute("max"))


def test_paper_has_captions_beside_figures_and_the_end_of_an_unplayed_fit(report, player, results):
    at = player.locator("output")
    start = at.inner_text()
    chosen = player.locator(".controls").first
    expect(chosen).to_be_visible()
    report.emulate_media(media="print")
    report.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(player).to_be_visible()
    expect(chosen).not_to_be_visible()
    assert "The fit ends" in at.inner_text()
    # Which cell it is cannot be read off the chooser.
    label = player.locator("option").first.inner_text()
    expect(player.locator(".fit")).to_have_text(f"{label}, replicate 0, start 0")
    figure = report.locator("figure").first
    image, caption = (figure.locator(part).bounding_box() for part in ("img", "figcaption"))
    assert caption["x"] >= image["x"] + image["width"] and caption["y"] <= image["y"] + 20
    report.evaluate("dispatchEvent(new Event('afterprint'))")
    report.emulate_media(media="screen")
    assert at.inner_text() == start
    pages = report.context.new_cdp_session(report).send("Page.printToPDF", {})["data"]
    assert len(pages) > 10_000
    assert at.inner_text() == start


def test_a_phone_scrolls_no_page_sideways(report):
    report.set_viewport_size({"width": 390, "height": 844})
    assert report.evaluate("document.documentElement.scrollWidth") <= 390
