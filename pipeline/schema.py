"""The types of the configuration; defaults live in `conf/`, not here."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Mixture:
    """A ground truth."""

    weights: list[float] = MISSING
    means: list[float] = MISSING
    scales: list[float] = MISSING
    allocation: str = "multinomial"
    source: str = ""


@dataclass
class Observed:
    """A column of real data, without a known truth."""

    path: str = MISSING
    column: str = MISSING
    source: str = ""


@dataclass
class Model:
    """What EM estimates; a number or a list in `weights` or `scales` fixes them."""

    n_components: int | None = None
    weights: Any = "free"
    means: str = "free"
    scales: Any = "free"


@dataclass
class Init:
    """How row 0 is chosen: the name of a registered init, and the options that it has."""

    method: str = MISSING
    size: float | None = None
    iterations: int | None = None
    runs: int | None = None
    points: int | None = None
    low: float | None = None
    high: float | None = None
    weights: list[float] | None = None
    means: list[float] | None = None
    scales: list[float] | None = None


@dataclass
class Algorithm:
    """How the iterates are made: the name of a registered algorithm, and its options."""

    method: str = MISSING
    start: float | None = None
    growth: float | None = None
    depth: int | None = None


@dataclass
class Stop:
    """When a fit is called converged."""

    rule: str = MISSING
    tolerance: float | None = None
    patience: int = 1


@dataclass
class Schedule:
    """When to stop, which iterations to record, and which to draw."""

    max_iter: int = MISSING
    stop: Stop = field(default_factory=Stop)
    record: Any = MISSING
    record_replicates: Any = MISSING
    snapshots: list[int] = MISSING


@dataclass
class Degeneracy:
    """Below which scale (in sample standard deviations) and count a component has collapsed."""

    scale: float = MISSING
    count: float = MISSING


@dataclass
class Reference:
    """When a fit has reached the best optimum of its sample, and which fits cannot be it."""

    tolerance: float = MISSING
    scale_ratio: float = MISSING


@dataclass
class Executor:
    """Where the blocks of fits run."""

    backend: str = MISSING
    workers: int | None = None


@dataclass
class Tracking:
    """Where the runs are shown."""

    backend: str = MISSING
    uri: str | None = None
    max_steps: int = 64


@dataclass
class Config:
    """One experiment."""

    title: str = MISSING
    question: str = MISSING
    mixture: dict[str, Mixture] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)
    model: dict[str, Model] = field(default_factory=dict)
    init: dict[str, Init] = field(default_factory=dict)
    algorithm: dict[str, Algorithm] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    degeneracy: Degeneracy = field(default_factory=Degeneracy)
    reference: Reference = field(default_factory=Reference)
    executor: Executor = field(default_factory=Executor)
    tracking: Tracking = field(default_factory=Tracking)
    sample_sizes: list[Any] = MISSING
    replicates: int = MISSING
    starts: int = MISSING
    seed: int = MISSING
    only: list[dict[str, Any]] | None = None
    measures: list[str] = MISSING
    compression: str = MISSING
    compression_tolerance: float = MISSING
    report: str = MISSING
    results_dir: str = MISSING
    store_dir: str = MISSING
