"""Slopes against numpy.polyfit, mpmath and simulation."""

import math

import mpmath
import numpy as np
import pandas as pd
import pytest

from pipeline.config import compose
from pipeline.planning import make_plan
from pipeline.statistics.cells import iterations
from pipeline.statistics.slopes import fit_line, groups, log_errors, separation, slopes

ALONE = np.arange(100)


def plan_with(*overrides, slope):
    text = ", ".join(f"{key}: {value}" for key, value in slope.items())
    return make_plan(compose([*overrides, f"slopes=[{{name: law, {text}}}]"]))[0]


SIZES = "sample_sizes=[100,200,400,800]"
LAW = {"statistic": "rmse_mean_0", "factor": "sample_size"}


def table_of(plan, values, errors=None):
    table = pd.DataFrame({"sample_size": [cell.sample_size for cell in plan.cells]})
    table["rmse_mean_0"] = values
    if errors is not None:
        table["rmse_mean_0_mcse"] = errors
    return table


def test_weighted_line_is_that_of_the_normal_equations():
    x, y = np.array([0.3, 1.1, 2.0, 2.4]), np.array([1.0, 0.2, -0.9, -1.0])
    error = np.array([0.5, 0.1, 0.3, 0.2])
    design, weight = mpmath.matrix([[1, a] for a in x]), mpmath.diag([1 / e**2 for e in error])
    inverse = (design.T * weight * design) ** -1
    intercept, slope = inverse * design.T * weight * mpmath.matrix(y.tolist())
    got = fit_line(x, y, error, ALONE[:4])
    chi_square = sum(((y - float(intercept) - float(slope) * x) / error) ** 2)
    assert got["slope"] == pytest.approx(float(slope), rel=1e-12)
    assert got["intercept"] == pytest.approx(float(intercept), rel=1e-12)
    assert got["chi_square"] == pytest.approx(chi_square, rel=1e-12)
    birge = max(1.0, math.sqrt(chi_square / 2))
    assert got["slope_se"] == pytest.approx(birge * math.sqrt(inverse[1, 1]), rel=1e-12)
    polynomial = np.polyfit(x, y, 1, w=1 / error)
    assert (got["slope"], got["intercept"]) == pytest.approx(tuple(polynomial), rel=1e-10)


def test_line_without_errors_has_the_scatter_as_its_error():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=8), rng.normal(size=8)
    coefficients, covariance = np.polyfit(x, y, 1, cov=True)
    for error in (np.full(8, np.nan), np.append(np.ones(7), 0.0)):
        got = fit_line(x, y, error, ALONE[:8])
        assert (got["slope"], got["intercept"]) == pytest.approx(tuple(coefficients), rel=1e-10)
        assert got["slope_se"] == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-10)
        assert math.isnan(got["chi_square"])
        assert got["degrees_of_freedom"] == 6


@pytest.mark.parametrize(
    ("intercept", "exponent"), [(math.log(30.0), 0.0), (math.log(3.0), -0.5), (-40.0, 2.0)]
)
def test_rounding_errors_are_no_scatter_and_a_tiny_scatter_is_one(intercept, exponent):
    """Points on a power law but for rounding; and a bit beside it, against 50 digits."""
    for count in (3, 5, 40):
        factor = np.geomspace(10.0, 1e6, count)
        value = math.exp(intercept) * factor**exponent
        x, y, none = np.log(factor), np.log(value), np.full(count, np.nan)
        got = fit_line(x, y, none, np.arange(count))
        assert got["slope_se"] == 0.0
        assert got["slope"] == pytest.approx(exponent, abs=1e-13)
        y = y + 1e-11 * np.cos(np.arange(count) ** 2)
        with mpmath.workdps(50):
            points = [(mpmath.mpf(a), mpmath.mpf(b)) for a, b in zip(x, y, strict=True)]
            middle = [sum(each) / count for each in zip(*points, strict=True)]
            squares = sum((a - middle[0]) ** 2 for a, _ in points)
            slope = sum((a - middle[0]) * (b - middle[1]) for a, b in points) / squares
            left = sum((b - middle[1] - slope * (a - middle[0])) ** 2 for a, b in points)
            expected = float(mpmath.sqrt(left / (count - 2) / squares))
        # Logarithms up to 40 are rounded to 1e-14, a thousandth of the scatter.
        assert fit_line(x, y, none, np.arange(count))["slope_se"] == pytest.approx(
            expected, rel=1e-2
        )


def test_few_points_tell_little():
    one = fit_line(np.ones(1), np.ones(1), np.ones(1), ALONE[:1])
    same = fit_line(np.ones(3), np.arange(3.0), np.ones(3), ALONE[:3])
    for line in (one, same):
        assert all(math.isnan(line[name]) for name in ("slope", "slope_se", "intercept"))
    x, y = np.array([1.0, 3.0]), np.array([2.0, 1.0])
    two = fit_line(x, y, np.array([0.3, 0.4]), ALONE[:2])
    assert (two["slope"], two["slope_se"]) == pytest.approx((-0.5, 0.25))
    assert math.isnan(two["chi_square"])
    assert math.isnan(fit_line(x, y, np.full(2, np.nan), ALONE[:2])["slope_se"])


@pytest.mark.parametrize("shared", [False, True])
def test_the_standard_error_covers_what_repeated_studies_show(shared):
    """Errors of points on the same sample may depend on each other in any way."""
    rng = np.random.default_rng(3)
    x, error, studies = np.log([1.0, 2.0, 4.0, 8.0]), np.array([0.1, 0.2, 0.1, 0.3]), 4000
    noise = rng.normal(size=(studies, 4)) * error
    if shared:  # the worst case: the ends against each other
        noise = rng.normal(size=(studies, 1)) * np.array([-1.0, -1.0, 1.0, 1.0]) * error
    sample = np.zeros(4, int) if shared else ALONE[:4]
    lines = [fit_line(x, 1.0 - 0.5 * x + e, error, sample) for e in noise]
    slope = np.array([line["slope"] for line in lines])
    claimed = np.array([line["slope_se"] for line in lines])
    spread = slope.std(ddof=1)
    assert abs(slope.mean() + 0.5) < 4 * spread / math.sqrt(studies)
    if not shared:
        # Never scaled down: the smallest is the one that the known errors give.
        assert claimed.min() == pytest.approx(spread, rel=4 / math.sqrt(2 * studies))
    assert (np.abs(slope + 0.5) > 1.96 * claimed).mean() < 0.05 + 3 * 0.0035


def test_a_curve_has_a_larger_error_than_a_power_law():
    x, error = np.log([1.0, 2.0, 4.0, 8.0, 16.0]), np.full(5, 0.01)
    line, curve = (fit_line(x, -0.5 * x + bend * x**2, error, ALONE[:5]) for bend in (0.0, 0.1))
    assert line["chi_square"] == pytest.approx(0.0, abs=1e-20)
    assert curve["chi_square"] > 100
    ratio = math.sqrt(curve["chi_square"] / 3)
    assert curve["slope_se"] == pytest.approx(ratio * line["slope_se"])


def test_a_power_law_is_found_with_its_range():
    plan = plan_with(SIZES, slope=LAW)
    n = np.array([100.0, 200.0, 400.0, 800.0])
    table = table_of(plan, 3.0 * n**-0.5, 0.3 * n**-0.5)
    (row,) = slopes(table, plan).to_dict("records")
    assert row["slope"] == pytest.approx(-0.5, rel=1e-12)
    assert row["intercept"] == pytest.approx(math.log(3.0), rel=1e-12)
    assert (row["factor_low"], row["factor_high"]) == (100.0, 800.0)
    # The delta method: every logarithm has the standard error 0.1.
    centred = np.log(n) - np.log(n).mean()
    assert row["slope_se"] == pytest.approx(0.1 / math.sqrt((centred**2).sum()))
    assert (row["n_points"], row["n_left_out"], row["degrees_of_freedom"]) == (4, 0, 2)
    assert row["error_from"] == "mcse"
    assert row["mixture"] == "notebook" and math.isnan(row["sample_size"])


MEDIAN = {"statistic": "n_iter_median", "factor": "sample_size"}


def medians(values, low, high):
    plan = plan_with(SIZES, slope=MEDIAN)
    table = pd.DataFrame({"sample_size": [cell.sample_size for cell in plan.cells]})
    table = table.assign(n_iter_median=values, n_iter_median_low=low, n_iter_median_high=high)
    return slopes(table, plan).iloc[0]


def test_a_quantile_is_weighted_by_its_interval():
    n = np.array([100.0, 200.0, 400.0, 800.0])
    median = np.array([10.0, 21.0, 39.0, 85.0])
    widths = np.array([1.1, 1.3, 1.2, 1.5])  # an interval from median / w to median w
    row = medians(median, median / widths, median * widths)
    error = np.log(widths) / 1.959963984540054
    expected, covariance = np.polyfit(np.log(n), np.log(median), 1, w=1 / error, cov="unscaled")
    assert (row["slope"], row["intercept"]) == pytest.approx(tuple(expected), rel=1e-10)
    assert row["chi_square"] < 2  # no Birge ratio
    assert row["slope_se"] == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-10)
    assert row["error_from"] == "interval"


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 9.0), (7.0, math.inf), (7.0, math.nan), (8.0, 8.0)]
)
def test_an_interval_without_an_end_or_a_width_gives_no_weight(low, high):
    median = np.array([8.0, 21.0, 39.0, 85.0])
    row = medians(median, [low, 20.0, 38.0, 80.0], [high, 22.0, 40.0, 90.0])
    n = np.log([100.0, 200.0, 400.0, 800.0])
    expected, covariance = np.polyfit(n, np.log(median), 1, cov=True)
    assert row["slope"] == pytest.approx(expected[0], rel=1e-10)
    assert row["slope_se"] == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-10)
    assert row["error_from"] == "scatter" and math.isnan(row["chi_square"])


def test_the_slope_of_a_median_covers_what_repeated_studies_show():
    """Medians of counts that grow like the root of the size, a tenth of them cut off."""
    rng = np.random.default_rng(8)
    studies, replicates, sizes = 400, 60, np.array([100.0, 200.0, 400.0, 800.0])
    centre = 1e5 * np.sqrt(np.tile(sizes, studies))[:, None]
    counts = np.ceil(centre * rng.lognormal(sigma=0.5, size=(4 * studies, replicates)))
    budget = np.ceil(centre * math.exp(0.5 * 1.2816))
    keys = [range(4 * studies), range(replicates)]
    fits = pd.DataFrame(
        {
            "outcome": np.where(counts <= budget, "converged", "max_iter").ravel(),
            "n_iter": np.minimum(counts, budget).astype(np.int64).ravel(),
        },
        index=pd.MultiIndex.from_product(keys, names=["position", "replicate"]),
    )
    table = iterations(fits)
    error, origin = log_errors(table, "n_iter_median")
    assert origin == "interval" and (error > 0).all()
    y = np.log(table["n_iter_median"].to_numpy()).reshape(studies, 4)
    lines = [
        fit_line(np.log(sizes), a, b, ALONE[:4])
        for a, b in zip(y, error.reshape(studies, 4), strict=True)
    ]
    slope, claimed = (np.array([line[name] for line in lines]) for name in ("slope", "slope_se"))
    # The Birge ratio makes an interval wider, never narrower.
    covered = (np.abs(slope - 0.5) <= 1.96 * claimed).mean()
    assert covered > 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies)
    spread = slope.std(ddof=1)
    assert abs(slope.mean() - 0.5) < 4 * spread / math.sqrt(studies)
    assert 0.9 < np.median(claimed) / spread < 1.5


def test_what_has_no_logarithm_is_left_out_and_counted():
    plan = plan_with("sample_sizes=[10,20,40,80,160,inf]", slope=LAW)
    values = [1.0, 0.0, math.nan, -2.0, 0.25, 7.0]
    for errors in (None, [0.1, 0.0, math.nan, 0.1, 0.1, math.inf]):
        (row,) = slopes(table_of(plan, values, errors), plan).to_dict("records")
        assert (row["n_points"], row["n_left_out"]) == (2, 3)  # the population is no point
    assert row["slope"] == pytest.approx(-0.5)
    turned = slopes(table_of(plan, [-1.0, -0.5, -0.25, -0.125, -0.0625, 3.0]), plan).iloc[0]
    mixed = slopes(table_of(plan, [-1.0, -0.5, -0.25, -0.125, 0.0625, 3.0]), plan).iloc[0]
    assert (mixed["n_points"], mixed["n_left_out"]) == (1, 4)
    assert (turned["n_points"], turned["n_left_out"]) == (5, 0)
    assert turned["slope"] == pytest.approx(-1.0)


def test_one_line_for_every_combination_of_the_labels():
    wide = [SIZES, "init=[kmeans_pp,truth]", "model=[free,shared_scale]"]
    plan = plan_with(*wide, slope=LAW)
    table = table_of(plan, 1.0)
    assert [len(g) for g in groups(table, plan, plan.config["slopes"][0])] == [4] * 4
    plan = plan_with(*wide, slope=LAW | {"by": "[model]", "where": "{init: truth}"})
    (first, second) = slopes(table, plan).to_dict("records")
    assert (first["model"], second["model"]) == ("free", "shared_scale")
    assert first["init"] == second["init"] == "truth"
    plan = plan_with(*wide, slope=LAW | {"by": "[init]"})
    (row, _) = slopes(table, plan).to_dict("records")
    assert row["n_points"] == 8 and pd.isna(row["model"])


def test_points_on_one_sample_may_conspire():
    plan = plan_with(
        "sample_sizes=[100]",
        "model=[]",
        "+model={two: {n_components: 2}, four: {n_components: 4}}",
        slope=LAW | {"factor": "n_components"},
    )
    (row,) = slopes(table_of(plan, [1.0, 2.0], [0.1, 0.2]), plan).to_dict("records")
    assert row["slope"] == pytest.approx(1.0)
    # Independent points would have 0.1 sqrt(2) / log(2).
    assert row["slope_se"] == pytest.approx(0.2 / math.log(2))
    assert row["sample_size"] == 100


def test_separation_is_the_smallest_distance_in_scales():
    plan = make_plan(
        compose(
            [
                "mixture=[overlap_low,marron_wand_01_gaussian]",
                "+mixture.mine={weights: [0.2,0.3,0.5], means: [0,3,10], scales: [1,7,1]}",
                "init=[kmeans_pp]",
            ]
        )
    )[0]
    got = dict(zip([cell.mixture for cell in plan.cells], separation(plan), strict=True))
    assert got["overlap_low"] == 4.0
    assert got["mine"] == pytest.approx(3.0 / 5.0)
    assert math.isnan(got["marron_wand_01_gaussian"])
