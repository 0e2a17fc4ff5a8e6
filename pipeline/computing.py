"""Blocks of fits computed into the store, by whatever executes them."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import islice
from pathlib import Path
from threading import Event, Semaphore
from typing import Any, NamedTuple

from pipeline.blocks import block_size, fit_block
from pipeline.console import counted
from pipeline.core.evaluation import Mapping
from pipeline.locks import Locks
from pipeline.plan import Cell, Plan
from pipeline.progress import progress
from pipeline.samples import Samples, drawn_samples
from pipeline.store import (
    Block,
    Rows,
    blocks_of_shard,
    folder_of,
    missing_blocks,
    stored_blocks,
    write_block,
)

log = logging.getLogger(__name__)

FIRST_LOOK, LAST_LOOK = 0.1, 5.0  # seconds between looks at what another run is computing

# What runs tasks: yields (task index, seconds or None) as they end.
Execute = Callable[[Sequence["Task"]], Iterator[tuple[int, float | None]]]
# What is done with the rows of a block, once they are stored, while they are at hand.
Use = Callable[["Task", Rows], None]


class Task(NamedTuple):
    """A block of a cell that is to be computed."""

    cell: Cell
    block: Block

    def __str__(self) -> str:
        first, stop, first_start, stop_start = self.block
        return (
            f"cell {self.cell.id}, block of replicates {first} to {stop - 1}, "
            f"starts {first_start} to {stop_start - 1}"
        )


class Stored(NamedTuple):
    """The blocks of every content that a plan has, and the seconds of fitting each new one."""

    blocks: dict[str, list[Block]]
    timings: list[tuple[str, float]]


def compute_block(
    plan: Plan,
    task: Task,
    samples: Samples,
    store: Path,
    locks: Locks,
    mapping: Mapping = map,
    use: Use | None = None,
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> float | None:
    """Compute a block into the store, and use its rows.

    Parameters
    ----------
    use : callable, optional
        Called with the rows once they are stored and the locks given up.
    turn : callable
        To be waited for before the fits, and given up after them.

    Returns
    -------
    float or None
        Seconds of fitting, without those of storing; None if another process is computing some of
        these replicates, or has since they were found missing.
    """
    cell, block = task
    with locks.claim(cell.content, block.first, block.stop) as mine:
        if not mine:
            return None
        # What other processes have finished since the block was found missing.
        stored = stored_blocks(folder := folder_of(store, cell.content))
        if block in stored:
            return 0.0
        if any(block.overlaps(other) for other in stored):
            return None
        with turn():
            points = samples(cell, block)
            began = time.perf_counter()
            rows = fit_block(plan, cell, points, block, mapping)
            seconds = time.perf_counter() - began
        write_block(folder, block, rows)
    if use:
        use(task, rows)
    return seconds


# POSIX locks belong to a process, and end when any of its descriptors of the file is closed.
_locks = cache(Locks)


def compute_in_worker(plan: Plan, task: Task) -> float | None:
    """Compute a block into the store in a process of a cluster, from samples drawn anew."""
    store = Path(plan.config["store_dir"])
    return compute_block(plan, task, drawn_samples(plan), store, _locks(store))


class Shard(NamedTuple):
    """Every `of`-th block of a plan from the `number`-th on, counted from 1."""

    number: int
    of: int


def complete(
    plan: Plan, samples: Samples, shard: Shard | None = None, use: Use | None = None
) -> Stored:
    """Compute every block of a plan, or of a shard of it, that the store lacks.

    What other processes are computing is waited for, and taken up if they end without it.

    Parameters
    ----------
    use : callable, optional
        Called by threads of this process for each block that they compute; what processes of a
        cluster compute is in the store alone.
    """
    store = Path(plan.config["store_dir"])
    blocks = {cell.content: stored_blocks(folder_of(store, cell.content)) for cell in plan.cells}
    tasks = _missing(plan, blocks, shard)
    new = {task.cell.id for task in tasks}
    fits = counted(sum(task.block.n_fits for task in tasks), "fit")
    if shard is None:
        reused = len(plan.cells) - len(new)
        log.info("fit: cells: %d reused, %d new (%s to run)", reused, len(new), fits)
    else:
        blocks_of = f"{counted(len(tasks), 'block')} of {counted(len(new), 'cell')}"
        log.info("fit: %s (%s to run)", blocks_of, fits)
    timings: list[tuple[str, float]] = []
    patience = FIRST_LOOK
    if not tasks:
        return Stored(blocks, timings)
    with _engine(plan, samples, store, use) as execute:
        while tasks:
            theirs: set[str] = set()
            for task, seconds in _in_order(execute, tasks):
                if seconds is None:
                    theirs.add(task.cell.content)
                else:
                    blocks[task.cell.content].append(task.block)
                    timings.append((task.cell.id, seconds))
            if theirs:
                if patience == FIRST_LOOK:
                    log.info("fit: another run is computing %d of the cells: waiting", len(theirs))
                time.sleep(patience)
                patience = min(2.0 * patience, LAST_LOOK)
                blocks |= {content: stored_blocks(folder_of(store, content)) for content in theirs}
            tasks = _missing(plan, blocks, shard) if theirs else []
    return Stored(blocks, timings)


def _missing(plan: Plan, blocks: dict[str, list[Block]], shard: Shard | None) -> list[Task]:
    """Return the tasks that complete the plan's cells; those of one content share their blocks."""
    tasks: list[Task] = []
    place = 0
    distinct = {cell.content: cell for cell in reversed(plan.cells)}
    for cell in reversed(distinct.values()):
        stored, size = blocks[cell.content], block_size(plan, cell)
        if shard is None:
            found = missing_blocks(cell.replicates, cell.starts, stored, size)
            tasks += [Task(cell, block) for block in found]
            continue
        for block in blocks_of_shard(cell.replicates, cell.starts, stored, size):
            if block is not None and place % shard.of == shard.number - 1:
                tasks.append(Task(cell, block))
            place += 1
    return tasks


def _in_order(execute: Execute, tasks: Sequence[Task]) -> list[tuple[Task, float | None]]:
    """Run tasks; return each with its result, in task order."""
    results: dict[int, float | None] = {}
    with progress("fit", sum(task.block.n_fits for task in tasks)) as advance:
        for index, seconds in execute(tasks):
            results[index] = seconds
            advance(tasks[index].block.n_fits)
    return [(task, results[index]) for index, task in enumerate(tasks)]


def _engine(
    plan: Plan, samples: Samples, store: Path, use: Use | None
) -> AbstractContextManager[Execute]:
    """Return what executes tasks: it yields (task index, result) as they end."""
    if plan.config["executor"]["backend"] == "local":
        return _threads(plan, samples, store, use)
    from pipeline.cluster import cluster

    return cluster(plan, compute_in_worker)


class AbandonedError(BaseException):
    """The run has ended before a block: a failure of no fit, so that none is recorded as failed."""


@contextmanager
def _threads(plan: Plan, samples: Samples, store: Path, use: Use | None) -> Iterator[Execute]:
    """Yield what executes tasks on a pool of threads, of which `workers` fit at a time.

    While a thread waits for the disk, or writes, another one fits.
    """
    # The points of one large sample are shared out too.
    helpers = ThreadPoolExecutor(plan.workers)
    pool = ThreadPoolExecutor(2 * plan.workers)
    turns = Semaphore(plan.workers)
    locks = Locks(store)
    ended = Event()

    @contextmanager
    def turn() -> Iterator[None]:
        with turns:
            if ended.is_set():
                raise AbandonedError
            yield

    def mapping(function: Callable[[int], Any], items: Iterable[int]) -> Iterator[Any]:
        try:
            yield from helpers.map(function, items)
        except (CancelledError, RuntimeError) as error:
            if ended.is_set():
                raise AbandonedError from error
            raise

    def work(task: Task) -> float | None:
        return compute_block(plan, task, samples, store, locks, mapping, use, turn)

    try:
        yield lambda tasks: _in_flight(pool, work, tasks, 2 * plan.workers)
    finally:
        ended.set()
        # After an interruption nobody waits for the blocks in hand.
        pool.shutdown(wait=False, cancel_futures=True)
        helpers.shutdown(wait=False, cancel_futures=True)
        locks.close()


def _in_flight(
    pool: ThreadPoolExecutor,
    work: Callable[[Task], float | None],
    tasks: Sequence[Task],
    most: int,
) -> Iterator[tuple[int, float | None]]:
    """Yield (task index, result) as tasks end, with at most `most` in the pool's hands."""
    waiting = iter(range(len(tasks)))
    running: dict[Future[float | None], int] = {}
    while True:
        for index in islice(waiting, most - len(running)):
            running[pool.submit(work, tasks[index])] = index
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()
