"""Where the processes of Dask come from: this machine, a running scheduler, or SLURM jobs."""

import logging
import os
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path
from shutil import rmtree
from socket import gethostname
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from distributed import Client, Nanny, Scheduler, SpecCluster, Status
from distributed.security import Security
from distributed.utils import LoopRunner, get_ip, get_ip_interface

from pipeline.checks.values import one_line
from pipeline.errors import ClusterError, InputError
from pipeline.processes import deaf_to_interrupts

log = logging.getLogger(__name__)

SILENT = logging.CRITICAL  # what Dask has to say is said here
LOOPBACK = "127.0.0.1"
SECONDS_TO_ANSWER = 5.0
SECONDS_TO_ASK = 5.0  # with no worker, until SLURM is asked for its jobs; at most twelve times that
SECONDS_WITHOUT = 60.0  # with no worker of this machine, though each that is gone is replaced
CODE = Path(__file__).resolve().parent.parent
GOES_ON = "finished blocks are kept, and the same command goes on from there"


class Workers(NamedTuple):
    """Workers behind a client.

    `tend` is called about once a second, with the seconds for which there has been no worker. It
    sees to it that there will be some, or raises a ClusterError if there will not.
    """

    client: Client
    tend: Callable[[float], None]


@contextmanager
def connected(address: str) -> Iterator[Workers]:
    """Connect to a running scheduler."""
    try:
        security = Security().get_connection_args("client")
        if address.startswith("tls://") and security["ssl_context"] is None:
            raise InputError(
                f"executor.address: got {address!r}; without certificates in Dask's configuration "
                "(distributed.comm.tls) allowed: tcp://host:port"
            )
        client = Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"executor.address: got {address!r}; no scheduler answers there"
        ) from error
    with client:
        yield Workers(client, lambda seconds: None)


def _listening_at(host: str, security: Security) -> dict[str, Any]:
    """Return the options of a scheduler or worker that listens there alone, with no dashboard."""
    # What it tells by plain HTTP without a dashboard too, it tells this machine alone.
    where = {"host": host, "dashboard_address": f"{LOOPBACK}:0", "protocol": "tls://"}
    return where | {"dashboard": False, "security": security}


def _keys(folder: Path) -> Security:
    """Return keys made for this run, as files of its user: no one else can connect."""
    made = Security.temporary()
    paths = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    for path, text in ((paths["cert"], made.tls_ca_file), (paths["key"], made.tls_client_key)):
        path.touch(0o600)
        path.write_text(text)
    roles = [(role, part) for role in ("client", "scheduler", "worker") for part in paths]
    files = {f"tls_{role}_{part}": str(paths[part]) for role, part in roles}
    return Security(require_encryption=True, tls_ca_file=str(paths["cert"]), **files)


@contextmanager
def own(workers: int) -> Iterator[Workers]:
    """Start processes of one thread each on this machine, which listen on loopback alone."""
    with TemporaryDirectory(prefix="em-convergence-", ignore_cleanup_errors=True) as scratch:
        security = _keys(Path(scratch))
        listening = _listening_at(LOOPBACK, security)
        options = listening | {"silence_logs": SILENT, "local_directory": scratch}
        options |= {"nthreads": 1, "memory_limit": 0}
        with ExitStack() as stack:
            runner = LoopRunner(asynchronous=False)
            with deaf_to_interrupts():
                # Dask's thread, which starts the workers.
                runner.start()
            stack.callback(runner.stop)
            try:
                try:
                    started = SpecCluster(
                        scheduler={"cls": Scheduler, "options": listening},
                        workers={n: {"cls": Nanny, "options": options} for n in range(workers)},
                        silence_logs=SILENT,
                        security=security,
                        loop=runner.loop,
                    )
                    stack.enter_context(started)
                except (RuntimeError, OSError) as error:
                    raise ClusterError(
                        f"executor: the workers did not start ({one_line(str(error))}); the same "
                        "command tries again"
                    ) from error
                client = stack.enter_context(Client(started, set_as_default=False))
                # Their blocks are stored; an orderly end would wait for those about to start.
                stack.callback(_kill, started)
                yield Workers(client, lambda seconds: _replace(started, seconds))
            except KeyboardInterrupt:
                # Nobody waits for an orderly end, nor for workers that are about to start.
                stack.pop_all()
                runner.loop.add_callback(runner.loop.stop)
                for child in active_children():
                    child.kill()
                raise


def _replace(started: SpecCluster, seconds: float) -> None:
    """Start anew what has given up: a worker's guard does, if the worker dies while it starts."""
    if seconds > SECONDS_WITHOUT:
        raise ClusterError(
            f"executor: workers die before they begin (none for {seconds:.0f} s); {GOES_ON}"
        )

    async def replace() -> None:
        for name, nanny in list(started.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                del started.workers[name]
        with suppress(Exception):  # it dies again: at the next look
            await started._correct_state()

    assert started.loop is not None
    started.loop.add_callback(replace)


def _kill(started: SpecCluster) -> None:
    """End the processes of a cluster at once."""
    for nanny in started.workers.values():
        nanny.auto_restart = False
    for child in active_children():
        child.kill()


@contextmanager
def slurm(executor: dict[str, Any], store: Path) -> Iterator[Workers]:
    """Submit jobs that are workers, one process of one thread for each core."""
    name = f"em-convergence-{uuid.uuid4().hex[:12]}"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    from dask_jobqueue import SLURMCluster

    # Its import makes Ctrl-C a silent, successful exit (dask_jobqueue/runner.py).
    for number, handler in handlers.items():
        signal.signal(number, handler)
    directives = list(executor["directives"])
    if executor["log_dir"] is None:
        directives += ["--output=/dev/null", "--error=/dev/null"]
    interface = executor["interface"]
    host, where = get_ip(), []
    if interface is not None:
        host = get_ip_interface(interface)
    else:
        # The address of a node by which it reaches the scheduler; Dask would listen on all it has.
        find = f"from distributed.utils import get_ip; print(get_ip({host!r}, 1))"
        python = executor["python"] or sys.executable
        where = ["--host", f'"$({shlex.quote(python)} -c {shlex.quote(find)})"']
    with _shared(store) as shared:
        security = _keys(Path(shared))
        started = SLURMCluster(
            cores=executor["cores"],
            processes=executor["cores"],
            memory=executor["memory"],
            walltime=executor["walltime"],
            queue=executor["queue"],
            account=executor["account"],
            job_extra_directives=directives,
            interface=interface,
            python=executor["python"],
            log_directory=executor["log_dir"],
            job_name=name,
            # SLURM keeps to the memory; what numpy reads must be there before Python starts.
            worker_extra_args=[
                *("--memory-limit", "0", "--no-dashboard"),
                *("--dashboard-address", f"{LOOPBACK}:0", *where),
            ],
            job_script_prologue=[
                f"export PYTHONPATH={shlex.quote(str(CODE))}${{PYTHONPATH:+:$PYTHONPATH}}",
                "export NPY_DISABLE_CPU_FEATURES=X86_V4",
            ],
            protocol="tls://",
            security=security,
            scheduler_options=_listening_at(host, security),
            silence_logs=SILENT,
        )
        with ExitStack() as stack:
            try:
                stack.enter_context(started)
                client = stack.enter_context(Client(started, set_as_default=False))
                _check_submission(started.job_script())
                _submit(started, executor["jobs"])
                yield Workers(client, Queue(name, executor["log_dir"]).tend)
            except KeyboardInterrupt:
                # Nobody waits for an orderly end, nor for SLURM.
                stack.pop_all()
                line = ["scancel", f"--name={name}"]
                subprocess.Popen(line, stderr=subprocess.DEVNULL, start_new_session=True)
                raise


@contextmanager
def _shared(store: Path) -> Iterator[str]:
    """Yield a folder of this run in the store; those that killed runs left there are removed."""
    store.mkdir(parents=True, exist_ok=True)
    here = f"@{gethostname()}"
    for left in store.glob(f".keys-*{here}"):
        if not _alive(int(left.name.split("-")[1])):
            rmtree(left, ignore_errors=True)
    names = {"prefix": f".keys-{os.getpid()}-", "suffix": here}
    with TemporaryDirectory(dir=store, **names, ignore_cleanup_errors=True) as shared:
        yield shared


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _submit(started: Any, jobs: int) -> None:
    async def submit() -> None:
        started.scale(jobs=jobs)
        await started._correct_state()

    try:
        started.sync(submit)
    except RuntimeError as error:  # those that it took are there
        log.warning("fit: SLURM did not take every job (%s)", one_line(str(error)))


class Queue:
    """What SLURM knows of the jobs of a name."""

    def __init__(self, name: str, log_dir: str | None) -> None:
        self.name = name
        self.said = (
            "is kept with executor.log_dir=FOLDER" if log_dir is None else f"is in {log_dir}"
        )
        self.ask = SECONDS_TO_ASK

    def tend(self, seconds: float) -> None:
        """Raise a ClusterError if there is neither a worker nor a job that might bring one."""
        if seconds < SECONDS_TO_ASK:
            self.ask = SECONDS_TO_ASK
        elif seconds >= self.ask:
            self.ask = seconds + min(seconds, 12.0 * SECONDS_TO_ASK)
            line = ["squeue", "--noheader", f"--name={self.name}"]
            done = subprocess.run(line, capture_output=True, text=True)
            if done.returncode == 0 and not done.stdout.strip():
                raise ClusterError(
                    f"executor: no job is left in SLURM's queue; what the jobs said {self.said}; "
                    f"{GOES_ON}"
                )


def _check_submission(script: str) -> None:
    """Ask SLURM whether it would take a job; dask-jobqueue would not say why it does not."""
    line = ["sbatch", "--test-only"]
    try:
        done = subprocess.run(line, input=script, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError("executor.backend: got 'slurm'; there is no sbatch here") from error
    if done.returncode != 0:
        raise InputError(f"executor: SLURM takes no such job ({one_line(done.stderr)})")
