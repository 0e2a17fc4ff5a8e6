"""How the cost of EM grows: with points, components, replicates and threads."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.engines import compressed, exact, problem, timed
from benchmarks.figure import Scaling, scaling_figure
from benchmarks.page import PAGE, machine, write_section
from pipeline.plots.style import svg_bytes

PICTURE = PAGE.with_name("performance-scaling.svg")
ITERATIONS = 100
COMPRESSED_ITERATIONS = 500
REPEATS = 5
# Fits of one piece of work of a thread, and such pieces per thread.
CHUNK = 4096
CHUNKS = 8
# Point-components of one measurement, so that it is long enough for the clock.
WORK = 1 << 18

EXACT_SIZES = (*(digit * 10**power for power in range(1, 6) for digit in (1, 2, 4)), 10**6)
COMPRESSED_SIZES = (2 * 10**4, 5 * 10**4, 10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7)
COMPONENT_SIZES = (40, 1000)
COMPONENTS = range(1, 11)
REPLICATES = (1, 2, 4, 8, 16, 32, 100, 300, 1000, 3000, 10**4, 3 * 10**4, 10**5)


def exact_iteration(n: int, n_components: int) -> float:
    """Return the seconds of an iteration of one fit, in a batch of fits where they are small."""
    points, starts = problem(n, n_components, max(1, WORK // (n * n_components)))
    seconds, fits = timed(lambda: exact(points, starts, ITERATIONS), REPEATS)
    # In small samples a component may collapse, which ends the fit.
    return min(seconds) / int(fits.n_iter.sum())


def compressed_iteration(n: int) -> float:
    """Return the seconds of a compressed fit of two components per iteration, build included."""
    points, starts = problem(n, 2)
    seconds, _ = timed(lambda: compressed(points, starts, COMPRESSED_ITERATIONS), REPEATS)
    return min(seconds) / COMPRESSED_ITERATIONS


def batch(n_fits: int) -> float:
    """Return the seconds of one call that fits some samples of 40 points."""
    points, starts = problem(40, 2, n_fits)
    seconds, _ = timed(lambda: exact(points, starts, ITERATIONS), REPEATS)
    return min(seconds)


def fits_per_second(threads: int) -> float:
    """Return how many samples of 40 points are fitted in a second by a pool of threads."""
    points, starts = problem(40, 2, CHUNK)

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda _: exact(points, starts, ITERATIONS), range(chunks)):
                pass

    chunks = CHUNKS * threads
    seconds, _ = timed(work, REPEATS)
    return CHUNK * chunks / min(seconds)


def thread_counts(cores: int) -> Iterable[int]:
    """Return at most ten numbers from 1 to twice the cores, the cores among them."""
    return sorted({cores, *np.rint(np.geomspace(1, 2 * cores, 9)).astype(int).tolist()})


def measure() -> Scaling:
    """Measure every curve."""
    cores = os.cpu_count() or 1
    compressed_iteration(20_000)  # what is to be compiled
    return Scaling(
        exact={n: exact_iteration(n, 2) for n in EXACT_SIZES},
        compressed={n: compressed_iteration(n) for n in COMPRESSED_SIZES},
        components={
            n: {k: exact_iteration(n, k) / (n * k) for k in COMPONENTS} for n in COMPONENT_SIZES
        },
        replicates={n_fits: batch(n_fits) for n_fits in REPLICATES},
        threads={threads: fits_per_second(threads) for threads in thread_counts(cores)},
        cores=cores,
    )


def main() -> None:
    """Measure every curve and draw the figure."""
    measured = measure()
    print(PICTURE)
    PICTURE.write_bytes(svg_bytes(scaling_figure(measured)))
    write_section(
        "scaling",
        f"""
![Cost against points, components, replicates and threads]({PICTURE.name})

Least times of {REPEATS} measurements ({machine()}) of {ITERATIONS} iterations,
{COMPRESSED_ITERATIONS} on compressed samples.
""",
    )


if __name__ == "__main__":
    main()
