"""Parts of the page: claims and verdicts, pairs and slopes, how to reproduce."""

import hashlib
import math
import re
import shlex
from dataclasses import replace

import pytest

from pipeline.config import compose
from pipeline.planning import make_plan
from pipeline.report import page, render_report
from pipeline.report.claims import claims_of, number
from pipeline.report.heading import changes, question_of
from pipeline.report.page import command, lock
from pipeline.report.tables import comparison_tables
from pipeline.statistics.presentation import rounded
from tests.factories import Study, make_study
from tests.pages import Page, tables


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study("experiment=notebook", "replicates=2")


CLAIM = "name: {0}, claim: '{0} <holds>', source: 'S & {0}', statistic: rmse_mean_0"


def claimed(*entries: str) -> Study:
    """Make a study of 40 replicates with claims, cells of two inits."""
    list_ = ",".join(f"{{{entry}}}" for entry in entries)
    small = ("experiment=notebook", "model=[free]", "replicates=40", "schedule.max_iter=2")
    return make_study(*small, "init=[random_points,kmeans_pp]", f"claims=[{list_}]")


def test_claims_come_first_with_their_verdicts():
    study = claimed(
        CLAIM.format("good") + ", at_least: 0",
        CLAIM.format("planted") + ", at_least: 1000, where: {init: kmeans_pp}",
        CLAIM.format("open") + ", at_least: 0, where: {init: kmeans_pp}, allowed_missing: 0",
    )
    found = tables(study)
    # As if the last one had too few replicates.
    last = found["claims"]["name"] == "open"
    found["claims"].loc[last, ["verdict", "claim_verdict"]] = "inconclusive"
    found["claims"].loc[last, "reason"] = "5 replicates < 30"
    assert found["claims"]["verdict"].tolist() == [
        *["supported"] * 2, "refuted", "inconclusive"
    ]  # fmt: skip
    html = render_report(study.plan, found)
    assert html.index('id="claims"') < html.index('id="setting"') < html.index('id="tables"')
    shown = [Page(item) for item in re.findall(r'<li id="claim-.*?\n</li>', html, re.DOTALL)]
    words = [" ".join(item.text.split()) for item in shown]
    verdicts = ("✓ supported", "✗ refuted", "? inconclusive")
    for name, item, text, verdict in zip(
        ("good", "planted", "open"), shown, words, verdicts, strict=True
    ):
        assert text.startswith(f"{verdict} {name} <holds> S & {name}")
        colored = {attributes.get("class") for _, attributes in item.tags}
        assert f"verdict {verdict[2:]}" in colored
    assert words[0].count("supported") == 3  # the claim, and each of its cells
    assert "rmse_mean_0, at least 1000." in words[1]
    row = found["claims"].iloc[2]
    step = row["high"] - row["low"]
    assert f"{number(row['low'], step)} to {number(row['high'], step)}" in words[1]
    assert f"{100 * row['level']:.6g} % interval" in words[1] and "from 40 replicates" in words[1]
    assert "No verdict: 5 replicates < 30." in words[2]
    assert "3 claims: 1 supported, 1 refuted, 1 inconclusive." in Page(html).text


def test_the_page_shows_what_tells_the_interval_from_the_region():
    study = claimed(CLAIM.format("near") + ", at_most: 0.65674, where: {init: kmeans_pp}")
    found = tables(study)["claims"]
    above = [0.65674 + step * 1e-12 for step in (2, 1, 3)]
    found.loc[0, ["estimate", "low", "high"]] = above
    found.loc[0, ["verdict", "claim_verdict"]] = "refuted"
    (claim,) = claims_of(found, tables(study)["slopes"])
    limit = float(claim.region.removeprefix("at most "))
    (evidence,) = claim.evidence
    numbers = re.findall(r"0\.\d+", evidence.measured)
    assert len(numbers) == 3 and all(float(text) > limit for text in numbers)


def test_without_claims_nothing_is_said_of_them(study):
    html = render_report(study.plan, tables(study))
    assert 'id="claims"' not in html and ">Claims<" not in html


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (-0.470698, 0.1224, "−0.471"),
        (0.65673604712345, 3.8e-8, "0.6567360471"),
        (2.4e-11, 6.8e-9, "2.4e−11"),
        (-0.5 + 0.1, math.nan, "−0.4"),
        (math.inf, math.nan, "∞"),
        (math.nan, 1.0, "–"),
        (0.0, 1.0, "0"),
        (1234567.0, 10.0, "1234567"),
    ],
)
def test_numbers_show_what_their_interval_knows(value, step, text):
    assert number(value, step) == text


def test_pairs_and_slopes_are_tabulated(study):
    law = "slopes=[{name: law, statistic: rmse_mean_0, factor: sample_size}]"
    sizes = make_study(
        "experiment=notebook", "model=[free]", "init=[random_points,kmeans_pp]", "replicates=3",
        "sample_sizes=[20,30,40]", "schedule.max_iter=2", law,
    )  # fmt: skip
    found = tables(sizes)
    text = " ".join(Page(render_report(sizes.plan, found)).text.split())
    slope = found["slopes"].iloc[0]
    assert rounded(slope["slope"], slope["slope_se"]) in text
    (table,) = comparison_tables(found["comparisons"], 2)
    paired = found["comparisons"]
    row = paired[paired["statistic"] == "log_likelihood"].iloc[0]
    assert len(table.rows) == 2 and table.left_out == 1
    assert table.header[0] == "n" and table.rows[0][:3] == ("20", "random_points", "kmeans_pp")
    assert rounded(row["difference"], row["mcse"]) in table.rows[0]
    assert table.header[3:5] == ("replicates", "fits left out")
    assert table.rows[0][3:5] == ("3", "0")
    fewer = paired["statistic"] == "fewer_iterations_share"
    missing = paired.assign(n_fits_left_out=paired["n_fits_left_out"].where(~fewer, 2))
    assert comparison_tables(missing, 2)[0].rows[0][3:5] == ("3", "2")
    assert all(len(line) == len(table.header) for line in table.rows)
    assert table.n_labels + sum(span for _, span in table.spans) == len(table.header)


def test_the_command_has_the_overrides_that_decide_something():
    given = ["experiment=notebook", "seed=3", "results_dir=/x", "tracking=none", "+init.a={x: 1}"]
    given += ["hydra.run.dir=.", "executor.workers=2", "~measures", "store_dir=y"]
    plan, _ = make_plan(compose(["seed=3"]), given)
    assert plan.overrides == ("seed=3", "+init.a={x: 1}", "~measures")
    assert command(plan) == (
        "python -m pipeline experiment=notebook seed=3 '+init.a={x: 1}' '~measures'"
    )
    assert shlex.split(command(plan))[3:] == ["experiment=notebook", *plan.overrides]
    hashes = plan.hashes, make_plan(compose(["seed=3"]))[0].hashes
    assert {name for name in hashes[0] if hashes[0][name] != hashes[1][name]} == {"report"}


@pytest.mark.parametrize(
    ("overrides", "shown", "of_base"),  # None: no question
    [
        ((), [], False),
        (("title=a", "figures=[basins]", "report=minimal"), [], False),
        (("seed=3",), ["seed=3"], True),
        (("question=why", "+init.a={x: 1}", "~measures"), ["+init.a={x: 1}", "~measures"], False),
        (("observed.a.path=/x/y z/d.csv",), ["observed.a.path=d.csv"], None),
        (("observed.a.path=data/d.csv",), ["observed.a.path=data/d.csv"], None),
        (("mixture=[]", "question=why"), ["mixture=[]"], False),
        (("model.free.n_components=3",), ["model.free.n_components=3"], None),
    ],
)
def test_what_overrides_change_stands_below_the_title(study, overrides, shown, of_base):
    asked = ("", False) if of_base is None else ("why?", of_base)
    assert (changes(overrides), question_of("why?", overrides)) == (shown, asked)
    html = render_report(replace(study.plan, overrides=overrides), tables(study))
    header = html[html.index("<h1>") : html.index("</header>")]
    text = " ".join(Page(f"<header>{header}</header>").text.split())
    expected = f"{study.plan.title} with {' '.join(shown)} " if shown else f"{study.plan.title} "
    if of_base:
        expected += "Question of the experiment notebook: "
    expected += study.plan.question.split()[0] if of_base is not None else "1 "
    assert text.startswith(expected), text


def test_the_lock_is_named_by_its_hash(study, tmp_path, monkeypatch):
    file = tmp_path / "requirements.lock"
    file.write_bytes(b"numpy==9.8 \\\n    --hash=x\nnumpydoc==1\nscipy==7\n")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    assert lock(file) == f"{digest} (numpy 9.8, scipy 7)"
    monkeypatch.setattr(page, "LOCK", file)
    assert digest in render_report(study.plan, tables(study))
    monkeypatch.setattr(page, "LOCK", tmp_path / "none")
    assert "There was no requirements.lock" in render_report(study.plan, tables(study))
