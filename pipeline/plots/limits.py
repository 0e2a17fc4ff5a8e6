"""The limits that fits of one sample end at, and which limits of several samples are the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pandas as pd

from pipeline.plots.group import PARAMETERS
from pipeline.plots.style import OKABE_ITO

# Limits with a colour of their own: as many hues as can be told apart in all their shades.
HUES = tuple(OKABE_ITO[i] for i in (0, 4, 2, 3, 1))
# For limits that one panel has and another lacks.
COLORS = (*HUES, OKABE_ITO[5], OKABE_ITO[6], "#7a4d9e", "#8b5a2b")
OTHER = "#777777"
FAILED = {"max_iter": "#bbbbbb"}  # every other failure is black
# Two fits have the same limit if no parameter differs by more, in units: most stopping rules leave
# fits of one limit much nearer to each other, and optima lie much farther apart.
RADIUS = 1e-3
# Where EM is slow a rule leaves fits farther from their limit, each as far as it tells itself, but
# with the limit's log-likelihood: up to this part of it, or of 1 where that is smaller.
SAME = 1e-6
# Limits of two samples are the same optimum if no parameter differs by more, in units. Sampling
# moves an optimum of a hundred points by up to about 0.15; different optima lie farther apart.
# Only colours depend on it: within a sample, limits are told apart whatever their distance.
TOLERANCE = 0.2


@dataclass(frozen=True)
class Limit:
    """Where some fits end.

    Attributes
    ----------
    name
        A letter, or an outcome, or ``other``.
    means
        Of a limit with a letter, ascending.
    color
        Of its basin.
    log_likelihood
        Total, of a limit with a letter.
    estimate
        Weights, means and scales of a limit with a letter, shape (3, n_components).
    scale
        Of its sample: the unit of means and scales.
    """

    name: str
    means: tuple[float, ...]
    color: str
    log_likelihood: float = math.nan
    estimate: np.ndarray | None = None
    scale: float = math.nan


def limits(fits: pd.DataFrame, n_components: int) -> tuple[np.ndarray, list[Limit]]:
    """Tell to which limit each fit of one sample went.

    Converged fits whose estimates agree up to the order of the components share a limit: they
    differ by at most `RADIUS`, or have one log-likelihood and differ by no more than both may lie
    off their fixed points (`_errors`). The largest limits are looked for first, and named by their
    log-likelihood; what is then left is ``other``. A fit that did not converge belongs to its
    outcome.

    Parameters
    ----------
    fits
        Rows of ``fits``.
    n_components
        Of the model.

    Returns
    -------
    places : int, shape (fits,)
        In the list.
    limits
        Those that occur.
    """
    columns = np.array([[f"{name}_{k}" for k in range(n_components)] for name in PARAMETERS])
    estimates = fits[columns.ravel()].to_numpy(float).reshape(-1, 3, n_components)
    units = fits["sample_scale"].to_numpy(float)[:, None, None] * [[0.0], [1.0], [1.0]]
    units[:, 0] = 1.0
    log_likelihoods = fits["log_likelihood"].to_numpy(float)
    outcomes = fits["outcome"].to_numpy(object)
    scaled = estimates / units
    errors = _errors(fits)
    same = SAME * max(1.0, float(np.abs(log_likelihoods[outcomes == "converged"]).max(initial=0.0)))

    found: list[np.ndarray] = []
    left = outcomes == "converged"
    # Fits of one limit share their log-likelihood to about that many digits.
    rounded = np.round(log_likelihoods / np.abs(log_likelihoods[left]).max(initial=1.0), 8)
    while left.any() and len(found) < len(HUES):
        _, first, counts = np.unique(rounded[left], return_index=True, return_counts=True)
        leader = np.flatnonzero(left)[first[np.argmax(counts)]]
        distances = [
            np.abs(scaled[:, :, list(order)] - scaled[leader]).max(axis=(1, 2))
            for order in permutations(range(n_components))
        ]
        apart = np.min(distances, axis=0)
        as_good = np.abs(log_likelihoods - log_likelihoods[leader]) <= same
        near = as_good & (apart <= RADIUS + errors + errors[leader])
        members = left & ((apart <= RADIUS) | near)
        found.append(np.flatnonzero(members))
        left &= ~members

    found.sort(key=lambda members: -log_likelihoods[members].max())
    places = np.zeros(len(fits), int)
    named: list[Limit] = []
    for letter, color, members in zip("ABCDEFG", HUES, found, strict=False):
        places[members] = len(named)
        means = np.sort(estimates[members[0], 1])
        one = members[0]
        named.append(
            Limit(
                letter, tuple(means.tolist()), color, float(log_likelihoods[one]), estimates[one],
                float(units[one, 1, 0]),
            )
        )  # fmt: skip
    for outcome in sorted(set(outcomes.tolist()) - {"converged"}):
        places[outcomes == outcome] = len(named)
        named.append(Limit(outcome.replace("_", " "), (), FAILED.get(outcome, "#000000")))
    if left.any():
        places[left] = len(named)
        named.append(Limit("other", (), OTHER))
    return places, named


def _errors(fits: pd.DataFrame) -> np.ndarray:
    """Return how far fits may lie off their fixed points, in units, shape (fits,).

    To first order f / (1 - rate), f the map residual and rate that of EM in theory; the error bound
    of the nodes comes on top. Where there is no rate below 1 it is not known, and 0 here.
    """
    lack = 1.0 - fits["rate_theory"].to_numpy(float)
    residuals = fits["map_residual"].to_numpy(float)
    distances = np.divide(residuals, lack, out=np.full(len(fits), np.nan), where=lack > 0)
    return np.nan_to_num(distances + fits["compression_error_bound"].to_numpy(float))


def limit_distance(first: Limit, second: Limit) -> float:
    """Return the largest difference of a parameter, in units of the second limit's sample.

    In the order of the components that brings them closest; infinite without estimates.
    """
    one, other = first.estimate, second.estimate
    if one is None or other is None:
        return math.inf
    units = np.array([[1.0], [second.scale], [second.scale]])
    orders = permutations(range(one.shape[1]))
    return min(float(np.abs((one[:, list(order)] - other) / units).max()) for order in orders)


def same_colors(panels: Sequence[Sequence[Limit]]) -> list[list[Limit]]:
    """Colour the limits of several panels: one optimum has one colour in all of them.

    The pairs of a limit and an optimum of earlier panels that are nearest, within `TOLERANCE`, are
    the same one; what is left over is new.
    """
    known: dict[str, Limit] = {}
    colored = []
    for named in panels:
        lettered = [place for place, limit in enumerate(named) if limit.estimate is not None]
        pairs = sorted(
            (limit_distance(named[place], limit), place, color)
            for place in lettered
            for color, limit in known.items()
        )
        chosen: dict[int, str] = {}
        for distance, place, color in pairs:
            if distance <= TOLERANCE and place not in chosen and color not in chosen.values():
                chosen[place] = color
        for place in lettered:
            if place not in chosen:
                # Were all colours taken, one that this panel lacks would come again.
                free = [color for color in COLORS if color not in chosen.values()]
                chosen[place] = next((color for color in free if color not in known), free[0])
        known |= {color: named[place] for place, color in chosen.items()}
        colored.append(
            [replace(limit, color=chosen.get(i, limit.color)) for i, limit in enumerate(named)]
        )
    return colored
