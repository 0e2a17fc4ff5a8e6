"""Inits: how row 0 of a fit is chosen."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core import sampling
from pipeline.core.compilation import compiled
from pipeline.core.mixture import (
    Parameters,
    mixture_quantiles,
    mixture_standard_deviation,
    standard_deviations,
)
from pipeline.core.model import Model, project
from pipeline.core.random import uniforms

# From the mixture itself, for an init that takes points of a population.
POPULATION_POINTS = 4096


class Draw(NamedTuple):
    """What an init may use.

    ``points`` is (R, n); ``scales`` (R,) their standard deviations and ``quantiles(levels)``
    (R, levels) their quantiles; ``uniforms(count)`` gives the first uniforms of each fit's own
    stream, (R, S, count); ``truth`` is the mixture the sample was drawn from, (K,), where one is
    known.
    """

    points: NDArray[np.float64]
    scales: NDArray[np.float64]
    quantiles: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    n_components: int
    n_starts: int
    uniforms: Callable[[int], NDArray[np.float64]]
    truth: Parameters | None


class Init(NamedTuple):
    """A way to choose starts; ``function`` returns (R, S, K), or what broadcasts to it.

    A ``deterministic`` init has one start per sample: more would be copies.
    """

    function: Callable[[Draw], Parameters]
    deterministic: bool
    needs_truth: bool
    description: str


INITS: dict[str, Init] = {}


def init(
    deterministic: bool = False, needs_truth: bool = False
) -> Callable[[Callable[[Draw], Parameters]], Callable[[Draw], Parameters]]:
    """Register a function as the init of its name; its docstring's first line describes it."""

    def register(function: Callable[[Draw], Parameters]) -> Callable[[Draw], Parameters]:
        description = (function.__doc__ or "").partition("\n")[0]
        INITS[function.__name__] = Init(function, deterministic, needs_truth, description)
        return function

    return register


def _around(draw: Draw, means: NDArray[np.float64]) -> Parameters:
    """Return equal weights and, for every scale, the sample's standard deviation."""
    return Parameters(
        np.full(draw.n_components, 1.0 / draw.n_components), means, draw.scales[:, None, None]
    )


@init()
def notebook(draw: Draw) -> Parameters:
    """Every mean and then every scale uniform on (0, 1); weights equal."""
    uniform = draw.uniforms(2 * draw.n_components)
    return Parameters(
        np.full(draw.n_components, 1.0 / draw.n_components),
        uniform[..., : draw.n_components],
        uniform[..., draw.n_components :],
    )


@init()
def random_points(draw: Draw) -> Parameters:
    """Means at distinct random points of the sample; weights equal; scales the sample's.

    Points are distinct by index (their values may tie); a sample of fewer than K points is used
    more than once.
    """
    uniform = draw.uniforms(draw.n_components)
    n = draw.points.shape[1]
    chosen = np.empty(uniform.shape, np.int64)
    for k in range(draw.n_components):
        round_ = k % n
        left = n - round_
        rank = np.minimum(uniform[..., k] * left, left - 1).astype(np.int64)
        # From the rank among the points still left to the index: step over each one taken.
        for taken in np.moveaxis(np.sort(chosen[..., k - round_ : k], axis=-1), -1, 0):
            rank += rank >= taken
        chosen[..., k] = rank
    return _around(draw, np.take_along_axis(draw.points[:, None, :], chosen, axis=2))


@compiled
def pick(uniform, n):
    """Return an index below n; the product alone can round up to n."""
    return min(int(uniform * n), n - 1)


@compiled
def _seed(points, uniform):
    n_replicates, n_starts, n_components = uniform.shape
    n = points.shape[1]
    means = np.empty(uniform.shape)
    distance = np.empty(n)
    for r in range(n_replicates):
        for s in range(n_starts):
            distance[:] = np.inf
            means[r, s, 0] = points[r, pick(uniform[r, s, 0], n)]
            for k in range(1, n_components):
                total = 0.0
                for i in range(n):
                    squared = (points[r, i] - means[r, s, k - 1]) ** 2
                    distance[i] = min(distance[i], squared)
                    total += distance[i]
                if total == 0.0:
                    means[r, s, k] = points[r, pick(uniform[r, s, k], n)]
                    continue
                goal = uniform[r, s, k] * total
                cumulative = 0.0
                chosen = 0
                for i in range(n):
                    if distance[i] > 0.0:
                        chosen = i
                        cumulative += distance[i]
                        if cumulative > goal:
                            break
                means[r, s, k] = points[r, chosen]
    return means


@init()
def kmeans_pp(draw: Draw) -> Parameters:
    """Means by k-means++ seeding; weights equal; scales the sample's standard deviation.

    The first mean is a uniformly chosen point, each further one a point chosen with probability
    proportional to the squared distance to the nearest mean so far (Arthur & Vassilvitskii 2007,
    "k-means++: the advantages of careful seeding"); uniformly where all distances are 0.
    """
    return _around(draw, _seed(draw.points, draw.uniforms(draw.n_components)))


@init(deterministic=True)
def quantiles(draw: Draw) -> Parameters:
    """Means at the (k + 1/2)/K quantiles; weights equal; scales the sample's standard deviation."""
    levels = (np.arange(draw.n_components) + 0.5) / draw.n_components
    return _around(draw, draw.quantiles(levels)[:, None, :])


@init(deterministic=True, needs_truth=True)
def truth(draw: Draw) -> Parameters:
    """Exactly the mixture that the sample was drawn from."""
    if draw.truth is None:
        raise ValueError("init: truth needs a known truth; use another init for observed data")
    if len(draw.truth.means) != draw.n_components:
        raise ValueError(
            f"init: truth has {len(draw.truth.means)} components, the model {draw.n_components}; "
            "use another init or model.n_components: null"
        )
    return draw.truth


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


def draw_starts(
    name: str,
    points: NDArray[np.float64],
    model: Model,
    truth: Parameters | None,
    key: NDArray[np.uint64],
    replicates: ArrayLike,
    starts: ArrayLike,
) -> Parameters:
    """Return the starts of an init as members of the model, shape (R, S, K).

    A start depends on the key, its own replicate and start number, and its own sample only.

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
    """
    # Writable, as numba compiles a second version for read-only arrays (a memory-mapped file's).
    points = np.require(points, np.float64, ["C", "W"])
    scales = standard_deviations(points)
    quantiles = partial(sample_quantiles, points)
    return _drawn(name, points, scales, quantiles, model, truth, key, replicates, starts)


def draw_population_starts(
    name: str, model: Model, truth: Parameters, key: NDArray[np.uint64], starts: ArrayLike
) -> Parameters:
    """Return the starts of an init for the population itself, shape (1, S, K).

    An init that takes points has ``POPULATION_POINTS`` of the mixture, drawn anew for each start;
    standard deviation and quantiles are the mixture's own.

    Parameters
    ----------
    name, model, key, starts
        See ``draw_starts``.
    truth : Parameters, shape (K_true,)
    """
    scales = np.array([mixture_standard_deviation(truth)])
    # A key of its own: the start's uniforms are drawn with the other one.
    points_key = np.asarray(key, np.uint64) ^ np.array([0, 1], np.uint64)
    parts = []
    for start in np.asarray(starts, np.int64):
        points = sampling.draw(points_key, [start], POPULATION_POINTS, *truth, "multinomial")
        parts.append(
            _drawn(
                name,
                points,
                scales,
                lambda levels: mixture_quantiles(truth, levels)[None, :],
                model,
                truth,
                key,
                [0],
                [start],
            )
        )
    return Parameters(*(np.concatenate(column, axis=1) for column in zip(*parts, strict=True)))


def _drawn(
    name: str,
    points: NDArray[np.float64],
    scales: NDArray[np.float64],
    quantiles: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    model: Model,
    truth: Parameters | None,
    key: NDArray[np.uint64],
    replicates: ArrayLike,
    starts: ArrayLike,
) -> Parameters:
    if name not in INITS:
        raise ValueError(f"init: got {name!r}, must be one of {', '.join(INITS)}")
    replicates = np.asarray(replicates, np.uint64)
    starts = np.asarray(starts, np.uint64)
    shape = (replicates.size, starts.size, model.n_components)
    streams = np.stack(
        [np.repeat(replicates, starts.size), np.tile(starts, replicates.size)], axis=1
    )

    def own_uniforms(count: int) -> NDArray[np.float64]:
        return uniforms(key, streams, count).reshape(*shape[:2], count)

    chosen = INITS[name].function(
        Draw(points, scales, quantiles, model.n_components, starts.size, own_uniforms, truth)
    )
    return project(model, Parameters(*(np.broadcast_to(part, shape) for part in chosen)))
