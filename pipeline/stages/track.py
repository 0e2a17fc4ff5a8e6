"""The stage that shows the result files in MLflow: `python -m pipeline.stages.track FOLDER`.

In a copy of the project that is made for one run and then removed, `workspace=DIR` names the folder
of the project itself, whose store is used, and `copy=NAME` the copy: its runs begin with that name,
and replace no others.
"""

import hashlib
import logging
import math
import os
from html import escape
from pathlib import Path

import pandas as pd

from pipeline import runs, tracking, views
from pipeline.console import counted
from pipeline.errors import InputError, TrackingError
from pipeline.files import write_text
from pipeline.plan import FILE, Cell, Plan, digest, read_plan
from pipeline.progress import progress
from pipeline.stages import run
from pipeline.tables import (
    FITS,
    TRACES,
    check_parts,
    part_name,
    read_statistics,
)

LINKS = "mlflow_links.html"
# Copies of what the folder holds once are for small studies.
REPORT_BYTES = 2_000_000
REPORT_CELLS = 12
FIGURES_CELLS = 24
log = logging.getLogger(__name__)


def track(folder: Path, workspace: str = ".", copy: str = "") -> None:
    """Show the results of `folder` in MLflow, and write `mlflow_links.html` there.

    Parameters
    ----------
    workspace : the project's folder, where the store lies unless `tracking.uri` says otherwise
    copy : name of the working directory as a copy of `workspace`; of no account if it is that

    Raises
    ------
    InputError
        If `workspace` is no folder, or the copy has no name.
    TrackingError
        If the tracking store cannot be used; the files in `folder` are complete all the same.
    """
    plan = read_plan(folder)
    settings = plan.config["tracking"]
    if settings["backend"] == "none":
        log.info("track: nothing to do (tracking=none)")
        return
    root = Path(workspace).absolute()
    name = _copy_name(root, copy)
    check_parts(folder, plan, [FITS, TRACES])
    statistics = read_statistics(folder, plan).set_index("cell")
    try:
        with progress("track", len(plan.cells)) as advance:
            tracked = tracking.synchronize(
                settings,
                root,
                plan.experiment,
                # The verdicts on a page of many results are those of the workspace.
                description=None if name else experiment_note(plan, folder),
                view=views.make_view(plan.cells, plan.overrides),
                results=f"{name}:{_shown(folder)}" if name else _shown(folder),
                runs=cell_runs(plan, folder, statistics, name),
                details=lambda each: run_details(plan, folder, statistics, each),
                advance=advance,
            )
    except TrackingError as error:
        remedy = f"the files are complete, track later: python -m pipeline.stages.track {folder}"
        if name:
            remedy = f"run {name} again when the store can be used"
        raise TrackingError(f"{error}; {remedy}") from error
    write_text(folder / LINKS, links_page(plan, tracked))
    log.info(
        "track: %s: %s written, %d unchanged, %d deleted; open %s%s",
        plan.experiment,
        counted(tracked.written, "run"),
        tracked.unchanged,
        tracked.deleted,
        tracked.experiment_url,
        " (start the UI with: make ui)" if settings["backend"] == "sqlite" else "",
    )


def _copy_name(workspace: Path, copy: str) -> str:
    """Return the name of the working directory as a copy of the workspace; of itself, none."""
    if not workspace.is_dir():
        raise InputError(f"workspace: got {str(workspace)!r}; allowed: the project's folder")
    if workspace.samefile("."):
        return ""
    if not copy:
        raise InputError("copy: got ''; allowed: the name of this copy of the workspace")
    return copy


def experiment_note(plan: Plan, folder: Path) -> str:
    """Return what the experiment asks, and the verdict on each of its claims."""
    asked = f"{plan.title}. {plan.question}"
    if not plan.config["claims"]:
        return asked
    claims = pd.read_parquet(folder / "claims.parquet").drop_duplicates("name")
    verdicts = [
        f"- **{row.claim_verdict}**: {row.claim} ({row.source})" for row in claims.itertuples()
    ]
    return "\n".join([asked, "", *verdicts])


def cell_runs(plan: Plan, folder: Path, statistics: pd.DataFrame, copy: str = "") -> list[runs.Run]:
    """Return what MLflow shall show of each cell of a plan, but for metrics and notes.

    The names of a copy's runs begin with that of the copy.
    """
    names = {cell: f"{copy} {name}".lstrip() for cell, name in runs.run_names(plan.cells).items()}
    source = "".join(Path(str(module.__file__)).read_text("utf-8") for module in (runs, tracking))
    result = []
    for cell in plan.cells:
        snapshots = snapshot_pictures(folder, cell)
        artifacts = {
            f"figures/{path.stem.split('-')[-1]}.png": path
            for path in group_figures(plan, folder, cell)
        }
        report = folder / "report.html"
        if (
            len(plan.cells) <= REPORT_CELLS
            and report.is_file()
            and report.stat().st_size < REPORT_BYTES
        ):
            artifacts["report.html"] = report
        params, settings = runs.run_params(plan, cell), runs.run_settings(plan, cell)
        content = [
            [cell.content, cell.replicates, cell.starts, plan.title, plan.question],
            [params, settings, plan.config["tracking"]["max_steps"]],
            statistics.loc[cell.id].to_json(double_precision=15),
            [[path.name, _file_digest(path)] for path in snapshots.values()],
            [[name, _file_digest(path)] for name, path in artifacts.items()],
            source,
        ]
        result.append(
            runs.Run(
                cell=cell.id,
                name=names[cell.id],
                content=digest(content),
                params=params,
                settings=settings,
                source=data_source(plan, folder, cell),
                snapshots=snapshots,
                artifacts=artifacts,
            )
        )
    return result


def run_details(
    plan: Plan, folder: Path, statistics: pd.DataFrame, shown: runs.Run
) -> tuple[list[runs.Metric], str]:
    """Read the traces of a run's cell and return the run's metrics and its note."""
    index, cell = next((k, each) for k, each in enumerate(plan.cells) if each.id == shown.cell)
    schedule, max_steps = plan.config["schedule"], plan.config["tracking"]["max_steps"]
    traces = folder / TRACES / part_name(index, cell)
    columns = ["replicate", "start", "iteration", "log_likelihood"]
    replicate, start = plan.representative(cell)
    representative = [("replicate", "==", replicate), ("start", "==", start)]
    # Of the other fits only the ends are recorded, which is no trajectory.
    recorded = schedule["record_replicates"]
    within = None if recorded == "all" else [("replicate", "<", recorded)]
    trajectory = pd.read_parquet(traces, filters=representative)
    trajectories = pd.read_parquet(traces, columns=columns, filters=within)
    fit = pd.read_parquet(folder / FITS / part_name(index, cell), filters=representative).iloc[0]
    row = pd.Series(statistics.loc[cell.id])
    kept = schedule["snapshots"]
    metrics = [
        *runs.final_metrics(row),
        *runs.trajectory_metrics(trajectory, cell.n_components, kept, max_steps),
        *runs.gap_metrics(trajectories, kept, max_steps),
    ]
    # A run's page lists them in the order of writing: first the few that sum it up.
    metrics.sort(key=lambda each: each.name.startswith("statistics/"))
    return metrics, runs.run_note(plan, cell, shown, row, fit)


def snapshot_pictures(folder: Path, cell: Cell) -> dict[int, Path]:
    """Return the pictures of a cell's representative fit by iteration."""
    found = {}
    for path in sorted((folder / "figures" / "snapshots").glob("*.png")):
        cell_id, _, iteration = path.stem.rpartition("-")
        if cell_id == cell.id and iteration.isdigit():
            found[int(iteration)] = path
    return found


def group_figures(plan: Plan, folder: Path, cell: Cell) -> list[Path]:
    """Return the figures of a cell's group, `<data>-<model>-<figure>.png`, and the general ones."""
    group = [cell.mixture or cell.observed, cell.model]
    figures = []
    for path in sorted((folder / "figures").glob("*.png")):
        named = path.stem.split("-")[:-1]
        if named == group or (not named and len(plan.cells) <= FIGURES_CELLS):
            figures.append(path)
    return figures


def data_source(plan: Plan, folder: Path, cell: Cell) -> runs.DataSource:
    """Name the samples that a cell is fitted to."""
    data = plan.data_set(cell)
    if data.observed is not None:
        path = str(plan.config["observed"][data.observed]["path"])
    else:
        path = f"{_shown(folder)}/{data.file or FILE}"
    # The population has no points: its mixture is in the plan.
    n = 0 if data.sample_size == math.inf else data.n_points
    return runs.DataSource(data.id, data.key[:8], path, (data.replicates, n))


def _shown(folder: Path) -> str:
    """Return the folder relative to the working directory if it lies in it."""
    relative = os.path.relpath(folder)
    return Path(folder.absolute() if relative.startswith("..") else relative).as_posix()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def links_page(plan: Plan, tracked: tracking.Tracked) -> str:
    """Return a page with a link from each cell to its run."""
    items = "\n".join(
        f'<li><a href="{escape(url)}">{escape(cell)}</a></li>'
        for cell, url in tracked.run_urls.items()
    )
    title = escape(f"{plan.title}: runs in MLflow")
    settings = plan.config["tracking"]
    where = "the MLflow UI must be running: <code>make ui</code>"
    if settings["backend"] == "server":
        where = f"on the server {escape(settings['uri'])}"
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
</style>
<h1>{title}</h1>
<p><a href="{escape(tracked.experiment_url)}">All runs of the experiment</a>,
<a href="{escape(tracked.charts_url)}">their charts</a>
({where})</p>
<ul>
{items}
</ul>
</html>
"""


if __name__ == "__main__":
    run(track, options=("workspace", "copy"))
