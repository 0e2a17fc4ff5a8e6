"""Groups of cells to draw."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline import plots
from pipeline.figures import FIGURES
from pipeline.plots import TABLES, Group, groups
from pipeline.tables import read_table
from tests.factories import Study, make_study, write_study

STUDY = (
    "experiment=notebook",
    "model=[free]",
    "init=[random_points,kmeans_pp]",
    "sample_sizes=[40,80]",
    "replicates=6",
    "starts=2",
    "schedule=converge",
    "schedule.max_iter=60",
    "schedule.stop.tolerance=1e-2",
)

# Cells that differ in the algorithm, with laws asked for. All algorithms are plain EM here.
RIVALS = (
    "experiment=notebook",
    "model=[free]",
    "init=[random_points,kmeans_pp]",
    "algorithm=[em,squarem]",
    "sample_sizes=[40,80]",
    "replicates=6",
    "schedule=converge",
    "schedule.max_iter=60",
    "schedule.stop.tolerance=1e-2",
    "slopes=[{name: mean, statistic: rmse_mean_0, factor: sample_size},"
    "{name: cost, statistic: expected_running_time, factor: sample_size},"
    "{name: bias, statistic: bias_mean_1, factor: sample_size}]",
    "claims=[{name: root_n, claim: x, source: y, slope: mean, where: {init: kmeans_pp},"
    "expected: -0.25, margin: 0.1}]",
)


def groups_of(study: Study) -> list[Group]:
    """Return the groups of a study, with the tables that the stage aggregate makes of it."""
    tables = {"fits": study.fits, "traces": study.traces}
    with TemporaryDirectory() as folder:
        write_study(study, Path(folder))
        tables |= {name: read_table(Path(folder), name) for name in TABLES if name not in tables}
    points = {cell.id: study.samples[cell.data_set][0] for cell in study.plan.cells}
    return groups(study.plan, tables, points)


def draw(group: Group, name: str) -> Figure | None:
    """Draw the figure of this name."""
    return plots.draw(next(kind for kind in FIGURES if kind.name == name), group)


@pytest.fixture(scope="session")
def notebook() -> Group:
    (group,) = groups_of(make_study("experiment=notebook"))
    return group


@pytest.fixture(scope="session")
def study() -> Group:
    (group,) = groups_of(make_study(*STUDY))
    return group


@pytest.fixture(scope="session")
def rivals() -> Group:
    (group,) = groups_of(make_study(*RIVALS))
    return group


def line(figure: Figure, text: str, panel: int = 0) -> np.ndarray:
    """Return the points of the one line with this label in a panel, shape (m, 2)."""
    (found,) = [each for each in figure.axes[panel].lines if each.get_label() == text]
    return np.asarray(found.get_xydata())
