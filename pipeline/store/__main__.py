"""The store of finished blocks of fits: what is in it, whether it is whole, what nobody needs.

    python -m pipeline.store                   (list: cells, blocks, fits, size)
    python -m pipeline.store verify            (read every block; exit 1 if one is damaged)
    python -m pipeline.store prune --dry-run   (what no plan needs)
    python -m pipeline.store prune             (remove it)

Options: store_dir=DIR (default .cells), results_dir=DIR (default results; may be given several
times): the plans below it say what is needed, so prune wants every results folder of the runs with
this store. Everything in a store can be computed again.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from pipeline.command import EXIT_ERROR, run_command
from pipeline.console import console, counted, show
from pipeline.errors import InputError
from pipeline.locks import Locks
from pipeline.plan import FILE, read_plan
from pipeline.store import BlockFile, DamagedBlockError, block_files, contents, read_block

log = logging.getLogger(__name__)

ACTIONS = ("list", "verify", "prune")
DRY_RUN = "--dry-run"
MOST_LINES = 20  # about blocks


class Entry(NamedTuple):
    """What the store holds of one content: `needed` names the cells of plans that it belongs to.

    `others` are no blocks: pieces that killed runs left, and what other versions stored.
    """

    folder: Path
    blocks: list[BlockFile]
    others: list[Path]
    n_bytes: int
    needed: list[str]


def entries(store: Path, cells: Mapping[str, list[str]]) -> Iterator[Entry]:
    """Yield what is in a store, by content; `cells` are those of plans that have each content."""
    for folder in contents(store):
        yield entry_of(folder, cells.get(folder.name, []))


def entry_of(folder: Path, needed: list[str]) -> Entry:
    """Look into the folder of a content."""
    # First all, then blocks: what a run finishes in between is no leftover.
    paths = set(folder.iterdir()) if folder.is_dir() else set()
    blocks = sorted(block_files(folder), key=lambda file: file.block)
    others = sorted(paths - {file.path for file in blocks})
    return Entry(folder, blocks, others, size(paths), needed)


def size(paths: Iterable[Path]) -> int:
    """Return the bytes of some files, and of those in folders among them."""
    return sum(size(path.iterdir()) if _is_folder(path) else _n_bytes(path) for path in paths)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _n_bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # a run has renamed it since
        return 0


def _remove(path: Path) -> None:
    if _is_folder(path):
        for inner in list(path.iterdir()):
            _remove(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def plans_below(folder: Path, seen: set[tuple[int, int]] | None = None) -> Iterator[Path]:
    """Yield the folders of plans below a folder, links followed.

    Raises
    ------
    InputError
        If a link leads nowhere: there may be plans behind it when a disk is back.
    OSError
        If a folder cannot be read.
    """
    seen = set() if seen is None else seen
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name == FILE:
            yield folder
        elif entry.is_dir():
            yield from plans_below(Path(entry.path), seen)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            raise InputError(
                f"{entry.path}: a link to nothing, and plans may be missing; remove it"
            )


def cells_of_plans(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Return the cells, `<folder of the plan>: <cell>`, that have each content.

    The hash alone counts, wherever a plan says that its store is: stores are moved, and a relative
    path is one from where the run was started.

    Raises
    ------
    InputError
        If a plan cannot be read.
    """
    cells: dict[str, list[str]] = {}
    for folder in folders:
        for cell in read_plan(folder).cells:
            cells.setdefault(cell.content, []).append(f"{folder}: {cell.id}")
    return cells


def list_store(found: Sequence[Entry], page: Console) -> None:
    """Print a line for each content, and the sum."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("content", no_wrap=True)
    for name in ("blocks", "fits", "size"):
        table.add_column(name, justify="right")
    table.add_column("needed by", overflow="fold")
    for entry in found:
        more = f" and {len(entry.needed) - 1} more" if len(entry.needed) > 1 else ""
        needed = f"{entry.needed[0]}{more}" if entry.needed else "no plan"
        table.add_row(
            entry.folder.name[:12],
            f"{len(entry.blocks):,}",
            f"{sum(file.block.n_fits for file in entry.blocks):,}",
            decimal(entry.n_bytes),
            needed,
        )
    show(page, table)
    n_bytes = decimal(sum(entry.n_bytes for entry in found))
    show(page, f"{len(found):,} contents, {n_bytes}{_leftovers(found)}", soft_wrap=True)


def _leftovers(found: Sequence[Entry]) -> str:
    others = [path for entry in found for path in entry.others]
    if not others:
        return ""
    return (
        f"; {len(others):,} files that are no blocks, {decimal(size(others))}: prune removes them"
    )


def verify(found: Sequence[Entry], page: Console) -> int:
    """Read every block, print those that are damaged, and return the status of the command."""
    n_read = n_damaged = n_unread = 0
    for entry in found:
        for file in entry.blocks:
            try:
                read_block(file)
                n_read += 1
                continue
            except DamagedBlockError as error:
                n_read, n_damaged = n_read + 1, n_damaged + 1
                told = str(error)
            except OSError as error:
                n_unread += 1
                told = f"{file.path}: {error.strerror or error}"
            if n_damaged + n_unread <= MOST_LINES:
                show(page, told, soft_wrap=True)
    after = "; the next run computes them again" if n_damaged else ""
    unread = f"; {n_unread:,} could not be read" if n_unread else ""
    line = (
        f"{counted(n_read, 'block')} read, {n_damaged:,} damaged{after}{unread}{_leftovers(found)}"
    )
    show(page, line, soft_wrap=True)
    return EXIT_ERROR if n_damaged + n_unread else 0


def prune(found: Sequence[Entry], store: Path, page: Console, dry_run: bool) -> None:
    """Remove the contents that no plan needs, and files that are no blocks.

    What a run is computing is kept. A dry run writes nothing, and so does not ask for locks.
    """
    n_contents = n_others = n_bytes = 0
    locks = None if dry_run else Locks(store)
    for listed in found:
        if listed.needed and not listed.others:
            continue
        content = listed.folder.name
        with locks.claim_all(content) if locks else nullcontext(True) as mine:
            if not mine:
                show(page, f"{listed.folder}: in use by a run, kept", soft_wrap=True)
                continue
            # Again: a run may have finished blocks since.
            entry = entry_of(listed.folder, listed.needed)
            if entry.needed:
                unneeded, n_others = entry.others, n_others + len(entry.others)
            else:
                unneeded, n_contents = [entry.folder], n_contents + 1
            n_bytes += size(unneeded)
            if not dry_run:
                for path in unneeded:
                    _remove(path)
    if locks:
        locks.close()
    others = f" and {n_others:,} files that are no blocks" if n_others else ""
    verb = "would be removed" if dry_run else "removed"
    line = f"{n_contents:,} contents that no plan needs{others}, {decimal(n_bytes)} in all: {verb}"
    show(page, line, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    action, store, results, dry_run = _parsed(arguments)
    if not store.is_dir():
        raise InputError(f"store_dir: {store} is no folder; allowed: the store of earlier runs")
    page = console()
    if action == "verify":
        return verify(list(entries(store, {})), page)
    plans = {folder: list(plans_below(folder)) if folder.is_dir() else [] for folder in results}
    for folder, below in plans.items():
        if action == "prune" and not below:
            raise InputError(
                f"results_dir: no plan below {str(folder)!r}, so nothing says what is needed, and "
                "nothing is removed; allowed: results_dir=DIR, the results of runs with this store"
            )
    planned = dict.fromkeys(path for below in plans.values() for path in below)
    found = list(entries(store, cells_of_plans(planned)))
    if action == "prune":
        prune(found, store, page, dry_run)
    else:
        list_store(found, page)
    return 0


def _parsed(arguments: Sequence[str]) -> tuple[str, Path, list[Path], bool]:
    action, store, results = ACTIONS[0], Path(".cells"), []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument in ACTIONS:
            action = argument
        elif equals and key in ("store_dir", "results_dir") and not value:
            raise InputError(f"{key}: got ''; allowed: a folder")
        elif equals and key == "store_dir":
            store = Path(value)
        elif equals and key == "results_dir":
            if not Path(value).is_dir():
                raise InputError(f"results_dir: got {value!r}; allowed: a folder that is there")
            results.append(Path(value))
        elif argument != DRY_RUN:
            raise InputError(
                f"argument: got {argument!r}; allowed: {', '.join(ACTIONS)}, {DRY_RUN}, "
                "store_dir=DIR, results_dir=DIR"
            )
    dry_run = DRY_RUN in arguments
    if dry_run and action != "prune":
        raise InputError(f"{DRY_RUN}: {action} changes nothing; allowed: with prune")
    return action, store, results or [Path("results")], dry_run


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
