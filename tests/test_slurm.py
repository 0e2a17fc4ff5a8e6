"""A real SLURM of one node, on loopback: a sweep by dask-jobqueue, and a job array of shards."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from distributed.utils import get_ip

from pipeline import workers
from pipeline.computing import complete
from pipeline.errors import ClusterError
from pipeline.samples import drawn_samples
from tests.conftest import ROOT
from tests.test_cluster import LONG, STUDY, contents, planned

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
JOBS = ("executor=slurm", "executor.memory=400MB")
PATH = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not() -> str | None:
    """Return why there can be no SLURM here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "SLURM's daemons need Linux and root"
    absent = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    return f"not installed: {', '.join(absent)} (slurm-wlm, munge)" if absent else None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Start munged, slurmctld and slurmd; they end with this process, however it ends."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(
        host=host, controller=free_port(), daemon=free_port(), folder=folder, cores=os.cpu_count()
    )
    (folder / "slurm.conf").write_text(text)
    environment = {"PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf"), "HOME": str(folder)}
    environment["PYTHONPATH"] = str(ROOT)
    files = {"key": "key-file", "socket": "socket", "pid": "pid-file", "seed": "seed-file"}
    munge = [f"--{option}={folder}/munge.{name}" for name, option in files.items()]
    daemons = (
        ["munged", "--foreground", "--force", f"--log-file={folder}/munge.log", *munge],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-c"],
    )

    def run(*line: str) -> str:
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    started: dict[str, subprocess.Popen] = {}
    with ExitStack() as stack:
        for line in daemons:
            log = stack.enter_context((folder / f"{line[0]}.out").open("w"))
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *line], env=environment, stdout=log, stderr=log
            )
            started[line[0]] = daemon
            stack.callback(daemon.wait)
            stack.callback(daemon.kill)
            if line[0] == "munged":
                until((folder / "munge.socket").exists, "munged")
        until(lambda: "idle" in run("sinfo", "-h", "-o", "%T"), logs(folder))
        try:
            controller = started["slurmctld"]
            yield SimpleNamespace(environment=environment, run=run, controller=controller)
        finally:
            run("scancel", "--user=root")
            until(lambda: not run("squeue", "-h"), "jobs do not end")


def logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-1000:] for path in sorted(folder.glob("*.out")))


def listening(slurm: SimpleNamespace) -> set[str]:
    """Return the addresses at which this SLURM, its jobs and their parents listen."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == slurm.environment["SLURM_CONF"]:
                connections = process.net_connections("tcp")
                found |= {c.laddr.ip for c in connections if c.status == "LISTEN"}
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the store of an ordinary run."""
    store = tmp_path_factory.mktemp("whole")
    plan = planned(f"store_dir={store}")
    complete(plan, drawn_samples(plan))
    return contents(store)


def test_workers_in_jobs_make_the_same_bytes(slurm, workspace, whole):
    settings = ["executor=slurm", "executor.jobs=2", "executor.interface=lo"]
    settings += ["executor.memory=400MB", "executor.log_dir=logs"]
    line = [sys.executable, "-m", "pipeline", *STUDY, *settings]
    run = subprocess.Popen(line, env=slurm.environment, stderr=subprocess.PIPE, text=True)
    heard, jobs = set(), 0
    while run.poll() is None:
        heard |= listening(slurm)
        jobs = max(jobs, len(slurm.run("squeue", "-h").splitlines()))
        time.sleep(0.2)
    said = run.communicate()[1]
    assert run.returncode == 0, said
    assert contents(Path(".cells")) == whole
    assert jobs == 2
    assert heard == {"127.0.0.1"}
    until(lambda: not slurm.run("squeue", "-h"), "jobs outlive the run")


def test_an_interruption_cancels_the_jobs_and_waits_for_nobody(slurm, workspace):
    line = [sys.executable, "-m", "pipeline", *STUDY, *JOBS, *LONG]
    run = subprocess.Popen(line, env=slurm.environment, stderr=subprocess.PIPE, text=True)
    until(lambda: bool(list(Path(".cells").rglob("*.arrow"))), "no block is finished")
    assert listening(slurm) == {"127.0.0.1", get_ip()}, "at one address of each machine"
    slurm.controller.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        said = run.communicate()[1]
        assert time.monotonic() - began < 2.0
    finally:
        slurm.controller.send_signal(signal.SIGCONT)
    assert run.returncode == 130 and "Traceback" not in said, said
    until(lambda: not slurm.run("squeue", "-h"), "jobs outlive the run")
    assert not [path for path in Path().rglob("*") if "slurm" in path.name], "no logs"


def test_jobs_that_are_gone_are_told_and_those_in_the_queue_are_waited_for(
    slurm, workspace, monkeypatch
):
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    queue = workers.Queue("held", None)
    slurm.run("sbatch", "--hold", "--job-name=held", "--wrap=true")
    queue.tend(1000.0)
    slurm.run("scancel", "--name=held")
    with pytest.raises(ClusterError, match="no job is left"):
        queue.tend(2000.0)
    monkeypatch.setattr(workers, "SECONDS_TO_ASK", 0.5)
    plan = planned(*JOBS, "executor.python=/nowhere")
    with pytest.raises(ClusterError, match=r"executor.log_dir=FOLDER; .* the same command goes on"):
        complete(plan, drawn_samples(plan))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("executor.queue=nowhere", "SLURM takes no such job (sbatch: error: invalid partition"),
        ("executor.cores=1000", "SLURM takes no such job"),
    ],
)
def test_what_slurm_refuses_is_told(slurm, workspace, setting, said):
    line = [sys.executable, "-m", "pipeline", *STUDY, "executor=slurm", setting]
    run = subprocess.run(line, env=slurm.environment, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(f"error: executor: {said}")


def test_shards_of_a_job_array_and_a_job_that_assembles_though_one_died(slurm, workspace, whole):
    (workspace / "pipeline").symlink_to(ROOT / "pipeline")
    script = ["--output=%A-%a.out", str(ROOT / "docs/slurm_array.sh")]
    array = slurm.run("sbatch", "--parsable", "--array=2-3", *script, "2", *STUDY).strip()
    slurm.run("sbatch", f"--dependency=afterany:{array}", *script, *STUDY)
    until(lambda: not slurm.run("squeue", "-h"), "jobs do not end", seconds=60.0)
    said = {path.name: path.read_text() for path in workspace.glob("*.out")}
    assert len(said) == 3, said
    assert "shard 2 of 2" in said[f"{array}-2.out"], said
    assert "shard: got '3/2'" in said[f"{array}-3.out"], said
    assert contents(Path(".cells")) == whole
    (assembly,) = (text for name, text in said.items() if not name.startswith(array))
    assert "cells: 0 reused, 2 new" in assembly
    assert Path("results/notebook/report.html").exists()
    assert listening(slurm) == {"127.0.0.1"}
