"""Planning a study from a pilot."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import InputError
from pipeline.replicates_needed import main, replicates_needed
from tests.factories import make_study, write_study

STUDY = (
    "experiment=convergence",
    "mixture=[overlap_low]",
    "sample_sizes=[20,30]",
    "init=[random_points]",
    "replicates=9",
    "schedule.max_iter=5",
)


@pytest.fixture
def table(workspace: Path) -> pd.DataFrame:
    study = make_study(*STUDY)
    write_study(study, Path("results/convergence"))
    return study.convergence


def test_the_number_is_what_gives_the_wanted_error():
    """Morris et al. (2019), 5.3: a coverage of 0.95 needs 1900 replicates for an MCSE of 0.005."""
    pilot = np.array([1600, 100])
    mcse = np.sqrt(np.array([0.95 * 0.05, 0.5 * 0.5]) / pilot)
    found = replicates_needed(pilot, mcse, 0.005)
    assert found["needed"].tolist() == [1900, 10_000]
    assert replicates_needed(pilot, mcse, mcse[0])["needed"].tolist()[0] == 1600
    # One more than that, if the error is to be smaller by a little.
    assert replicates_needed(pilot, mcse, mcse[0] * (1 - 1e-6))["needed"].tolist()[0] == 1601


def test_the_range_holds_the_true_number_as_often_as_it_says():
    rng = np.random.default_rng(6)
    pilots, replicates, sd, wanted = 4000, 12, 3.0, 0.1
    mcse = rng.normal(scale=sd, size=(pilots, replicates)).std(axis=1, ddof=1)
    mcse /= math.sqrt(replicates)
    found = replicates_needed(np.full(pilots, replicates), mcse, wanted)
    true = (sd / wanted) ** 2
    inside = (found["low"] <= true) & (true <= found["high"])
    assert abs(inside.mean() - 0.95) < 4 * math.sqrt(0.95 * 0.05 / pilots)
    assert ((found["low"] <= found["needed"]) & (found["needed"] <= found["high"])).all()


def test_a_pilot_without_spread_says_nothing():
    found = replicates_needed(np.array([1, 5, 5]), np.array([math.nan, 0.0, math.nan]), 0.1)
    assert found.isna().all(axis=None)


def test_the_command_shows_every_cell(table, capsys):
    assert main(["experiment=convergence", "statistic=bias_mean_0", "mcse=0.05"]) == 0
    out = capsys.readouterr().out
    numbers = []
    for row in table.to_dict("records"):
        needed = math.ceil(9 * (row["bias_mean_0_mcse"] / 0.05) ** 2)
        numbers.append(needed)
        (line,) = [line for line in out.splitlines() if row["cell"] in line]
        assert [part.strip() for part in line.split("│")][5] == f"{needed:,}"
    (last,) = [line for line in out.splitlines() if "in every cell" in line]
    assert f"{max(numbers):,}" in last
    assert "A share" not in out
    main(["experiment=convergence", "statistic=converged_share", "mcse=0.01"])
    out = capsys.readouterr().out
    assert "A share never needs more than 2,500 replicates." in out
    assert "–" in out  # no fit converged in five iterations


def test_without_a_statistic_the_command_lists_what_there_is(table, capsys):
    assert main(["results/convergence"]) == 0
    out = capsys.readouterr().out
    names = {line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")}
    errors = table.filter(regex="_mcse$")
    there = errors.columns[errors.notna().any()]
    assert names == {name.removesuffix("_mcse") for name in there}
    assert 0 < len(there) < errors.shape[1]  # nothing converged


def test_a_pilot_of_one_replicate_is_refused(workspace):
    study = make_study(*STUDY, "replicates=1")
    write_study(study, Path("results/convergence"))
    for more in ([], ["statistic=bias_mean_0", "mcse=1"]):
        with pytest.raises(InputError, match="two replicates or more"):
            main(["experiment=convergence", *more])


def test_help(capsys):
    assert main(["--help"]) == 0
    assert (
        "python -m pipeline.replicates_needed experiment=NAME statistic" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["statistic=bias_mean_0"], "usage"),
        (["mcse=1"], "usage"),
        (["statistic=nosuch", "mcse=1"], "statistic: got 'nosuch'"),
        (["statistic=n_iter_median_mcse", "mcse=1"], "statistic: got"),
        (["statistic=bias_mean_0", "mcse=0"], "mcse: got '0'; allowed: a number above 0"),
        (["statistic=bias_mean_0", "mcse=small"], "mcse: got 'small'"),
        (["statistic=bias_mean_0", "mcse=inf"], "mcse: got 'inf'"),
        (["experiment=other", "statistic=bias_mean_0", "mcse=1"], "usage"),
        (["size=3"], "size=3"),
    ],
)
def test_bad_arguments_are_told(table, arguments, named):
    with pytest.raises(InputError, match=named):
        main(["experiment=convergence", *arguments])


def test_a_pilot_of_another_plan_is_refused(table):
    path = Path("results/convergence/plan.yaml")
    path.write_text(path.read_text().replace("  aggregate: ", "  aggregate: x"))
    with pytest.raises(InputError, match="made for another plan"):
        main(["experiment=convergence", "statistic=bias_mean_0", "mcse=1"])
