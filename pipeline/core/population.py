"""The population itself as nodes with masses: EM with infinitely many points.

Gauss-Legendre panels, as narrow as the narrowest component nearby and wider away from it.
Gauss-Hermite nodes of the components would be wrong by 1e-2 where scales differ 1 : 100.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.compilation import compiled
from pipeline.core.em import HALF_WIDTH
from pipeline.core.mixture import Parameters
from pipeline.core.vector import LANES, exp2, fma, load, splat, store

PANEL_NODES = 10
# Beyond this many scales from all means lies less than 1e-19 of the mass.
REACH = 9.0
# Up to this many scales from its mean a component may turn a responsibility.
NEAR = 10.0


def legendre_rule(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and masses of the Gauss-Legendre rule on [-1, 1], by Newton's method.

    Not numpy's: the last bits of its eigenvalues depend on the linear algebra library.
    """
    nodes, masses = np.empty(size), np.empty(size)
    for i in range(size):
        x = math.cos(math.pi * (i + 0.75) / (size + 0.5))
        for _ in range(8):
            before, value = 1.0, x
            for degree in range(2, size + 1):
                before, value = (
                    value,
                    ((2 * degree - 1) * x * value - (degree - 1) * before) / degree,
                )
            slope = size * (x * value - before) / (x * x - 1.0)
            x -= value / slope
        nodes[i], masses[i] = x, 2.0 / ((1.0 - x * x) * slope * slope)
    return nodes, masses


@compiled
def _edges(low, high, means, scales, width):
    """Return the panels' edges from ``low`` to ``high``, shape (m + 1,)."""
    edges = [low]
    while edges[-1] < high:
        step = math.inf
        for k in range(means.size):
            away = abs(edges[-1] - means[k]) - NEAR * scales[k]
            step = min(step, width * max(scales[k], away))
        edges.append(min(high, edges[-1] + step))
    return np.array(edges)


@compiled
def _densities(x, weights, means, scales):
    """Return the mixture's density up to a factor; x (m * 8,)."""
    out = np.empty(x.size)
    for i in range(0, x.size, LANES):
        total = splat(0.0)
        for k in range(means.size):
            z = (load(x, i) - splat(means[k])) * splat(HALF_WIDTH / scales[k])
            total = fma(splat(weights[k] / scales[k]), exp2(-z * z), total)
        store(out, i, total)
    return out


def population_nodes(
    truth: Parameters, means: ArrayLike, scales: ArrayLike, width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and their masses, which sum to 1, shape (m,) each.

    Parameters
    ----------
    truth : Parameters, shape (K,)
        The mixture.
    means, scales : float64, shape (components,)
        Further normals that the panels must resolve.
    width : float
        Of the panels, in scales of the narrowest normal nearby; at most 1/2.
    """
    low = float(np.min(truth.means - REACH * truth.scales))
    high = float(np.max(truth.means + REACH * truth.scales))
    resolved = (np.concatenate([truth.means, means]), np.concatenate([truth.scales, scales]))
    edges = _edges(low, high, *resolved, width)
    rule_nodes, rule_masses = legendre_rule(PANEL_NODES)
    middles, halves = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    nodes = (middles[:, None] + halves[:, None] * rule_nodes).ravel()
    lengths = (halves[:, None] * rule_masses).ravel()
    padded = np.zeros(-(-nodes.size // LANES) * LANES)
    padded[: nodes.size] = nodes
    masses = lengths * _densities(padded, *truth)[: nodes.size]
    # math.fsum rounds once: the order does not matter.
    return nodes, masses / math.fsum(masses)
