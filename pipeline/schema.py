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
    """When a component has collapsed, and what keeps scales from 0.

    Scales are in sample standard deviations.
    """

    scale: float = MISSING
    count: float = MISSING
    scale_floor: float | None = None
    penalty: float | None = None


@dataclass
class Reference:
    """When a fit has reached the best optimum of its sample, and which fits cannot be it."""

    tolerance: float = MISSING
    scale_ratio: float = MISSING


@dataclass
class Targets:
    """How near a fit has to come, for the profiles."""

    log_likelihood_gap: list[float] = MISSING
    distance_to_fixed_point: list[float] = MISSING


@dataclass
class Slope:
    """A scaling law to fit: the logarithm of a statistic on the logarithm of a factor."""

    name: str = MISSING
    statistic: str = MISSING
    factor: str = MISSING
    where: dict[str, Any] | None = None
    by: list[str] | None = None


@dataclass
class Claim:
    """What a source says about a statistic of cells, or about a slope, and the region claimed."""

    name: str = MISSING
    claim: str = MISSING
    source: str = MISSING
    statistic: str | None = None
    slope: str | None = None
    where: dict[str, Any] | None = None
    expected: float | None = None
    margin: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    between: list[float] | None = None
    allowed_missing: float = 0.0


@dataclass
class Replay:
    """A stopping rule that the complete traces are asked about, with several tolerances."""

    rule: str = MISSING
    tolerances: list[float] = MISSING
    patience: int = 1


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
    targets: Targets = field(default_factory=Targets)
    replay: list[Replay] = field(default_factory=list)
    executor: Executor = field(default_factory=Executor)
    tracking: Tracking = field(default_factory=Tracking)
    sample_sizes: list[Any] = MISSING
    replicates: int = MISSING
    starts: int = MISSING
    seed: int = MISSING
    only: list[dict[str, Any]] | None = None
    measures: list[str] = MISSING
    slopes: list[Slope] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    claims_level: float = MISSING
    compression: str = MISSING
    compression_tolerance: float = MISSING
    report: str = MISSING
    figures: Any = MISSING
    results_dir: str = MISSING
    store_dir: str = MISSING
