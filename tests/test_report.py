"""The page and the stage that writes it."""

import json
import math
import re
from collections import namedtuple
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.figures import FIGURES
from pipeline.plan import write_plan
from pipeline.plots import caption_of, draw
from pipeline.report import Picture, PlayerPart, page, render_report
from pipeline.report.tables import convergence_table, errors_table, outcomes_table
from pipeline.stages import report as stage
from pipeline.stages.report import report
from pipeline.statistics.presentation import rounded
from pipeline.tables import OUTCOMES, read_table
from tests.factories import Study, make_study, write_study
from tests.pages import Page, tables

SMALL = (
    "experiment=notebook",
    "mixture=[notebook,marron_wand_09_trimodal]",
    "model=[free]",
    "init=[random_points,kmeans_pp]",
    "replicates=5",
    "schedule.max_iter=4",
    "schedule.snapshots=[0,3]",
)


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study(*SMALL)


@pytest.mark.parametrize(
    ("value", "mcse", "text"),
    [
        (0.123456, 0.0456, "0.123 (0.046)"),
        (-1234.56, 12.3, "−1235 (12)"),
        (2.0, 0.00099, "2.00000 (0.00099)"),
        (1.5e-9, 2.5e-10, "1.50e−09 (2.5e−10)"),
        (12.34567, None, "12.35"),
        (1.0, 0.0, "1"),
        (None, None, "–"),
        (np.nan, 0.1, "–"),
        (np.inf, 0.1, "∞"),
    ],
)
def test_rounded(value, mcse, text):
    assert rounded(value, mcse) == text


def test_the_page_is_whole_self_contained_and_repeats(study):
    picture = Picture("g", "t", 'a "quoted" <caption>', b"<svg xmlns='x'/>")
    html = render_report(study.plan, tables(study), [picture])
    assert html == render_report(study.plan, tables(study), [picture])
    page = Page(html)
    names = [tag for tag, _ in page.tags]
    assert "link" not in names and "default-src 'none'" in html
    for _, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href"):
            target = attributes.get(key) or "#"
            known = target.startswith(("#", "data:image/")) or target == "../index.html"
            assert known or re.fullmatch(r"[\w.]+", target)
    assert "http" not in html.replace("http://www.w3.org", "").replace("http-equiv", "")
    for text in (
        study.plan.title,
        study.plan.question,
        "python -m pipeline experiment=notebook",
        str(study.plan.config["seed"]),
        study.plan.config["mixture"]["marron_wand_09_trimodal"]["source"],
    ):
        assert text in page.text
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["alt"] == 't: g. a "quoted" <caption>'


def test_text_from_the_configuration_is_escaped(study):
    plan = replace(study.plan, title="<script>alert(1)</script> & Co", question="a < b?")
    html = render_report(plan, tables(study), [])
    assert "<script>alert" not in html
    assert "<script>alert(1)</script> & Co" in Page(html).text


def test_data_for_the_script_are_escaped(study):
    told = {"title": "</script><script>alert(1)</script>&'", "value": 0.1 + 0.2}
    told |= {"cells": [{"id": "<i>", "label": "&"}], "colors": [], "truth": None}
    part = PlayerPart("g", "n", told | {"comparable": False, "samples": {}})
    html = render_report(study.plan, tables(study), [], [part])
    assert "<script>alert" not in html
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    assert not set("<>&'") & set(data)
    assert json.loads(data)["title"] == told["title"]
    assert json.loads(data)["value"] == told["value"]
    with pytest.raises(ValueError, match="JSON"):
        render_report(
            study.plan, tables(study), [], [replace(part, data=part.data | {"x": math.nan})]
        )


def test_tables_of_a_huge_study_are_capped(study, monkeypatch):
    whole = Page(render_report(study.plan, tables(study)))
    monkeypatch.setattr(page, "MOST_CELLS", 3)
    capped = Page(render_report(study.plan, tables(study)))
    assert "1 further cell is left out of these tables" in " ".join(capped.text.split())
    rows = [sum(tag == "tr" for tag, _ in each.tags) for each in (whole, capped)]
    assert rows[0] - rows[1] == 3


def test_all_outcomes_are_told_also_those_that_did_not_happen(study):
    cells = study.plan.cells[:2]
    rows = study.convergence.iloc[:2]
    table = outcomes_table(cells, rows)
    assert table.header[-len(OUTCOMES) :] == tuple(name.replace("_", " ") for name in OUTCOMES)
    for row in table.rows:
        counts = [int(text) for text in row[-len(OUTCOMES) :]]
        assert sum(counts) == 5
        assert counts[OUTCOMES.index("max_iter")] == 5


def test_quantiles_of_iterations_are_whole(study):
    names = ["n_iter_median", "n_iter_q10", "n_iter_q90", "n_iter_median_low"]
    rows = study.convergence.iloc[:1].copy()
    rows[[*names, "n_iter_median_high"]] = [12344.0, 10001.0, math.inf, 12000.0, math.nan]
    table = convergence_table(study.plan.cells[:1], rows)
    shown = table.rows[0][table.n_labels :][:3]
    assert shown == ("12344", "12000 to –", "10001 to ∞")


def test_errors_carry_their_standard_errors(study):
    cells = study.plan.cells[:2]
    rows = study.convergence.iloc[:2]
    table = errors_table(cells, rows)
    first = rows.iloc[0]
    assert table.rows[0][table.n_labels] == rounded(
        first["bias_weight_0"], first["bias_weight_0_mcse"]
    )
    assert len(table.header) == table.n_labels + sum(span for _, span in table.spans)
    assert len(table.spans) == 6


def test_no_errors_without_a_comparable_truth():
    study = make_study(
        "experiment=notebook", "+model.three={n_components: 3}", "model=[]", "replicates=2"
    )
    assert errors_table(study.plan.cells, study.convergence) is None
    assert "bias of" not in render_report(study.plan, tables(study), [])


def test_one_replicate_is_said():
    study = make_study("experiment=notebook")
    text = Page(render_report(study.plan, tables(study), [])).text
    assert "There is one replicate" in text


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_stage_writes_the_same_bytes_again_and_removes_stale_files(study, tmp_path):
    write_study(study, tmp_path / "a")
    write_study(study, tmp_path / "elsewhere" / "b")
    report(tmp_path / "a")
    first = contents(tmp_path / "a")
    cells = {cell.id for cell in study.plan.cells}
    pictures = {name for name in first if name.startswith("figures/snapshots/")}
    assert {Path(name).name.rsplit("-", 1)[0] for name in pictures} == cells
    assert f"figures/snapshots/{study.plan.cells[0].id}-000003.png" in pictures
    assert "figures/notebook-free-snapshots.svg" in first
    stale = [tmp_path / "a/figures/old.png", tmp_path / "a/figures/snapshots/old-000001.png"]
    for path in stale:
        path.write_bytes(b"")
    report(tmp_path / "a")
    report(tmp_path / "elsewhere" / "b")
    assert contents(tmp_path / "a") == first == contents(tmp_path / "elsewhere" / "b")
    html = first["report.html"].decode()
    assert str(tmp_path) not in html
    assert html.count('<section class="player"') == 2
    assert html.count("<img ") == len(
        [name for name in first if name.endswith(".svg") and name.startswith("figures/")]
    )


def test_a_minimal_report_has_the_tables_alone(study, tmp_path):
    plan = replace(study.plan, config=study.plan.config | {"report": "minimal"})
    write_study(study, tmp_path)
    write_plan(plan, tmp_path)
    report(tmp_path)
    assert not [name for name in contents(tmp_path) if name.startswith("figures/")]
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert not {"img", "svg", "button"} & {tag for tag, _ in page.tags}
    assert "converged share" in page.text


def test_figures_do_not_depend_on_the_number_of_processes(study, tmp_path):
    found = []
    for workers in (1, 2):
        executor = study.plan.config["executor"] | {"workers": workers}
        plan = replace(study.plan, config=study.plan.config | {"executor": executor})
        write_study(replace(study, plan=plan), tmp_path / str(workers))
        report(tmp_path / str(workers))
        found.append(contents(tmp_path / str(workers)))
    one, two = ({k: v for k, v in each.items() if k != "plan.yaml"} for each in found)
    assert one == two


@pytest.mark.parametrize("workers", [1, 2])
def test_a_figures_caption_stands_below_it_with_its_notes(study, tmp_path, workers):
    config = study.plan.config | {"executor": study.plan.config["executor"] | {"workers": workers}}
    plan = replace(study.plan, config=config)
    write_study(replace(study, plan=plan), tmp_path)
    report(tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    found = re.findall(r"<h4>(.*?)</h4>.*?<figcaption>(.*?)</figcaption>", html, re.DOTALL)
    tables_ = {"convergence": study.convergence}
    tables_ |= {name: read_table(tmp_path, name) for name in stage.ON_THE_PAGE}
    expected = [
        (kind.title, caption_of(kind, figure))
        for group in stage._groups(tmp_path, plan, tables_)
        for kind in FIGURES
        if (figure := draw(kind, group)) is not None
    ]
    assert [(unescape(title), unescape(text)) for title, text in found] == expected
    # Fits that were cut off after four iterations.
    assert any("cut off at the largest number" in text for _, text in expected)


def test_captions_are_escaped(study, tmp_path, monkeypatch):
    from pipeline.report import drawing

    monkeypatch.setattr(drawing, "caption_of", lambda kind, _: f"a <b> & c of {kind.name}.")
    alone = {"executor": study.plan.config["executor"] | {"workers": 1}}
    config = study.plan.config | alone | {"figures": ["outcome_shares"]}
    write_study(replace(study, plan=replace(study.plan, config=config)), tmp_path)
    report(tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count("<figcaption>a &lt;b&gt; &amp; c of outcome_shares.</figcaption>") == 2
    assert "a <b>" not in html


def test_pictures_without_room_are_told(study, tmp_path, monkeypatch):
    few = study.plan.config | {"figures": ["outcome_shares", "log_likelihood_gap_bands"]}
    few |= {"schedule": study.plan.config["schedule"] | {"snapshots": [0]}}
    write_study(replace(study, plan=replace(study.plan, config=few)), tmp_path)
    report(tmp_path)
    whole = (tmp_path / "report.html").read_text("utf-8")
    sizes = [len(uri) for uri in re.findall(r'<img src="(.*?)"', whole)]
    assert len(sizes) == 4
    monkeypatch.setattr(stage, "MOST_BYTES", sum(sizes) * 3 // 4)
    report(tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    shown = html.count("<img ")
    assert 0 < shown < 4
    assert f"room for {shown} of 4 figures" in html
    files = {name for name in contents(tmp_path) if name.endswith(".svg")}
    linked = re.findall(r'<a href="(figures/[^"]+)"', html)
    assert len(files) == 4 and len(linked) == 4 - shown and set(linked) <= files
    # What is given up first is the last of the figures asked for.
    assert all("bands" in name for name in linked)
    assert html.count("<h4>") == 4 and html.count('<h3 id="pictures-') == 2
    remark = re.search(r"links to their files, of: (.*?)\.</p>", html)[1]
    assert set(remark.split("; ")) <= set(re.findall(r'<h3 id="pictures-\d">(.*?)</h3>', html))


Named = namedtuple("Named", ["name", "title"])


def test_every_group_keeps_its_first_figure_and_the_smaller_kind_of_image(monkeypatch):
    kinds = FIGURES[:2]
    sizes = {"a": (900, 3000), "b": (3000, 1200)}  # of SVG and PNG
    files = {
        Path(f"{group}-{kind.name}.{suffix}"): head + bytes(size)
        for kind in kinds
        for group, pair in sizes.items()
        for suffix, head, size in zip(("svg", "png"), (b"<svg", b"\x89PNG"), pair, strict=True)
    }
    groups = [Named(name, f"group {name}") for name in sizes]
    captions = {path.stem: f"{path.stem}." for path in files}
    whole = stage._pictures(groups, kinds, files, captions)
    assert [len(each.image) for each in whole] == [904, 904, 3004, 3004]
    monkeypatch.setattr(stage, "MOST_BYTES", 3500)
    # In base64 904 bytes take 1208 and 1204 take 1608, so that 3500 is room for two.
    found = stage._pictures(groups, kinds, files, captions)
    assert [len(each.image) for each in found] == [904, 0, 1204, 0]
    assert found[2].image.startswith(b"\x89PNG")
    assert found[3].file == f"figures/b-{kinds[1].name}.svg"
    assert stage._room(found, 2, 2).endswith("links to their files, of: group a; group b.")


@pytest.mark.parametrize("given", [["outcome_shares", "basins"], ["basins"], "all"])
def test_a_chosen_figure_that_says_nothing_is_named(study, tmp_path, caplog, given):
    minimal = study.plan.config | {"figures": given}
    write_study(replace(study, plan=replace(study.plan, config=minimal)), tmp_path)
    with caplog.at_level("INFO"):
        report(tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    (title,) = [kind.title for kind in FIGURES if kind.name == "basins"]
    told = f"Not drawn, as it would say nothing here: {title}."
    assert f"<h4>{title}" not in html
    assert (told in html) == (told in caplog.text) == (given != "all")


@pytest.mark.parametrize("names", [["scaling_laws"], ["basins"]])
def test_lines_through_several_truths_are_drawn_once_below_their_own_heading(tmp_path, names):
    spanning = make_study(
        "experiment=notebook",
        "mixture=[overlap_low,overlap_high]",
        "model=[free]",
        "init=[kmeans_pp]",
        "sample_sizes=[50]",
        "replicates=3",
        "schedule=converge",
        "schedule.max_iter=20",
        f"figures=[{','.join(names)}]",
        "slopes=[{name: apart, statistic: rmse_mean_0, factor: separation}]",
    )
    write_study(spanning, tmp_path)
    report(tmp_path)
    figures = {name for name in contents(tmp_path) if name.endswith("laws.svg")}
    html = (tmp_path / "report.html").read_text("utf-8")
    headings = re.findall(r'<h3 id="pictures-\d">(.*?)</h3>', html)
    if names == ["scaling_laws"]:
        assert figures == {"figures/across-scaling_laws.svg"}
        assert headings[-1] == "overlap_low and overlap_high, model free"
        assert html.count("<h4>Scaling laws") == 1
        assert "Not drawn" not in html
    else:
        assert not figures and "Scaling laws" not in re.findall(r"<h4>(.*?)</h4>", html)


def test_a_figure_of_some_groups_alone_is_told(study):
    shares = next(kind for kind in FIGURES if kind.name == "outcome_shares")
    chosen = replace(study.plan, config=study.plan.config | {"figures": ["outcome_shares"]})
    named = [Named("a", ""), Named("b", "")]
    assert stage._silent(chosen, named, {Path("a-outcome_shares.svg"): b""}) == (
        f"Not drawn, as it would say nothing here: {shares.title} "
        "(of 1 of 2 pairs of truth and model)."
    )


def test_the_link_to_runs_says_who_writes_it(study):
    html = render_report(study.plan, tables(study))
    assert "mlflow" not in html[: html.index("<main>")]
    assert html.count('href="mlflow_links.html"') == 1
    assert "unless tracking=none was given" in html


def test_the_configuration_chooses_figures_and_their_order(study, tmp_path):
    chosen = ["outcome_shares", "snapshots"]
    plan = replace(study.plan, config=study.plan.config | {"figures": chosen})
    write_study(replace(study, plan=plan), tmp_path)
    report(tmp_path)
    drawn = {Path(name).stem for name in contents(tmp_path) if name.endswith(".svg")}
    assert {name.rsplit("-", 1)[1] for name in drawn} == set(chosen)
    titles = [kind.title for name in chosen for kind in FIGURES if kind.name == name]
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.index(f"<h4>{titles[0]}") < html.index(f"<h4>{titles[1]}")


def test_a_large_study_says_which_figures_it_leaves_out(study, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "MOST_GROUPS", 1)
    monkeypatch.setattr(stage, "MOST_CELLS", 3)
    write_study(study, tmp_path)
    report(tmp_path)
    assert "first 1 of 2 pairs" in (tmp_path / "report.html").read_text("utf-8")
    names = contents(tmp_path)
    assert not [name for name in names if "trimodal" in name and name.endswith(".svg")]
    assert not [name for name in names if name.startswith("figures/snapshots/")]


def test_observed_data_are_drawn_from_their_file(tmp_path):
    data = tmp_path / "waiting.csv"
    values = np.random.default_rng(3).normal(70.0, 9.0, 30)
    data.write_text("x\n" + "\n".join(map(str, values)))
    study = make_study(
        "experiment=notebook",
        "mixture=[]",
        f"+observed.waiting={{path: '{data}', column: x}}",
        "model=[free]",
        "model.free.n_components=2",
        "init=[kmeans_pp]",
    )
    write_study(study, tmp_path / "results")
    report(tmp_path / "results")
    html = (tmp_path / "results" / "report.html").read_text("utf-8")
    assert "waiting, model free" in html
    data.write_text("x\n1\n2\n")
    with pytest.raises(InputError, match="changed since it was planned"):
        report(tmp_path / "results")
    assert str(tmp_path) not in html
