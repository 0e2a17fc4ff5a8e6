"""The loop: what a trace holds, and that no fit depends on another."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.special
import scipy.stats

from pipeline.core import random
from pipeline.core.algorithms import ALGORITHMS
from pipeline.core.fitting import Schedule, fit, geometric_iterations
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.outcomes import Outcome
from pipeline.core.sampling import draw
from pipeline.core.starts import draw_starts

KEY = random.key_from_hex("0f1e2d3c4b5a69788796a5b4c3d2e1f0")
R, S, N = 12, 3, 40
X = draw(KEY, np.arange(R), N, [0.5, 0.5], [0.0, 2.0], [2.0, 1.0], "proportional")
MASSES = np.ones(N)
MODEL = make_model(2)
# The notebook's start gives fits of every length and several outcomes.
STARTS = draw_starts("notebook", X, MODEL, None, KEY, np.arange(R), range(S))
CONVERGE = Schedule(5000, "map_residual", 1e-8)

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def rows_of(fits, index):
    return np.flatnonzero(fits.trace.fit == index)


def picked(parameters, replicates, starts):
    return Parameters(*(part[np.ix_(replicates, starts)] for part in parameters))


def assert_same_fits(some, indices, whole):
    """Bit for bit: the fits and their traces."""
    for name in ("outcome", "n_iter", "map_evaluations", "log_likelihood", "log_likelihood_start"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[indices])
    for part, other in zip(some.parameters, whole.parameters, strict=True):
        np.testing.assert_array_equal(part, other[indices])
    rows = np.concatenate([rows_of(whole, index) for index in indices])
    np.testing.assert_array_equal(some.trace.iteration, whole.trace.iteration[rows])
    np.testing.assert_array_equal(some.trace.log_likelihood, whole.trace.log_likelihood[rows])
    for part, other in zip(some.trace.parameters, whole.trace.parameters, strict=True):
        np.testing.assert_array_equal(part, other[rows])


@every_algorithm
def test_every_row_holds_the_log_likelihood_of_its_own_parameters(algorithm):
    fits = fit(X, MASSES, STARTS, MODEL, algorithm, Schedule(30))
    trace = fits.trace
    x = X[trace.fit // S][:, :, None]
    weights, means, scales = (part[:, None, :] for part in trace.parameters)
    with np.errstate(divide="ignore"):  # a cluster that lost its points has weight 0
        terms = np.log(weights) + scipy.stats.norm.logpdf(x, means, scales)
    expected = scipy.special.logsumexp(terms, axis=2).sum(axis=1)
    np.testing.assert_allclose(trace.log_likelihood, expected, rtol=1e-12)


@every_algorithm
def test_first_and_last_rows(algorithm):
    fits = fit(X, MASSES, STARTS, MODEL, algorithm, CONVERGE)
    assert len(set(fits.outcome)) > 1
    for index in range(R * S):
        rows = rows_of(fits, index)
        first, last = rows[0], rows[-1]
        assert fits.trace.iteration[first] == fits.trace.map_evaluations[first] == 0
        assert fits.log_likelihood_start[index] == fits.trace.log_likelihood[first]
        assert fits.n_iter[index] == fits.trace.iteration[last]
        assert fits.map_evaluations[index] == fits.trace.map_evaluations[last]
        assert fits.log_likelihood[index] == fits.trace.log_likelihood[last]
        for start, part, traced in zip(STARTS, fits.parameters, fits.trace.parameters, strict=True):
            np.testing.assert_array_equal(traced[first], start[index // S, index % S])
            np.testing.assert_array_equal(part[index], traced[last])


@every_algorithm
def test_converged_fits_are_fixed_points_of_em(algorithm):
    fits = fit(X, MASSES, STARTS, MODEL, algorithm, CONVERGE)
    converged = fits.outcome == Outcome.CONVERGED
    assert np.mean(converged) > 0.5
    if ALGORITHMS[algorithm].monotone:
        assert Outcome.LOG_LIKELIHOOD_DECREASED not in fits.outcome
    if not ALGORITHMS[algorithm].smooth:
        return
    again = fit(
        np.repeat(X, S, axis=0),
        MASSES,
        Parameters(*(part[:, None] for part in fits.parameters)),
        MODEL,
        "em",
        Schedule(1),
    )
    change = np.abs(again.parameters.means - fits.parameters.means).max(axis=1)
    assert np.all(change[converged] <= 1e-8 * np.std(X, axis=1).repeat(S)[converged])


def test_plain_em_evaluates_the_map_once_an_iteration():
    trace = fit(X, MASSES, STARTS, MODEL, "em", Schedule(30)).trace
    np.testing.assert_array_equal(trace.map_evaluations, trace.iteration)


@pytest.mark.parametrize("record", [[0, 3, 6, 9], [5], [], geometric_iterations(5000), [0, 10**6]])
def test_recorded_rows_are_those_of_the_full_trace(record):
    whole = fit(X, MASSES, STARTS, MODEL, "em", CONVERGE)
    thin = fit(X, MASSES, STARTS, MODEL, "em", CONVERGE._replace(record=np.array(record, int)))
    np.testing.assert_array_equal(thin.outcome, whole.outcome)
    at = 0
    for index in range(R * S):
        last = whole.n_iter[index]
        expected = sorted({0, last} | {t for t in record if t <= last})
        rows = rows_of(thin, index)
        assert thin.trace.iteration[rows].tolist() == expected
        for part, full in zip(thin.trace.parameters, whole.trace.parameters, strict=True):
            np.testing.assert_array_equal(part[rows], full[at + np.array(expected)])
        at += last + 1


def test_replicates_that_are_not_traced_keep_two_rows():
    traced = np.arange(R) < 2
    whole = fit(X, MASSES, STARTS, MODEL, "em", CONVERGE)
    some = fit(X, MASSES, STARTS, MODEL, "em", CONVERGE, traced=traced)
    for name in ("outcome", "n_iter", "log_likelihood"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name))
    for index in range(R * S):
        iterations = some.trace.iteration[rows_of(some, index)].tolist()
        n_iter = whole.n_iter[index]
        expected = range(n_iter + 1) if traced[index // S] else sorted({0, n_iter})
        assert iterations == list(expected)


def test_no_iterations_leave_the_start():
    starts = draw_starts("random_points", X, MODEL, None, KEY, np.arange(R), range(S))
    fits = fit(X, MASSES, starts, MODEL, "em", Schedule(0))
    assert set(fits.outcome) == {Outcome.MAX_ITER}
    assert fits.trace.iteration.tolist() == [0] * (R * S)
    np.testing.assert_array_equal(fits.parameters.means, starts.means.reshape(-1, 2))


def test_a_limit_of_iterations_allocates_nothing():
    fits = fit(X, MASSES, STARTS, MODEL, "em", Schedule(10**15, "map_residual", 1e-6))
    assert Outcome.MAX_ITER not in fits.outcome


def test_a_fit_is_the_same_alone_in_any_company_and_order():
    whole = fit(X, MASSES, STARTS, MODEL, "em", CONVERGE)
    for replicates, starts in (([4], [1]), ([0, 5, 11], [0, 1, 2]), ([9, 2], [2, 0])):
        indices = [r * S + s for r in replicates for s in starts]
        some = fit(X[replicates], MASSES, picked(STARTS, replicates, starts), MODEL, "em", CONVERGE)
        assert_same_fits(some, indices, whole)


@pytest.mark.parametrize("workers", [2, 5])
def test_a_fit_is_the_same_on_any_number_of_threads(workers):
    whole = fit(X, MASSES, STARTS, MODEL, "em", CONVERGE)
    blocks = np.array_split(np.arange(R), 7)

    def run(block):
        return fit(X[block], MASSES, picked(STARTS, block, range(S)), MODEL, "em", CONVERGE)

    with ThreadPoolExecutor(workers) as pool:
        for block, some in zip(blocks, pool.map(run, blocks), strict=True):
            assert_same_fits(some, (block[:, None] * S + np.arange(S)).ravel(), whole)


def test_layout_and_write_protection_of_the_points_do_not_matter():
    whole = fit(X, MASSES, STARTS, MODEL, "em", CONVERGE)
    protected = np.asfortranarray(X)
    protected.flags.writeable = False
    assert_same_fits(fit(protected, MASSES, STARTS, MODEL, "em", CONVERGE), np.arange(R * S), whole)


@pytest.mark.parametrize("points", [[3.0], [1.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0, 2.0]])
@pytest.mark.parametrize("scales", ["free", "shared", 1.0])
def test_poor_samples_end_in_an_outcome_and_a_finite_estimate(points, scales):
    points = np.array([points])
    model = make_model(2, scales=scales)
    starts = draw_starts("notebook", points, model, None, KEY, [0], range(20))
    fits = fit(points, np.ones(points.size), starts, model, "em", Schedule(300, "parameter", 1e-9))
    assert all(np.all(np.isfinite(part)) for part in fits.parameters)
    assert np.all(np.isfinite(fits.log_likelihood))
    if points.std() == 0 and scales != 1.0:
        assert Outcome.CONVERGED not in fits.outcome
    if scales == 1.0:
        assert Outcome.DEGENERATE_SCALE not in fits.outcome


def test_a_component_a_thousand_scales_away_gives_no_nan():
    points = np.append(X[0], X[0] + 2000)[None]
    start = Parameters(*(np.array([[p]]) for p in ([0.5, 0.5], [0.0, 2000.0], [2.0, 2.0])))
    fits = fit(points, np.ones(2 * N), start, MODEL, "em", Schedule(50, "map_residual", 1e-12))
    assert fits.outcome[0] == Outcome.CONVERGED
    expected = [[X[0].mean(), X[0].mean() + 2000], [X[0].std()] * 2]
    np.testing.assert_allclose([fits.parameters.means[0], fits.parameters.scales[0]], expected)


@pytest.mark.parametrize("max_iter", [0, 1, 9, 1000, 20_000])
def test_geometric_iterations(max_iter):
    iterations = geometric_iterations(max_iter)
    assert iterations.dtype == np.int64
    wanted = {*range(11), *(10**j for j in range(9))}
    assert {t for t in wanted if t <= max_iter} <= set(iterations.tolist())
    assert iterations[-1] <= max_iter < 1.16 * max(10, iterations[-1])
    large = iterations[iterations >= 10]
    assert (np.diff(iterations) > 0).all()
    assert (large[1:] / large[:-1] <= 1.16).all()
    assert (large[2:] / large[:-2] >= 1.12).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": X[:5]}, "points: got shape"),
        ({"points": X[:, :0], "masses": np.ones(0)}, "points: got shape"),
        ({"masses": np.ones(3)}, "masses: got shape"),
        ({"model": make_model(3)}, "starts: got 2 components, needs 3"),
        ({"algorithm": "newton"}, "algorithm: got 'newton', must be one of em"),
        ({"schedule": Schedule(5, "soon", 1)}, "rule: got 'soon', must be one of never"),
        ({"schedule": Schedule(-1)}, "max_iter: got -1"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    arguments = {
        "points": X, "masses": MASSES, "starts": STARTS, "model": MODEL, "algorithm": "em",
        "schedule": CONVERGE,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        fit(**(arguments | changes))
