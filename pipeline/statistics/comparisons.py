"""Paired comparisons of what was run on the same samples: inits, algorithms, stopping rules.

Every level of a factor sees the same data (common random numbers), so two levels are compared
replicate by replicate, and the standard error is that of the mean difference: Koehler, Brown &
Haneuse (2009), "On the assessment of Monte Carlo error in simulation-based statistical analyses",
The American Statistician 63(2), 155-162; Morris, White & Crowther (2019), Section 5.4.

What a budget cuts off is known from below only, so no mean tells who is faster. The share of
starts in which one side converged with fewer than the other does, a fit that did not converge
needing infinitely many; the difference of both shares is the net benefit: Buyse (2010),
"Generalized pairwise comparisons of prioritized outcomes in the two-sample problem", Statistics in
Medicine 29(30), 3245-3257.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.plan import Plan
from pipeline.statistics.measures import BOUNDED, DISTANCES, finite_fits, true_parameters
from pipeline.statistics.pairing import OwnStarts, Pair, SameStarts, Sides, Totals, match
from pipeline.statistics.replicates import (
    evaluations_before_row_0,
    in_plan_order,
    layout_of,
    moments,
    standard_error,
)
from pipeline.tables import LABELS, parameter_columns

FACTORS = ("init", "algorithm")
# A factor of more levels is compared with its first level alone: pairs grow quadratically.
MOST_LEVELS = 6
NAMES = ("factor", "level_a", "level_b", "cell_a", "cell_b", *LABELS, "statistic")
# Shares of starts that converged with fewer of what `n_iter` and `map_evaluations` count.
FEWER = ("fewer_iterations_share", "fewer_evaluations_share")
NUMBERS = ("value_a", "value_b", "difference", "mcse")
COUNTS = ("n_pairs", "n_unpaired", "n_fits_left_out")

Reals = NDArray[np.float64]


class Statistic(NamedTuple):
    """Values of all fits (F,), and which of the plan's cells can have them.

    A `race` compares times to convergence: either side is the share of starts that it wins.
    """

    name: str
    values: Reals
    cells: NDArray[np.bool_]
    race: bool = False


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
            levels |= {"cell_a": cell.id, "cell_b": cell.id}
            pairs.append(Pair(*positions, True, levels | labels))
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
                pairs.append(Pair(a, b, factor != "init", labels))
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
    With d_r the difference of the two sides of replicate r (`pairing`), difference = mean(d_r) and
    MCSE = sd(d_r) / sqrt(number of pairs), over the replicates in which both sides have a value.
    """
    if not pairs:
        return _typed(pd.DataFrame(), plan)
    layout = layout_of(fits["position"].to_numpy(), fits["replicate"].to_numpy())
    same, own, totals = match(layout, fits["start"].to_numpy(), pairs)
    cells = np.array([pair.a for pair in pairs], np.int64) // positions_per_cell
    kinds = np.array([pair.same_starts for pair in pairs])
    parts = []
    for statistic in _statistics(fits, plan, positions_per_cell):
        for common, chosen in ((same, kinds), (own, ~kinds)):
            if chosen.any():
                found = _differences(statistic, common, totals).assign(statistic=statistic.name)
                parts.append(found[chosen & statistic.cells[cells]])
    labels = pd.DataFrame([pair.labels for pair in pairs])
    whole = pd.concat(parts).rename_axis("pair").reset_index()
    whole = whole.sort_values("pair", kind="stable", ignore_index=True)
    named = labels.reindex(whole["pair"]).reset_index(drop=True)
    return _typed(pd.concat([named, whole], axis=1), plan)


def _typed(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    sizes = np.array([cell.sample_size for cell in plan.cells])
    types: dict[str, Any] = dict.fromkeys(NAMES, "str") | dict.fromkeys(NUMBERS, "float64")
    types |= dict.fromkeys(COUNTS, "int64") | {"sample_size": sizes.dtype}
    return table.reindex(columns=[*NAMES, *NUMBERS, *COUNTS]).astype(types)


def _differences(
    statistic: Statistic, common: SameStarts | OwnStarts, totals: Totals
) -> pd.DataFrame:
    """Return the numbers and counts of every pair, in order."""
    measure = common.earlier if statistic.race else common.means
    sides: Sides = measure(statistic.values)
    with np.errstate(invalid="ignore"):
        difference = sides.b - sides.a
    unpaired = np.isnan(difference)
    layout = common.layout
    found = moments(difference, layout)
    number = np.where(found.number > 0, found.number, np.nan)
    values = (np.where(unpaired, 0.0, side) for side in (sides.a, sides.b))
    mean_a, mean_b = (np.add.reduceat(side, layout.first_replicate) / number for side in values)
    error = standard_error(found)
    columns = {"value_a": mean_a, "value_b": mean_b, "difference": found.mean, "mcse": error}
    every = range(len(totals.fits))
    table = pd.DataFrame(columns, index=layout.position).reindex(every)
    counted = np.add.reduceat(np.where(unpaired, 0, sides.n_fits), layout.first_replicate)
    counts = pd.DataFrame({"pairs": found.number, "fits": counted}, layout.position)
    counts = counts.reindex(every, fill_value=0)
    table["n_pairs"] = counts["pairs"]
    table["n_unpaired"] = totals.replicates - counts["pairs"]
    table["n_fits_left_out"] = totals.fits - counts["fits"]
    return table


def _statistics(fits: pd.DataFrame, plan: Plan, positions_per_cell: int) -> Iterator[Statistic]:
    """Yield what is compared; a fit of unknown outcome has no value of anything."""
    cell = fits["position"].to_numpy() // positions_per_cell
    every = np.ones(len(plan.cells), bool)
    known = fits["outcome"].notna().to_numpy()
    converged = (fits["outcome"] == "converged").to_numpy(bool, na_value=False)
    yield Statistic("converged_share", np.where(known, converged, np.nan), every)
    if "reached_reference" in fits:
        reached = fits["reached_reference"].to_numpy(float)
        yield Statistic("reached_reference_share", reached, every)
    spent = {
        "n_iter": fits["n_iter"].to_numpy(float),
        "map_evaluations": fits["map_evaluations"].to_numpy(float)
        + evaluations_before_row_0(plan)[cell],
    }
    for name, values in spent.items():
        yield Statistic(name, np.where(known, values, np.nan), every)
    for name, values in zip(FEWER, spent.values(), strict=True):
        times = np.where(converged, values, np.where(known, np.inf, np.nan))
        yield Statistic(name, times, every, race=True)
    finite = known & finite_fits(fits.assign(position=cell), plan)
    bounded = finite & fits["outcome"].isin(BOUNDED).to_numpy()
    reached = np.where(bounded, fits["log_likelihood"].to_numpy(float), np.nan)
    yield Statistic("log_likelihood", reached, every)
    truths = true_parameters(plan)
    errors = {name: truths[name].to_numpy() for name in parameter_columns(plan.n_components)}
    for kind, size in (("squared_error", np.square), ("absolute_error", np.abs)):
        for name, truth in errors.items():
            error = np.where(finite, fits[name].to_numpy(float) - truth[cell], np.nan)
            yield Statistic(f"{kind}_{name}", size(error), ~np.isnan(truth))
    has_truth = np.array([cell.mixture is not None for cell in plan.cells])
    for name in DISTANCES:
        if name in fits:
            values = fits[name].to_numpy(float)
            values = np.where(finite & np.isfinite(values), values, np.nan)
            yield Statistic(name, values, has_truth)
