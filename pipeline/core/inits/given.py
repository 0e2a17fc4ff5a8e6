"""Inits that are told where to start: fixed numbers, a lattice, or the truth."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.inits.registry import Draw, Option, Options, init, integer, is_number
from pipeline.core.mixture import Parameters
from pipeline.core.model import SYMMETRIC, Model
from pipeline.core.sampling import inverse_normal
from pipeline.core.vector import LANES, absolute, exp2, load, select, splat, store

LOG2_E = 1.4426950408889634


@init()
def notebook(draw: Draw) -> Parameters:
    """Every mean and then every scale uniform on (0, 1); weights equal."""
    uniform = draw.uniforms(2 * draw.n_components)
    return Parameters(
        np.full(draw.n_components, 1.0 / draw.n_components),
        uniform[..., : draw.n_components],
        uniform[..., draw.n_components :],
    )


def _truth_of(draw: Draw, name: str) -> Parameters:
    if draw.truth is None:
        raise ValueError(f"init: {name} needs a known truth; use another init for observed data")
    if len(draw.truth.means) != draw.n_components:
        raise ValueError(
            f"init: {name} has {len(draw.truth.means)} components, the model {draw.n_components}; "
            "use another init or model.n_components: null"
        )
    return draw.truth


@init(deterministic=True, needs_truth=True)
def truth(draw: Draw) -> Parameters:
    """Exactly the mixture that the sample was drawn from."""
    return _truth_of(draw, "truth")


@compiled
def _normals(uniform):
    out = np.empty(uniform.size)
    for i in range(0, uniform.size, LANES):
        store(out, i, inverse_normal(load(uniform, i)))
    return out


@compiled
def _powers_of_two(exponent):
    out = np.empty(exponent.size)
    for i in range(0, exponent.size, LANES):
        t = load(exponent, i)
        # exp2 is made for exponents up to 1.
        power = exp2(-absolute(t))
        store(out, i, select(t > splat(0.0), splat(1.0) / power, power))
    return out


def _elementwise(
    function: Callable[[NDArray], NDArray], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Apply a compiled function of whole rows of eight to an array of any shape."""
    whole = np.full(-(-values.size // LANES) * LANES, 0.5)
    whole[: values.size] = values.ravel()
    return function(whole)[: values.size].reshape(values.shape)


SIZE = Option(0.5, "a number above 0, at most 10", lambda x: is_number(x) and 0 < x <= 10)


@init(needs_truth=True, options={"size": SIZE})
def perturbed_truth(draw: Draw) -> Parameters:
    """Means and scales of the truth, each moved at random; its weights are kept.

    Means move by ``size`` true scales times N(0, 1); scales are multiplied by
    exp(size N(0, 1) / sqrt(2)). The Fisher information of one normal observation about its mean
    and log-scale is 1 / scale^2 and 2: all moves are equally large in what one can tell apart,
    those of estimates from 1 / size^2 points of each component alone.
    """
    true, size = _truth_of(draw, "perturbed_truth"), draw.options["size"]
    z = _elementwise(_normals, draw.uniforms(2 * draw.n_components))
    exponent = size * math.sqrt(0.5) * LOG2_E * z[..., draw.n_components :]
    return Parameters(
        true.weights,
        true.means + size * true.scales * z[..., : draw.n_components],
        true.scales * _elementwise(_powers_of_two, exponent),
    )


def _lists(allowed: str, accepts: Callable[[Any], bool]) -> Option:
    def accepts_list(values: Any) -> bool:
        return isinstance(values, list) and len(values) > 0 and all(map(accepts, values))

    return Option(None, allowed, accepts_list)


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _check_explicit(options: Options, model: Model) -> None:
    for part in ("weights", "means", "scales"):
        if len(options[part]) != model.n_components:
            raise ValueError(
                f"{part}: got {len(options[part])} numbers; allowed: one for each of the "
                f"{model.n_components} components of the model"
            )
    total = math.fsum(options["weights"])
    if abs(total - 1) > 1e-9:
        got = f"{options['weights']} (sum {total:.12g})"
        raise ValueError(f"weights: got {got}; allowed: a sum of 1")


@init(
    deterministic=True,
    options={
        "weights": _lists("a list of positive numbers that sum to 1", _is_positive),
        "means": _lists("a list of finite numbers", is_number),
        "scales": _lists("a list of positive numbers (standard deviations)", _is_positive),
    },
    check=_check_explicit,
)
def explicit(draw: Draw) -> Parameters:
    """Weights, means and scales as they are given."""
    return Parameters(*(np.array(draw.options[part], float) for part in Parameters._fields))


def _free_means(model: Model) -> int:
    return 1 if model.means == SYMMETRIC else model.n_components


def _lattice_points(options: Options, model: Model) -> int:
    return options["points"] ** _free_means(model)


def _check_grid(options: Options, model: Model) -> None:
    low, high = options["low"], options["high"]
    if low is not None and high is not None and not low < high:
        raise ValueError(f"low: got {low:g}; allowed: a number below high, {high:g}")


EDGE = Option(
    None, "a finite number, or null (the data's range)", lambda x: x is None or is_number(x)
)


@init(
    deterministic=True,
    options={"points": integer(10, 2, 10**6), "low": EDGE, "high": EDGE},
    check=_check_grid,
    n_starts=_lattice_points,
)
def grid(draw: Draw) -> Parameters:
    """Means on a lattice, one start for each of its points; weights equal; scales the sample's.

    Every mean takes ``points`` evenly spaced values from ``low`` to ``high``, in the data's units
    (null: to the end of the data's range; a population's 0.001 and 0.999 quantiles). The last mean
    changes fastest. With symmetric means the lattice is that of t: the first mean's.
    """
    points = draw.options["points"]
    low, high = np.moveaxis(draw.limits()[:, None, :], -1, 0)
    low = low if draw.options["low"] is None else np.full_like(low, draw.options["low"])
    high = high if draw.options["high"] is None else np.full_like(high, draw.options["high"])
    means = np.empty((len(draw.points), len(draw.starts), draw.n_components))
    rest = draw.starts
    for k in reversed(range(_free_means(draw.model))):
        # Weighted ends: both are met exactly, and nothing overflows.
        fraction = (rest % points) / (points - 1)
        means[..., k] = (1.0 - fraction) * low + fraction * high
        rest = rest // points
    if draw.model.means == SYMMETRIC:
        means[..., 1] = -means[..., 0]
    return draw.around(means)
