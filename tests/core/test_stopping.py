"""Every stopping rule against its formula, written over a whole trace."""

import numba
import numpy as np
import pytest

from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.outcomes import Outcome
from pipeline.core.stopping import AITKEN, STOPPING_RULES, criterion
from pipeline.core.vector import bits, splat

N = 60
generator = np.random.default_rng(8)
X = np.concatenate([generator.normal(-1.5, 1, N // 2), generator.normal(1.5, 1.2, N // 2)])[None]
START = Parameters(*(np.array([[part]]) for part in ([0.3, 0.7], [-0.5, 0.4], [1.0, 2.0])))


def changes(trace):
    """Return the largest change of a parameter in its unit, at rows 1, 2, ..."""
    weights, means, scales = (np.abs(np.diff(part, axis=0)) for part in trace.parameters)
    unit = np.std(X)
    return np.max(np.hstack([weights, means / unit, scales / unit]), axis=1)


def aitken_distances(trace):
    values = trace.log_likelihood
    increases = np.diff(values)
    ratio = increases[1:] / increases[:-1]
    limit = values[1:-1] + increases[1:] / (1 - ratio)
    return np.append(np.inf, np.abs(limit - values[2:]))


def increases(trace):
    return np.abs(np.diff(trace.log_likelihood))


# What each rule compares with the tolerance, at t = 1, 2, ...
QUANTITIES = {
    "never": lambda trace: np.full(trace.iteration.size - 1, np.inf),
    "log_likelihood_absolute": increases,
    "mean_log_likelihood_absolute": lambda trace: increases(trace) / N,
    "log_likelihood_relative": lambda trace: (
        increases(trace) / np.maximum(1, np.abs(trace.log_likelihood[1:]))
    ),
    "parameter": changes,
    "map_residual": changes,
    "aitken": aitken_distances,
}
TOLERANCES = (1e-2, 1e-4, 1e-6)


@pytest.fixture(scope="module")
def trace():
    return fit(X, np.ones(N), START, make_model(2), "em", Schedule(700)).trace


def test_the_trace_keeps_what_the_rules_compare(trace):
    assert np.isnan(trace.map_residual[0]) and np.isnan(trace.parameter_change[0])
    np.testing.assert_allclose(trace.parameter_change[1:], changes(trace), rtol=1e-6, atol=1e-15)
    # For plain EM the next iterate is the map's value.
    np.testing.assert_array_equal(trace.map_residual, trace.parameter_change)


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("rule", STOPPING_RULES)
def test_a_rule_stops_at_the_first_row_that_meets_it(rule, tolerance, trace):
    met = np.flatnonzero(QUANTITIES[rule](trace) <= tolerance)
    fits = fit(X, np.ones(N), START, make_model(2), "em", Schedule(700, rule, tolerance))
    if rule == "never":
        assert met.size == 0
        assert fits.n_iter[0] == 700
        assert fits.outcome[0] == Outcome.MAX_ITER
        return
    assert fits.n_iter[0] == met[0] + 1
    assert fits.outcome[0] == Outcome.CONVERGED
    for part, whole in zip(fits.parameters, trace.parameters, strict=True):
        np.testing.assert_array_equal(part[0], whole[met[0] + 1])
    expected = QUANTITIES[rule](trace)[met[0]]
    assert fits.stop_value[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("rule", STOPPING_RULES)
def test_patience_is_how_many_times_in_a_row(rule, patience):
    """On a trajectory whose steps first shrink, then grow, then shrink for good."""
    start = Parameters(*(np.array([[part]]) for part in ([0.5, 0.5], [-0.01, 0.01], [2.0, 2.0])))
    trace = fit(X, np.ones(N), start, make_model(2), "em", Schedule(700)).trace
    tolerance = 2e-3
    met = QUANTITIES[rule](trace) <= tolerance
    streak = 0
    expected = 700
    for t, is_met in enumerate(met, 1):
        streak = streak + 1 if is_met else 0
        if streak == patience:
            expected = t
            break
    schedule = Schedule(700, rule, tolerance, patience=patience)
    fits = fit(X, np.ones(N), start, make_model(2), "em", schedule)
    assert fits.n_iter[0] == expected


def test_a_rule_that_never_fires_still_tells_its_value():
    fits = fit(X, np.ones(N), START, make_model(2), "em", Schedule(50, "map_residual", 1e-12))
    assert fits.outcome[0] == Outcome.MAX_ITER
    assert fits.stop_value[0] == pytest.approx(changes(fits.trace)[-1], rel=1e-9)
    never = fit(X, np.ones(N), START, make_model(2), "em", Schedule(50))
    assert np.isnan(never.stop_value[0])


def test_the_rules_stop_at_different_rows():
    """A guard of the test above: it could not tell rules apart that stop together."""
    rows = [
        fit(X, np.ones(N), START, make_model(2), "em", Schedule(700, rule, 1e-4)).n_iter[0]
        for rule in STOPPING_RULES
    ]
    assert len(set(rows)) == len(STOPPING_RULES) - 1  # parameter is map_residual for plain EM


def test_mean_log_likelihood_divides_by_the_mass():
    schedule = Schedule(700, "log_likelihood_absolute", 1e-4)
    once = fit(X, np.ones(N), START, make_model(2), "em", schedule)
    mass = fit(
        X, np.full(N, 4.0), START, make_model(2), "em",
        Schedule(700, "mean_log_likelihood_absolute", 1e-4 / N),
    )  # fmt: skip
    assert once.n_iter[0] == mass.n_iter[0]


@numba.njit
def fires_in_lanes(rule, tolerance, iteration, now, before, two_before, mass, change):
    value = criterion(
        rule, splat(iteration), splat(now), splat(before), splat(two_before), mass, splat(change),
        splat(change),
    )  # fmt: skip
    return bits(value <= splat(tolerance))


@pytest.mark.parametrize(
    ("iteration", "values", "expected"),
    [
        (1, (-1.0, -1.0, np.nan), False),  # two increases are needed
        (2, (-1.0, -1.0, -5.0), True),  # no increase: L_inf = L_t
        (2, (-1.0, -1.0, -1.0), True),
        (2, (-1.0, -1.5, -2.0), False),  # a = 1: L_inf is infinite
        (2, (-1.0, -1.5, -1.5), False),  # a is infinite: L_inf = L_(t-1)
        (5, (-1.0, -1.0625, -2.0625), True),  # a = 1/16: L_inf - L_t = 1/240
        (5, (-1.0, -1.25, -2.25), False),  # a = 1/4: L_inf - L_t = 1/12
    ],
)
def test_aitken_at_its_edges(iteration, values, expected):
    lanes = fires_in_lanes(AITKEN, 0.01, float(iteration), *values, 1.0, np.inf)
    assert lanes == (0b11111111 if expected else 0)
