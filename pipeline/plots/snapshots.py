"""The notebook's picture: fitted and true component densities over the points at an iteration."""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import NamedTuple, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipeline.core.mixture import Parameters, component_densities
from pipeline.plan import Cell
from pipeline.plots.caption import Captioned
from pipeline.plots.group import Group, parameters_of
from pipeline.plots.style import (
    STYLE,
    WIDTH,
    component_colors,
    component_looks,
    finished,
    legend_below,
    styled,
)

MOST_POINTS = 400  # drawn; more make a solid bar
REACH = 2.5  # scales on either side of a true mean: [-5, 5] for the notebook's truth
LEGEND_COLUMNS = 3
LONG_HEADING = 58  # letters; a longer one is written smaller, or on two lines
STOPPED = "stopped"
# How the pictures of a fit that failed call its end.
ENDINGS = {
    "degenerate_scale": "collapsed (degenerate scale)",
    "empty_component": "collapsed (empty component)",
    "nonfinite": "failed (not finite)",
    "log_likelihood_decreased": "failed (log-likelihood decreased)",
    "error": "failed (error)",
}
HEADROOM = 2.5  # the axis ends at this many times the truth's peak: early scales can be tiny

Picture = TypeVar("Picture")


class Subject(NamedTuple):
    """What all pictures of one fit have in common.

    Attributes
    ----------
    points
        The sample, shape (n,), in units of x; None (the population) draws none.
    truth
        Black, dashed; None (observed data) puts a histogram of the points in its place.
    n_components
        Of the fit; component 0 is blue.
    weighted
        Draw w_k N_k; else N_k, as the notebook does where the weights are equal.
    title
        Of a picture that stands alone: lines that tell which fit it is.
    ending
        What the fit did at its last iteration.
    """

    points: np.ndarray | None
    truth: Parameters | None
    n_components: int
    weighted: bool
    title: str = ""
    ending: str = STOPPED


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
    list of (row, stopped): `stopped` where the fit had ended before an iteration asked for.
    """
    recorded = trace["iteration"].to_numpy()
    chosen: dict[int, bool] = {}
    for iteration in iterations:
        at = int(np.searchsorted(recorded, iteration, side="right")) - 1
        if at >= 0:
            chosen[at] = bool(iteration > recorded[-1])
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


def x_range(points: np.ndarray | None, truth: Parameters | None) -> tuple[float, float]:
    """Return the ends of the x axis: `REACH` true scales beyond the true means, or the data's."""
    if truth is not None:
        return (
            float(np.min(truth.means - REACH * truth.scales)),
            float(np.max(truth.means + REACH * truth.scales)),
        )
    assert points is not None, "neither points nor a truth: nothing to draw"
    margin = 0.05 * (float(np.ptp(points)) or 1.0)
    return float(points.min()) - margin, float(points.max()) + margin


def _remark(points: np.ndarray | None, truth: Parameters | None) -> str:
    """Say of which points the axis shows nothing."""
    return "the population: no points" if points is None else left_out(points, truth)


def left_out(points: np.ndarray, truth: Parameters | None) -> str:
    """Say which points a picture does not show."""
    low, high = x_range(points, truth)
    outside = int(np.sum((points < low) | (points > high)))
    step = point_step(points)
    remarks = [f"1 in {step} points drawn"] if step > 1 else []
    remarks += [f"{outside} of {len(points)} points outside"] if outside else []
    return "; ".join(remarks)


def point_step(points: np.ndarray) -> int:
    """Return the distance in a sample of the points that are drawn."""
    return -(-len(points) // MOST_POINTS)


class Panel:
    """Axes that show a fit at one iteration, and then at others: only what changes is redrawn.

    Parameters
    ----------
    axes
        Empty ones.
    subject
        The fit.
    rows
        Of ``traces``: those that will be shown. The height of the axis suits them all.

    Attributes
    ----------
    moving
        What changes from one iteration to the next.
    cut_off
        Whether a component is higher than the axis.
    """

    def __init__(self, axes: Axes, subject: Subject, rows: Sequence[pd.Series]) -> None:
        self._axes, self._subject = axes, subject
        self._low, self._high = x_range(subject.points, subject.truth)
        peak = self._draw_reference()
        highest = max([peak, *(self._height(row) for row in rows)])
        top = min(highest, HEADROOM * peak) if peak > 0 else highest
        self.cut_off = top < highest
        axes.set_xlim(self._low, self._high)
        axes.set_ylim(-0.06 * top, 1.06 * top)
        axes.axhline(0.0, color="0.4", linewidth=0.8, zorder=2)
        axes.grid(False)
        self._title = axes.set_title("")
        self._lines = [
            axes.plot([], [], **look, label=f"fitted component {k}", zorder=4)[0]
            for k, look in enumerate(component_looks(subject.n_components))
        ]
        self.moving: list[Artist] = [*self._lines, self._title]
        if subject.points is not None:
            self._drawn = subject.points[:: point_step(subject.points)]
            self._marks = axes.scatter(
                self._drawn,
                np.zeros_like(self._drawn),
                edgecolors="black",
                linewidths=0.5,
                s=26 if len(self._drawn) <= 100 else 14,
                zorder=5,
            )
            self.moving.insert(-1, self._marks)

    def _draw_reference(self) -> float:
        """Draw the truth, or else a histogram; return its height."""
        points, truth = self._subject.points, self._subject.truth
        if truth is not None:
            grid = _grid(self._low, self._high, truth)
            curves = _curves(grid, truth, self._subject.weighted)
            for k, curve in enumerate(curves):
                name = "true components" if k == 0 else None
                self._axes.plot(
                    grid, curve, color="black", linestyle="--", alpha=0.5, label=name, zorder=3
                )
            return float(curves.max())
        assert points is not None, "neither points nor a truth: nothing to draw"
        heights, _, _ = self._axes.hist(
            points, bins="auto", density=True, color="0.88", label="sample (histogram)", zorder=1
        )
        return float(np.max(heights))

    def _fitted(self, row: pd.Series) -> tuple[Parameters, np.ndarray, np.ndarray]:
        fitted = parameters_of(row, self._subject.n_components)
        grid = _grid(self._low, self._high, fitted)
        return fitted, grid, _curves(grid, fitted, self._subject.weighted)

    def _height(self, row: pd.Series) -> float:
        return float(np.nanmax(self._fitted(row)[2], initial=0.0))

    def show(self, row: pd.Series, stopped: bool = False) -> None:
        """Show the fit at the iteration of a row of ``traces``; `stopped`: it ended there."""
        fitted, grid, curves = self._fitted(row)
        for line, curve in zip(self._lines, curves, strict=True):
            line.set_data(grid, curve)
        if self._subject.points is not None:
            self._marks.set(facecolor=_point_colors(self._drawn, fitted))
        heading = _heading(row, self._subject.ending if stopped else "")
        small = len(heading) > LONG_HEADING
        self._title.set(text=heading, fontsize=7.5 if small else STYLE["axes.titlesize"])


def _heading(row: pd.Series, ending: str) -> str:
    where = f"{ending + ' at ' if ending else ''}iteration {int(row['iteration'])}"
    value = f"{row['log_likelihood']:.3f}".replace("-", "\N{MINUS SIGN}")
    return f"{where.capitalize()}, log-likelihood {value}"


def _figure(subject: Subject, rows: Sequence[pd.Series]) -> tuple[Figure, Panel]:
    """Make a figure of one panel that shows no iteration yet."""
    # Margins in inches, fixed: all pictures of a fit have the same frame, and a slider runs
    # through them without a jump.
    width, legend = 4.8, 0.2 * -(-(subject.n_components + 1) // LEGEND_COLUMNS)
    top = 0.32 + 0.14 * len(subject.title.splitlines())
    height = 2.98 + legend + top
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (
            0.62 / width,
            (0.58 + legend) / height,
            1 - 0.75 / width,
            1 - (0.58 + legend + top) / height,
        )
    )
    panel = Panel(axes, subject, rows)
    remark = _remark(subject.points, subject.truth)
    axes.set_xlabel(f"x ({remark})" if remark else "x")
    axes.set_ylabel("weight × density" if subject.weighted else "density")
    figure.legend(loc="lower center", ncols=LEGEND_COLUMNS)
    figure.suptitle(subject.title, y=1 - 0.06 / height, va="top", fontsize=8)
    return figure, panel


@styled
def snapshot_picture(subject: Subject, row: pd.Series, *, stopped: bool = False) -> Figure:
    """Draw one iteration of one fit as the notebook does.

    Parameters
    ----------
    subject
        The fit.
    row
        Of ``traces``: iteration, log_likelihood and the parameters.
    stopped
        Whether the fit ended here.
    """
    figure, panel = _figure(subject, [row])
    panel.show(row, stopped)
    return figure


@styled
def pictures(
    subject: Subject,
    rows: Sequence[tuple[pd.Series, bool]],
    convert: Callable[[np.ndarray], Picture],
) -> list[Picture]:
    """Draw many iterations of one fit, fast: frame, axes, truth and legend are drawn once.

    Parameters
    ----------
    subject
        The fit.
    rows
        Of ``traces``, each with whether the fit ended there.
    convert
        Of a picture's pixels, (height, width, 3) uint8, to what is kept of them. The array is
        drawn over by the next picture.

    Returns
    -------
    list
        What `convert` gave, in the order of `rows`.
    """
    figure, panel = _figure(subject, [row for row, _ in rows])
    canvas = FigureCanvasAgg(figure)
    for artist in panel.moving:
        artist.set_animated(True)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    kept = []
    for row, stopped in rows:
        panel.show(row, stopped)
        canvas.restore_region(background)
        for artist in panel.moving:
            figure.draw_artist(artist)
        kept.append(convert(np.asarray(canvas.buffer_rgba())[..., :3]))
    return kept


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    dpi = STYLE["savefig.dpi"]
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="png", dpi=(dpi, dpi))
    return buffer.getvalue()


def subject_of(group: Group, cell: Cell) -> Subject:
    """Return what the pictures of a cell's representative fit have in common."""
    points = group.points.get(cell.id)
    where = f"{group.title}, {group.size_label(cell.sample_size)}"
    which = [f"init {cell.init}", f"algorithm {cell.algorithm}", group.fit_name(cell)]
    outcome = group.representative_fit(cell)["outcome"]
    return Subject(
        points,
        group.truth,
        group.n_components,
        not group.equal_weights,
        f"{where}\n{', '.join(filter(None, which))}",
        ENDINGS.get(outcome, STOPPED),
    )


def _asked_rows(group: Group, cell: Cell) -> list[tuple[pd.Series, bool]]:
    """Return the `snapshot_rows` of a representative fit; one that failed ended at its last row."""
    trace = group.representative(cell)
    failed = group.representative_fit(cell)["outcome"] in ENDINGS
    return [
        (row, stopped or (failed and row["iteration"] == trace["iteration"].iloc[-1]))
        for row, stopped in snapshot_rows(trace, group.schedule["snapshots"])
    ]


def snapshot_pngs(group: Group, cell: Cell) -> list[tuple[int, bytes]]:
    """Draw a cell's representative fit at the snapshots: (iteration shown, PNG) each."""
    rows = _asked_rows(group, cell)
    if not rows:
        return []
    iterations = [int(row["iteration"]) for row, _ in rows]
    return list(zip(iterations, pictures(subject_of(group, cell), rows, _png), strict=True))


@finished
def snapshots(group: Group) -> Figure | None:
    """Draw the pictures of one fit, the representative of the group's first cell, side by side.

    Where it went on beyond the last of them, so does the figure: to its last row.
    """
    cell = group.cells[0]
    trace = group.representative(cell)
    rows = _asked_rows(group, cell)
    if not rows:
        return None
    if rows[-1][0]["iteration"] < trace["iteration"].iloc[-1]:
        rows.append((trace.iloc[-1], True))
    columns = min(len(rows), 2 if len(rows) <= 4 else 3)
    lines = -(-len(rows) // columns)
    figure = Captioned(figsize=(WIDTH, 2.5 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    subject = subject_of(group, cell)
    for axes, (row, stopped) in zip(panels.flat, rows, strict=False):
        panel = Panel(axes, subject, [each for each, _ in rows])
        panel.show(row, stopped)
    narrow = columns > 2 or any(len(axes.get_title()) > LONG_HEADING for axes in panels.flat)
    for axes in panels.flat[: len(rows)]:
        if narrow:
            axes.set_title(axes.get_title().replace(", ", "\n"))
    for axes in panels.flat[len(rows) :]:
        axes.set_visible(False)
    for axes in panels.flat[max(0, len(rows) - columns) : len(rows)]:  # none stands below
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("x")
    for axes in panels[:, 0]:
        axes.set_ylabel("weight × density" if subject.weighted else "density")
    which = [group.size_label(cell.sample_size), group.label(cell), group.fit_name(cell)]
    title = f"{group.title}: {', '.join(filter(None, which))}"
    remark = _remark(subject.points, subject.truth)  # too long to stand below every panel
    figure.suptitle(f"{title}\n{remark}" if remark else title)
    legend_below(figure, panels[0, 0], columns=4)
    _note(figure, subject, panel.cut_off)
    return figure


def _note(figure: Captioned, subject: Subject, cut_off: bool) -> None:
    """Say what stands beside the fitted densities, and what is outside of the picture."""
    points, truth = subject.points, subject.truth
    figure.note(
        "Each curve is multiplied by its weight."
        if subject.weighted
        else "The weights are equal and known: each curve is N(x; mean, scale²)."
    )
    if points is None:
        figure.note("The fit is to the population, of mass 1: there are no points.")
    elif subject.n_components > 1:
        mixed = "white: undecided" if subject.n_components == 2 else "a mix of the components'"
        figure.note(f"Points on the axis are coloured by responsibility ({mixed}).")
    figure.note(
        f"The x axis ends {REACH:g} scales beyond the outermost true means.",
        when=points is not None and truth is not None and "outside" in left_out(points, truth),
    )
    reference = "histogram" if truth is None else "truth"
    figure.note(f"What is higher than {HEADROOM:g} times the {reference} is cut off.", when=cut_off)
