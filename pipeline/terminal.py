"""What the terminal shows: the help of the command, and a study's results in a short table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.console import Console
from rich.table import Table

from pipeline.console import console, counted, show
from pipeline.plan import Cell, Plan
from pipeline.reference import GROUPS, options
from pipeline.statistics.presentation import rounded, whole, whole_interval
from pipeline.tables import LABELS, OUTCOMES

MOST_ROWS = 24
NO_FAILURE = ("converged", "max_iter")
USAGE = """\
Measures how Expectation-Maximization (EM) converges on one-dimensional
Gaussian mixtures.

usage: python -m pipeline [experiment=NAME] [key=value ...]
       python -m pipeline -m key=a,b [...]
                                  (a sweep: one run and folder for each value)

  python -m pipeline experiment=notebook
  python -m pipeline experiment=convergence replicates=20 results_dir=pilot
  python -m pipeline 'mixture=[notebook,overlap_low]' \\
      'init=[notebook,kmeans_pp]' schedule=converge
  python -m pipeline 'mixture=[]' \\
      '+mixture.mine={weights: [0.3,0.7], means: [-1,1], scales: [1,1]}'
  python -m pipeline 'mixture=[]' '+observed.mine={path: my.csv, column: x}' \\
      'model=[free]' model.free.n_components=2 'init=[kmeans_pp]' \\
      schedule=converge

A study is the grid of its mixtures (or observed data), sample_sizes, models,
inits and algorithms; each cell of it is fitted on `replicates` samples from
`starts` starts. It is written to <results_dir>/<experiment>/: look at
report.html there first. An interrupted run goes on where it was; a larger
study computes only the difference.
"""
MORE = """\
  sample_sizes=[40,400]  replicates=100  starts=1  seed=1
  schedule.max_iter=500  schedule.stop.rule=map_residual
  schedule.stop.tolerance=1e-8  figures=[snapshots,basins]

More: python -m pipeline.list
          every option in a line, and `keys`: every key
      python -m pipeline --cfg job [...]
          the configuration that a command line gives
      python -m pipeline.replicates_needed
          how many replicates a wanted standard error needs
      python -m pipeline.replay
          one fit again, compared bit by bit with its record
      python -m pipeline.stages.STAGE
          one stage: plan, generate, fit, aggregate, report, track
      README.md, docs/tutorial.md; Hydra's own flags: --hydra-help
"""


def print_help() -> None:
    """Print how the command is used, with the groups and their options."""
    page = console()
    show(page, USAGE, soft_wrap=True)
    show(page, "Groups, of which a command chooses options: group=option, or several as a list")
    groups = Table(show_header=False, box=None, padding=(0, 2))
    groups.add_column(no_wrap=True)
    groups.add_column(overflow="fold")
    for group in GROUPS:
        groups.add_row(group, ", ".join(options(group)))
    show(page, groups)
    show(page, "\nKeys that are changed most, with examples of values")
    show(page, MORE, soft_wrap=True)


def print_summary(plan: Plan, convergence: pd.DataFrame, folder: Path) -> None:
    """Print a line for each cell, and where to look next."""
    page = console()
    show(page, _fitting(page, plan, convergence))
    left_out = len(convergence) - MOST_ROWS
    if left_out > 0:
        show(page, f"  and {counted(left_out, 'more cell')}: {folder / 'convergence.md'}")
    show(page, "\n".join(_next_steps(plan, folder)), soft_wrap=True)


def _fitting(page: Console, plan: Plan, convergence: pd.DataFrame) -> Table:
    """Return the table of the cells with as much of it as the page is wide enough for."""
    anywhere = page.options.update(width=1000)
    for between in (", ", ",\n", None):
        table = _cells(plan, convergence, between)
        if page.measure(table, options=anywhere).maximum <= page.width:
            return table
    return _cells(plan, convergence, None, together=True)


def _cells(
    plan: Plan, convergence: pd.DataFrame, between: str | None, together: bool = False
) -> Table:
    """Tabulate the cells, with `between` their outcomes.

    None is for narrow pages: no intervals, and a count of failures for the outcomes. `together`
    puts the labels of a cell into one column, whose lines are broken between them.
    """
    narrow = between is None
    names = _labels(plan.cells)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    if together:
        table.add_column("cell", overflow="fold")
    for name in () if together else names:
        size = name == "sample_size"
        justify: Literal["left", "right"] = "right" if size else "left"
        table.add_column("n" if size else name, justify=justify, no_wrap=True)
    numbers = ("median iter.", "failed") if narrow else ("median iterations", "95 % interval")
    for name in ("fits", "converged", *numbers):
        table.add_column(name, justify="right", no_wrap=True)
    if not narrow:
        table.add_column("ended as")
    rows = convergence.set_index("cell")
    for cell in plan.cells[:MOST_ROWS]:
        row = rows.loc[cell.id]
        table.add_row(
            *([_together(cell, names)] if together else [str(getattr(cell, n)) for n in names]),
            f"{row['n_fits']:,}",
            rounded(row["converged_share"], row["converged_share_mcse"]),
            whole(row["n_iter_median"], ","),
            *(
                [_failed(row)]
                if between is None
                else [_interval(row), between.join(_outcomes(row))]
            ),
        )
    return table


def _together(cell: Cell, names: Sequence[str]) -> str:
    return " ".join(f"{'n=' * (n == 'sample_size')}{getattr(cell, n)}" for n in names)


def _failed(row: pd.Series) -> str:
    return f"{sum(row[f'n_{name}'] for name in OUTCOMES if name not in NO_FAILURE):,}"


def _interval(row: pd.Series) -> str:
    return whole_interval(row["n_iter_median_low"], row["n_iter_median_high"], ",")


def _labels(cells: tuple[Cell, ...]) -> list[str]:
    """Return the labels in which cells differ; of a single cell, its truth and size."""
    differ = [name for name in LABELS if len({getattr(cell, name) for cell in cells}) > 1]
    data = "observed" if cells[0].mixture is None else "mixture"
    return differ or [data, "sample_size"]


def _outcomes(row: pd.Series) -> Iterator[str]:
    for outcome in OUTCOMES:
        if row[f"n_{outcome}"]:
            yield f"{outcome} {row[f'n_{outcome}']:,}"


def _next_steps(plan: Plan, folder: Path) -> Iterator[str]:
    if plan.config["schedule"]["stop"]["rule"] == "never":
        yield "No stopping rule (schedule.stop.rule=never): every fit runs to schedule.max_iter."
    else:
        yield "In brackets: Monte-Carlo standard errors. Medians are over all fits."
    yield f"Look at  {folder / 'report.html'}"
    yield f"Numbers  {folder / 'convergence.md'} (.tex, .csv with every column)"
    tracking, links = plan.config["tracking"], folder / "mlflow_links.html"
    if tracking["backend"] == "sqlite":
        yield f"Runs     make ui, then {links}"
    if tracking["backend"] == "server":
        yield f"Runs     {links}, on the server {tracking['uri']}"
