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
    while parts.missing:
        stored = complete(plan, samples, use=parts.take)
        timings += stored.timings
        # A block is read once, to be assembled; one that is damaged is computed again.
        parts.assemble(stored.blocks)
    remove_other_parts(folder, plan)
    record_timings(folder, "fit", "block", timings)


class _Parts:
    """The parts of `fits/` and `traces/`, one of each per cell.

    Attributes
    ----------
    missing : set of int
        Places in the plan of the cells whose parts are not written yet.
    """

    def __init__(self, plan: Plan, folder: Path):
        self.missing = set(range(len(plan.cells)))
        self._plan, self._folder = plan, folder
        self._of_content: dict[str, list[int]] = {}
        for index, cell in enumerate(plan.cells):
            self._of_content.setdefault(cell.content, []).append(index)
        measures = plan.config["measures"]
        self._fits = fits_schema(plan.n_components, plan.has_population, measures)
        self._traces = traces_schema(plan.n_components)

    def take(self, task: Task, rows: Rows) -> None:
        """Write the cells that a new block is the whole of, whose rows need not be read back."""
        for index in self._of_content[task.cell.content]:
            cell = self._plan.cells[index]
            if task.block == (0, cell.replicates, 0, cell.starts):
                self._write(index, [rows])

    def assemble(self, blocks: dict[str, list[Block]]) -> None:
        """Write what is missing from the store.

        A block that is damaged is removed, and its cells stay missing.
        """
        pool = ThreadPoolExecutor(self._plan.workers)
        try:
            parts = [pool.submit(self._assemble, i, blocks) for i in sorted(self.missing)]
            done, _ = wait(parts, return_when=FIRST_EXCEPTION)
            # One that failed is told before those that still run.
            for part in done:
                part.result()
        finally:
            # After an interruption nobody waits for the parts in hand.
            pool.shutdown(wait=False, cancel_futures=True)

    def _assemble(self, index: int, blocks: dict[str, list[Block]]) -> None:
        cell, store = self._plan.cells[index], Path(self._plan.config["store_dir"])
        folder, size = folder_of(store, cell.content), block_size(self._plan, cell)
        try:
            rows = assembled(folder, blocks[cell.content], cell.replicates, cell.starts, size)
            self._write(index, rows)
        except DamagedBlockError as error:
            error.path.unlink(missing_ok=True)
            log.warning("stored block %s is damaged or gone: computed again", error.path)

    def _write(self, index: int, pieces: Iterable[Rows]) -> None:
        """Write the rows of a cell, which come in order."""
        cell = self._plan.cells[index]
        name = part_name(index, cell)
        with (
            part_writer(self._folder / FITS / name, self._fits, cell) as add_fits,
            part_writer(self._folder / TRACES / name, self._traces, cell) as add_traces,
        ):
            for fits, traces in pieces:
                add_fits(fits)
                add_traces(traces)
        self.missing.discard(index)


if __name__ == "__main__":
    run(fit)
