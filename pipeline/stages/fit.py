"""Stage `fit`: run EM on every block that the store lacks, and assemble `fits/` and `traces/`."""

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from pipeline.blocks import block_size
from pipeline.computing import complete
from pipeline.plan import Cell, Plan, read_plan
from pipeline.samples import written_samples
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
            error.path.unlink(missing_ok=True)
            log.warning("stored block %s is damaged or gone: computed again", error.path)
            return False
        return True

    pool = ThreadPoolExecutor(plan.workers)
    try:
        parts = [pool.submit(write, part) for part in cells]
        done, _ = wait(parts, return_when=FIRST_EXCEPTION)
        # One that failed is told before those that still run.
        for part in done:
            part.result()
    finally:
        # After an interruption nobody waits for the parts in hand.
        pool.shutdown(wait=False, cancel_futures=True)
    return [cell for cell, part in zip(cells, parts, strict=True) if not part.result()]


if __name__ == "__main__":
    run(fit)
