"""What MLflow's pages show of a study, as a person sees it in a browser."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pipeline.views import METRICS
from tests.browser.chromium import PATIENCE

expect.set_options(timeout=1000 * PATIENCE)
NAMES = {"random_points", "kmeans_pp"}
WHOLE = "each => each.scrollWidth <= each.clientWidth"
LOADED = "image => image.complete && image.naturalWidth > 0"


@pytest.fixture
def links(results: Path, address: str) -> dict[str, str]:
    """Return the links that the pipeline wrote, to this server instead of `make ui`'s."""
    page = (results / "mlflow_links.html").read_text().replace("&amp;", "&")
    found = re.findall(r'<a href="http://127.0.0.1:5000([^"]*)">([^<]*)</a>', page)
    return {text: address + link for link, text in found}


def cells(page: Page, column: str) -> list[str]:
    return page.locator(f".ag-cell[col-id='{column}']").all_inner_texts()


def open_table(page: Page, links: dict[str, str]) -> None:
    page.goto(links["All runs of the experiment"])
    for name in NAMES:
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()


def test_the_table_has_the_cells_with_their_factors_and_measures(page, links, statistics):
    open_table(page, links)
    expect(page.get_by_text("Convergence and overlap. How do the number")).to_be_visible()
    for header in ("n_iter/median", "n_iter/q90", "converged_share", "init", "sample_size"):
        expect(page.get_by_role("columnheader", name=header, exact=True).first).to_be_visible()
    inits = cells(page, "params.`init`")
    assert set(inits) == NAMES
    medians = dict(zip(inits, cells(page, "metrics.`n_iter/median`"), strict=True))
    for init, shown in medians.items():
        assert float(shown) == pytest.approx(statistics.loc[init, "n_iter_median"], abs=1e-3)
    assert cells(page, "params.`sample_size`") == ["60", "60"]
    # In the view's order, whole, and on a screen of 1440 pixels without scrolling.
    factors = [f"params.`{name}`" for name in ("mixture", "sample_size", "init")]
    columns = factors + [f"metrics.`{name}`" for name in METRICS]
    headers = [page.locator(f".ag-header-cell[col-id='{column}']") for column in columns]
    boxes = [header.bounding_box() for header in headers]
    lefts = [box["x"] for box in boxes]
    assert lefts == sorted(lefts)
    assert boxes[-1]["x"] + boxes[-1]["width"] < 1440 - 30
    texts = [header.locator("span").last for header in headers]
    assert all(text.evaluate(WHOLE) for text in texts)
    assert page.locator(".ag-cell[col-id='params.`init`']").first.evaluate(WHOLE)


def test_the_charts_lay_the_runs_over_one_another(page, links):
    page.goto(links["their charts"])
    for section in ("log_likelihood_gap", "params", "n_iter"):
        expect(page.get_by_text(section, exact=True).first).to_be_visible()
    expect(page.get_by_text("log_likelihood_gap/median", exact=True)).to_be_visible()
    # Both runs, with more than the values at the first and the last iteration.
    page.wait_for_function(
        """names => {
            const plot = document.querySelector('.js-plotly-plot');
            const lines = plot ? plot.data.filter(line => line.y && line.y.length > 5) : [];
            return names.every(name => lines.some(line => line.name === name));
        }""",
        arg=sorted(NAMES),
    )
    axes = "plot => [plot.layout.xaxis.type, plot.layout.yaxis.type]"
    assert page.locator(".js-plotly-plot").first.evaluate(axes) == ["log", "log"]


def test_a_run_says_what_it_is(page, links, statistics):
    open_table(page, links)
    page.get_by_role("link", name="kmeans_pp", exact=True).click()
    expect(page.get_by_role("heading", name="kmeans_pp")).to_be_visible()
    expect(page.get_by_text("on 5 samples of 60 points from mixture")).to_be_visible()
    page.get_by_text("Show more").click()
    expect(page.get_by_text("Where to look")).to_be_visible()
    expect(page.get_by_role("cell", name="mean_1", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile(r"overlap_low-n60 \(\w{8}\)")).first).to_be_visible()
    expect(page.get_by_text("n_iter/median", exact=True)).to_be_visible()


def test_the_pictures_of_a_fit_have_a_slider(page, links):
    link = next(link for text, link in links.items() if "kmeans_pp" in text)
    page.goto(link.replace("?", "/model-metrics?"))
    picture = page.locator("img[src*='get-artifact']").first
    slider = page.get_by_role("slider").first
    for iteration in ("0", "3", "10"):
        expect(slider).to_have_attribute("aria-valuenow", iteration)
        page.wait_for_function(LOADED, arg=picture.element_handle())
        slider.press("ArrowRight")


def test_the_figures_and_settings_of_a_run_are_shown(page, links):
    link = next(link for text, link in links.items() if "kmeans_pp" in text)
    page.goto(link.replace("?", "/artifacts?"))
    page.get_by_text("settings.yaml", exact=True).click()
    expect(page.get_by_text("map_residual")).to_be_visible()
    page.get_by_label("figures").get_by_text("figures").click()
    page.get_by_text("log_likelihood_trajectories.png", exact=True).click()
    picture = page.locator("img[src^='blob:'], img[src*='artifact']").first
    picture.wait_for()
    page.wait_for_function(LOADED, arg=picture.element_handle())


def test_two_runs_are_compared(page, links, statistics):
    open_table(page, links)
    for name in NAMES:
        row = page.locator(".ag-row", has=page.get_by_role("link", name=name, exact=True))
        row.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    for name in NAMES:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="n_iter/median", exact=True)).to_be_visible()
    for init in NAMES:
        median = statistics.loc[init, "n_iter_median"]
        values = page.get_by_role("grid").filter(has_text=re.compile(rf"{median:g}"))
        expect(values.last).to_be_visible()
