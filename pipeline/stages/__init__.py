"""The stages: one thin module each, input and output around one call.

Each is a command, `python -m pipeline.stages.<stage> experiment=NAME [results_dir=DIR]`; a results
folder may be named instead, and without arguments the experiments of `params.yaml` are meant.
"""

import inspect
import re
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.command import run_command
from pipeline.errors import InputError
from pipeline.files import atomic_write
from pipeline.locks import alone_in

PARAMS = Path("params.yaml")
RESULTS_DIR = "results"
TIMINGS = "timings.parquet"

ARGUMENTS = """[experiment=NAME]
           [results_dir=DIR] [FOLDER]   (default: those of params.yaml)"""
LINE = 79  # characters of a line of help


def params() -> dict[str, Any]:
    """Return what `params.yaml` in the working directory says: `experiments` and `overrides`.

    Raises
    ------
    InputError
        If the file is there and holds anything else than lists of strings under these two keys.
    """
    if not PARAMS.is_file():
        return {"experiments": [], "overrides": []}
    try:
        content = yaml.safe_load(PARAMS.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{PARAMS}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{PARAMS}: got {content!r}; allowed: experiments: [...], overrides: [...]"
        )
    for key, value in content.items():
        if key not in ("experiments", "overrides"):
            raise InputError(f"{PARAMS}: {key}: unknown key; allowed: experiments, overrides")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{PARAMS}: {key}: got {value!r}; allowed: a list of strings")
    return {"experiments": [], "overrides": []} | content


def folders(arguments: Sequence[str]) -> list[Path]:
    """Return the results folders that a stage's arguments name.

    Raises
    ------
    InputError
        For an argument that is neither `experiment=NAME`, `results_dir=DIR` nor a folder.
    """
    results_dir, names, paths = Path(RESULTS_DIR), [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key == "experiment":
            names.append(value)
        elif equals and key == "results_dir":
            results_dir = Path(value)
        elif Path(argument).is_dir():
            paths.append(Path(argument))
        else:
            raise InputError(
                f"argument: got {argument!r}; allowed: experiment=NAME, results_dir=DIR, a folder"
            )
    if not names and not paths:
        names = params()["experiments"]
    return paths + [results_dir / name for name in names]


def _prose(docstring: str) -> str:
    """Return the paragraphs of a docstring before its first section, in lines for a terminal."""
    text = re.split(r"\n\n[A-Z][\w ]*\n-+\n", docstring, maxsplit=1)[0]
    return "\n\n".join(
        textwrap.fill(paragraph, LINE, break_long_words=False, break_on_hyphens=False)
        for paragraph in text.split("\n\n")
    )


def split_options(
    arguments: Sequence[str], names: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the arguments `name=value` of these names as a mapping, and the other arguments."""
    pairs = [argument.partition("=") for argument in arguments]
    options = {name: value for name, equals, value in pairs if equals and name in names}
    rest = [a for a, pair in zip(arguments, pairs, strict=True) if pair[0] not in options]
    return options, rest


def run(stage: Callable[..., None], options: Collection[str] = ()) -> None:
    """Run a stage as a command on the folders that `sys.argv` names, and exit with its status.

    `options` names the arguments `name=value` that the stage takes as keywords.
    """

    def work() -> None:
        if {"-h", "--help"} & set(sys.argv):
            for described in (sys.modules[stage.__module__], stage):
                print(f"{_prose(inspect.getdoc(described) or '')}\n")
            print(f"usage: python -m pipeline.stages.{stage.__name__} {ARGUMENTS}")
            for name in options:
                print(f"           [{name}=...]")
            return
        keywords, rest = split_options(sys.argv[1:], options)
        for folder in folders(rest):
            with alone_in(folder), timed(stage.__name__, folder):
                stage(folder, **keywords)

    run_command(work)


@contextmanager
def timed(stage: str, folder: Path) -> Iterator[None]:
    """Record the wall time of a stage in the folder's `timings.parquet`, replacing its last."""
    began = time.perf_counter()
    yield
    record_timings(folder, stage, stage, [("", time.perf_counter() - began)])


def _readable(path: Path) -> pd.DataFrame | None:
    """Return what can be read: clock readings are not worth a failure."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):
        return None


def record_timings(folder: Path, stage: str, what: str, rows: Sequence[tuple[str, float]]) -> None:
    """Replace what `timings.parquet` says of one thing in a stage by rows (cell, seconds)."""
    path = folder / TIMINGS
    new = pd.DataFrame(rows, columns=["cell", "seconds"])
    new.insert(0, "what", what)
    new.insert(0, "stage", stage)
    old = _readable(path)
    if old is not None:
        kept = old[(old["stage"] != stage) | (old["what"] != what)]
        new = pd.concat([kept, new], ignore_index=True) if len(new) else kept
    with atomic_write(path) as temporary:
        new.to_parquet(temporary, index=False)
