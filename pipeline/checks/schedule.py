"""What the iterations may be: schedule, stopping, degeneracy."""

from typing import Any

from pipeline.checks.values import choice, distinct, integer, nonnegative, refuse
from pipeline.core.stopping import STOPPING_RULES

# The integers stay within 64 bits.
MOST_ITERATIONS, MOST_REPLICATES, MOST_PENALTY = 10**12, 10**9, 1e9


def check_schedule(schedule: dict[str, Any]) -> None:
    """Refuse what is no schedule."""
    integer("schedule.max_iter", schedule["max_iter"], 0, MOST_ITERATIONS)
    rule, tolerance = schedule["stop"]["rule"], schedule["stop"]["tolerance"]
    choice("schedule.stop.rule", rule, STOPPING_RULES)
    if rule != "never" or tolerance is not None:
        nonnegative("schedule.stop.tolerance", tolerance)
    integer("schedule.stop.patience", schedule["stop"]["patience"], 1, MOST_ITERATIONS)
    for key in ("record", "snapshots"):
        iterations = schedule[key]
        if isinstance(iterations, list):
            for iteration in iterations:
                integer(f"schedule.{key}", iteration, 0, MOST_ITERATIONS)
            distinct(f"schedule.{key}", iterations)
        else:
            choice(f"schedule.{key}", iterations, ("all", "geometric"), ", a list of iterations")
    kept = schedule["record_replicates"]
    if kept != "all":
        integer("schedule.record_replicates", kept, 0, MOST_REPLICATES, ", or all")


def check_degeneracy(degeneracy: dict[str, Any]) -> None:
    """Refuse what are no bounds, floors or penalties of scales."""
    nonnegative("degeneracy.scale", degeneracy["scale"])
    nonnegative("degeneracy.count", degeneracy["count"])
    floor, scale = degeneracy["scale_floor"], degeneracy["scale"]
    if floor is not None and not scale < floor <= 1.0:
        allowed = f"null, or a number above degeneracy.scale ({scale:g}) and at most 1"
        refuse("degeneracy.scale_floor", floor, allowed)
    penalty = degeneracy["penalty"]
    if penalty is not None and not 0.0 < penalty <= MOST_PENALTY:
        refuse(
            "degeneracy.penalty", penalty, f"null, or a number above 0, at most {MOST_PENALTY:g}"
        )
