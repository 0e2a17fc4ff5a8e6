"""One E-step and M-step on a large sample, without copying it: by chunks, on several threads."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core import em
from pipeline.core.compilation import compiled
from pipeline.core.lanes import load_points, load_theta, row_masses
from pipeline.core.loop import LOG_2
from pipeline.core.mixture import LOG_SQRT_2_PI, Parameters
from pipeline.core.model import Model
from pipeline.core.vector import LANES, bits, load, splat, store

Mapping = Callable[[Callable[[int], Any], Iterable[int]], Iterable[Any]]

# Points of one piece of work of a thread, and of what it holds in its cache at a time.
CHUNK = 1 << 22
PIECE = 1 << 13


@compiled
def _chunk_sums(points, offset, exponent, theta, about, constants):
    """Return a chunk's sums (3 * K * 8 + 8,), lanes added up: those of the E-step, log2-density."""
    width = theta.size // 3
    x = np.zeros(PIECE)
    sums, total = np.zeros(3 * width + LANES), np.zeros(3 * width + LANES)
    work = np.ones(8 * width)
    for first in range(0, points.size, PIECE):
        piece = points[first : first + PIECE]
        rows = (piece.size + LANES - 1) // LANES
        row_mass, plain_rows = x, rows
        if piece.size % LANES:
            row_mass, plain_rows = row_masses(np.ones(piece.size), rows, True)
        laid_out = x[: rows * LANES]
        load_points(piece, offset, exponent, -1, laid_out)
        density = em.accumulate(laid_out, row_mass, plain_rows, theta, about, constants, sums, work)
        store(sums, 3 * width, density)
        for j in range(0, total.size, LANES):
            store(total, j, load(total, j) + load(sums, j))
    em.add_lanes(total)
    return total


@compiled
def _constants(parameters, offset, exponent):
    """Return parameters (3, K) in the lanes' units, and the kernel's constants."""
    theta = np.empty(parameters.size * LANES)
    load_theta(parameters, offset, exponent, -1, theta)
    constants = np.empty(2 * theta.size // 3)
    em.set_constants(theta, constants)
    return theta, constants


@compiled
def _mapped(model, exponent, unit, mass, sums, theta, about):
    """Return the M-step's parameters, the residual, and whether digits were lost."""
    fixed_scales = np.empty(LANES * model.n_components)
    for k in range(model.n_components):
        scale = math.ldexp(model.fixed_scales[k], -exponent)
        fixed_scales[LANES * k : LANES * (k + 1)] = scale
    mapped = np.empty(theta.size)
    cancelled = em.m_step(model, fixed_scales, mass, sums, about, mapped)
    residual = np.empty(LANES)
    store(residual, 0, em.largest_change(mapped, theta, splat(unit)))
    return mapped, residual[0], bits(cancelled) != 0


def evaluate(
    points: NDArray[np.float64],
    parameters: Parameters,
    model: Model,
    units: tuple[float, float, int],
    mapping: Mapping = map,
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
    """
    unit, offset, exponent = units
    theta, constants = _constants(np.array(parameters), 0.0, exponent)

    def sums(about: NDArray[np.float64]) -> NDArray[np.float64]:
        def chunk(first: int) -> NDArray[np.float64]:
            part = points[first : first + CHUNK]
            return _chunk_sums(part, offset, exponent, theta, about, constants)

        total = np.zeros(theta.size + LANES)
        for part in mapping(chunk, range(0, points.size, CHUNK)):
            total += part
        return total

    total = sums(theta)
    log_likelihood = LOG_2 * total[-1] - points.size * (LOG_2 * exponent + LOG_SQRT_2_PI)
    scaled = math.ldexp(unit, -exponent)
    mapped, residual, cancelled = _mapped(
        model, exponent, scaled, float(points.size), total, theta, theta
    )
    if cancelled:
        about = mapped
        _, residual, _ = _mapped(
            model, exponent, scaled, float(points.size), sums(about), theta, about
        )
    return float(log_likelihood), float(residual)
