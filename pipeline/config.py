"""From Hydra overrides to a checked configuration in plain Python."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.core.algorithms import ALGORITHMS, complete_settings
from pipeline.core.model import make_model
from pipeline.core.sampling import ALLOCATIONS
from pipeline.core.starts import INITS, complete_options
from pipeline.core.stopping import STOPPING_RULES
from pipeline.errors import InputError
from pipeline.schema import Config

CONF = Path(__file__).resolve().parent.parent / "conf"
FACTORS = ("mixture", "observed", "model", "init", "algorithm")
# Bounds that keep integers within 64 bits and one sample within a machine's memory.
MOST_POINTS, MOST_REPLICATES, MOST_STARTS = 10**9, 10**9, 10**6
MOST_ITERATIONS, MOST_COMPONENTS, MOST_WORKERS, MOST_PENALTY = 10**12, 1000, 1024, 1e9
# Below, rounding errors hide what is to be measured; above, estimates would be of no use.
TOLERANCES = (1e-14, 1e-3)
# What can be measured of each fit besides, at a cost.
MEASURES = ("wald", "distances")
CELL_KEYS = ("mixture", "observed", "model", "sample_size", "init", "algorithm")
PYTHON_ERRORS = (ValueError, TypeError, KeyError, AttributeError, AssertionError)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*")


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
        raise InputError(f"{key}.{_one_line(str(error))}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _options(group: str) -> str:
    return ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))


def _composition_message(error: Exception, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, PYTHON_ERRORS) and not isinstance(error, HydraException):
        return f"overrides: got {' '.join(overrides)}; allowed: key=value ({_one_line(text)})"
    if isinstance(error, MissingConfigException):
        group, _, option = str(error.missing_cfg_file).partition("/")
        if _options(group):
            return f"{group}: got {option!r}; allowed: {_options(group)}"
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        keys = ", ".join(Config.__dataclass_fields__)
        return f"{unknown[1]}: unknown key; allowed at the top: {keys}"
    if isinstance(error, OverrideParseException):
        text = f"override: got {error.override!r}; allowed: key=value ({text})"
    chained = error.__cause__
    if isinstance(chained, OmegaConfBaseException | HydraException) and str(chained) not in text:
        text = f"{text}: {chained}"
    text = text.split("Config search path:")[0].split("To append to your config")[0]
    text = re.sub(r"\n?See https?://\S+.*", "", text)
    text = re.sub(r"\n\s*(full_key|object_type|reference_type)=?:?.*", "", text)
    return _one_line(text)


def _schema_message(error: OmegaConfBaseException) -> str:
    key = error.full_key or error.key
    first = str(error.msg or error).splitlines()[0]
    if "not in '" in first or "not a member" in first:
        owner = error.object_type or Config
        allowed = ", ".join(getattr(owner, "__dataclass_fields__", {})) or "nothing more"
        return f"{key}: unknown key; allowed here: {allowed}"
    if "is not a ListConfig" in first or "to a ListConfig" in first:
        first = "not a list; allowed: a list, [a,b]"
    return f"{key}: {_one_line(first)}"


def _refuse(key: str, value: Any, allowed: str) -> None:
    raise InputError(f"{key}: got {value!r}; allowed: {allowed}")


def _check_shape(given: Any, key: str = "") -> None:
    """Refuse what the schema would answer with its own terms: shapes, and truth values."""
    sections = ("degeneracy", "reference", "targets", "executor", "tracking")
    mappings = {"", "schedule", "schedule.stop", *sections, *FACTORS}
    mapping = key in mappings or key.rpartition(".")[0] in FACTORS
    if isinstance(given, bool):
        _refuse(key, given, "a number or text: nothing here is true or false")
    if mapping and not isinstance(given, dict):
        _refuse(key, given, "a mapping, {key: value}")
    if key == "only" and given is not None:
        good = isinstance(given, list) and all(isinstance(partial, dict) for partial in given)
        if not good:
            _refuse(key, given, "null, or a list of partial cells, [{mixture: notebook}]")
    if key in ("slopes", "claims"):
        if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
            _refuse(key, given, "a list of mappings, [{name: ..., statistic: ...}]")
        for index, entry in enumerate(given):
            if not isinstance(entry.get("where"), dict | None):
                _refuse(f"{key}[{index}].where", entry["where"], "null, or a partial cell, {...}")
    if key == "replay" and not (
        isinstance(given, list) and all(isinstance(entry, dict) for entry in given)
    ):
        _refuse(key, given, "a list of rules, [{rule: parameter, tolerances: [1e-3]}]")
    if isinstance(given, dict):
        for name, value in given.items():
            _check_shape(value, f"{key}.{name}" if key else str(name))
    elif isinstance(given, list):
        for index, value in enumerate(given):
            _check_shape(value, f"{key}[{index}]")


def _integer(key: str, value: Any, least: int, most: int, also: str = "") -> None:
    if not isinstance(value, int) or not least <= value <= most:
        _refuse(key, value, f"an integer from {least} to {most}{also}")


def _choice(key: str, value: Any, choices: Iterable[str], also: str = "") -> None:
    if value not in tuple(choices):
        _refuse(key, value, ", ".join(choices) + also)


def _numbers(key: str, values: Any) -> None:
    for value in values if isinstance(values, list) else [values]:
        if not isinstance(value, int | float) or not math.isfinite(value):
            _refuse(key, value, "finite numbers")


def _between(key: str, value: Any, least: float, most: float) -> None:
    if value is None or not least <= value <= most:
        _refuse(key, value, f"a number from {least:g} to {most:g}")


def _nonnegative(key: str, value: Any) -> None:
    if value is None or not (math.isfinite(value) and value >= 0):
        _refuse(key, value, "a finite number, zero or more")


def _distinct(key: str, values: list[Any]) -> None:
    if len(set(values)) != len(values):
        _refuse(key, values, "every entry once")


def check(config: dict[str, Any]) -> None:
    """Check the values of a configuration whose keys and types are already right.

    Raises
    ------
    InputError
        Naming the key, the value got and what is allowed.
    """
    for factor in FACTORS:
        for name in config[factor]:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                _refuse(f"{factor}.{name}", name, "names of letters, digits, '_' and '.'")
    for name, mixture in config["mixture"].items():
        _check_mixture(f"mixture.{name}", mixture)
    for name, model in config["model"].items():
        _check_model(f"model.{name}", model)
    for name, init in config["init"].items():
        _choice(f"init.{name}.method", init["method"], INITS)
    for name, algorithm in config["algorithm"].items():
        _choice(f"algorithm.{name}.method", algorithm["method"], ALGORITHMS)
    if not config["mixture"] and not config["observed"]:
        _refuse("mixture", [], "at least one mixture, or observed data")
    shared = set(config["mixture"]) & set(config["observed"])
    if shared:
        _refuse("observed", sorted(shared), "names that no mixture has")
    for factor in ("model", "init", "algorithm"):
        if not config[factor]:
            _refuse(factor, [], "at least one")
    _check_sizes(config)
    _check_schedule(config["schedule"])
    _check_replay(config)
    _check_only(config)
    _check_slopes(config)
    _check_claims(config)
    _integer("replicates", config["replicates"], 1, MOST_REPLICATES)
    _integer("starts", config["starts"], 1, MOST_STARTS)
    _integer("seed", config["seed"], 0, 2**63 - 1)
    _check_degeneracy(config["degeneracy"])
    for key in ("tolerance", "scale_ratio"):
        _between(f"reference.{key}", config["reference"][key], 0.0, 0.1)
    for key, values in config["targets"].items():
        _check_targets(f"targets.{key}", values)
    _choice("executor.backend", config["executor"]["backend"], ("local",))
    if config["executor"]["workers"] is not None:
        _integer("executor.workers", config["executor"]["workers"], 1, MOST_WORKERS)
    _check_tracking(config["tracking"])
    for measure in config["measures"]:
        _choice("measures", measure, MEASURES)
    _distinct("measures", config["measures"])
    _choice("compression", config["compression"], ("auto", "none"))
    _between("compression_tolerance", config["compression_tolerance"], *TOLERANCES)
    _choice("report", config["report"], ("full", "minimal"))
    for key in ("results_dir", "store_dir"):
        if not config[key]:
            _refuse(key, config[key], "a folder")


def _check_mixture(key: str, mixture: dict[str, Any]) -> None:
    weights, means, scales = (mixture[part] for part in ("weights", "means", "scales"))
    if not weights or not len(weights) == len(means) == len(scales):
        lengths = f"{len(weights)} weights, {len(means)} means, {len(scales)} scales"
        _refuse(key, lengths, "equal lengths, at least 1")
    for part in ("weights", "means", "scales"):
        _numbers(f"{key}.{part}", mixture[part])
    if not all(weight > 0 for weight in weights):
        _refuse(f"{key}.weights", weights, "positive numbers that sum to 1")
    if abs(math.fsum(weights) - 1) > 1e-9:
        _refuse(f"{key}.weights", f"{weights} (sum {math.fsum(weights):.12g})", "a sum of 1")
    if not all(scale > 0 for scale in scales):
        _refuse(f"{key}.scales", scales, "positive numbers (standard deviations)")
    _choice(f"{key}.allocation", mixture["allocation"], ALLOCATIONS)


def _check_model(key: str, model: dict[str, Any]) -> None:
    n_components = model["n_components"]
    if n_components is not None:
        _integer(f"{key}.n_components", n_components, 1, MOST_COMPONENTS)
    _choice(f"{key}.means", model["means"], ("free", "symmetric"))
    for part, words in (("weights", ("free", "equal")), ("scales", ("free", "shared"))):
        value = model[part]
        if isinstance(value, str):
            _choice(f"{key}.{part}", value, words, ", or fixed numbers")
        else:
            _numbers(f"{key}.{part}", value)
    if n_components is not None:
        check_model_of_size(key, model, n_components)


def check_model_of_size(key: str, model: dict[str, Any], n_components: int) -> None:
    """Refuse a model that the core cannot fit with this many components."""
    try:
        make_model(n_components, model["weights"], model["means"], model["scales"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: {_one_line(str(error))}") from error


def _check_sizes(config: dict[str, Any]) -> None:
    sizes = config["sample_sizes"]
    if config["mixture"] and not sizes:
        _refuse("sample_sizes", sizes, "at least one integer of at least 1")
    for size in sizes:
        if size != math.inf:
            _integer("sample_sizes", size, 1, MOST_POINTS, ", or inf (the population itself)")
    _distinct("sample_sizes", sizes)


def _check_schedule(schedule: dict[str, Any]) -> None:
    _integer("schedule.max_iter", schedule["max_iter"], 0, MOST_ITERATIONS)
    rule, tolerance = schedule["stop"]["rule"], schedule["stop"]["tolerance"]
    _choice("schedule.stop.rule", rule, STOPPING_RULES)
    if rule != "never" or tolerance is not None:
        _nonnegative("schedule.stop.tolerance", tolerance)
    _integer("schedule.stop.patience", schedule["stop"]["patience"], 1, MOST_ITERATIONS)
    for key in ("record", "snapshots"):
        iterations = schedule[key]
        if isinstance(iterations, list):
            for iteration in iterations:
                _integer(f"schedule.{key}", iteration, 0, MOST_ITERATIONS)
            _distinct(f"schedule.{key}", iterations)
        else:
            _choice(f"schedule.{key}", iterations, ("all", "geometric"), ", a list of iterations")
    kept = schedule["record_replicates"]
    if kept != "all":
        _integer("schedule.record_replicates", kept, 0, MOST_REPLICATES, ", or all")


def _check_targets(key: str, values: list[float]) -> None:
    if not values:
        _refuse(key, values, "at least one positive number")
    for value in values:
        if not (value > 0 and math.isfinite(value)):
            _refuse(key, value, "positive numbers")
    _distinct(key, values)


def _check_degeneracy(degeneracy: dict[str, Any]) -> None:
    _nonnegative("degeneracy.scale", degeneracy["scale"])
    _nonnegative("degeneracy.count", degeneracy["count"])
    floor, scale = degeneracy["scale_floor"], degeneracy["scale"]
    if floor is not None and not scale < floor <= 1.0:
        allowed = f"null, or a number above degeneracy.scale ({scale:g}) and at most 1"
        _refuse("degeneracy.scale_floor", floor, allowed)
    penalty = degeneracy["penalty"]
    if penalty is not None and not 0.0 < penalty <= MOST_PENALTY:
        _refuse(
            "degeneracy.penalty", penalty, f"null, or a number above 0, at most {MOST_PENALTY:g}"
        )


def _check_replay(config: dict[str, Any]) -> None:
    asked = []
    for index, entry in enumerate(config["replay"]):
        key = f"replay[{index}]"
        _choice(f"{key}.rule", entry["rule"], [rule for rule in STOPPING_RULES if rule != "never"])
        _integer(f"{key}.patience", entry["patience"], 1, MOST_ITERATIONS)
        if not entry["tolerances"]:
            _refuse(f"{key}.tolerances", entry["tolerances"], "at least one number")
        for tolerance in entry["tolerances"]:
            _nonnegative(f"{key}.tolerances", tolerance)
            asked.append((entry["rule"], tolerance, entry["patience"]))
    _distinct("replay", asked)
    if asked and config["schedule"]["record"] != "all":
        _refuse(
            "replay",
            f"{len(asked)} rules with schedule.record={config['schedule']['record']}",
            "rules for complete traces (schedule.record=all), or none (replay=[])",
        )


def _check_only(config: dict[str, Any]) -> None:
    for partial in config["only"] or []:
        _check_partial("only", partial, config)


def _check_partial(where: str, partial: dict[str, Any], config: dict[str, Any]) -> None:
    for key, value in partial.items():
        _choice(where, key, CELL_KEYS)
        known = list(config["sample_sizes"] if key == "sample_size" else config[key])
        if value not in known:
            _refuse(f"{where}.{key}", value, ", ".join(map(str, known)) or "nothing")


def _check_named(key: str, entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        if not NAME.fullmatch(entry["name"]):
            _refuse(f"{key}[{index}].name", entry["name"], "letters, digits, '_' and '.'")
    _distinct(f"{key}: name", [entry["name"] for entry in entries])


def _check_slopes(config: dict[str, Any]) -> None:
    _check_named("slopes", config["slopes"])
    for slope in config["slopes"]:
        key = f"slopes: {slope['name']}"
        _check_partial(f"{key}: where", slope["where"] or {}, config)
        labels = [label for label in CELL_KEYS if label != slope["factor"]]
        for label in slope["by"] or []:
            _choice(f"{key}: by", label, labels)
        _distinct(f"{key}: by", slope["by"] or [])


def _check_claims(config: dict[str, Any]) -> None:
    level = config["claims_level"]
    if not 0.5 <= level < 1.0:
        _refuse("claims_level", level, "a number from 0.5 to below 1")
    _check_named("claims", config["claims"])
    for claim in config["claims"]:
        key = f"claims: {claim['name']}"
        for part in ("claim", "source"):
            if not claim[part].strip():
                _refuse(f"{key}: {part}", claim[part], "text: every claim has words and a source")
        if (claim["statistic"] is None) == (claim["slope"] is None):
            given = [part for part in ("statistic", "slope") if claim[part] is not None]
            _refuse(key, " and ".join(given) or "neither", "statistic or slope, one of the two")
        if claim["slope"] is not None:
            _choice(f"{key}: slope", claim["slope"], [slope["name"] for slope in config["slopes"]])
        _check_partial(f"{key}: where", claim["where"] or {}, config)
        _check_region(key, claim)
        _between(f"{key}: allowed_missing", claim["allowed_missing"], 0.0, 1.0)


def _check_region(key: str, claim: dict[str, Any]) -> None:
    """Refuse a claim that does not say one region, of more than a point."""
    parts = ("expected", "margin", "at_least", "at_most", "between")
    given = {part: claim[part] for part in parts if claim[part] is not None}
    if set(given) not in ({"expected", "margin"}, {"at_least"}, {"at_most"}, {"between"}):
        allowed = "expected with margin, at_least, at_most, or between"
        _refuse(key, ", ".join(given) or "no region", allowed)
    for part, value in given.items():
        _numbers(f"{key}: {part}", value)
    if "margin" in given and not given["margin"] > 0:
        _refuse(f"{key}: margin", given["margin"], "a positive number, in units of the statistic")
    if "between" in given and not (
        len(given["between"]) == 2 and given["between"][0] < given["between"][1]
    ):
        _refuse(f"{key}: between", given["between"], "[low, high] with low < high")


def _check_tracking(tracking: dict[str, Any]) -> None:
    backend, uri = tracking["backend"], tracking["uri"]
    _choice("tracking.backend", backend, ("sqlite", "server", "none"))
    _integer("tracking.max_steps", tracking["max_steps"], 2, MOST_ITERATIONS)
    if backend == "server" and not re.fullmatch(r"https?://[^/\s]+.*", uri or ""):
        _refuse("tracking.uri", uri, "the server's address, http://host:port")
    if backend == "sqlite" and uri is not None:
        path = uri.removeprefix("sqlite:///")
        if path == uri or not path or path.startswith(":memory:") or Path(path).is_dir():
            _refuse("tracking.uri", uri, "null or sqlite:///file.db")
