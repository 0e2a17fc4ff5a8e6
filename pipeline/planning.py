"""Planning: a checked configuration cut into data sets and cells with identities and seeds."""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.checks import MOST_STARTS
from pipeline.checks.grid import check_model_of_size
from pipeline.config import method_and_options
from pipeline.console import counted
from pipeline.core import source_hash
from pipeline.core.algorithms import ALGORITHMS
from pipeline.core.model import make_model
from pipeline.core.refinement import FEWEST_POINTS
from pipeline.core.starts import INITS, check_options, number_of_starts
from pipeline.errors import InputError
from pipeline.observed import observed_key, read_observed
from pipeline.plan import NOT_CONTENT, Cell, DataSet, Plan, digest, matches

# What of the configuration only the stage aggregate reads.
AGGREGATED = ("reference", "targets", "slopes", "claims", "claims_level", "replay")


def versions() -> dict[str, str]:
    """Return what decides the numbers besides the plan: the source of what fits, its engines."""
    source = source_hash() + (Path(__file__).parent / "blocks.py").read_text("utf-8")
    engines = {name: version(name) for name in ("numba", "numpy")}
    return {"core": hashlib.sha256(source.encode()).hexdigest()[:16]} | engines


def deciding_overrides(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that decide a result: not where it goes and how fast it is made."""
    other = {*NOT_CONTENT, "experiment", "results_dir", "hydra"}
    keys = [re.match(r"[+~]*(\w*)", override) for override in overrides]
    return tuple(o for o, key in zip(overrides, keys, strict=True) if key and key[1] not in other)


def make_plan(config: dict[str, Any], overrides: Sequence[str] = ()) -> tuple[Plan, list[str]]:
    """Cut a checked configuration into cells.

    Parameters
    ----------
    config
        What `compose` returns.
    overrides
        Those that it was composed with, for the plan to tell.

    Returns
    -------
    plan : Plan
    remarks : list of str
        What was asked for and not made, because it would be a copy, and what is not kept.

    Raises
    ------
    InputError
        For combinations that cannot be fitted, and observed data that cannot be read.
    """
    deciding = versions()
    remarks: list[str] = []
    data_sets = tuple(_data_sets(config, remarks))
    cells = tuple(_cells(config, data_sets, deciding, remarks))
    kept = config["schedule"]["record_replicates"]
    if kept != "all" and any(cell.replicates > kept for cell in cells):
        first = counted(kept, "replicate").removeprefix("1 ")
        remarks.append(
            f"traces: of the first {first}; the others keep their first and last rows "
            "(schedule.record_replicates)"
        )
        if config["replay"]:
            remarks.append(
                f"replay: of the first {first}, whose traces are complete "
                "(schedule.record_replicates)"
            )
    if config["replay"]:
        _check_replay(cells)
    if not cells:
        raise InputError(f"only: no cell matches {config['only']!r}; allowed: cells of the grid")
    _check_selections(config, cells)
    used = {cell.data_set for cell in cells}
    data_sets = tuple(data for data in data_sets if data.id in used)
    kept = {
        key: value
        for key, value in config.items()
        if key not in ("experiment", "title", "question", "results_dir", "shard")
    }
    given = deciding_overrides(overrides)
    plan = Plan(
        experiment=config["experiment"],
        title=config["title"] or config["experiment"],
        question=config["question"],
        hashes=_hashes(config, data_sets, cells, deciding, given),
        versions=deciding,
        config=kept,
        data_sets=data_sets,
        cells=cells,
        overrides=given,
    )
    return plan, remarks


def _data_sets(config: dict[str, Any], remarks: list[str]) -> Iterator[DataSet]:
    replicates = config["replicates"]
    for name, mixture in config["mixture"].items():
        parameters = [mixture[part] for part in ("weights", "means", "scales", "allocation")]
        for size in config["sample_sizes"]:
            key = digest(["sample", config["seed"], parameters, size])[:32]
            id_ = f"{name}-n{size}"
            if size == math.inf:
                if replicates > 1:
                    remarks.append(
                        f"population of {name}: one replicate (it has no sampling error)"
                    )
                yield DataSet(id_, name, None, size, 1, key, None)
            else:
                yield DataSet(id_, name, None, size, replicates, key, f"samples/{id_}.npy")
    for name, observed in config["observed"].items():
        values = read_observed(f"observed.{name}", observed)
        if replicates > 1:
            remarks.append(f"observed data {name}: one replicate (there is one data set)")
        yield DataSet(
            f"{name}-n{len(values)}", None, name, len(values), 1, observed_key(values), None
        )


def _cells(
    config: dict[str, Any],
    data_sets: tuple[DataSet, ...],
    deciding: dict[str, str],
    remarks: list[str],
) -> Iterator[Cell]:
    schedule = {key: value for key, value in config["schedule"].items() if key != "snapshots"}
    grid = (
        (data, model, init, algorithm)
        for data in data_sets
        for model in config["model"]
        for init in config["init"]
        for algorithm in config["algorithm"]
        if _wanted(config["only"], data, model, init, algorithm)
    )
    for data, model, init, algorithm in grid:
        n_components = _n_components(config, data, model)
        starts = _n_starts(config, data, model, init, n_components)
        if starts != config["starts"]:
            made = "one start (it is deterministic)"
            if starts > 1:
                made = f"{starts} starts for {n_components} components (the points of its lattice)"
            if (remark := f"init {init}: {made}") not in remarks:
                remarks.append(remark)
        numbers = [
            n_components,
            *(config["model"][model][p] for p in ("weights", "means", "scales")),
        ]
        start_key = digest(["start", config["seed"], data.key, config["init"][init], numbers])[:32]
        # Small samples are never compressed: the settings are not theirs.
        tolerance = _tolerance(config, data, algorithm)
        _check_memory(config, algorithm, model, n_components)
        content = [
            data.key,
            numbers,
            start_key,
            config["algorithm"][algorithm],
            schedule,
            config["degeneracy"],
            tolerance,
            sorted(config["measures"]),
            deciding,
        ]
        yield Cell(
            id=f"{data.mixture or data.observed}-{model}-n{data.sample_size}-{init}-{algorithm}",
            data_set=data.id,
            mixture=data.mixture,
            observed=data.observed,
            model=model,
            sample_size=data.sample_size,
            init=init,
            algorithm=algorithm,
            n_components=n_components,
            replicates=data.replicates,
            starts=starts,
            start_key=start_key,
            content=digest(content),
            node_tolerance=tolerance,
        )


def _tolerance(config: dict[str, Any], data: DataSet, algorithm: str) -> float | None:
    """Return the error allowed to nodes in the place of the data, None where there are none."""
    smooth = ALGORITHMS[config["algorithm"][algorithm]["method"]].smooth
    population = data.sample_size == math.inf
    if population and not smooth:
        raise InputError(
            f"algorithm: {algorithm} assigns points whole, and a population (sample_sizes: inf) "
            "has none; allowed: finite sample sizes"
        )
    compressed = config["compression"] == "auto" and data.sample_size >= FEWEST_POINTS
    return config["compression_tolerance"] if population or (compressed and smooth) else None


def _check_memory(config: dict[str, Any], algorithm: str, model: str, n_components: int) -> None:
    most = ALGORITHMS[config["algorithm"][algorithm]["method"]].most_components
    if n_components > most:
        raise InputError(
            f"algorithm: {algorithm} holds a matrix of all parameters; got {n_components} "
            f"components (model {model}); allowed: at most {most}"
        )


def _check_replay(cells: tuple[Cell, ...]) -> None:
    """Refuse traces that do not hold what a stopping rule compared."""
    for cell in cells:
        if cell.node_tolerance is not None and cell.sample_size != math.inf:
            raise InputError(
                f"replay: the {cell.sample_size} points of cell {cell.id} are compressed, and its "
                "traces end on the points; allowed: compression=none, or smaller samples"
            )


def _wanted(
    only: list[dict[str, Any]] | None, data: DataSet, model: str, init: str, algorithm: str
) -> bool:
    cell = {
        "mixture": data.mixture,
        "observed": data.observed,
        "model": model,
        "sample_size": data.sample_size,
        "init": init,
        "algorithm": algorithm,
    }
    return only is None or any(partial.items() <= cell.items() for partial in only)


def _check_selections(config: dict[str, Any], cells: tuple[Cell, ...]) -> None:
    for key in ("slopes", "claims"):
        for entry in config[key]:
            if not any(matches(cell, entry["where"]) for cell in cells):
                raise InputError(
                    f"{key}: {entry['name']}: where: no cell matches {entry['where']!r}; "
                    "allowed: cells of the grid"
                )


def _n_components(config: dict[str, Any], data: DataSet, model: str) -> int:
    settings = config["model"][model]
    n_components = settings["n_components"]
    if n_components is None:
        if data.mixture is None:
            raise InputError(
                f"model.{model}.n_components: got null; allowed: a number, "
                f"since observed data {data.observed} have no known truth"
            )
        n_components = len(config["mixture"][data.mixture]["weights"])
    check_model_of_size(f"model.{model} with {data.id}", settings, n_components)
    if data.sample_size < n_components:
        key = "sample_sizes" if data.mixture else f"observed.{data.observed}"
        raise InputError(
            f"{key}: got {data.sample_size}; allowed: at least the {n_components} components "
            f"of model {model}"
        )
    return int(n_components)


def _n_starts(
    config: dict[str, Any], data: DataSet, model: str, init: str, n_components: int
) -> int:
    """Return how many starts an init makes for a replicate; refuse what it cannot start."""
    _check_truth(config, data, model, init, n_components)
    settings = config["model"][model]
    made = make_model(n_components, settings["weights"], settings["means"], settings["scales"])
    method, options = method_and_options(config["init"][init])
    try:
        check_options(method, options, made)
    except ValueError as error:
        raise InputError(f"init.{init}.{error} ({model} with {data.id})") from error
    starts = number_of_starts(method, options, made, config["starts"])
    if starts > MOST_STARTS:
        raise InputError(
            f"init.{init}: got more than {MOST_STARTS} starts for the {n_components} components of "
            f"model {model} with {data.id}; allowed: fewer points of its lattice"
        )
    return starts


def _check_truth(
    config: dict[str, Any], data: DataSet, model: str, init: str, n_components: int
) -> None:
    if not INITS[config["init"][init]["method"]].needs_truth:
        return
    if data.mixture is None:
        raise InputError(
            f"init: {init} needs a known truth; observed data {data.observed} have none"
        )
    n_true = len(config["mixture"][data.mixture]["weights"])
    if n_true != n_components:
        raise InputError(
            f"init: {init} gives {n_true} components, model {model} has {n_components}; "
            f"allowed: a model of the size of mixture {data.mixture}"
        )


def _hashes(
    config: dict[str, Any],
    data_sets: tuple[DataSet, ...],
    cells: tuple[Cell, ...],
    deciding: dict[str, str],
    overrides: tuple[str, ...],
) -> dict[str, str]:
    generate = [[asdict(data) for data in data_sets], deciding]
    fit = [generate, [asdict(cell) for cell in cells]]
    truths = {name: _numbers_of(mixture) for name, mixture in config["mixture"].items()}
    shown = {
        key: value
        for key, value in config.items()
        if key not in (*NOT_CONTENT, "results_dir", "shard")
    }
    return {
        "generate": digest(generate),
        "fit": digest(fit),
        "aggregate": digest([fit, truths, *(config[key] for key in AGGREGATED)]),
        "report": digest([fit, shown, overrides]),
        "track": digest([fit, shown, config["tracking"]]),
    }


def _numbers_of(mixture: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a configured mixture, without its citation."""
    return {part: mixture[part] for part in ("weights", "means", "scales")}
