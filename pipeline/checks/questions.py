"""What may be asked of the fits: replayed rules, targets, slopes, claims, figures."""

import math
from typing import Any

from pipeline.checks.grid import CELL_KEYS, check_partial
from pipeline.checks.schedule import MOST_ITERATIONS
from pipeline.checks.values import (
    NAME,
    between,
    choice,
    distinct,
    integer,
    nonnegative,
    numbers,
    refuse,
)
from pipeline.core.stopping import STOPPING_RULES
from pipeline.figures import FIGURES

# The keys of a claim that say its region.
REGION = ("expected", "margin", "at_least", "at_most", "between")


def check_replay(config: dict[str, Any]) -> None:
    """Refuse rules that cannot be replayed."""
    asked = []
    for index, entry in enumerate(config["replay"]):
        key = f"replay[{index}]"
        choice(f"{key}.rule", entry["rule"], [rule for rule in STOPPING_RULES if rule != "never"])
        integer(f"{key}.patience", entry["patience"], 1, MOST_ITERATIONS)
        if not entry["tolerances"]:
            refuse(f"{key}.tolerances", entry["tolerances"], "at least one number")
        for tolerance in entry["tolerances"]:
            nonnegative(f"{key}.tolerances", tolerance)
            asked.append((entry["rule"], tolerance, entry["patience"]))
    distinct("replay", asked)
    if asked and config["schedule"]["record"] != "all":
        refuse(
            "replay",
            f"{len(asked)} rules with schedule.record={config['schedule']['record']}",
            "rules for complete traces (schedule.record=all), or none (replay=[])",
        )


def check_targets(key: str, values: list[float]) -> None:
    """Refuse what are no targets."""
    if not values:
        refuse(key, values, "at least one positive number")
    for value in values:
        if not (value > 0 and math.isfinite(value)):
            refuse(key, value, "positive numbers")
    distinct(key, values)


def check_slopes(config: dict[str, Any]) -> None:
    """Refuse laws that the grid cannot have."""
    _check_named("slopes", config["slopes"])
    for slope in config["slopes"]:
        key = f"slopes: {slope['name']}"
        check_partial(f"{key}: where", slope["where"] or {}, config)
        labels = [label for label in CELL_KEYS if label != slope["factor"]]
        for label in slope["by"] or []:
            choice(f"{key}: by", label, labels)
        distinct(f"{key}: by", slope["by"] or [])


def _check_named(key: str, entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        if not NAME.fullmatch(entry["name"]):
            refuse(f"{key}[{index}].name", entry["name"], "letters, digits, '_' and '.'")
    distinct(f"{key}: name", [entry["name"] for entry in entries])


def check_claims(config: dict[str, Any]) -> None:
    """Refuse claims that no evidence could decide."""
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
            choice(f"{key}: slope", claim["slope"], known)
        check_partial(f"{key}: where", claim["where"] or {}, config)
        _check_region(key, claim)
        between(f"{key}: allowed_missing", claim["allowed_missing"], 0.0, 1.0)


def _check_region(key: str, claim: dict[str, Any]) -> None:
    """Refuse a claim that does not say one region, of more than a point."""
    given = {part: claim[part] for part in REGION if claim[part] is not None}
    if set(given) not in ({"expected", "margin"}, {"at_least"}, {"at_most"}, {"between"}):
        allowed = "expected with margin, at_least, at_most, or between"
        refuse(key, ", ".join(given) or "no region", allowed)
    for part, value in given.items():
        numbers(f"{key}: {part}", value)
    if "margin" in given and not given["margin"] > 0:
        refuse(f"{key}: margin", given["margin"], "a positive number, in units of the statistic")
    if "between" in given and not (
        len(given["between"]) == 2 and given["between"][0] < given["between"][1]
    ):
        refuse(f"{key}: between", given["between"], "[low, high] with low < high")


def check_figures(figures: Any) -> None:
    """Refuse what are no kinds of figures."""
    if figures == "all":
        return
    names = [kind.name for kind in FIGURES]
    if not isinstance(figures, list):
        refuse("figures", figures, f"all, or a list of {', '.join(names)}")
    for name in figures:
        choice("figures", name, names)
    distinct("figures", figures)
