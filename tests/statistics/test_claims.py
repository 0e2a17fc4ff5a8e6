"""Claims: planted true, planted wrong, under-powered; and how often a verdict errs."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config import compose
from pipeline.errors import InputError
from pipeline.planning import make_plan
from pipeline.stages.aggregate import aggregate
from pipeline.statistics.claims import check, claims, claims_level, counts, sentences, verdict
from pipeline.statistics.slopes import slopes
from pipeline.tables import OUTCOMES
from tests.factories import make_study, write_study

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = "claim: words, source: someone"


def plan_of(*overrides, claims=(), slopes=(), level=0.95):
    entries = ", ".join(f"{{name: c{i}, {TEXT}, {claim}}}" for i, claim in enumerate(claims))
    lines = ", ".join(f"{{{slope}}}" for slope in slopes)
    given = [f"claims=[{entries}]", f"slopes=[{lines}]", f"claims_level={level}"]
    return make_plan(compose(["replicates=100", *overrides, *given]))[0]


def table_of(plan, **columns):
    """Return a table of statistics in which every fit converged."""
    cells = plan.cells
    fits = np.array([cell.replicates * cell.starts for cell in cells])
    table = pd.DataFrame({"sample_size": [cell.sample_size for cell in cells]})
    counted = ("n_fits", "n_finite", "n_finite_converged", "n_converged", "n_rate_theory")
    return table.assign(**dict.fromkeys(counted, fits)).assign(**columns)


def judged(plan, **columns):
    table = table_of(plan, **columns)
    return claims(table, slopes(table, plan), plan)


def verdicts(plan, **columns):
    return judged(plan, **columns)["verdict"].tolist()


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("expected: 1.0, margin: 0.5", "supported"),
        ("expected: 1.0, margin: 0.1", "inconclusive"),
        ("expected: 1.4, margin: 0.5", "inconclusive"),
        ("expected: 2.0, margin: 0.5", "refuted"),
        ("expected: 0.0, margin: 0.5", "refuted"),
        ("at_least: 0.5", "supported"),
        ("at_least: 1.1", "inconclusive"),
        ("at_least: 1.5", "refuted"),
        ("at_most: 1.5", "supported"),
        ("at_most: 0.9", "inconclusive"),
        ("at_most: 0.5", "refuted"),
        ("between: [0.5, 1.5]", "supported"),
        ("between: [1.5, 2.5]", "refuted"),
    ],
)
def test_claims_about_a_mean_of_one(region, expected):
    plan = plan_of(claims=[f"statistic: bias_mean_0, {region}"])
    (row,) = judged(plan, bias_mean_0=1.0, bias_mean_0_mcse=0.1).to_dict("records")
    assert row["verdict"] == row["claim_verdict"] == expected
    assert (row["low"], row["high"]) == pytest.approx((0.787, 1.213), abs=2e-3)  # t, 100/7 df
    assert (row["reason"] == "") == (expected != "inconclusive")
    assert row["n"] == 100


def test_regions_are_closed():
    assert verdict(0.0, 1.0, 0.0, 1.0) == "supported"
    assert verdict(1.0, 2.0, 0.0, 1.0) == "inconclusive"
    assert verdict(np.nextafter(1.0, 2.0), 2.0, 0.0, 1.0) == "refuted"
    assert verdict(math.nan, math.nan, 0.0, 1.0) == "inconclusive"


def test_a_claim_must_hold_in_every_cell_that_it_selects():
    sizes = "sample_sizes=[50,60,70]"
    claim = "statistic: bias_mean_0, at_most: 1.0"
    plan = plan_of(sizes, claims=[claim, f"{claim}, where: {{sample_size: 60}}"])
    for values, each, whole in (
        ([0.0, 0.5, 0.2], ["supported"] * 3, "supported"),
        ([0.0, 0.5, 0.9], ["supported", "supported", "inconclusive"], "inconclusive"),
        ([0.0, 2.0, 0.9], ["supported", "refuted", "inconclusive"], "refuted"),
    ):
        table = judged(plan, bias_mean_0=values, bias_mean_0_mcse=0.1)
        assert table["verdict"].tolist() == [*each, each[1]]
        assert table["claim_verdict"].tolist() == [whole] * 3 + [each[1]]
        # Four intervals are judged together.
        assert table["level"].tolist() == pytest.approx([1 - 0.05 / 4] * 4)
        expected = {f"n_claims_{v}": 0 for v in ("supported", "refuted", "inconclusive")}
        expected["n_claims"] = 2
        for said in (whole, each[1]):
            expected[f"n_claims_{said}"] += 1
        assert counts(table) == expected


def test_more_claims_make_every_interval_wider():
    widths = []
    for number in (1, 2, 20):
        plan = plan_of(claims=["statistic: bias_mean_0, at_most: 1.0"] * number)
        row = judged(plan, bias_mean_0=0.0, bias_mean_0_mcse=0.1).iloc[0]
        widths.append(row["high"] - row["low"])
    assert widths == sorted(widths) and widths[2] > 1.3 * widths[0]


def test_weak_evidence_is_inconclusive_whatever_it_seems_to_say():
    claim = "statistic: rmse_mean_0, at_most: 1.0"
    good = {"rmse_mean_0": 0.5, "rmse_mean_0_mcse": 1e-6}
    hundred = plan_of(claims=[claim])
    assert verdicts(hundred, **good) == ["supported"]
    for objection, plan, columns in (
        ("29 replicates", plan_of("replicates=29", claims=[claim]), good),
        ("1 replicate; ", plan_of("replicates=1", claims=[claim]), good),
        ("do not differ", hundred, good | {"rmse_mean_0_mcse": 0.0}),
        ("do not differ", hundred, good | {"rmse_mean_0_mcse": math.nan}),
        ("no finite value", hundred, good | {"rmse_mean_0": math.nan}),
        ("no finite value", hundred, good | {"rmse_mean_0": math.inf}),
        ("1 of 100 fits have no value", hundred, good | {"n_finite": 99}),
        ("no standard error", hundred, {"rmse_mean_0": 0.5}),
    ):
        (row,) = judged(plan, **columns).to_dict("records")
        assert row["verdict"] == "inconclusive"
        assert objection in row["reason"]


@pytest.mark.parametrize("suffix", ["", "_converged"])
@pytest.mark.parametrize(
    ("statistic", "counted"),
    [
        ("coverage_mean_0", "n_wald"),
        ("model_se_scale_1", "n_wald"),
        ("hellinger", "n_distances"),
        ("bias_weight_0", "n_finite"),
    ],
)
def test_fits_without_the_value_count_as_missing(statistic, counted, suffix):
    statistic += suffix
    plan = plan_of(claims=[f"statistic: {statistic}, between: [0.5, 0.99]"])
    good = {statistic: 0.95, f"{statistic}_mcse": 1e-3}
    whole = judged(plan, **good, **{f"{counted}{suffix}": 100})
    assert "no value" not in whole["reason"][0]
    some = judged(plan, **good, **{f"{counted}{suffix}": 99})
    assert some["verdict"].tolist() == ["inconclusive"]
    assert "1 of 100 fits have no value" in some["reason"][0]


@pytest.mark.parametrize("statistic", ["log_likelihood_mean", "mean_log_likelihood"])
def test_fits_without_a_bounded_likelihood_count_as_missing(statistic):
    for name, counted in (
        (statistic, "n_log_likelihood"),
        (f"{statistic}_converged", "n_finite_converged"),
    ):
        plan = plan_of(claims=[f"statistic: {name}, at_most: 0"])
        good = {name: -1.0, f"{name}_mcse": 1e-3, "n_log_likelihood": 100}
        assert verdicts(plan, **good) == ["supported"]
        (row,) = judged(plan, **good | {counted: 97}).to_dict("records")
        assert row["verdict"] == "inconclusive" and "3 of 100 fits" in row["reason"]


def test_a_claim_may_allow_a_share_of_fits_without_a_value():
    claim = "statistic: rmse_mean_0, at_most: 1.0, allowed_missing: 0.05"
    good = {"rmse_mean_0": 0.5, "rmse_mean_0_mcse": 1e-6}
    assert verdicts(plan_of(claims=[claim]), **good, n_finite=95) == ["supported"]
    assert verdicts(plan_of(claims=[claim]), **good, n_finite=94) == ["inconclusive"]
    rate = claim.replace("rmse_mean_0", "rate_theory_mean")
    good = {"rate_theory_mean": 0.5, "rate_theory_mean_mcse": 1e-6}
    assert verdicts(plan_of(claims=[rate]), **good, n_rate_theory=94) == ["inconclusive"]
    some = claim.replace("rmse_mean_0", "rmse_mean_0_converged")
    good = {"rmse_mean_0_converged": 0.5, "rmse_mean_0_converged_mcse": 1e-6}
    assert verdicts(plan_of(claims=[some]), **good, n_finite_converged=94) == ["inconclusive"]


@pytest.mark.parametrize(
    ("share", "region", "expected"),
    [
        (1.0, "at_least: 0.96", "supported"),  # Wilson's 0.963 after 100 of 100
        (1.0, "at_least: 0.97", "inconclusive"),
        (0.5, "at_least: 0.7", "refuted"),
        (0.0, "at_most: 0.04", "supported"),
        (0.0, "expected: 0.5, margin: 0.1", "refuted"),
        # Wilson's interval begins at 0.00177, but one event in 100 does not refute a rare one.
        (0.01, "at_most: 0.001", "inconclusive"),
        (0.01, "at_most: 0.0001", "refuted"),
    ],
)
def test_claims_about_a_share(share, region, expected):
    plan = plan_of(claims=[f"statistic: converged_share, {region}"])
    (row,) = judged(plan, converged_share=share, converged_share_mcse=0.0).to_dict("records")
    assert row["verdict"] == expected
    assert row["n"] == 100


def test_starts_of_a_replicate_are_no_replicates():
    claim = "statistic: converged_share, at_least: 0.9"
    alone = plan_of("init=[random_points]", "replicates=10", "starts=100", claims=[claim])
    assert verdicts(alone, converged_share=1.0, converged_share_mcse=0.0) == ["inconclusive"]
    many = plan_of("init=[random_points]", "replicates=100", "starts=10", claims=[claim])
    assert verdicts(many, converged_share=1.0, converged_share_mcse=0.0) == ["supported"]


@pytest.mark.parametrize("share", [1.0, 0.99, 0.0])
@pytest.mark.parametrize("allowed", [0, 0.05, 1])
def test_a_reference_from_one_starting_point_decides_no_claim(share, allowed):
    region = f"at_least: 0.85, allowed_missing: {allowed}"
    plan = plan_of("starts=4", claims=[f"statistic: reached_reference_share, {region}"])
    columns = {"reached_reference_share": share, "reached_reference_share_mcse": 0.0}
    expected = "refuted" if share == 0.0 else "supported"
    assert verdicts(plan, **columns, n_lone_reference=0) == [expected]
    (row,) = judged(plan, **columns, n_lone_reference=1).to_dict("records")
    fits = plan.cells[0].replicates * plan.cells[0].starts
    assert row["verdict"] == "inconclusive"
    assert f"1 of {fits} fits have a reference from one starting point" in row["reason"]


def test_a_slope_of_lone_references_decides_no_claim():
    law = "name: law, statistic: reached_reference_share, factor: sample_size"
    plan = plan_of(SIZES, slopes=[law], claims=["slope: law, expected: -0.5, margin: 0.1"])
    columns = {"reached_reference_share": N**-0.5, "reached_reference_share_mcse": 0.02 * N**-0.5}
    assert verdicts(plan, **columns, n_lone_reference=0) == ["supported"]
    assert verdicts(plan, **columns, n_lone_reference=[0, 0, 1, 0]) == ["inconclusive"]


POPULATION = ("mixture=[overlap_low]", "model=[free]", "sample_sizes=[inf]")


def test_a_population_has_no_sampling_error_but_a_numerical_one():
    claim = "statistic: rate_theory_mean, expected: 0.7, margin: 0.001"
    wrong = "statistic: rate_theory_mean, expected: 0.71, margin: 0.001"
    plan = plan_of(*POPULATION, "init=[quantiles]", claims=[claim, wrong])
    sharp = {"rate_theory_mean": 0.7, "rate_theory_mean_mcse": math.nan}
    assert verdicts(plan, **sharp, numerical_error=1e-9) == ["supported", "refuted"]
    assert verdicts(plan, **sharp, numerical_error=1e-3) == ["inconclusive"] * 2
    assert verdicts(plan, **sharp, numerical_error=math.nan) == ["inconclusive"] * 2
    # A start at random is one of many.
    plan = plan_of(*POPULATION, "init=[random_points]", claims=[claim, wrong])
    assert verdicts(plan, **sharp, numerical_error=1e-9) == ["inconclusive"] * 2


def test_random_starts_on_a_population_are_independent():
    claim = "statistic: converged_share, at_least: 0.9"
    plan = plan_of(*POPULATION, "init=[random_points]", "starts=100", claims=[claim])
    (row,) = judged(plan, converged_share=1.0, converged_share_mcse=math.nan).to_dict("records")
    assert (row["verdict"], row["n"]) == ("supported", 100)


@pytest.mark.parametrize(
    ("value", "ends", "region", "expected"),
    [
        (20.0, (18.0, 22.0), "at_most: 30", "supported"),
        (20.0, (18.0, 22.0), "at_most: 10", "refuted"),
        (20.0, (18.0, 22.0), "at_most: 20", "inconclusive"),
        # Failures leave fewer than half.
        (math.inf, (math.inf, math.inf), "at_most: 5", "refuted"),
        (math.inf, (50.0, math.inf), "at_most: 5", "refuted"),
        (math.inf, (50.0, math.inf), "at_least: 40", "supported"),
        (math.inf, (50.0, math.inf), "at_most: 60", "inconclusive"),
        # The budget ended before: somewhere above.
        (math.nan, (50.0, math.nan), "at_most: 20", "refuted"),
        (math.nan, (50.0, math.nan), "at_most: 60", "inconclusive"),
        (math.nan, (math.nan, math.nan), "at_most: 20", "inconclusive"),
    ],
)
def test_quantiles_are_judged_by_their_own_intervals(value, ends, region, expected):
    plan = plan_of(claims=[f"statistic: n_iter_median, {region}"])
    columns = dict(zip(("n_iter_median_low", "n_iter_median_high"), ends, strict=True))
    assert verdicts(plan, n_iter_median=value, **columns) == [expected]


def test_a_cost_that_is_infinite_refutes_a_bound():
    plan = plan_of(claims=["statistic: expected_running_time, at_most: 100"])
    columns = {"expected_running_time_mcse": math.nan, "expected_running_time_low": 198.7}
    columns |= {"expected_running_time": math.inf, "expected_running_time_high": math.inf}
    assert verdicts(plan, **columns) == ["refuted"]


def test_a_cost_is_judged_by_its_own_interval_that_knows_of_failures_unseen():
    """One fit in a hundred costs 20,000 evaluations, and none of these did: 305 is the truth."""
    plan = plan_of(
        claims=[f"statistic: expected_running_time, at_most: {end}" for end in (152, 2000)]
    )
    columns = {"expected_running_time": 101.0, "expected_running_time_mcse": 1.0}
    columns |= {"expected_running_time_low": 95.0, "expected_running_time_high": 1200.0}
    assert verdicts(plan, **columns) == ["inconclusive", "supported"]


def test_the_level_is_corrected_for_all_that_are_judged():
    plan = plan_of(claims=["statistic: bias_mean_0, at_most: 0"] * 4)
    assert claims_level(plan, table_of(plan)) == pytest.approx(1 - 0.05 / 4)
    assert judged(plan, bias_mean_0=1.0, bias_mean_0_mcse=0.1)["level"][0] == 1 - 0.05 / 4


LAW = "name: law, statistic: rmse_mean_0, factor: sample_size"
SIZES = "sample_sizes=[100,200,400,800]"
N = np.array([100.0, 200.0, 400.0, 800.0])


def slope_plan(*overrides, sizes=SIZES):
    regions = ("expected: -0.5, margin: 0.1", "expected: -1, margin: 0.1", "at_most: -0.5")
    return plan_of(sizes, *overrides, slopes=[LAW], claims=[f"slope: law, {r}" for r in regions])


def test_claims_about_a_slope():
    columns = {"rmse_mean_0": N**-0.5, "rmse_mean_0_mcse": 0.02 * N**-0.5}
    table = judged(slope_plan(), **columns)
    assert table["verdict"].tolist() == ["supported", "refuted", "inconclusive"]
    assert table["cell"].isna().all() and (table["slope"] == "law").all()
    weak = columns | {"rmse_mean_0_mcse": 0.3 * N**-0.5}
    assert verdicts(slope_plan(), **weak) == ["inconclusive"] * 3


def test_points_that_are_gone_do_not_help_a_slope():
    columns = {"rmse_mean_0": N**-0.5, "rmse_mean_0_mcse": 0.02 * N**-0.5}
    for objection, plan, change in (
        ("1 of 4 points left out", slope_plan(), {"rmse_mean_0": [0.1, math.nan, 0.05, 0.035]}),
        ("3 of 100 fits have no value", slope_plan(), {"n_finite": [100, 100, 97, 100]}),
        ("29 replicates", slope_plan("replicates=29"), {}),
    ):
        table = judged(plan, **columns | change)
        assert table["verdict"].tolist() == ["inconclusive"] * 3
        assert table["reason"].str.contains(objection).all()
    two = {name: values[:2] for name, values in columns.items()}
    assert set(verdicts(slope_plan(sizes="sample_sizes=[100,200]"), **two)) == {"inconclusive"}


@pytest.mark.parametrize("count", [30, 97, 100])
def test_a_constant_has_no_slope_that_is_known(count):
    """The mean of equal logarithms rounds: what is left is no error to judge by."""
    law = "name: flat, statistic: n_converged, factor: sample_size"
    claim = "slope: flat, expected: 0, margin: 0.001"
    plan = plan_of(SIZES, f"replicates={count}", slopes=[law], claims=[claim])
    (row,) = judged(plan).to_dict("records")
    assert row["verdict"] == "inconclusive" and row["reason"] == "it has no standard error"
    assert row["mcse"] == 0.0


def simulate(rng, replicates, truth):
    """Return a mean of normal values and its standard error."""
    values = rng.normal(truth, 1.0, replicates)
    return values.mean(), values.std(ddof=1) / math.sqrt(replicates)


def test_all_verdicts_together_err_no_more_than_the_level_says():
    """Five claims whose truth lies on the border: both verdicts are possible errors."""
    rng = np.random.default_rng(11)
    studies, cells = 600, 5
    sizes = f"sample_sizes={[50 + i for i in range(cells)]}".replace(" ", "")
    for region, error in (("at_most: -0.000000001", "supported"), ("at_most: 0.0", "refuted")):
        plan = plan_of(sizes, "replicates=30", claims=[f"statistic: bias_mean_0, {region}"])
        wrong = 0
        for _ in range(studies):
            means, errors = np.transpose([simulate(rng, 30, 0.0) for _ in range(cells)])
            said = verdicts(plan, bias_mean_0=means, bias_mean_0_mcse=errors)
            wrong += error in said
        assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_fewer_replicates_never_help():
    rng = np.random.default_rng(12)
    power = {}
    for replicates in (2, 5, 29, 30, 100, 1000):
        claim = "statistic: bias_mean_0, expected: 0, margin: 0.3"
        plan = plan_of(f"replicates={replicates}", claims=[claim])
        said = []
        for _ in range(200):
            mean, error = simulate(rng, replicates, 0.0)
            said += verdicts(plan, bias_mean_0=mean, bias_mean_0_mcse=error)
        power[replicates] = said.count("supported") / len(said)
    assert power[2] == power[5] == power[29] == 0.0
    assert 0.0 <= power[30] < power[100] <= power[1000] == 1.0


def test_the_study_is_asked_only_for_what_it_has():
    for claims_, slopes_, message in (
        (["statistic: rmse_men_0, at_most: 1"], [], "c0: statistic: got 'rmse_men_0'"),
        (["statistic: mixture, at_most: 1"], [], "c0: statistic: got 'mixture'"),
        (["statistic: rmse_mean_0_mcse, at_most: 1"], [], "got 'rmse_mean_0_mcse'"),
        ([], ["name: law, statistic: nope, factor: sample_size"], "law: statistic: got 'nope'"),
        ([], ["name: law, statistic: rmse_mean_0, factor: init"], "law: factor: got 'init'"),
        (["slope: law, at_most: 1, where: {sample_size: 100}"], [LAW], "no line of slope law"),
    ):
        with pytest.raises(InputError, match=message):
            check(plan_of(SIZES, claims=claims_, slopes=slopes_))
    with pytest.raises(InputError, match="no cell matches"):
        plan_of(
            SIZES,
            "init=[kmeans_pp,truth]",
            "only=[{init: truth}]",
            claims=["statistic: rmse_mean_0, at_most: 1, where: {init: kmeans_pp}"],
        )


@pytest.mark.parametrize("statistic", ["converged_share", "reached_reference_share"])
@pytest.mark.parametrize(
    ("region", "told"),
    [
        ("at_least: 1.5", "at_least: got 1.5"),
        ("at_most: -1", "at_most: got -1.0"),
        ("between: [1.1, 2]", "between: got [1.1, 2.0]"),
        ("expected: 2, margin: 0.5", "expected: got 2.0"),
        ("expected: -0.3, margin: 0.1", "expected: got -0.3"),
    ],
)
def test_a_region_that_no_share_can_be_in_is_refused(statistic, region, told):
    with pytest.raises(InputError) as error:
        check(plan_of(claims=[f"statistic: {statistic}, {region}"]))
    allowed = "a region that a share can be in, 0 to 1"
    assert str(error.value) == f"claims: c0: {told}; allowed: {allowed}"


def test_a_region_that_a_share_can_be_in_is_accepted():
    regions = ["at_least: 1", "at_most: 0", "between: [-1, 0]", "expected: 1.5, margin: 0.5"]
    check(plan_of(claims=[f"statistic: converged_share, {region}" for region in regions]))
    check(plan_of(claims=["statistic: bias_mean_0, at_least: 1.5"]))
    wald = "statistic: coverage_mean_0, at_least: 1.5"
    with pytest.raises(InputError, match=r"c0: at_least: got 1\.5"):
        check(plan_of("measures=[wald]", claims=[wald]))


def test_the_experiment_file_has_claims_of_the_study():
    plan = make_plan(compose(["experiment=root_n"]))[0]
    check(plan)
    assert len(plan.config["claims"]) == 8


def test_aggregate_refutes_what_is_wrong_and_supports_what_is_true(tmp_path, caplog):
    study = make_study(
        "mixture=[overlap_low]",
        "model=[free]",
        "init=[random_points]",
        "schedule=converge",
        "schedule.stop.tolerance=1e-4",
        "sample_sizes=[60]",
        "replicates=40",
        "claims=[{name: right, claim: a, source: b, statistic: bias_mean_0, expected: 0, "
        "margin: 1}, {name: wrong, claim: a, source: b, statistic: bias_mean_0, expected: 3, "
        "margin: 1}, {name: open, claim: a, source: b, statistic: converged_share, "
        "at_least: 0.99999}]",
    )
    write_study(study, tmp_path)
    with caplog.at_level("INFO"):
        aggregate(tmp_path)
    table = pd.read_parquet(tmp_path / "claims.parquet")
    assert table["claim_verdict"].tolist() == ["supported", "refuted", "inconclusive"]
    said = [line for line in caplog.messages if line.startswith("claim ")]
    assert [line.split(" (")[0] for line in said] == [
        "claim right: supported",
        "claim wrong: refuted",
        "claim open: inconclusive",
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {name: metrics[name] for name in metrics if "claims" in name} == {
        "n_claims": 3,
        "n_claims_supported": 1,
        "n_claims_refuted": 1,
        "n_claims_inconclusive": 1,
    }
    assert set(OUTCOMES) <= {name.removeprefix("n_") for name in metrics}
    assert len(pd.read_parquet(tmp_path / "slopes.parquet")) == 0


def said(**row):
    """Return the line on a claim of one cell, and its numbers in brackets."""
    row = {"name": "c", "cell": "x", "slope": None, "reason": "", "claim_verdict": "", **row}
    (line,) = sentences(pd.DataFrame([{**row, "verdict": row["claim_verdict"]}]))
    return line


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-13, 2.0**-53])
def test_a_line_shows_what_tells_the_interval_from_the_region(gap):
    """Just above the region, by `gap`: as written the interval lies above it too."""
    edge = 0.65674
    line = said(
        claim_verdict="refuted", estimate=edge + 1.5 * gap, low=edge + gap, high=edge + 2 * gap,
        region_low=edge - 1e-9, region_high=edge,
    )  # fmt: skip
    shown = re.findall(r"\[(\S+), (\S+)\]", line)
    (low, _), (_, end) = (tuple(map(float, pair)) for pair in shown)
    assert low > end
    assert all(len(number) <= 19 for pair in shown for number in pair)


def test_a_line_has_five_digits_where_these_tell():
    line = said(
        claim_verdict="supported", estimate=1 / 3, low=0.25, high=0.4123456,
        region_low=-math.inf, region_high=0.5,
    )  # fmt: skip
    assert line == "claim c: supported (x: 0.33333 [0.25, 0.41235], claimed [-inf, 0.5])"


def test_a_line_without_a_verdict_has_its_interval_and_its_reason():
    row = {"claim_verdict": "inconclusive", "estimate": 0.9, "region_low": 0.85, "region_high": 1.0}
    reason = "the interval is neither inside the claimed region nor outside"
    line = said(**row, low=0.8, high=0.95, reason=reason)
    assert line == f"claim c: inconclusive (x: 0.9 [0.8, 0.95], claimed [0.85, 1]; {reason})"
    none = said(**row, low=math.nan, high=math.nan, reason="1 replicate; allowed: at least 5")
    assert "(x: 0.9, claimed [0.85, 1]; 1 replicate; allowed" in none


def test_a_claim_of_nothing_stops_the_run_before_it_writes(tmp_path):
    line = [sys.executable, "-m", "pipeline", "results_dir=r", "store_dir=s", "tracking=none"]
    line += [f"claims=[{{name: c, {TEXT}, statistic: nope, at_most: 1}}]"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: claims: c: statistic: got 'nope'; allowed: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["claims", "slopes", "claims_level"])
def test_editing_what_is_claimed_reruns_the_aggregation_alone(key):
    value = {
        "claims": f"[{{name: c, {TEXT}, statistic: converged_share, at_least: 0.5}}]",
        "slopes": f"[{{{LAW}}}]",
        "claims_level": "0.9",
    }[key]
    before, after = (make_plan(compose(o))[0] for o in ([], [f"{key}={value}"]))
    assert before.cells == after.cells
    same = {stage for stage in before.hashes if before.hashes[stage] == after.hashes[stage]}
    assert {"generate", "fit"} <= same and "aggregate" not in same
