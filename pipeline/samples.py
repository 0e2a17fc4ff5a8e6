"""Where a block's samples come from: drawn anew, or read from a results folder and checked."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from threading import Lock

import numpy as np

from pipeline.errors import InputError
from pipeline.plan import Cell, DataSet, Plan, draw_planned, read_planned
from pipeline.store import Block

# Values that a thread draws at a time: bounds the memory.
VALUES = 1 << 20

# The samples of a block's replicates, shape (replicates, sample_size); None: the population.
Samples = Callable[[Cell, Block], np.ndarray | None]
Piece = tuple[range, range]


def pieces(data: DataSet) -> Iterator[Piece]:
    """Yield the replicates and positions of whole samples, or of parts of one."""
    replicates = _cut(data.replicates, max(1, VALUES // data.n_points))
    return product(replicates, _cut(data.n_points, VALUES))


def _cut(length: int, step: int) -> list[range]:
    return [range(first, min(first + step, length)) for first in range(0, length, step)]


def drawn_samples(plan: Plan) -> Samples:
    """Return what draws the samples of a block anew: the numbers that the stage generate writes."""

    def samples(cell: Cell, block: Block) -> np.ndarray | None:
        data = plan.data_set(cell)
        if data.observed is not None:
            return _observed(plan, data)
        if data.file is None:
            return None
        return draw_planned(plan, data, range(block.first, block.stop))

    return samples


def written_samples(plan: Plan, folder: Path) -> Samples:
    """Return what reads the samples of a block from the results folder.

    A fit is stored for good under what the plan says of its sample, so that every number is
    compared with the one that the plan draws, once for each data set.

    Raises
    ------
    InputError
        When a block is asked for, if the samples are not the plan's.
    """
    lock = Lock()

    @cache
    def read(data: DataSet) -> np.ndarray | None:
        if data.observed is not None:
            return _observed(plan, data)
        if data.file is None:
            return None
        path = folder / data.file
        try:
            # Copy on write: compiled code takes writable arrays without copying them.
            samples = np.load(path, mmap_mode="c")
        except MemoryError:
            raise
        except Exception as error:  # of many kinds, where the file's head is damaged
            when = "again" if path.exists() else "first"
            raise InputError(f"{path}: cannot be read; run the stage generate {when}") from error
        if not belongs(samples, data, plan):
            raise InputError(f"{path}: made for another plan; run the stage generate again")
        return samples

    def samples(cell: Cell, block: Block) -> np.ndarray | None:
        # A data set is read by one thread, for all.
        with lock:
            drawn = read(plan.data_set(cell))
        return None if drawn is None else drawn[block.first : block.stop]

    return samples


def belongs(samples: np.ndarray, data: DataSet, plan: Plan) -> bool:
    """Return whether samples have the plan's shape and the plan's numbers."""
    if samples.shape != (data.replicates, data.n_points) or samples.dtype != np.float64:
        return False

    def same(piece: Piece) -> bool:
        rows, positions = piece
        found = samples[rows.start : rows.stop, positions.start : positions.stop]
        return np.array_equal(found, draw_planned(plan, data, rows, positions=positions))

    with ThreadPoolExecutor(plan.workers) as pool:
        return all(pool.map(same, pieces(data)))


def _observed(plan: Plan, data: DataSet) -> np.ndarray:
    return read_planned(data, plan.config["observed"][data.observed])[None, :]
