"""The plan: a resolved configuration cut into data sets and cells with identities and seeds."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.core.mixture import Parameters
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.core.starts import init_evaluations
from pipeline.errors import InputError
from pipeline.files import write_text
from pipeline.observed import observed_key, read_observed

FILE = "plan.yaml"
MULTIRUN = "multirun"  # folder of the jobs of sweeps, in the results folder
GRID = "grid"  # the method of an init that starts on a lattice of means
# Where and how fast the work is done, and where it is shown, decides no number.
NOT_CONTENT = ("executor", "tracking", "store_dir")


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
    overrides: tuple[str, ...] = ()  # of Hydra, as they were given: those that decide a result

    def truth(self, cell: Cell) -> Parameters | None:
        """Return the true parameters behind a cell, or None for observed data."""
        return None if cell.mixture is None else truth(self.config["mixture"][cell.mixture])

    def init_evaluations(self, cell: Cell) -> int:
        """Return the map evaluations that each start of a cell costs before row 0."""
        init = self.config["init"][cell.init]
        return init_evaluations(init["method"], init)

    def data_set(self, cell: Cell) -> DataSet:
        """Return the data set that a cell is fitted to."""
        return self._by_id[cell.data_set]

    @cached_property
    def _by_id(self) -> dict[str, DataSet]:
        return {data.id: data for data in self.data_sets}

    def representative(self, cell: Cell) -> tuple[int, int]:
        """Return replicate and start of the fit that stands for a cell wherever one fit is shown.

        Both are the first ones, but for the start on a lattice of several means. There the first
        one has equal means, and EM would keep its components equal; the mean of component k is at
        (k + 1/2)/K of the lattice's values instead, which differ wherever it has K of them.
        """
        n_means = cell.n_components
        of_model = self.config["model"][cell.model]["means"]
        if self.config["init"][cell.init]["method"] != GRID or of_model == "symmetric":
            return 0, 0
        points = round(cell.starts ** (1.0 / n_means))
        # The last mean changes fastest with the number of the start.
        places = [(2 * k + 1) * points // (2 * n_means) for k in range(n_means)]
        return 0, sum(place * points ** (n_means - 1 - k) for k, place in enumerate(places))

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


def matches(cell: Cell, where: dict[str, Any] | None) -> bool:
    """Tell whether a cell is one that a partial cell describes; None describes all."""
    return all(getattr(cell, key) == value for key, value in (where or {}).items())


def draw_planned(
    plan: "Plan",
    data: DataSet,
    replicates: Sequence[int] | np.ndarray,
    sample_size: int | None = None,
    positions: range | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Draw samples of a data set of the plan, shape (replicates, its n or `sample_size`).

    Parameters
    ----------
    positions, out
        As for `pipeline.core.sampling.draw`.
    """
    mixture = plan.config["mixture"][data.mixture]
    n = data.n_points if sample_size is None else sample_size
    key, parameters = key_from_hex(data.key), truth(mixture)
    return draw(key, replicates, n, *parameters, mixture["allocation"], positions, out)


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


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `plan.yaml` into a results folder."""
    plain = asdict(plan)
    plain["data_sets"] = [asdict(data) for data in plan.data_sets]
    plain["cells"] = [asdict(cell) for cell in plan.cells]
    # The index reads the head alone, up to the first mapping.
    head = {name: plain[name] for name in ("experiment", "title", "question")}
    plain = head | {"overrides": ()} | plain | {"overrides": list(plan.overrides)}
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
    try:
        return _parsed(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: damaged; make it with python -m pipeline.stages.plan") from error


# The stages of one command read the same plan; that of a large study takes a tenth of a second.
@lru_cache(maxsize=1)
def _parsed(text: str) -> Plan:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    plain = yaml.load(text, Loader=loader)
    plain["data_sets"] = tuple(DataSet(**data) for data in plain["data_sets"])
    plain["cells"] = tuple(Cell(**cell) for cell in plain["cells"])
    plain["overrides"] = tuple(plain.get("overrides", ()))
    return Plan(**plain)
