"""Implementations of EM, and the problems that all of them are given."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from sklearn.mixture import GaussianMixture

from pipeline.core.fitting import Fits, Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.random import key_from_hex
from pipeline.core.refinement import Task, fit_compressed
from pipeline.core.sampling import draw
from pipeline.core.starts import draw_starts

# The default of `conf/config.yaml`.
COMPRESSION_TOLERANCE = 1e-10

T = TypeVar("T")


def problem(
    n: int, n_components: int, fits: int = 1, init: str = "truth"
) -> tuple[np.ndarray, Parameters]:
    """Return samples (fits, n) of overlapping normals, and one start for each."""
    key = key_from_hex("0123456789abcdef0123456789abcdef")
    weights = np.full(n_components, 1 / n_components)
    means, scales = 3.0 * np.arange(n_components), np.ones(n_components)
    replicates = np.arange(fits)
    points = draw(key, replicates, n, weights, means, scales, "multinomial")
    truth = Parameters(weights, means, scales)
    model = make_model(n_components)
    return points, draw_starts(init, points, model, truth, key, replicates, range(1))


def task(n_components: int, iterations: int) -> Task:
    """Return plain EM of a free mixture, without stopping rule and trace."""
    return Task(make_model(n_components), "em", Schedule(iterations, record=np.array([0])))


def exact(points: np.ndarray, starts: Parameters, iterations: int) -> Fits:
    """Fit with this project's kernel on every point."""
    masses = np.ones(points.shape[1])
    return fit(points, masses, starts, *task(starts.means.shape[2], iterations))


def compressed(points: np.ndarray, starts: Parameters, iterations: int) -> Fits:
    """Fit with this project's kernel on the Gauss rules of the samples' bins."""
    plain = task(starts.means.shape[2], iterations)
    return fit_compressed(points, starts, plain, COMPRESSION_TOLERANCE)


def numpy_batch(points: np.ndarray, starts: Parameters, iterations: int) -> np.ndarray:
    """Fit all samples at once with array expressions; return parameters (3, fits, K)."""
    weights, means, scales = (part[:, 0, :, None] for part in starts)
    x = points[:, None, :]
    for _ in range(iterations):
        exponent = -0.5 * ((x - means) / scales) ** 2 + np.log(weights / scales)
        exponent -= exponent.max(axis=1, keepdims=True)
        shares = np.exp(exponent)
        shares /= shares.sum(axis=1, keepdims=True)
        counts = shares.sum(axis=2, keepdims=True)
        weights = counts / x.shape[2]
        means = (shares * x).sum(axis=2, keepdims=True) / counts
        scales = np.sqrt((shares * (x - means) ** 2).sum(axis=2, keepdims=True) / counts)
    return np.array([weights[..., 0], means[..., 0], scales[..., 0]])


def scikit_learn(points: np.ndarray, starts: Parameters, iterations: int) -> np.ndarray:
    """Fit one sample after the other with GaussianMixture; return parameters (3, fits, K)."""
    found = []
    for sample, *theta in zip(points, *(part[:, 0] for part in starts), strict=True):
        weights, means, scales = theta
        model = GaussianMixture(
            len(means),
            covariance_type="spherical",
            reg_covar=0,
            tol=0,
            max_iter=iterations,
            weights_init=weights,
            means_init=means[:, None],
            precisions_init=scales**-2.0,
        )
        model.fit(sample[:, None])
        found.append([model.weights_, model.means_[:, 0], np.sqrt(model.covariances_)])
    return np.moveaxis(np.array(found), 1, 0)


def timed(call: Callable[[], T], repeats: int) -> tuple[list[float], T]:
    """Return the seconds of each of some calls, and the last one's result."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - began)
    return seconds, result
