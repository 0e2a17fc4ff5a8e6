"""Stage `generate`: draw the samples of every data set of the plan."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from pipeline.files import atomic_write, remove_others
from pipeline.plan import DataSet, Plan, draw_planned, read_plan
from pipeline.progress import progress
from pipeline.samples import Piece, pieces
from pipeline.stages import run

log = logging.getLogger(__name__)


def generate(folder: Path) -> None:
    """Write `samples/<mixture>-n<size>.npy`, float64 of shape (replicates, n)."""
    plan = read_plan(folder)
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    drawn = [data for data in plan.data_sets if data.file is not None]
    total = sum(data.replicates * data.n_points for data in drawn)
    with progress("generate", total) as advance, ThreadPoolExecutor(plan.workers) as pool:
        for data in drawn:
            with atomic_write(folder / str(data.file)) as temporary:
                shape = (data.replicates, data.n_points)
                values = open_memmap(temporary, "w+", np.float64, shape)
                _reserve(temporary)
                fill = partial(_fill, values, plan, data)
                for count in pool.map(fill, pieces(data)):
                    advance(count)
                values.flush()
                del values, fill
    remove_others(samples, {Path(str(data.file)).name for data in drawn})
    log.info("generate: %d data sets, %d values", len(drawn), total)


def _reserve(path: Path) -> None:
    """Have the disk keep room for all of a file: a map of one that it cannot hold kills who writes.

    Where this cannot be asked for (macOS, Windows), there is only the look ahead of the stage plan.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _fill(values: np.ndarray, plan: Plan, data: DataSet, piece: Piece) -> int:
    """Draw the points of some rows and positions; return how many."""
    rows, positions = piece
    out = values[rows.start : rows.stop, positions.start : positions.stop]
    return draw_planned(plan, data, rows, positions=positions, out=out).size


if __name__ == "__main__":
    run(generate)
