"""The EM kernel beside its peers, on identical data, starts and iterations, on one core.

`make bench` runs it and writes `docs/performance.md`. Every engine's parameters after the last
iteration are compared before a time is believed.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pipeline  # noqa: F401, I001

import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from pipeline.core.fitting import Schedule, fit
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.core.starts import draw_starts

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
ITERATIONS = 100
REPEATS = 5
# Sample size, components, and how many fits each engine does in one measurement.
CASES = (
    (40, 2, {"this project": 8000, "numpy": 2000, "scikit-learn": 20}),
    (40, 3, {"this project": 4000, "numpy": 1000, "scikit-learn": 20}),
    (1_000, 2, {"this project": 400, "numpy": 50, "scikit-learn": 10}),
    (1_000, 3, {"this project": 300, "numpy": 50, "scikit-learn": 10}),
    (100_000, 2, {"this project": 4, "numpy": 1, "scikit-learn": 1}),
    (100_000, 3, {"this project": 4, "numpy": 1, "scikit-learn": 1}),
)


def project(points: np.ndarray, starts: Parameters) -> np.ndarray:
    """Fit with this project's kernel; return the parameters, shape (3, fits, K)."""
    schedule = Schedule(ITERATIONS, record=np.array([0]))
    model = make_model(starts.means.shape[2])
    fits = fit(points, np.ones(points.shape[1]), starts, model, "em", schedule)
    return np.array(fits.parameters)


def numpy_batch(points: np.ndarray, starts: Parameters) -> np.ndarray:
    """Fit all samples at once with array expressions; return (3, fits, K)."""
    weights, means, scales = (part[:, 0, :, None] for part in starts)
    x = points[:, None, :]
    for _ in range(ITERATIONS):
        exponent = -0.5 * ((x - means) / scales) ** 2 + np.log(weights / scales)
        exponent -= exponent.max(axis=1, keepdims=True)
        shares = np.exp(exponent)
        shares /= shares.sum(axis=1, keepdims=True)
        counts = shares.sum(axis=2, keepdims=True)
        weights = counts / x.shape[2]
        means = (shares * x).sum(axis=2, keepdims=True) / counts
        scales = np.sqrt((shares * (x - means) ** 2).sum(axis=2, keepdims=True) / counts)
    return np.array([weights[..., 0], means[..., 0], scales[..., 0]])


def scikit_learn(points: np.ndarray, starts: Parameters) -> np.ndarray:
    """Fit one sample after the other with GaussianMixture; return (3, fits, K)."""
    found = []
    for sample, *theta in zip(points, *(part[:, 0] for part in starts), strict=True):
        weights, means, scales = theta
        model = GaussianMixture(
            len(means),
            covariance_type="spherical",
            reg_covar=0,
            tol=0,
            max_iter=ITERATIONS,
            weights_init=weights,
            means_init=means[:, None],
            precisions_init=scales**-2.0,
        )
        model.fit(sample[:, None])
        found.append([model.weights_, model.means_[:, 0], np.sqrt(model.covariances_)])
    return np.moveaxis(np.array(found), 1, 0)


ENGINES: dict[str, Callable[[np.ndarray, Parameters], np.ndarray]] = {
    "this project": project,
    "numpy": numpy_batch,
    "scikit-learn": scikit_learn,
}


def problem(n: int, n_components: int, fits: int) -> tuple[np.ndarray, Parameters]:
    """Return samples (fits, n) of overlapping normals, and one start for each."""
    key = key_from_hex("0123456789abcdef0123456789abcdef")
    weights = np.full(n_components, 1 / n_components)
    means, scales = 3.0 * np.arange(n_components), np.ones(n_components)
    replicates = np.arange(fits)
    points = draw(key, replicates, n, weights, means, scales, "multinomial")
    # From the truth no component collapses, so that every engine does all iterations.
    truth = Parameters(weights, means, scales)
    model = make_model(n_components)
    return points, draw_starts("truth", points, model, truth, key, replicates, range(1))


def nanoseconds(engine: str, n: int, n_components: int, fits: int) -> tuple[float, np.ndarray]:
    """Return the median time per point, component and iteration, and the parameters found."""
    points, starts = problem(n, n_components, fits)
    times = []
    found = ENGINES[engine](points, starts)
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = ENGINES[engine](points, starts)
        times.append(time.perf_counter() - began)
    return 1e9 * statistics.median(times) / (fits * n * n_components * ITERATIONS), found


def cpu() -> str:
    """Return what the operating system calls the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measure every case and write the table."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for n, n_components, fits in CASES:
        times, found = {}, {}
        for engine, count in fits.items():
            times[engine], found[engine] = nanoseconds(engine, n, n_components, count)
        for engine in ("numpy", "scikit-learn"):
            count = fits[engine]
            # Two correct implementations part by rounding alone, which overlap magnifies.
            np.testing.assert_allclose(
                found["this project"][:, :count], found[engine][:, : fits["this project"]], 1e-6
            )
        cells = " | ".join(f"{times[engine]:,.2f}" for engine in ENGINES)
        ratios = [times[engine] / times["this project"] for engine in ("numpy", "scikit-learn")]
        rows.append(f"| {n:,} | {n_components} | {cells} | {ratios[0]:,.0f} | {ratios[1]:,.0f} |")
        print(rows[-1], flush=True)
    table = "\n".join(rows)
    PAGE.write_text(
        f"""# Performance

Nanoseconds per point, component and EM iteration on one core ({cpu()}), medians of {REPEATS}
measurements of {ITERATIONS} iterations; every engine has the same samples and starts, and the
parameters that it returns are compared before its time is believed. scikit-learn is
`GaussianMixture(covariance_type="spherical")`, numpy a batch over all fits in array expressions.
Made by `make bench`.

| n | K | this project | numpy | scikit-learn | faster than numpy | faster than scikit-learn |
|---:|---:|---:|---:|---:|---:|---:|
{table}

## What makes it fast

* Eight doubles at once, by an explicit vector type (`pipeline/core/vector.py`): in a small sample's
  fit a lane is a fit, from 512 points on all lanes are one fit.
* Powers of 2 instead of e, one exponential a point for two components, and one logarithm for 64
  points: the sums of log-sum-exp lie in [1, K] and are multiplied up.
* Sums about the current means: one pass gives counts, means and centred squares. Where a variance
  comes out as the difference of nearly equal numbers, and only there, a second pass sums about the
  new mean.
* A lane whose fit has ended takes the next one; threads share out blocks of fits, not points.

Nothing of this depends on the CPU: the same bits come out of AVX-512, AVX2 and SSE2.
"""
    )


if __name__ == "__main__":
    main()
