"""The content-addressed store of finished blocks of fits, and what is still missing from it.

A block has two files below the folder of its cell's content, `<block>.<digest>.fits.parquet` and
`….traces.parquet`; the digest is of all bytes of the file, whose own checksums do not cover what
describes the columns.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.files import atomic_write

FILE_NAME = re.compile(r"r(\d+)-(\d+)-s(\d+)-(\d+)\.([0-9a-f]{16})\.(fits|traces)\.parquet")
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


def _stem(block: Block) -> str:
    return f"r{block.first}-{block.stop}-s{block.first_start}-{block.stop_start}"


def _digest(data: pa.Buffer) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def write_block(folder: Path, block: Block, fits: pa.Table, traces: pa.Table) -> None:
    """Store a finished block; it counts from the moment its fits are there, the last file."""
    # What is left of one that was damaged.
    for file in block_files(folder):
        if file.block == block:
            file.path.unlink()
    for table, rows in (("traces", traces), ("fits", fits)):
        name = f"{folder.name}/{_stem(block)}.{table}"
        written = pa.BufferOutputStream()
        pq.write_table(
            rows.replace_schema_metadata({NAME: name}), written,
            compression="lz4", use_dictionary=False,
        )  # fmt: skip
        data = written.getvalue()
        path = folder / f"{_stem(block)}.{_digest(data)}.{table}.parquet"
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)


class BlockFile(NamedTuple):
    """A file of the store: the block and table that its name says, and the digest of its bytes."""

    path: Path
    block: Block
    digest: str
    table: str


def block_files(folder: Path) -> list[BlockFile]:
    """Return the files of blocks in a folder of the store, by name."""
    found = []
    for path in sorted(folder.glob("*.parquet")):
        if match := FILE_NAME.fullmatch(path.name):
            *numbers, digest, table = match.groups()
            found.append(BlockFile(path, Block(*map(int, numbers)), digest, table))
    return found


def read_table(folder: Path, files: Sequence[BlockFile], block: Block, table: str) -> pa.Table:
    """Read the `fits` or `traces` of a stored block, one of the files of its folder.

    Raises
    ------
    DamagedBlockError
        If the file is damaged, missing, or another block's.
    """
    of_block = {file.table: file for file in files if file.block == block}
    counts = of_block["fits"].path if "fits" in of_block else folder / f"{_stem(block)}.fits"
    if table not in of_block:
        raise DamagedBlockError(counts, f"the {table} are gone")
    path, _, digest, _ = of_block[table]
    try:
        data = pa.py_buffer(path.read_bytes())
        if _digest(data) != digest:
            raise DamagedBlockError(counts, f"the {table} are not what was written")
        rows = pq.ParquetFile(data).read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedBlockError(counts, " ".join(str(error).split())) from error
    name = f"{folder.name}/{_stem(block)}.{table}"
    if (rows.schema.metadata or {}).get(NAME.encode()) != name.encode():
        raise DamagedBlockError(counts, f"the {table} are of another block")
    return rows.replace_schema_metadata()


def contents(store: Path) -> list[Path]:
    """Return the folders of the contents that a store has anything of."""
    return sorted(path for path in store.glob("??/*") if path.is_dir())


def damage(folder: Path, files: Sequence[BlockFile], block: Block) -> str | None:
    """Read a block and return what is wrong with it, None if it is whole."""
    try:
        read_table(folder, files, block, "fits")
        read_table(folder, files, block, "traces")
    except DamagedBlockError as error:
        return str(error)
    return None


def stored_blocks(folder: Path) -> list[Block]:
    """Return the blocks of a cell that are stored; who reads them sees whether they are whole."""
    return [file.block for file in block_files(folder) if file.table == "fits"]


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
    files = block_files(folder)
    for first in range(0, replicates, size):
        stop = min(first + size, replicates)
        wanted = Block(first, stop, 0, starts)
        if wanted in blocks:
            yield read_table(folder, files, wanted, table)
            continue
        parts = (
            read_table(folder, files, block, table) for block in blocks if block.overlaps(wanted)
        )
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
