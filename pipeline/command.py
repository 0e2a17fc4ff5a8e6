"""What every command of the project does around its work: log, tell errors, exit with a status."""

import logging
import os
import signal
import sys
from collections.abc import Callable

from pipeline.errors import ClusterError, InputError, TrackingError

EXIT_ERROR = 1
EXIT_INPUT = 2
EXIT_TRACKING = 3
EXIT_INTERRUPTED = 130


def exit_status(work: Callable[[], int | None]) -> int:
    """Do the work and return its status; tell errors that are the user's in a line or two."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("alembic", "mlflow", "numba", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except TrackingError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_TRACKING
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        line = "interrupted: finished blocks are kept; the same command goes on from there"
        print(line, file=sys.stderr, flush=True)
        # Threads in compiled code cannot be stopped; files appear whole or not at all.
        os._exit(EXIT_INTERRUPTED)
