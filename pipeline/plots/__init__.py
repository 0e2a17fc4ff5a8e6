"""Figures: tables in, matplotlib figures out; nothing is read or written.

`pipeline.figures` lists them.
"""

from importlib import import_module

from matplotlib.figure import Figure

from pipeline.figures import FigureKind
from pipeline.plots.across import Across, across
from pipeline.plots.caption import caption_of
from pipeline.plots.group import TABLES, Group, groups
from pipeline.plots.snapshots import snapshot_pngs
from pipeline.plots.style import png_bytes, svg_bytes

__all__ = [
    "TABLES",
    "Across",
    "Group",
    "across",
    "caption_of",
    "draw",
    "groups",
    "png_bytes",
    "snapshot_pngs",
    "svg_bytes",
]


def draw(kind: FigureKind, group: Group | Across) -> Figure | None:
    """Draw a figure of a group, or of `Across` (scaling laws); None where it would say nothing."""
    module = import_module(f"pipeline.plots.{kind.module}")
    figure: Figure | None = getattr(module, kind.name)(group)
    return figure
