"""Starts: row 0 of every fit, as members of the model, by any of the registered inits."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core import sampling
from pipeline.core.inits import INITS
from pipeline.core.inits.registry import (
    Draw,
    Options,
    check_options,
    chosen_init,
    complete_options,
    init_evaluations,
    number_of_starts,
)
from pipeline.core.mixture import (
    Parameters,
    mixture_quantiles,
    mixture_standard_deviation,
    standard_deviations,
)
from pipeline.core.model import Model, project

__all__ = [
    "INITS",
    "check_options",
    "complete_options",
    "draw_population_starts",
    "draw_starts",
    "init_evaluations",
    "number_of_starts",
]

# From the mixture itself, for an init that takes points of a population.
POPULATION_POINTS = 4096
# Quantiles that stand in for a population's range.
POPULATION_LIMITS = np.array([0.001, 0.999])


def sample_quantiles(
    points: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the quantiles of each row of ``points`` (R, n), by linear interpolation, (R, L)."""
    position = levels * (points.shape[1] - 1)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, points.shape[1] - 1)
    # Only these order statistics are put in their places.
    ordered = np.partition(points, np.union1d(lower, upper), axis=1)
    # Interpolation written out, so that every sample is treated on its own.
    fraction = position - lower
    return ordered[:, lower] + fraction * (ordered[:, upper] - ordered[:, lower])


def sample_limits(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least and the largest of each row of ``points`` (R, n), shape (R, 2)."""
    return np.stack([points.min(axis=1), points.max(axis=1)], axis=1)


def draw_starts(
    name: str,
    points: NDArray[np.float64],
    model: Model,
    truth: Parameters | None,
    key: NDArray[np.uint64],
    replicates: ArrayLike,
    starts: ArrayLike,
    options: Options | None = None,
) -> Parameters:
    """Return the starts of an init as members of the model, shape (R, S, K).

    A start depends on the key, its own replicate and start number, its own sample, and the options
    only.

    Parameters
    ----------
    name : str
        One of ``INITS``. Give each init its own key.
    points : float64, shape (R, n)
    model : Model
    truth : Parameters, shape (K,), or None
    key : uint64, shape (2,)
    replicates : int64, shape (R,)
        Number of each row of ``points``.
    starts : int64, shape (S,)
        Numbers of the starts of each replicate; a range will do.
    options : mapping, optional
        Of the init; those not given, or None, have their defaults.
    """
    # Writable, as numba compiles a second version for read-only arrays (a memory-mapped file's).
    points = np.require(points, np.float64, ["C", "W"])
    scales = standard_deviations(points)
    quantiles = partial(sample_quantiles, points)
    limits = partial(sample_limits, points)
    return _drawn(
        name, points, scales, quantiles, limits, model, truth, key, replicates, starts, options
    )


def draw_population_starts(
    name: str,
    model: Model,
    truth: Parameters,
    key: NDArray[np.uint64],
    starts: ArrayLike,
    options: Options | None = None,
) -> Parameters:
    """Return the starts of an init for the population itself, shape (1, S, K).

    An init that takes points has ``POPULATION_POINTS`` of the mixture, drawn anew for each start;
    standard deviation and quantiles are the mixture's own, its range is that of
    ``POPULATION_LIMITS``.

    Parameters
    ----------
    name, model, key, starts, options
        See ``draw_starts``.
    truth : Parameters, shape (K_true,)
    """
    scales = np.array([mixture_standard_deviation(truth)])
    # A key of its own: the start's uniforms are drawn with the other one.
    points_key = np.asarray(key, np.uint64) ^ np.array([0, 1], np.uint64)

    def quantiles(levels: NDArray[np.float64]) -> NDArray[np.float64]:
        return mixture_quantiles(truth, levels)[None, :]

    # Found once for all starts, and only where they are wanted.
    limits = cache(partial(quantiles, POPULATION_LIMITS))
    parts = []
    for start in np.asarray(starts, np.int64):
        points = sampling.draw(points_key, [start], POPULATION_POINTS, *truth, "multinomial")
        parts.append(
            _drawn(
                name, points, scales, quantiles, limits, model, truth, key, [0], [start], options
            )
        )
    return Parameters(*(np.concatenate(column, axis=1) for column in zip(*parts, strict=True)))


def _drawn(
    name: str,
    points: NDArray[np.float64],
    scales: NDArray[np.float64],
    quantiles: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    limits: Callable[[], NDArray[np.float64]],
    model: Model,
    truth: Parameters | None,
    key: NDArray[np.uint64],
    replicates: ArrayLike,
    starts: ArrayLike,
    options: Options | None,
) -> Parameters:
    chosen = chosen_init(name)
    complete = complete_options(name, options or {})
    check_options(name, complete, model)
    key = np.asarray(key, np.uint64)
    replicates = np.asarray(replicates, np.uint64)
    starts = np.asarray(starts, np.int64)
    shape = (replicates.size, starts.size, model.n_components)
    streams = np.empty((*shape[:2], 2), np.uint64)
    streams[..., 0], streams[..., 1] = replicates[:, None], starts
    found = chosen.function(
        Draw(points, scales, quantiles, limits, model, starts, key, streams, truth, complete)
    )
    return project(model, Parameters(*(np.broadcast_to(part, shape) for part in found)))
