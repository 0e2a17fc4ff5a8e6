"""Profiles and trajectories against loops over the tables, with failures planted in them."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.plan import write_plan
from pipeline.stages.aggregate import aggregate
from pipeline.statistics.profiles import target_profiles, untold_targets
from pipeline.statistics.recorded import Ends, Recorded, distance_left, recorded
from pipeline.tables import OUTCOMES
from tests.factories import make_study, write_study, write_tables

STUDY = (
    "experiment=convergence",
    "mixture=[overlap_low]",
    "sample_sizes=[60]",
    "replicates=12",
    "starts=2",
    "schedule.max_iter=60",
    "schedule.stop.tolerance=1e-4",
    "init=[random_points,short_runs]",
    "init.short_runs.runs=4",
    "algorithm=[em,squarem]",
    "targets={log_likelihood_gap: [2.0, 0.01], distance_to_fixed_point: [0.1, 0.001]}",
)


def broken(study):
    """Give some fits the ends that a plain EM on easy data does not have."""
    fits, traces = study.fits, study.traces
    fits["map_evaluations"] *= 1 + fits["algorithm"].eq("squarem") * 2
    traces["map_evaluations"] *= 1 + traces["cell"].str.endswith("squarem") * 2
    ends = ["degenerate_scale", "nonfinite", "empty_component", "error", "max_iter", "error"]
    for place, outcome in zip((0, 3, 10, 26, 31, 60), ends, strict=True):
        fits.loc[place, "outcome"] = outcome
        if outcome == "error":
            fit = fits.loc[place]
            same = traces[["cell", "replicate", "start"]] == fit[["cell", "replicate", "start"]]
            traces = traces[~same.all(axis=1)]
            missing = ["log_likelihood", "weight_0", "mean_0", "scale_0"]
            fits.loc[place, missing] = math.nan
            fits.loc[place, ["n_iter", "map_evaluations"]] = 0
    # They converged, to another optimum.
    fits.loc[[5, 6, 7, 40], "log_likelihood"] -= 1.0
    return fits, traces


class Results:
    """What aggregate wrote, and what it was made from, fit by fit."""

    def __init__(self, folder, *overrides):
        self.study = make_study(*STUDY, *overrides)
        write_study(self.study, folder)
        self.fits, self.traces = broken(self.study)
        write_tables(self.study.plan, self.fits, self.traces, folder)
        aggregate(folder)
        self.folder = folder
        self.profiles = pd.read_parquet(folder / "profiles.parquet")
        self.trajectories = pd.read_parquet(folder / "trajectories.parquet")
        derived = pd.read_parquet(folder / "derived.parquet")
        keys = ["cell", "replicate", "start"]
        beside = self.fits.merge(derived, on=[*keys, "fit_id"])
        rows = {key: rows for key, rows in self.traces.groupby(keys)}
        self.one_by_one = [
            (fit, rows.get((fit["cell"], fit["replicate"], fit["start"])))
            for fit in beside.to_dict("records")
        ]

    def of(self, cell):
        """Return the fits of a cell with their rows."""
        return [(fit, rows) for fit, rows in self.one_by_one if fit["cell"] == cell]

    def curve(self, **labels):
        """Return the profile with these labels."""
        chosen = self.profiles
        for name, value in labels.items():
            chosen = chosen[chosen[name] == value]
        return chosen


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("results"))


def at(curve, x):
    """Return the share of a step function."""
    before = curve[curve["x"] <= x]
    return 0.0 if before.empty else before["share"].iloc[-1]


def aalen_johansen(ends, x):
    """Return the incidence of cause 1 at x from (time, cause) pairs, 0 censored."""
    surviving, incidence = 1.0, 0.0
    for t in sorted({time for time, _ in ends if time <= x}):
        at_risk = sum(time >= t for time, _ in ends)
        incidence += surviving * sum(end == (t, 1) for end in ends) / at_risk
        surviving *= 1.0 - sum(time == t and cause > 0 for time, cause in ends) / at_risk
    return incidence


AXES = {"iteration": "n_iter", "map_evaluations": "map_evaluations"}


def before_row_0(cell, axis):
    """Return what short_runs spends: 4 runs of 5 iterations, each a map evaluation."""
    return 20 * ("short_runs" in cell and axis == "map_evaluations")


def end_of(fit, axis):
    return fit[AXES[axis]] + before_row_0(fit["cell"], axis)


@pytest.mark.parametrize("axis", AXES)
def test_incidence_of_every_outcome(results, axis):
    seen = set()
    for cell in results.study.plan.cells:
        fits = [fit for fit, _ in results.of(cell.id)]
        happened = {fit["outcome"] for fit in fits} | {"converged"}
        for kind in happened - {"max_iter"}:
            causes = {"max_iter": 0, kind: 1}
            ends = [(end_of(fit, axis), causes.get(fit["outcome"], 2)) for fit in fits]
            curve = results.curve(cell=cell.id, kind=kind, axis=axis)
            assert curve["x"].is_monotonic_increasing
            assert (curve["n"] == len(fits)).all()
            assert curve["x"].max() == max(end for end, _ in ends)
            for x in {0, *curve["x"], *(end + 1 for end, _ in ends)}:
                assert at(curve, x) == pytest.approx(aalen_johansen(ends, x), abs=1e-13)
            seen.add(kind)
    # Every failure that was planted has its curve, and no other kind has.
    planted = {"degenerate_scale", "nonfinite", "empty_component", "error"}
    assert seen == planted | {"converged"}
    assert planted == set(results.profiles["kind"]) & set(results.fits["outcome"]) - {"converged"}


def distance(row, other, scale):
    parts = [abs(row[f"weight_{k}"] - other[f"weight_{k}"]) for k in range(2)]
    names = [f"{part}_{k}" for part in ("mean", "scale") for k in range(2)]
    return max(parts + [abs(row[name] - other[name]) / scale for name in names])


def true_parameters(results):
    truth = results.study.plan.config["mixture"]["overlap_low"]
    return {f"{p}_{k}": truth[f"{p}s"][k] for p in ("weight", "mean", "scale") for k in range(2)}


def measured(results, fit, rows, quantity):
    """Return (row, distance) pairs of one fit."""
    rows = [] if rows is None else rows.to_dict("records")
    if quantity == "log_likelihood_gap":
        eligible = not math.isnan(fit["log_likelihood_gap"])
        reference = fit["reference_log_likelihood"] if eligible else math.inf
        return [(row, reference - row["log_likelihood"]) for row in rows]
    if quantity == "distance_to_truth":
        true = true_parameters(results)
        return [(row, distance(row, true, fit["sample_scale"])) for row in rows]
    if fit["outcome"] != "converged":
        return [(row, math.inf) for row in rows]
    return [(row, distance(row, rows[-1], fit["sample_scale"])) for row in rows]


def left_of(fit):
    """Return what a fit's last row has left to its fixed point: the rest of a geometric series."""
    rate, step = fit["rate_theory"], fit["map_residual"]
    return step / (1.0 - rate) if rate < 1.0 else math.inf


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", ["log_likelihood_gap", "distance_to_fixed_point"])
def test_share_that_reached_each_target(results, kind, axis):
    reached, unknowns = 0, []
    for cell in results.study.plan.cells:
        for target in results.study.plan.config["targets"][kind]:
            ends, unknown = [], 0
            for fit, rows in results.of(cell.id):
                left = left_of(fit) if kind == "distance_to_fixed_point" else 0.0
                near = [row for row, d in measured(results, fit, rows, kind) if d + left <= target]
                if kind == "distance_to_fixed_point":
                    unknown += fit["outcome"] == "max_iter"
                    unknown += fit["outcome"] == "converged" and left > target
                cut = kind == "log_likelihood_gap" and fit["outcome"] == "max_iter"
                end = (end_of(fit, axis), 0 if cut else 2)
                ends.append((near[0][axis] + before_row_0(cell.id, axis), 1) if near else end)
                reached += bool(near)
            curve = results.curve(cell=cell.id, kind=kind, axis=axis, target=target)
            assert (curve["n"] == 24).all()
            assert (curve["n_unknown"] == unknown).all()
            unknowns.append(unknown)
            for x in {0, *curve["x"], *(end + 1 for end, _ in ends)}:
                assert at(curve, x) == pytest.approx(aalen_johansen(ends, x), abs=1e-13)
            assert (curve["low"] <= curve["share"]).all()
            assert (curve["share"] <= curve["high"]).all()
    assert reached > 50
    if kind == "distance_to_fixed_point":
        assert len({*unknowns} - {0, 24}) > 1
    else:
        assert {*unknowns} == {0}


@pytest.mark.parametrize(
    ("outcome", "share"), [("max_iter", 1.0), ("converged", 0.5), ("degenerate_scale", 0.5)]
)
def test_a_near_singular_fit_is_cut_off_or_never_gets_there(outcome, share):
    """Of two fits one comes within the target at evaluation 5; the other, not eligible, ends at 2.

    Cut off it leaves one at risk, and all of those arrive; ended, it is the half that never does.
    """
    converged = OUTCOMES.index("converged")
    ends = Ends(
        np.array([0, 1]), np.zeros(2, int), np.array([converged, OUTCOMES.index(outcome)]),
        np.array([5, 2]), np.array([5, 2]), np.ones(2), np.array([-10.0, np.nan]),
        np.array([True, False]), np.zeros(2),
    )  # fmt: skip
    gap, at_rows = np.array([3.0, 0.001, np.inf, np.inf]), np.array([0, 5, 0, 2])
    distances = {"log_likelihood_gap": gap, "distance_to_fixed_point": np.full(4, np.inf)}
    at_both = dict.fromkeys(AXES, at_rows)
    group = Recorded(ends, np.array([0, 2]), np.array([2, 4]), at_both, distances)
    targets = {"log_likelihood_gap": [0.01], "distance_to_fixed_point": [0.01]}
    for curve in target_profiles(group, "cell", targets):
        reached = curve.labels["kind"] == "log_likelihood_gap"
        assert curve.columns["share"][-1] == (share if reached else 0.0)


def geometric(n_iter, outcome, rate, n_fits):
    """Fits whose row t is rate^t from the fixed point, with what their last row has left."""
    rows = n_iter + 1
    time, last = np.arange(rows), rate**n_iter
    converged = outcome == "converged"
    # M(theta) - theta is (1 - rate) of what is left; only a converged fit has a rate.
    left = distance_left(np.array([(1 - rate) * last]), np.array([rate if converged else np.nan]))
    ends = Ends(
        np.arange(n_fits), np.zeros(n_fits, int), np.full(n_fits, OUTCOMES.index(outcome)),
        np.full(n_fits, n_iter), np.full(n_fits, n_iter), np.ones(n_fits),
        np.full(n_fits, np.nan), np.zeros(n_fits, bool), np.repeat(left, n_fits),
    )  # fmt: skip
    first = np.arange(n_fits) * rows
    to_last = np.tile(rate**time - last if converged else np.full(rows, np.inf), n_fits)
    distances = {"log_likelihood_gap": np.full(len(to_last), np.inf)}
    distances["distance_to_fixed_point"] = to_last
    at_both = dict.fromkeys(AXES, np.tile(time, n_fits))
    return Recorded(ends, first, first + rows, at_both, distances)


def fixed_point_curves(group, *targets):
    wanted = {"log_likelihood_gap": [], "distance_to_fixed_point": list(targets)}
    return list(target_profiles(group, "cell", wanted))


@pytest.mark.parametrize("n_iter", [90, 150, 400])
def test_a_distance_is_that_to_the_fixed_point_wherever_the_rule_stopped(n_iter):
    """0.9^88 is the first power below 1e-4: what stops later tells so, what stopped before not."""
    for curve in fixed_point_curves(geometric(n_iter, "converged", 0.9, 3), 1e-4):
        assert curve.columns["x"].tolist() == [88.0]
        assert curve.columns["share"].tolist() == [1.0]
        assert curve.columns["n_unknown"].tolist() == [0]
    for curve in fixed_point_curves(geometric(60, "converged", 0.9, 3), 1e-4):
        assert curve.columns["share"].tolist() == [0.0]
        assert curve.columns["n_unknown"].tolist() == [3]


def test_what_the_budget_cut_off_is_unknown_and_what_failed_is_not():
    for outcome, unknown in (("max_iter", 3), ("degenerate_scale", 0), ("nonfinite", 0)):
        for curve in fixed_point_curves(geometric(100, outcome, 0.9, 3), 0.5, 1e-4):
            assert curve.columns["share"].tolist() == [0.0]
            assert curve.columns["n_unknown"].tolist() == [unknown]


def test_a_fit_without_a_rate_has_arrived_only_where_its_residual_is_0():
    left = distance_left(
        np.array([0.0, 1e-9, 1e-9, 1e-9, np.nan]), np.array([np.nan, np.nan, 1.0, 0.5, 0.5])
    )
    assert left[:4].tolist() == [0.0, math.inf, math.inf, 2e-9]
    assert np.isnan(left[4])


def test_hard_assignments_that_stand_still_have_arrived():
    """The last two rows of three are the same; of the other fit all differ."""
    spots, n = {"mean_0": [0.0, 1.0, 1.0, 0.0, 1.0, 1.5]}, 2
    values = {name: np.full(6, 0.5) for name in ("weight_0", "weight_1", "mean_1", "scale_0")}
    values |= {"scale_1": np.ones(6), "log_likelihood": np.zeros(6)}
    values |= {name: np.array(each) for name, each in spots.items()}
    values |= {"replicate": np.repeat([0, 1], 3), "start": np.zeros(6, int)}
    values |= {name: np.tile([0, 1, 2], 2) for name in ("iteration", "map_evaluations")}
    study = make_study("mixture=[overlap_low]", "model=[free]", "replicates=2", "sample_sizes=[9]")
    (cell,) = study.plan.cells
    ends = Ends(
        np.arange(n), np.zeros(n, int), np.full(n, OUTCOMES.index("converged")), np.full(n, 2),
        np.full(n, 2), np.ones(n), np.zeros(n), np.ones(n, bool), np.full(n, np.inf),
    )  # fmt: skip
    group = recorded(cell, study.plan, ends, values.__getitem__)
    assert group.ends.remaining.tolist() == [0.0, math.inf]
    for curve in fixed_point_curves(group, 0.1):
        assert curve.columns["x"].tolist() == [1.0, 2.0]
        assert curve.columns["share"].tolist() == [0.5, 0.5]
        assert curve.columns["n_unknown"].tolist() == [1, 1]


def test_targets_of_which_a_study_tells_nothing():
    early, late = geometric(60, "converged", 0.9, 3), geometric(150, "converged", 0.9, 3)
    assert untold_targets(fixed_point_curves(early, 1e-1, 1e-4, 1e-5)) == [1e-4, 1e-5]
    both = [*fixed_point_curves(early, 1e-4), *fixed_point_curves(late, 1e-4)]
    assert untold_targets(both) == []
    assert untold_targets(fixed_point_curves(geometric(60, "nonfinite", 0.9, 3), 1e-4)) == []


@pytest.mark.parametrize(("tolerance", "lines"), [("1e-2", 1), ("1e-9", 0)])
def test_a_target_that_the_stopping_rule_cannot_tell_of_is_named(
    tmp_path, caplog, tolerance, lines
):
    study = make_study(
        "experiment=convergence", "mixture=[overlap_low]", "sample_sizes=[40]", "replicates=4",
        f"schedule.stop.tolerance={tolerance}", "targets.distance_to_fixed_point=[1.0,1e-6]",
    )  # fmt: skip
    assert (study.fits["outcome"] == "converged").any()
    write_tables(study.plan, study.fits, study.traces, tmp_path)
    write_plan(study.plan, tmp_path)
    aggregate(tmp_path)
    said = [text for text in caplog.messages if "targets.distance_to_fixed_point" in text]
    assert len(said) == lines
    assert all("got 1e-06;" in text and "schedule.stop.tolerance" in text for text in said)


BUDGETS = (
    "experiment=convergence",
    "mixture=[overlap_high]",
    "sample_sizes=[20]",
    "init=[random_points]",
    "starts=2",
    "replicates=15",
    "schedule.record=all",
)


def test_a_larger_budget_or_a_tighter_rule_stays_within_what_is_unknown(tmp_path):
    """The share may rise, by no more than the fits that the smaller study did not know."""
    tables = []
    schedules = (
        ("max_iter=60", "stop.tolerance=1e-8"),
        ("max_iter=5000", "stop.tolerance=1e-4"),
        ("max_iter=5000", "stop.tolerance=1e-11"),
    )
    for number, schedule in enumerate(schedules):
        study = make_study(*BUDGETS, *(f"schedule.{each}" for each in schedule))
        folder = tmp_path / str(number)
        write_study(study, folder)
        aggregate(folder)
        tables.append(pd.read_parquet(folder / "profiles.parquet"))
    *loose, best = (
        table[(table["kind"] == "distance_to_fixed_point") & (table["axis"] == "iteration")]
        for table in tables
    )
    unknown = [(table["n_unknown"] > 0).any() for table in (*loose, best)]
    assert unknown[:2] == [True, True]
    for table in loose:
        for target, curve in table.groupby("target"):
            reference = best[best["target"] == target]
            assert reference["n_unknown"].iloc[0] == 0
            more = curve["n_unknown"].iloc[0] / 30
            for x in (*curve["x"], *reference["x"]):
                if x <= curve["x"].max():
                    # What a row has left is known to first order: a tenth of the time is for that.
                    assert at(curve, x) <= at(reference, 1.1 * x)
                    assert at(reference, x) <= at(curve, 1.1 * x) + more


@pytest.mark.parametrize("kind", ["algorithm_performance", "init_performance"])
def test_performance_profiles_by_their_definition(results, kind):
    factor, other = ("algorithm", "init") if kind.startswith("alg") else ("init", "algorithm")
    cost, elsewhere = {}, 0
    for cell in results.study.plan.cells:
        problems = {}
        for fit, _ in results.of(cell.id):
            problem = fit["replicate"], fit["start"] * (factor == "algorithm")
            problems.setdefault(problem, []).append(fit)
        for problem, fits in problems.items():
            converged = [fit for fit in fits if fit["outcome"] == "converged"]
            solved = sum(fit["reached_reference"] for fit in converged)
            elsewhere += len(converged) - solved
            spent = sum(end_of(fit, "map_evaluations") for fit in fits)
            cost[cell.id, problem] = spent / solved if solved else math.inf
    unsolved = 0
    for cell in results.study.plan.cells:
        rivals = [
            each.id
            for each in results.study.plan.cells
            if getattr(each, other) == getattr(cell, other)
        ]
        assert len(rivals) == 2
        problems = [problem for id_, problem in cost if id_ == cell.id]
        best = {problem: min(cost[id_, problem] for id_ in rivals) for problem in problems}
        curve = results.curve(cell=cell.id, kind=kind)
        assert (curve["axis"] == "factor").all()
        assert (curve["n"] == len(problems)).all()
        for tau in 10 ** (np.arange(60) / 24):
            # The last bits of 10^(j / 24) decide nothing.
            within = [
                cost[cell.id, p] < math.inf and cost[cell.id, p] <= tau * best[p] * (1 + 1e-12)
                for p in problems
            ]
            assert at(curve, tau * (1 + 1e-12)) == pytest.approx(np.mean(within), abs=1e-13)
        unsolved += sum(math.isinf(cost[cell.id, p]) for p in problems)
    assert elsewhere > 0
    assert unsolved > 0 or kind == "init_performance"


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    "quantity", ["log_likelihood_gap", "distance_to_fixed_point", "distance_to_truth"]
)
def test_bands_by_carrying_every_fit(results, quantity, axis):
    infinite = 0
    for cell in results.study.plan.cells:
        bands = results.trajectories
        bands = bands[(bands["cell"] == cell.id) & (bands["quantity"] == quantity)]
        bands = bands[bands["axis"] == axis]
        fits = results.of(cell.id)
        longest = max(end_of(fit, axis) for fit, _ in fits)
        assert bands["x"].iloc[0] == 0
        assert bands["x"].iloc[-1] == longest
        paths = [(fit, measured(results, fit, rows, quantity)) for fit, rows in fits]
        for _, band in bands.iterrows():
            per_replicate = {}
            for fit, path in paths:
                begun = before_row_0(cell.id, axis)
                passed = [d for row, d in path if begun + row[axis] <= band["x"]]
                value = passed[-1] if passed else math.inf
                per_replicate.setdefault(fit["replicate"], []).append(value)
            values = sorted(np.median(starts) for starts in per_replicate.values())
            assert band["n"] == len(values) == 12
            for name, level in (("q10", 0.1), ("q50", 0.5), ("q90", 0.9)):
                expected = values[math.ceil(level * len(values)) - 1]
                assert band[name] == pytest.approx(expected, abs=1e-12)
                infinite += math.isinf(expected)
            running = sum(end_of(fit, axis) > band["x"] for fit, _ in fits) / len(fits)
            assert band["running_share"] == pytest.approx(running)
        # Where an init ends is a place of its own: all fits are at their first row.
        assert before_row_0(cell.id, axis) in bands["x"].to_numpy()
    # A failure stays where it was from the truth; it has no reference and no fixed point. What an
    # init is still looking for is nowhere.
    assert (infinite > 0) == (quantity != "distance_to_truth" or axis == "map_evaluations")


def test_targets_do_not_move_with_the_budget(tmp_path):
    """A smaller max_iter ends a curve earlier and changes no point before.

    The same fits, cut off after 12 iterations; those of the other cell, which gives the reference,
    are not.
    """
    study = make_study(
        *STUDY[:-1], "starts=1", "algorithm=[em]", "schedule.max_iter=200", "replicates=30"
    )
    cut_cell, reference_cell = (cell.id for cell in study.plan.cells)
    fits = study.fits
    best = fits.groupby("replicate")["log_likelihood"].transform("max")
    fits["log_likelihood"] = best.where(fits["cell"] == reference_cell, fits["log_likelihood"])
    cut = (fits["cell"] == cut_cell) & (fits["n_iter"] > 12)
    assert 0 < cut.sum() < 30
    ended = fits.assign(
        outcome=fits["outcome"].mask(cut, "max_iter"),
        n_iter=fits["n_iter"].mask(cut, 12),
        map_evaluations=fits["map_evaluations"].mask(cut, 12),
    )
    left = (study.traces["cell"] != cut_cell) | (study.traces["iteration"] <= 12)
    curves = []
    for name, table, traces in (
        ("long", fits, study.traces),
        ("short", ended, study.traces[left]),
    ):
        write_study(study, tmp_path / name)
        write_tables(study.plan, table, traces, tmp_path / name)
        aggregate(tmp_path / name)
        profiles = pd.read_parquet(tmp_path / name / "profiles.parquet")
        curves.append(profiles[(profiles["cell"] == cut_cell) & (profiles["axis"] == "iteration")])
    for kind, targets in (("log_likelihood_gap", [1.0, 1e-2, 1e-4]), ("converged", [math.nan])):
        for target in targets:
            of_target = [
                curve[(curve["kind"] == kind) & curve["target"].isin([target])] for curve in curves
            ]
            assert of_target[1]["x"].max() <= 12
            for x in range(13):
                one, two = (at(curve, x) for curve in of_target)
                assert one == pytest.approx(two, abs=1e-13)
            assert of_target[0]["share"].max() > of_target[1]["share"].max()
    assert curves[0]["x"].max() > 12


@pytest.mark.parametrize("kept", [0, 5])
def test_fits_that_keep_two_rows_are_not_part(tmp_path, kept):
    results = Results(tmp_path, f"schedule.record_replicates={kept}")
    targets = results.profiles[results.profiles["target"].notna()]
    assert set(targets["n"]) == ({2 * kept} if kept else set())
    assert set(results.trajectories["n"]) == ({kept} if kept else set())
    assert set(results.curve(kind="converged")["n"]) == {24}


def test_the_tables_are_the_same_again(results):
    files = ["profiles.parquet", "trajectories.parquet"]
    before = [(results.folder / name).read_bytes() for name in files]
    shuffled = results.fits.sample(frac=1.0, random_state=3)
    write_tables(results.study.plan, shuffled, results.traces, results.folder)
    aggregate(results.folder)
    assert [(results.folder / name).read_bytes() for name in files] == before
