"""Where the processes of Dask come from: this machine, a running scheduler, or SLURM jobs."""

import logging
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security
from distributed.utils import LoopRunner, get_ip, get_ip_interface

from pipeline.checks import one_line
from pipeline.errors import ClusterError, InputError
from pipeline.processes import deaf_to_interrupts

SILENT = logging.CRITICAL  # what Dask has to say is said here
LOOPBACK = "127.0.0.1"
SECONDS_TO_ANSWER = 5.0
CODE = Path(__file__).resolve().parent.parent


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a running scheduler."""
    try:
        client = Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"executor.address: got {address!r}; no scheduler answers there"
        ) from error
    with client:
        yield client


def _listening_at(host: str, security: Security) -> dict[str, Any]:
    """Return the options of a scheduler or worker that listens there alone, with no dashboard."""
    where = {"host": host, "dashboard_address": f"{host}:0", "protocol": "tls://"}
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
def own(workers: int) -> Iterator[Client]:
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
                yield client
            except KeyboardInterrupt:
                # Nobody waits for an orderly end, nor for workers that are about to start.
                stack.pop_all()
                runner.loop.add_callback(runner.loop.stop)
                for child in active_children():
                    child.kill()
                raise


def _kill(started: SpecCluster) -> None:
    """End the processes of a cluster at once."""
    for nanny in started.workers.values():
        nanny.auto_restart = False
    for child in active_children():
        child.kill()


@contextmanager
def slurm(executor: dict[str, Any], store: Path) -> Iterator[Client]:
    """Submit jobs that are workers, one process of one thread for each core."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    from dask_jobqueue import SLURMCluster

    # Its import makes Ctrl-C a silent, successful exit (dask_jobqueue/runner.py).
    for number, handler in handlers.items():
        signal.signal(number, handler)
    directives = list(executor["directives"])
    if executor["log_dir"] is None:
        directives += ["--output=/dev/null", "--error=/dev/null"]
    interface = executor["interface"]
    host = get_ip() if interface is None else get_ip_interface(interface)
    store.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=store, prefix=".keys-", ignore_cleanup_errors=True) as shared:
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
            job_name="em-convergence",
            # SLURM keeps to the memory; what numpy reads must be there before Python starts.
            worker_extra_args=[
                *("--memory-limit", "0", "--no-dashboard"),
                *("--dashboard-address", f"{LOOPBACK}:0"),
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
        with started, Client(started, set_as_default=False) as client:
            _check_submission(started.job_script())
            started.scale(jobs=executor["jobs"])
            yield client


def _check_submission(script: str) -> None:
    """Ask SLURM whether it would take a job; dask-jobqueue would not say why it does not."""
    line = ["sbatch", "--test-only"]
    try:
        done = subprocess.run(line, input=script, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError("executor.backend: got 'slurm'; there is no sbatch here") from error
    if done.returncode != 0:
        raise InputError(f"executor: SLURM takes no such job ({one_line(done.stderr)})")
