"""What there is to choose: every option of every group, and the figures, in a line each.

python -m pipeline.list                  (all groups)
python -m pipeline.list init algorithm   (these)
python -m pipeline.list keys             (every key of the configuration, with its default)
python -m pipeline.list --markdown       (all of it, as docs/reference.md)
"""

import re
import sys
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipeline.command import run_command
from pipeline.console import console, show
from pipeline.errors import InputError
from pipeline.reference import GROUPS, figures, keys, markdown, options

FIGURES, KEYS = "figures", "keys"


def first_sentence(text: str) -> str:
    """Return a text up to its first full stop: no dots of an ellipsis, initial or abbreviation."""
    ended = re.split(r"(?<!\.)(?<!\b[A-Z])\.\s+(?=[A-Z])", text, maxsplit=1)[0]
    return ended if ended.endswith("..") else ended.removesuffix(".")


def _table(rows: dict[str, str]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, first_sentence(text))
    return table


def _keys() -> Table:
    table = Table(box=None, padding=(0, 2))
    for name in ("key", "default", "meaning"):
        table.add_column(name, overflow="fold", style="cyan" if name == "key" else "")
    for key in keys():
        table.add_row(key.path, key.default, key.meaning)
    return table


def _heading(name: str, meaning: str) -> Text:
    return Text.assemble((name, "bold"), f"  {meaning}")


def main(arguments: Sequence[str]) -> None:
    """Print what the command line asks for."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    if list(arguments) == ["--markdown"]:
        print(markdown(), end="")
        return
    known = (*GROUPS, FIGURES)
    for argument in arguments:
        if argument not in (*known, KEYS):
            raise InputError(f"group: got {argument!r}; allowed: {', '.join((*known, KEYS))}")
    page = console()
    for name in arguments or known:
        if name == KEYS:
            show(page, _keys())
        elif name == FIGURES:
            show(page, _heading("figures=[…]", "drawn for the page, in its order"))
            show(page, _table(figures()))
        else:
            show(page, _heading(f"{name}=…", GROUPS[name]))
            show(page, _table(options(name)))
        show(page)


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
