"""Runs in MLflow that mirror the result files; the only package that imports mlflow."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlparse

from pipeline import views
from pipeline.runs import DataSource, Metric, Run
from pipeline.tracking.stores import Store, open_store

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as StoredRun

SNAPSHOT = "fit/snapshot"
# Limits of MLflow's batches, and of what SQLite takes at a good rate.
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
NOTE = "mlflow.note.content"
OWNER = "workspace"

Details = Callable[[Run], tuple[list[Metric], str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Tracked:
    """What `synchronize` did: addresses in the UI, and how many runs it touched."""

    experiment_url: str
    charts_url: str
    run_urls: dict[str, str]
    written: int
    unchanged: int
    deleted: int


def synchronize(
    settings: dict[str, Any],
    root: Path,
    experiment: str,
    description: str | None,
    view: views.View,
    results: str,
    runs: Sequence[Run],
    details: Details,
    advance: Callable[[int], None],
) -> Tracked:
    """Make the runs of one results folder in MLflow be exactly `runs`.

    A finished run of the same content is left alone. Any other run of the same folder is deleted,
    after its replacement, if it has one, is complete: half-written ones, those of other content,
    those of cells that are no more.

    Parameters
    ----------
    settings : the config's `tracking`, with backend `sqlite` or `server`
    root : the workspace, where a database that is given by a relative path lies
    description : str or None
        Markdown, shown on the experiment's page; None leaves the one that is there.
    view : the columns and charts that the links open
    results : str
        Names the results folder: runs of other folders are not touched, nor are those of other
        workspaces, whose folders may have the same name.
    details : callable
        From a run to its metrics and its note; called only for runs that are written.
    advance : callable
        Told 1 after each run.

    Raises
    ------
    TrackingError
        If the store cannot be used.
    """
    tags = {view.tag: view.value} | ({} if description is None else {NOTE: description})
    with open_store(settings, root) as store:
        experiment_id = _experiment(store, experiment, tags)
        present = _present(store, experiment_id, results)
        kept: dict[str, str] = {}
        written = 0
        # MLflow lists the newest run first; written from the last, they stand in the plan's order.
        for run in reversed(runs):
            same = [each for each in present if _is_copy(each, run, store)]
            if same:
                kept[run.cell] = same[0].info.run_id
                if same[0].info.run_name != run.name:
                    store.client.update_run(same[0].info.run_id, name=run.name)
            else:
                kept[run.cell] = _write(store, experiment_id, results, run, details)
                written += 1
            advance(1)
        superfluous = {each.info.run_id for each in present} - set(kept.values())
        for each in present:
            if each.info.run_id in superfluous:
                _delete(store, each)
    page = f"{store.ui}/#/experiments/{experiment_id}"
    return Tracked(
        experiment_url=f"{page}/runs{view.table}",
        charts_url=f"{page}/runs{view.charts}",
        run_urls={run.cell: f"{page}/runs/{kept[run.cell]}{views.PLAIN}" for run in runs},
        written=written,
        unchanged=len(runs) - written,
        deleted=len(superfluous),
    )


def _experiment(store: Store, name: str, tags: dict[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    client = store.client
    location = None if store.artifacts is None else (store.artifacts / name).as_uri()
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if found is not None and location not in (None, found.artifact_location):
        # MLflow keeps absolute paths: the database came with a folder that has been moved or
        # copied, and its artifacts would be read and written where the folder was.
        client.rename_experiment(found.experiment_id, f"{name} (moved, {found.experiment_id})")
        # Others' runs stay, as when a server over the same database has made the experiment.
        if not client.search_runs([found.experiment_id], f"tags.{OWNER} LIKE '%'", max_results=1):
            client.delete_experiment(found.experiment_id)
        found = None
    if found is None:
        try:
            return client.create_experiment(name, location, tags=tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another workspace has made it since.
            return _experiment(store, name, tags)
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def _present(store: Store, experiment_id: str, results: str) -> "list[StoredRun]":
    quote = "'" if "'" not in results else '"'
    runs: list[StoredRun] = []
    token = None
    while token is None or token:
        page = store.client.search_runs(
            [experiment_id],
            filter_string=f"tags.results = {quote}{results}{quote}",
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs += (run for run in page if run.data.tags.get(OWNER, "") == store.owner)
        token = page.token or ""
    return runs


def _is_copy(stored: "StoredRun", run: Run, store: Store) -> bool:
    tags = stored.data.tags
    folder = _artifact_folder(stored, store)
    # MLflow does not notice that its artifacts are gone.
    gone = folder is not None and not folder.is_dir()
    return (
        stored.info.status == "FINISHED"
        and tags.get("cell") == run.cell
        and tags.get("content") == run.content
        and not gone
    )


def _artifact_folder(stored: "StoredRun", store: Store) -> Path | None:
    """Return where a run's artifacts lie, if that is in this project's own folder."""
    if store.artifacts is None:
        return None
    folder = Path(unquote(urlparse(stored.info.artifact_uri).path))
    return folder if folder.is_relative_to(store.artifacts) else None


def _delete(store: Store, stored: "StoredRun") -> None:
    """Delete a run and its artifacts, which MLflow alone would keep until `mlflow gc`."""
    store.client.delete_run(stored.info.run_id)
    folder = _artifact_folder(stored, store)
    if folder is not None:
        shutil.rmtree(folder.parent, ignore_errors=True)


def _write(store: Store, experiment_id: str, results: str, run: Run, details: Details) -> str:
    """Write one run and return its id; its status says whether it is complete."""
    import mlflow
    from mlflow import entities

    client = store.client
    metrics, note = details(run)
    now = int(time.time() * 1000)
    tags = {"cell": run.cell, "content": run.content, "results": results, NOTE: note}
    tags |= {OWNER: store.owner} if store.owner else {}
    run_id = client.create_run(experiment_id, now, tags, run.name).info.run_id
    client.log_inputs(run_id, [_data_set(run.source)])
    for params in _batches(list(run.params.items()), PARAMS_PER_BATCH):
        values = [entities.Param(*each) for each in params]
        client.log_batch(run_id, params=values, synchronous=True)
    for batch in _batches(metrics, METRICS_PER_BATCH):
        points = [entities.Metric(each.name, each.value, now, each.step) for each in batch]
        client.log_batch(run_id, metrics=points, synchronous=True)
    for iteration, picture in run.snapshots.items():
        image = mlflow.Image(str(picture))
        client.log_image(run_id, image, key=SNAPSHOT, step=iteration, synchronous=True)
    client.log_dict(run_id, run.settings, "settings.yaml")
    with TemporaryDirectory() as folder:
        # MLflow calls an artifact what its file is called.
        for name, path in run.artifacts.items():
            named = Path(folder) / name
            named.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, named)
        client.log_artifacts(run_id, folder)
    client.set_terminated(run_id)
    return run_id


def _data_set(source: DataSource) -> "DatasetInput":
    """Describe the samples without reading them."""
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    features = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": source.shape}}]
    schema = {"mlflow_tensorspec": {"features": json.dumps(features), "targets": None}}
    size = source.shape[0] * source.shape[1]
    profile = {"features_shape": source.shape, "features_size": size, "features_nbytes": 8 * size}
    described = Dataset(
        name=source.name,
        digest=source.digest,
        source_type="local",
        source=json.dumps({"uri": source.path}),
        schema=json.dumps(schema),
        profile=json.dumps(profile),
    )
    return DatasetInput(described, [InputTag("mlflow.data.context", "samples")])


def _batches(values: list[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]
