"""Files that appear whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
            if error.errno:
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
