"""Fits in one lane and in all lanes, and the same bits on every instruction set."""

import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

from pipeline.core.fitting import Schedule, fit
from pipeline.core.lanes import POINTS_FOR_ALL_LANES
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model, project

generator = np.random.default_rng(6)
SIZES = (POINTS_FOR_ALL_LANES - 1, POINTS_FOR_ALL_LANES, POINTS_FOR_ALL_LANES + 5, 9001)
MODELS = {
    "free": (),
    "equal weights": ("equal",),
    "shared scale": ("free", "free", "shared"),
    "fixed scales": ("free", "free", 1.5),
}


def expectation_maximization(points, masses, theta, arguments, n_iter):
    """EM by its formulas, on logarithms; yields (theta, log-likelihood) of every row."""
    weights, means, scales = map(np.array, theta)
    arguments = (*arguments, *("free", "free", "free")[len(arguments) :])
    for _ in range(n_iter + 1):
        joint = np.log(weights) + scipy.stats.norm.logpdf(points[:, None], means, scales)
        total = logsumexp(joint, axis=1, keepdims=True)
        yield np.array([weights, means, scales]), np.sum(masses * total[:, 0])
        shares = masses[:, None] * np.exp(joint - total)
        counts = shares.sum(axis=0)
        if arguments[0] == "free":
            weights = counts / counts.sum()
        means = (shares * points[:, None]).sum(axis=0) / counts
        squares = (shares * (points[:, None] - means) ** 2).sum(axis=0)
        if arguments[2] == "free":
            scales = np.sqrt(squares / counts)
        elif arguments[2] == "shared":
            scales = np.full(len(counts), np.sqrt(squares.sum() / counts.sum()))


@pytest.mark.parametrize("heavy", [False, True], ids=["unit masses", "masses"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("n_components", [1, 2, 3, 5])
@pytest.mark.parametrize("arguments", MODELS.values(), ids=MODELS)
def test_fifty_iterations_against_the_formulas(arguments, n_components, n, heavy):
    centres = 3.0 * np.arange(n_components)
    points = centres[generator.integers(n_components, size=n)] + generator.normal(size=n)
    masses = generator.uniform(0.5, 2, n) if heavy else np.ones(n)
    model = make_model(n_components, *arguments)
    theta = [np.full(n_components, 1 / n_components), centres + 0.5, np.full(n_components, 2.0)]
    start = project(model, Parameters(*(part[None, None] for part in theta)))
    trace = fit(points[None], masses, start, model, "em", Schedule(50)).trace
    rows = expectation_maximization(points, masses, [part[0, 0] for part in start], arguments, 50)
    for row, (expected, log_likelihood) in enumerate(rows):
        unit = np.array([np.ones(n_components), expected[2], expected[2]])
        found = np.array([part[row] for part in trace.parameters])
        assert np.max(np.abs(found - expected) / unit) < 1e-12
        assert trace.log_likelihood[row] == pytest.approx(log_likelihood, rel=1e-13)


PROGRAM = """
import hashlib
import numpy as np
from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.random import key_from_hex
from pipeline.core.refinement import Task, fit_compressed, fit_population, log_likelihoods
from pipeline.core.sampling import draw
from pipeline.core.starts import draw_population_starts, draw_starts

key = key_from_hex("00112233445566778899aabbccddeeff")
digest = hashlib.sha256()
schedule = Schedule(200, "map_residual", 1e-9)


def add(fits):
    for part in (fits.outcome, fits.map_residual, fits.trace.log_likelihood):
        digest.update(part.tobytes())
    for part in fits.trace.parameters:
        digest.update(np.ascontiguousarray(part).tobytes())


for n, n_components, replicates in ((40, 2, 11), (40, 3, 5), (700, 2, 2), (530, 4, 1)):
    model = make_model(n_components)
    means = 2.0 * np.arange(n_components)
    ones = np.ones(n_components)
    points = draw(
        key, np.arange(replicates), n, ones / n_components, means, ones, "proportional"
    )
    starts = draw_starts("random_points", points, model, None, key, range(replicates), range(2))
    add(fit(points, np.ones(n), starts, model, "em", schedule))
truth = Parameters(np.array([0.3, 0.7]), np.array([0.0, 3.0]), np.array([1.0, 0.5]))
points = draw(key, [0], 30_001, *truth, "multinomial")
task = Task(make_model(2), "em", schedule)
starts = draw_starts("kmeans_pp", points, task.model, truth, key, [0], range(2))
add(fit_compressed(points, starts, task, 1e-10))
digest.update(log_likelihoods(points, truth).tobytes())
for init in ("random_points", "quantiles"):
    starts = draw_population_starts(init, task.model, truth, key, range(2))
    add(fit_population(truth, starts, task, 1e-10))
print(digest.hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits(bits_by_cpu):
    found = bits_by_cpu(PROGRAM)
    assert len(set(found.values())) == 1, found
