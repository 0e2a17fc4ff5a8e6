"""The index over the experiments of a results folder."""

import json
import re
from dataclasses import replace

from pipeline.__main__ import job_folder
from pipeline.plan import write_plan
from pipeline.report import index, index_page
from pipeline.stages.report import report
from tests.factories import make_study, write_study

COUNTS = {"n_cells": 2, "n_fits": 1200, "n_converged": 900}


def entry(folder, title, **counts):
    """Write what the index reads of an experiment."""
    study = make_study("experiment=notebook", "replicates=1", "report=minimal")
    write_plan(replace(study.plan, title=title, question="why?"), folder)
    (folder / "metrics.json").write_text(json.dumps(COUNTS | counts))
    (folder / "report.html").write_text("")


def test_it_lists_what_has_a_plan_and_a_page(tmp_path):
    entry(tmp_path / "b", "Second & <last>", n_claims=3, n_claims_supported=1, n_claims_refuted=2)
    entry(tmp_path / "a", "First")
    entry(tmp_path / "multirun" / "seed=1" / "a", "Job")
    entry(tmp_path / "unfinished", "Unfinished")
    (tmp_path / "unfinished" / "report.html").unlink()
    entry(tmp_path / "damaged", "Damaged")
    (tmp_path / "damaged" / "plan.yaml").write_text("a: [")
    (tmp_path / "other").mkdir()
    html = index_page(tmp_path)
    assert html == index_page(tmp_path) and str(tmp_path) not in html
    places = [html.index(f">{title}<") for title in ("First", "Second &amp; &lt;last&gt;", "Job")]
    assert places == sorted(places)
    assert "Unfinished" not in html and "Damaged" not in html
    assert 'href="b/report.html"' in html and 'href="multirun/seed%3D1/a/report.html"' in html
    text = " ".join(html.split())
    assert "2 cells, 1,200 fits, 900 of them converged (75.0 %)." in text
    assert text.count('refuted">2 refuted<') == 1 and 'supported">1 supported<' in text
    assert "0 inconclusive" not in text and "why?" in text


def test_the_stage_report_writes_it(tmp_path):
    study = make_study("experiment=notebook", "replicates=1", "report=minimal")
    job = job_folder(str(tmp_path), "notebook", "seed=1")
    for folder in (tmp_path / "notebook", job):
        write_study(study, folder)
        report(folder)
    assert (tmp_path / "index.html").read_text("utf-8") == index_page(tmp_path)
    assert index_page(tmp_path).count("report.html") == 2
    # The page of a job links to the index beside it.
    assert index_page(job.parent) == (job.parent / "index.html").read_text("utf-8")
    assert index.roots(tmp_path / "notebook") == [tmp_path]


def test_writers_that_overlap_leave_a_complete_index(tmp_path, monkeypatch):
    """Another report is finished after the index was read and before it is written."""
    from pipeline.stages import report as stage

    entry(tmp_path / "a", "First")
    rendered = stage.index_page

    def overtaken(root):
        html = rendered(root)
        entry(tmp_path / "b", "Second")
        return html

    monkeypatch.setattr(stage, "index_page", overtaken)
    stage._write_index(tmp_path / "index.html")
    assert (tmp_path / "index.html").read_text("utf-8") == rendered(tmp_path)
    assert "Second" in rendered(tmp_path)


def test_a_study_made_by_overrides_says_so(tmp_path):
    """Its title and question are those of the experiment that it was made from."""
    given = ["sample_sizes=[20]", "+init.a={path: '/some/where/a.csv'}", "figures=[basins]"]
    plan = make_study("experiment=notebook", "replicates=1", "report=minimal").plan
    for name, overrides in {"a": given, "b": [*given, "question=why?"], "c": given[2:]}.items():
        write_plan(replace(plan, overrides=tuple(overrides)), tmp_path / name)
        (tmp_path / name / "metrics.json").write_text(json.dumps(COUNTS))
        (tmp_path / name / "report.html").write_text("")
    a, b, c = re.findall("<li>(.*?)</li>", index_page(tmp_path), re.DOTALL)
    with_ = "with <code>sample_sizes=[20]</code> <code>+init.a={path: &#39;a.csv&#39;}</code></p>"
    assert with_ in a and with_ in b and "with <code>" not in c
    base = "Question of the experiment <code>notebook</code>:"
    assert [base in each for each in (a, b, c)] == [True, False, False]
    assert "some/where" not in a and "basins" not in a
