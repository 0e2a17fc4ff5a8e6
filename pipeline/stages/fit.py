"""Stage `fit`: run EM on every block that the store lacks, and assemble `fits/` and `traces/`."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.blocks import block_size
from pipeline.computing import Samples, complete
from pipeline.errors import InputError
from pipeline.plan import Cell, DataSet, Plan, draw_planned, read_plan, read_planned
from pipeline.stages import record_timings, run
from pipeline.store import Block, DamagedBlockError, assembled, folder_of
from pipeline.tables import (
    FITS,
    TRACES,
    fits_schema,
    part_name,
    part_writer,
    remove_other_parts,
    traces_schema,
)

log = logging.getLogger(__name__)


def fit(folder: Path) -> None:
    """Complete the store and write the `fits/` and `traces/` of a results folder."""
    plan = read_plan(folder)
    samples = written_samples(plan, folder)
    timings: list[tuple[str, float]] = []
    cells = list(enumerate(plan.cells))
    while cells:
        stored = complete(plan, samples)
        timings += stored.timings
        # A block is read once, to be assembled; one that is damaged is computed again.
        cells = _assemble(plan, folder, cells, stored.blocks)
    remove_other_parts(folder, plan)
    record_timings(folder, "fit", "block", timings)


def belongs(samples: np.ndarray, data: DataSet, plan: Plan) -> bool:
    """Return whether samples have the plan's shape and, in their ends, the plan's numbers."""
    if samples.shape != (data.replicates, data.n_points):
        return False
    size = data.n_points
    if plan.config["mixture"][data.mixture]["allocation"] == "multinomial":
        # Independent points: the beginning of a sample is that of a smaller one.
        size = min(size, 4096)
    ends = np.unique([0, data.replicates - 1])
    return np.array_equal(samples[ends, :size], draw_planned(plan, data, ends, size))


def written_samples(plan: Plan, folder: Path) -> Samples:
    """Return what reads the samples of a block from the results folder.

    Raises
    ------
    InputError
        When a block is asked for, if the samples are not the plan's.
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

    def samples(cell: Cell, block: Block) -> np.ndarray | None:
        drawn = read(plan.data_set(cell))
        return None if drawn is None else drawn[block.first : block.stop]

    return samples


def _assemble(
    plan: Plan, folder: Path, cells: Sequence[tuple[int, Cell]], blocks: dict[str, list[Block]]
) -> list[tuple[int, Cell]]:
    """Write the data sets from the store, one part per cell.

    Returns
    -------
    list of (place in the plan, cell)
        The cells of which a stored block was damaged; it is removed.
    """
    store = Path(plan.config["store_dir"])
    n_components = plan.n_components
    fits = fits_schema(n_components, plan.has_population, plan.config["measures"])
    traces = traces_schema(n_components)

    def write(part: tuple[int, Cell]) -> bool:
        index, cell = part
        name, size = part_name(index, cell), block_size(plan, cell)
        rows = assembled(
            folder_of(store, cell.content), blocks[cell.content], cell.replicates, cell.starts, size
        )
        try:
            with (
                part_writer(folder / FITS / name, fits, cell) as add_fits,
                part_writer(folder / TRACES / name, traces, cell) as add_traces,
            ):
                for of_fits, of_traces in rows:
                    add_fits(of_fits)
                    add_traces(of_traces)
        except DamagedBlockError as error:
            log.warning("stored block %s is damaged or gone: computed again", error.path)
            error.path.unlink(missing_ok=True)
            return False
        return True

    with ThreadPoolExecutor(plan.workers) as pool:
        written = list(pool.map(write, cells))
    return [part for part, done in zip(cells, written, strict=True) if not done]


if __name__ == "__main__":
    run(fit)
