"""The content-addressed store of finished blocks of fits, and what is still missing from it.

A block is a file below the folder of its cell's content, `<block>.<digest>.arrow`: two Arrow
streams, its fits and its traces. The digest is of all bytes of the file, which have no checksum of
their own.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from pipeline.files import atomic_write

FILE_NAME = re.compile(r"r(\d+)-(\d+)-s(\d+)-(\d+)\.([0-9a-f]{16})\.arrow")
# Folders of contents, <two digits>/<all digits>: what else lies in a store's folder is not its own.
FIRST_DIGITS = re.compile(r"[0-9a-f]{2}")
CONTENT = re.compile(r"[0-9a-f]{64}")
# Key of a stream's metadata: cell, block and table that it was written as.
NAME = "block"
# Of rows of fits and of traces; fits have no iteration.
KEYS = ("replicate", "start", "iteration")
READ = ipc.IpcReadOptions(use_threads=False)


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


class Rows(NamedTuple):
    """The rows of some fits, and of their traces, in the order of replicates and starts."""

    fits: pa.Table
    traces: pa.Table


class DamagedBlockError(Exception):
    """A stored block, the file `path`, is gone or is not what its name says.

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


def write_block(folder: Path, block: Block, rows: Rows) -> None:
    """Store a finished block, whole or not at all."""
    written = pa.BufferOutputStream()
    options = ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    for name, table in zip(_names(folder, block), rows, strict=True):
        named = table.replace_schema_metadata({NAME: name})
        with ipc.new_stream(written, named.schema, options=options) as stream:
            stream.write_table(named)
    data = written.getvalue()
    with atomic_write(folder / f"{_stem(block)}.{_digest(data)}.arrow") as temporary:
        temporary.write_bytes(data)


def _names(folder: Path, block: Block) -> list[str]:
    return [f"{folder.name}/{_stem(block)}.{table}" for table in Rows._fields]


class BlockFile(NamedTuple):
    """A file of the store: the block that its name says, and the digest of its bytes."""

    path: Path
    block: Block
    digest: str


def block_files(folder: Path) -> list[BlockFile]:
    """Return the files of blocks in a folder of the store, by name."""
    return [BlockFile(folder / name, block, digest) for name, block, digest in _blocks_in(folder)]


def _blocks_in(folder: Path) -> Iterator[tuple[str, Block, str]]:
    """Yield what the names of block files say; a cell may have thousands."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        # A folder or a pipe is no block, whatever its name.
        if (match := FILE_NAME.fullmatch(entry.name)) and entry.is_file():
            *numbers, digest = match.groups()
            yield entry.name, Block(*map(int, numbers)), digest


def read_block(file: BlockFile) -> Rows:
    """Read a stored block.

    Raises
    ------
    DamagedBlockError
        If the file is damaged, missing, or another block's.
    OSError
        If it cannot be read for a reason that says nothing of its bytes, as rights that lack.
    """
    path, block, digest = file
    try:
        data = pa.py_buffer(path.read_bytes())
    except FileNotFoundError as error:
        raise DamagedBlockError(path, "no such file") from error
    except OSError as error:
        error.filename = str(path)  # which only opening names
        raise
    if _digest(data) != digest:
        raise DamagedBlockError(path, "these are not the bytes that were written")
    streams = pa.BufferReader(data)
    try:
        rows = [ipc.open_stream(streams, options=READ).read_all() for _ in Rows._fields]
    except MemoryError:  # one of Arrow's errors too
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedBlockError(path, " ".join(str(error).split())) from error
    for name, table in zip(_names(path.parent, block), rows, strict=True):
        if (table.schema.metadata or {}).get(NAME.encode()) != name.encode():
            raise DamagedBlockError(path, "it was written as another block")
    return Rows(*(table.replace_schema_metadata() for table in rows))


def contents(store: Path) -> list[Path]:
    """Return the folders of the contents that a store has anything of."""
    return [
        Path(folder.path)
        for first in _folders(store, FIRST_DIGITS)
        for folder in _folders(Path(first.path), CONTENT)
        if folder.name.startswith(first.name)
    ]


def _folders(where: Path, pattern: re.Pattern[str]) -> list[os.DirEntry[str]]:
    """Return the folders of a folder, no links, whose names match, by name."""
    with os.scandir(where) as found:
        matching = [entry for entry in found if pattern.fullmatch(entry.name)]
    folders = [entry for entry in matching if entry.is_dir(follow_symlinks=False)]
    return sorted(folders, key=lambda entry: entry.name)


def stored_blocks(folder: Path) -> list[Block]:
    """Return the blocks of a cell that are stored; who reads them sees whether they are whole."""
    return [block for _, block, _ in _blocks_in(folder)]


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
    folder: Path, blocks: Iterable[Block], replicates: int, starts: int, size: int
) -> Iterator[Rows]:
    """Yield the rows of a cell in order, `size` replicates at a time, whatever its blocks.

    Raises
    ------
    DamagedBlockError
        If a block is damaged or not there.
    """
    files = {file.block: file for file in block_files(folder)}
    # One that is gone since is told by its reader.
    files = {b: files.get(b, BlockFile(folder / _stem(b), b, "")) for b in blocks}
    for first in range(0, replicates, size):
        stop = min(first + size, replicates)
        wanted = Block(first, stop, 0, starts)
        if wanted in files:
            yield read_block(files[wanted])
            continue
        parts = [read_block(file) for block, file in files.items() if block.overlaps(wanted)]
        yield Rows(*(_within(wanted, tables) for tables in zip(*parts, strict=True)))


def _within(wanted: Block, tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows that are of the wanted block, each once, in order."""
    rows = pa.concat_tables(tables)
    inside = pc.and_(
        pc.and_(
            pc.greater_equal(rows["replicate"], wanted.first),
            pc.less(rows["replicate"], wanted.stop),
        ),
        pc.less(rows["start"], wanted.stop_start),
    )
    keys = [key for key in KEYS if key in rows.column_names]
    order = [(key, "ascending") for key in keys]
    rows = rows.filter(inside).sort_by(order).combine_chunks()
    return rows.filter(_first_of_equals(rows.select(keys)))


def _first_of_equals(keys: pa.Table) -> np.ndarray:
    """Tell which rows of sorted keys are not their predecessor again, shape (rows,).

    Runs of other sizes at the same time may have stored a fit twice, in blocks that overlap.
    """
    columns = [column.to_numpy() for column in keys.columns]
    new = np.ones(keys.num_rows, bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new
