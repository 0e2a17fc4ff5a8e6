"""Planning a study from a pilot."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import InputError
from pipeline.replicates_needed import main, most_for_a_share, replicates_needed
from pipeline.statistics.cells import convergence
from pipeline.tables import STATISTICS, parameter_columns, write_statistics
from tests.factories import make_study, write_study

STUDY = (
    "experiment=convergence",
    "mixture=[]",
    "+mixture.unequal={weights: [0.4,0.6], means: [-2,2], scales: [1,1]}",
    "model=[notebook]",  # weights are fixed, at others than the true ones
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
    found = replicates_needed(pilot, pilot, mcse, 0.005)
    assert found["needed"].tolist() == [1900, 10_000]
    assert replicates_needed(pilot, pilot, mcse, mcse[0])["needed"].tolist()[0] == 1600
    # One more than that, if the error is to be smaller by a little.
    less = mcse[0] * (1 - 1e-6)
    assert replicates_needed(pilot, pilot, mcse, less)["needed"].tolist()[0] == 1601


def test_replicates_without_a_value_are_made_up_for():
    """Of 90 replicates 81 have a value: chi-square of 80 degrees, as tables print its quantiles.

    For a fifth of the error 81 * 25 = 2025 values are needed, and 2025 * 90 / 81 = 2250 replicates
    for them; 2250 * 80 / 106.629 = 1688.1 and 2250 * 80 / 57.153 = 3149.4 are the range.
    """
    found = replicates_needed(np.array([90]), np.array([81]), np.array([0.5]), 0.1)
    assert found.iloc[0].tolist() == [2250, 1689, 3150]
    # A share: 2500 values at most; more replicates, as the cell with the fewest values asks.
    replicates, behind = np.array([90, 90, 90]), np.array([90, 81, 0])
    assert most_for_a_share(replicates, behind, 0.01) == 2778  # 2777.8
    assert most_for_a_share(replicates[:1], behind[:1], 0.01) == 2500
    assert math.isnan(most_for_a_share(replicates[2:], behind[2:], 0.01))


def test_a_share_never_needs_more_than_its_variance_can_ask_for():
    """Half of 20 values are 1: variance 1/4; its interval's upper end would ask for 5789."""
    pilot, mcse = np.array([20, 40]), np.array([math.sqrt(0.25 / 20)] * 2)
    behind = np.array([20, 20])
    found = replicates_needed(pilot, behind, mcse, 0.01, share=True)
    assert found["needed"].tolist() == found["high"].tolist() == [2500, 5000]
    assert (found["low"] < found["needed"]).all()
    assert most_for_a_share(pilot, behind, 0.01) == 5000
    assert replicates_needed(pilot, behind, mcse, 0.01)["high"].iloc[0] > 5000


def test_two_replicates_with_a_value_are_the_fewest():
    """One value has no MCSE: a large one that is wanted asks for two, and for what they cost."""
    for share in (False, True):
        found = replicates_needed(
            np.array([20, 40]), np.array([20, 20]), np.array([0.1, 0.1]), 10.0, share
        )
        assert found.to_numpy().tolist() == [[2, 2, 2], [4, 4, 4]]
    assert most_for_a_share(np.array([20]), np.array([20]), 10.0) == 2


def test_the_range_holds_the_true_number_as_often_as_it_says():
    rng = np.random.default_rng(6)
    pilots, replicates, sd, wanted = 4000, 12, 3.0, 0.1
    mcse = rng.normal(scale=sd, size=(pilots, replicates)).std(axis=1, ddof=1)
    mcse /= math.sqrt(replicates)
    behind, planned = np.full(pilots, replicates), np.full(pilots, 2 * replicates)
    found = replicates_needed(planned, behind, mcse, wanted)
    true = 2 * (sd / wanted) ** 2  # every other replicate has a value
    inside = (found["low"] <= true) & (true <= found["high"])
    assert abs(inside.mean() - 0.95) < 4 * math.sqrt(0.95 * 0.05 / pilots)
    assert ((found["low"] <= found["needed"]) & (found["needed"] <= found["high"])).all()


def test_a_pilot_without_spread_says_nothing():
    behind, mcse = np.array([1, 5, 5, 0]), np.array([math.nan, 0.0, math.nan, math.nan])
    found = replicates_needed(np.full(4, 9), behind, mcse, 0.1)
    assert found.isna().all(axis=None)


def test_the_command_shows_every_cell(table, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["experiment=convergence", "statistic=bias_mean_0", "mcse=0.05"]) == 0
    out = capsys.readouterr().out
    numbers = []
    for row in table.to_dict("records"):
        needed = math.ceil(9 * (row["bias_mean_0_mcse"] / 0.05) ** 2)
        numbers.append(needed)
        (line,) = [line for line in out.splitlines() if row["cell"] in line]
        assert [part.strip() for part in line.split("│")][6] == f"{needed:,}"
    (last,) = [line for line in out.splitlines() if "in every cell" in line]
    assert f"{max(numbers):,}" in last and "with a number" not in last
    assert "A share" not in out
    main(["experiment=convergence", "statistic=converged_share", "mcse=0.01"])
    out = capsys.readouterr().out
    assert "A share never needs more than 2,500 replicates." in out
    assert "–" in out  # no fit converged in five iterations
    (last,) = [line for line in out.splitlines() if "in every cell" in line]
    assert "in every cell with a number" in last and last.split("│")[6].strip() == "–"


def test_without_a_statistic_the_command_lists_what_there_is(table, capsys):
    assert main(["results/convergence"]) == 0
    out = capsys.readouterr().out
    names = {line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")}
    errors = table.filter(regex="_mcse$")
    there = errors.columns[errors.notna().any()]
    fixed = there[there.str.contains("weight")]
    assert len(fixed) and errors[fixed].max(axis=None) == 0.0
    there = there.difference(fixed)
    assert names == {name.removesuffix("_mcse") for name in there}
    assert 0 < len(there) < errors.shape[1]  # nothing converged


def test_the_command_knows_the_replicates_behind_a_statistic(workspace, capsys, monkeypatch):
    """Of the first cell's nine replicates three have no Wald standard error."""
    monkeypatch.setenv("COLUMNS", "160")
    study = make_study(*STUDY)
    k = study.plan.n_components
    fits = study.fits.assign(**{f"se_{name}": 0.4 for name in parameter_columns(k)})
    first = fits["cell"] == study.plan.cells[0].id
    fits.loc[first & (fits["replicate"] < 3), "se_mean_0"] = math.nan
    table, folder = convergence(fits, study.plan), Path("results/convergence")
    write_study(study, folder)
    write_statistics(folder / STATISTICS, table, study.plan)
    assert main(["experiment=convergence", "statistic=coverage_mean_0", "mcse=0.05"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if study.plan.cells[0].id in line]
    assert [part.strip() for part in line.split("│")][2:4] == ["9", "6"]
    share = table["coverage_mean_0"].iloc[0]
    assert 0 < share < 1
    needed = math.ceil(share * (1 - share) / 0.05**2 * 9 / 6 - 1e-9)
    assert [part.strip() for part in line.split("│")][6] == f"{needed:,}"
    assert "A share never needs more than 150 replicates." in out  # 100 values, 9/6 of them
    main(["experiment=convergence", "statistic=bias_mean_0", "mcse=0.05"])
    (line,) = [s for s in capsys.readouterr().out.splitlines() if study.plan.cells[0].id in s]
    assert [part.strip() for part in line.split("│")][2:4] == ["9", "9"]


def test_a_pilot_of_one_replicate_is_refused(workspace):
    study = make_study(*STUDY, "replicates=1")
    write_study(study, Path("results/convergence"))
    for more in ([], ["statistic=bias_mean_0", "mcse=1"]):
        with pytest.raises(InputError, match="two replicates or more"):
            main(["experiment=convergence", *more])


def test_without_a_pilot_the_command_says_how_to_make_one(workspace):
    (workspace / "empty").mkdir()
    for arguments, told in (
        (["experiment=mine"], "pipeline experiment=mine replicates=NUMBER$"),
        (
            ["experiment=mine", "results_dir=p/q"],
            "experiment=mine replicates=NUMBER results_dir=p/q",
        ),
        (["empty"], r"experiment=empty replicates=NUMBER results_dir=\.$"),
    ):
        with pytest.raises(InputError, match=f"no pilot; make one with python -m .*{told}"):
            main(arguments)


def test_help(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "python -m pipeline.replicates_needed experiment=NAME statistic" in out
    assert "a results folder, such as results/NAME" in out


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
