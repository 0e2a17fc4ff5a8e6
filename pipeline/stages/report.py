"""Stage: figures and the page, from the statistics, fits, traces and samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import FIGURES, FigureKind
from pipeline.files import atomic_write, remove_others, write_text
from pipeline.plan import Cell, Plan, read_plan, read_planned
from pipeline.report import Picture, render_report
from pipeline.stages import run
from pipeline.tables import (
    FITS,
    REPRESENTATIVE,
    TRACES,
    check_parts,
    read_fits,
    read_statistics,
    read_table,
    read_traces,
)

# matplotlib takes a while to load: only where something is drawn.
if TYPE_CHECKING:
    from pipeline.plots import Group

MOST_GROUPS = 20  # with figures: they keep the page under about 10 MB
MOST_CELLS = 24  # with single snapshot pictures
LARGEST_SVG = 400_000  # bytes: beyond it the page holds the PNG


def report(folder: Path) -> None:
    """Write `figures/` and `report.html` of a results folder, and remove what is stale there."""
    plan = read_plan(folder)
    check_parts(folder, plan, [FITS, TRACES])
    convergence = read_statistics(folder, plan)
    figures = folder / "figures"
    pictures: list[Picture] = []
    remark = ""
    kept: set[Path] = set()
    if plan.config["report"] != "minimal":
        from pipeline.plots import TABLES, groups

        tables = {"fits": read_fits(folder), "traces": read_traces(folder)}
        tables["convergence"] = convergence
        tables |= {name: read_table(folder, name) for name in TABLES if name not in tables}
        all_groups = groups(plan, tables, _points(folder, plan))
        shown = all_groups[:MOST_GROUPS]
        if len(shown) < len(all_groups):
            remark = (
                f"Figures are drawn for the first {len(shown)} of {len(all_groups)} pairs of truth "
                "and model; the tables below hold all of them."
            )
        for group in shown:
            pictures += _group_pictures(group, _chosen(plan), figures, kept)
            _animation_file(group, _chosen(plan), figures, kept)
            if len(plan.cells) <= MOST_CELLS:
                _snapshot_files(group, figures / "snapshots", kept)
    for place in (figures, figures / "snapshots"):
        place.mkdir(parents=True, exist_ok=True)
        remove_others(place, {path.name for path in kept if path.parent == place})
    write_text(folder / "report.html", render_report(plan, convergence, pictures, remark))


def _points(folder: Path, plan: Plan) -> dict[str, np.ndarray]:
    """Return the sample of each cell's representative fit, shape (n,), by cell id."""
    samples: dict[str, np.ndarray] = {}

    def sample(cell: Cell) -> np.ndarray | None:
        data_set = plan.data_set(cell)
        if data_set.id not in samples:
            if cell.observed is not None:
                observed = plan.config["observed"][cell.observed]
                samples[data_set.id] = read_planned(data_set, observed)
            elif data_set.file is not None:
                stored = np.load(folder / data_set.file, mmap_mode="r")
                samples[data_set.id] = np.array(stored[REPRESENTATIVE[0]])
        return samples.get(data_set.id)

    found = {cell.id: sample(cell) for cell in plan.cells}
    return {cell: points for cell, points in found.items() if points is not None}


def _write(path: Path, content: bytes, kept: set[Path]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    kept.add(path)


def _chosen(plan: Plan) -> list[FigureKind]:
    """Return the figures that the configuration asks for, in its order."""
    wanted = plan.config["figures"]
    if wanted == "all":
        return list(FIGURES)
    by_name = {kind.name: kind for kind in FIGURES}
    return [by_name[name] for name in wanted]


def _group_pictures(
    group: "Group", kinds: Sequence[FigureKind], figures: Path, kept: set[Path]
) -> list[Picture]:
    from pipeline.plots import draw, png_bytes, svg_bytes

    pictures = []
    for kind in kinds:
        figure = draw(kind, group)
        if figure is None:
            continue
        svg, png = svg_bytes(figure), png_bytes(figure)
        for suffix, content in (("svg", svg), ("png", png)):
            _write(figures / f"{group.name}-{kind.name}.{suffix}", content, kept)
        image = svg if len(svg) <= LARGEST_SVG else png
        pictures.append(Picture(group.title, kind.title, kind.caption, image))
    return pictures


def _animation_file(
    group: "Group", kinds: Sequence[FigureKind], figures: Path, kept: set[Path]
) -> None:
    """Write what the snapshots show of the group's first cell as an animation too."""
    from pipeline.plots.animation import gif_bytes

    if any(kind.name == "snapshots" for kind in kinds):
        content = gif_bytes(group, group.cells[0])
        if content is not None:
            _write(figures / f"{group.name}-animation.gif", content, kept)


def _snapshot_files(group: "Group", place: Path, kept: set[Path]) -> None:
    from pipeline.plots import snapshot_pngs

    for cell in group.cells:
        for iteration, png in snapshot_pngs(group, cell):
            _write(place / f"{cell.id}-{iteration:06d}.png", png, kept)


if __name__ == "__main__":
    run(report)
