"""Where runs are tracked: the project's own SQLite database, or a server."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from pipeline.errors import TrackingError
from pipeline.workspace import claimed, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"
LOCAL_UI = "http://127.0.0.1:5000"
# MLflow alone would wait for a quarter of an hour. So it is 10 seconds for a server that does not
# answer at first, some 15 for one that goes in between, 100 for one that hangs in between.
HEALTH_SECONDS = 10
LONGEST_REASON = 200
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


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


@contextmanager
def open_store(settings: dict[str, Any], root: Path) -> Iterator[Store]:
    """Open what the config's `tracking` names, for one process at a time.

    Raises
    ------
    TrackingError
        If it cannot be used, or can no more within the block.
    """
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
