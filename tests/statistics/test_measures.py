"""Performance measures against loops over fits, the published formulas and simulation."""

import math
import statistics
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from pipeline.statistics.cells import convergence, fit_columns
from pipeline.statistics.measures import accuracy
from pipeline.statistics.replicates import layout_of, mean_and_error
from tests.statistics.test_cells import (
    FLAT_TRUTH,
    cell,
    fits_of,
    is_finite,
    naive,
    names,
    plan_of,
    random_fits,
)

DISTANCES = ["total_variation", "hellinger", "kullback_leibler", "wasserstein_1"]
Z = 1.959964  # of a 95 % interval
NONE = (math.nan, math.nan)


# An independent, slow, exact oracle: loops over fits and the standard library's rational sums.


def by_replicate(rows, value):
    """Return the values of every replicate that has any."""
    groups = []
    for replicate in sorted({row["replicate"] for row in rows}):
        groups.append([value(row) for row in rows if row["replicate"] == replicate])
    return groups


def mean_and_mcse(groups, binomial=False):
    means = [statistics.mean(group) for group in groups]
    if len(means) < 2:
        return (means or [math.nan])[0], math.nan
    sd = statistics.pstdev(means) if binomial else statistics.stdev(means)
    return statistics.mean(means), sd / math.sqrt(len(means))


def root(value, mcse):
    return math.sqrt(value), mcse / (2 * math.sqrt(value))


def empirical_se(groups):
    if len(groups) < 2:
        return NONE
    means = [statistics.mean(group) for group in groups]
    centre, count = statistics.mean(means), len(means)
    within = [
        statistics.mean([(v - m) ** 2 for v in g]) for g, m in zip(groups, means, strict=True)
    ]
    between = statistics.variance(means)
    error_b = between * math.sqrt(2 / (count - 1))
    error_w = statistics.stdev(within) / math.sqrt(count)
    deviations = [(m - centre) ** 2 for m in means]
    if count > 2 and error_w > 0:
        correlation = statistics.correlation(deviations, within)
    elif error_w > 0:
        correlation = 0.0  # of two replicates both are as far from their mean
    else:
        correlation = 0.0
    squares = error_b**2 + 2 * correlation * error_b * error_w + error_w**2
    return root(between + statistics.mean(within), math.sqrt(squares))


def naive_measures(fits, plan):
    """Return every column that the measures add to a cell's row."""
    table = []
    most = max(c.n_components for c in plan.cells)
    known = dict(zip(names(2), FLAT_TRUTH, strict=True))
    for c in plan.cells:
        mine = [row for row in fits.to_dict("records") if row["cell"] == c.id]
        finite = [row for row in mine if is_finite(row, c.n_components)]
        out = {"n_relabelled": sum(row["relabelled"] is True for row in mine)}
        estimated = [n for n in names(most) if any(math.isfinite(r[f"se_{n}"]) for r in finite)]
        for end in ("", "_converged"):

            def among(rows, end=end):
                return [row for row in rows if not end or row["outcome"] == "converged"]

            have = among(finite)
            wald = [r for r in have if all(math.isfinite(r[f"se_{n}"]) for n in estimated)]
            wald = wald if estimated else []
            near = [row for row in have if all(math.isfinite(row[name]) for name in DISTANCES)]
            out |= {
                f"n_finite{end}": len(have),
                f"n_missing{end}": len(among(mine)) - len(have),
                f"replicates_finite{end}": len({row["replicate"] for row in have}),
                f"n_wald{end}": len(wald),
                f"n_wald_missing{end}": len(have) - len(wald),
                f"replicates_wald{end}": len({row["replicate"] for row in wald}),
                f"n_distances{end}": len(near),
                f"replicates_distances{end}": len({row["replicate"] for row in near}),
                f"n_distances_missing{end}": len(have) - len(near),
            }
            for name in DISTANCES:
                found = mean_and_mcse(by_replicate(near, lambda row, n=name: row[n]))
                out[f"{name}{end}"], out[f"{name}{end}_mcse"] = found
            for name in names(most):
                has_truth = c.mixture is not None and c.n_components == 2 and name in known
                found = measures_of(have, wald, name, known.get(name), has_truth)
                for measure, (value, mcse) in found.items():
                    out[f"{measure}_{name}{end}"] = value
                    out[f"{measure}_{name}{end}_mcse"] = mcse
        table.append(out)
    return pd.DataFrame(table)


def measures_of(have, wald, name, truth, has_truth):
    keys = ["bias", "relative_bias", "empirical_se", "mse", "rmse"]
    keys += ["model_se", "coverage", "coverage_bias_eliminated"]
    if not has_truth:
        return dict.fromkeys(keys, NONE)
    errors = by_replicate(have, lambda row: row[name] - truth)
    bias = mean_and_mcse(errors)
    mse = mean_and_mcse([[error**2 for error in group] for group in errors])
    wald = [row for row in wald if math.isfinite(row[f"se_{name}"])]
    groups = by_replicate(wald, lambda row: (row[name], row[f"se_{name}"]))
    centre = mean_and_mcse([[estimate for estimate, _ in group] for group in groups])[0]

    def share(middle):
        covered = [[float(abs(e - middle) <= Z * se) for e, se in group] for group in groups]
        return mean_and_mcse(covered, binomial=True)

    return {
        "bias": bias,
        "relative_bias": (bias[0] / truth, bias[1] / abs(truth)) if truth else NONE,
        "empirical_se": empirical_se(errors),
        "mse": mse,
        "rmse": root(*mse),
        "model_se": root(*mean_and_mcse([[se**2 for _, se in group] for group in groups])),
        "coverage": share(truth),
        "coverage_bias_eliminated": share(centre),
    }


@pytest.fixture
def varied():
    """Several starts, other models, real data, one replicate, every failure, gaps everywhere."""
    plan = plan_of(
        cell("zebra", replicates=30, starts=3),
        cell("single", replicates=40),
        cell("larger", n_components=3, replicates=4, sample_size=7),
        cell("real", replicates=1, starts=5, observed="real", sample_size=272),
        cell("alone", replicates=1, starts=2),
    )
    rng = np.random.default_rng(7)
    fits = random_fits(plan)
    size = len(fits)
    for name in names(3):
        fits[f"se_{name}"] = np.where(np.isnan(fits[name]), np.nan, rng.lognormal(size=size))
    for name in DISTANCES:
        fits[name] = rng.lognormal(size=size)
    fits["relabelled"] = fits["relabelled"].astype(object)
    outcomes = ["nonfinite", "degenerate_scale", "empty_component", "log_likelihood_decreased"]
    fits.loc[[0, 13, 95, 100], "outcome"] = outcomes
    fits.loc[20, ["outcome", "relabelled"]] = ["error", None]
    fits.loc[20, names(2)] = math.nan
    fits.loc[2, ["weight_0", "mean_1"]] = math.nan  # one start of a replicate
    fits.loc[6:8, ["mean_0", "log_likelihood"]] = math.nan  # all starts of a replicate
    fits.loc[10, "scale_1"] = math.inf
    fits.loc[93, "log_likelihood"] = -math.inf
    fits.loc[[92, 96], [f"se_{name}" for name in names(2)]] = math.nan  # none at all
    fits.loc[[40, 97], "se_scale_1"] = math.nan  # not of every parameter
    fits.loc[fits["cell"] == "zebra", ["se_weight_0", "se_weight_1"]] = math.nan  # fixed
    fits.loc[[50, 98], "kullback_leibler"] = math.inf
    fits.loc[fits["cell"] == "real", DISTANCES] = math.nan
    return fits, plan


def test_every_measure_equals_a_loop(varied):
    got, expected = convergence(*varied), naive_measures(*varied)
    others = set(naive(random_fits(varied[1]), varied[1]))
    assert set(got) - others == set(expected) - others
    got = got[list(expected)]
    pd.testing.assert_frame_equal(got, expected, check_dtype=False, rtol=1e-11, atol=0)
    # The loop has seen what it is to see.
    row = expected.iloc[0]
    assert row["n_missing"] == 6 and row["n_wald_missing"] == 1 and row["n_distances_missing"] == 1
    assert row["replicates_finite"] == 29 and math.isnan(row["coverage_weight_0"])
    assert expected["n_missing_converged"].max() > 0
    row = expected.iloc[1]
    assert max(row["replicates_wald"], row["replicates_distances"]) < row["replicates_finite"]


def test_columns_exist_where_the_study_asks_for_them(varied):
    fits, plan = varied
    bare = convergence(fits[fit_columns(plan)], plan)
    assert not [name for name in bare if "coverage" in name or "wald" in name or "model_se" in name]
    assert not set(DISTANCES) & set(bare)
    whole = convergence(fits, plan)
    pd.testing.assert_frame_equal(whole[bare.columns], bare)
    assert set(fit_columns(plan, fits.columns)) - set(fit_columns(plan)) == {
        *(f"se_{name}" for name in names(3)),
        *DISTANCES,
    }


def test_order_of_rows_changes_no_bit(varied):
    fits, plan = varied
    expected = convergence(fits, plan)
    for seed in range(3):
        shuffled = fits.sample(frac=1.0, random_state=seed)
        pd.testing.assert_frame_equal(convergence(shuffled, plan), expected, check_exact=True)


def test_one_start_gives_the_formulas_of_table_6():
    """Morris, White & Crowther (2019), Table 6, as printed."""
    n, truth = 37, -1.0
    rng = np.random.default_rng(3)
    theta = truth + 0.8 + rng.normal(size=n)
    variance = rng.chisquare(9, n) / 9
    plan = plan_of(cell("c", replicates=n))
    fits = fits_of(plan, mean_0=theta, **{f"se_{name}": 1.0 for name in names(2)})
    row = convergence(fits.assign(se_mean_0=np.sqrt(variance)), plan).iloc[0]
    mean = theta.sum() / n
    emp_se = math.sqrt(((theta - mean) ** 2).sum() / (n - 1))
    mse = ((theta - truth) ** 2).sum() / n
    mod_se = math.sqrt(variance.sum() / n)
    covered = np.abs(theta - truth) <= 1.959964 * np.sqrt(variance)
    around_mean = np.abs(theta - mean) <= 1.959964 * np.sqrt(variance)
    assert 0 < covered.sum() < n and covered.sum() != around_mean.sum()
    p, q = covered.mean(), around_mean.mean()
    spread = ((variance - variance.mean()) ** 2).sum() / (n - 1)
    published = {
        "bias": (mean - truth, math.sqrt(((theta - mean) ** 2).sum() / (n * (n - 1)))),
        "empirical_se": (emp_se, emp_se / math.sqrt(2 * (n - 1))),
        "mse": (mse, math.sqrt((((theta - truth) ** 2 - mse) ** 2).sum() / (n * (n - 1)))),
        "model_se": (mod_se, math.sqrt(spread / (4 * n * mod_se**2))),
        "coverage": (p, math.sqrt(p * (1 - p) / n)),
        "coverage_bias_eliminated": (q, math.sqrt(q * (1 - q) / n)),
    }
    for name, (value, mcse) in published.items():
        assert row[f"{name}_mean_0"] == pytest.approx(value, rel=1e-13), name
        assert row[f"{name}_mean_0_mcse"] == pytest.approx(mcse, rel=1e-13), name
    # And the parts fit together.
    assert mse == pytest.approx(row["bias_mean_0"] ** 2 + (n - 1) / n * emp_se**2, rel=1e-13)


def test_a_truth_of_zero_has_no_relative_bias():
    plan = plan_of(cell("c", replicates=3))
    plan.config["mixture"]["pair"]["means"][0] = 0.0
    try:
        row = convergence(fits_of(plan, mean_0=[1.0, 2.0, 4.0]), plan).iloc[0]
    finally:
        plan.config["mixture"]["pair"]["means"][0] = -1.0
    assert row["bias_mean_0"] == pytest.approx(7 / 3)
    assert math.isnan(row["relative_bias_mean_0"]) and math.isnan(row["relative_bias_mean_0_mcse"])
    assert row["relative_bias_mean_1"] == 0.0


def test_failures_are_seen_in_every_count():
    outcomes = ["converged"] * 5 + ["max_iter"] * 2 + ["nonfinite", "degenerate_scale", "error"]
    plan = plan_of(cell("c", replicates=10), cell("sound", replicates=10))
    fits = fits_of(plan)
    fits.loc[:9, "outcome"] = outcomes
    fits.loc[9, [*names(2), "log_likelihood"]] = math.nan  # no estimate
    fits.loc[8, "mean_0"] = 1e6
    fits.loc[4, "mean_0"] = math.nan  # converged, and no number for all that
    row, sound = (convergence(fits, plan).iloc[place] for place in (0, 1))
    assert (row["n_finite"], row["n_missing"], row["replicates_finite"]) == (8, 2, 8)
    of_converged = ["n_finite_converged", "n_missing_converged", "replicates_finite_converged"]
    assert row[of_converged].tolist() == [4, 1, 4]
    assert row["bias_mean_0"] == pytest.approx((1e6 + 1) / 8)  # the failure is not hidden
    assert row["bias_mean_0_converged"] == 0.0
    assert (sound["n_missing"], sound["n_missing_converged"]) == (0, 0)


def test_relabelled_fits_are_counted_and_what_was_not_matched_is_not():
    plan = plan_of(cell("c", replicates=5))
    for values in ([True, False, None, True, None], pd.array([1, 0, None, 1, None], "boolean")):
        fits = fits_of(plan, relabelled=values)
        assert convergence(fits, plan)["n_relabelled"].tolist() == [2]


# Simulated studies: each is a cell, so that one call serves thousands.


def studies(error, wald_se):
    """Return the rows of many studies: errors of mean_0 and their SEs, (studies, R, starts)."""
    count, replicates, starts = error.shape
    cells = [cell(f"c{i}", replicates=replicates, starts=starts) for i in range(count)]
    plan = plan_of(*cells)
    index = [grid.ravel() for grid in np.indices(error.shape)]
    given = {
        "cell": np.array([c.id for c in cells])[index[0]],
        "replicate": index[1],
        "start": index[2],
        "outcome": "converged",
        "n_iter": 1,
        "map_evaluations": 1,
        "log_likelihood": -100.0,
        **dict(zip(names(2), FLAT_TRUTH, strict=True)),
        "relabelled": False,
        "rate_theory": 0.5,
        "rate_observed": 0.5,
        "map_residual": 0.0,
        "compression_error_bound": 0.0,
        **{f"se_{name}": 1.0 for name in names(2)},
        **{name: np.abs(error.ravel()) for name in DISTANCES},
    }
    given |= {"mean_0": -1.0 + error.ravel(), "se_mean_0": wald_se.ravel()}
    return convergence(pd.DataFrame(given), plan)


MEASURES = [
    "bias_mean_0", "relative_bias_mean_0", "empirical_se_mean_0", "mse_mean_0", "rmse_mean_0",
    "coverage_mean_0", "coverage_bias_eliminated_mean_0", "model_se_mean_0", "hellinger",
]  # fmt: skip


def drawn(starts, count=1500, replicates=60):
    """Return normal errors whose replicates have something in common, and a bias of 0.3."""
    rng = np.random.default_rng([20240229, starts])
    shared = rng.normal(size=(count, replicates, 1))
    error = 0.3 + shared + 0.7 * rng.normal(size=(count, replicates, starts)) * (starts > 1)
    wald_se = np.sqrt(1.2 * rng.chisquare(12, size=(count, replicates, 1)) / 12)
    return error, np.broadcast_to(wald_se, error.shape)


@pytest.mark.parametrize("starts", [1, 3])
def test_standard_errors_are_the_spread_over_studies(starts):
    """The mean squared MCSE must be the variance of the measure over independent studies."""
    table = studies(*drawn(starts))
    for name in MEASURES:
        claimed = (table[f"{name}_mcse"] ** 2).mean()
        # A variance from m normal values has relative standard error sqrt(2 / (m - 1)); 2 % are for
        # what the delta method and the estimated centre neglect at 60 replicates.
        bound = 0.02 + 4.0 * math.sqrt(2.0 / (len(table) - 1))
        assert abs(claimed / table[name].var() - 1.0) < bound, name


def test_intervals_of_the_standard_errors_cover():
    table = studies(*drawn(2, count=1000, replicates=300))
    variance = 1.0 + 0.7**2
    # |N(0.3, v)|: the mean of a folded normal.
    folded = math.sqrt(2 * variance / math.pi) * math.exp(-(0.3**2) / (2 * variance))
    folded += 0.3 * math.erf(0.3 / math.sqrt(2 * variance))
    known = {
        "bias_mean_0": 0.3,
        "relative_bias_mean_0": -0.3,
        "empirical_se_mean_0": math.sqrt(variance),
        "mse_mean_0": variance + 0.3**2,
        "rmse_mean_0": math.sqrt(variance + 0.3**2),
        "model_se_mean_0": math.sqrt(1.2),
        "hellinger": folded,
    }
    for name, truth in known.items():
        covered = (table[name] - truth).abs() <= 1.959964 * table[f"{name}_mcse"]
        # Four standard errors of 0.95 from 1000 studies, and 1 % for the skewness of squares.
        assert abs(covered.mean() - 0.95) < 0.01 + 4 * math.sqrt(0.95 * 0.05 / 1000), name


@pytest.mark.parametrize("value", [0.1, 1 / 3 - 0.25, -0.7, 1e-9, -1e6, 1e70])
@pytest.mark.parametrize("replicates", [2, 7, 100, 1000])
def test_values_that_do_not_differ_have_no_standard_error(value, replicates):
    """A mean of equal values has a rounding error, which is no spread."""
    layout = layout_of(np.zeros(replicates, int), np.arange(replicates))
    equal = np.full(replicates, value)
    assert mean_and_error(equal, layout)[1].item() == 0.0
    # What does differ is seen however small it is beside the mean.
    other = equal * (1.0 + 1e-11 * np.arange(replicates))
    expected = np.std(other - value, ddof=1) / math.sqrt(replicates)
    assert mean_and_error(other, layout)[1].item() == pytest.approx(expected, rel=1e-3)
    within = np.repeat(equal, 3)
    starts = layout_of(np.zeros(3 * replicates, int), np.repeat(np.arange(replicates), 3))
    found = accuracy(within, np.zeros(1), starts)
    assert {name: each.mcse.item() for name, each in found.items() if name != "relative_bias"} == {
        "bias": 0.0, "empirical_se": 0.0, "mse": 0.0, "rmse": 0.0,
    }  # fmt: skip
    assert found["empirical_se"].value.item() == 0.0 and found["bias"].value.item() == value


EPS = 2.0**-52


@pytest.mark.parametrize("starts", [1, 7])
@pytest.mark.parametrize(("value", "truth"), [(0.3, 0.3), (1.1, 1.0), (-7.3, -7.0), (1e6, 1e6)])
def test_rounding_errors_are_no_spread_and_a_tiny_spread_is_one(value, truth, starts):
    """Estimates of a few units in the last place, beside exact sums of rationals."""
    replicates = 30
    rng = np.random.default_rng(5)
    replicate = np.repeat(np.arange(replicates), starts)
    layout = layout_of(np.zeros(len(replicate), int), replicate)
    noise = rng.integers(-3, 4, len(replicate)).astype(float)
    noise[rng.random(len(noise)) < 0.1] = math.nan  # starts that do not count
    by_rounding = value * (1.0 + EPS * noise)
    found = accuracy(by_rounding - truth, np.array([truth]), layout)
    assert found["empirical_se"].value.item() == 0.0
    assert {name: each.mcse.item() for name, each in found.items()} == dict.fromkeys(found, 0.0)
    assert found["bias"].value.item() == pytest.approx(value - truth, abs=4 * EPS * abs(value))
    assert mean_and_error(by_rounding, layout)[1].item() == 0.0
    # A thousand times that is a spread.
    error = value * (1.0 + 4096.0 * EPS * noise) - truth
    found = accuracy(error, np.array([truth]), layout)
    rows = [
        {"replicate": r, "error": Fraction(e)}
        for r, e in zip(replicate.tolist(), error.tolist(), strict=True)
        if not math.isnan(e)
    ]
    groups = by_replicate(rows, lambda row: row["error"])
    expected = {"bias": mean_and_mcse(groups), "empirical_se": empirical_se(groups)}
    for name, (one, mcse) in expected.items():
        assert found[name].mcse.item() == pytest.approx(float(mcse), rel=1e-2), name
        assert found[name].value.item() == pytest.approx(float(one), rel=1e-2), name
        assert mcse > 0.0


def test_fits_taken_for_replicates_would_understate_the_error():
    error, wald_se = drawn(3)
    table = studies(error, wald_se)
    flat = studies(*(part.reshape(len(part), -1, 1) for part in (error, wald_se)))
    for name in ("bias_mean_0", "mse_mean_0", "empirical_se_mean_0", "coverage_mean_0"):
        right = (table[f"{name}_mcse"] ** 2).mean()
        assert (flat[f"{name}_mcse"] ** 2).mean() < 0.75 * right, name


def test_the_empirical_se_is_that_of_a_single_fit_and_knows_what_goes_together():
    """Starts at m - |m| and m + |m|: normal means, and a spread within that grows with them."""
    rng = np.random.default_rng(11)
    means = rng.normal(size=(1500, 40, 1))
    error = means + np.abs(means) * np.array([-1.0, 1.0])
    table = studies(error, np.ones_like(error))
    squares = table["empirical_se_mean_0"] ** 2
    # Unbiased for 1 + 1: between and within.
    assert abs(squares.mean() - 2.0) < 4.0 * squares.std() / math.sqrt(len(squares))
    ratio = (table["empirical_se_mean_0_mcse"] ** 2).mean() / table["empirical_se_mean_0"].var()
    # Without the correlation it would be one half.
    assert abs(ratio - 1.0) < 0.03 + 4.0 * math.sqrt(2.0 / 1499)
