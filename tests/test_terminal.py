"""What the terminal shows: help, lists, and the table after a run."""

import re
from dataclasses import fields, is_dataclass
from typing import get_args

import pytest

from pipeline.config import CONF, defaults
from pipeline.figures import FIGURES
from pipeline.reference import GROUPS, keys, options
from pipeline.schema import MEANING, Config

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
