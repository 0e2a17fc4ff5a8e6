"""Stage `generate`: draw the samples of every data set of the plan."""

import logging
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.files import atomic_write, remove_others
from pipeline.plan import read_plan, truth
from pipeline.progress import progress
from pipeline.stages import run

log = logging.getLogger(__name__)

# Values drawn at a time: bounds the memory.
VALUES = 1 << 22


def generate(folder: Path) -> None:
    """Write `samples/<mixture>-n<size>.npy`, float64 of shape (replicates, n)."""
    plan = read_plan(folder)
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    drawn = [data for data in plan.data_sets if data.file is not None]
    total = sum(data.replicates * data.sample_size for data in drawn)
    with progress("generate", total) as advance:
        for data in drawn:
            mixture = plan.config["mixture"][data.mixture]
            key, step = key_from_hex(data.key), max(1, VALUES // data.sample_size)
            with atomic_write(folder / str(data.file)) as temporary:
                shape = (data.replicates, data.sample_size)
                values = open_memmap(temporary, "w+", np.float64, shape)
                for first in range(0, data.replicates, step):
                    rows = np.arange(first, min(first + step, data.replicates))
                    values[rows[0] : rows[-1] + 1] = draw(
                        key, rows, data.sample_size, *truth(mixture), mixture["allocation"]
                    )
                    advance(len(rows) * data.sample_size)
                values.flush()
                del values
    remove_others(samples, {Path(str(data.file)).name for data in drawn})
    log.info("generate: %d data sets, %d values", len(drawn), total)


if __name__ == "__main__":
    run(generate)
