"""How things are said, and where tables for people are laid out and printed."""

import os
import re
import sys
from typing import Any

from rich.console import Console

WIDTH = 120  # of what does not go to a terminal, without COLUMNS


def console(width: int = WIDTH) -> Console:
    """Return what lays out tables: as wide as the terminal; else as COLUMNS, or this, says."""
    columns = os.environ.get("COLUMNS", "")
    given = int(columns) if columns.isdecimal() and int(columns) else width
    return Console(width=None if sys.stdout.isatty() else given, highlight=False, markup=False)


def counted(number: int, noun: str) -> str:
    """Say a number of things: "1 fit", "1,200 fits"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def show(page: Console, what: Any = "", soft_wrap: bool = False) -> None:
    """Print a text or a table without the blanks that fill its lines up."""
    with page.capture() as captured:
        page.print(what, soft_wrap=soft_wrap)
    try:
        sys.stdout.write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more, as after `| head`: the work goes on and the rest is not shown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
