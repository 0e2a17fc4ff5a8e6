"""What is drawn of a group, as the contents of files below ``figures/``: one task at a time."""

from collections.abc import Callable
from dataclasses import replace

from pipeline.figures import FigureKind
from pipeline.plan import Cell
from pipeline.plots import Group, draw, png_bytes, snapshot_pngs, svg_bytes
from pipeline.plots.animation import gif_bytes

Files = dict[str, bytes]
Task = tuple[Callable[..., Files], Group, FigureKind | Cell]


def drawn(task: Task) -> Files:
    """Do a task: contents by file name."""
    function, group, subject = task
    return function(group, subject)


def figure_files(group: Group, kind: FigureKind) -> Files:
    """Draw a figure as SVG and PNG; nothing where it would say nothing."""
    figure = draw(kind, group)
    if figure is None:
        return {}
    stem = f"{group.name}-{kind.name}"
    return {f"{stem}.svg": svg_bytes(figure), f"{stem}.png": png_bytes(figure)}


def cell_files(group: Group, cell: Cell) -> Files:
    """Draw the pictures of a cell's representative fit."""
    return {
        f"snapshots/{cell.id}-{iteration:06d}.png": picture
        for iteration, picture in snapshot_pngs(group, cell)
    }


def animation_files(group: Group, cell: Cell) -> Files:
    """Draw a cell's representative fit as an animation, in the name of its group."""
    animation = gif_bytes(group, cell)
    return {} if animation is None else {f"{group.name}-animation.gif": animation}


def alone(group: Group, cell: Cell) -> Group:
    """Return a group with no other cell's fits and traces: what `cell_files` needs, and small."""
    return replace(group, fits=group.fits_of(cell), traces=group.representative(cell))
