"""Stage `fit`: run EM on every block that the store lacks, and assemble `fits/` and `traces/`."""

import logging
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from pipeline.blocks import block_size
from pipeline.computing import Task, complete
from pipeline.plan import Plan, read_plan
from pipeline.samples import written_samples
from pipeline.stages import record_timings, run
from pipeline.store import Block, DamagedBlockError, Rows, assembled, folder_of
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
    parts = _Parts(plan, folder)
    while parts.waiting:
        stored = complete(plan, samples, use=parts.write_whole)
        timings += stored.timings
        # A block is read once, to be assembled; one that is damaged is computed again.
        _assemble(plan, parts, stored.blocks)
    remove_other_parts(folder, plan)
    record_timings(folder, "fit", "block", timings)


class _Parts:
    """The parts of both data sets, one of each per cell: `waiting` are places of cells in the plan.

    Threads may write parts of different cells at the same time.
    """

    def __init__(self, plan: Plan, folder: Path):
        self.cells, self.folder = plan.cells, folder
        self.waiting = set(range(len(plan.cells)))
        self._of_content: dict[str, list[int]] = {}
        for index, cell in enumerate(plan.cells):
            self._of_content.setdefault(cell.content, []).append(index)
        measures = plan.config["measures"]
        self._fits = fits_schema(plan.n_components, plan.has_population, measures)
        self._traces = traces_schema(plan.n_components)

    def write(self, index: int, pieces: Iterable[Rows]) -> None:
        """Write the rows of a cell, which come in order."""
        cell = self.cells[index]
        name = part_name(index, cell)
        with (
            part_writer(self.folder / FITS / name, self._fits, cell) as add_fits,
            part_writer(self.folder / TRACES / name, self._traces, cell) as add_traces,
        ):
            for fits, traces in pieces:
                add_fits(fits)
                add_traces(traces)
        self.waiting.discard(index)

    def write_whole(self, task: Task, rows: Rows) -> None:
        """Write the cells that a new block is the whole of: its rows need not be read back."""
        for index in self._of_content[task.cell.content]:
            cell = self.cells[index]
            if index in self.waiting and task.block == (0, cell.replicates, 0, cell.starts):
                self.write(index, [rows])


def _assemble(plan: Plan, parts: _Parts, blocks: dict[str, list[Block]]) -> None:
    """Write the parts that wait from the store; those of which a block is damaged go on waiting.

    A damaged block is removed.
    """
    store = Path(plan.config["store_dir"])

    def write(index: int) -> None:
        cell = plan.cells[index]
        folder, size = folder_of(store, cell.content), block_size(plan, cell)
        try:
            pieces = assembled(folder, blocks[cell.content], cell.replicates, cell.starts, size)
            parts.write(index, pieces)
        except DamagedBlockError as error:
            error.path.unlink(missing_ok=True)
            log.warning("stored block %s is damaged or gone: computed again", error.path)

    pool = ThreadPoolExecutor(plan.workers)
    try:
        written = [pool.submit(write, index) for index in sorted(parts.waiting)]
        done, _ = wait(written, return_when=FIRST_EXCEPTION)
        # One that failed is told before those that still run.
        for part in done:
            part.result()
    finally:
        # After an interruption nobody waits for the parts in hand.
        pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    run(fit)
