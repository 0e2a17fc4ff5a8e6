r"""Distances between the fitted and the true density: no components to match, any numbers of them.

With f the fitted and g the true density, F and G their distribution functions:

* total variation 1/2 int |f - g|,
* Hellinger distance H, H^2 = 1/2 int (sqrt f - sqrt g)^2 = 1 - int sqrt(f g),
* Kullback-Leibler divergence of the truth from the fit, int g log(g / f),
* Wasserstein distance of order 1, int |F - G|.

Total variation and Wasserstein are closed forms between the zeros of what is under the modulus:
with D = F - G and E = int D, which are sums of normal distribution functions and densities, they
are 1/2 sum |D(c_i+1) - D(c_i)| over the crossings c of f and g, and sum |E(d_i+1) - E(d_i)| over
the zeros d of D. D is monotone between two crossings, so that it has at most one zero there. A zero
that is off by e costs e^2.

Hellinger and Kullback-Leibler are Gauss-Legendre sums over panels that resolve all components, and
what log f and sqrt f have of kinks: where another component becomes the largest. Their integrands
are written so that they are nowhere negative and need no cancellation where f is near g:

    int g log(g / f) = int g (u - log(1 + u)),   u = f / g - 1.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.crossings import (
    AT_D,
    AT_E,
    AT_H,
    AT_X,
    INVERSE_ROOT,
    PANEL_NODES,
    SLOPE,
    VARIATION,
    WASSERSTEIN,
    Pair,
    density,
    is_plain,
    scan,
    significant,
)
from pipeline.core.em import HALF_WIDTH
from pipeline.core.loop import LOG_2
from pipeline.core.mixture import Parameters
from pipeline.core.population import NEAR, REACH, legendre_rule
from pipeline.core.vector import (
    LANES,
    absolute,
    first_lane,
    fma,
    hold,
    lane_sum,
    load,
    log2,
    polynomial,
    root,
    rows,
    rows_from,
    select,
    splat,
    store,
)

_nodes, _masses = legendre_rule(PANEL_NODES)
NODES, MASSES = _nodes[::-1].copy(), _masses[::-1].copy()
# Width of a panel, in scales of the narrowest component nearby, and in widths 1 / abs((log f_k)' -
# (log f_j)') of a switch from one component to another: log f is singular pi widths beside it.
PANEL_SCALES = 2.0
PANEL_SWITCHES = 4.0
# Below this part of the highest density of a component (as a power of 2) the truth is nothing.
NOWHERE = -150.0
# Panels cannot resolve a scale that is smaller than this, of the numbers' size.
SMALLEST_SCALE = 2.0**-40
# (u - log(1 + u)) / u^2 = 1/2 - u/3 + u^2/4 - ...: below 2^-6 to the last bit.
NEARLY = 2.0**-6
_near = polynomial(*[(-1.0) ** i / (i + 2.0) for i in range(9, -1, -1)])


class Distances(NamedTuple):
    """Distances of F fits from the truth, each of shape (F,); not-a-number where there is none.

    ``wasserstein_1`` is in the data's unit, the others have none.
    """

    total_variation: NDArray[np.float64]
    hellinger: NDArray[np.float64]
    kullback_leibler: NDArray[np.float64]
    wasserstein_1: NDArray[np.float64]


def distances(fitted: Parameters, truth: Parameters | None) -> Distances:
    """Return the distances of fitted mixtures from the true one.

    Parameters
    ----------
    fitted : Parameters, shape (F, K)
    truth : Parameters, shape (K_true,), or None

    Returns
    -------
    Distances
        Not-a-number without a truth, where a fit is no density (parameters that are not finite, a
        scale that is not above 0), where a scale is below 1e-12 of the distances between means, and
        where a distance is beyond the range of floats. Weights are divided by their sum.

    Notes
    -----
    Accurate to 1e-9 of a distance or 1e-13 absolutely (Wasserstein: of the range of both densities,
    means and nine scales), whichever is larger.
    """
    found = np.full((4, len(fitted.means)), np.nan)
    if truth is not None:
        theta = np.ascontiguousarray(np.stack(fitted, axis=1))
        _fill(theta, np.array(truth), found)
    return Distances(*np.where(np.isfinite(found), found, np.nan))


@compiled
def _normalised(theta, offset, exponent):
    """Return a mixture (3, K) with weights that sum to 1, from an offset, over 2^exponent."""
    out = np.empty(theta.shape)
    total = 0.0
    for k in range(theta.shape[1]):
        total += theta[0, k]
    for k in range(theta.shape[1]):
        out[0, k] = theta[0, k] / total
        out[1, k] = math.ldexp(theta[1, k] - offset, -exponent)
        out[2, k] = math.ldexp(theta[2, k], -exponent)
    return out


@compiled
def _is_density(mixture):
    """Return whether panels can resolve a normalised mixture (3, K)."""
    for k in range(mixture.shape[1]):
        weight, mean, scale = mixture[0, k], mixture[1, k], mixture[2, k]
        good = 0.0 <= weight <= 1.0 and abs(mean) < math.inf and 0.0 < scale < math.inf
        if not good or scale < SMALLEST_SCALE * abs(mean):
            return False
    return True


@compiled
def _top(mixture):
    """Return an exponent of 2 that the heights weight / scale do not exceed."""
    top = -1021
    for k in range(mixture.shape[1]):
        top = max(top, math.frexp(mixture[0, k] / mixture[2, k])[1])
    return top


@compiled
def _load_mixture(mixture, top, constants):
    """Write a mixture (3, K) into ``constants`` (5, K, 8), see ``Pair``."""
    n = LANES * mixture.shape[1]
    for k in range(mixture.shape[1]):
        weight, mean, scale = mixture[0, k], mixture[1, k], mixture[2, k]
        # A component without weight takes part in nothing.
        height = splat(-math.inf)
        if weight > 0.0:
            height = log2(splat(weight / scale)) - splat(float(top))
        store(constants, LANES * k, splat(mean))
        store(constants, n + LANES * k, splat(1.0 / scale))
        store(constants, 2 * n + LANES * k, height)
        store(constants, 3 * n + LANES * k, splat(weight))
        store(constants, 4 * n + LANES * k, splat(scale))


@compiled
def _divergence(f, g, f_log, g_log):
    """Return g (u - log(1 + u)), u = f / g - 1, at a row of points."""
    difference = f - g
    u = difference / g
    near = g * (u * u * _near(u))
    far = fma(splat(LOG_2) * g, g_log - f_log, difference)
    value = select(absolute(difference) <= splat(NEARLY) * g, near, far)
    return select(g > splat(0.0), value, f)


@compiled
def _panel(low, high, pair, sums, nodes):
    """Add a panel to the sums of Hellinger and Kullback-Leibler; fill its ``nodes`` (3, 16)."""
    middle, half = splat(0.5 * (low + high)), splat(0.5 * (high - low))
    for row in range(0, PANEL_NODES, LANES):
        x = fma(half, load(NODES, row), middle)
        f, f_log, f_slope = density(x, pair.n_fitted, pair.fitted, pair.work)
        g, g_log, g_slope = density(x, pair.n_true, pair.true, pair.work)
        mass = half * load(MASSES, row)
        apart = root(f) - root(g)
        store(sums, 0, fma(mass * apart, apart, load(sums, 0)))
        store(sums, LANES, fma(mass, _divergence(f, g, f_log, g_log), load(sums, LANES)))
        store(nodes, row, x)
        store(nodes, PANEL_NODES + row, significant(f, g))
        store(nodes, 2 * PANEL_NODES + row, f_slope - g_slope)


@compiled
def _log_height(mixture, k, x):
    """Return log2(w_k N(x; m_k, s_k^2)) but for a constant."""
    w = (x - mixture[1, k]) / mixture[2, k] * HALF_WIDTH
    return first_lane(log2(splat(mixture[0, k] / mixture[2, k]))) - w * w


@compiled
def _add_switch(mixture, k, j, x, truth, places, n_places):
    """Add x to the places if component j takes over from k as the largest there."""
    height = _log_height(mixture, k, x)
    if not abs(height) < math.inf:
        return n_places
    for i in range(mixture.shape[1]):
        if mixture[0, i] > 0.0 and _log_height(mixture, i, x) > height + 1.0:
            return n_places
    highest, here = -math.inf, -math.inf
    for i in range(truth.shape[1]):
        if truth[0, i] > 0.0:
            highest = max(highest, _log_height(truth, i, truth[1, i]))
            here = max(here, _log_height(truth, i, x))
    change = (x - mixture[1, k]) / mixture[2, k] ** 2 - (x - mixture[1, j]) / mixture[2, j] ** 2
    if here - highest < NOWHERE or not 0.0 < abs(change) < math.inf:
        return n_places
    places[n_places] = x, PANEL_SWITCHES / abs(change), 0.0
    return n_places + 1


@compiled
def _add_places(mixture, truth, places, n_places):
    """Add what panels must resolve of a mixture; return the new number of places.

    A place is where it is, the width of panels there, and within which distance.
    """
    n_components = mixture.shape[1]
    for k in range(n_components):
        if mixture[0, k] > 0.0:
            scale = mixture[2, k]
            places[n_places] = mixture[1, k], PANEL_SCALES * scale, NEAR * scale
            n_places += 1
    for k in range(n_components):
        for j in range(k):
            if not (mixture[0, k] > 0.0 and mixture[0, j] > 0.0):
                continue
            # Where the two are equal: a y^2 - 2 b y + c = 0, y counted from the mean of k.
            apart = mixture[1, j] - mixture[1, k]
            p, q = (HALF_WIDTH / mixture[2, k]) ** 2, (HALF_WIDTH / mixture[2, j]) ** 2
            a, b = q - p, q * apart
            c = q * apart * apart + first_lane(
                log2(splat(mixture[0, k] / mixture[2, k] / (mixture[0, j] / mixture[2, j])))
            )
            discriminant = b * b - a * c
            if discriminant >= 0.0:
                sum_ = b + math.copysign(math.sqrt(discriminant), b)
                if sum_ != 0.0:
                    x = mixture[1, k] + c / sum_
                    n_places = _add_switch(mixture, k, j, x, truth, places, n_places)
                if a != 0.0:
                    x = mixture[1, k] + sum_ / a
                    n_places = _add_switch(mixture, k, j, x, truth, places, n_places)
    return n_places


@compiled
def _next_edge(x, places, n_places):
    """Return the right edge of the panel that begins at x."""
    step = math.inf
    for i in range(n_places):
        place, width, within = places[i]
        # From the left, half of the way: the place is to be no nearer than a panel's width.
        away = x - place - within if x > place else 0.5 * (place - x - within)
        step = min(step, max(width, away))
    return x + step


@compiled
def _reaches(mixture):
    """Return where a mixture begins and ends."""
    low, high = math.inf, -math.inf
    for k in range(mixture.shape[1]):
        if mixture[0, k] > 0.0:
            low = min(low, mixture[1, k] - REACH * mixture[2, k])
            high = max(high, mixture[1, k] + REACH * mixture[2, k])
    return low, high


@compiled
def _mean(mixture):
    total = 0.0
    for k in range(mixture.shape[1]):
        total += mixture[0, k] * mixture[1, k]
    return total


@compiled
def _measure(low, high, pair, places, n_places, memory, difference_of_means):
    """Return the four distances (in the order of ``Distances``) of a pair of mixtures."""
    sums, state = rows_from(memory, 0), rows_from(memory, 2 * LANES)
    place, nodes = rows_from(memory, 3 * LANES), rows_from(memory, 5 * LANES)
    for i in range(0, 3 * LANES, LANES):
        store(memory, i, splat(0.0))
    x = low
    while x < high:
        edge = min(high, _next_edge(x, places, n_places))
        if not edge > x:
            return math.nan, math.nan, math.nan, math.nan
        _panel(x, edge, pair, sums, nodes)
        if is_plain(nodes, state):
            state[AT_X] = nodes[PANEL_NODES - 1]
            state[AT_H] = nodes[2 * PANEL_NODES - 1]
            state[SLOPE] = nodes[3 * PANEL_NODES - 1]
        else:
            scan(nodes, pair, state, place)
        x = edge
    # On the far right D is 0, and E what the means differ by.
    variation = 0.5 * (state[VARIATION] + abs(state[AT_D]))
    wasserstein = state[WASSERSTEIN] + abs(difference_of_means - state[AT_E])
    square = 0.5 * pair.peak * first_lane(lane_sum(load(sums, 0)))
    divergence = pair.peak * first_lane(lane_sum(load(sums, LANES)))
    return min(variation, 1.0), min(math.sqrt(square), 1.0), divergence, wasserstein


@compiled
def _fill(thetas, truth, out):
    """Fill the distances, ``out`` (4, F), of mixtures (F, 3, K) from the truth (3, K_true)."""
    n_components, n_true = thetas.shape[2], truth.shape[1]
    exponent, offset = math.frexp(truth[2].max())[1], truth[1, 0]
    true = _normalised(truth, offset, exponent)
    if not _is_density(true):
        return
    # Of a mixture: its components, and two switches between any two of them.
    places = np.empty((n_components**2 + n_true**2, 3))
    of_truth = np.empty((n_true**2, 3))
    n_of_truth = _add_places(true, true, of_truth, 0)
    low_true, high_true = _reaches(true)
    width, width_true = LANES * n_components, LANES * n_true
    at_work = 5 * (width + width_true)
    at_memory = at_work + max(width, width_true)
    memory = np.zeros(at_memory + 11 * LANES + LANES)
    fitted_rows, true_rows = rows(memory, 0), rows(memory, 5 * width)
    for fit in range(len(thetas)):
        fitted = _normalised(thetas[fit], offset, exponent)
        if not _is_density(fitted):
            continue
        top = max(_top(fitted), _top(true))
        _load_mixture(fitted, top, fitted_rows)
        _load_mixture(true, top, true_rows)
        pair = Pair(
            fitted_rows, width, true_rows, width_true, rows(memory, at_work),
            INVERSE_ROOT * math.ldexp(1.0, top),
        )  # fmt: skip
        places[:n_of_truth] = of_truth[:n_of_truth]
        n_places = _add_places(fitted, true, places, n_of_truth)
        low, high = _reaches(fitted)
        found = _measure(
            min(low, low_true), max(high, high_true), pair, places, n_places,
            rows(memory, at_memory), _mean(true) - _mean(fitted),
        )  # fmt: skip
        for i in range(4):
            out[i, fit] = found[i]
        out[3, fit] = math.ldexp(found[3], exponent)
    hold(memory)
