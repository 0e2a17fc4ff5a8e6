"""What EM estimates: which parameters are free, tied or fixed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.mixture import Parameters

FREE = 0
EQUAL = 1  # weights: all 1/K, fixed
SYMMETRIC = 1  # means: +t and -t
SHARED = 1  # scales: one for all components
FIXED = 2


class Model(NamedTuple):
    """Constraints of a model as the kernel reads them; made by ``make_model``.

    ``weights``, ``means`` and ``scales`` are codes of this module. ``fixed_weights`` and
    ``fixed_scales``, shape (K,), hold the values of what is equal or fixed (else they are unused).
    """

    n_components: int
    weights: int
    means: int
    scales: int
    fixed_weights: NDArray[np.float64]
    fixed_scales: NDArray[np.float64]


def make_model(
    n_components: int,
    weights: str | Sequence[float] = "free",
    means: str = "free",
    scales: str | float | Sequence[float] = "free",
) -> Model:
    """Return the model that the config values describe.

    Parameters
    ----------
    n_components : int
    weights : "free", "equal" or K fixed values that sum to 1
    means : "free" or "symmetric" (+t and -t; two components, scales shared or fixed)
    scales : "free", "shared", one fixed value for all components, or K of them

    Raises
    ------
    ValueError
        Naming the key, the value got and what is allowed.
    """
    if n_components < 1:
        raise ValueError(f"n_components: got {n_components}, must be at least 1")
    weights_code, fixed_weights = _constraint(
        "weights", weights, {"free": FREE, "equal": EQUAL}, n_components
    )
    scales_code, fixed_scales = _constraint(
        "scales", scales, {"free": FREE, "shared": SHARED}, n_components
    )
    if weights_code == FIXED:
        if (fixed_weights <= 0).any():
            raise ValueError(f"weights: got {weights}, each must be above 0")
        if abs(fixed_weights.sum() - 1) > 1e-9:
            raise ValueError(f"weights: got {weights}, must sum to 1, not {fixed_weights.sum():g}")
    if scales_code == FIXED and (fixed_scales <= 0).any():
        raise ValueError(f"scales: got {scales}, each must be above 0")
    if means not in ("free", "symmetric"):
        raise ValueError(f"means: got {means!r}, must be free or symmetric")
    if means == "symmetric" and n_components != 2:
        raise ValueError(
            f"means: symmetric needs n_components = 2, got {n_components}; use means: free"
        )
    if means == "symmetric" and scales_code == FREE:
        raise ValueError(
            "means: symmetric with scales: free has no closed-form M-step; "
            "use scales: shared or fixed numbers"
        )
    return Model(
        n_components,
        weights_code,
        SYMMETRIC if means == "symmetric" else FREE,
        scales_code,
        fixed_weights,
        fixed_scales,
    )


def _constraint(
    name: str, value: str | float | Sequence[float], codes: dict[str, int], n_components: int
) -> tuple[int, NDArray[np.float64]]:
    """Return the code of a config value and, per component, the number that it fixes."""
    equal = np.full(n_components, 1.0 / n_components)
    if isinstance(value, str):
        if value not in codes:
            raise ValueError(f"{name}: got {value!r}, must be {', '.join(codes)} or fixed numbers")
        return codes[value], equal
    try:
        fixed = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: got {value!r}, must be {', '.join(codes)} or numbers") from None
    if fixed.ndim == 0 and name == "scales":
        fixed = np.full(n_components, fixed)
    if fixed.shape != (n_components,):
        raise ValueError(
            f"{name}: got {fixed.size} fixed numbers ({value}), needs one for each of the "
            f"{n_components} components"
        )
    if not np.isfinite(fixed).all():
        raise ValueError(f"{name}: got {value}, must be finite")
    return FIXED, fixed


def project(model: Model, parameters: Parameters) -> Parameters:
    """Return the member of the model that a start stands for; any batch shape (..., K).

    Fixed and equal values replace the start's; symmetric means are t = (mean_0 - mean_1) / 2 and
    -t; a shared scale is the root of the weighted mean square.
    """
    weights, means, scales = (np.array(part, np.float64) for part in parameters)
    if model.weights != FREE:
        weights[...] = model.fixed_weights
    if model.means == SYMMETRIC:
        means[..., 0] = (means[..., 0] - means[..., 1]) / 2
        means[..., 1] = -means[..., 0]
    if model.scales == FIXED:
        scales[...] = model.fixed_scales
    elif model.scales == SHARED:
        # Component by component: a library sum may order its terms by the batch's shape.
        square = np.zeros(scales.shape[:-1])
        for k in range(model.n_components):
            square += weights[..., k] * scales[..., k] * scales[..., k]
        scales[...] = np.sqrt(square)[..., None]
    return Parameters(weights, means, scales)
