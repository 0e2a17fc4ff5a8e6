"""The EM kernel beside its peers, on identical data, starts and iterations, on one core.

Every engine's parameters after the last iteration are compared before a time is believed.
"""

import statistics
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.engines import exact, numpy_batch, problem, scikit_learn, timed
from benchmarks.page import machine, table, write_section
from pipeline.core.mixture import Parameters

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


def project(points: np.ndarray, starts: Parameters, iterations: int) -> np.ndarray:
    """Fit with this project's kernel; return parameters (3, fits, K)."""
    return np.array(exact(points, starts, iterations).parameters)


ENGINES: dict[str, Callable[[np.ndarray, Parameters, int], np.ndarray]] = {
    "this project": project,
    "numpy": numpy_batch,
    "scikit-learn": scikit_learn,
}


def nanoseconds(engine: str, n: int, n_components: int, fits: int) -> tuple[float, np.ndarray]:
    """Return the median time per point, component and iteration, and the parameters found."""
    # From the truth no component collapses, so that every engine does all iterations.
    points, starts = problem(n, n_components, fits)
    seconds, found = timed(lambda: ENGINES[engine](points, starts, ITERATIONS), 1 + REPEATS)
    # The first call may compile.
    return 1e9 * statistics.median(seconds[1:]) / (fits * n * n_components * ITERATIONS), found


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
        rows.append(f"{n:,} | {n_components} | {cells} | {ratios[0]:,.0f} | {ratios[1]:,.0f}")
        print(rows[-1], flush=True)
    header = "n | K | this project | numpy | scikit-learn | faster than numpy"
    header += " | faster than scikit-learn"
    write_section(
        "kernel",
        f"""
Nanoseconds per point, component and EM iteration on one core ({machine()}),
medians of {REPEATS} measurements of {ITERATIONS} iterations.

{table(header, rows)}
""",
    )


if __name__ == "__main__":
    main()
