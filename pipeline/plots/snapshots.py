"""The notebook's picture: fitted and true component densities over the points at an iteration."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.core.mixture import Parameters, component_densities
from pipeline.plan import Cell
from pipeline.plots.group import Group, parameters_of
from pipeline.plots.style import WIDTH, component_colors, finished, legend_below, styled

MOST_POINTS = 400  # drawn; more make a solid bar
REACH = 2.5  # scales on either side of a true mean: [-5, 5] for the notebook's truth
LEGEND_COLUMNS = 3
HEADROOM = 2.5  # the axis ends at this many times the truth's peak: early scales can be tiny


def snapshot_rows(trace: pd.DataFrame, iterations: Sequence[int]) -> list[tuple[pd.Series, bool]]:
    """Return the recorded rows at `iterations`, or the last one before each, without repetition.

    Parameters
    ----------
    trace
        One fit's rows, by iteration.
    iterations
        Ascending.

    Returns
    -------
    list of (row, stopped): `stopped` where the fit had ended before the iteration asked for.
    """
    recorded = trace["iteration"].to_numpy()
    chosen: dict[int, bool] = {}
    for iteration in iterations:
        at = int(np.searchsorted(recorded, iteration, side="right")) - 1
        if at >= 0:
            chosen.setdefault(at, bool(iteration > recorded[-1]))
    return [(trace.iloc[at], stopped) for at, stopped in chosen.items()]


def _curves(grid: np.ndarray, parameters: Parameters, weighted: bool) -> np.ndarray:
    """Densities of the components, shape (K, n); a collapsed component's is not drawn (nan)."""
    weights = parameters.weights if weighted else np.ones_like(parameters.weights)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        curves = component_densities(grid, parameters._replace(weights=weights))
    return np.where(np.isfinite(curves) & (parameters.scales > 0)[:, None], curves, np.nan)


def _grid(low: float, high: float, *mixtures: Parameters) -> np.ndarray:
    """Points of the curves: even, and dense around every component however narrow."""
    parts = [np.linspace(low, high, 401)]
    for mixture in mixtures:
        for mean, scale in zip(mixture.means, mixture.scales, strict=True):
            parts.append(mean + scale * np.linspace(-4.0, 4.0, 81))
    grid = np.unique(np.concatenate(parts))
    return grid[(grid >= low) & (grid <= high)]


def _point_colors(points: np.ndarray, fitted: Parameters) -> np.ndarray:
    """RGBA by responsibility, shape (n, 4): RdBu for two components, else a mix of theirs."""
    # In logarithms: a start's scales can be so small that every density underflows.
    weights, means, scales = (part[:, None] for part in fitted)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (points - means) / scales
        logarithms = np.log(weights) - np.log(scales) - 0.5 * z * z
        responsibilities = np.exp(logarithms - logarithms.max(axis=0))
    responsibilities = np.nan_to_num(responsibilities)
    total = responsibilities.sum(axis=0)
    responsibilities = np.where(total > 0, responsibilities, 1.0)
    responsibilities /= responsibilities.sum(axis=0)
    if len(responsibilities) == 2:
        return mpl.colormaps["RdBu"](responsibilities[0])
    colors = mpl.colors.to_rgba_array(component_colors(len(responsibilities)))
    return np.clip(responsibilities.T @ colors, 0.0, 1.0)


def _range(points: np.ndarray | None, truth: Parameters | None) -> tuple[float, float]:
    if truth is not None:
        return (
            float(np.min(truth.means - REACH * truth.scales)),
            float(np.max(truth.means + REACH * truth.scales)),
        )
    assert points is not None, "neither points nor a truth: nothing to draw"
    margin = 0.05 * (float(np.ptp(points)) or 1.0)
    return float(points.min()) - margin, float(points.max()) + margin


def _x_label(points: np.ndarray | None, truth: Parameters | None) -> str:
    """Name the axis, and say which points it does not show."""
    if points is None:
        return "x (the population: no points)"
    low, high = _range(points, truth)
    outside = int(np.sum((points < low) | (points > high)))
    step = _point_step(points)
    remarks = [f"1 in {step} points drawn"] if step > 1 else []
    remarks += [f"{outside} of {len(points)} points outside"] if outside else []
    return f"x ({'; '.join(remarks)})" if remarks else "x"


def _point_step(points: np.ndarray) -> int:
    return -(-len(points) // MOST_POINTS)


def _draw(
    axes: Axes,
    points: np.ndarray | None,
    fitted: Parameters,
    truth: Parameters | None,
    heading: str,
    weighted: bool,
) -> None:
    low, high = _range(points, truth)
    grid = _grid(low, high, fitted, *(() if truth is None else (truth,)))
    peak = 0.0
    if truth is not None:
        curves = _curves(grid, truth, weighted)
        peak = float(curves.max())
        for k, curve in enumerate(curves):
            name = "true components" if k == 0 else None
            axes.plot(grid, curve, color="black", linestyle="--", alpha=0.5, label=name, zorder=3)
    elif points is not None:
        heights, _, _ = axes.hist(
            points, bins="auto", density=True, color="0.88", label="sample (histogram)", zorder=1
        )
        peak = float(np.max(heights))
    curves = _curves(grid, fitted, weighted)
    colors = component_colors(len(curves))
    for k, curve in enumerate(curves):
        axes.plot(grid, curve, color=colors[k], label=f"fitted component {k}", zorder=4)
    top = float(np.nanmax(curves, initial=0.0))
    top = min(max(top, peak), HEADROOM * peak) if peak > 0 else top
    axes.set_xlim(low, high)
    axes.set_ylim(-0.06 * top, 1.06 * top)
    axes.axhline(0.0, color="0.4", linewidth=0.8, zorder=2)
    if points is not None:
        drawn = points[:: _point_step(points)]
        axes.scatter(
            drawn,
            np.zeros_like(drawn),
            c=_point_colors(drawn, fitted),
            edgecolors="black",
            linewidths=0.5,
            s=26 if len(drawn) <= 100 else 14,
            zorder=5,
        )
    axes.grid(False)
    axes.set_title(heading)


def _heading(row: pd.Series, stopped: bool) -> str:
    where = f"{'stopped at ' if stopped else ''}iteration {int(row['iteration'])}"
    value = f"{row['log_likelihood']:.3f}".replace("-", "\N{MINUS SIGN}")
    return f"{where.capitalize()}, log-likelihood {value}"


@styled
def snapshot_picture(
    points: np.ndarray | None,
    row: pd.Series,
    n_components: int,
    truth: Parameters | None,
    *,
    stopped: bool = False,
    weighted: bool = True,
) -> Figure:
    """Draw one iteration of one fit as the notebook does.

    Parameters
    ----------
    points
        The sample, shape (n,), in units of x; None (the population) draws none.
    row
        Of ``traces``: iteration, log_likelihood and the parameters.
    n_components
        Of the fit; component 0 is blue.
    truth
        Black, dashed; None (observed data) puts a histogram of the points in its place.
    stopped
        Whether the fit ended here.
    weighted
        Draw w_k N_k; else N_k, as the notebook does where the weights are equal.
    """
    # Margins in inches, fixed: all pictures of a fit have the same frame, and a slider runs
    # through them without a jump.
    width, legend = 4.8, 0.2 * -(-(n_components + 1) // LEGEND_COLUMNS)
    height = 3.3 + legend
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (0.62 / width, (0.58 + legend) / height, 1 - 0.75 / width, 1 - (0.9 + legend) / height)
    )
    fitted = parameters_of(row, n_components)
    _draw(axes, points, fitted, truth, _heading(row, stopped), weighted)
    axes.set_xlabel(_x_label(points, truth))
    axes.set_ylabel("weight × density" if weighted else "density")
    figure.legend(loc="lower center", ncols=LEGEND_COLUMNS)
    return figure


def cell_snapshots(group: Group, cell: Cell) -> list[tuple[int, Figure]]:
    """Draw a cell's representative fit at the snapshots; each with the iteration it shows."""
    return [
        (
            int(row["iteration"]),
            snapshot_picture(
                group.points.get(cell.id),
                row,
                group.n_components,
                group.truth,
                stopped=stopped,
                weighted=not group.equal_weights,
            ),
        )
        for row, stopped in snapshot_rows(group.representative(cell), group.schedule["snapshots"])
    ]


@finished
def snapshots(group: Group) -> Figure | None:
    """Draw the pictures of one fit, the representative of the group's first cell, side by side."""
    cell = group.cells[0]
    rows = snapshot_rows(group.representative(cell), group.schedule["snapshots"])
    if not rows:
        return None
    columns = min(len(rows), 2 if len(rows) <= 4 else 3)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(WIDTH, 2.5 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, squeeze=False)
    weighted = not group.equal_weights
    points = group.points.get(cell.id)
    for axes, (row, stopped) in zip(panels.flat, rows, strict=False):
        fitted = parameters_of(row, group.n_components)
        _draw(axes, points, fitted, group.truth, _heading(row, stopped), weighted)
    for axes in panels.flat[len(rows) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel(_x_label(points, group.truth))
    for axes in panels[:, 0]:
        axes.set_ylabel("weight × density" if weighted else "density")
    size = group.size_label(cell.sample_size)
    figure.suptitle(f"{group.title}: {size}, {group.label(cell)}, replicate 0")
    legend_below(figure, panels[0, 0], columns=4)
    return figure
