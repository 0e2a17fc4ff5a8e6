"""Paired comparisons against loops over pairs, and against the spread over simulated studies."""

import dataclasses
import io
import math
import statistics
from itertools import combinations, product

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


@pytest.fixture(params=[(1, 1), (2, 3), (2, 1)], ids=["one start", "several", "more or less"])
def varied(request):
    starts, others = request.param
    other = dataclasses.replace(cell("elsewhere", replicates=12, starts=starts), data_set="other")
    larger = cell("larger", n_components=3, replicates=12, starts=starts)
    larger = dataclasses.replace(larger, model="three")
    again = dataclasses.replace(larger, id="larger-truth", init="kmeans_pp")
    searched = design(starts=others, inits=("searched",))
    plan = plan_of(*design(starts=starts), *searched, other, larger, again)
    rng = np.random.default_rng(5)
    fits = random_fits(plan).assign(**{name: 1.0 for name in DISTANCES})
    for name in DISTANCES:
        fits[name] = rng.lognormal(size=len(fits))
    fits.loc[rng.random(len(fits)) < 0.2, "mean_0"] = math.nan
    fits.loc[rng.random(len(fits)) < 0.1, "hellinger"] = math.inf
    # Few numbers, so that ties are among them.
    fits["n_iter"] = rng.integers(1, 6, len(fits))
    fits["map_evaluations"] = fits["n_iter"] * rng.integers(1, 3, len(fits))
    fits["outcome"] = "converged"
    fits.loc[rng.random(len(fits)) < 0.3, "outcome"] = "max_iter"
    fits.loc[rng.random(len(fits)) < 0.1, "outcome"] = "degenerate_scale"
    fits.loc[rng.random(len(fits)) < 0.1, "outcome"] = None
    # Replicates are missing from one cell, another one from another cell, and a start of a third.
    gone = (fits["cell"] == "kmeans_pp-em") & (fits["replicate"] == 3)
    gone |= (fits["cell"] == "truth-em") & (fits["replicate"] == 0)
    gone |= (fits["cell"] == "searched-em") & (fits["replicate"] == 5) & (fits["start"] == 1)
    return with_ids(fits[~gone].reset_index(drop=True)), plan


def worth(row, statistic, c, reached):
    """Return the value of one fit by the definition of the statistic; None if it has none."""
    if not isinstance(row["outcome"], str):
        return None
    converged = row["outcome"] == "converged"
    evaluations = row["map_evaluations"] + (12 if c.init == "searched" else 0)
    if statistic == "converged_share":
        return float(converged)
    if statistic == "reached_reference_share":
        return float(reached[row["fit_id"]])
    if statistic == "n_iter":
        return float(row["n_iter"])
    if statistic == "map_evaluations":
        return float(evaluations)
    if statistic == "fewer_iterations_share":
        return row["n_iter"] if converged else math.inf
    if statistic == "fewer_evaluations_share":
        return evaluations if converged else math.inf
    if not is_finite(row, c.n_components):
        return None
    if statistic == "log_likelihood":
        bounded = row["outcome"] in ("converged", "max_iter", "log_likelihood_decreased")
        return row["log_likelihood"] if bounded else None
    if statistic in DISTANCES:
        return row[statistic] if math.isfinite(row[statistic]) else None
    kind, _, name = statistic.partition("_error_")
    error = row[name] - dict(zip(names(2), FLAT_TRUTH, strict=True))[name]
    return error**2 if kind == "squared" else abs(error)


def sides_of(ours, theirs, statistic, same_starts):
    """Return {replicate: (value of a, value of b, fits in the two)}, where there is one of both.

    ``ours`` and ``theirs`` are {(replicate, start): value}.
    """
    found = {}
    for replicate in sorted({r for r, _ in ours}):
        a = {start: x for (r, start), x in ours.items() if r == replicate and x is not None}
        b = {start: x for (r, start), x in theirs.items() if r == replicate and x is not None}
        if same_starts:
            shared = set(a) & set(b)
            a, b = ({start: side[start] for start in sorted(shared)} for side in (a, b))
            rivals = [(a[start], b[start]) for start in a]
        else:
            rivals = list(product(a.values(), b.values()))
        if not (a and b):
            continue
        if statistic.startswith("fewer_"):
            values = (
                statistics.mean(x < y for x, y in rivals),
                statistics.mean(y < x for x, y in rivals),
            )
        else:
            values = statistics.mean(a.values()), statistics.mean(b.values())
        found[replicate] = (*values, len(a) + len(b))
    return found


def agrees(row, ours, theirs, same_starts):
    """Compare a row with the loop, all its numbers and counts."""
    found = sides_of(ours, theirs, row["statistic"], same_starts)
    present = {replicate for replicate, _ in [*ours, *theirs]}
    assert row["n_pairs"] == len(found)
    assert row["n_unpaired"] == len(present) - len(found)
    used = sum(fits for _, _, fits in found.values())
    assert row["n_fits_left_out"] == len(ours) + len(theirs) - used
    a, b = ([side[place] for side in found.values()] for place in (0, 1))
    difference = [y - x for x, y in zip(a, b, strict=True)]
    near = {"rel": 1e-11, "abs": 1e-14, "nan_ok": True}
    mean = [statistics.mean(values) if found else math.nan for values in (a, b, difference)]
    assert row["value_a"] == pytest.approx(mean[0], **near)
    assert row["value_b"] == pytest.approx(mean[1], **near)
    assert row["difference"] == pytest.approx(mean[2], **near)
    spread = statistics.stdev(difference) if len(found) > 1 else math.nan
    assert row["mcse"] == pytest.approx(spread / math.sqrt(max(len(found), 1)), **near)


def test_every_row_equals_a_loop(varied):
    fits, plan = varied
    beside = derived(fits, plan)
    # Nobody knows of a fit whose end is unknown where it ends.
    beside = beside.astype({"reached_reference": object})
    beside.loc[fits["outcome"].isna().to_numpy(), "reached_reference"] = math.nan
    reached = dict(zip(beside["fit_id"], beside["reached_reference"], strict=True))
    table = comparisons(fits, plan, beside)
    cells = {c.id: c for c in plan.cells}
    rows = {name: fits[fits["cell"] == name].to_dict("records") for name in cells}
    usual = ["converged_share", "reached_reference_share", "n_iter", "map_evaluations"]
    usual += ["fewer_iterations_share", "fewer_evaluations_share", "log_likelihood"]
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
        ours, theirs = (
            {
                (r["replicate"], r["start"]): worth(r, row["statistic"], cells[name], reached)
                for r in rows[name]
            }
            for name in (row["cell_a"], row["cell_b"])
        )
        agrees(row, ours, theirs, row["factor"] == "algorithm")
        assert row["level_a"] == getattr(cells[row["cell_a"]], row["factor"])
        assert row["level_b"] == getattr(cells[row["cell_b"]], row["factor"])
    assert table["n_unpaired"].max() > 3 and table["n_fits_left_out"].max() > 8
    ties = table[table["statistic"] == "fewer_iterations_share"]
    assert len(ties) == 17 and (ties["value_a"] + ties["value_b"] < 0.8).any()
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


def test_what_is_spent_is_of_all_fits_and_who_is_faster_is_known_despite_the_budget():
    plan = plan_of(*design(replicates=4, starts=2, inits=("truth",)))
    outcome = ["converged"] * 3 + ["max_iter"] + ["converged"] * 10 + ["max_iter"] * 2
    n_iter = [10, 12, 1, 5000, 20, 22, 30, 32, 1, 12, 1, 1, 4, 6, 9, 5000]
    table = comparisons(fits_of(plan, n_iter=n_iter).assign(outcome=outcome), plan)
    rows = table.set_index("statistic")
    assert (rows["n_pairs"] == 4).all() and (rows["n_fits_left_out"] == 0).all()
    spent = rows.loc["n_iter"]
    # Means of starts of 11, 2500.5, 21, 31 against 6.5, 1, 5, 2504.5.
    assert (spent["value_a"], spent["value_b"]) == (640.875, 629.25)
    assert spent["mcse"] == pytest.approx(
        statistics.stdev([-4.5, -2499.5, -16.0, 2473.5]) / math.sqrt(4)
    )
    fewer = rows.loc["fewer_iterations_share"]
    # Pairs of starts: b, equal; equal, b (a was cut off); b, b; a, a (b failed after 9 as well).
    assert (fewer["value_a"], fewer["value_b"], fewer["difference"]) == (0.25, 0.5, 0.25)
    assert fewer["mcse"] == pytest.approx(statistics.stdev([0.5, 0.5, 1.0, -1.0]) / math.sqrt(4))
    assert (rows.loc["converged_share", "difference"]) == -0.125


def test_a_larger_budget_changes_no_pair_that_has_a_winner():
    """Cut off at 300 of at most 1000 iterations, only pairs that both were cut off change."""
    plan = plan_of(*design(replicates=400, starts=3, inits=("truth", "kmeans_pp")))
    rng = np.random.default_rng(11)
    n_iter = rng.geometric(np.where(rng.random(len(fits_of(plan))) < 0.5, 1 / 60, 1 / 200))
    shares, means = [], []
    for budget in (300, 1000, 10**6):
        ended = n_iter <= budget
        fits = fits_of(plan, n_iter=np.minimum(n_iter, budget))
        fits = fits.assign(outcome=np.where(ended, "converged", "max_iter"))
        rows = comparisons(fits, plan).set_index("statistic")
        shares.append(rows.loc["fewer_iterations_share", ["value_a", "value_b"]].to_numpy())
        means.append(rows.loc["n_iter", "value_a"].to_numpy())
        open_pairs = 1 - shares[-1].sum(axis=1)
        assert (np.abs(shares[-1] - shares[0]).max(axis=1) <= 1 - shares[0].sum(axis=1)).all()
    assert (open_pairs < 0.01).all() and (means[2] > means[0] + 10).all()
    # Both algorithms and both inits are alike here, so neither is faster.
    net = (rows.loc["fewer_iterations_share", ["difference", "mcse"]]).to_numpy()
    assert (np.abs(net[:, 0]) < 4 * net[:, 1]).all()


def test_unknown_is_left_out_on_both_sides_and_is_no_failure():
    plan = plan_of(*design(replicates=3, starts=2, inits=("truth", "kmeans_pp")))
    fits = fits_of(plan, log_likelihood=np.arange(24.0))
    # Of truth-squarem: one start of the first replicate, and both of the second.
    unknown = (fits["cell"] == "truth-squarem") & (
        (fits["replicate"] == 1) | ((fits["replicate"] == 0) & (fits["start"] == 0))
    )
    fits.loc[unknown, "outcome"] = None
    fits.loc[unknown, ["n_iter", "map_evaluations", "log_likelihood"]] = math.nan
    for missing in (None, math.nan, pd.NA):
        fits["outcome"] = fits["outcome"].astype(object).where(~unknown, missing)
        table = comparisons(fits, plan)
        for row in table.to_dict("records"):
            involved = "truth-squarem" in (row["cell_a"], row["cell_b"])
            # Both fits of a start, and all four of a replicate; of inits its own three and the
            # two that are alone in their replicate then.
            left_out = 0 if not involved else 6 if row["factor"] == "algorithm" else 5
            assert (row["n_pairs"], row["n_unpaired"]) == ((2, 1) if involved else (3, 0))
            assert row["n_fits_left_out"] == left_out
            if row["statistic"] == "converged_share":
                assert (row["value_a"], row["value_b"]) == (1.0, 1.0)
        rows = table[table["statistic"] == "log_likelihood"].set_index("factor")
        # Start 1 of replicate 0 and replicate 2 of the first cell: 1, (4 + 5) / 2.
        same = rows[(rows["cell_b"] == "truth-squarem")].loc["algorithm"]
        assert (same["value_a"], same["value_b"], same["difference"]) == (2.75, 8.75, 6.0)


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
        part["n_iter"] = 100.0 * order + rng.integers(0, 50, len(part))
        part["outcome"] = np.where(rng.random(len(part)) < 0.8, "converged", "max_iter")
        part["mean_0"] += rng.normal(size=len(part))
        unknown = rng.random(len(part)) < 0.2
        part.loc[unknown, "outcome"] = None
        part.loc[unknown, ["n_iter", "map_evaluations", "log_likelihood", "mean_0"]] = math.nan
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
            values.append(
                {(r["replicate"], r["start"]): worth(r, row["statistic"], c, {}) for r in mine}
            )
        agrees(row, *values, same_starts=True)
    assert table["n_fits_left_out"].max() > 7
    patient = stops.assign(patience=np.where(stops["stop_rule"] == "never", 1, 3))
    levels = set(rule_comparisons(patient, plan)["level_a"])
    assert levels == {"map_residual 0.01 x3", "map_residual 1e-08 x3"}
