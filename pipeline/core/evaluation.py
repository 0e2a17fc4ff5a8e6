"""One E-step and M-step on a large sample, without copying it: by chunks, on several threads."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core import em
from pipeline.core.compilation import compiled
from pipeline.core.lanes import load_masses, load_points, load_theta, read_theta
from pipeline.core.loop import LOG_2
from pipeline.core.mixture import LOG_SQRT_2_PI, Parameters
from pipeline.core.model import Model
from pipeline.core.outcomes import Degeneracy
from pipeline.core.vector import (
    LANES,
    bits,
    first_lane,
    hold,
    lane_sum,
    load,
    rows,
    splat,
    store,
)

DEFAULT_DEGENERACY = Degeneracy()
Mapping = Callable[[Callable[[int], Any], Iterable[int]], Iterable[Any]]

# Points of one piece of work of a thread, and of what it holds in its cache at a time.
CHUNK = 1 << 22
PIECE = 1 << 13


@compiled
def _chunk_sums(points, offset, exponent, parameters, about):
    """Return the E-step's sums over a chunk and its log2-density, shape (3 * K + 1,).

    ``about`` (3, K) has the means that the sums are about; None: those of ``parameters``.
    """
    n_components = parameters.shape[1]
    width = LANES * n_components
    memory = np.zeros(15 * width + 2 * PIECE + LANES)
    theta, centres, constants = rows(memory, 0), rows(memory, 3 * width), rows(memory, 6 * width)
    sums, work = rows(memory, 8 * width), rows(memory, 11 * width)
    x, masses = rows(memory, 15 * width), rows(memory, 15 * width + PIECE)
    load_theta(parameters, 0.0, exponent, -1, theta)
    em.set_constants(n_components, theta, constants)
    if about is not None:
        load_theta(about, 0.0, exponent, -1, centres)

    ones = np.ones(PIECE)
    total = np.zeros(3 * n_components + 1)
    for first in range(0, points.size, PIECE):
        piece = points[first : first + PIECE]
        load_points(piece, offset, exponent, -1, x)
        n_rows = (piece.size + LANES - 1) // LANES
        # Lanes of a last row that no points fill have mass 0.
        plain_rows = n_rows
        if piece.size % LANES:
            plain_rows = load_masses(ones[: piece.size], True, masses)
        sample = em.Sample(x, masses, n_rows, plain_rows)
        if about is None:
            density = em.accumulate(sample, n_components, theta, None, constants, sums, work)
        else:
            density = em.accumulate(sample, n_components, theta, centres, constants, sums, work)
        for i in range(3 * n_components):
            total[i] += first_lane(lane_sum(load(sums, LANES * i)))
        total[-1] += first_lane(lane_sum(density))
    hold(memory)
    return total


@compiled
def _mapped(model, exponent, unit, mass, total, parameters, about, floor, penalty):
    """Return the M-step's parameters (3, K), the map residual, and whether digits were lost."""
    n_components = model.n_components
    width = LANES * n_components
    memory = np.zeros(14 * width + LANES)
    theta, centres, mapped = rows(memory, 0), rows(memory, 3 * width), rows(memory, 6 * width)
    sums = rows(memory, 9 * width)
    lane_model = Model(
        n_components, model.weights, model.means, model.scales,
        rows(memory, 12 * width), rows(memory, 13 * width),
    )  # fmt: skip
    load_theta(parameters, 0.0, exponent, -1, theta)
    load_theta(about, 0.0, exponent, -1, centres)
    for i in range(3 * n_components):
        store(sums, LANES * i, splat(total[i]))
    for k in range(n_components):
        store(lane_model.fixed_weights, LANES * k, splat(model.fixed_weights[k]))
        scale = math.ldexp(model.fixed_scales[k], -exponent)
        store(lane_model.fixed_scales, LANES * k, splat(scale))
    lanes_unit = splat(math.ldexp(unit, -exponent))
    cancelled = em.m_step(lane_model, mass, sums, centres, lanes_unit, floor, penalty, mapped)
    change = em.largest_change(n_components, mapped, theta, lanes_unit)
    out = np.empty((3, n_components))
    read_theta(mapped, 0.0, exponent, 0, out)
    hold(memory)
    return out, first_lane(change), bits(cancelled) != 0


def evaluate(
    points: NDArray[np.float64],
    parameters: Parameters,
    model: Model,
    units: tuple[float, float, int],
    mapping: Mapping = map,
    degeneracy: Degeneracy = DEFAULT_DEGENERACY,
) -> tuple[float, float]:
    """Return the log-likelihood and the map residual max |M(theta) - theta| of one mixture.

    Parameters
    ----------
    points : float64, shape (n,)
    parameters : Parameters, shape (K,)
        With means measured from the offset.
    units : (float, float, int)
        Standard deviation of the sample, offset and binary exponent of the lanes' units.
    mapping : callable
        ``map``, or a pool's, which shares the chunks out between threads.
    degeneracy : Degeneracy
        What keeps the map's scales from 0.
    """
    unit, offset, exponent = units
    theta, mass = np.array(parameters), float(points.size)

    def sums(about: NDArray[np.float64] | None) -> NDArray[np.float64]:
        def chunk(first: int) -> NDArray[np.float64]:
            return _chunk_sums(points[first : first + CHUNK], offset, exponent, theta, about)

        # In the order of the chunks, whichever is done first.
        return sum(mapping(chunk, range(0, points.size, CHUNK)), np.zeros(theta.size + 1))

    total = sums(None)
    log_likelihood = LOG_2 * total[-1] - mass * (LOG_2 * exponent + LOG_SQRT_2_PI)
    floor, penalty = degeneracy.scale_floor, degeneracy.penalty
    kept = None if floor is None else float(floor), None if penalty is None else penalty / mass
    mapped, residual, cancelled = _mapped(model, exponent, unit, mass, total, theta, theta, *kept)
    if cancelled:
        _, residual, _ = _mapped(model, exponent, unit, mass, sums(mapped), theta, mapped, *kept)
    return float(log_likelihood), float(residual)
