"""The page and the stage that writes it."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.figures import FIGURES
from pipeline.plan import write_plan
from pipeline.report import Picture, errors_table, outcomes_table, render_report, rounded
from pipeline.stages import report as stage
from pipeline.stages.report import report
from pipeline.tables import OUTCOMES
from tests.factories import Study, make_study, write_study

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


class Page(HTMLParser):
    """Collects tags with attributes, and text; fails on tags that are closed out of order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost tag is the one closed."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data


@pytest.mark.parametrize(
    ("value", "mcse", "text"),
    [
        (0.123456, 0.0456, "0.123 (0.046)"),
        (-1234.56, 12.3, "−1235 (12)"),
        (2.0, 0.00099, "2.00000 (0.00099)"),
        (1.5e-9, 2.5e-10, "1.5e−09 (2.5e−10)"),
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
    html = render_report(study.plan, study.convergence, [picture])
    assert html == render_report(study.plan, study.convergence, [picture])
    page = Page(html)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names and "link" not in names
    for _, attributes in page.tags:
        for key in ("src", "href"):
            target = attributes.get(key) or "#"
            assert target.startswith(("#", "data:image/")) or re.fullmatch(r"[\w.]+", target)
    assert "http" not in html.replace("http://www.w3.org", "")
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
    html = render_report(plan, study.convergence, [])
    assert "<script" not in html
    assert "<script>alert(1)</script> & Co" in Page(html).text


def test_all_outcomes_are_told_also_those_that_did_not_happen(study):
    cells = study.plan.cells[:2]
    rows = study.convergence.iloc[:2]
    table = outcomes_table(cells, rows)
    assert table.header[-len(OUTCOMES) :] == tuple(name.replace("_", " ") for name in OUTCOMES)
    for row in table.rows:
        counts = [int(text) for text in row[-len(OUTCOMES) :]]
        assert sum(counts) == 5
        assert counts[OUTCOMES.index("max_iter")] == 5


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
    assert "bias of" not in render_report(study.plan, study.convergence, [])


def test_one_replicate_is_said():
    study = make_study("experiment=notebook")
    text = Page(render_report(study.plan, study.convergence, [])).text
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
    assert "img" not in [tag for tag, _ in page.tags]
    assert "converged share" in page.text


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
