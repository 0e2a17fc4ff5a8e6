"""What is drawn of a group, as the contents of files below ``figures/``: one task at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pipeline.figures import FigureKind
from pipeline.plan import Cell
from pipeline.plots import Across, Group, caption_of, draw, png_bytes, snapshot_pngs, svg_bytes
from pipeline.plots.animation import gif_bytes


@dataclass(frozen=True)
class Drawn:
    """What a task made: contents by file name, and captions of figures by the stem of theirs."""

    files: dict[str, bytes] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)


Task = tuple[Callable[..., Drawn], Group | Across, FigureKind | Cell]


def drawn(task: Task) -> Drawn:
    """Do a task."""
    function, group, subject = task
    return function(group, subject)


def figure_files(group: Group | Across, kind: FigureKind) -> Drawn:
    """Draw a figure as SVG and PNG; nothing where it would say nothing."""
    figure = draw(kind, group)
    if figure is None:
        return Drawn()
    stem = f"{group.name}-{kind.name}"
    files = {f"{stem}.svg": svg_bytes(figure), f"{stem}.png": png_bytes(figure)}
    return Drawn(files, {stem: caption_of(kind, figure)})


def cell_files(group: Group, cell: Cell) -> Drawn:
    """Draw the pictures of a cell's representative fit."""
    pictures = {
        f"snapshots/{cell.id}-{iteration:06d}.png": picture
        for iteration, picture in snapshot_pngs(group, cell)
    }
    return Drawn(pictures)


def animation_files(group: Group, cell: Cell) -> Drawn:
    """Draw a cell's representative fit as an animation, in the name of its group."""
    animation = gif_bytes(group, cell)
    return Drawn({} if animation is None else {f"{group.name}-animation.gif": animation})


def alone(group: Group, cell: Cell) -> Group:
    """Return a group with no other cell's fits and traces: what `cell_files` needs, and small."""
    return replace(group, fits=group.fits_of(cell), traces=group.representative(cell))
