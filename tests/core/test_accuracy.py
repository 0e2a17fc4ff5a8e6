"""Fifty iterations against EM in 30 decimal digits, where the arithmetic is hard."""

import mpmath
import numpy as np
import pytest

from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.outcomes import Outcome
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw

KEY = key_from_hex("ffeeddccbbaa99887766554433221100")
N = 120
# True weights, means and scales.
CASES = {
    "overlapping": ([0.5, 0.5], [0.0, 1.5], [2.0, 1.0]),
    "separated": ([0.4, 0.6], [-20.0, 20.0], [1.0, 1.0]),
    "five components": ([0.2] * 5, [-6.0, -3.0, 0.0, 3.0, 6.0], [1.0, 0.7, 1.3, 0.6, 1.0]),
    "scales 1 to 1e-4": ([0.5, 0.5], [0.0, 1.0], [1.0, 1e-4]),
    "weight 1e-3": ([0.999, 0.001], [0.0, 4.0], [1.0, 1.0]),
    "offset": ([0.5, 0.5], [1e3, 1e3 + 3.0], [1.0, 1.0]),
}


def exact_iterations(points, theta, n_iter):
    """Yield (theta, log-likelihood) of every row, as multiple-precision numbers."""
    points = [mpmath.mpf(x) for x in points]
    weights, means, scales = ([mpmath.mpf(value) for value in part] for part in theta)
    for _ in range(n_iter + 1):
        shares = []
        log_likelihood = mpmath.mpf(0)
        for x in points:
            joint = [
                w * mpmath.npdf(x, m, s) for w, m, s in zip(weights, means, scales, strict=True)
            ]
            total = mpmath.fsum(joint)
            log_likelihood += mpmath.log(total)
            shares.append([part / total for part in joint])
        yield [weights, means, scales], log_likelihood
        columns = list(zip(*shares, strict=True))
        counts = [mpmath.fsum(column) for column in columns]
        weights = [count / len(points) for count in counts]
        means = [
            mpmath.fdot(column, points) / count
            for column, count in zip(columns, counts, strict=True)
        ]
        scales = [
            mpmath.sqrt(mpmath.fdot(column, [(x - m) ** 2 for x in points]) / count)
            for column, count, m in zip(columns, counts, means, strict=True)
        ]


@pytest.mark.parametrize("truth", CASES.values(), ids=CASES)
def test_fifty_iterations_in_thirty_digits(truth):
    weights, means, scales = map(np.array, truth)
    points = draw(KEY, [0], N, weights, means, scales, "multinomial")
    start = (np.full(len(means), 1 / len(means)), means + 0.3 * scales, 1.2 * scales)
    model = make_model(len(means))
    batch = Parameters(*(part[None, None] for part in start))
    trace = fit(points, np.ones(N), batch, model, "em", Schedule(50)).trace
    assert trace.iteration[-1] == 50
    with mpmath.workdps(30):
        for row, (expected, log_likelihood) in enumerate(exact_iterations(points[0], start, 50)):
            size = mpmath.fabs(log_likelihood)
            error = mpmath.fabs(trace.log_likelihood[row] - log_likelihood) / max(size, 1)
            assert error < 1e-13
            for found, exact, unit in zip(
                trace.parameters, expected, (None, expected[2], expected[2]), strict=True
            ):
                for k, value in enumerate(exact):
                    error = mpmath.fabs(found[row, k] - value) / (1 if unit is None else unit[k])
                    # A mean at an offset is stored to a rounding of its own size.
                    stored = 2.0**-52 * mpmath.fabs(value) / (1 if unit is None else unit[k])
                    assert error < 1e-13 + stored


@pytest.mark.parametrize("factor", [1e150, 1e-150])
def test_extreme_units_change_nothing_but_the_unit(factor):
    weights, means, scales = map(np.array, CASES["overlapping"])
    points = draw(KEY, [0], N, weights, means, scales, "multinomial")
    schedule = Schedule(5000, "map_residual", 1e-9)

    def fitted(unit):
        start = Parameters(*(part[None, None] for part in (weights, means * unit, scales * unit)))
        return fit(points * unit, np.ones(N), start, make_model(2), "em", schedule)

    # The factor is no power of 2: data and start are rounded differently, and that is all.
    plain, scaled = fitted(1.0), fitted(factor)
    assert scaled.outcome[0] == plain.outcome[0] == Outcome.CONVERGED
    assert scaled.n_iter[0] == plain.n_iter[0]
    np.testing.assert_allclose(scaled.parameters.means / factor, plain.parameters.means, 1e-13)
    np.testing.assert_allclose(scaled.parameters.scales / factor, plain.parameters.scales, 1e-13)
    shifted = scaled.log_likelihood[0] + N * np.log(factor)
    rounding = 1e-14 * abs(scaled.log_likelihood[0])
    assert shifted == pytest.approx(plain.log_likelihood[0], abs=rounding)
