"""What one set of figures is about: the cells of one truth and one model, with their tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.mixture import Parameters
from pipeline.figures import chosen
from pipeline.plan import Cell, Plan
from pipeline.plots.laws import Law, laws
from pipeline.tables import OUTCOMES

FEWEST_FITS = 5  # a distribution over fewer is not one
PARAMETERS = ("weight", "mean", "scale")
FAILURES = tuple(name for name in OUTCOMES if name not in ("converged", "max_iter"))
# What the cells of a group have in common.
GROUPING = ("mixture", "observed", "model")
# What figures are drawn from, by the names of the files.
TABLES = (
    "fits", "traces", "convergence", "derived", "profiles", "trajectories", "replay", "slopes",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """The cells that share a mixture (or observed data) and a model.

    Attributes
    ----------
    name
        ``<mixture or observed>-<model>``.
    cells
        In plan order.
    fits, traces, convergence, derived, profiles, trajectories, replay, slopes
        The rows of these cells, as in the files of these names.
    truth
        Of the mixture; None for observed data.
    equal_weights
        Whether the model's weights are equal and known.
    symmetric
        Whether the model's means are +t and -t.
    estimated
        Those of `PARAMETERS` that the model does not fix.
    inits
        The plan's, by name: ``method`` and its options.
    init_evaluations
        Map evaluations of the init for one start, before row 0, by cell id.
    schedule
        The plan's: ``max_iter``, ``stop``, ``record``, ``record_replicates``, ``snapshots``.
    representatives
        Replicate and start of the fit that stands for its cell, by cell id.
    points
        That fit's sample by cell id, shape (n,).
    methods
        Of the algorithms, by their names in the configuration.
    laws
        Fitted lines through these cells alone.
    figures
        Names of the kinds of figures that are asked for.
    """

    name: str
    cells: tuple[Cell, ...]
    fits: pd.DataFrame
    traces: pd.DataFrame
    convergence: pd.DataFrame
    derived: pd.DataFrame
    profiles: pd.DataFrame
    trajectories: pd.DataFrame
    replay: pd.DataFrame
    slopes: pd.DataFrame
    truth: Parameters | None
    equal_weights: bool
    symmetric: bool
    estimated: tuple[str, ...]
    inits: Mapping[str, Mapping[str, Any]]
    init_evaluations: Mapping[str, int]
    schedule: Mapping[str, Any]
    representatives: Mapping[str, tuple[int, int]]
    points: Mapping[str, np.ndarray]
    methods: Mapping[str, str]
    laws: tuple[Law, ...]
    figures: tuple[str, ...]

    @property
    def title(self) -> str:
        """For the top of a figure."""
        cell = self.cells[0]
        return f"{cell.mixture or cell.observed}, model {cell.model}"

    @property
    def sizes(self) -> list[float]:
        """Sample sizes, ascending: one panel each."""
        return sorted({cell.sample_size for cell in self.cells})

    @property
    def labels(self) -> list[str]:
        """The inits and algorithms, in plan order: one colour or line style each."""
        return list(dict.fromkeys(self.label(cell) for cell in self.cells))

    @property
    def n_components(self) -> int:
        """Of the model."""
        return self.cells[0].n_components

    @property
    def comparable_truth(self) -> Parameters | None:
        """The truth, if it has as many components as the model."""
        truth = self.truth
        return truth if truth is not None and len(truth.means) == self.n_components else None

    @staticmethod
    def size_label(size: float) -> str:
        """Name a sample size."""
        return "population" if size == math.inf else f"n = {size_text(size)}"

    def label(self, cell: Cell) -> str:
        """Name a cell within its panel: its init, its algorithm, or both where both differ."""
        algorithms = len({other.algorithm for other in self.cells})
        inits = len({other.init for other in self.cells})
        if algorithms > 1:
            return f"{cell.init}, {cell.algorithm}" if inits > 1 else cell.algorithm
        return cell.init

    def chosen(self, most: int) -> list[str]:
        """Return `most` of the labels, in plan order: one of each init before others of it."""
        first = {cell.init: self.label(cell) for cell in reversed(self.cells)}
        ranked = [label for label in self.labels if label in first.values()]
        kept = list(dict.fromkeys([*ranked, *self.labels]))[:most]
        return [label for label in self.labels if label in kept]

    def remark(self, shown: Sequence[str]) -> str:
        """Say in a figure's title what only some of the labels stand for."""
        count = len(self.labels)
        if len(shown) == count:
            return ""
        if len(shown) == 1:
            return f", {shown[0]} (1 of {count} curves)"
        return f", {len(shown)} of {count} curves"

    def panel(self, size: float) -> list[Cell]:
        """Return the cells of one sample size."""
        return [cell for cell in self.cells if cell.sample_size == size]

    def fits_of(self, cell: Cell) -> pd.DataFrame:
        """One row per fit."""
        return self.fits[self.fits["cell"] == cell.id]

    def traces_of(self, cell: Cell) -> pd.DataFrame:
        """Return the rows of the fits recorded in full, sorted by fit and iteration.

        The other fits keep only their first and last row: carried forward between the two they
        would show a fit that stands still.
        """
        rows = self.recorded(self.traces, [cell])
        return rows.sort_values(["replicate", "start", "iteration"], kind="stable")

    def recorded(self, table: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
        """Return the rows of a table that are about these cells' fits recorded in full."""
        kept = self.schedule["record_replicates"]
        rows = table if kept == "all" else table[table["replicate"] < kept]
        return rows[rows["cell"].isin([cell.id for cell in cells])]

    def recorded_fits(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """Return these cells' fits recorded in full, with what they are beside the others."""
        beside = self.recorded(self.derived, cells)
        columns = ["fit_id", "log_likelihood_gap", "near_singular"]
        return self.recorded(self.fits, cells).merge(beside[columns], on="fit_id")

    def recorded_remark(self, cells: Iterable[Cell]) -> str:
        """Say in a figure's title that it is about some of the replicates alone."""
        kept, most = self.schedule["record_replicates"], max(cell.replicates for cell in cells)
        return "" if kept == "all" or kept >= most else f": {kept} of {most} replicates recorded"

    def ended(self, cells: Sequence[Cell], outcomes: Sequence[str]) -> bool:
        """Tell whether any fit of these cells had one of these outcomes."""
        rows = self.convergence[self.convergence["cell"].isin([cell.id for cell in cells])]
        return bool(rows[[f"n_{outcome}" for outcome in outcomes]].to_numpy().any())

    def fit_name(self, cell: Cell) -> str:
        """Name the representative fit within its cell; nothing where it is the only one there."""
        replicate, start = self.representatives[cell.id]
        names = [f"replicate {replicate}"] * math.isfinite(cell.sample_size)
        return ", ".join(names + [f"start {start}"] * (cell.starts > 1))

    def spread_starts(self, cell: Cell, most: int) -> np.ndarray:
        """Return at most `most` starts, ascending, evenly spread but for the representative one."""
        _, start = self.representatives[cell.id]
        starts = np.unique(np.linspace(0, cell.starts - 1, most).round().astype(int))
        starts[np.argmin(np.abs(starts - start))] = start
        return starts

    def representative_fit(self, cell: Cell) -> pd.Series:
        """Return the row of the cell's representative fit."""
        fits = self.fits_of(cell)
        replicate, start = self.representatives[cell.id]
        (row,) = np.flatnonzero((fits["replicate"] == replicate) & (fits["start"] == start))
        return fits.iloc[row]

    def representative(self, cell: Cell) -> pd.DataFrame:
        """Return the trace of the cell's representative fit, by iteration."""
        rows = self.traces[self.traces["cell"] == cell.id]
        replicate, start = self.representatives[cell.id]
        rows = rows[(rows["replicate"] == replicate) & (rows["start"] == start)]
        return rows.sort_values("iteration", kind="stable")


def samples_shown(cells: Iterable[Cell]) -> str:
    """Name the samples that pictures of single fits of these cells are about."""
    finite = {math.isfinite(cell.sample_size) for cell in cells}
    return " and ".join(["replicate 0"] * (True in finite) + ["population"] * (False in finite))


def estimated(model: Mapping[str, Any], n_components: int) -> tuple[str, ...]:
    """Return those of `PARAMETERS` that a model of the configuration does not fix."""
    fixed = {
        "weight": model["weights"] != "free" or n_components == 1,
        "mean": False,
        "scale": model["scales"] not in ("free", "shared"),
    }
    return tuple(name for name in PARAMETERS if not fixed[name])


def group_name(cell: Cell) -> str:
    """Name the group that a cell belongs to."""
    return f"{cell.mixture or cell.observed}-{cell.model}"


def size_text(size: float) -> str:
    """Write a finite sample size: 4000, 100,000."""
    return f"{size:.0f}" if size < 10_000 else f"{size:,.0f}"


def parameters_of(row: pd.Series, n_components: int) -> Parameters:
    """Return the parameters in a row of ``fits`` or ``traces``, each (n_components,)."""
    return Parameters(
        *(
            np.array([row[f"{name}_{k}"] for k in range(n_components)], dtype=float)
            for name in PARAMETERS
        )
    )


def groups(
    plan: Plan, tables: Mapping[str, pd.DataFrame], points: Mapping[str, np.ndarray]
) -> list[Group]:
    """Cut a study into groups, in plan order.

    Parameters
    ----------
    plan
        Of the study.
    tables
        The whole study's, by the names in `TABLES`.
    points
        The sample of each cell's representative fit, shape (n,), by cell id; none of a population.
    """
    by_name: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        by_name.setdefault(group_name(cell), []).append(cell)
    lines: dict[str, list[Law]] = {}
    for law in laws(plan, tables["convergence"], tables["slopes"]):
        if len(names := {group_name(cell) for cell in law.cells}) == 1:
            lines.setdefault(names.pop(), []).append(law)
    return [
        Group(
            name=name,
            cells=tuple(cells),
            **{key: rows_of(tables[key], cells) for key in TABLES},
            truth=plan.truth(cells[0]),
            equal_weights=plan.config["model"][cells[0].model]["weights"] == "equal",
            symmetric=plan.config["model"][cells[0].model]["means"] == "symmetric",
            estimated=estimated(plan.config["model"][cells[0].model], cells[0].n_components),
            inits=plan.config["init"],
            init_evaluations={cell.id: plan.init_evaluations(cell) for cell in cells},
            schedule=plan.config["schedule"],
            representatives={cell.id: plan.representative(cell) for cell in cells},
            points={cell.id: points[cell.id] for cell in cells if cell.id in points},
            methods={name: entry["method"] for name, entry in plan.config["algorithm"].items()},
            laws=tuple(lines.get(name, ())),
            figures=tuple(kind.name for kind in chosen(plan.config["figures"])),
        )
        for name, cells in by_name.items()
    ]


def rows_of(table: pd.DataFrame, cells: list[Cell]) -> pd.DataFrame:
    """Return the rows of these cells; of slopes, those over cells of this truth and model."""
    if "cell" in table:
        return table[table["cell"].isin([cell.id for cell in cells])]
    ours = [table[key].isna() | (table[key] == getattr(cells[0], key)) for key in GROUPING]
    return table[np.logical_and.reduce(ours)]
