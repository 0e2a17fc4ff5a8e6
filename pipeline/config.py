"""From Hydra overrides to a checked configuration in plain Python."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.checks import FACTORS, check
from pipeline.checks.values import one_line, refuse
from pipeline.core.algorithms import complete_settings
from pipeline.core.starts import complete_options
from pipeline.errors import InputError
from pipeline.schema import Claim, Config, Replay, Slope

CONF = Path(__file__).resolve().parent.parent / "conf"
ENTRIES = {"slopes": Slope, "claims": Claim, "replay": Replay}
# What a value of a type may be given as, in Python and in words.
SCALARS: dict[type, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number, without quotes"),
    int: ((int,), "an integer, without quotes"),
    str: ((str, int, float), "text"),
}
PYTHON_ERRORS = (ValueError, TypeError, KeyError, AttributeError, AssertionError)


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose `conf/` with Hydra overrides, check it, and return it as plain Python.

    The result has the keys of `schema.Config` plus `experiment`, the chosen experiment's name.

    Raises
    ------
    InputError
        For anything that the schema or `check` refuses.
    """
    try:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            composed = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
            experiment = composed.hydra.runtime.choices.get("experiment")
    # Hydra answers some malformed overrides with errors of Python's own.
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, *PYTHON_ERRORS) as error:
        raise InputError(_composition_message(error, overrides)) from error
    return checked(composed, experiment)


def defaults() -> dict[str, Any]:
    """Return what `conf/config.yaml` and the options that it chooses say, without an experiment."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        composed = hydra_compose("config", overrides=["~experiment"])
    content = OmegaConf.to_container(composed)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def checked(composed: DictConfig, experiment: Any) -> dict[str, Any]:
    """Merge a composed config into the schema and check its values."""
    if not isinstance(experiment, str) or not (CONF / f"experiment/{experiment}.yaml").is_file():
        raise InputError(f"experiment: got {experiment!r}; allowed: {_options('experiment')}")
    try:
        given = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        _check_shape(OmegaConf.to_container(given, resolve=True))
        merged = OmegaConf.merge(OmegaConf.structured(Config), given)
        config = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(_schema_message(error)) from error
    assert isinstance(config, dict)
    result = {"experiment": experiment} | {str(key): value for key, value in config.items()}
    check(result)
    for factor, complete in (("init", complete_options), ("algorithm", complete_settings)):
        result[factor] = {
            name: _completed(f"{factor}.{name}", entry, complete)
            for name, entry in result[factor].items()
        }
    return result


def method_and_options(entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return an init's or algorithm's method and the options beside it."""
    return entry["method"], {key: value for key, value in entry.items() if key != "method"}


def _completed(
    key: str,
    entry: dict[str, Any],
    complete: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Return an init or algorithm with all the options that its method has and no other key."""
    method, options = method_and_options(entry)
    try:
        return {"method": method} | complete(method, options)
    except ValueError as error:
        raise InputError(f"{key}.{one_line(str(error))}") from error


def _options(group: str) -> str:
    return ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))


def _composition_message(error: Exception, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, PYTHON_ERRORS) and not isinstance(error, HydraException):
        return f"overrides: got {' '.join(overrides)}; allowed: key=value ({one_line(text)})"
    if isinstance(error, MissingConfigException):
        group, _, option = str(error.missing_cfg_file).partition("/")
        if _options(group):
            return f"{group}: got {option!r}; allowed: {_options(group)}"
    unknown = re.match(r"Could not override '([^']+)'", text)
    in_file = re.search(r"In '(experiment/[^']+)': Could not override '[^']+@experiment\.", text)
    if in_file:
        return f"conf/{in_file[1]}.yaml: sets groups; allowed: first line # @package _global_"
    unlike = re.search(r"In '(experiment/[^']+)': .*\nCannot merge", text)
    if unlike and (said := _unlike(_content(unlike[1]), defaults())):
        return f"conf/{unlike[1]}.yaml: {said}"
    if unknown:
        keys = ", ".join(Config.__dataclass_fields__)
        return f"{unknown[1]}: unknown key; allowed at the top: {keys}"
    if isinstance(error, OverrideParseException):
        # What the parser says is about its grammar.
        return f"override: got {error.override!r}; allowed: key=value, +key=value, ~key, --help"
    chained = error.__cause__
    if isinstance(chained, OmegaConfBaseException | HydraException) and str(chained) not in text:
        text = f"{text}: {chained}"
    text = text.split("Config search path:")[0].split("To append to your config")[0]
    text = re.sub(r"\n?See https?://\S+.*", "", text)
    text = re.sub(r"\n\s*(full_key|object_type|reference_type)=?:?.*", "", text)
    return one_line(text)


def _content(path: str) -> Any:
    return yaml.safe_load((CONF / f"{path}.yaml").read_text())


def _unlike(given: Any, default: Any, key: str = "") -> str:
    """Say which key first holds a mapping in the place of a list or the reverse; "" if none does.

    OmegaConf, which cannot merge the two, does not name the key.
    """
    pair = (type(given), type(default))
    if set(pair) == {dict, list}:
        allowed = "a list, [a,b]" if isinstance(default, list) else "a mapping, {key: value}"
        return f"{key}: got {given!r}; allowed: {allowed}"
    if pair != (dict, dict):
        return ""
    inside = (
        _unlike(value, default[name], f"{key}.{name}" if key else str(name))
        for name, value in given.items()
        if name in default
    )
    return next(filter(None, inside), "")


def _schema_message(error: OmegaConfBaseException) -> str:
    key = error.full_key or error.key
    first = str(error.msg or error).splitlines()[0]
    if "not in '" in first or "not a member" in first:
        owner = error.object_type or Config
        allowed = ", ".join(getattr(owner, "__dataclass_fields__", {})) or "nothing more"
        return f"{key}: unknown key; allowed here: {allowed}"
    if "is not a ListConfig" in first or "to a ListConfig" in first:
        first = "not a list; allowed: a list, [a,b]"
    return f"{key}: {one_line(first)}"


def _check_shape(given: Any, key: str = "") -> None:
    """Refuse what the schema would answer with its own terms: shapes, and truth values."""
    sections = ("degeneracy", "reference", "targets", "executor", "tracking")
    mappings = {"", "schedule", "schedule.stop", *sections, *FACTORS}
    mapping = key in mappings or key.rpartition(".")[0] in FACTORS
    if isinstance(given, bool):
        refuse(key, given, "a number or text: nothing here is true or false")
    if mapping and not isinstance(given, dict):
        refuse(key, given, "a mapping, {key: value}")
    if key == "only" and given is not None:
        good = isinstance(given, list) and all(isinstance(partial, dict) for partial in given)
        if not good:
            refuse(key, given, "null, or a list of partial cells, [{mixture: notebook}]")
    if key in ("slopes", "claims"):
        if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
            refuse(key, given, "a list of mappings, [{name: ..., statistic: ...}]")
        for index, entry in enumerate(given):
            if not isinstance(entry.get("where"), dict | None):
                refuse(f"{key}[{index}].where", entry["where"], "null, or a partial cell, {...}")
    if key in ENTRIES and isinstance(given, list):
        for index, entry in enumerate(given):
            if isinstance(entry, dict):
                _check_entry(f"{key}[{index}]", entry, ENTRIES[key])
    if key == "replay" and not (
        isinstance(given, list) and all(isinstance(entry, dict) for entry in given)
    ):
        refuse(key, given, "a list of rules, [{rule: parameter, tolerances: [1e-3]}]")
    if isinstance(given, dict):
        for name, value in given.items():
            _check_shape(value, f"{key}.{name}" if key else str(name))
    elif isinstance(given, list):
        for index, value in enumerate(given):
            _check_shape(value, f"{key}[{index}]")


def _check_entry(key: str, entry: dict[str, Any], kind: type) -> None:
    """Refuse keys and types that an entry of a list does not have.

    OmegaConf's own messages do not say which entry; and it takes text that reads as a number for
    one.
    """
    hints = get_type_hints(kind)
    for name, value in entry.items():
        if name not in hints:
            raise InputError(f"{key}.{name}: unknown key; allowed here: {', '.join(hints)}")
        if name == "name" and isinstance(value, int | float):
            refuse(f"{key}.name", value, f"text, which a number is in quotes: '{value}'")
        _check_type(f"{key}.{name}", value, hints[name])


def _check_type(key: str, value: Any, hint: Any) -> None:
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and NoneType in options:
        return
    kind = options[0]
    if get_origin(kind) is list:
        if not isinstance(value, list):
            refuse(key, value, "a list, [a,b]")
        for index, each in enumerate(value):
            _check_type(f"{key}[{index}]", each, get_args(kind)[0])
    elif kind in SCALARS and not isinstance(value, SCALARS[kind][0]):
        refuse(key, value, SCALARS[kind][1])
