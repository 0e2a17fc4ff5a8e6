"""What every command of the project does around its work: log, tell errors, exit with a status."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from pipeline.errors import ClusterError, InputError, TrackingError

EXIT_ERROR = 1
EXIT_INPUT = 2
EXIT_TRACKING = 3
EXIT_INTERRUPTED = 130


def _leave(*_: object) -> NoReturn:
    line = "interrupted: finished blocks are kept; the same command goes on from there"
    print(line, file=sys.stderr, flush=True)
    # Threads in compiled code cannot be stopped; files appear whole or not at all.
    os._exit(EXIT_INTERRUPTED)


def leave_when_interrupted() -> None:
    """End with a line and the status of an interruption while a command is still being imported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)


def run_command(work: Callable[[], int | None]) -> NoReturn:
    """Do a command's work and exit with its status."""
    status = exit_status(work)
    # All is written: an interpreter that is interrupted while it tidies up would end with another
    # status than that of the work.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def exit_status(work: Callable[[], int | None]) -> int:
    """Do the work and return its status; tell errors that are the user's in a line or two."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("alembic", "mlflow", "numba", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return work() or 0
    except BaseException as error:
        # Libraries answer an interruption with errors of their own.
        if interrupted or isinstance(error, KeyboardInterrupt):
            _leave()
        status = told(error)
        if status is None:
            raise
        return status


def told(error: BaseException) -> int | None:
    """Tell an error that is the user's in a line or two, and return its exit status; else None."""
    match error:
        case InputError():
            status = EXIT_INPUT
        case TrackingError():
            status = EXIT_TRACKING
        case ClusterError() | OSError() | MemoryError():
            status = EXIT_ERROR
        case _:
            return None
    print(f"error: {_line(error)}", file=sys.stderr)
    return status


def _line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        reason = f" ({error})" if str(error) else ""
        return (
            f"not enough memory{reason}; executor.workers=1 needs less, as do fewer replicates; "
            "finished blocks are kept"
        )
    if not isinstance(error, OSError):
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}"
