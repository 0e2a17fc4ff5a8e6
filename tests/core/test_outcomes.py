"""Every outcome reached by an example, the row it returns, and the order of precedence."""

import numpy as np
import pytest

from pipeline.core.fitting import Degeneracy, Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.outcomes import ADVICE, GOES_ON, Outcome, verdict

FREE = make_model(2)
POINTS = [0.0, 1.0, 1.5, 2.0, 3.5, 5.0]


def run(points, start, model=FREE, schedule=Schedule(50), degeneracy=Degeneracy()):  # noqa: B008
    """Fit one sample from one start (weights, means, scales)."""
    points = np.array([points], float)
    start = Parameters(*(np.array([[part]], float) for part in start))
    return fit(points, np.ones(points.size), start, model, "em", schedule, degeneracy)


def all_finite(fits):
    return np.isfinite(fits.log_likelihood[0]) and all(
        np.all(np.isfinite(part)) for part in fits.parameters
    )


def collapse(**options):
    return run(POINTS, ([0.5, 0.5], [0, 3], [0.2, 1]), **options)


def a_mean_overflows():
    model = make_model(1, scales=1e308)
    return run([1.7e308, 1.7e308, -1.7e308], ([1], [0], [1e308]), model)


def a_start_that_no_map_can_keep():
    """Unequal weights in a model that fixes them equal: not a member, so row 1 is worse."""
    return run([0] * 99 + [9], ([0.99, 0.01], [0, 9], [1, 1]), make_model(2, "equal", scales=1.0))


EXAMPLES = {
    Outcome.NONFINITE: (a_mean_overflows, 0),
    Outcome.DEGENERATE_SCALE: (collapse, None),
    Outcome.EMPTY_COMPONENT: (lambda: run(POINTS, ([0.5, 0.5], [2, 1000], [1, 1])), 0),
    Outcome.LOG_LIKELIHOOD_DECREASED: (a_start_that_no_map_can_keep, 1),
    Outcome.CONVERGED: (
        lambda: run(POINTS, ([1], [0], [1]), make_model(1), Schedule(50, "parameter", 1e-9)),
        2,
    ),
    Outcome.MAX_ITER: (lambda: run(POINTS, ([1], [0], [1]), make_model(1)), 50),
}


# An error is what the core did not foresee; only its caller can report one.
@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome != Outcome.ERROR])
def test_every_outcome_is_reached_and_returns_a_finite_row(outcome):
    example, n_iter = EXAMPLES[outcome]
    fits = example()
    assert Outcome(fits.outcome[0]) is outcome
    assert n_iter is None or fits.n_iter[0] == n_iter
    assert fits.n_iter[0] == fits.trace.iteration[-1]
    if outcome == Outcome.NONFINITE:
        # Row 0 itself has no finite log-likelihood, and there is no row before it to return.
        assert fits.n_iter[0] == 0 and np.isnan(fits.log_likelihood[0])
        assert all(np.all(np.isfinite(part)) for part in fits.parameters)
    else:
        assert all_finite(fits)


def test_every_outcome_has_its_advice():
    assert list(ADVICE) == list(Outcome)
    assert all(advice.endswith(".") for advice in ADVICE.values())


def test_a_collapse_returns_the_row_before_the_infinite_likelihood():
    fits = collapse()
    assert fits.n_iter[0] == fits.map_evaluations[0] > 0
    assert np.all(fits.parameters.scales > 0)
    longer = collapse(schedule=Schedule(fits.n_iter[0]))
    np.testing.assert_array_equal(fits.parameters.scales, longer.parameters.scales)
    assert longer.outcome[0] == Outcome.MAX_ITER


def test_a_thin_trace_ends_in_the_same_row_before_the_infinite_likelihood():
    whole = collapse()
    thin = collapse(schedule=Schedule(50, record=np.array([0])))
    assert thin.outcome[0] == Outcome.DEGENERATE_SCALE
    assert thin.trace.iteration.tolist() == sorted({0, whole.n_iter[0]})
    np.testing.assert_array_equal(thin.parameters.scales, whole.parameters.scales)
    assert thin.log_likelihood[0] == whole.log_likelihood[0]
    assert thin.map_evaluations[0] == whole.map_evaluations[0]
    assert thin.trace.map_residual[-1] == whole.trace.map_residual[-1] > 0
    assert thin.trace.parameter_change[-1] == whole.trace.parameter_change[-1] > 0


def test_a_scale_below_the_floor_with_a_finite_likelihood_is_returned_itself():
    floor = 0.1
    points = [0, 0.1, 3, 4, 5, 6]
    fits = run(points, ([0.5, 0.5], [0, 4.5], [1, 1]), degeneracy=Degeneracy(scale=floor))
    assert fits.outcome[0] == Outcome.DEGENERATE_SCALE
    scales = fits.trace.parameters.scales / np.std(points)
    assert np.min(scales[-1]) <= floor < np.min(scales[:-1])
    assert all_finite(fits)


def test_fixed_scales_cannot_degenerate():
    model = make_model(2, scales=1e-9)
    fits = run([0, 0, 1, 1], ([0.5, 0.5], [0, 1], [1e-9, 1e-9]), model)
    assert fits.outcome[0] == Outcome.MAX_ITER


def test_the_floor_of_a_count_is_in_points():
    start = ([0.5, 0.5], [2, 8], [1, 1])
    assert run(POINTS, start, degeneracy=Degeneracy(count=1e-8)).n_iter[0] > 0
    fits = run(POINTS, start, degeneracy=Degeneracy(count=1.0))
    assert (fits.outcome[0], fits.n_iter[0]) == (Outcome.EMPTY_COMPONENT, 0)


@pytest.mark.parametrize(
    ("start", "outcome"),
    [
        (([0.5, 0.5], [np.inf, 0], [1, 1]), Outcome.NONFINITE),
        (([0.5, 0.5], [np.nan, 0], [0, 1]), Outcome.NONFINITE),
        (([0.5, 0.5], [0, 1], [0, 1]), Outcome.DEGENERATE_SCALE),
        (([0.5, 0.5], [1e300, -1e300], [1, 1]), Outcome.NONFINITE),
        (([0.0, 1.0], [0, 1], [1, 1]), Outcome.EMPTY_COMPONENT),
    ],
)
def test_a_start_beyond_repair_is_row_0(start, outcome):
    fits = run(POINTS, start)
    assert Outcome(fits.outcome[0]) is outcome
    assert fits.trace.iteration.tolist() == [0]
    assert np.isfinite(fits.log_likelihood[0]) == (outcome == Outcome.EMPTY_COMPONENT)
    for part, expected in zip(fits.parameters, start, strict=True):
        np.testing.assert_array_equal(part[0], expected)


def judge(**changes):
    state = {
        "iteration": 5, "max_iter": 5,
        "theta": np.array([[0.5, 0.5], [0.0, 1.0], [1.0, 1.0]]),
        "counts": np.array([3.0, 3.0]),
        "log_likelihood": -10.0, "log_likelihood_1": -11.0, "fired": True, "floored": False,
        "model": FREE, "monotone": True, "smallest_scale": 1e-6, "smallest_count": 1e-8,
    }  # fmt: skip
    state |= changes
    return verdict(*state.values())


def test_precedence():
    """Everything is wrong at once; repaired one by one, the outcomes come in the enum's order."""
    broken = np.array([[0.5, 0.5], [np.nan, 1.0], [0.0, 1.0]])
    collapsed = np.array([[0.5, 0.5], [0.0, 1.0], [0.0, 1.0]])
    state = {"theta": broken, "counts": np.zeros(2), "log_likelihood_1": -9.0}
    repairs = [
        {},
        {"theta": collapsed},
        {"theta": np.array([[0.5, 0.5], [0.0, 1.0], [1.0, 1.0]])},
        {"counts": np.ones(2)},
        {"log_likelihood_1": -11.0},
        {"fired": False},
    ]
    reached = []
    for repair in repairs:
        state |= repair
        reached.append(judge(**state))
    assert reached == [outcome for outcome in Outcome if outcome != Outcome.ERROR]
    assert judge(fired=False, max_iter=6) == GOES_ON


def test_a_scale_at_its_floor_counts_at_the_end():
    assert judge(floored=True) == Outcome.DEGENERATE_SCALE
    assert judge(floored=True, fired=False) == Outcome.DEGENERATE_SCALE
    assert judge(floored=True, max_iter=6) == Outcome.DEGENERATE_SCALE
    assert judge(floored=True, fired=False, max_iter=6) == GOES_ON


@pytest.mark.parametrize(
    ("fall", "monotone", "iteration", "decreased"),
    [
        (1e-6, True, 5, True),
        (1e-6, False, 5, False),
        (1e-6, True, 0, False),
        (0.9e-7, True, 5, False),  # within 1e-10 of |L| = 1000
        (1.1e-7, True, 5, True),
    ],
)
def test_how_far_the_log_likelihood_may_fall(fall, monotone, iteration, decreased):
    outcome = judge(
        log_likelihood=-1000.0, log_likelihood_1=-1000.0 + fall, monotone=monotone,
        iteration=iteration,
    )  # fmt: skip
    assert (outcome == Outcome.LOG_LIKELIHOOD_DECREASED) == decreased
