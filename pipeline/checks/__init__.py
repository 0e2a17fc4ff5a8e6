"""What the values of a configuration may be."""

from typing import Any

from pipeline.checks.execution import check_executor, check_shard, check_tracking
from pipeline.checks.grid import check_mixture, check_model, check_only, check_sizes
from pipeline.checks.questions import (
    check_claims,
    check_figures,
    check_replay,
    check_slopes,
    check_targets,
)
from pipeline.checks.schedule import MOST_REPLICATES, check_degeneracy, check_schedule
from pipeline.checks.values import NAME, between, choice, distinct, integer, refuse
from pipeline.core.algorithms import ALGORITHMS
from pipeline.core.starts import INITS

FACTORS = ("mixture", "observed", "model", "init", "algorithm")
MOST_STARTS = 10**6
# Below, rounding errors hide what is to be measured; above, estimates would be of no use.
TOLERANCES = (1e-14, 1e-3)
# What can be measured of each fit besides, at a cost.
MEASURES = ("wald", "distances")


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
        check_mixture(f"mixture.{name}", mixture)
    for name, model in config["model"].items():
        check_model(f"model.{name}", model)
    for name, init in config["init"].items():
        choice(f"init.{name}.method", init["method"], INITS)
    for name, algorithm in config["algorithm"].items():
        choice(f"algorithm.{name}.method", algorithm["method"], ALGORITHMS)
    if not config["mixture"] and not config["observed"]:
        refuse("mixture", [], "at least one mixture, or observed data")
    shared = set(config["mixture"]) & set(config["observed"])
    if shared:
        refuse("observed", sorted(shared), "names that no mixture has")
    for factor in ("model", "init", "algorithm"):
        if not config[factor]:
            refuse(factor, [], "at least one")
    check_sizes(config)
    check_schedule(config["schedule"])
    check_replay(config)
    check_only(config)
    check_slopes(config)
    check_claims(config)
    integer("replicates", config["replicates"], 1, MOST_REPLICATES)
    integer("starts", config["starts"], 1, MOST_STARTS)
    integer("seed", config["seed"], 0, 2**63 - 1)
    check_degeneracy(config["degeneracy"])
    for key in ("tolerance", "scale_ratio"):
        between(f"reference.{key}", config["reference"][key], 0.0, 0.1)
    for key, values in config["targets"].items():
        check_targets(f"targets.{key}", values)
    check_executor(config["executor"])
    check_tracking(config["tracking"])
    for measure in config["measures"]:
        choice("measures", measure, MEASURES)
    distinct("measures", config["measures"])
    choice("compression", config["compression"], ("auto", "none"))
    between("compression_tolerance", config["compression_tolerance"], *TOLERANCES)
    choice("report", config["report"], ("full", "minimal"))
    check_figures(config["figures"])
    check_shard(config["shard"])
    for key in ("results_dir", "store_dir"):
        if not config[key]:
            refuse(key, config[key], "a folder")
