"""The plan: a resolved configuration cut into data sets and cells with identities and seeds."""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.config import MOST_STARTS, check_model_of_size, method_and_options
from pipeline.core import source_hash
from pipeline.core.algorithms import ALGORITHMS
from pipeline.core.mixture import Parameters
from pipeline.core.model import make_model
from pipeline.core.refinement import FEWEST_POINTS
from pipeline.core.starts import INITS, check_options, number_of_starts
from pipeline.errors import InputError
from pipeline.files import write_text
from pipeline.observed import observed_key, read_observed

FILE = "plan.yaml"
# Where and how fast the work is done, and where it is shown, decides no number.
NOT_CONTENT = ("executor", "tracking", "store_dir")
# What of the configuration only the stage aggregate reads.
AGGREGATED = ("reference", "targets", "slopes", "claims", "claims_level", "replay")


@dataclass(frozen=True)
class DataSet:
    """One matrix of samples, shape (replicates, sample_size), one observed sample, or a population.

    The population itself has sample size infinity, one replicate and no file.
    """

    id: str
    mixture: str | None
    observed: str | None
    sample_size: float
    replicates: int
    key: str
    file: str | None

    @property
    def n_points(self) -> int:
        """The sample size of what is not a population."""
        return int(self.sample_size)


@dataclass(frozen=True)
class Cell:
    """One design point.

    ``node_tolerance`` is the error allowed to nodes in the place of the data; None where there are
    none.
    """

    id: str
    data_set: str
    mixture: str | None
    observed: str | None
    model: str
    sample_size: float
    init: str
    algorithm: str
    n_components: int
    replicates: int
    starts: int
    start_key: str
    content: str
    node_tolerance: float | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that the later stages need to know."""

    experiment: str
    title: str
    question: str
    hashes: dict[str, str]
    versions: dict[str, str]
    config: dict[str, Any]
    data_sets: tuple[DataSet, ...]
    cells: tuple[Cell, ...]

    def truth(self, cell: Cell) -> Parameters | None:
        """Return the true parameters behind a cell, or None for observed data."""
        return None if cell.mixture is None else truth(self.config["mixture"][cell.mixture])

    def data_set(self, cell: Cell) -> DataSet:
        """Return the data set that a cell is fitted to."""
        return next(data for data in self.data_sets if data.id == cell.data_set)

    @property
    def workers(self) -> int:
        """How many threads work at a time."""
        return self.config["executor"]["workers"] or os.cpu_count() or 1

    @property
    def has_population(self) -> bool:
        """Whether a sample size is infinite."""
        return any(cell.sample_size == math.inf for cell in self.cells)

    @property
    def n_components(self) -> int:
        """The largest number of components over the cells."""
        return max(cell.n_components for cell in self.cells)


def truth(mixture: dict[str, Any]) -> Parameters:
    """Return a configured mixture as arrays of shape (n_components,)."""
    return Parameters(*(np.array(mixture[part], float) for part in ("weights", "means", "scales")))


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return what decides the numbers besides the plan: the source of what fits, its engines."""
    source = source_hash() + (Path(__file__).parent / "blocks.py").read_text("utf-8")
    engines = {name: version(name) for name in ("numba", "numpy")}
    return {"core": hashlib.sha256(source.encode()).hexdigest()[:16]} | engines


def make_plan(config: dict[str, Any]) -> tuple[Plan, list[str]]:
    """Cut a checked configuration into cells.

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
        remarks.append(
            f"traces: of the first {kept} replicates; the others keep their first and last rows "
            "(schedule.record_replicates)"
        )
        if config["replay"]:
            remarks.append(
                f"replay: of the first {kept} replicates, whose traces are complete "
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
        if key not in ("experiment", "title", "question", "results_dir")
    }
    plan = Plan(
        experiment=config["experiment"],
        title=config["title"] or config["experiment"],
        question=config["question"],
        hashes=_hashes(config, data_sets, cells, deciding),
        versions=deciding,
        config=kept,
        data_sets=data_sets,
        cells=cells,
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


def matches(cell: Cell, where: dict[str, Any] | None) -> bool:
    """Tell whether a cell is one that a partial cell describes; None describes all."""
    return all(getattr(cell, key) == value for key, value in (where or {}).items())


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


def read_planned(data: DataSet, observed: dict[str, Any]) -> np.ndarray:
    """Read the observed values of a data set of the plan, shape (n,).

    Raises
    ------
    InputError
        If they are not those that were planned.
    """
    values = read_observed(f"observed.{data.observed}", observed)
    if observed_key(values) != data.key:
        raise InputError(
            f"observed.{data.observed}: {observed['path']} has changed since it was planned; "
            "plan again"
        )
    return values


def _hashes(
    config: dict[str, Any],
    data_sets: tuple[DataSet, ...],
    cells: tuple[Cell, ...],
    deciding: dict[str, str],
) -> dict[str, str]:
    generate = [[asdict(data) for data in data_sets], deciding]
    fit = [generate, [asdict(cell) for cell in cells]]
    truths = {name: _numbers_of(mixture) for name, mixture in config["mixture"].items()}
    shown = {
        key: value
        for key, value in config.items()
        if key not in NOT_CONTENT and key != "results_dir"
    }
    return {
        "generate": digest(generate),
        "fit": digest(fit),
        "aggregate": digest([fit, truths, *(config[key] for key in AGGREGATED)]),
        "report": digest([fit, shown]),
        "track": digest([fit, shown, config["tracking"]]),
    }


def _numbers_of(mixture: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a configured mixture, without its citation."""
    return {part: mixture[part] for part in ("weights", "means", "scales")}


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `plan.yaml` into a results folder."""
    plain = asdict(plan)
    plain["data_sets"] = [asdict(data) for data in plan.data_sets]
    plain["cells"] = [asdict(cell) for cell in plan.cells]
    text = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    write_text(folder / FILE, text)


def read_plan(folder: Path) -> Plan:
    """Read the plan of a results folder.

    Raises
    ------
    InputError
        If there is none, or it is not one.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with python -m pipeline.stages.plan")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        plain = yaml.load(path.read_text("utf-8"), Loader=loader)
        plain["data_sets"] = tuple(DataSet(**data) for data in plain["data_sets"])
        plain["cells"] = tuple(Cell(**cell) for cell in plain["cells"])
        return Plan(**plain)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: damaged; make it with python -m pipeline.stages.plan") from error
