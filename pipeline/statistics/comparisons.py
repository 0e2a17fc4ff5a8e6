"""Paired comparisons of what was run on the same samples: inits, algorithms, stopping rules.

Every level of a factor sees the same data (common random numbers), so two levels are compared
replicate by replicate, and the standard error is that of the mean difference: Koehler, Brown &
Haneuse (2009), "On the assessment of Monte Carlo error in simulation-based statistical analyses",
The American Statistician 63(2), 155-162; Morris, White & Crowther (2019), Section 5.4.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.plan import Plan
from pipeline.statistics.measures import DISTANCES, finite_fits, true_parameters
from pipeline.statistics.replicates import (
    Layout,
    evaluations_before_row_0,
    in_plan_order,
    layout_of,
    means_of_starts,
    moments,
    standard_error,
)
from pipeline.tables import LABELS, parameter_columns

FACTORS = ("init", "algorithm")
# A factor of more levels is compared with its first level alone: pairs grow quadratically.
MOST_LEVELS = 6
NAMES = ("factor", "level_a", "level_b", "cell_a", "cell_b", *LABELS, "statistic")
NUMBERS = ("value_a", "value_b", "difference", "mcse")
COUNTS = ("n_pairs", "n_unpaired")

Reals = NDArray[np.float64]


class Pair(NamedTuple):
    """Two positions that differ in one factor alone, and what the table says of them."""

    a: int
    b: int
    labels: dict[str, Any]


class Matched(NamedTuple):
    """The N replicates that both sides of a pair have, pair after pair.

    ``a`` and ``b`` (N,) are places among all replicates, ``layout`` that of the pairs, ``union``
    (pairs,) the replicates that either side has.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    layout: Layout
    union: NDArray[np.int64]


def comparisons(fits: pd.DataFrame, plan: Plan, beside: pd.DataFrame | None = None) -> pd.DataFrame:
    """Compare cells that differ in their init or in their algorithm alone.

    Parameters
    ----------
    fits : DataFrame
        One row per fit in any order, with at least the columns `fit_columns(plan)`.
    plan : Plan
    beside : DataFrame
        What `derived` gave for these fits; without it `reached_reference_share` is not compared.

    Returns
    -------
    DataFrame
        One row per pair of cells (`level_pairs`) and statistic; `docs/statistics.md` explains the
        columns.
    """
    fits = in_plan_order(fits, plan)
    if beside is not None:
        fits = fits.assign(reached_reference=beside["reached_reference"].to_numpy())
    return compare(fits, plan, factor_pairs(plan))


def rule_comparisons(stops: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Compare stopping rules on the same trajectories.

    Parameters
    ----------
    stops : DataFrame
        One row per (fit, rule) in any order: `cell`, `replicate`, `start`, `stop_rule`,
        `tolerance`, `patience`, and where that rule would have stopped the fit, as in `fits`.
    plan : Plan

    Returns
    -------
    DataFrame
        As `comparisons`, with `factor` "stop_rule"; rules in the order of their names, then from
        the loosest tolerance.
    """
    rules = stops[["stop_rule", "tolerance", "patience"]].drop_duplicates()
    rules = rules.sort_values(
        list(rules), ascending=[True, False, True], ignore_index=True, na_position="first"
    )
    names = [_rule_name(rule, rules) for rule in rules.itertuples()]
    code = stops[list(rules)].merge(rules.reset_index(), how="left")["index"].to_numpy()
    ordered = in_plan_order(stops.assign(rule=code), plan)
    # A position is a cell under a rule here, so that rules stand where cells do elsewhere.
    ordered["position"] = ordered["position"] * len(rules) + ordered["rule"]
    ordered = ordered.sort_values(["position", "replicate", "start"], kind="stable")
    pairs = []
    for place, cell in enumerate(plan.cells):
        labels = {label: getattr(cell, label) for label in LABELS}
        for a, b in level_pairs(range(len(rules))):
            levels = {"factor": "stop_rule", "level_a": names[a], "level_b": names[b]}
            positions = place * len(rules) + a, place * len(rules) + b
            pairs.append(Pair(*positions, levels | {"cell_a": cell.id, "cell_b": cell.id} | labels))
    return compare(ordered, plan, pairs, len(rules))


def _rule_name(rule: Any, rules: pd.DataFrame) -> str:
    name = rule.stop_rule if pd.isna(rule.tolerance) else f"{rule.stop_rule} {rule.tolerance:g}"
    return name if rules["patience"].nunique() < 2 else f"{name} x{rule.patience}"


def level_pairs(levels: Sequence[int]) -> list[tuple[int, int]]:
    """Return all pairs of at most `MOST_LEVELS` levels, of more the pairs with the first."""
    if len(levels) <= MOST_LEVELS:
        return list(combinations(levels, 2))
    return [(levels[0], other) for other in levels[1:]]


def factor_pairs(plan: Plan) -> list[Pair]:
    """Return the pairs of cells of one sample and model that differ in one factor alone."""
    pairs = []
    for factor in FACTORS:
        groups: dict[tuple, list[int]] = {}
        for position, cell in enumerate(plan.cells):
            others = [getattr(cell, name) for name in FACTORS if name != factor]
            groups.setdefault((cell.data_set, cell.model, *others), []).append(position)
        for positions in groups.values():
            for a, b in level_pairs(positions):
                one, two = plan.cells[a], plan.cells[b]
                labels = {label: getattr(one, label) for label in LABELS} | {factor: None}
                labels |= {"factor": factor, "cell_a": one.id, "cell_b": two.id}
                labels |= {"level_a": getattr(one, factor), "level_b": getattr(two, factor)}
                pairs.append(Pair(a, b, labels))
    return pairs


def compare(
    fits: pd.DataFrame, plan: Plan, pairs: Sequence[Pair], positions_per_cell: int = 1
) -> pd.DataFrame:
    """Return the mean difference b - a of every pair and statistic, over common replicates.

    Parameters
    ----------
    fits : DataFrame
        Sorted by `position`, `replicate` and `start`; any statistic whose columns are there is
        compared.
    plan : Plan
    pairs : sequence of Pair
    positions_per_cell : int
        Position p is of the plan's cell p // positions_per_cell.

    Notes
    -----
    With d_r the difference of the means over starts, difference = mean(d_r) and MCSE = sd(d_r) /
    sqrt(number of pairs), over the replicates in which both sides have a value.
    """
    if not pairs:
        return _typed(pd.DataFrame(), plan)
    layout = layout_of(fits["position"].to_numpy(), fits["replicate"].to_numpy())
    matched = _match(layout, pairs)
    cells = np.array([pair.a for pair in pairs], np.int64) // positions_per_cell
    parts = []
    for name, values, exists in _statistics(fits, plan, layout, positions_per_cell):
        found = _differences(values, matched).assign(statistic=name, pair=np.arange(len(pairs)))
        parts.append(found[exists[cells]])
    labels = pd.DataFrame([pair.labels for pair in pairs])
    whole = pd.concat(parts).sort_values("pair", kind="stable", ignore_index=True)
    named = labels.reindex(whole["pair"]).reset_index(drop=True)
    return _typed(pd.concat([named, whole], axis=1), plan)


def _typed(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    sizes = np.array([cell.sample_size for cell in plan.cells])
    types: dict[str, Any] = dict.fromkeys(NAMES, "str") | dict.fromkeys(NUMBERS, "float64")
    types |= dict.fromkeys(COUNTS, "int64") | {"sample_size": sizes.dtype}
    return table.reindex(columns=[*NAMES, *NUMBERS, *COUNTS]).astype(types)


def _match(layout: Layout, pairs: Sequence[Pair]) -> Matched:
    ends = np.append(layout.first_replicate[1:], len(layout.number))
    spans = zip(layout.first_replicate.tolist(), ends.tolist(), strict=True)
    span = dict(zip(layout.position.tolist(), spans, strict=True))
    a, b, pair, union = [], [], [], []
    for index, (one, two, _) in enumerate(pairs):
        (first_a, end_a), (first_b, end_b) = span.get(one, (0, 0)), span.get(two, (0, 0))
        of_a, of_b = layout.number[first_a:end_a], layout.number[first_b:end_b]
        if np.array_equal(of_a, of_b):
            in_a = in_b = np.arange(len(of_a))
        else:
            _, in_a, in_b = np.intersect1d(of_a, of_b, assume_unique=True, return_indices=True)
        a.append(first_a + in_a)
        b.append(first_b + in_b)
        pair.append(np.full(len(in_a), index))
        union.append(len(of_a) + len(of_b) - len(in_a))
    none = [np.zeros(0, np.int64)]
    pairs_of_rows = np.concatenate(none + pair)
    rows = np.arange(len(pairs_of_rows))
    return Matched(
        np.concatenate(none + a),
        np.concatenate(none + b),
        layout_of(pairs_of_rows, rows),
        np.array(union, np.int64),
    )


def _differences(values: Reals, matched: Matched) -> pd.DataFrame:
    """Return value_a, value_b, difference, mcse, n_pairs, n_unpaired of every pair, in order."""
    a, b = values[matched.a], values[matched.b]
    with np.errstate(invalid="ignore"):
        difference = b - a
    unpaired = np.isnan(difference)
    found = moments(difference, matched.layout)
    columns = {
        "value_a": moments(np.where(unpaired, np.nan, a), matched.layout).mean,
        "value_b": moments(np.where(unpaired, np.nan, b), matched.layout).mean,
        "difference": found.mean,
        "mcse": standard_error(found),
        "n_pairs": found.number,
    }
    table = pd.DataFrame(columns, index=matched.layout.position).reindex(range(len(matched.union)))
    table["n_pairs"] = table["n_pairs"].fillna(0).astype("int64")
    table["n_unpaired"] = matched.union - table["n_pairs"].to_numpy()
    return table


def _statistics(
    fits: pd.DataFrame, plan: Plan, layout: Layout, positions_per_cell: int
) -> Iterator[tuple[str, Reals, NDArray[np.bool_]]]:
    """Yield the statistics of every replicate (G,), and which of the plan's cells can have them."""
    cell = fits["position"].to_numpy() // positions_per_cell
    every = np.ones(len(plan.cells), bool)
    share = means_of_starts((fits["outcome"] == "converged").to_numpy(float), layout)
    yield "converged_share", share, every
    if "reached_reference" in fits:
        reached = fits["reached_reference"].to_numpy(float)
        yield "reached_reference_share", means_of_starts(reached, layout), every
    before = evaluations_before_row_0(plan)[cell]
    for name, at_row_0 in (("n_iter", 0), ("map_evaluations", before)):
        # What was cut off is known from below only, so all starts of the replicate must have ended.
        spent = means_of_starts(fits[name].to_numpy(float) + at_row_0, layout)
        yield name, np.where(share == 1.0, spent, np.nan), every
    finite = finite_fits(fits.assign(position=cell), plan)
    reached = np.where(finite, fits["log_likelihood"].to_numpy(float), np.nan)
    yield "log_likelihood", means_of_starts(reached, layout), every
    truths = true_parameters(plan)
    errors = {name: truths[name].to_numpy() for name in parameter_columns(plan.n_components)}
    for kind, size in (("squared_error", np.square), ("absolute_error", np.abs)):
        for name, truth in errors.items():
            error = np.where(finite, fits[name].to_numpy(float) - truth[cell], np.nan)
            yield f"{kind}_{name}", means_of_starts(size(error), layout), ~np.isnan(truth)
    has_truth = np.array([cell.mixture is not None for cell in plan.cells])
    for name in DISTANCES:
        if name in fits:
            values = fits[name].to_numpy(float)
            values = np.where(finite & np.isfinite(values), values, np.nan)
            yield name, means_of_starts(values, layout), has_truth
