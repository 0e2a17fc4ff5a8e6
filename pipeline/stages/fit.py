"""Stage `fit`: run EM on every block that the store lacks, and assemble `fits/` and `traces/`."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.blocks import block_size, fit_block
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.errors import InputError
from pipeline.plan import Cell, DataSet, Plan, read_plan, read_planned, truth
from pipeline.progress import progress
from pipeline.stages import record_timings, run
from pipeline.store import (
    Block,
    assembled,
    folder_of,
    missing_blocks,
    stored_blocks,
    write_block,
)
from pipeline.tables import (
    FITS,
    TRACES,
    fits_schema,
    part_name,
    remove_other_parts,
    traces_schema,
    write_part,
)

log = logging.getLogger(__name__)

Task = tuple[Cell, Block]


def fit(folder: Path) -> None:
    """Complete the store and write the `fits/` and `traces/` of a results folder."""
    plan = read_plan(folder)
    store = Path(plan.config["store_dir"])
    blocks = {cell.content: stored_blocks(folder_of(store, cell.content)) for cell in plan.cells}
    tasks: list[Task] = []
    for cell in plan.cells:
        # Cells of other names and the same content share their blocks.
        known, size = blocks[cell.content], block_size(plan, cell)
        missing = list(missing_blocks(cell.replicates, cell.starts, known, size))
        tasks += [(cell, block) for block in missing]
        known += missing
    new = len({cell.id for cell, _ in tasks})
    n_fits = sum(block.n_fits for _, block in tasks)
    reused = len(plan.cells) - new
    log.info("fit: cells: %d reused, %d new (%d fits to run)", reused, new, n_fits)
    timings = _compute(plan, folder, store, tasks)
    record_timings(folder, "fit", [("block", cell, seconds) for cell, seconds in timings])
    _assemble(plan, folder, store, blocks)


def belongs(samples: np.ndarray, data: DataSet, plan: Plan) -> bool:
    """Return whether samples have the plan's shape and, in their ends, the plan's numbers."""
    if samples.shape != (data.replicates, data.n_points):
        return False
    mixture = plan.config["mixture"][data.mixture]
    size = data.n_points
    if mixture["allocation"] == "multinomial":
        # Independent points: the beginning of a sample is that of a smaller one.
        size = min(size, 4096)
    ends = np.unique([0, data.replicates - 1])
    drawn = draw(key_from_hex(data.key), ends, size, *truth(mixture), mixture["allocation"])
    return np.array_equal(samples[ends, :size], drawn)


def sample_reader(plan: Plan, folder: Path) -> Callable[[Cell], np.ndarray | None]:
    """Return a function from a cell to its samples, shape (replicates, sample_size).

    None for the population itself.

    Raises
    ------
    InputError
        From that function, if the samples are not the plan's.
    """

    @cache
    def read(data: DataSet) -> np.ndarray | None:
        if data.observed is not None:
            return read_planned(data, plan.config["observed"][data.observed])[None, :]
        if data.file is None:
            return None
        path = folder / data.file
        try:
            # Copy on write: compiled code takes writable arrays without copying them.
            samples = np.load(path, mmap_mode="c")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read; run the stage generate first") from error
        if not belongs(samples, data, plan):
            raise InputError(f"{path}: made for another plan; run the stage generate again")
        return samples

    return lambda cell: read(plan.data_set(cell))


def _compute(plan: Plan, folder: Path, store: Path, tasks: list[Task]) -> list[tuple[str, float]]:
    """Run the tasks on a pool of threads; return (cell, seconds) of each, in task order."""
    samples = sample_reader(plan, folder)
    # The points of one large sample are shared out too.
    helpers = ThreadPoolExecutor(plan.workers)

    def work(task: Task) -> float:
        cell, block = task
        began = time.perf_counter()
        drawn = samples(cell)
        points = None if drawn is None else drawn[block.first : block.stop]
        fits, traces = fit_block(plan, cell, points, block, helpers.map)
        write_block(folder_of(store, cell.content), block, fits, traces)
        return time.perf_counter() - began

    timings: dict[int, tuple[str, float]] = {}
    total = sum(block.n_fits for _, block in tasks)
    pool = ThreadPoolExecutor(plan.workers)
    try:
        with progress("fit", total) as advance:
            for index, seconds in _in_flight(pool, work, tasks, 2 * plan.workers):
                cell, block = tasks[index]
                timings[index] = (cell.id, seconds)
                advance(block.n_fits)
    finally:
        # After an interruption nobody waits for the blocks in hand.
        pool.shutdown(wait=False, cancel_futures=True)
        helpers.shutdown(wait=False, cancel_futures=True)
    return [timings[index] for index in range(len(tasks))]


def _in_flight(
    pool: ThreadPoolExecutor, work: Callable[[Task], float], tasks: list[Task], most: int
) -> Iterator[tuple[int, float]]:
    """Yield (task index, result) as tasks end, with at most `most` in the pool's hands."""
    waiting = iter(range(len(tasks)))
    running: dict[Future[float], int] = {}
    while True:
        for index in islice(waiting, most - len(running)):
            running[pool.submit(work, tasks[index])] = index
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _assemble(plan: Plan, folder: Path, store: Path, blocks: dict[str, list[Block]]) -> None:
    """Write the data sets from the store, one part per cell."""
    n_components = plan.n_components
    schemas = {
        FITS: fits_schema(n_components, plan.has_population, plan.config["measures"]),
        TRACES: traces_schema(n_components),
    }

    def write(part: tuple[int, Cell, str]) -> None:
        index, cell, table = part
        where, size = folder_of(store, cell.content), block_size(plan, cell)
        rows = assembled(where, blocks[cell.content], cell.replicates, cell.starts, table, size)
        write_part(folder / table / part_name(index, cell), rows, schemas[table], cell)

    parts = [(index, cell, table) for index, cell in enumerate(plan.cells) for table in schemas]
    with ThreadPoolExecutor(plan.workers) as pool:
        for _ in pool.map(write, parts):
            pass
    remove_other_parts(folder, plan)


if __name__ == "__main__":
    run(fit)
