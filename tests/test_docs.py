"""The pages' commands run and print what they say, and the reference pages know every name."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from pipeline.checks import MEASURES
from pipeline.config import compose
from pipeline.core.starts import INITS
from pipeline.core.stopping import STOPPING_RULES
from pipeline.planning import make_plan
from pipeline.reference import markdown
from pipeline.stages.aggregate import aggregate
from pipeline.statistics.cells import convergence
from pipeline.statistics.claims import claims
from pipeline.statistics.comparisons import comparisons
from pipeline.statistics.measures import optional_columns
from pipeline.statistics.references import derived
from pipeline.statistics.slopes import slopes
from pipeline.tables import OUTCOMES, fits_schema, replay_schema, traces_schema
from tests.factories import make_study, write_study

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMAND = r"^    (python -m pipeline.*?)(?:  +#.*)?$"
COMMANDS = re.findall(COMMAND, README, re.MULTILINE)
REFERENCE = (ROOT / "docs" / "statistics.md").read_text()
# Does the steps of a page in one process, which starts once for all of them, as if the working
# directory were the checkout: a new experiment can only live in the checkout's conf/.
PLAYER = """
import contextlib, io, json, os, runpy, shlex, sys
from pathlib import Path
import pipeline.config
pipeline.config.CONF = Path("conf").resolve()
printed = []
for kind, text in json.loads(Path("steps.json").read_text()):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if kind == "file":
            name, _, content = text.partition("\\n")
            assert Path(name).parent.is_dir() and not Path(name).exists(), name
            Path(name).write_text(content)
        elif kind == "python":
            exec(compile(text, "snippet", "exec"), {})
        else:
            _, _, module, *sys.argv[1:] = shlex.split(text)
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as stop:
                assert not stop.code, f"{text}: exit status {stop.code}"
    printed.append(out.getvalue())
Path("printed.json").write_text(json.dumps(printed))
"""


class Step(NamedTuple):
    """What a page asks the reader to do, and lines that it shows as printed then.

    `kind` is `command` (an indented line), `python` (a block) or `file` (a YAML block with a path
    after its language, which `text` begins with).
    """

    kind: str
    text: str
    shown: list[str]


def steps(page: str) -> list[Step]:
    """Return the steps of a page in their order; a block of text shows what the last one prints."""
    found: list[Step] = []
    page = re.sub(r" \\\n +", " ", page)  # a command over several lines
    block = r"^```(?:(python|text)|yaml (\S+))\n((?s:.*?))^```$"
    for match in re.finditer(f"{block}|{COMMAND}", page, re.MULTILINE):
        language, path, content, command = match.groups()
        if command:
            found.append(Step("command", command, []))
        elif path:
            found.append(Step("file", f"{path}\n{content}", []))
        elif language == "python":
            found.append(Step("python", content, []))
        else:
            found[-1].shown.extend(content.splitlines())
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 6


def test_the_commands_of_the_readme_run_in_their_order(workspace):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for line in COMMANDS:
        done = subprocess.run(
            ["bash", "-c", line], cwd=workspace, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr
    reports = {path.parent.relative_to(workspace) for path in workspace.rglob("report.html")}
    reports = {str(path) for path in reports if path.parts[0] != "mlartifacts"}
    assert reports == {
        "results/notebook",
        "elsewhere/notebook",
        "grid/notebook",
        "mine/notebook",
        "sizes/notebook",
        "results/multirun/seed=1/notebook",
        "results/multirun/seed=2/notebook",
    }
    assert (workspace / "mlflow.db").is_file()


@pytest.mark.parametrize(
    ("name", "fewest"), [("tutorial", 15), ("how_to", 20), ("from_the_notebook", 4)]
)
def test_a_page_can_be_followed_from_its_top_to_its_end(name, fewest, workspace):
    plan = steps((ROOT / "docs" / f"{name}.md").read_text())
    assert len(plan) >= fewest
    for folder in ("conf", "data"):
        shutil.copytree(ROOT / folder, workspace / folder)
    (workspace / "steps.json").write_text(json.dumps([(kind, text) for kind, text, _ in plan]))
    done = subprocess.run(
        [sys.executable, "-c", PLAYER],
        cwd=workspace,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    printed = json.loads((workspace / "printed.json").read_text())
    for step, text in zip(plan, printed, strict=True):
        for line in step.shown:
            assert words(line) in words(text), f"{step.text}\n{text}"


def test_every_column_is_explained():
    study = make_study("init=[notebook,kmeans_pp]")
    fits = study.fits.assign(**dict.fromkeys(optional_columns(study.plan.n_components), 0.1))
    table = convergence(fits, study.plan)
    paired = comparisons(fits, study.plan, derived(fits, study.plan))
    names = [*fits_schema(1, measures=MEASURES).names, *traces_schema(1).names, *table.columns]
    names += [*derived(study.fits, study.plan).columns, *paired.columns, *paired["statistic"]]
    law = "slopes=[{name: law, statistic: rmse_mean_0, factor: sample_size}]"
    claim = "claims=[{name: c, claim: a, source: b, slope: law, at_most: 0}]"
    claimed = make_plan(compose([law, claim]))[0]
    lines = slopes(table, claimed)
    names += [*lines.columns, *claims(table, lines, claimed).columns, *replay_schema(1).names]
    for name in names:
        # One parameter stands for all of them, one count for all outcomes, and what is over all
        # fits for the same over converged ones.
        base = re.sub(r"(weight|mean|scale)_\d+", "mean_0", name)
        base = re.sub("(?<!region)_(mcse|low|high)$", "", base)
        base = base.removesuffix("_converged") if base != "n_converged" else base
        base = base if base not in ("mean_0", "se_mean_0") else f"{base}…"
        if base.startswith("n_") and base.removeprefix("n_") in OUTCOMES:
            base = base.removeprefix("n_")
        assert f"`{base}`" in REFERENCE, name
    for name in (*OUTCOMES, *STOPPING_RULES):
        assert f"`{name}`" in REFERENCE


def test_every_curve_is_explained(tmp_path):
    study = make_study("experiment=convergence", "sample_sizes=[20]", "replicates=4")
    write_study(study, tmp_path)
    aggregate(tmp_path)
    for name in ("profiles", "trajectories"):
        table = pd.read_parquet(tmp_path / f"{name}.parquet")
        section = REFERENCE.partition(f"## `{name}.parquet`")[2].partition("\n## ")[0]
        texts = [label for label in ("kind", "axis", "quantity") if label in table]
        levels = {level for label in texts for level in table[label]} - set(OUTCOMES)
        for word in (*table.columns, *levels):
            assert f"`{word}`" in section, word


def test_the_reference_page_is_what_the_command_prints():
    assert (ROOT / "docs" / "reference.md").read_text() == markdown(), (
        "python -m pipeline.list --markdown > docs/reference.md"
    )


@pytest.mark.parametrize("name", INITS)
def test_every_init_is_explained_with_its_options(name):
    (row,) = [line for line in REFERENCE.splitlines() if line.startswith(f"| `{name}` | ")]
    for key, option in INITS[name].options.items():
        assert f"`{key}`" in row
        assert option.default is None or str(option.default) in row


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "docs").glob("*.md")])
def test_every_page_is_linked(name):
    assert f"docs/{name}" in README


@pytest.mark.parametrize("name", ["README", "docs/formulas", "docs/from_the_notebook"])
def test_every_file_that_a_page_names_exists(name):
    page = (ROOT / f"{name}.md").read_text()
    for path in re.findall(r"`((?:conf|docs|pipeline)/[\w/.]+)`", page):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).is_file(), target


def test_the_fit_that_the_readme_replays_is_planned():
    (cell,) = make_plan(compose(["experiment=notebook"]))[0].cells
    assert f"fit_id={cell.id}-r0-s0" in README
