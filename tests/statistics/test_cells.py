"""Convergence statistics against naive recomputation, published formulas and simulation."""

import dataclasses
import io
import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearson3
from scipy.stats import t as student_t

from pipeline.plan import Cell, Plan, write_plan
from pipeline.stages.aggregate import aggregate
from pipeline.statistics.cells import RATES, convergence, fit_columns, with_intervals_at
from pipeline.statistics.references import derived
from tests.factories import make_study, write_tables

BESIDE = [
    "reference_log_likelihood",
    "truth_log_likelihood",
    "log_likelihood_gap",
    "reached_reference",
    "lone_reference",
    "near_singular",
    "rank",
    "best_of_replicate",
]
OUTCOMES = [
    "nonfinite",
    "degenerate_scale",
    "empty_component",
    "log_likelihood_decreased",
    "converged",
    "max_iter",
    "error",
]
TRUTH = {"weights": [0.25, 0.75], "means": [-1.0, 2.0], "scales": [0.5, 1.5]}
CONFIG = {
    "mixture": {"pair": TRUTH},
    "init": {name: {"method": name} for name in ("random_points", "kmeans_pp", "truth")}
    | {"searched": {"method": "short_runs", "runs": 3, "iterations": 4}},
    "reference": {"tolerance": 1e-6, "scale_ratio": 1e-3},
    "slopes": [],
    "claims": [],
    "claims_level": 0.95,
    "targets": {"log_likelihood_gap": [1.0], "distance_to_fixed_point": [0.1]},
    "schedule": {"record_replicates": "all", "max_iter": 500},
    "replay": [],
    "degeneracy": {"penalty": None},
}
FLAT_TRUTH = [0.25, 0.75, -1.0, 2.0, 0.5, 1.5]


def cell(
    id_, n_components=2, replicates=1, starts=1, sample_size=50, observed=None, init="random_points"
):
    return Cell(
        id=id_,
        data_set="data",
        mixture=None if observed else "pair",
        observed=observed,
        model="free",
        sample_size=sample_size,
        init=init,
        algorithm="em",
        n_components=n_components,
        replicates=replicates,
        starts=starts,
        start_key=init.encode().hex().ljust(32, "0"),
        content="0" * 64,
    )


def plan_of(*cells):
    return Plan("study", "title", "question", {"aggregate": "0"}, {}, CONFIG, (), cells)


def names(n_components):
    return [f"{part}_{k}" for part in ("weight", "mean", "scale") for k in range(n_components)]


def random_fits(plan, seed=1):
    """One row per fit with arbitrary values: all arithmetic must work on any of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for c in plan.cells:
        for replicate in range(c.replicates):
            for start in range(c.starts):
                row = {
                    "cell": c.id,
                    "replicate": replicate,
                    "start": start,
                    "outcome": str(rng.choice(["converged", "max_iter"])),
                    "n_iter": int(rng.integers(1, 500)),
                    "map_evaluations": int(rng.integers(1, 1500)),
                    "relabelled": bool(rng.integers(2)),
                    "log_likelihood": rng.normal(-100.0, 5.0),
                }
                rows.append(row | {name: rng.normal() for name in names(c.n_components)})
    return with_rates(pd.DataFrame(rows, columns=fit_columns(plan)), seed)


def with_rates(fits, seed=1):
    """Rates that may be missing or, at a saddle, above 1; residuals and bounds."""
    rng = np.random.default_rng([seed, 1])
    theory, observed = rng.uniform(0.1, 1.05, (2, len(fits)))
    return fits.assign(
        rate_theory=np.where(rng.random(len(fits)) < 0.1, np.nan, theory),
        rate_observed=np.where(rng.random(len(fits)) < 0.3, np.nan, observed),
        map_residual=rng.uniform(0.0, 1e-8, len(fits)),
        compression_error_bound=rng.uniform(0.0, 1e-10, len(fits)),
    )


def fits_of(plan, **columns):
    """Fits of a plan in order, with some columns given and the truth elsewhere."""
    fits = random_fits(plan)
    for name, value in zip(names(2), FLAT_TRUTH, strict=True):
        fits[name] = value
    return fits.assign(outcome="converged", **columns)


# An independent, slow, exact oracle: loops over fits and the standard library's rational sums.


def replicate_means(rows, value):
    means = []
    for replicate in sorted({row["replicate"] for row in rows}):
        values = [value(row) for row in rows if row["replicate"] == replicate]
        means.append(statistics.mean(values))
    return means


def mean_and_mcse(values):
    if not values:
        return math.nan, math.nan
    if len(values) == 1:
        return values[0], math.nan
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def score_interval(p, size):
    """Return the roots of (p - x)^2 = z^2 x (1 - x) / size."""
    square = statistics.NormalDist().inv_cdf(0.975) ** 2 / size
    roots = np.roots([1.0 + square, -2.0 * p - square, p * p])
    low, high = sorted(min(max(float(np.real(root)), 0.0), 1.0) for root in roots)
    return low, high


def size_of(p, variance, n, replicates):
    """Return the effective size of Korn & Graubard (1998), at most n; R where p is 0 or 1."""
    if p in (0, 1):
        return replicates
    if variance * n < 1e-12:
        return n
    t = {m: student_t.ppf(0.975, m - 1) for m in (n, replicates)}
    deviation = (1.0 - 1.0 / replicates) / (1.0 - 1.0 / n) * (t[n] / t[replicates]) ** 2
    return min(n, p * (1.0 - p) / variance * deviation)


def incidence(rows, t, weights, failures=False):
    """Return the Aalen-Johansen estimate at t, with weighted fits."""
    surviving, share = 1.0, 0.0
    for s in sorted({row["n_iter"] for row in rows if row["n_iter"] <= t}):
        at_risk = events = ended = 0.0
        for row, weight in zip(rows, weights, strict=True):
            at_risk += weight * (row["n_iter"] >= s)
            if row["n_iter"] == s and row["outcome"] != "max_iter":
                ended += weight
                events += weight * ((row["outcome"] != "converged") == failures)
        share += surviving * events / at_risk
        surviving *= 1.0 - ended / at_risk
    return share


def limits_at(rows, t, failures=False):
    """Return the pointwise limits at t; the variance is the jackknife's, by central differences."""
    n, step = len(rows), 1e-5
    by_replicate = {}
    for i, row in enumerate(rows):
        ends = []
        for change in (step, -step):
            weights = [1.0 + change * (i == j) for j in range(n)]
            ends.append(incidence(rows, t, weights, failures))
        derivative = (ends[0] - ends[1]) / (2 * step)
        by_replicate[row["replicate"]] = by_replicate.get(row["replicate"], 0.0) + derivative
    share = incidence(rows, t, [1.0] * n, failures)
    share = round(share, 12)
    variance = sum(value**2 for value in by_replicate.values())
    return score_interval(share, size_of(share, variance, n, len(by_replicate)))


def iteration_quantiles(rows, q):
    """Return the quantile of the incidence and its interval, each by its definition."""
    times = sorted({row["n_iter"] for row in rows})
    last, replicates = times[-1], len({row["replicate"] for row in rows})

    def first(reaches, failing):
        never = math.inf if 1.0 - failing < q else math.nan
        return next((float(t) for t in times if reaches(t)), never)

    ones = [1.0] * len(rows)
    failing = incidence(rows, last, ones, failures=True)
    middle = first(lambda t: incidence(rows, t, ones) > q - 1e-12, failing)
    if replicates < 2:
        return middle, math.nan, math.nan
    fewest, most = limits_at(rows, last, failures=True)
    low = first(lambda t: limits_at(rows, t)[1] >= q, fewest)
    high = first(lambda t: limits_at(rows, t)[0] >= q, most)
    if score_interval(0.0, replicates)[1] >= q:
        low = 0.0
    return middle, low, high


def weighted_sum_is_positive(values, portion):
    """Tell whether a gamma quantile of the sum is: weights are exponential, three cumulants."""
    first, second, third = (sum(value**j for value in values) for j in (1, 2, 3))
    skewness = 2.0 * third / second**1.5
    return pearson3.ppf(portion, skewness, first, math.sqrt(second)) > 0.0


def running_time(rows, starts, budget):
    """Return ERT, its error by the delta method, and the ends by bisection of their definition."""
    cost, successes = {}, {}
    for row in rows:
        r = row["replicate"]
        cost[r] = cost.get(r, 0) + row["map_evaluations"]
        successes[r] = successes.get(r, 0) + (row["outcome"] == "converged")
    total, converged, replicates = sum(cost.values()), sum(successes.values()), len(cost)
    ratio = total / converged if converged else math.inf
    if replicates < 2:
        return ratio, math.nan, math.nan, math.nan
    each = max(row["map_evaluations"] / row["n_iter"] for row in rows)
    ends = []
    for portion, unseen in ((0.025, (0.0, starts)), (0.975, (starts * budget * each, 0.0))):
        low, high = 1e-3, 1e12
        while high / low > 1.0 + 1e-12:
            r = math.sqrt(low * high)
            values = [cost[i] - r * successes[i] for i in cost] + [unseen[0] - r * unseen[1]]
            low, high = (r, high) if weighted_sum_is_positive(values, portion) else (low, r)
        ends.append(low)
    if not converged:
        return math.inf, math.nan, ends[0], math.inf
    residuals = [cost[r] - ratio * successes[r] for r in cost]
    error = statistics.stdev(residuals, 0.0) * math.sqrt(replicates) / converged
    return ratio, error, *ends


def is_finite(row, n_components):
    return all(math.isfinite(row[name]) for name in ["log_likelihood", *names(n_components)])


def is_near_singular(row):
    scales = [v for name, v in row.items() if name.startswith("scale") and not math.isnan(v)]
    return min(scales) < 1e-3 * max(scales)


def has_reached(row, fits):
    """Of plans whose cells share sample and model."""

    def eligible(other):
        return other["outcome"] in ("converged", "max_iter") and not is_near_singular(other)

    rivals = [
        other["log_likelihood"]
        for other in fits.to_dict("records")
        if other["replicate"] == row["replicate"] and eligible(other)
    ]
    rivals = [value for value in rivals if not math.isnan(value)]
    if not eligible(row) or not rivals:
        return False
    return max(rivals) - row["log_likelihood"] <= 1e-6 * max(1.0, abs(max(rivals)))


def has_lone_reference(row, fits, plan):
    """Of plans whose cells share sample and model."""
    inits = {c.id: c.init for c in plan.cells}
    eligible = [
        other
        for other in fits.to_dict("records")
        if other["replicate"] == row["replicate"]
        and other["outcome"] in ("converged", "max_iter")
        and not is_near_singular(other)
    ]
    began = {(inits[other["cell"]], other["start"]) for other in eligible}
    return len(began) == 1 and any(
        (other["cell"], other["start"]) == (row["cell"], row["start"]) for other in eligible
    )


def naive(fits, plan):
    rows = []
    most = max(c.n_components for c in plan.cells)
    for c in plan.cells:
        mine = [row for row in fits.to_dict("records") if row["cell"] == c.id]
        finite = [row for row in mine if is_finite(row, c.n_components)]
        out = {
            "cell": c.id,
            "mixture": c.mixture,
            "observed": c.observed,
            "model": c.model,
            "sample_size": c.sample_size,
            "init": c.init,
            "algorithm": c.algorithm,
            "replicates": c.replicates,
            "starts": c.starts,
            "n_fits": len(mine),
        }
        for outcome in OUTCOMES:
            out[f"n_{outcome}"] = sum(row["outcome"] == outcome for row in mine)
        shares = replicate_means(mine, lambda row: float(row["outcome"] == "converged"))
        p = statistics.mean(shares)
        out["converged_share"] = p
        squares = sum((share - p) ** 2 for share in shares)
        out["converged_share_mcse"] = (
            math.sqrt(squares) / len(shares) if len(shares) > 1 else math.nan
        )
        ends = ["converged_share_low", "converged_share_high"]
        out |= dict.fromkeys(ends, math.nan)
        if len(shares) > 1:
            size = size_of(p, squares / len(shares) ** 2, len(mine), len(shares))
            out |= dict(zip(ends, score_interval(p, size), strict=True))
        out["n_near_singular"] = sum(map(is_near_singular, mine))
        out["n_lone_reference"] = sum(has_lone_reference(row, fits, plan) for row in mine)
        shares = replicate_means(mine, lambda row: float(has_reached(row, fits)))
        p = out["reached_reference_share"] = statistics.mean(shares)
        squares = sum((share - p) ** 2 for share in shares)
        out["reached_reference_share_mcse"] = (
            math.sqrt(squares) / len(shares) if len(shares) > 1 else math.nan
        )
        for name, q in (("median", 0.5), ("q10", 0.1), ("q90", 0.9)):
            for end, value in zip(("", "_low", "_high"), iteration_quantiles(mine, q), strict=True):
                out[f"n_iter_{name}{end}"] = value
        found = running_time(mine, c.starts, plan.config["schedule"]["max_iter"])
        for end, value in zip(("", "_mcse", "_low", "_high"), found, strict=True):
            out[f"expected_running_time{end}"] = value
        out["n_finite"] = len(finite)
        bounded = ["converged", "max_iter", "log_likelihood_decreased"]
        bounded = [row for row in finite if row["outcome"] in bounded]
        out["n_log_likelihood"] = len(bounded)
        out["replicates_log_likelihood"] = len({row["replicate"] for row in bounded})
        converged = [row for row in bounded if row["outcome"] == "converged"]
        for end, have in (("", bounded), ("_converged", converged)):
            mean, mcse = mean_and_mcse(replicate_means(have, lambda row: row["log_likelihood"]))
            out[f"log_likelihood_mean{end}"] = mean
            out[f"log_likelihood_mean{end}_mcse"] = mcse
            out[f"mean_log_likelihood{end}"] = mean / c.sample_size
            out[f"mean_log_likelihood{end}_mcse"] = mcse / c.sample_size
        known = dict(zip(names(2), FLAT_TRUTH, strict=True))
        for name in names(most):
            fields = [f"true_{name}"]
            fields += [f"{kind}_{name}{end}" for kind in ("bias", "rmse") for end in ("", "_mcse")]
            out |= dict.fromkeys(fields, math.nan)
            if c.mixture is None or c.n_components != 2 or name not in known:
                continue
            true = known[name]
            bias = replicate_means(finite, lambda row, n=name, t=true: row[n] - t)
            mse, mse_mcse = mean_and_mcse(
                replicate_means(finite, lambda row, n=name, t=true: (row[n] - t) ** 2)
            )
            rmse = math.sqrt(mse)
            out |= dict(
                zip(
                    fields,
                    (true, *mean_and_mcse(bias), rmse, mse_mcse / (2 * rmse)),
                    strict=True,
                )
            )
        for name in ("rate_theory", "rate_observed"):
            have = [row for row in mine if not math.isnan(row[name])]
            out[f"n_{name}"] = len(have)
            out[f"replicates_{name}"] = len({row["replicate"] for row in have})
            mean, mcse = mean_and_mcse(replicate_means(have, lambda row, n=name: row[n]))
            out[f"{name}_mean"], out[f"{name}_mean_mcse"] = mean, mcse
        errors = [
            row["map_residual"] / (1.0 - row["rate_theory"]) + row["compression_error_bound"]
            for row in mine
            if row["rate_theory"] < 1.0
        ]
        out["numerical_error"] = max(errors) if len(errors) == len(mine) else math.nan
        rows.append(out)
    return pd.DataFrame(rows)


@pytest.fixture
def varied():
    """Several starts, a model of another size, observed data, one replicate, every failure."""
    plan = plan_of(
        cell("zebra", replicates=9, starts=3),
        cell("larger", n_components=3, replicates=4, sample_size=7),
        cell("real", replicates=1, starts=5, observed="real", sample_size=272),
        cell("alone", replicates=1, starts=2),
    )
    fits = random_fits(plan)
    for row, outcome in enumerate(OUTCOMES):
        fits.loc[row, "outcome"] = outcome
    fits.loc[2, ["weight_0", "mean_1"]] = math.nan  # one start of a replicate
    fits.loc[6:8, ["mean_0", "log_likelihood"]] = math.nan  # all starts of a replicate
    fits.loc[10, "scale_1"] = math.inf
    fits.loc[13, "log_likelihood"] = -math.inf
    return fits, plan


def test_every_statistic_equals_a_naive_loop(varied):
    got, expected = convergence(*varied), naive(*varied)
    # The others are those of test_measures.
    got = got[[name for name in got if name in set(expected)]]
    expected = expected[got.columns]
    halved = ["expected_running_time_low", "expected_running_time_high"]
    pd.testing.assert_frame_equal(got[halved], expected[halved], rtol=1e-9, atol=0)
    got, expected = got.drop(columns=halved), expected.drop(columns=halved)
    pd.testing.assert_frame_equal(got, expected, check_dtype=False, rtol=1e-13, atol=0)


def test_types_and_labels(varied):
    got = convergence(*varied)
    text = ["cell", "mixture", "observed", "model", "init", "algorithm"]
    assert [str(got[name].dtype) for name in text] == ["str"] * 6
    counts = [f"n_{name}" for name in ["fits", *OUTCOMES, "near_singular", "relabelled"]]
    counts += ["n_lone_reference"]
    counted = (*RATES, "log_likelihood")
    counts += [f"{what}_{name}" for what in ("n", "replicates") for name in counted]
    for name in ("n_finite", "n_missing", "replicates_finite"):
        counts += [name, f"{name}_converged"]
    whole = ["sample_size", "replicates", "starts", *counts]
    assert [str(got[name].dtype) for name in whole] == ["int64"] * len(whole)
    assert {str(t) for t in got.drop(columns=text + whole).dtypes} == {"float64"}
    assert got["cell"].tolist() == ["zebra", "larger", "real", "alone"]  # the plan's order
    assert got["mixture"].isna().tolist() == [False, False, True, False]
    assert got["observed"].isna().tolist() == [True, True, False, True]


def test_every_outcome_is_counted_and_only_converged_is_convergence():
    plan = plan_of(cell("c", replicates=28))
    planted = [name for count, name in enumerate(OUTCOMES, 1) for _ in range(count)]
    row = convergence(fits_of(plan).assign(outcome=planted), plan).iloc[0]
    assert [row[f"n_{name}"] for name in OUTCOMES] == [1, 2, 3, 4, 5, 6, 7]
    assert row["n_fits"] == row["n_finite"] == 28
    assert row["converged_share"] == 5 / 28
    # 17 of 28 failed for good, whatever the budget; the 6 cut off may still converge.
    assert row["n_iter_median"] == row["n_iter_q90"] == math.inf
    assert row["expected_running_time"] == random_fits(plan)["map_evaluations"].sum() / 5


# Morris et al. (2019), Section 5.3: 0.95 coverage from 1600 repetitions has MCSE 0.00545, and the
# worst case p = 0.5 needs 10,000 for 0.005.
@pytest.mark.parametrize(
    ("replicates", "successes", "mcse"),
    [(1600, 1520, 0.0054486), (10_000, 5000, 0.005), (100, 100, 0.0), (4, 2, 0.25)],
)
def test_share_has_the_binomial_error_for_one_start(replicates, successes, mcse):
    plan = plan_of(cell("c", replicates=replicates))
    outcome = ["converged"] * successes + ["max_iter"] * (replicates - successes)
    row = convergence(fits_of(plan).assign(outcome=outcome), plan).iloc[0]
    assert row["converged_share"] == successes / replicates
    assert row["converged_share_mcse"] == pytest.approx(mcse, rel=1e-5)


def test_bias_and_rmse_of_errors_three_and_four():
    plan = plan_of(cell("c", replicates=2))
    row = convergence(fits_of(plan, mean_1=[2.0 + 3.0, 2.0 - 4.0]), plan).iloc[0]
    assert row["bias_mean_1"] == -0.5
    assert row["bias_mean_1_mcse"] == pytest.approx(3.5)  # sd(3, -4) = 7 / sqrt(2)
    assert row["rmse_mean_1"] == pytest.approx(math.sqrt(12.5))
    # sd(9, 16) / sqrt(2) = 3.5 is the error of the MSE.
    assert row["rmse_mean_1_mcse"] == pytest.approx(3.5 / (2 * math.sqrt(12.5)))


def test_parameter_fixed_at_its_truth_has_neither_error_nor_uncertainty():
    plan = plan_of(cell("c", replicates=3))
    row = convergence(fits_of(plan), plan).iloc[0]
    for kind in ("bias", "bias_mcse", "rmse", "rmse_mcse"):
        statistic, _, end = kind.partition("_")
        assert row[f"{statistic}_weight_0{'_' + end if end else ''}"] == 0.0


def test_copies_of_a_start_add_no_precision():
    one, ten = (plan_of(cell("c", replicates=6, starts=starts)) for starts in (1, 10))
    fits = random_fits(one)
    copies = pd.concat([fits.assign(start=start) for start in range(10)])
    got, expected = convergence(copies, ten), convergence(fits, one)
    differ = ["starts", "n_fits", "n_finite", "n_finite_converged", "n_relabelled"]
    differ += [*(f"n_{name}" for name in (*OUTCOMES, *RATES, "log_likelihood"))]
    # A share's interval is wider: the variance of several starts is estimated, from R replicates.
    for name in got.columns[got.columns.str.endswith("_low")]:
        assert not (got[name] > expected[name] * (1 + 1e-12)).any()
    for name in got.columns[got.columns.str.endswith("_high")]:
        assert not (got[name] < expected[name] * (1 - 1e-12)).any()
    differ += ["n_near_singular", "n_lone_reference"]
    differ += [*got.columns[got.columns.str.contains("_(?:low|high)$")]]
    pd.testing.assert_frame_equal(
        got.drop(columns=differ), expected.drop(columns=differ), rtol=1e-12
    )
    assert got["n_fits"].item() == 60


def test_unfinished_fits_are_censored_and_failed_ones_never_converge():
    plan = plan_of(cell("c", replicates=3))
    fits = fits_of(plan, n_iter=[10, 20, 5000], map_evaluations=[10, 20, 5000])
    row = convergence(fits.assign(outcome=["converged", "converged", "max_iter"]), plan).iloc[0]
    assert row["n_iter_median"] == 20.0
    assert np.isnan(row["n_iter_q90"])  # after 5000, or never
    assert row["expected_running_time"] == 5030 / 2
    for outcome in ("degenerate_scale", "error"):
        row = convergence(fits.assign(outcome=["converged", "converged", outcome]), plan).iloc[0]
        assert row["n_iter_median"] == 20.0
        assert row["n_iter_q90"] == math.inf
        # Never dropped: of the two that converged the median would be 10.
        assert row["n_iter_q10"] == 10.0


def test_running_time_includes_what_the_init_of_every_start_spent():
    plan = plan_of(
        cell("plain", replicates=2, starts=2),
        cell("searched", replicates=2, starts=2, init="searched"),
    )
    fits = fits_of(plan, map_evaluations=[10, 20, 30, 40] * 2)
    outcome = ["converged", "max_iter", "converged", "converged"]
    rows = convergence(fits.assign(outcome=outcome * 2), plan).set_index("cell")
    # Four starts of 3 runs of 4 iterations each, that of the fit that was cut off as well.
    assert rows.loc["plain", "expected_running_time"] == 100 / 3
    assert rows.loc["searched", "expected_running_time"] == (100 + 4 * 12) / 3


def test_where_nothing_converges_within_the_budget_no_quantile_is_known():
    plan = plan_of(cell("c", replicates=40))
    row = convergence(fits_of(plan, n_iter=9, map_evaluations=9).assign(outcome="max_iter"), plan)
    names = [f"n_iter_{name}" for name in ("median", "q10", "q90")]
    assert row[[f"{name}{end}" for name in names for end in ("", "_high")]].isna().all(axis=None)
    assert row["expected_running_time"].item() == row["expected_running_time_high"].item()
    assert row["expected_running_time"].item() == math.inf
    # At best a share of 8.8 % converges (Clopper & Pearson: 1 - 0.025^(1/40)), at once; the others
    # have spent nine evaluations.
    assert row["expected_running_time_low"].item() == pytest.approx(9 * 0.9119 / 0.0881, rel=0.01)
    # Wilson: z^2 / (40 + z^2).
    assert row["converged_share_high"].item() == pytest.approx(0.08763, rel=1e-4)


def simulated(studies, replicates, starts, share, cut_off, budget, alike):
    """Studies of fits that need 50 evaluations or fail at `cut_off`; starts may share their luck.

    Returns the statistics of each study and the true cost of a convergence.
    """
    rng = np.random.default_rng(20240301)
    shape = (studies, replicates, starts)
    luck = rng.beta(2 * share, 2 * (1 - share), (studies, replicates, 1)) if alike else share
    converged = rng.random(shape) < luck
    cost = np.where(converged, np.minimum(rng.geometric(1 / 50, shape), 400), cut_off)
    index = [grid.ravel() for grid in np.indices(shape)]
    plan = plan_of(*(cell(f"c{i}", replicates=replicates, starts=starts) for i in range(studies)))
    schedule = {"record_replicates": "all", "max_iter": budget}
    plan = dataclasses.replace(plan, config=CONFIG | {"schedule": schedule})
    fits = pd.DataFrame(
        {
            "cell": [f"c{i}" for i in index[0]],
            "replicate": index[1],
            "start": index[2],
            "outcome": np.where(converged.ravel(), "converged", "max_iter"),
            "n_iter": cost.ravel(),
            "map_evaluations": cost.ravel(),
            "log_likelihood": -100.0,
        }
    ).assign(relabelled=False, **dict(zip(names(2), FLAT_TRUTH, strict=True)))
    # Of a geometric number T cut at 400: sum of P(T > t) over t < 400.
    success = 50.0 * (1.0 - 0.98**400)
    return convergence(with_rates(fits), plan), success + cut_off * (1 - share) / share


STUDIES = 500


@pytest.mark.parametrize(("share", "cut_off"), [(0.9, 200), (0.5, 200), (0.2, 200), (0.5, 10)])
def test_intervals_of_share_and_running_time_are_covered(share, cut_off):
    """Four starts that share their replicate's luck; 95 % is to be covered, simulated 500 times."""
    got, cost = simulated(STUDIES, 60, 4, share, cut_off, budget=400, alike=True)
    slack = 4.0 * math.sqrt(0.95 * 0.05 / STUDIES)
    covered = (got["converged_share_low"] <= share) & (share <= got["converged_share_high"])
    assert 0.95 - slack < covered.mean() < min(0.95 + slack, 0.995)
    low, high = got["expected_running_time_low"], got["expected_running_time_high"]
    assert ((low <= cost) & (cost <= high)).mean() > 0.95 - slack


@pytest.mark.parametrize("starts", [1, 5])
@pytest.mark.parametrize("replicates", [10, 30, 100])
@pytest.mark.parametrize(("share", "cut_off"), [(0.8, 500), (0.95, 10_000), (0.99, 20_000)])
def test_running_time_is_covered_where_costly_failures_are_rare(share, cut_off, replicates, starts):
    got, cost = simulated(STUDIES, replicates, starts, share, cut_off, cut_off, alike=starts > 1)
    some = got["n_converged"] > 0
    low, high = (got.loc[some, f"expected_running_time_{end}"] for end in ("low", "high"))
    slack = 4.0 * math.sqrt(0.95 * 0.05 / STUDIES)
    assert ((low <= cost) & (cost <= high)).mean() > 0.95 - slack
    # Also where all of a study converged, and no replicate tells what a failure costs.
    if share**replicates > 0.1:
        assert (high >= cost)[got["n_converged"] == got["n_fits"]].all()
    assert (low > 0.0).all() and (low <= got.loc[some, "expected_running_time"]).all()


def test_fewer_replicates_do_not_tell_more_of_the_running_time():
    widths = []
    for replicates in (10, 20, 50, 200):
        got, _ = simulated(200, replicates, 1, 0.95, 2000, budget=20_000, alike=False)
        low, high = (np.log(got[f"expected_running_time_{end}"]) for end in ("low", "high"))
        widths.append((high - low).mean())
    assert widths == sorted(widths, reverse=True)


def test_what_the_init_costs_is_spent_by_every_replicate_that_nobody_saw():
    """Three runs of four iterations are certain: with them alone the lower end cannot be below."""
    plan = plan_of(cell("searched", replicates=5, init="searched"))
    row = convergence(fits_of(plan, n_iter=1, map_evaluations=1), plan).iloc[0]
    assert 12.0 < row["expected_running_time_low"] < 13.0
    # Clopper & Pearson: at least 47.8 % converge, and a failure costs the init and 500 iterations.
    odds = (row["expected_running_time_high"] - 13.0) / 512.0
    assert (1.0 / (1.0 + odds)) ** 5 == pytest.approx(0.025, rel=0.1)


def test_errors_keep_their_digits_far_from_zero():
    truth = TRUTH | {"means": [1e8, 2e8]}
    plan = dataclasses.replace(
        plan_of(cell("c", replicates=4)), config=CONFIG | {"mixture": {"pair": truth}}
    )
    offset = np.array([1.0, -1.0, 2.0, 2.0]) * 2.0**-20  # exact beside 1e8
    row = convergence(fits_of(plan, mean_0=1e8 + offset), plan).iloc[0]
    assert row["bias_mean_0"] == 2.0**-20
    assert row["bias_mean_0_mcse"] == pytest.approx(math.sqrt(2.0) / 2 * 2.0**-20, rel=1e-14)


def test_one_replicate_has_no_standard_error(varied):
    got = convergence(*varied).set_index("cell")
    errors = [name for name in got.columns if name.endswith("_mcse")]
    assert got.loc[["real", "alone"], errors].isna().all(axis=None)
    assert math.isfinite(got.loc["alone", "rmse_mean_0"])


def test_replicates_that_are_all_failures_but_one_have_no_standard_error():
    plan = plan_of(cell("c", replicates=3))
    row = convergence(fits_of(plan, mean_0=[0.0, math.nan, math.inf]), plan).iloc[0]
    assert row["n_finite"] == 1
    assert row["bias_mean_0"] == 1.0
    assert np.isnan(row["bias_mean_0_mcse"])
    assert np.isnan(row["rmse_mean_0_mcse"])
    assert row["converged_share_mcse"] == 0.0  # all three have an outcome


def test_a_likelihood_without_a_bound_is_no_part_of_a_mean():
    plan = plan_of(cell("c", replicates=6))
    likelihoods = [-10.0, -20.0, -60.0, 1e9, 1e9, 1e9]
    outcomes = ["converged", "max_iter", "log_likelihood_decreased"]
    for bad in ("degenerate_scale", "empty_component", "nonfinite", "error"):
        fits = fits_of(plan, log_likelihood=likelihoods).assign(outcome=[*outcomes, *[bad] * 3])
        row = convergence(fits, plan).iloc[0]
        assert (row["n_log_likelihood"], row["replicates_log_likelihood"]) == (3, 3)
        assert (row["n_finite"], row["n_finite_converged"]) == (6, 1)
        assert row["log_likelihood_mean"] == -30.0
        assert row["mean_log_likelihood"] == -30.0 / 50
        error = math.sqrt(20.0**2 + 10.0**2 + 30.0**2) / math.sqrt(6)
        assert row["log_likelihood_mean_mcse"] == pytest.approx(error)
        assert row["mean_log_likelihood_mcse"] == pytest.approx(error / 50)
        assert row["log_likelihood_mean_converged"] == -10.0
        assert row["mean_log_likelihood_converged"] == -10.0 / 50
        assert math.isnan(row["log_likelihood_mean_converged_mcse"])


def test_cell_without_a_finite_fit_or_without_a_fit_at_all():
    plan = plan_of(cell("none", replicates=2), cell("broken", replicates=2))
    fits = fits_of(plan, mean_0=math.nan)
    got = convergence(fits[fits["cell"] == "broken"], plan).set_index("cell")
    assert got["n_fits"].tolist() == [0, 2]
    assert got["n_converged"].tolist() == [0, 2]
    assert got["n_finite"].tolist() == [0, 0]
    assert got["log_likelihood_mean"].isna().all()
    assert got["bias_mean_1"].isna().all()
    assert got["true_mean_1"].tolist() == [2.0, 2.0]


def test_fits_of_a_cell_that_is_not_in_the_plan_are_refused():
    plan = plan_of(cell("c"))
    with pytest.raises(ValueError, match="cell: got 'old'"):
        convergence(fits_of(plan).assign(cell="old"), plan)


def test_order_of_rows_changes_no_byte(varied):
    fits, plan = varied
    expected = parquet(convergence(fits, plan))
    for seed in range(5):
        shuffled = fits.sample(frac=1.0, random_state=seed)
        assert parquet(convergence(shuffled, plan)) == expected


def parquet(table):
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def test_standard_errors_are_the_spread_over_repeated_studies():
    """The mean squared MCSE must be the variance of the statistic over independent studies.

    Starts of a replicate share its data, so their errors are strongly correlated: taking fits for
    replicates would understate the variance almost threefold here.
    """
    studies, replicates, starts = 400, 60, 3
    rng = np.random.default_rng(20240229)
    plan = plan_of(*(cell(f"c{i}", replicates=replicates, starts=starts) for i in range(studies)))
    shared = rng.normal(size=(studies, replicates, 1))
    error = (shared + 0.2 * rng.normal(size=(studies, replicates, starts))).ravel()
    shape = (studies, replicates, starts)
    index = [grid.ravel() for grid in np.indices(shape)]
    fits = pd.DataFrame(
        {
            "cell": [f"c{i}" for i in index[0]],
            "replicate": index[1],
            "start": index[2],
            "outcome": np.where(error > -0.5, "converged", "max_iter"),
            "n_iter": 1,
            "map_evaluations": 1,
            "relabelled": False,
            "log_likelihood": -100.0 + 3.0 * error,
        }
    ).assign(**dict(zip(names(2), FLAT_TRUTH, strict=True)))
    fits = with_rates(fits)
    got = convergence(fits.assign(mean_0=-1.0 + 0.3 + error), plan)
    for name in ("converged_share", "log_likelihood_mean", "bias_mean_0", "rmse_mean_0"):
        claimed = (got[f"{name}_mcse"] ** 2).mean()
        actual = got[name].var(ddof=1)
        # A variance from m normal values has relative standard error sqrt(2 / (m - 1)).
        assert abs(claimed / actual - 1.0) < 4.0 * math.sqrt(2.0 / (studies - 1)), name
    # And the estimates are unbiased: 0.3 is what was planted.
    standard_error = math.sqrt(1.0 + 0.2**2 / starts) / math.sqrt(studies * replicates)
    assert abs(got["bias_mean_0"].mean() - 0.3) < 4.0 * standard_error


def with_ids(fits):
    return fits.assign(fit_id=[f"fit {index}" for index in range(len(fits))], sample_scale=1.0)


def no_traces(fits):
    return fits.iloc[:0].assign(iteration=pd.Series(dtype=int))


@pytest.fixture
def folder(varied, tmp_path):
    fits, plan = varied
    write_plan(plan, tmp_path)
    fits = with_ids(fits)
    write_tables(plan, fits, no_traces(fits), tmp_path)
    return tmp_path


def test_aggregate_writes_the_same_table_twice(varied, folder):
    aggregate(folder)
    expected = convergence(*varied)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "convergence.parquet"), expected)
    # Full precision: reading the decimals gives the same numbers, to the last bit.
    read = pd.read_csv(folder / "convergence.csv")
    pd.testing.assert_frame_equal(read, expected, check_exact=True)
    first = (folder / "convergence.csv").read_text().splitlines()[1]
    assert first.startswith("zebra,pair,,free,50,random_points,em,9,3,27,")


def test_aggregate_is_deterministic_and_leaves_nothing_behind(varied, folder):
    aggregate(folder)
    files = ["claims.parquet", "comparisons.parquet", "convergence.csv", "convergence.md"]
    files += ["convergence.parquet", "convergence.tex", "derived.parquet", "metrics.json"]
    files += ["profiles.parquet", "replay.parquet", "slopes.parquet", "trajectories.parquet"]
    before = [(folder / name).read_bytes() for name in files]
    shuffled = with_ids(varied[0]).sample(frac=1.0, random_state=3)
    write_tables(varied[1], shuffled, no_traces(shuffled), folder)
    aggregate(folder)
    assert [(folder / name).read_bytes() for name in files] == before
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*files, "fits", "traces", "plan.yaml"]
    )


def test_metrics_are_plain_numbers_without_missing_ones(varied, folder):
    aggregate(folder)

    def refuse(constant):
        raise AssertionError(constant)

    text = (folder / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=refuse)
    assert text == json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    fits, plan = varied
    table = convergence(fits, plan)
    assert metrics["n_cells"] == len(plan.cells)
    assert metrics["n_fits"] == len(fits)
    for outcome in OUTCOMES:
        assert metrics[f"n_{outcome}"] == (fits["outcome"] == outcome).sum()
    assert metrics["converged_share"] == (fits["outcome"] == "converged").mean()
    finite = table["n_iter_median"][np.isfinite(table["n_iter_median"])]
    assert metrics["n_iter_median_smallest"] == finite.min()
    # Where a cell's median is not known or infinite, neither is the largest.
    assert ("n_iter_median_largest" in metrics) == (len(finite) == len(table))
    known = [table[f"rmse_mean_{k}"].dropna() for k in range(2)]
    assert metrics["rmse_mean"] == pytest.approx(pd.concat(known).mean(), rel=1e-14)


def test_derived_compares_the_fits_of_one_replicate_and_model():
    study = make_study(
        "experiment=convergence",
        "mixture=[overlap_low]",
        "model=[free,shared_scale]",
        "sample_sizes=[20]",
        "replicates=4",
        "starts=3",
        "schedule.max_iter=6",
    )
    fits = study.fits.copy()
    fits.loc[[0, 5, 17], "outcome"] = "degenerate_scale"
    fits.loc[0, "log_likelihood"] = 1e9
    fits.loc[7, "log_likelihood"] = fits.loc[6, "log_likelihood"]
    table = derived(fits.sample(frac=1, random_state=1), study.plan)
    assert list(table.columns) == ["cell", "replicate", "start", "fit_id", *BESIDE]
    assert list(table["fit_id"]) == list(fits["fit_id"])
    cells = {cell.id: cell for cell in study.plan.cells}
    for index, fit in fits.iterrows():
        if fit["outcome"] not in ("converged", "max_iter"):
            assert table.loc[index, ["log_likelihood_gap", "rank"]].isna().all()
            assert not table.loc[index, ["reached_reference", "best_of_replicate"]].any()
            continue
        rivals = [
            other["log_likelihood"]
            for _, other in fits.iterrows()
            if other["outcome"] in ("converged", "max_iter")
            and other["replicate"] == fit["replicate"]
            and cells[other["cell"]].model == cells[fit["cell"]].model
        ]
        assert len(rivals) > 2
        assert table.loc[index, "log_likelihood_gap"] == max(rivals) - fit["log_likelihood"]
        better = sum(value > fit["log_likelihood"] for value in rivals)
        assert table.loc[index, "rank"] == 1 + better


def case(*rows, init="random_points", other_init="kmeans_pp", starts=3):
    """One sample, two cells of `starts` fits each: (outcome, log-likelihood, scale_0) in order."""
    plan = plan_of(cell("a", starts=starts, init=init), cell("b", starts=starts, init=other_init))
    outcome, log_likelihood, scale = zip(*rows, strict=True)
    fits = with_ids(fits_of(plan))
    fits = fits.assign(outcome=outcome, log_likelihood=log_likelihood, scale_0=scale)
    return fits, plan


def test_a_reference_is_eligible_and_shared_by_all_cells_of_a_sample_and_model():
    fits, plan = case(
        ("converged", -100.0, 1.0),
        ("max_iter", -100.00005, 1.0),  # within 1e-6 of 100
        ("converged", -100.0002, 1.0),
        ("converged", -90.0, 1e-3),  # near-singular: the other scale is 1.5
        ("degenerate_scale", 1e9, 1.0),
        ("converged", -100.0, 1.0),
    )
    table = derived(fits, plan)
    assert table["reference_log_likelihood"].tolist() == [-100.0] * 6
    assert table["truth_log_likelihood"].isna().all()
    assert table["near_singular"].tolist() == [False, False, False, True, False, False]
    assert table["reached_reference"].tolist() == [True, True, False, False, False, True]
    assert table["rank"].fillna(0).tolist() == [1, 3, 4, 0, 0, 1]
    assert table["best_of_replicate"].tolist() == [True, False, False, False, False, True]
    gaps = table["log_likelihood_gap"]
    assert gaps.isna().tolist() == [False, False, False, True, True, False]
    assert gaps.dropna().tolist() == pytest.approx([0.0, 5e-5, 2e-4, 0.0], abs=1e-12)
    assert [str(table[name].dtype) for name in BESIDE] == [
        *["float64"] * 3, "bool", "bool", "bool", "float64", "bool",
    ]  # fmt: skip
    row = convergence(fits, plan).set_index("cell")
    assert row["n_near_singular"].tolist() == [0, 1]
    assert row["reached_reference_share"].tolist() == [2 / 3, 1 / 3]


@pytest.mark.parametrize(
    ("rows", "other_init", "expected"),
    [
        # Of two inits each fit has another to be compared with, of one, shared by two cells, none.
        ([("converged", -5.0, 1.0), ("max_iter", -6.0, 1.0)], "kmeans_pp", [False, False]),
        ([("converged", -5.0, 1.0), ("max_iter", -6.0, 1.0)], "random_points", [True, True]),
        # What is no candidate is no other to be compared with, and its own answer is known.
        ([("converged", -5.0, 1.0), ("degenerate_scale", 9.0, 1.0)], "kmeans_pp", [True, False]),
        ([("converged", -5.0, 1.0), ("converged", -6.0, 1e-9)], "kmeans_pp", [True, False]),
        ([("nonfinite", -5.0, 1.0), ("converged", -6.0, 1e-9)], "kmeans_pp", [False, False]),
    ],
)
def test_a_reference_from_one_starting_point_is_told(rows, other_init, expected):
    fits, plan = case(*rows, other_init=other_init, starts=1)
    assert derived(fits, plan)["lone_reference"].tolist() == expected
    assert convergence(fits, plan)["n_lone_reference"].tolist() == [int(flag) for flag in expected]


def test_starts_of_a_cell_are_compared_with_each_other():
    rows = [("converged", -5.0, 1.0), ("max_iter", -6.0, 1.0)] * 2
    fits, plan = case(*rows, other_init="random_points", starts=2)
    assert not derived(fits, plan)["lone_reference"].any()


def test_ties_within_a_cell_go_to_the_first_start():
    rows = [("converged", -5.0, 1.0)] * 3 + [("max_iter", value, 1.0) for value in (-9, -7, -7)]
    fits, plan = case(*rows)
    table = derived(fits.sample(frac=1.0, random_state=2), plan)
    assert table["best_of_replicate"].tolist() == [True, False, False, False, True, False]


def test_without_an_eligible_fit_there_is_no_reference():
    fits, plan = case(*[("degenerate_scale", 7.0, 1.0)] * 3, *[("converged", -1.0, 1e-9)] * 3)
    table = derived(fits, plan)
    missing = ["reference_log_likelihood", "truth_log_likelihood", "log_likelihood_gap", "rank"]
    assert table[missing].isna().all(axis=None)
    assert not table[["reached_reference", "best_of_replicate"]].any(axis=None)
    assert convergence(fits, plan)["reached_reference_share"].tolist() == [0.0, 0.0]


def test_the_fit_from_the_truth_is_named_to_all():
    rows = [("converged", -8.0, 1.0), ("converged", -7.0, 1.0)]
    for outcome, expected in (("converged", [-8.0, -8.0]), ("empty_component", [math.nan] * 2)):
        rows[0] = (outcome, *rows[0][1:])
        fits, plan = case(*rows, init="truth", starts=1)
        table = derived(fits, plan)
        np.testing.assert_array_equal(table["truth_log_likelihood"], expected)
        assert table["reference_log_likelihood"].tolist() == [-7.0, -7.0]


def test_settings_of_the_reference_count():
    fits, plan = case(*[("converged", -100.0 - k, 0.1) for k in range(6)])
    loose = CONFIG | {"reference": {"tolerance": 0.02, "scale_ratio": 1e-3}}
    table = derived(fits, dataclasses.replace(plan, config=loose))
    assert table["reached_reference"].tolist() == [True] * 3 + [False] * 3  # within 2 of 100
    strict = CONFIG | {"reference": {"tolerance": 0.0, "scale_ratio": 0.1}}
    table = derived(fits, dataclasses.replace(plan, config=strict))
    assert table["near_singular"].all()


def test_the_tolerance_is_absolute_below_one():
    fits, plan = case(*[("converged", value, 1.0) for value in (0, -9e-7, -2e-6, -1, -2, -3)])
    assert derived(fits, plan)["reached_reference"].tolist() == [True, True] + [False] * 4


def test_a_component_that_a_model_lacks_is_no_small_scale():
    plan = plan_of(cell("one", n_components=1), cell("two"))
    fits = with_ids(fits_of(plan))
    fits.loc[0, ["weight_1", "mean_1", "scale_1"]] = math.nan
    assert not derived(fits, plan)["near_singular"].any()


def test_a_replicate_is_the_unit_of_the_share_that_reached_the_reference():
    plan = plan_of(cell("c", replicates=4, starts=2))
    likelihoods = [-1.0, -1.0, -1.0, -2.0, -3.0, -1.0, -5.0, -5.0]
    row = convergence(fits_of(plan, log_likelihood=likelihoods), plan).iloc[0]
    shares = np.array([1.0, 0.5, 0.5, 1.0])
    assert row["reached_reference_share"] == shares.mean()
    expected = math.sqrt(((shares - shares.mean()) ** 2).sum()) / 4
    assert row["reached_reference_share_mcse"] == pytest.approx(expected, rel=1e-15)


def test_references_are_of_the_penalised_objective():
    plan = plan_of(cell("c", replicates=1, starts=3))
    fits = with_ids(fits_of(plan)).assign(
        outcome="converged", log_likelihood=[-9.0, -10.0, -9.5], log_penalty=[-3.0, -1.0, -1.25]
    )
    got = derived(fits, plan)
    assert got["reference_log_likelihood"].tolist() == [-10.75] * 3
    assert got["log_likelihood_gap"].tolist() == [1.25, 0.25, 0.0]
    assert got["rank"].tolist() == [3, 2, 1]
    plain = derived(fits.drop(columns="log_penalty"), plan)
    assert plain["rank"].tolist() == [1, 3, 2]


def test_intervals_of_iterations_and_cost_at_another_level(varied):
    fits, plan = varied
    table = convergence(fits, plan)
    pd.testing.assert_frame_equal(with_intervals_at(table, fits, plan, 0.95), table)
    wide = with_intervals_at(table, fits, plan, 0.999)
    ends = [name for name in table if name.startswith(("n_iter_", "expected_running_time"))]
    lows, highs = ([name for name in ends if name.endswith(end)] for end in ("_low", "_high"))
    assert len(lows) == len(highs) == 4
    assert not (wide[lows] > table[lows]).any(axis=None)
    assert not (wide[highs] < table[highs]).any(axis=None)
    assert (wide[lows] < table[lows]).any(axis=None)
    others = table.columns.difference(lows + highs)
    pd.testing.assert_frame_equal(wide[others], table[others])
