"""What the player shows: the representative fit of each cell, iteration by iteration, as data."""

import math
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from pipeline.core.mixture import Parameters
from pipeline.plan import Cell
from pipeline.plots import Group
from pipeline.plots.snapshots import HEADROOM, left_out, point_step, x_range
from pipeline.plots.style import component_looks
from pipeline.plots.thinning import MOST_STEPS, thinned

LINE_WIDTH = 1.8  # of the curves, in the script's picture
PARTS = ("weight", "mean", "scale")


def player(group: Group, most_rows: int = MOST_STEPS) -> dict[str, Any] | None:
    """Return what the script on the page draws; None where no cell has a recorded row.

    Parameters
    ----------
    group
        The cells to choose from.
    most_rows
        Of a cell: recorded iterations beyond are thinned, first and last kept.

    Returns
    -------
    dict
        Plain values for JSON. ``cells`` hold the recorded rows column by column, unrounded, and
        the axes, which are those of `pipeline.plots.snapshots`; ``samples`` the points drawn, by
        data set.
    """
    cells = [shown for cell in group.cells if (shown := _cell(group, cell, most_rows))]
    if not cells:
        return None
    samples = {}
    for cell in group.cells:
        if cell.id in group.points and cell.data_set not in samples:
            samples[cell.data_set] = _sample(group.points[cell.id], group.truth)
    looks = component_looks(group.n_components)
    return {
        "title": group.title,
        "weighted": not group.equal_weights,
        "colors": [look["color"] for look in looks],
        "dashes": [_dashes(look["linestyle"]) for look in looks],
        "ramp": _ramp() if group.n_components == 2 else None,
        "truth": None if group.truth is None else _plain(group.truth),
        "comparable": group.comparable_truth is not None,
        "samples": samples,
        "cells": cells,
    }


def _cell(group: Group, cell: Cell, most_rows: int) -> dict[str, Any] | None:
    trace = group.representative(cell)
    trace = trace.iloc[thinned(trace["iteration"].to_numpy(), most_rows)]
    points = group.points.get(cell.id)
    if trace.empty or (points is None and group.truth is None):
        return None
    fits = group.fits_of(cell)
    replicate, start = group.representatives[cell.id]
    fit = fits[(fits["replicate"] == replicate) & (fits["start"] == start)].iloc[0]
    low, high = x_range(points, group.truth)
    evaluations = trace["map_evaluations"]
    label = f"{group.size_label(cell.sample_size)}, {group.label(cell)}"
    return {
        "id": cell.id,
        "label": label,
        "fit": f"{label}, replicate {replicate}, start {start}",
        "sample": cell.data_set,
        "low": low,
        "high": high,
        "top": _top(group, trace, points),
        "histogram": _histogram(points) if group.truth is None else None,
        "digits": 6 if math.isinf(cell.sample_size) else 3,
        "outcome": str(fit["outcome"]).replace("_", " "),
        "iteration": trace["iteration"].tolist(),
        "evaluations": None if (evaluations == trace["iteration"]).all() else evaluations.tolist(),
        "log_likelihood": _numbers(trace["log_likelihood"]),
    } | {
        f"{part}s": [_numbers(trace[f"{part}_{k}"]) for k in range(group.n_components)]
        for part in PARTS
    }


def _numbers(values: pd.Series) -> list[float | None]:
    """Return floats as they are; JSON knows none that is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _dashes(style: Any) -> str:
    """Return a line style as lengths along an SVG's line."""
    return "none" if style == "solid" else " ".join(f"{LINE_WIDTH * part:g}" for part in style[1])


def _plain(parameters: Parameters) -> dict[str, list[float]]:
    return {name: part.tolist() for name, part in parameters._asdict().items()}


def _ramp() -> list[str]:
    colors = mpl.colormaps["RdBu"](np.arange(mpl.colormaps["RdBu"].N))
    return [mpl.colors.to_hex(color) for color in colors]


def _sample(points: np.ndarray, truth: Parameters | None) -> dict[str, Any]:
    """Return the points that are drawn, to a ten-thousandth of the axis, and what is left out."""
    low, high = x_range(points, truth)
    decimals = 4 - math.floor(math.log10(high - low))
    drawn = points[:: point_step(points)]
    drawn = drawn[(drawn >= low) & (drawn <= high)]
    remark = left_out(points, truth)
    return {"points": np.round(drawn, decimals).tolist(), "remark": remark}


def _histogram(points: np.ndarray | None) -> dict[str, list[float]]:
    assert points is not None
    heights, edges = np.histogram(points, bins="auto", density=True)
    return {"heights": heights.tolist(), "edges": edges.tolist()}


def _peaks(weights: np.ndarray, scales: np.ndarray, weighted: bool) -> np.ndarray:
    """Return the heights of component densities."""
    with np.errstate(divide="ignore", invalid="ignore"):
        peaks = (weights if weighted else 1.0) / (scales * math.sqrt(2.0 * math.pi))
    return np.where(np.isfinite(peaks), peaks, np.nan)


def _top(group: Group, trace: pd.DataFrame, points: np.ndarray | None) -> float:
    """Return the end of the y axis, one for all iterations: at most `HEADROOM` true peaks."""
    weighted = not group.equal_weights
    if group.truth is not None:
        peak = float(np.max(_peaks(group.truth.weights, group.truth.scales, weighted)))
    else:
        peak = max(_histogram(points)["heights"])
    weights, scales = (
        trace[[f"{part}_{k}" for k in range(group.n_components)]].to_numpy(float)
        for part in ("weight", "scale")
    )
    top = float(np.nanmax(_peaks(weights, scales, weighted), initial=0.0))
    return min(max(top, peak), HEADROOM * peak)
