"""The folder that a study is tracked from: it has an id, and tracks by one process at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

NAME = ".mlflow_workspace"


@contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Open a file that one process at a time may have; the lock falls with the process.

    Without `fcntl` (Windows) nothing is locked: do not track from two processes at once there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def claimed(workspace: Path) -> Iterator[str]:
    """Have a workspace to oneself, and its id: random, kept in a file there.

    Neither host, user nor path is the workspace: the nodes of a cluster share one, and two
    machines may each have one at the same place. The file's inode goes with the id, so that a copy
    of the folder gets an id of its own.
    """
    with locked(workspace / NAME) as file:
        inode = str(os.fstat(file.fileno()).st_ino)
        file.seek(0)
        known = file.read().split()
        if len(known) != 2 or known[1] != inode:
            known = [uuid4().hex, inode]
            file.truncate(0)
            file.write(" ".join(known) + "\n")
            file.flush()
        yield known[0]
