"""Files that appear whole or not at all; and those that cannot be read."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it to disk and rename it to `path`.

    On any exception the temporary file is removed and `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: some writers choose the format by it.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)) and error.errno:
            error.filename = str(path)
            # Arrow's own words are longer, and name the errno by its number.
            error.strerror = os.strerror(error.errno)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with unix newlines, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def remove_others(folder: Path, keep: set[str]) -> None:
    """Remove the plain files in `folder` whose names are not in `keep`."""
    for path in folder.glob("*"):
        if path.is_file() and path.name not in keep:
            path.unlink()


@contextmanager
def reading(path: Path, stage: str) -> Iterator[None]:
    """Tell that a file, or a folder of parts, cannot be read, and which stage makes it.

    For the reading alone: libraries answer damage with many kinds of errors. Want of memory is not
    among them.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        when = "again" if path.exists() else "first"
        raise InputError(f"{path}: cannot be read; run the stage {stage} {when}") from error
