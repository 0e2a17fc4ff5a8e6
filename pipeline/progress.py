"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

SECONDS_BEFORE_BAR = 1.0
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`; work that ends within a second shows nothing."""
    if not sys.stderr.isatty():
        yield _lines(label, total)
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), Remaining())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total)
    began = time.monotonic()

    def advance(n: int) -> None:
        bar.update(task, advance=n)
        if not bar.live.is_started and time.monotonic() - began > SECONDS_BEFORE_BAR:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def _lines(label: str, total: int) -> Callable[[int], None]:
    done = 0
    last = time.monotonic()

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last > SECONDS_BETWEEN_LINES and done < total:
            last = time.monotonic()
            log.info("%s: %d of %d", label, done, total)

    return advance
