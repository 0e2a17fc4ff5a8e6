"""What the factors of a grid may be: mixtures, models, sample sizes; and cells of it."""

import math
from typing import Any

from pipeline.checks.values import choice, distinct, integer, numbers, one_line, refuse
from pipeline.core.model import make_model
from pipeline.core.sampling import ALLOCATIONS
from pipeline.errors import InputError

# Bounds that keep integers within 64 bits and one sample within a machine's memory.
MOST_POINTS, MOST_COMPONENTS = 10**9, 1000
# Squares neither overflow nor vanish.
LEAST_SCALE, MOST_SIZE = 1e-150, 1e150
CELL_KEYS = ("mixture", "observed", "model", "sample_size", "init", "algorithm")


def check_mixture(key: str, mixture: dict[str, Any]) -> None:
    """Refuse what is no mixture."""
    weights, means, scales = (mixture[part] for part in ("weights", "means", "scales"))
    if not weights or not len(weights) == len(means) == len(scales):
        lengths = f"{len(weights)} weights, {len(means)} means, {len(scales)} scales"
        refuse(key, lengths, "equal lengths, at least 1")
    for part in ("weights", "means", "scales"):
        numbers(f"{key}.{part}", mixture[part])
    if not all(weight > 0 for weight in weights):
        refuse(f"{key}.weights", weights, "positive numbers that sum to 1")
    if abs(math.fsum(weights) - 1) > 1e-9:
        refuse(f"{key}.weights", f"{weights} (sum {math.fsum(weights):.12g})", "a sum of 1")
    if not all(scale > 0 for scale in scales):
        refuse(f"{key}.scales", scales, "positive numbers (standard deviations)")
    if not all(LEAST_SCALE <= scale <= MOST_SIZE for scale in scales):
        allowed = f"standard deviations from {LEAST_SCALE:g} to {MOST_SIZE:g}"
        refuse(f"{key}.scales", scales, f"{allowed}, whose squares are numbers too")
    if not all(abs(mean) <= MOST_SIZE for mean in means):
        allowed = f"numbers from {-MOST_SIZE:g} to {MOST_SIZE:g}"
        refuse(f"{key}.means", means, f"{allowed}, whose squares are numbers too")
    choice(f"{key}.allocation", mixture["allocation"], ALLOCATIONS)


def check_model(key: str, model: dict[str, Any]) -> None:
    """Refuse what is no model."""
    n_components = model["n_components"]
    if n_components is not None:
        integer(f"{key}.n_components", n_components, 1, MOST_COMPONENTS)
    choice(f"{key}.means", model["means"], ("free", "symmetric"))
    for part, words in (("weights", ("free", "equal")), ("scales", ("free", "shared"))):
        value = model[part]
        if isinstance(value, str):
            choice(f"{key}.{part}", value, words, ", or fixed numbers")
        else:
            numbers(f"{key}.{part}", value)
    if n_components is not None:
        check_model_of_size(key, model, n_components)


def check_model_of_size(key: str, model: dict[str, Any], n_components: int) -> None:
    """Refuse a model that the core cannot fit with this many components."""
    try:
        make_model(n_components, model["weights"], model["means"], model["scales"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: {one_line(str(error))}") from error


def check_sizes(config: dict[str, Any]) -> None:
    """Refuse what are no sample sizes."""
    sizes = config["sample_sizes"]
    if config["mixture"] and not sizes:
        refuse("sample_sizes", sizes, "at least one integer of at least 1")
    for size in sizes:
        if size != math.inf:
            integer("sample_sizes", size, 1, MOST_POINTS, ", or inf (the population itself)")
    distinct("sample_sizes", sizes)


def check_only(config: dict[str, Any]) -> None:
    """Refuse a selection of cells that the grid cannot have."""
    for partial in config["only"] or []:
        check_partial("only", partial, config)


def check_partial(where: str, partial: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse labels of cells, below the key `where`, that the grid does not have."""
    for key, value in partial.items():
        choice(where, key, CELL_KEYS)
        known = list(config["sample_sizes"] if key == "sample_size" else config[key])
        if value not in known:
            refuse(f"{where}.{key}", value, ", ".join(map(str, known)) or "nothing")
