"""The types of the configuration; defaults live in `conf/`, not here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

MEANING = "meaning"  # in a field's metadata


def key(meaning: str, default: Any = MISSING, factory: Callable[[], Any] | None = None) -> Any:
    """Declare a key of the configuration with its meaning, for people."""
    metadata = {MEANING: meaning}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Mixture:
    """A ground truth."""

    weights: list[float] = key("shares of the components; they add up to 1")
    means: list[float] = key("of the components, in units of x; within 1e150 of 0")
    scales: list[float] = key(
        "standard deviations of the components, in units of x; from 1e-150 to 1e150"
    )
    allocation: str = key(
        "of points to components: multinomial, or proportional (largest remainder)",
        "multinomial",
    )
    source: str = key("citation", "")


@dataclass
class Observed:
    """A column of real data, without a known truth."""

    path: str = key("CSV or Parquet file, from the working directory")
    column: str = key("of the file")
    source: str = key("citation", "")


@dataclass
class Model:
    """What EM estimates; a number or a list in `weights` or `scales` fixes them."""

    n_components: int | None = key("number of components; null: the truth's", None)
    weights: Any = key("free, equal, or a list of fixed ones", "free")
    means: str = key("free, or symmetric: +t and -t", "free")
    scales: Any = key("free, shared, or a fixed number or list", "free")


@dataclass
class Init:
    """How row 0 is chosen: the name of a registered init, and the options that it has."""

    method: str = key("name of a registered init")
    size: float | None = key("of the perturbation, in scales", None)
    iterations: int | None = key("of k-means or of a short run, at most", None)
    runs: int | None = key("short runs, of which the best goes on", None)
    points: int | None = key("of the lattice, for each mean", None)
    low: float | None = key("least mean of the lattice; null: the data's", None)
    high: float | None = key("largest mean of the lattice; null: the data's", None)
    weights: list[float] | None = key("explicit ones", None)
    means: list[float] | None = key("explicit ones", None)
    scales: list[float] | None = key("explicit ones", None)


@dataclass
class Algorithm:
    """How the iterates are made: the name of a registered algorithm, and its options."""

    method: str = key("name of a registered algorithm")
    start: float | None = key("first power of the responsibilities", None)
    growth: float | None = key("factor of the power from one iteration to the next", None)
    depth: int | None = key("how many steps back an acceleration looks", None)


@dataclass
class Stop:
    """When a fit is called converged."""

    rule: str = key("name of a stopping rule")
    tolerance: float | None = key("at which the rule fires; null with the rule never", None)
    patience: int = key("iterations in a row at which it has to fire", 1)


@dataclass
class Schedule:
    """When to stop, which iterations to record, and which to draw."""

    max_iter: int = key("iterations after which a fit is cut off")
    stop: Stop = key("when a fit counts as converged", factory=Stop)
    record: Any = key(
        "iterations that a trace keeps, besides row 0 and the last: all, geometric, or a list"
    )
    record_replicates: Any = key(
        "all, or how many replicates keep their traces; the others keep row 0 and the last"
    )
    snapshots: list[int] = key("iterations at which pictures are drawn")


@dataclass
class Degeneracy:
    """When a component has collapsed, and what keeps scales from 0.

    Scales are in sample standard deviations.
    """

    scale: float = key("a scale below this has collapsed, in sample standard deviations")
    count: float = key("a component that holds fewer points than this is empty")
    scale_floor: float | None = key(
        "scales are kept from falling below this, in sample standard deviations; null: no floor",
        None,
    )
    penalty: float | None = key(
        "c of the penalty -(c / n) sum_k (s^2 / scale_k^2 + log(scale_k^2 / s^2)); null: none", None
    )


@dataclass
class Reference:
    """When a fit has reached the best optimum of its sample, and which fits cannot be it."""

    tolerance: float = key(
        "an optimum is reached within this part of its log-likelihood, or of 1 if that is less"
    )
    scale_ratio: float = key(
        "a fit with a scale below this part of its largest is near-singular and no reference"
    )


@dataclass
class Targets:
    """How near a fit has to come, for the profiles."""

    log_likelihood_gap: list[float] = key("below the reference's log-likelihood, totals")
    distance_to_fixed_point: list[float] = key("largest over all parameters, in units")


@dataclass
class Slope:
    """A scaling law to fit: the logarithm of a statistic on the logarithm of a factor."""

    name: str = key("by which a claim refers to it")
    statistic: str = key("column of convergence.parquet")
    factor: str = key("numeric: sample_size, or any numeric column")
    where: dict[str, Any] | None = key("partial cell that its cells match", None)
    by: list[str] | None = key("labels for each of whose values it is fitted anew", None)


@dataclass
class Claim:
    """What a source says about a statistic of cells, or about a slope, and the region claimed."""

    name: str = key("of the claim")
    claim: str = key("what the source says")
    source: str = key("citation")
    statistic: str | None = key("column of convergence.parquet", None)
    slope: str | None = key("name of a slope, in a statistic's place", None)
    where: dict[str, Any] | None = key("partial cell that the cells match", None)
    expected: float | None = key("value claimed, with a margin", None)
    margin: float | None = key("absolute margin of the value", None)
    at_least: float | None = key("lower end of the region claimed", None)
    at_most: float | None = key("upper end of the region claimed", None)
    between: list[float] | None = key("both ends of the region claimed", None)
    allowed_missing: float = key("share of fits that may lack the statistic", 0.0)


@dataclass
class Replay:
    """A stopping rule that the complete traces are asked about, with several tolerances."""

    rule: str = key("name of a stopping rule")
    tolerances: list[float] = key("at each of which it is asked where it would stop")
    patience: int = key("iterations in a row at which it has to fire", 1)


@dataclass
class Executor:
    """Where the blocks of fits run."""

    backend: str = key("local, dask or slurm")
    workers: int | None = key("threads, or processes of dask; null: one for each core", None)
    address: str | None = key("dask: of a running scheduler; null: one of its own", None)
    retries: int | None = key("dask, slurm: times that a block may lose its worker", None)
    jobs: int | None = key("slurm: jobs", None)
    cores: int | None = key("slurm: of a job; each works by itself", None)
    memory: str | None = key("slurm: of a job, as in 8GB", None)
    walltime: str | None = key("slurm: of a job, as in 01:00:00 or 2-00:00:00", None)
    queue: str | None = key("slurm: partition; null: the default one", None)
    account: str | None = key("slurm: account; null: the default one", None)
    directives: list[str] | None = key("slurm: more #SBATCH lines, as in --qos=long", None)
    interface: str | None = key("slurm: network interface between nodes, as in ib0", None)
    python: str | None = key("slurm: interpreter on the nodes; null: this one", None)
    log_dir: str | None = key("slurm: folder for the jobs' output; null: it is discarded", None)


@dataclass
class Tracking:
    """Where the runs are shown."""

    backend: str = key("sqlite, server or none")
    uri: str | None = key("of the store; null: sqlite:///mlflow.db", None)
    max_steps: int = key("to which per-iteration metrics are thinned", 64)


@dataclass
class Config:
    """One experiment."""

    title: str = key("of the experiment")
    question: str = key("that the experiment answers")
    mixture: dict[str, Mixture] = key("ground truths", factory=dict)
    observed: dict[str, Observed] = key("real data without a known truth", factory=dict)
    model: dict[str, Model] = key("what EM estimates", factory=dict)
    init: dict[str, Init] = key("how row 0 of a fit is chosen", factory=dict)
    algorithm: dict[str, Algorithm] = key("how the iterates are made", factory=dict)
    schedule: Schedule = key("when to stop, what to record and to draw", factory=Schedule)
    degeneracy: Degeneracy = key("when a component has collapsed", factory=Degeneracy)
    reference: Reference = key("the best optimum that any fit of a sample found", factory=Reference)
    targets: Targets = key("how near a fit has to come, for the profiles", factory=Targets)
    replay: list[Replay] = key("stopping rules that complete traces are asked about", factory=list)
    executor: Executor = key("where blocks of fits run", factory=Executor)
    tracking: Tracking = key("where runs are shown", factory=Tracking)
    sample_sizes: list[Any] = key("points of a sample; inf is the population itself")
    replicates: int = key("independent samples of a cell")
    starts: int = key("initial values for a replicate")
    seed: int = key("of all random numbers")
    only: list[dict[str, Any]] | None = key(
        "keep only the cells that match one of these partial cells; null: all", None
    )
    measures: list[str] = key(
        "more columns for each fit: wald (standard errors), distances (between densities)"
    )
    slopes: list[Slope] = key("scaling laws to fit", factory=list)
    claims: list[Claim] = key("what sources say, to be supported or refuted", factory=list)
    claims_level: float = key("confidence with which all claims are judged together")
    compression: str = key(
        "auto: large samples and populations as nodes; none: every sample point by point"
    )
    compression_tolerance: float = key(
        "error of a parameter at which nodes are fine enough, in units"
    )
    report: str = key("full, or minimal: tables without figures")
    figures: Any = key("all, or a list of them in the order of the page")
    results_dir: str = key("folder of the results")
    store_dir: str = key("folder of finished blocks")
    shard: str | None = key("k/n: only every n-th block from the k-th on, into the store", None)
