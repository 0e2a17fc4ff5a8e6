"""Runs in MLflow that mirror the result files; the only module that imports mlflow."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlparse

from pipeline import views
from pipeline.errors import TrackingError
from pipeline.runs import DataSource, Metric, Run
from pipeline.workspace import claimed, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as StoredRun

SQLITE = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"
LOCAL_UI = "http://127.0.0.1:5000"
SNAPSHOT = "fit/snapshot"
# Limits of MLflow's batches, and of what SQLite takes at a good rate.
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
NOTE = "mlflow.note.content"
OWNER = "workspace"
# MLflow alone would wait for a quarter of an hour. So it is 10 seconds for a server that does not
# answer at first, some 15 for one that goes in between, 100 for one that hangs in between.
HEALTH_SECONDS = 10
LONGEST_REASON = 200
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}

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


@dataclass(frozen=True)
class Store:
    """An open tracking store.

    `artifacts` is None where a server decides; `owner` is the id of the workspace where others may
    have runs too, and empty in the workspace's own store.
    """

    client: "MlflowClient"
    ui: str
    artifacts: Path | None
    owner: str


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
    with _open(settings, root) as store:
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


@contextmanager
def _open(settings: dict[str, Any], root: Path) -> Iterator[Store]:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("alembic", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    server = settings["backend"] == "server"
    uri = settings["uri"] or SQLITE
    try:
        if server:
            # Before the lock: who waits for a server that hangs would wait for nothing.
            _check_server(uri)
            with claimed(root) as owner:
                yield Store(MlflowClient(uri), uri.rstrip("/"), None, owner)
            return
        database = _database(uri, root)
        own = database.resolve().is_relative_to(root.resolve())
        with (
            nullcontext("") if own else claimed(root) as owner,
            locked(database.with_name(f"{database.name}.lock")),
        ):
            artifacts = database.parent / ARTIFACTS
            if not database.exists():
                _create(database, artifacts)
            client = MlflowClient(f"sqlite:///{database}")
            try:
                yield Store(client, LOCAL_UI, artifacts, owner)
            finally:
                # An open connection would go on writing to a file that has been deleted.
                client._tracking_client.store._dispose_engine()
    except (MlflowException, SQLAlchemyError, OSError) as error:
        broken = _broken_connection(error) if server else None
        reason = f"the server answers no more ({broken})" if broken else _first_line(error)
        if broken and "timed out" in broken:
            retries, seconds = (os.environ[name] for name in PATIENCE)
            reason = (
                f"the server takes requests and does not answer: none of {1 + int(retries)} within "
                f"{seconds} s (MLFLOW_HTTP_REQUEST_TIMEOUT)"
            )
        hint = "" if server else " (if the database is damaged, delete it: track makes it anew)"
        raise TrackingError(f"tracking.uri {uri}: {reason}{hint}") from error


def _check_server(uri: str) -> None:
    """Fail at once, where the client would try again for minutes.

    MLflow's own request has the credentials and certificates that its variables give.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    if not uri.startswith(("http://", "https://")):
        return
    patience = {"max_retries": 0, "timeout": HEALTH_SECONDS}
    try:
        http_request(
            get_default_host_creds(uri), "/health", "GET", raise_on_status=False, **patience
        )
    except MlflowException as error:
        reason = _broken_connection(error) or _first_line(error)
        raise TrackingError(f"tracking.uri {uri}: no server answers ({reason})") from error


def _broken_connection(error: BaseException | None) -> str | None:
    """Return in a few words why the server cannot be reached, None if that is not the error."""
    from urllib3.exceptions import HTTPError

    reason = None
    while error is not None:
        if isinstance(error, HTTPError):
            reason = str(error)
        elif isinstance(error, OSError) and reason is not None:
            reason = error.strerror or str(error)
        told = (each for each in error.args if isinstance(each, BaseException))
        error = error.__cause__ or error.__context__ or next(told, None)
    return reason


def _first_line(error: BaseException) -> str:
    return shorten((str(error).splitlines() or [type(error).__name__])[0], LONGEST_REASON)


def _database(uri: str, root: Path) -> Path:
    path = uri.partition("?")[0].removeprefix("sqlite:///")
    if not path or path.startswith(("sqlite:", ":memory:")):
        raise TrackingError(f"tracking.uri: got {uri!r}; allowed: sqlite:///file.db")
    return (root / path).absolute()


def _create(database: Path, artifacts: Path) -> None:
    """Make the database under another name first: an interruption leaves none, not half of one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    temporary = database.with_name(f"{database.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        store = SqlAlchemyStore(f"sqlite:///{temporary}", artifacts.as_uri())
        store._dispose_engine()
        temporary.replace(database)
    finally:
        temporary.unlink(missing_ok=True)


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
