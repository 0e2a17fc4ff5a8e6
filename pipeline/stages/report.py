"""Stage: figures and the page, from the statistics, fits, traces and samples."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.figures import FigureKind, chosen
from pipeline.files import atomic_write, remove_others, write_text
from pipeline.plan import Cell, Plan, read_plan, read_planned
from pipeline.processes import ordered_map
from pipeline.progress import progress
from pipeline.report import Picture, PlayerPart, index_page, render_report
from pipeline.report.index import roots
from pipeline.stages import run
from pipeline.tables import (
    FITS,
    TRACES,
    check_parts,
    read_fits,
    read_statistics,
    read_table,
    read_traces,
)

# matplotlib takes a while to load: only where something is drawn.
if TYPE_CHECKING:
    from pipeline.plots import Across, Group

log = logging.getLogger(__name__)

ON_THE_PAGE = ("claims", "comparisons", "slopes")
MOST_GROUPS = 20  # with figures
MOST_CELLS = 24  # with single snapshot pictures
MOST_CHOICES = 60  # cells of a player
# What keeps the page below 10 MB.
LARGEST_SVG = 400_000  # bytes: beyond it the page holds the PNG
MOST_BYTES = 6_000_000  # of pictures, as they stand in the page
MOST_NUMBERS = 100_000  # of players, about 20 bytes each


def report(folder: Path) -> None:
    """Write `figures/` and `report.html` of a results folder, and the index above it.

    What is stale in `figures/` is removed.
    """
    plan = read_plan(folder)
    check_parts(folder, plan, [FITS, TRACES])
    tables = {"convergence": read_statistics(folder, plan)}
    tables |= {name: read_table(folder, name) for name in ON_THE_PAGE}
    figures = folder / "figures"
    pictures: list[Picture] = []
    players: list[PlayerPart] = []
    remark, kept = "", set()
    if plan.config["report"] != "minimal":
        from pipeline.plots import across

        groups = _groups(folder, plan, tables)
        shown = groups[:MOST_GROUPS]
        spanning = [each] if (each := across(plan, tables)) is not None else []
        files, captions = _draw(plan, shown, spanning, figures)
        kept = set(files)
        kinds = chosen(plan.config["figures"])
        pictures = _pictures([*shown, *spanning], kinds, files, captions)
        players = _players(shown)
        remarks = [_room(pictures, len(shown), len(groups)), _silent(plan, shown, files)]
        remark = " ".join(filter(None, remarks))
    for place in (figures, figures / "snapshots"):
        place.mkdir(parents=True, exist_ok=True)
        remove_others(place, {path.name for path in kept if path.parent == place})
    write_text(folder / "report.html", render_report(plan, tables, pictures, players, remark))
    for root in roots(folder):
        _write_index(root / "index.html")


def _groups(folder: Path, plan: Plan, tables: dict[str, pd.DataFrame]) -> list["Group"]:
    from pipeline.plots import TABLES, groups

    every = {"fits": read_fits(folder), "traces": read_traces(folder)} | tables
    every |= {name: read_table(folder, name) for name in TABLES if name not in every}
    return groups(plan, every, _points(folder, plan))


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
                samples[data_set.id] = np.array(stored[plan.representative(cell)[0]])
        return samples.get(data_set.id)

    found = {cell.id: sample(cell) for cell in plan.cells}
    return {cell: points for cell, points in found.items() if points is not None}


def _draw(
    plan: Plan, groups: Sequence["Group"], spanning: Sequence["Across"], figures: Path
) -> tuple[dict[Path, bytes], dict[str, str]]:
    """Draw all figures and pictures into files below `figures`.

    Return their contents, and the figures' captions by the stems of their files.
    """
    from pipeline.report.drawing import (
        Task,
        alone,
        animation_files,
        cell_files,
        drawn,
        figure_files,
    )

    kinds = chosen(plan.config["figures"])
    tasks: list[Task] = [(figure_files, group, kind) for group in groups for kind in kinds]
    laws = [kind for kind in kinds if kind.name == "scaling_laws"]
    tasks += [(figure_files, each, kind) for each in spanning for kind in laws]
    if any(kind.name == "snapshots" for kind in kinds):
        first = [(group, group.cells[0]) for group in groups]
        tasks += [(animation_files, alone(group, cell), cell) for group, cell in first]
    if len(plan.cells) <= MOST_CELLS:
        tasks += [
            (cell_files, alone(group, cell), cell) for group in groups for cell in group.cells
        ]
    written: dict[Path, bytes] = {}
    captions: dict[str, str] = {}
    with progress("report", len(tasks)) as advance:
        for done in ordered_map(drawn, tasks, plan.workers):
            for name, content in done.files.items():
                with atomic_write(figures / name) as temporary:
                    temporary.write_bytes(content)
                written[figures / name] = content
            captions |= done.captions
            advance(1)
    return written, captions


def _pictures(
    groups: Sequence["Group | Across"],
    kinds: Sequence[FigureKind],
    files: dict[Path, bytes],
    captions: dict[str, str],
) -> list[Picture]:
    """Return the pictures in the order of the page; one that it has no room for has no image."""
    by_name = {path.name: content for path, content in files.items()}
    drawn = [
        (group, kind, f"{group.name}-{kind.name}")
        for group in groups
        for kind in kinds
        if f"{group.name}-{kind.name}.svg" in by_name
    ]

    def picture(group: "Group | Across", kind: FigureKind, stem: str, smallest: bool) -> Picture:
        svg, png = by_name[f"{stem}.svg"], by_name[f"{stem}.png"]
        small = min(svg, png, key=len) if smallest else svg
        image = small if len(small) <= LARGEST_SVG else png
        return Picture(group.title, kind.title, captions[stem], image, f"figures/{stem}.svg")

    best = [picture(*each, smallest=False) for each in drawn]
    if sum(len(each.data_uri) for each in best) <= MOST_BYTES:
        return best
    small = [picture(*each, smallest=True) for each in drawn]
    left = MOST_BYTES
    # Every group's first figure comes before any group's second one.
    for place in sorted(range(len(drawn)), key=lambda place: kinds.index(drawn[place][1])):
        size = len(small[place].data_uri)
        if size > left:
            small[place] = replace(small[place], image=b"")
        else:
            left -= size
    return small


def _players(groups: Sequence["Group"]) -> list[PlayerPart]:
    from pipeline.plots.thinning import MOST_STEPS
    from pipeline.report.player import player

    shown = [replace(group, cells=group.cells[:MOST_CHOICES]) for group in groups]
    width = sum(len(group.cells) * (3 * group.n_components + 3) for group in shown)
    rows = max(2, min(MOST_STEPS, MOST_NUMBERS // max(width, 1)))
    parts = [(group, player(group, rows)) for group in shown]
    return [PlayerPart(group.title, group.name, data) for group, data in parts if data is not None]


def _room(pictures: Sequence[Picture], n_drawn: int, n_groups: int) -> str:
    """Say which pictures the page leaves out."""
    remarks = []
    if n_drawn < n_groups:
        remarks.append(
            f"Figures are drawn for the first {n_drawn} of {n_groups} pairs of truth and model; "
            "the tables below go on."
        )
    linked = [picture for picture in pictures if not picture.image]
    if linked:
        remarks.append(
            f"This page has room for {len(pictures) - len(linked)} of {len(pictures)} figures; "
            "in the place of the others are links to their files, of: "
            f"{'; '.join(dict.fromkeys(picture.group for picture in linked))}."
        )
    return " ".join(remarks)


def _silent(plan: Plan, groups: Sequence["Group"], files: dict[Path, bytes]) -> str:
    """Say which figures were asked for by name and are not drawn, of all groups or of some."""
    if plan.config["figures"] == "all":
        return ""
    names = {path.name for path in files}
    missing = []
    for kind in chosen(plan.config["figures"]):
        without = sum(f"{group.name}-{kind.name}.svg" not in names for group in groups)
        some = f" (of {without} of {len(groups)} pairs of truth and model)"
        if without and f"across-{kind.name}.svg" not in names:
            missing.append(f"{kind.title}{some if without < len(groups) else ''}")
    if not missing:
        return ""
    text = f"Not drawn, as it would say nothing here: {'; '.join(missing)}."
    log.info("report: %s", text)
    return text


def _write_index(path: Path) -> None:
    """Bring an index up to date: again, if another experiment's report came in between."""
    text = ""
    while text != (text := index_page(path.parent)):
        write_text(path, text)


if __name__ == "__main__":
    run(report)
