"""The index over the experiments of a results folder."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.plan import FILE, MULTIRUN
from pipeline.report.environment import ENVIRONMENT
from pipeline.report.heading import changes, question_of

PAGE = "report.html"
COUNTS = (
    "n_cells",
    "n_fits",
    "n_converged",
    "n_claims",
    "n_claims_supported",
    "n_claims_refuted",
    "n_claims_inconclusive",
)


@dataclass(frozen=True)
class Entry:
    """An experiment's row; `job` is a multirun's folder, and empty elsewhere."""

    job: str
    experiment: str
    title: str
    question: str
    question_is_of_base: bool
    changes: list[str]
    link: str
    counts: dict[str, int]


def roots(folder: Path) -> list[Path]:
    """Return the folders whose indexes list the experiment in `folder`.

    That is the one it lies in, and for a job of a multirun the results folder above too.
    """
    parent = folder.absolute().parent
    return [parent, parent.parent.parent] if parent.parent.name == MULTIRUN else [parent]


def index_page(root: Path) -> str:
    """Render the index of the experiments in `root` that have a plan and a page, by name.

    The jobs of its multiruns come last. What is damaged or half-made is left out.
    """
    entries = [*_entries(root, "*"), *_entries(root, f"{MULTIRUN}/*/*")]
    return ENVIRONMENT.get_template("index.html.jinja").render(entries=entries)


def _entries(root: Path, pattern: str) -> Iterator[Entry]:
    for plan in sorted(root.glob(f"{pattern}/{FILE}")):
        folder = plan.parent
        if not (folder / PAGE).is_file():
            continue
        try:
            head = _head(plan)
            metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
            experiment, title, question = (head[k] for k in ("experiment", "title", "question"))
            overrides = head.get("overrides", [])
            counts = {name: metrics.get(name, 0) for name in COUNTS}
        except (OSError, ValueError, KeyError, yaml.YAMLError):
            continue
        inside = folder.relative_to(root)
        job = inside.parts[1] if len(inside.parts) > 1 else ""
        link = (inside / PAGE).as_posix()
        asked = question_of(question, overrides)
        yield Entry(job, experiment, title, *asked, changes(overrides), link, counts)


def _head(path: Path) -> dict[str, Any]:
    """Return the texts and lists of texts that a plan begins with; what follows may be long."""
    found: dict[str, Any] = {}
    key: str | None = None
    texts: list[str] | None = None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as file:
        for event in yaml.parse(file, Loader=loader):
            if isinstance(event, yaml.ScalarEvent):
                if texts is not None:
                    texts.append(event.value)
                elif key is None:
                    key = event.value
                else:
                    found[key], key = event.value, None
            elif key is not None and texts is None and isinstance(event, yaml.SequenceStartEvent):
                texts = []
            elif texts is not None and isinstance(event, yaml.SequenceEndEvent):
                found[str(key)], key, texts = texts, None, None
            elif key is not None:
                break
    return found
