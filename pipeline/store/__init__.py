"""The content-addressed store of finished blocks of fits, and what is still missing from it."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.files import atomic_write

BLOCK_NAME = re.compile(r"r(\d+)-(\d+)-s(\d+)-(\d+)\.fits\.parquet")


# Key of a block file's metadata: cell and block it was written as.
NAME = "block"


class Block(NamedTuple):
    """The fits of replicates [first, stop) x starts [first_start, stop_start) of a cell."""

    first: int
    stop: int
    first_start: int
    stop_start: int

    @property
    def n_fits(self) -> int:
        """The number of fits in the block."""
        return (self.stop - self.first) * (self.stop_start - self.first_start)

    def overlaps(self, other: "Block") -> bool:
        """Tell whether the blocks have fits in common."""
        return (
            max(self.first, other.first) < min(self.stop, other.stop)
            and max(self.first_start, other.first_start) < min(self.stop_start, other.stop_start)
        )  # fmt: skip


class DamagedBlockError(Exception):
    """A stored block cannot be read, or is not what its name says: `path` is the file that counts.

    It never leaves the pipeline: such a block is computed again.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = path


def folder_of(store: Path, content: str) -> Path:
    """Return where the blocks of a cell with this content hash lie."""
    return store / content[:2] / content


def _path(folder: Path, block: Block, table: str) -> Path:
    replicates, starts = f"r{block.first}-{block.stop}", f"s{block.first_start}-{block.stop_start}"
    return folder / f"{replicates}-{starts}.{table}.parquet"


def write_block(folder: Path, block: Block, fits: pa.Table, traces: pa.Table) -> None:
    """Store a finished block; it counts from the moment its fits are there, the last file."""
    for table, rows in (("traces", traces), ("fits", fits)):
        path = _path(folder, block, table)
        named = rows.replace_schema_metadata({NAME: f"{folder.name}/{path.name}"})
        with atomic_write(path) as temporary:
            pq.write_table(
                named, temporary, compression="lz4", use_dictionary=False, write_page_checksum=True
            )


def read_table(folder: Path, block: Block, table: str) -> pa.Table:
    """Read the `fits` or `traces` of a stored block.

    Raises
    ------
    DamagedBlockError
        If the file is damaged, or is another block's.
    """
    path = _path(folder, block, table)
    try:
        # ParquetFile rather than read_table: the latter takes folder names for partition keys.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            rows = file.read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DamagedBlockError(_path(folder, block, "fits"), reason) from error
    if (rows.schema.metadata or {}).get(NAME.encode()) != f"{folder.name}/{path.name}".encode():
        raise DamagedBlockError(_path(folder, block, "fits"), "not the block that its name says")
    if table == "fits" and rows.num_rows != block.n_fits:
        raise DamagedBlockError(path, f"{rows.num_rows} rows, not {block.n_fits}")
    return rows.replace_schema_metadata()


def contents(store: Path) -> list[Path]:
    """Return the folders of the contents that a store has anything of."""
    return sorted(path for path in store.glob("??/*") if path.is_dir())


def damage(folder: Path, block: Block) -> str | None:
    """Read a block and return what is wrong with it, None if it is whole."""
    try:
        read_table(folder, block, "fits")
        read_table(folder, block, "traces")
    except DamagedBlockError as error:
        return str(error)
    return None


def stored_blocks(folder: Path) -> list[Block]:
    """Return the blocks of a cell that are stored; who reads them sees whether they are whole."""
    names = sorted(path.name for path in folder.glob("*.fits.parquet"))
    found = map(BLOCK_NAME.fullmatch, names)
    return [Block(*map(int, match.groups())) for match in found if match]


def missing_blocks(
    replicates: int, starts: int, stored: Iterable[Block], size: int
) -> Iterator[Block]:
    """Yield the blocks, of at most `size` replicates, that complete a cell."""
    covered = _covered(replicates, starts, stored)
    for first_start, stop_start in _runs(covered.T):
        for first, stop in _runs(covered[:, [first_start]]):
            if not covered[first, first_start]:
                for begin in range(first, stop, size):
                    yield Block(begin, min(begin + size, stop), first_start, stop_start)


def blocks_of_shard(
    replicates: int, starts: int, stored: Iterable[Block], size: int
) -> Iterator[Block | None]:
    """Yield the blocks of a whole cell, None for those whose fits are all stored.

    They do not depend on what is stored: processes that begin at different times count alike.
    """
    covered = _covered(replicates, starts, stored)
    for block in missing_blocks(replicates, starts, [], size):
        there = covered[block.first : block.stop, block.first_start : block.stop_start].all()
        yield None if there else block


def _covered(replicates: int, starts: int, stored: Iterable[Block]) -> np.ndarray:
    """Tell of every replicate and start whether its fit is stored, shape (replicates, starts)."""
    covered = np.zeros((replicates, starts), bool)
    for block in stored:
        covered[block.first : block.stop, block.first_start : block.stop_start] = True
    return covered


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield [first, stop) of each run of equal adjacent rows."""
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    bounds = [0, *changes.tolist(), len(rows)]
    yield from pairwise(bounds)


def assembled(
    folder: Path, blocks: list[Block], replicates: int, starts: int, table: str, size: int
) -> Iterator[pa.Table]:
    """Yield the rows of a cell in order, `size` replicates at a time, whatever its blocks.

    Raises
    ------
    DamagedBlockError
        If a block is not whole.
    """
    keys = ["replicate", "start"] + (["iteration"] if table == "traces" else [])
    for first in range(0, replicates, size):
        stop = min(first + size, replicates)
        wanted = Block(first, stop, 0, starts)
        if wanted in blocks:
            yield read_table(folder, wanted, table)
            continue
        parts = (read_table(folder, block, table) for block in blocks if block.overlaps(wanted))
        rows = pa.concat_tables(parts)
        inside = pc.and_(
            pc.and_(
                pc.greater_equal(rows["replicate"], first),
                pc.less(rows["replicate"], stop),
            ),
            pc.less(rows["start"], starts),
        )
        rows = rows.filter(inside).sort_by([(key, "ascending") for key in keys]).combine_chunks()
        yield rows.filter(_first_of_equals(rows.select(keys)))


def _first_of_equals(keys: pa.Table) -> np.ndarray:
    """Tell which rows of sorted keys are not their predecessor again, shape (rows,).

    Runs of other sizes at the same time may have stored a fit twice, in blocks that overlap.
    """
    columns = [column.to_numpy() for column in keys.columns]
    new = np.ones(keys.num_rows, bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new
