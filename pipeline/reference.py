"""What a configuration can name and say, for people: options of the groups, keys, figures.

Everything here is read from `conf/`, the schema and the registries, so that it cannot drift.
"""

import re
from collections.abc import Iterator
from dataclasses import MISSING as REQUIRED
from dataclasses import Field, fields, is_dataclass
from typing import Any, NamedTuple, get_args, get_origin

import yaml

from pipeline.checks import MEASURES
from pipeline.checks.values import one_line
from pipeline.config import CONF, defaults
from pipeline.core.outcomes import ADVICE
from pipeline.core.stopping import STOPPING_RULES
from pipeline.figures import FIGURES
from pipeline.schema import MEANING, Config

# In the order in which a study is thought of.
GROUPS = {
    "experiment": "one question: a study with all its settings",
    "mixture": "the truth that samples are drawn from; several make a grid",
    "observed": "real data, without a known truth",
    "model": "what EM estimates",
    "init": "how row 0 of a fit is chosen",
    "algorithm": "how the iterates are made",
    "schedule": "when to stop, what to record and to draw",
    "executor": "where blocks of fits run",
    "tracking": "where runs are shown",
}


class Key(NamedTuple):
    """A key of the configuration: its path, type, default and meaning."""

    path: str
    type: str
    default: str
    meaning: str


def options(group: str) -> dict[str, str]:
    """Return the options of a group of `conf/` and what each is, in a line."""
    return {path.stem: _described(path.read_text("utf-8")) for path in _files(group)}


def _files(group: str) -> list[Any]:
    return sorted((CONF / group).glob("*.yaml"))


def _described(text: str) -> str:
    """Return an experiment's title, the comment at the head of a file, or a citation."""
    content = yaml.safe_load(text)
    if "title" in content:
        return one_line(content["title"])
    comment = re.match(r"(?:#.*\n)+", text)
    if comment:
        return one_line(re.sub(r"^# ?", "", comment[0], flags=re.MULTILINE))
    (entry,) = content.values()
    return one_line(entry["source"])


def keys() -> list[Key]:
    """Return every key of the configuration, as the schema declares them."""
    return list(_keys(Config, "", defaults()))


def _keys(owner: Any, prefix: str, given: dict[str, Any]) -> Iterator[Key]:
    for item in fields(owner):
        path, meaning = f"{prefix}{item.name}", item.metadata[MEANING]
        value = given.get(item.name, _default(item))
        of, *entry = (get_origin(item.type), *get_args(item.type))
        if is_dataclass(item.type):
            yield Key(path, "mapping", "", meaning)
            yield from _keys(item.type, f"{path}.", value)
        elif of in (dict, list) and is_dataclass(entry[-1]):
            # Entries of a factor are named, those of a list counted.
            yield Key(path, "mapping" if of is dict else "list", _yaml(list(value)), meaning)
            yield from _keys(entry[-1], f"{path}.<name>." if of is dict else f"{path}[i].", {})
        else:
            yield Key(path, _type(item.type), _yaml(value), meaning)


def _default(item: Field) -> Any:
    return item.default if item.default_factory is REQUIRED else item.default_factory()


def _type(annotation: Any) -> str:
    """Name a type as a reader of YAML would."""
    names = {int: "integer", float: "number", str: "text", Any: "several", type(None): "null"}
    if annotation in names:
        return names[annotation]
    of, arguments = get_origin(annotation), get_args(annotation)
    if of is list:
        return "list" if arguments[0] is Any else f"list of {_type(arguments[0])}s"
    if of is dict:
        return "mapping"
    return " or ".join(_type(argument) for argument in arguments)


def _yaml(value: Any) -> str:
    if value is REQUIRED or value == "???":
        return "required"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return one_line(text.removesuffix("\n").removesuffix("..."))


def figures() -> dict[str, str]:
    """Return the figures that a configuration can ask for, and their titles."""
    return {kind.name: kind.title for kind in FIGURES}


def markdown() -> str:
    """Return the page `docs/reference.md`."""
    parts = [
        "# Reference: everything that a configuration can name",
        "Made by `python -m pipeline.list --markdown` from `conf/`, the schema and the registries.",
        "## Keys",
        "Any key can be given on the command line: `schedule.max_iter=100`, "
        "`'sample_sizes=[40,400]'`. The defaults are those of `conf/config.yaml` and of the "
        "options that it chooses; an experiment may say otherwise. `<name>` stands for an "
        "entry's name, `[i]` for its place. An option of an init or an algorithm that is null "
        "is the method's own default (`docs/statistics.md`).",
        _rows(("key", "type", "default", "meaning"), [_shown(key) for key in keys()]),
    ]
    for group, meaning in GROUPS.items():
        parts += [
            f"## `{group}`",
            f"{meaning[0].upper()}{meaning[1:]}. `{group}=…` chooses, one of `conf/{group}/`:",
            _rows((group, "what it is"), [(f"`{k}`", v) for k, v in options(group).items()]),
        ]
    names = {
        "stopping rules (`schedule.stop.rule`)": STOPPING_RULES,
        "outcomes of a fit": [outcome.name.lower() for outcome in ADVICE],
        "measures (`measures`)": MEASURES,
    }
    parts += [
        "## Figures",
        "`figures=[…]` chooses them and their order.",
        _rows(("figure", "title"), [(f"`{k}`", v) for k, v in figures().items()]),
        "## Other names",
        "`docs/statistics.md` defines them.",
    ]
    parts += [f"* {what}: {', '.join(f'`{name}`' for name in of)}" for what, of in names.items()]
    return "\n\n".join(parts) + "\n"


def _shown(key: Key) -> tuple[str, str, str, str]:
    default = f"`{key.default}`" if key.default not in ("", "required") else key.default
    return f"`{key.path}`", key.type, default, key.meaning


def _rows(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )
