"""What the values of a configuration may be."""

import math
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from socket import AF_INET
from typing import Any
from urllib.parse import urlsplit

from pipeline.core.algorithms import ALGORITHMS
from pipeline.core.model import make_model
from pipeline.core.sampling import ALLOCATIONS
from pipeline.core.starts import INITS
from pipeline.core.stopping import STOPPING_RULES
from pipeline.errors import InputError
from pipeline.figures import FIGURES

FACTORS = ("mixture", "observed", "model", "init", "algorithm")
# Bounds that keep integers within 64 bits and one sample within a machine's memory.
MOST_POINTS, MOST_REPLICATES, MOST_STARTS = 10**9, 10**9, 10**6
MOST_ITERATIONS, MOST_COMPONENTS, MOST_WORKERS, MOST_PENALTY = 10**12, 1000, 1024, 1e9
# Below, rounding errors hide what is to be measured; above, estimates would be of no use.
TOLERANCES = (1e-14, 1e-3)
# What can be measured of each fit besides, at a cost.
MEASURES = ("wald", "distances")
# The keys of `executor` that each backend has.
EXECUTOR_KEYS = {
    "local": ("workers",),
    "dask": ("workers", "address", "retries"),
    "slurm": (
        *("retries", "jobs", "cores", "memory", "walltime", "queue", "account", "directives"),
        *("interface", "python", "log_dir"),
    ),
}
SLURM_FORMS = {
    "memory": (r"\d+(\.\d+)? ?[KMGT]i?B", "as in 8GB"),
    "walltime": (r"(\d+-)?\d{1,2}:\d{2}(:\d{2})?", "as in 01:00:00 or 2-00:00:00"),
}
INSTALL_SCALE = "after pip install 'em-convergence[scale]' also dask, slurm"
MOST_RETRIES = 100
CELL_KEYS = ("mixture", "observed", "model", "sample_size", "init", "algorithm")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*")


def one_line(text: str) -> str:
    """Return a text without line breaks and repeated blanks."""
    return " ".join(text.split())


def refuse(key: str, value: Any, allowed: str) -> None:
    """Raise an InputError that names the key, the value got and what is allowed."""
    raise InputError(f"{key}: got {value!r}; allowed: {allowed}")


def _integer(key: str, value: Any, least: int, most: int, also: str = "") -> None:
    if not isinstance(value, int) or not least <= value <= most:
        refuse(key, value, f"an integer from {least} to {most}{also}")


def _choice(key: str, value: Any, choices: Iterable[str], also: str = "") -> None:
    if value not in tuple(choices):
        refuse(key, value, ", ".join(choices) + also)


def _numbers(key: str, values: Any) -> None:
    for value in values if isinstance(values, list) else [values]:
        if not isinstance(value, int | float) or not math.isfinite(value):
            refuse(key, value, "finite numbers")


def _between(key: str, value: Any, least: float, most: float) -> None:
    if value is None or not least <= value <= most:
        refuse(key, value, f"a number from {least:g} to {most:g}")


def _nonnegative(key: str, value: Any) -> None:
    if value is None or not (math.isfinite(value) and value >= 0):
        refuse(key, value, "a finite number, zero or more")


def _distinct(key: str, values: list[Any]) -> None:
    if len(set(values)) != len(values):
        refuse(key, values, "every entry once")


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
                refuse(f"{factor}.{name}", name, "names of letters, digits, '_' and '.'")
    for name, mixture in config["mixture"].items():
        _check_mixture(f"mixture.{name}", mixture)
    for name, model in config["model"].items():
        _check_model(f"model.{name}", model)
    for name, init in config["init"].items():
        _choice(f"init.{name}.method", init["method"], INITS)
    for name, algorithm in config["algorithm"].items():
        _choice(f"algorithm.{name}.method", algorithm["method"], ALGORITHMS)
    if not config["mixture"] and not config["observed"]:
        refuse("mixture", [], "at least one mixture, or observed data")
    shared = set(config["mixture"]) & set(config["observed"])
    if shared:
        refuse("observed", sorted(shared), "names that no mixture has")
    for factor in ("model", "init", "algorithm"):
        if not config[factor]:
            refuse(factor, [], "at least one")
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
    _check_executor(config["executor"])
    _check_tracking(config["tracking"])
    for measure in config["measures"]:
        _choice("measures", measure, MEASURES)
    _distinct("measures", config["measures"])
    _choice("compression", config["compression"], ("auto", "none"))
    _between("compression_tolerance", config["compression_tolerance"], *TOLERANCES)
    _choice("report", config["report"], ("full", "minimal"))
    _check_figures(config["figures"])
    _check_shard(config["shard"])
    for key in ("results_dir", "store_dir"):
        if not config[key]:
            refuse(key, config[key], "a folder")


def _check_mixture(key: str, mixture: dict[str, Any]) -> None:
    weights, means, scales = (mixture[part] for part in ("weights", "means", "scales"))
    if not weights or not len(weights) == len(means) == len(scales):
        lengths = f"{len(weights)} weights, {len(means)} means, {len(scales)} scales"
        refuse(key, lengths, "equal lengths, at least 1")
    for part in ("weights", "means", "scales"):
        _numbers(f"{key}.{part}", mixture[part])
    if not all(weight > 0 for weight in weights):
        refuse(f"{key}.weights", weights, "positive numbers that sum to 1")
    if abs(math.fsum(weights) - 1) > 1e-9:
        refuse(f"{key}.weights", f"{weights} (sum {math.fsum(weights):.12g})", "a sum of 1")
    if not all(scale > 0 for scale in scales):
        refuse(f"{key}.scales", scales, "positive numbers (standard deviations)")
    _choice(f"{key}.allocation", mixture["allocation"], ALLOCATIONS)


def _check_shard(shard: str | None) -> None:
    if shard is None:
        return
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", shard)
    if match is None or int(match[1]) > int(match[2]):
        refuse("shard", shard, "k/n with k from 1 to n, such as 3/16")


def _check_figures(figures: Any) -> None:
    if figures == "all":
        return
    names = [kind.name for kind in FIGURES]
    if not isinstance(figures, list):
        refuse("figures", figures, f"all, or a list of {', '.join(names)}")
    for name in figures:
        _choice("figures", name, names)
    _distinct("figures", figures)


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
        raise InputError(f"{key}: {one_line(str(error))}") from error


def _check_sizes(config: dict[str, Any]) -> None:
    sizes = config["sample_sizes"]
    if config["mixture"] and not sizes:
        refuse("sample_sizes", sizes, "at least one integer of at least 1")
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
        refuse(key, values, "at least one positive number")
    for value in values:
        if not (value > 0 and math.isfinite(value)):
            refuse(key, value, "positive numbers")
    _distinct(key, values)


def _check_degeneracy(degeneracy: dict[str, Any]) -> None:
    _nonnegative("degeneracy.scale", degeneracy["scale"])
    _nonnegative("degeneracy.count", degeneracy["count"])
    floor, scale = degeneracy["scale_floor"], degeneracy["scale"]
    if floor is not None and not scale < floor <= 1.0:
        allowed = f"null, or a number above degeneracy.scale ({scale:g}) and at most 1"
        refuse("degeneracy.scale_floor", floor, allowed)
    penalty = degeneracy["penalty"]
    if penalty is not None and not 0.0 < penalty <= MOST_PENALTY:
        refuse(
            "degeneracy.penalty", penalty, f"null, or a number above 0, at most {MOST_PENALTY:g}"
        )


def _check_replay(config: dict[str, Any]) -> None:
    asked = []
    for index, entry in enumerate(config["replay"]):
        key = f"replay[{index}]"
        _choice(f"{key}.rule", entry["rule"], [rule for rule in STOPPING_RULES if rule != "never"])
        _integer(f"{key}.patience", entry["patience"], 1, MOST_ITERATIONS)
        if not entry["tolerances"]:
            refuse(f"{key}.tolerances", entry["tolerances"], "at least one number")
        for tolerance in entry["tolerances"]:
            _nonnegative(f"{key}.tolerances", tolerance)
            asked.append((entry["rule"], tolerance, entry["patience"]))
    _distinct("replay", asked)
    if asked and config["schedule"]["record"] != "all":
        refuse(
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
            refuse(f"{where}.{key}", value, ", ".join(map(str, known)) or "nothing")


def _check_named(key: str, entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        if not NAME.fullmatch(entry["name"]):
            refuse(f"{key}[{index}].name", entry["name"], "letters, digits, '_' and '.'")
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
        refuse("claims_level", level, "a number from 0.5 to below 1")
    _check_named("claims", config["claims"])
    for claim in config["claims"]:
        key = f"claims: {claim['name']}"
        for part in ("claim", "source"):
            if not claim[part].strip():
                refuse(f"{key}: {part}", claim[part], "text: every claim has words and a source")
        if (claim["statistic"] is None) == (claim["slope"] is None):
            given = [part for part in ("statistic", "slope") if claim[part] is not None]
            refuse(key, " and ".join(given) or "neither", "statistic or slope, one of the two")
        if claim["slope"] is not None:
            known = [slope["name"] for slope in config["slopes"]]
            if not known:
                refuse(f"{key}: slope", claim["slope"], "none: the experiment has no slopes")
            _choice(f"{key}: slope", claim["slope"], known)
        _check_partial(f"{key}: where", claim["where"] or {}, config)
        _check_region(key, claim)
        _between(f"{key}: allowed_missing", claim["allowed_missing"], 0.0, 1.0)


def _check_region(key: str, claim: dict[str, Any]) -> None:
    """Refuse a claim that does not say one region, of more than a point."""
    parts = ("expected", "margin", "at_least", "at_most", "between")
    given = {part: claim[part] for part in parts if claim[part] is not None}
    if set(given) not in ({"expected", "margin"}, {"at_least"}, {"at_most"}, {"between"}):
        allowed = "expected with margin, at_least, at_most, or between"
        refuse(key, ", ".join(given) or "no region", allowed)
    for part, value in given.items():
        _numbers(f"{key}: {part}", value)
    if "margin" in given and not given["margin"] > 0:
        refuse(f"{key}: margin", given["margin"], "a positive number, in units of the statistic")
    if "between" in given and not (
        len(given["between"]) == 2 and given["between"][0] < given["between"][1]
    ):
        refuse(f"{key}: between", given["between"], "[low, high] with low < high")


def _check_executor(executor: dict[str, Any]) -> None:
    backend, address = executor["backend"], executor["address"]
    _choice("executor.backend", backend, EXECUTOR_KEYS)
    for key, value in executor.items():
        if value is not None and key not in ("backend", *EXECUTOR_KEYS[backend]):
            keys = ", ".join(EXECUTOR_KEYS[backend])
            refuse(f"executor.{key}", value, f"null; the backend {backend} has {keys}")
    for key in ("workers", "jobs", "cores"):
        if executor[key] is not None or (backend == "slurm" and key != "workers"):
            _integer(f"executor.{key}", executor[key], 1, MOST_WORKERS)
    if backend == "local":
        return
    if not all(find_spec(package) for package in ("dask_jobqueue", "distributed")):
        refuse("executor.backend", backend, "local, or " + INSTALL_SCALE)
    _integer("executor.retries", executor["retries"], 0, MOST_RETRIES)
    if address is not None and not re.fullmatch(r"(tcp|tls)://\S+:\d+", address):
        refuse("executor.address", address, "null, or a running scheduler's, tcp://host:port")
    if address is not None and executor["workers"] is not None:
        refuse("executor.workers", executor["workers"], "null: the scheduler has its workers")
    if backend == "slurm":
        for key, (form, words) in SLURM_FORMS.items():
            if not re.fullmatch(form, executor[key] or ""):
                refuse(f"executor.{key}", executor[key], words)
        for directive in executor["directives"] or []:
            if not re.fullmatch(r"-\S.*", directive):
                refuse("executor.directives", directive, "options of sbatch, [--qos=long]")
        if executor["interface"] is not None:
            _choice("executor.interface", executor["interface"], _interfaces())


def _interfaces() -> list[str]:
    """Return the names of this machine's network interfaces that have an address of IPv4."""
    from psutil import net_if_addrs  # installed with Dask

    found = net_if_addrs().items()
    return [name for name, addresses in found if AF_INET in [a.family for a in addresses]]


def _check_tracking(tracking: dict[str, Any]) -> None:
    backend, uri = tracking["backend"], tracking["uri"]
    _choice("tracking.backend", backend, ("sqlite", "server", "none"))
    _integer("tracking.max_steps", tracking["max_steps"], 2, MOST_ITERATIONS)
    if uri is not None and "@" in uri and not uri.startswith("sqlite:"):
        # Not `refuse`: it would print the password, as plan.yaml would hold it.
        raise InputError(
            "tracking.uri: got a name or password in the address; allowed: http://host:port, with "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
        )
    if backend == "server" and not _is_address(uri or ""):
        refuse("tracking.uri", uri, "the server's address, http://host:port")
    if backend == "sqlite" and uri is not None:
        path = uri.removeprefix("sqlite:///")
        if path == uri or not path or path.startswith(":memory:") or Path(path).is_dir():
            refuse("tracking.uri", uri, "null or sqlite:///file.db")


def _is_address(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return (
            re.fullmatch(r"https?://\S+", uri) is not None
            and bool(parts.hostname)
            and parts.port != 0
        )
    except ValueError:  # a port that is none, or beyond 65535
        return False
