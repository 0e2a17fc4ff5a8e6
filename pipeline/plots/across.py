"""Fitted lines that belong to no group, as they run through several truths or models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.plan import Cell, Plan
from pipeline.plots.group import group_name, rows_of
from pipeline.plots.laws import Law, laws

LONGEST_TITLE = 85  # letters: of a figure


@dataclass(frozen=True)
class Across:
    """Fitted lines that run through several truths or models: they belong to no group.

    Attributes
    ----------
    cells
        Those on some line, in plan order.
    convergence
        Their rows.
    laws
        The lines.
    """

    cells: tuple[Cell, ...]
    convergence: pd.DataFrame
    laws: tuple[Law, ...]
    name: str = "across"  # a group's has a hyphen in it

    @property
    def title(self) -> str:
        """For the top of a figure."""
        return over(self.cells, LONGEST_TITLE)


def across(plan: Plan, tables: Mapping[str, pd.DataFrame]) -> Across | None:
    """Return the lines of a study through more than one group; None without any."""
    found = [
        law
        for law in laws(plan, tables["convergence"], tables["slopes"])
        if len({group_name(cell) for cell in law.cells}) > 1
    ]
    if not found:
        return None
    ids = {cell.id for law in found for cell in law.cells}
    cells = tuple(cell for cell in plan.cells if cell.id in ids)
    return Across(cells, rows_of(tables["convergence"], list(cells)), tuple(found))


def over(cells: Sequence[Cell], longest: int) -> str:
    """Name the truths and models of cells, or count them where that takes too many letters."""
    truths = list(dict.fromkeys(str(cell.mixture or cell.observed) for cell in cells))
    models = list(dict.fromkeys(cell.model for cell in cells))
    noun = "mixtures" if all(cell.mixture for cell in cells) else "truths"
    parts = [_joined(truths), f"model{'s' * (len(models) > 1)} {_joined(models)}"]
    if len(", ".join(parts)) > longest:
        parts[0] = f"{len(truths)} {noun}" if len(truths) > 1 else parts[0]
        parts[1] = f"{len(models)} models" if len(models) > 1 else parts[1]
    return ", ".join(parts)


def _joined(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
