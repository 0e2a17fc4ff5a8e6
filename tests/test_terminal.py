"""What the terminal shows: help, lists, and the table after a run."""

import re
from dataclasses import fields, is_dataclass
from typing import get_args

import pytest

from pipeline import terminal
from pipeline.config import CONF, defaults
from pipeline.console import console
from pipeline.figures import FIGURES
from pipeline.list import first_sentence
from pipeline.list import main as list_main
from pipeline.reference import GROUPS, keys, options
from pipeline.schema import MEANING, Config
from tests.factories import make_study

STAGES = ("plan", "generate", "fit", "aggregate", "report", "track")


def test_every_folder_of_the_configuration_is_a_group():
    assert set(GROUPS) == {path.name for path in CONF.iterdir() if path.is_dir()}


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_has_a_description(group):
    described = options(group)
    assert set(described) == {path.stem for path in (CONF / group).glob("*.yaml")}
    assert all(len(text) > 6 and "\n" not in text for text in described.values())


def schema(owner: type) -> set[type]:
    inner = {t for item in fields(owner) for t in (item.type, *get_args(item.type))}
    return {owner}.union(*(schema(t) for t in inner if is_dataclass(t)))


def test_the_reference_has_every_key_of_the_schema_with_its_default():
    found = {key.path: key for key in keys()}
    names = {re.sub(r"(<name>|\[i\])", "", path).rpartition(".")[2] for path in found}
    for owner in schema(Config):
        assert {item.name for item in fields(owner)} <= names
        assert all(item.metadata[MEANING] for item in fields(owner))
    given = defaults()
    assert found["replicates"].default == str(given["replicates"])
    assert found["schedule.max_iter"].default == str(given["schedule"]["max_iter"])
    assert found["mixture.<name>.weights"].default == "required"
    assert found["mixture"].default == "[notebook]"


def test_the_list_names_everything(command):
    done = command("pipeline.list")
    assert done.returncode == 0, done.stderr
    for group in GROUPS:
        assert all(name in done.stdout for name in options(group))
    assert all(kind.name in done.stdout for kind in FIGURES)
    some = command("pipeline.list", "algorithm", "keys").stdout
    assert "squarem" in some and "kmeans_pp" not in some
    assert "schedule.stop.tolerance" in some
    wrong = command("pipeline.list", "sampler")
    assert wrong.returncode == 2
    assert "group: got 'sampler'; allowed: experiment, mixture" in wrong.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_every_option_and_examples(command, flag):
    done = command("pipeline", flag)
    assert done.returncode == 0, done.stderr
    for group in GROUPS:
        assert all(name in done.stdout for name in options(group))
    assert "python -m pipeline experiment=notebook" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_how_it_is_called(command, stage):
    done = command(f"pipeline.stages.{stage}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m pipeline.stages.{stage} " in done.stdout


def test_a_run_ends_with_a_table_and_where_to_look_next(command, workspace):
    many = "sample_sizes=[" + ",".join(map(str, range(20, 50))) + "]"
    study = ["model=[free]", "init=[kmeans_pp]", "schedule=converge", "replicates=3"]
    study += ["tracking=none", "report=minimal"]
    done = command("pipeline", *study, "sample_sizes=[40,80]")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split()[:3] == ["n", "fits", "converged"]
    assert [row.split()[:2] for row in rows[:2]] == [["40", "3"], ["80", "3"]]
    for name in re.findall(r"results/[\w./]+", done.stdout):
        assert (workspace / name).exists()
    assert "results/notebook/report.html" in done.stdout
    assert "mlflow" not in done.stdout
    done = command("pipeline", *study, many)
    assert "and 6 more cells: results/notebook/convergence.md" in done.stdout


def test_without_a_stopping_rule_the_table_says_so(command):
    done = command("pipeline", "experiment=notebook", "tracking=none")
    assert "schedule.stop.rule=never" in done.stdout
    assert "max_iter 1" in done.stdout


@pytest.fixture
def narrow(monkeypatch, capsys):
    """Return a function that gives what is printed into eighty columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def printed(function, *arguments):
        function(*arguments)
        return capsys.readouterr().out.splitlines()

    return printed


def test_help_and_lists_fit_into_eighty_columns(narrow):
    for function, arguments in ((terminal.print_help, ()), (list_main, ([],))):
        lines = narrow(function, *arguments)
        assert max(map(len, lines)) <= 80
        assert [line for line in lines if line != line.rstrip()] == []
    assert max(map(len, (terminal.USAGE + terminal.MORE).splitlines())) <= 79


def test_the_width_of_a_page_is_that_of_columns(monkeypatch):
    for columns, width in (("93", 93), ("", 120), ("wide", 120), ("0", 120)):
        monkeypatch.setenv("COLUMNS", columns)
        assert console().width == width


def test_the_table_after_a_run_fits_into_eighty_columns(narrow, monkeypatch, capsys, tmp_path):
    study = make_study(
        "mixture=[marron_wand_13_asymmetric_double_claw,notebook]", "model=[free]",
        "init=[random_points,random_responsibilities]", "sample_sizes=[40,80]",
        "replicates=3", "schedule.max_iter=20", "tracking=none",
    )  # fmt: skip
    table = study.convergence.copy()
    table["n_degenerate_scale"], table["n_max_iter"] = 2, table["n_fits"] - 2
    printed = narrow(terminal.print_summary, study.plan, table, tmp_path)
    header, *rows = printed[: -len(list(terminal._next_steps(study.plan, tmp_path)))]
    assert header.split() == ["cell", "fits", "converged", "median", "iter.", "failed"]
    assert max(map(len, (header, *rows))) <= 80
    assert sum(row.endswith(" 2") for row in rows) == 8
    # Names stand whole, so that cells which begin alike can be told apart.
    together = " ".join(" ".join(rows).split())
    for name, times in {"marron_wand_13_asymmetric_double_claw": 4, "random_points": 4}.items():
        assert together.count(name) == times
    assert together.count("n=40") == 4
    for columns, joined in (
        ("148", "degenerate_scale 2,"),
        ("300", "degenerate_scale 2, max_iter 1"),
    ):
        monkeypatch.setenv("COLUMNS", columns)
        terminal.print_summary(study.plan, table, tmp_path)
        wide = capsys.readouterr().out.splitlines()
        assert "95 % interval" in wide[0]
        assert wide[1].startswith("marron_wand_13_asymmetric_double_claw ")
        assert wide[1].endswith(joined)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (
            "start * growth^2, ... until it is 1; EM. More.",
            "start * growth^2, ... until it is 1; EM",
        ),
        ("One sentence. Another.", "One sentence"),
        ("One alone.", "One alone"),
        ("Cited, e.g. here, vol. 3. And on.", "Cited, e.g. here, vol. 3"),
        ("By A. P. Dempster. Next.", "By A. P. Dempster"),
        ("a, b, ... Then", "a, b, ... Then"),
    ],
)
def test_a_sentence_ends_at_a_full_stop_before_a_capital(text, first):
    assert first_sentence(text) == first


def test_help_of_the_replay_and_of_stages_is_prose(command, workspace):
    done = command("pipeline.replay", "--help")
    assert done.returncode == 0, done.stderr
    assert "python -m pipeline.replay experiment=NAME fit_id=ID" in done.stdout
    done = command("pipeline.stages.track", "--help")
    assert "Show the results of" in done.stdout
    assert "Raises" not in done.stdout and "---" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 79
    assert list(workspace.iterdir()) == []
