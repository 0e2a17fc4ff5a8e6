"""One fit to a large sample: compressed, on every point, and by scikit-learn, on one core.

The parameters after the last iteration are compared before a time is believed.
"""

import statistics
import warnings
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.engines import compressed, exact, problem, scikit_learn, timed
from benchmarks.page import machine, table, write_section

# Sample size, components, iterations, whether scikit-learn takes part (ten seconds a fit).
CASES = (
    (100_000, 2, 500, True),
    (100_000, 3, 500, True),
    (10_000_000, 2, 100, False),
)
REPEATS = {compressed: 5, exact: 3, scikit_learn: 1}
# Largest difference of a parameter between two engines, in units: 1 for weights, else the sample's
# standard deviation.
LARGEST_DIFFERENCE = 1e-9


def row(n: int, n_components: int, iterations: int, peer: bool) -> str:
    """Measure one case and return its row of the table."""
    points, starts = problem(n, n_components, init="quantiles")
    unit = np.array([1.0, points.std(), points.std()])[:, None, None]
    times, found = {}, {}
    for engine, repeats in REPEATS.items():
        if engine is scikit_learn and not peer:
            continue
        engine(points[:, :20_000], starts, 2)  # what is to be compiled
        seconds, result = timed(partial(engine, points, starts, iterations), repeats)
        times[engine] = 1e3 * statistics.median(seconds)
        found[engine] = np.array(getattr(result, "parameters", result))
        if engine is compressed:
            bound = result.compression_error_bound[0]
    differences = {
        engine: np.max(np.abs(parameters - found[exact]) / unit)
        for engine, parameters in found.items()
    }
    if max(differences.values()) > LARGEST_DIFFERENCE:
        raise AssertionError(f"n = {n}, K = {n_components}: parameters differ: {differences}")
    cells = [f"{n:,}", f"{n_components}", f"{iterations}"]
    cells += [f"{times[engine]:,.1f}" if engine in times else "–" for engine in REPEATS]
    for engine in (exact, scikit_learn):
        cells.append(f"{times[engine] / times[compressed]:,.0f}" if engine in times else "–")
    cells += [f"{differences[compressed]:.0e}", f"{bound:.0e}"]
    return " | ".join(cells)


def main() -> None:
    """Measure every case and write the table."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for case in CASES:
        rows.append(row(*case))
        print(rows[-1], flush=True)
    header = "n | K | iterations | compressed | every point | scikit-learn"
    header += " | faster than every point | faster than scikit-learn"
    header += " | largest difference | its bound"
    write_section(
        "compression",
        f"""
Milliseconds per fit on one core ({machine()}), medians of {REPEATS[compressed]} compressed fits
and {REPEATS[exact]} to every point; one fit of scikit-learn.

{table(header, rows)}
""",
    )


if __name__ == "__main__":
    main()
