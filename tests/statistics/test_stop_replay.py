"""A replayed stop equals the one of an actual run with that rule, to the last bit."""

import copy
import math
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.__main__ import main, run_stages
from pipeline.blocks import fit_block
from pipeline.config import compose
from pipeline.core.algorithms import ALGORITHMS
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.core.stopping import STOPPING_RULES
from pipeline.plan import Cell, Plan, truth
from pipeline.planning import make_plan
from pipeline.stages import aggregate
from pipeline.stages.aggregate import aggregate as aggregate_folder
from pipeline.statistics.stop_replay import queries, stops
from pipeline.store import Block
from pipeline.tables import fits_schema, labelled, parameter_columns, replay_schema, traces_schema

RULES = [rule for rule in STOPPING_RULES if rule != "never"]
TOLERANCES = [1.0, 1e-3, 1e-7]
ASKED = ",".join(
    f"{{rule: {rule}, tolerances: {TOLERANCES}, patience: {patience}}}"
    for rule, patience in product(RULES, (1, 3))
)
TIGHT = (
    "experiment=convergence",
    "schedule.record=all",
    "schedule.max_iter=300",
    "schedule.stop={rule: map_residual, tolerance: 1e-9}",
    f"replay=[{ASKED}]",
    "init=[random_points]",
    "replicates=8",
)
FAR = "+mixture.far={weights: [0.7,0.3], means: [1000001,999999], scales: [1,1]}"
SHARED = ["outcome", "n_iter", "map_evaluations", "log_likelihood", "stop_value"]


def planned(*overrides: str) -> Plan:
    return make_plan(compose([*TIGHT, *overrides]))[0]


def points_of(plan: Plan, cell: Cell) -> np.ndarray:
    data = plan.data_set(cell)
    mixture = plan.config["mixture"][cell.mixture]
    rows = np.arange(cell.replicates)
    parameters = truth(mixture)
    return draw(key_from_hex(data.key), rows, data.n_points, *parameters, mixture["allocation"])


def run_of(plan: Plan, cell: Cell, **schedule) -> tuple[pa.Table, pa.Table]:
    """Fit a cell with another schedule; return its fits and traces."""
    config = copy.deepcopy(plan.config)
    config["schedule"] |= schedule
    block = Block(0, cell.replicates, 0, cell.starts)
    fits, traces = fit_block(replace(plan, config=config), cell, points_of(plan, cell), block)
    schemas = fits_schema(plan.n_components), traces_schema(plan.n_components)
    return labelled(fits, cell, schemas[0]), labelled(traces, cell, schemas[1])


def check_against_runs(plan: Plan, cell: Cell) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare all answers about a cell with runs; return the answers and the tight fits."""
    fits, traces = run_of(plan, cell)
    asked = queries(plan)
    answers = stops(fits, traces, asked, cell, plan)
    assert answers.schema == replay_schema(plan.n_components)
    answers, tight = answers.to_pandas(), fits.to_pandas()
    assert len(answers) == len(tight) * len(asked)
    names = [*SHARED, *parameter_columns(plan.n_components)]
    for q, query in enumerate(asked):
        stop = {"rule": query.rule, "tolerance": query.tolerance, "patience": query.patience}
        # What else an actual run records makes no difference.
        actual = run_of(plan, cell, stop=stop, record="geometric")[0].to_pandas()
        found = answers.iloc[q :: len(asked)].reset_index(drop=True)
        assert found["fit_id"].equals(actual["fit_id"])
        assert (found["stop_rule"] == query.rule).all()
        assert (found["tolerance"] == query.tolerance).all()
        assert (found["patience"] == query.patience).all()
        known = found["outcome"].notna()
        expected = actual.loc[known, names]
        found["n_iter"] = found["n_iter"].astype("Int64")
        for name in names:
            left, right = found.loc[known, name].to_numpy(), expected[name].to_numpy()
            same = (left == right) | (pd.isna(left) & pd.isna(right))
            assert same.all(), (cell.id, query, name, left[~same], right[~same])
        # Not known is what came later than the end of the tight run, and only that.
        # A fit that its rule stopped at the floor of a scale is degenerate.
        stopped = {"converged"}
        if plan.config["degeneracy"]["scale_floor"] is not None:
            stopped.add("degenerate_scale")
        assert set(tight.loc[~known, "outcome"]) <= stopped
        assert (actual.loc[~known, "n_iter"] > tight.loc[~known, "n_iter"]).all()
        nothing = [*names, "distance_to_fixed_point", "distance_to_truth", "log_likelihood_lost"]
        assert found.loc[~known, nothing].isna().all().all()
    return answers, tight


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_answer_equals_an_actual_run(algorithm):
    """Both layouts of the lanes, far from 0, with as many components as the truth and more."""
    plan = planned(
        "mixture=[]", FAR, f"algorithm=[{algorithm}]", "sample_sizes=[12,600]",
        "model=[free,shared_scale]", "+model.three={n_components: 3}",
    )  # fmt: skip
    parts = [check_against_runs(plan, cell) for cell in plan.cells]
    answers, tight = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
    # The comparison is of something: all kinds of ends, of the tight run and of the answers.
    assert {"converged", "degenerate_scale"} <= set(tight["outcome"])
    assert {"converged", "degenerate_scale"} <= set(answers["outcome"].dropna())
    assert answers["outcome"].isna().any()
    stopped = answers[answers["outcome"] == "converged"]
    if algorithm == "classification":
        # It stands still, with a residual of 0, after a few iterations.
        assert set(stopped["stop_rule"]) == set(RULES)
    else:
        assert stopped.groupby(["stop_rule", "patience"]).ngroups == 2 * len(RULES)
        assert stopped["n_iter"].nunique() > 20


@pytest.mark.parametrize(
    ("ends", "overrides"),
    [
        ("max_iter", ["mixture=[overlap_high]", "model=[symmetric]", "sample_sizes=[40]",
                      "schedule.max_iter=12"]),
        # Components that change places between a stop and the end of the tight run.
        ("converged", ["mixture=[marron_wand_04_kurtotic_unimodal]", "sample_sizes=[60]",
                       "replicates=40", "starts=1"]),
        ("empty_component", ["mixture=[]", FAR, "sample_sizes=[14]", "degeneracy.count=2.5"]),
        ("nonfinite", ["mixture=[overlap_low]", "sample_sizes=[40]", "init=[explicit]",
                       "init.explicit.means=[-1e300,1e300]"]),
        ("degenerate_scale", ["mixture=[]", FAR, "sample_sizes=[30]", "degeneracy.scale=0.3"]),
        ("degenerate_scale", ["mixture=[]", FAR, "sample_sizes=[14]",
                              "degeneracy.scale_floor=0.3"]),
        ("degenerate_scale", ["mixture=[]", FAR, "sample_sizes=[600]", "schedule.max_iter=40",
                              "model=[shared_scale]", "degeneracy.scale_floor=0.9"]),
        ("converged", ["mixture=[]", FAR, "sample_sizes=[14]", "degeneracy.penalty=0.5"]),
    ],
)  # fmt: skip
def test_ends_of_every_kind(ends, overrides):
    plan = planned("starts=3", *overrides)
    answers, tight = check_against_runs(plan, plan.cells[0])
    assert ends in set(tight["outcome"])
    assert ends in set(answers["outcome"])


@pytest.mark.parametrize(
    ("floors", "row_before"),
    [
        ([], True),
        (["degeneracy.scale=0.3"], False),
        (["degeneracy.count=2.5"], False),
    ],
)
def test_a_failure_against_a_rule_at_the_same_row(floors, row_before):
    """A rule that any change meets fires at row t for a patience of t: at every row of a fit.

    A fit returns the row before an infinite likelihood, where a rule that fires comes first; the
    row of a failure with finite numbers is the failure's.
    """
    # Three components: plain EM collapses onto single points within a few iterations.
    plan = planned(
        "mixture=[]", FAR, "sample_sizes=[8]", "starts=4", "model.free.n_components=3", *floors,
        "schedule.max_iter=30",
    )  # fmt: skip
    plan.config["replay"] = [
        {"rule": "parameter", "tolerances": [1e9], "patience": patience}
        for patience in range(1, 31)
    ]
    answers, tight = check_against_runs(plan, plan.cells[0])
    ends = answers.merge(tight, on="fit_id", suffixes=("", "_tight"))
    ends = ends[ends["patience"] == ends["n_iter_tight"]]
    failed = ends[~ends["outcome_tight"].isin(["converged", "max_iter"])]
    assert len(failed) >= 3
    kinds = failed["outcome"] == "converged"
    assert kinds.any() if row_before else not kinds.all()


def hellinger(mean, scale, true_mean, true_scale):
    squares = scale**2 + true_scale**2
    overlap = math.sqrt(2 * scale * true_scale / squares)
    return 1 - overlap * math.exp(-((mean - true_mean) ** 2) / (4 * squares))


def test_distances_against_plain_loops():
    plan = planned(
        "mixture=[marron_wand_04_kurtotic_unimodal]", "sample_sizes=[60]", "replicates=40",
        "schedule.max_iter=100",
        "replay=[{rule: parameter, tolerances: [1, 1e-2]}, {rule: aitken, tolerances: [1e-6]}]",
    )  # fmt: skip
    (cell,) = plan.cells
    fits, traces = run_of(plan, cell)
    answers = stops(fits, traces, queries(plan), cell, plan).to_pandas()
    rows = traces.to_pandas().set_index(["replicate", "start", "iteration"])
    tight = fits.to_pandas().set_index(["replicate", "start"])
    true = plan.truth(cell)
    units = points_of(plan, cell).std(axis=1)
    assert {"converged", "max_iter"} <= set(tight["outcome"])
    reordered = 0
    for _, answer in answers[answers["outcome"].notna()].iterrows():
        fit = tight.loc[(answer["replicate"], answer["start"])]
        unit = units[answer["replicate"]]
        row = rows.loc[(answer["replicate"], answer["start"], int(answer["n_iter"]))]
        size = {"weight": 1.0, "mean": unit, "scale": unit}
        to_end = max(abs(row[f"{p}_{k}"] - fit[f"{p}_{k}"]) / size[p] for p in size for k in (0, 1))
        order = min(
            permutations((0, 1)),
            key=lambda order: sum(
                hellinger(row[f"mean_{k}"], row[f"scale_{k}"], true.means[j], true.scales[j])
                for j, k in enumerate(order)
            ),
        )
        reordered += order != (0, 1)
        parts = dict(zip(size, true, strict=True))
        to_truth = max(
            abs(row[f"{p}_{k}"] - parts[p][j]) / size[p] for p in size for j, k in enumerate(order)
        )
        assert answer["distance_to_truth"] == pytest.approx(to_truth, rel=1e-12)
        if fit["outcome"] == "converged":
            lost = fit["log_likelihood"] - row["log_likelihood"]
            assert answer["distance_to_fixed_point"] == pytest.approx(to_end, rel=1e-12)
            assert answer["log_likelihood_lost"] == lost
        else:
            assert math.isnan(answer["distance_to_fixed_point"])
            assert math.isnan(answer["log_likelihood_lost"])
    # Some stop before their components are on the sides where they end.
    assert reordered


def test_the_rule_decides_the_estimate():
    """Against scikit-learn, whose rule and default tolerance are among those that are asked.

    It compares the log-likelihoods of the two iterates before the one that it returns.
    """
    from sklearn.mixture import GaussianMixture

    # The tight rule converges in all replicates here.
    overrides = ["experiment=stop_rules", "replicates=6", "algorithm=[em]"]
    plan = make_plan(compose(overrides))[0]
    (cell,) = plan.cells
    fits, traces = run_of(plan, cell)
    answers = stops(fits, traces, queries(plan), cell, plan).to_pandas()
    rows = traces.to_pandas().set_index(["replicate", "iteration"])
    loose = answers[answers["stop_rule"] == "mean_log_likelihood_absolute"]
    loose = loose[loose["tolerance"] == 1e-3].set_index("replicate")
    for replicate, sample in enumerate(points_of(plan, cell)):
        start = rows.loc[(replicate, 0)]
        model = GaussianMixture(
            2, tol=1e-3, reg_covar=0.0,
            weights_init=start[["weight_0", "weight_1"]].to_numpy(float),
            means_init=start[["mean_0", "mean_1"]].to_numpy(float)[:, None],
            precisions_init=1 / start[["scale_0", "scale_1"]].to_numpy(float)[:, None, None] ** 2,
        )  # fmt: skip
        model.fit(sample[:, None])
        n_iter = int(loose.loc[replicate, "n_iter"])
        assert model.n_iter_ == n_iter + 1
        after = rows.loc[(replicate, n_iter + 1)]
        expected = after[["weight_0", "weight_1"]].to_numpy(float)
        np.testing.assert_allclose(model.weights_, expected, rtol=1e-9)
    assert (fits["outcome"].to_numpy() == "converged").all()
    assert loose["n_iter"].max() < 10 < 500 < fits["n_iter"].to_numpy().min()
    moved = (loose["weight_0"] - fits["weight_0"].to_numpy()).abs()
    assert moved.median() > 0.1


END_TO_END = (
    *TIGHT,
    "mixture=[overlap_high]",
    "init=[random_points,quantiles]",
    "model=[free,notebook]",
    "starts=2",
    "sample_sizes=[25]",
    "schedule.record_replicates=5",
    "tracking=none",
    "report=minimal",
)


def test_the_stage_answers_in_pieces_of_any_size(workspace: Path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 100)
    config = compose(list(END_TO_END))
    run_stages(config, folder := Path("results/convergence"))
    plan = make_plan(config)[0]
    parts = []
    for cell in plan.cells:
        fits, traces = run_of(plan, cell)
        n_fits = 5 * cell.starts
        traces = traces.filter(pa.compute.less(traces["replicate"], 5))
        parts.append(stops(fits.slice(0, n_fits), traces, queries(plan), cell, plan))
    assert pq.read_table(folder / "replay.parquet").equals(pa.concat_tables(parts))
    path, pieces = folder / "replay.parquet", []
    for groups, answers in ((1, 1), (1, 10**6), (4, 60), (100, 10**6)):
        monkeypatch.setattr("pipeline.traces.ROW_GROUPS", groups)
        monkeypatch.setattr(aggregate, "MOST_ANSWERS", answers)
        aggregate_folder(folder)
        pieces.append(pq.read_table(path))
    assert all(piece.equals(pa.concat_tables(parts)) for piece in pieces)
    before = path.read_bytes()
    aggregate_folder(folder)
    assert path.read_bytes() == before


def test_without_rules_the_table_is_empty(workspace: Path):
    run_stages(compose(list(END_TO_END)), folder := Path("results/convergence"))
    assert len(pd.read_parquet(folder / "replay.parquet"))
    run_stages(compose([*END_TO_END, "replay=[]"]), folder)
    table = pq.read_table(folder / "replay.parquet")
    assert table.num_rows == 0
    assert table.schema == replay_schema(2)


def test_a_fit_that_ended_in_an_error_has_its_answer(workspace: Path, monkeypatch):
    def fails(points, masses, starts, *rest, **options):
        if np.any(starts.means == broken):
            raise RuntimeError("planted")
        return genuine(points, masses, starts, *rest, **options)

    from pipeline import blocks

    genuine = blocks.fit
    plan = planned("mixture=[overlap_high]", "sample_sizes=[25]", "model=[free]", "starts=2")
    (cell,) = plan.cells
    fits, traces = run_of(plan, cell)
    whole = stops(fits, traces, queries(plan), cell, plan).to_pandas()
    start = traces.filter(pa.compute.equal(traces["iteration"], 0)).to_pandas()
    for replicate in (0, 3, 7):
        broken = start.loc[start["replicate"] == replicate, "mean_0"].iloc[0]
        monkeypatch.setattr(blocks, "fit", fails)
        fits, traces = run_of(plan, cell)
        answers = stops(fits, traces, queries(plan), cell, plan).to_pandas()
        failed = answers["replicate"] == replicate
        assert (answers.loc[failed, "outcome"] == "error").all()
        assert (answers.loc[failed, ["n_iter", "map_evaluations"]] == 0).all().all()
        assert answers.loc[failed, ["log_likelihood", "mean_0", "stop_value"]].isna().all().all()
        pd.testing.assert_frame_equal(answers[~failed], whole[~failed], check_dtype=False)


def test_a_population_is_answered_within_its_bound(workspace: Path):
    where = [*TIGHT, "mixture=[overlap_medium]", "sample_sizes=[inf]", "starts=2", "tracking=none"]
    where += ["report=minimal", "schedule.stop.tolerance=1e-11", "schedule.max_iter=1000"]
    main([*where, "replay=[{rule: aitken, tolerances: [1e-6, 1e-9]}]"])
    answers = pd.read_parquet("results/convergence/replay.parquet")
    names = parameter_columns(2)
    tight = pd.read_parquet("results/convergence/fits")
    for tolerance in (1e-6, 1e-9):
        rule = f"schedule.stop={{rule: aitken, tolerance: {tolerance}}}"
        main([*where, rule, "replay=[]", "results_dir=actual"])
        actual = pd.read_parquet("actual/convergence/fits")
        found = answers[answers["tolerance"] == tolerance].reset_index(drop=True)
        bounds = (tight["compression_error_bound"] + actual["compression_error_bound"]).max()
        assert bounds < 1e-9
        assert found[["outcome", "n_iter"]].equals(actual[["outcome", "n_iter"]])
        assert np.abs(found[names] - actual[names]).max().max() <= bounds
