"""What stopping rules cost and what they leave, asked of the same trajectories."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.plan import Cell
from pipeline.plots.caption import Captioned
from pipeline.plots.group import FAILURES, FEWEST_FITS, Group
from pipeline.plots.style import (
    MARKERS,
    WIDTH,
    finished,
    legend_below,
    log_axis,
    series_colors,
)

COLUMNS = 3
QUANTILES = (0.1, 0.5, 0.9)
FEWEST_SHARE = 0.5  # of a cell's fits that a point speaks for
COST, LEFT = "map_evaluations", "distance_to_fixed_point"


def rule_names(replay: pd.DataFrame) -> pd.Series:
    """Name the rule of each row, with its patience where a study has several."""
    names = replay["stop_rule"]
    if replay["patience"].nunique() > 1:
        names = names + " (patience " + replay["patience"].astype(str) + ")"
    return names


def stops(replay: pd.DataFrame) -> pd.DataFrame:
    """Return quantiles over the fits of one cell at each rule's stops.

    Parameters
    ----------
    replay
        Rows of one cell.

    Returns
    -------
    pandas.DataFrame
        A row per rule and tolerance, the loosest first: ``rule``, ``tolerance``, ``share`` of the
        fits that the rule stopped and whose fixed point is known, and of these
        ``<column>_<quantile>`` of map evaluations and of the distance left.
    """
    keys = ["rule", "tolerance"]
    named = replay.assign(rule=rule_names(replay))
    # A distance is there only where the rule fired, and the trajectory had a fixed point.
    known = named[named[LEFT].notna()]
    quantiles = known.groupby(keys)[[COST, LEFT]].quantile(list(QUANTILES)).unstack()
    quantiles.columns = [f"{column}_{level:g}" for column, level in quantiles.columns]
    counts = named.groupby(keys).size()
    share = known.groupby(keys).size().reindex(counts.index, fill_value=0) / counts
    table = quantiles.reindex(counts.index).assign(share=share).reset_index()
    return table.sort_values(keys, ascending=[True, False], ignore_index=True)


def tolerance_text(tolerance: float) -> str:
    """Write a tolerance beside its point: the exponent of a power of ten, or all of it."""
    if not tolerance > 0.0:
        return ""
    exponent = round(math.log10(tolerance))
    power = math.isclose(tolerance, 10.0**exponent, rel_tol=1e-9)
    return f"{exponent}".replace("-", "\N{MINUS SIGN}") if power else f"{tolerance:g}"


def _draw_panel(axes: Axes, table: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> None:
    for name, (color, marker) in looks.items():
        rows = table[(table["rule"] == name) & (table["share"] >= FEWEST_SHARE)]
        cost, left = (
            {level: rows[f"{column}_{level:g}"].to_numpy(float) for level in QUANTILES}
            for column in (COST, LEFT)
        )
        axes.errorbar(
            cost[0.5],
            left[0.5],
            xerr=[cost[0.5] - cost[0.1], cost[0.9] - cost[0.5]],
            yerr=[left[0.5] - left[0.1], left[0.9] - left[0.5]],
            color=color,
            marker=marker,
            markersize=4.5,
            linewidth=1.3,
            elinewidth=0.7,
            label=name,
        )
        for x, y, tolerance in zip(cost[0.5], left[0.5], rows["tolerance"], strict=True):
            axes.annotate(
                tolerance_text(tolerance), (x, y), (4, 4), textcoords="offset points",
                fontsize=6.5, color=color, zorder=5,
            )  # fmt: skip
        some = (rows["share"] < 1.0).to_numpy()
        axes.plot(
            cost[0.5][some], left[0.5][some], linestyle="", marker=marker, markersize=4.5,
            markerfacecolor="white", markeredgecolor=color, zorder=4,
        )  # fmt: skip


def _cells(group: Group) -> list[tuple[Cell, pd.DataFrame]]:
    """Return the cells whose replayed stops are a distribution, with these."""
    rows = [(cell, group.replay[group.replay["cell"] == cell.id]) for cell in group.cells]
    enough = [(cell, replay) for cell, replay in rows if replay["fit_id"].nunique() >= FEWEST_FITS]
    return [(cell, replay) for cell, replay in enough if replay[LEFT].notna().any()]


@finished
def stop_replay(group: Group) -> Figure | None:
    """Draw what each rule leaves against what it costs, a line through its tolerances."""
    cells = _cells(group)
    if not cells:
        return None
    names = list(dict.fromkeys(rule_names(pd.concat([replay for _, replay in cells]))))
    markers = [MARKERS[place % len(MARKERS)] for place in range(len(names))]
    colors = series_colors(names)
    looks = {name: (colors[name], mark) for name, mark in zip(names, markers, strict=True)}
    columns = min(COLUMNS, len(cells))
    lines = -(-len(cells) // columns)
    height = {1: 4.0, 2: 3.6}.get(columns, 2.7)
    figure = Captioned(figsize=(WIDTH, height * lines + 0.7), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    several = len(group.sizes) > 1
    tables = [stops(replay) for _, replay in cells]
    for axes, (cell, _), table in zip(panels.flat, cells, tables, strict=False):
        _draw_panel(axes, table, looks)
        label = group.label(cell)
        axes.set_title(f"{group.size_label(cell.sample_size)}, {label}" if several else label)
        axes.set_xlabel("map evaluations")
        axes.xaxis.set_tick_params(labelbottom=True)
    log_axis(panels[0, 0])
    log_axis(panels[0, 0], "x")
    for axes in panels.flat[len(cells) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("distance to the fixed point (units)")
    figure.suptitle(group.title)
    legend_below(figure, panels[0, 0], columns=3)
    share = pd.concat(tables)["share"]
    known = not group.ended([cell for cell, _ in cells], ("max_iter", *FAILURES))
    figure.note(
        "Hollow: the rule did not stop all fits before they ended"
        f"{'' if known else ', or these did not converge'}.",
        when=bool(((share >= FEWEST_SHARE) & (share < 1.0)).any()),
    )
    figure.note(
        "A rule has no point at a tolerance where it stopped less than half of them.",
        when=bool((share < FEWEST_SHARE).any()),
    )
    figure.note(
        "For plain EM the rules parameter and map_residual are one and the same.",
        when={"parameter", "map_residual"} <= set(pd.concat(r for _, r in cells)["stop_rule"])
        and any(group.methods[cell.algorithm] == "em" for cell, _ in cells),
    )
    fits = group.replay.groupby("cell")["fit_id"].nunique()
    figure.note(
        f"Cells with fewer than {FEWEST_FITS} fits are left out.",
        when=bool((fits < FEWEST_FITS).any()),
    )
    return figure
