"""The order of a fit's components: matched to the truth, or by mean."""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.core.compilation import compiled
from pipeline.core.mixture import Parameters


@compiled
def squared_hellinger(mean_0, scale_0, mean_1, scale_1):
    """Return the squared Hellinger distance of two normals, in [0, 1]."""
    squares = scale_0 * scale_0 + scale_1 * scale_1
    overlap = math.sqrt(2.0 * scale_0 * scale_1 / squares)
    distance = 1.0 - overlap * math.exp(-((mean_0 - mean_1) ** 2) / (4.0 * squares))
    # Beyond the range of squares (or with a scale of 0) two normals have nothing in common.
    return distance if math.isfinite(distance) else 1.0


@compiled
def assign(cost, column_of_row):
    """Fill ``column_of_row`` (K,) with the assignment of least total ``cost`` (K, K).

    The Hungarian algorithm by shortest augmenting paths, O(K^3) (Jonker & Volgenant 1987, "A
    shortest augmenting path algorithm for dense and sparse linear assignment problems"). Of equal
    columns the first is taken.
    """
    n = cost.shape[0]
    # Column n is a stand-in that holds the row to be placed.
    row_of_column = np.full(n + 1, -1)
    row_potential = np.zeros(n)
    column_potential = np.zeros(n + 1)
    for row in range(n):
        row_of_column[n] = row
        column = n
        slack = np.full(n, np.inf)
        came_from = np.full(n, n)
        visited = np.zeros(n + 1, np.bool_)
        while row_of_column[column] >= 0:
            visited[column] = True
            here = row_of_column[column]
            nearest, smallest = n, np.inf
            for j in range(n):
                if visited[j]:
                    continue
                reduced = cost[here, j] - row_potential[here] - column_potential[j]
                if reduced < slack[j]:
                    slack[j] = reduced
                    came_from[j] = column
                if slack[j] < smallest:
                    smallest = slack[j]
                    nearest = j
            for j in range(n + 1):
                if visited[j]:
                    row_potential[row_of_column[j]] += smallest
                    column_potential[j] -= smallest
                elif j < n:
                    slack[j] -= smallest
            column = nearest
        while column != n:
            row_of_column[column] = row_of_column[came_from[column]]
            column = came_from[column]
    for j in range(n):
        column_of_row[row_of_column[j]] = j


@compiled
def _match(means, scales, true_means, true_scales):
    n_fits, n_components = means.shape
    order = np.empty((n_fits, n_components), np.int64)
    cost = np.empty((n_components, n_components))
    for fit in range(n_fits):
        if not (np.all(np.isfinite(means[fit])) and np.all(np.isfinite(scales[fit]))):
            for k in range(n_components):
                order[fit, k] = k
            continue
        for j in range(n_components):
            for k in range(n_components):
                cost[j, k] = squared_hellinger(
                    true_means[j], true_scales[j], means[fit, k], scales[fit, k]
                )
        assign(cost, order[fit])
    return order


def match_to_truth(fitted: Parameters, truth: Parameters) -> NDArray[np.int64]:
    """Match fitted to true components by the least sum of squared Hellinger distances.

    Parameters
    ----------
    fitted : Parameters, shape (F, K)
    truth : Parameters, shape (K,)

    Returns
    -------
    int64, shape (F, K)
        ``fitted[f, order[f, j]]`` corresponds to true component j. Among equally good assignments
        (components too far away to tell apart) the order by mean decides; of identical true
        components the first takes, as a rule, the fitted one nearest to them. A fit with numbers
        that are not finite keeps its own order.
    """
    if np.shape(fitted.means)[-1] != np.size(truth.means):
        raise ValueError(
            f"fitted: got {np.shape(fitted.means)[-1]} components, the truth has "
            f"{np.size(truth.means)}; use order_by_mean"
        )
    # Both sides in the order by mean, so that ties fall the same way for any labelling.
    by_mean = order_by_mean(fitted)
    true_by_mean = order_by_mean(Parameters(*(np.asarray(part)[None] for part in truth)))[0]
    ordered = reorder(fitted, by_mean)
    matched = _match(
        ordered.means, ordered.scales, truth.means[true_by_mean], truth.scales[true_by_mean]
    )
    order = np.empty_like(matched)
    order[:, true_by_mean] = np.take_along_axis(by_mean, matched, axis=1)
    return order


def order_by_mean(fitted: Parameters) -> NDArray[np.int64]:
    """Return the order of the components (F, K) by mean, then by scale, then as they were.

    A fit with numbers that are not finite keeps its own order.
    """
    order = np.lexsort((fitted.scales, fitted.means), axis=-1)
    finite = np.isfinite(fitted.means) & np.isfinite(fitted.scales)
    return np.where(finite.all(axis=-1, keepdims=True), order, np.arange(order.shape[-1]))


def order_of_components(fitted: Parameters, truth: Parameters | None) -> NDArray[np.int64]:
    """Return the order of the tables (F, K): matched to a truth of this size, or else by mean."""
    if truth is not None and truth.means.size == fitted.means.shape[-1]:
        return match_to_truth(fitted, truth)
    return order_by_mean(fitted)


def reorder(parameters: Parameters, order: NDArray[np.int64]) -> Parameters:
    """Return the parameters (F, K) with each row's components in the given order (F, K)."""
    return Parameters(*(np.take_along_axis(part, order, axis=-1) for part in parameters))
