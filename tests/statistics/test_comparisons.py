"""Paired comparisons against loops over pairs, and against the spread over simulated studies."""

import dataclasses
import io
import math
import statistics
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from pipeline.statistics.comparisons import (
    MOST_LEVELS,
    comparisons,
    level_pairs,
    rule_comparisons,
)
from pipeline.statistics.references import derived
from tests.statistics.test_cells import (
    FLAT_TRUTH,
    cell,
    fits_of,
    is_finite,
    names,
    plan_of,
    random_fits,
    with_ids,
)

DISTANCES = ["total_variation", "hellinger", "kullback_leibler", "wasserstein_1"]


def design(replicates=12, starts=2, inits=("random_points", "kmeans_pp", "truth"), **fixed):
    """Return cells of every init with two algorithms."""
    return [
        dataclasses.replace(
            cell(f"{init}-{algorithm}", replicates=replicates, starts=starts, init=init, **fixed),
            algorithm=algorithm,
        )
        for init in inits
        for algorithm in ("em", "squarem")
    ]


@pytest.fixture
def varied():
    other = dataclasses.replace(cell("elsewhere", replicates=12), data_set="other")
    larger = dataclasses.replace(cell("larger", n_components=3, replicates=12), model="three")
    again = dataclasses.replace(larger, id="larger-truth", init="kmeans_pp")
    plan = plan_of(*design(), other, larger, again)
    rng = np.random.default_rng(5)
    fits = random_fits(plan).assign(**{name: 1.0 for name in DISTANCES})
    for name in DISTANCES:
        fits[name] = rng.lognormal(size=len(fits))
    fits.loc[rng.random(len(fits)) < 0.2, "mean_0"] = math.nan
    fits.loc[rng.random(len(fits)) < 0.1, "hellinger"] = math.inf
    fits.loc[fits["replicate"] < 9, "outcome"] = "converged"
    fits.loc[rng.random(len(fits)) < 0.1, "outcome"] = "degenerate_scale"
    # A replicate is missing from one cell, and another one from another cell.
    gone = (fits["cell"] == "kmeans_pp-em") & (fits["replicate"] == 3)
    gone |= (fits["cell"] == "truth-em") & (fits["replicate"] == 0)
    return with_ids(fits[~gone].reset_index(drop=True)), plan


def values_of(rows, statistic, c, reached):
    """Return {replicate: mean over starts} for one cell, by the definition of the statistic."""
    known = dict(zip(names(2), FLAT_TRUTH, strict=True))
    found = {}
    for replicate in sorted({row["replicate"] for row in rows}):
        mine = [row for row in rows if row["replicate"] == replicate]
        ended = [row["outcome"] == "converged" for row in mine]
        finite = [row for row in mine if is_finite(row, c.n_components)]
        if statistic == "converged_share":
            values = [float(value) for value in ended]
        elif statistic == "reached_reference_share":
            values = [float(reached[row["fit_id"]]) for row in mine]
        elif statistic in ("n_iter", "map_evaluations"):
            values = [row[statistic] for row in mine] if all(ended) else []
        elif statistic == "log_likelihood":
            values = [row["log_likelihood"] for row in finite]
        elif statistic in DISTANCES:
            values = [row[statistic] for row in finite if math.isfinite(row[statistic])]
        else:
            kind, _, name = statistic.partition("_error_")
            errors = [row[name] - known[name] for row in finite]
            values = [e**2 if kind == "squared" else abs(e) for e in errors]
        if values:
            found[replicate] = statistics.mean(values)
    return found


def test_every_row_equals_a_loop(varied):
    fits, plan = varied
    beside = derived(fits, plan)
    reached = dict(zip(beside["fit_id"], beside["reached_reference"], strict=True))
    table = comparisons(fits, plan, beside)
    cells = {c.id: c for c in plan.cells}
    rows = fits.to_dict("records")
    usual = ["converged_share", "reached_reference_share", "n_iter", "map_evaluations"]
    usual += ["log_likelihood"]
    errors = [f"{kind}_error_{name}" for kind in ("squared", "absolute") for name in names(2)]
    expected = []
    for factor in ("init", "algorithm"):
        for a, b in combinations(plan.cells, 2):
            same = {"data_set", "model", "init", "algorithm"} - {factor}
            if any(getattr(a, key) != getattr(b, key) for key in same):
                continue
            with_truth = a.n_components == 2
            for statistic in usual + errors * with_truth + DISTANCES:
                expected.append((factor, a.id, b.id, statistic))
    keys = ["factor", "cell_a", "cell_b", "statistic"]
    got = list(table[keys].itertuples(index=False, name=None))
    assert len(got) == len(set(got)) and set(got) == set(expected)
    for row in table.to_dict("records"):
        one, two = (
            values_of(
                [r for r in rows if r["cell"] == name], row["statistic"], cells[name], reached
            )
            for name in (row["cell_a"], row["cell_b"])
        )
        both = sorted(set(one) & set(two))
        difference = [two[r] - one[r] for r in both]
        present = {r["replicate"] for r in rows if r["cell"] in (row["cell_a"], row["cell_b"])}
        assert (row["n_pairs"], row["n_unpaired"]) == (len(both), len(present) - len(both))
        mcse = statistics.stdev(difference) / math.sqrt(len(both))
        assert row["difference"] == pytest.approx(statistics.mean(difference), rel=1e-11, abs=1e-14)
        assert row["mcse"] == pytest.approx(mcse, rel=1e-11, abs=1e-14)
        assert row["value_a"] == pytest.approx(statistics.mean(one[r] for r in both), rel=1e-12)
        assert row["value_b"] == pytest.approx(statistics.mean(two[r] for r in both), rel=1e-12)
        assert row["level_a"] == getattr(cells[row["cell_a"]], row["factor"])
        assert row["level_b"] == getattr(cells[row["cell_b"]], row["factor"])
    assert (
        table["n_unpaired"].max() > 3 and table.loc[table["statistic"] == "n_iter"].shape[0] == 10
    )
    assert table.loc[table["factor"] == "init", "init"].isna().all()
    assert set(table.loc[table["factor"] == "init", "algorithm"]) == {"em", "squarem"}


def test_order_of_rows_changes_no_byte(varied):
    def parquet(table):
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return buffer.getvalue()

    fits, plan = varied
    expected = parquet(comparisons(fits, plan))
    for seed in range(3):
        assert parquet(comparisons(fits.sample(frac=1.0, random_state=seed), plan)) == expected


def test_evaluations_are_compared_with_those_of_the_inits():
    plan = plan_of(*design(replicates=3, starts=1, inits=("truth", "searched")))
    fits = fits_of(plan, n_iter=7, map_evaluations=np.repeat([30, 30, 25, 25], 3))
    table = comparisons(fits, plan).query("factor == 'init' and algorithm == 'em'")
    rows = table.set_index("statistic")
    values = ["value_a", "value_b", "difference"]
    # 25, and 3 runs of 4 iterations before them.
    assert rows.loc["map_evaluations", values].tolist() == [30.0, 37.0, 7.0]
    assert rows.loc["n_iter", values].tolist() == [7.0, 7.0, 0.0]


def test_iterations_are_compared_where_both_converged_and_the_others_are_counted():
    plan = plan_of(*design(replicates=4, starts=2, inits=("truth",)))
    outcome = ["converged"] * 3 + ["max_iter"] + ["converged"] * 10 + ["max_iter"] * 2
    n_iter = [10, 12, 1, 5000, 20, 22, 30, 32, 1, 1, 1, 1, 4, 6, 9, 5000]
    table = comparisons(fits_of(plan, n_iter=n_iter).assign(outcome=outcome), plan)
    row = table.set_index("statistic").loc["n_iter"]
    # Replicates 0 and 2: starts of 11 and 21 on average against 1 and 5.
    assert (row["n_pairs"], row["n_unpaired"]) == (2, 2)
    assert (row["value_a"], row["value_b"], row["difference"]) == (16.0, 3.0, -13.0)
    assert row["mcse"] == pytest.approx(3.0)
    share = table.set_index("statistic").loc["converged_share"]
    assert (share["n_pairs"], share["difference"]) == (4, -0.125)


def test_without_a_pair_there_is_an_empty_table_of_the_same_types(varied):
    plan = plan_of(cell("a", replicates=3), dataclasses.replace(cell("b"), data_set="other"))
    empty = comparisons(random_fits(plan), plan)
    whole = comparisons(*varied)
    assert len(empty) == 0 and len(whole) > 0
    assert dict(empty.dtypes) == dict(whole.dtypes)


def test_one_common_replicate_has_a_difference_and_no_error_and_none_has_neither():
    plan = plan_of(*design(replicates=2, starts=1, inits=("truth",)))
    fits = fits_of(plan, log_likelihood=[-3.0, -4.0, -1.0, math.nan])
    row = comparisons(fits, plan).set_index("statistic").loc["log_likelihood"]
    assert (row["difference"], row["n_pairs"], row["n_unpaired"]) == (2.0, 1, 1)
    assert math.isnan(row["mcse"])
    apart = fits[(fits["cell"] == "truth-em") == (fits["replicate"] == 0)]
    row = comparisons(apart, plan).set_index("statistic").loc["log_likelihood"]
    assert (row["n_pairs"], row["n_unpaired"]) == (0, 2)
    assert math.isnan(row["difference"])
    # And a cell without any fit.
    row = comparisons(fits[fits["cell"] == "truth-em"], plan).iloc[0]
    assert (row["n_pairs"], row["n_unpaired"]) == (0, 2)


def test_many_levels_are_compared_with_the_first():
    few, many = list(range(MOST_LEVELS)), list(range(MOST_LEVELS + 1))
    assert level_pairs(few) == list(combinations(few, 2))
    assert level_pairs(many) == [(0, other) for other in many[1:]]
    assert level_pairs([4]) == []


def test_paired_errors_are_the_spread_over_studies_and_smaller_than_unpaired():
    """Two algorithms on the same samples: correlated, so that their difference is well known."""
    studies, replicates, starts = 1500, 40, 2
    rng = np.random.default_rng(8)
    cells = [
        dataclasses.replace(
            cell(f"s{i}-{algorithm}", replicates=replicates, starts=starts),
            data_set=f"s{i}",
            algorithm=algorithm,
        )
        for i in range(studies)
        for algorithm in ("em", "squarem")
    ]
    plan = plan_of(*cells)
    shape = (studies, 2, replicates, starts)
    shared = rng.normal(size=(studies, 1, replicates, 1))
    noise = rng.normal(size=(studies, 2, replicates, 1)) + rng.normal(size=shape)
    level = np.array([0.0, 0.25]).reshape(1, 2, 1, 1)
    likelihood = -100.0 + level + 2.0 * shared + 0.5 * noise
    index = [grid.ravel() for grid in np.indices(shape)]
    fits = pd.DataFrame(
        {
            "cell": np.array([c.id for c in cells])[2 * index[0] + index[1]],
            "replicate": index[2],
            "start": index[3],
            "outcome": "converged",
            "n_iter": 1,
            "map_evaluations": 1,
            "log_likelihood": likelihood.ravel(),
            **dict(zip(names(2), FLAT_TRUTH, strict=True)),
        }
    )
    table = comparisons(fits, plan).query("statistic == 'log_likelihood'")
    assert len(table) == studies
    claimed, actual = (table["mcse"] ** 2).mean(), table["difference"].var()
    assert abs(claimed / actual - 1.0) < 4.0 * math.sqrt(2.0 / (studies - 1))
    # By arithmetic: 2 (1 + 1/2) / 4 / 40, and unpaired 2 * 4 / 40 more.
    assert actual == pytest.approx(0.75 / 40, rel=4.0 * math.sqrt(2.0 / (studies - 1)))
    means = likelihood.mean(axis=3)
    unpaired = (means.var(axis=2, ddof=1) / replicates).sum(axis=1).mean()
    assert unpaired == pytest.approx(8.75 / 40, rel=0.05)
    assert claimed < 0.1 * unpaired
    covered = (table["difference"] - 0.25).abs() <= 2.0227 * table["mcse"]  # t, 39 degrees
    assert abs(covered.mean() - 0.95) < 4 * math.sqrt(0.95 * 0.05 / studies)


def test_stopping_rules_are_compared_on_the_same_trajectories():
    plan = plan_of(cell("a", replicates=6, starts=2), cell("b", replicates=4))
    rng = np.random.default_rng(2)
    fits = fits_of(plan)
    rules = [("map_residual", 1e-8, 1), ("map_residual", 1e-2, 1), ("never", math.nan, 1)]
    parts = []
    for order, (rule, tolerance, patience) in enumerate(rules):
        part = fits.assign(stop_rule=rule, tolerance=tolerance, patience=patience)
        part["n_iter"] = 100 * order + rng.integers(0, 50, len(part))
        part["outcome"] = np.where(rng.random(len(part)) < 0.8, "converged", "max_iter")
        part["mean_0"] += rng.normal(size=len(part))
        parts.append(part)
    stops = pd.concat(parts).sample(frac=1.0, random_state=1)
    table = rule_comparisons(stops, plan)
    assert set(table["factor"]) == {"stop_rule"}
    assert (table["cell_a"] == table["cell_b"]).all()
    pairs = table[["level_a", "level_b"]].drop_duplicates().itertuples(index=False, name=None)
    # From the loosest tolerance.
    named = ["map_residual 0.01", "map_residual 1e-08", "never"]
    assert set(pairs) == set(combinations(named, 2))
    by_name = {"map_residual 0.01": 1e-2, "map_residual 1e-08": 1e-8, "never": math.nan}
    for row in table.to_dict("records"):
        if row["statistic"] not in ("n_iter", "squared_error_mean_0"):
            continue
        values = []
        for level in (row["level_a"], row["level_b"]):
            tolerance = by_name[level]
            of_rule = (
                stops["tolerance"].isna()
                if math.isnan(tolerance)
                else (stops["tolerance"] == tolerance)
            )
            mine = stops[of_rule & (stops["cell"] == row["cell_a"])].to_dict("records")
            (c,) = [c for c in plan.cells if c.id == row["cell_a"]]
            values.append(values_of(mine, row["statistic"], c, {}))
        both = set(values[0]) & set(values[1])
        difference = [values[1][r] - values[0][r] for r in both]
        assert row["n_pairs"] == len(both)
        assert row["n_pairs"] + row["n_unpaired"] == (6 if row["cell_a"] == "a" else 4)
        assert row["difference"] == pytest.approx(statistics.mean(difference), rel=1e-12)
    patient = stops.assign(patience=np.where(stops["stop_rule"] == "never", 1, 3))
    levels = set(rule_comparisons(patient, plan)["level_a"])
    assert levels == {"map_residual 0.01 x3", "map_residual 1e-08 x3"}
