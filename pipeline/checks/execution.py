"""Where the work may be done, and where it is shown."""

import re
from importlib.util import find_spec
from pathlib import Path
from socket import AF_INET
from typing import Any
from urllib.parse import urlsplit

from pipeline.checks.schedule import MOST_ITERATIONS
from pipeline.checks.values import choice, integer, refuse
from pipeline.errors import InputError

MOST_WORKERS, MOST_RETRIES = 1024, 100
# The keys of `executor` that each backend has.
EXECUTOR_KEYS = {
    "local": ("workers",),
    "dask": ("workers", "address", "retries"),
    "slurm": (
        *("retries", "jobs", "cores", "memory", "walltime", "queue", "account", "directives"),
        *("interface", "python", "log_dir"),
    ),
}
SLURM_FORMS = {
    "memory": (r"\d+(\.\d+)? ?[KMGT]i?B", "as in 8GB"),
    "walltime": (r"(\d+-)?\d{1,2}:\d{2}(:\d{2})?", "as in 01:00:00 or 2-00:00:00"),
}
INSTALL_SCALE = "after pip install 'em-convergence[scale]' also dask, slurm"


def check_executor(executor: dict[str, Any]) -> None:
    """Refuse an executor that is not there, or keys that it does not have."""
    backend, address = executor["backend"], executor["address"]
    choice("executor.backend", backend, EXECUTOR_KEYS)
    for key, value in executor.items():
        if value is not None and key not in ("backend", *EXECUTOR_KEYS[backend]):
            keys = ", ".join(EXECUTOR_KEYS[backend])
            refuse(f"executor.{key}", value, f"null; the backend {backend} has {keys}")
    for key in ("workers", "jobs", "cores"):
        if executor[key] is not None or (backend == "slurm" and key != "workers"):
            integer(f"executor.{key}", executor[key], 1, MOST_WORKERS)
    if backend == "local":
        return
    if not all(find_spec(package) for package in ("dask_jobqueue", "distributed")):
        refuse("executor.backend", backend, "local, or " + INSTALL_SCALE)
    integer("executor.retries", executor["retries"], 0, MOST_RETRIES)
    if address is not None and not re.fullmatch(r"(tcp|tls)://\S+:\d+", address):
        refuse("executor.address", address, "null, or a running scheduler's, tcp://host:port")
    if address is not None and executor["workers"] is not None:
        refuse("executor.workers", executor["workers"], "null: the scheduler has its workers")
    if backend == "slurm":
        for key, (form, words) in SLURM_FORMS.items():
            if not re.fullmatch(form, executor[key] or ""):
                refuse(f"executor.{key}", executor[key], words)
        for directive in executor["directives"] or []:
            if not re.fullmatch(r"-\S.*", directive):
                refuse("executor.directives", directive, "options of sbatch, [--qos=long]")
        if executor["interface"] is not None:
            choice("executor.interface", executor["interface"], _interfaces())


def _interfaces() -> list[str]:
    """Return the names of this machine's network interfaces that have an address of IPv4."""
    from psutil import net_if_addrs  # installed with Dask

    found = net_if_addrs().items()
    return [name for name, addresses in found if AF_INET in [a.family for a in addresses]]


def check_tracking(tracking: dict[str, Any]) -> None:
    """Refuse a place of MLflow's that cannot be one."""
    backend, uri = tracking["backend"], tracking["uri"]
    choice("tracking.backend", backend, ("sqlite", "server", "none"))
    integer("tracking.max_steps", tracking["max_steps"], 2, MOST_ITERATIONS)
    if uri is not None and "@" in uri and not uri.startswith("sqlite:"):
        # Not `refuse`: it would print the password, as plan.yaml would hold it.
        raise InputError(
            "tracking.uri: got a name or password in the address; allowed: http://host:port, with "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
        )
    if backend == "server" and not _is_address(uri or ""):
        refuse("tracking.uri", uri, "the server's address, http://host:port")
    if backend == "sqlite" and uri is not None:
        path = uri.removeprefix("sqlite:///")
        if path == uri or not path or path.startswith(":memory:") or Path(path).is_dir():
            refuse("tracking.uri", uri, "null or sqlite:///file.db")


def _is_address(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return (
            re.fullmatch(r"https?://\S+", uri) is not None
            and bool(parts.hostname)
            and parts.port != 0
        )
    except ValueError:  # a port that is none, or beyond 65535
        return False


def check_shard(shard: str | None) -> None:
    """Refuse what is no k/n."""
    if shard is None:
        return
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", shard)
    if match is None or int(match[1]) > int(match[2]):
        refuse("shard", shard, "k/n with k from 1 to n, such as 3/16")
