"""What another process is at work on, told by locks that end with the process: fits, results.

Every process that computes into a store holds a lock on a range of bytes of one empty file, a byte
for each replicate that it works on: two that overlap are seen whatever their blocks. The kernel
drops the locks of a process that ends, however it ends, and network file systems know them (NFS 4).
Where there is no fcntl (Windows), nothing is locked: two runs at once then may compute a block
twice, and both write the same bytes.

A results folder is one process's at a time: the lock is on the folder itself and needs no file. On
network file systems it is seen by the processes of one machine alone.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

NAME = "lock"
REPLICATE_BITS = 30  # a cell has at most 10^9 replicates
CELL_BITS = 32  # of its content: two cells that share them at worst wait for each other


class Locks:
    """The locks of this process on one store; one instance for each process and store.

    POSIX locks belong to a process: its own threads do not exclude each other, and the locks end
    when any of its descriptors of the file is closed.
    """

    def __init__(self, store: Path) -> None:
        store.mkdir(parents=True, exist_ok=True)
        self._file = (store / NAME).open("ab")

    def close(self) -> None:
        """Give up every lock of this process on the store."""
        self._file.close()

    def claim_all(self, content: str) -> AbstractContextManager[bool]:
        """Lock every replicate of a cell, as `claim` does."""
        return self.claim(content, 0, 1 << REPLICATE_BITS)

    @contextmanager
    def claim(self, content: str, first: int, stop: int) -> Iterator[bool]:
        """Lock replicates [first, stop) of a cell; yield False if another process has some.

        Parameters
        ----------
        content : str
            The hexadecimal hash of what the cell's fits are.
        """
        if fcntl is None:
            yield True
            return
        cell = int(content, 16) & ((1 << CELL_BITS) - 1)
        where = ((cell << REPLICATE_BITS) + first, stop - first)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, where[1], where[0])
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, where[1], where[0])


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Have a results folder for this process; wait, with a line, until another one has left it.

    Not to be nested. A folder that is not there is nobody's.
    """
    if fcntl is None or not folder.is_dir():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another run is at work in this results folder: waiting", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
