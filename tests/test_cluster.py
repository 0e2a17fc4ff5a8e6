"""Blocks computed by processes of Dask: same bytes, lost workers, interruptions, schedulers."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import Client
from distributed.comm import CommClosedError
from distributed.security import Security

from pipeline import cluster, workers
from pipeline.computing import complete, compute_in_worker
from pipeline.config import compose
from pipeline.errors import ClusterError, InputError
from pipeline.plan import Plan
from pipeline.planning import make_plan
from pipeline.samples import drawn_samples
from pipeline.workers import SECONDS_WITHOUT, own
from tests.conftest import ROOT

STUDY = (
    "experiment=notebook",
    "model=[free]",
    "init=[random_points]",
    "sample_sizes=[40,8000]",
    "replicates=400",
    "schedule=converge",
    "schedule.max_iter=200",
    "schedule.record_replicates=5",
    "tracking=none",
    "report=minimal",
)
LONG = ("sample_sizes=[40]", "replicates=400000")
DASK = ("executor=dask", "executor.workers=2")


def planned(*overrides: str) -> Plan:
    return make_plan(compose([*STUDY, *overrides]))[0]


def contents(store: Path) -> dict[str, bytes]:
    paths = store.rglob("*.arrow")
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the store of an ordinary run."""
    store = tmp_path_factory.mktemp("whole")
    plan = planned(f"store_dir={store}")
    complete(plan, drawn_samples(plan))
    made = contents(store)
    assert len(made) > 10
    return made


def descendants() -> list[psutil.Process]:
    return [
        p for p in psutil.Process().children(recursive=True) if "spawn_main" in str(p.cmdline())
    ]


def test_processes_of_dask_make_the_same_bytes_and_end_with_the_run(workspace, whole, monkeypatch):
    plan = planned(*DASK)
    listening, started = set(), set()
    results = cluster._results

    def watched(workers, *arguments):
        address = workers.client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises((OSError, TypeError, ValueError)):
            Client(address, security=Security.temporary(), timeout=2, set_as_default=False)
        for result in results(workers, *arguments):
            for process in (psutil.Process(), *descendants()):
                started.add(process.pid)
                connections = process.net_connections("tcp")
                listening.update(c.laddr.ip for c in connections if c.status == "LISTEN")
            yield result

    monkeypatch.setattr(cluster, "_results", watched)
    stored = complete(plan, drawn_samples(plan))
    assert contents(Path(".cells")) == whole
    assert len(stored.timings) == len(whole) and all(s > 0 for _, s in stored.timings)
    assert len(started) == 3 and listening == {"127.0.0.1"}
    assert not descendants()


def compute_and_die_once(plan: Plan, task) -> float | None:
    """Compute; but the process of the fifth replicates of the large sample dies, the first time."""
    died = Path(plan.config["store_dir"], "died")
    if task.block.first > 0 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return compute_in_worker(plan, task)


def compute_or_die(plan: Plan, task) -> float | None:
    """Compute; but the process of one block dies, always."""
    if task.block.first == 32:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute_in_worker(plan, task)


def test_a_block_whose_worker_is_killed_is_done_by_another(workspace, whole, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("pipeline.computing.compute_in_worker", compute_and_die_once)
    plan = planned(*DASK)
    complete(plan, drawn_samples(plan))
    assert Path(".cells/died").exists() and "a worker was lost" in caplog.text
    assert contents(Path(".cells")) == whole


def test_a_block_that_kills_its_workers_is_named_and_takes_no_other_with_it(
    workspace, whole, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setattr("pipeline.computing.compute_in_worker", compute_or_die)
    plan = planned(*DASK, "executor.retries=0")
    with pytest.raises(ClusterError) as told:
        complete(plan, drawn_samples(plan))
    cell = next(cell for cell in plan.cells if cell.sample_size == 8000)
    assert re.match(
        f"cell {cell.id}, block of replicates 32 to 63, .*died 2 times", str(told.value)
    )
    made = contents(Path(".cells"))
    missing = {name for name in whole if name not in made}
    assert [name.split("/")[-1].split("-s")[0] for name in missing] == ["r32-64"]
    assert made == {name: whole[name] for name in made}
    assert "a worker was lost; again: cell" in caplog.text
    assert not descendants()


def spoil(plan: Plan, task) -> float | None:
    raise OSError(28, "No space left on device", "store")


def test_what_goes_wrong_in_a_worker_is_told_as_if_it_were_here(workspace, monkeypatch):
    monkeypatch.setattr("pipeline.computing.compute_in_worker", spoil)
    plan = planned("executor=dask", "executor.workers=1")
    with pytest.raises(OSError, match="No space left") as told:
        complete(plan, drawn_samples(plan))
    assert told.value.filename == "store"


@pytest.mark.parametrize(("to_all", "early"), [(True, True), (True, False), (False, False)])
def test_an_interruption_ends_at_once_with_all_processes(workspace, to_all, early):
    line = [sys.executable, "-m", "pipeline", *STUDY, *DASK, *LONG]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    run = subprocess.Popen(
        line, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    processes = []
    while len(processes) < 3 or not (early or list(Path(".cells").rglob("*.arrow"))):
        assert run.poll() is None
        time.sleep(0.05)
        processes = psutil.Process(run.pid).children(recursive=True)
    began = time.monotonic()
    (os.killpg if to_all else os.kill)(run.pid, signal.SIGINT)
    said = run.communicate()[1]
    assert time.monotonic() - began < 2.0
    assert run.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted: finished blocks are kept"), said
    assert "Traceback" not in said and "Warning" not in said
    _, alive = psutil.wait_procs(processes, timeout=2.0)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def scheduler(
    folder: Path, workers: int, of_scheduler: str = str(ROOT), **environment: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start a scheduler and workers by Dask's commands, as a user would; yield its address."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)} | environment
    options = {"cwd": folder, "stderr": subprocess.DEVNULL}
    options_of_scheduler = options | {"env": environment | {"PYTHONPATH": of_scheduler}}
    options |= {"env": environment}
    file = folder / "scheduler.json"
    common = ["--host", "127.0.0.1", "--scheduler-file", str(file), "--no-dashboard"]
    line = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *common]
    processes = [
        subprocess.Popen([*line, "--dashboard-address", "127.0.0.1:0"], **options_of_scheduler)
    ]
    line = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", *common]
    try:
        processes += [subprocess.Popen([*line, "--no-nanny"], **options) for _ in range(workers)]
        while not file.exists():
            time.sleep(0.05)
        yield re.search(r"tcp://[\d.:]+", file.read_text())[0], processes[0]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def test_a_running_scheduler_serves_and_stays(workspace, whole):
    with scheduler(workspace, 2, NPY_DISABLE_CPU_FEATURES="X86_V4") as (address, _):
        plan = planned("executor=dask", f"executor.address={address}")
        complete(plan, drawn_samples(plan))
        assert contents(Path(".cells")) == whole
        again = replace(plan, config=plan.config | {"store_dir": "again"})
        complete(again, drawn_samples(again))
    assert contents(Path("again")) == whole


def test_a_scheduler_that_goes_is_told(workspace, whole, monkeypatch, caplog):
    results = cluster._results
    with scheduler(workspace, 2, NPY_DISABLE_CPU_FEATURES="X86_V4") as (address, process):

        def killing(*arguments):
            for result in results(*arguments):
                process.kill()
                yield result

        monkeypatch.setattr(cluster, "_results", killing)
        plan = planned("executor=dask", f"executor.address={address}")
        began = time.monotonic()
        with pytest.raises(ClusterError, match=r"the scheduler is gone; .* the same command goes"):
            complete(plan, drawn_samples(plan))
        assert time.monotonic() - began < 30.0
    assert not [record for record in caplog.records if record.name.startswith("distributed")]
    made = contents(Path(".cells"))
    assert made and made == {name: whole[name] for name in made}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:1", "no scheduler answers there"),
        ("tls://127.0.0.1:1", "without certificates in Dask's configuration"),
    ],
)
def test_no_scheduler_at_the_address(command, address, said):
    done = command("pipeline", *STUDY, "executor=dask", f"executor.address={address}")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: executor.address: got '{address}'; {said}")
    assert "Traceback" not in done.stderr


def test_a_network_interface_that_is_not_there_is_refused_before_any_work():
    assert compose(["executor=slurm", "executor.interface=lo"])["executor"]["interface"] == "lo"
    with pytest.raises(InputError, match=r"executor.interface: got 'ib7'; allowed: .*\blo\b"):
        compose(["executor=slurm", "executor.interface=ib7"])


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ({"NPY_DISABLE_CPU_FEATURES": ""}, "NPY_DISABLE_CPU_FEATURES"),
        ({"PYTHONPATH": ""}, "allowed: workers with the code"),
    ],
)
def test_workers_that_would_compute_other_numbers_are_refused(workspace, difference, said):
    if "PYTHONPATH" not in difference and "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX-512")
    with scheduler(workspace, 1, **difference) as (address, _):
        plan = planned("executor=dask", f"executor.address={address}")
        with pytest.raises(InputError, match=said):
            complete(plan, drawn_samples(plan))


def test_a_scheduler_without_the_code_is_refused(workspace):
    with scheduler(workspace, 1, "", NPY_DISABLE_CPU_FEATURES="X86_V4") as (address, _):
        plan = planned("executor=dask", f"executor.address={address}")
        with pytest.raises(InputError, match=r"the scheduler cannot load a task .*'pipeline'"):
            complete(plan, drawn_samples(plan))


def test_workers_with_other_code_are_refused(workspace, monkeypatch):
    monkeypatch.setattr(cluster, "versions", lambda: {"core": "another"})
    plan = planned("executor=dask", "executor.workers=1")
    with pytest.raises(InputError, match=r"allowed: what this process runs, {'core': 'another'}"):
        complete(plan, drawn_samples(plan))


@pytest.mark.parametrize("backend", ["dask", "slurm"])
def test_without_the_extra_it_says_what_to_install(monkeypatch, backend):
    monkeypatch.setattr("pipeline.checks.execution.find_spec", lambda name: None)
    with pytest.raises(InputError) as told:
        compose([f"executor={backend}"])
    assert f"executor.backend: got '{backend}'; allowed: local" in str(told.value)
    assert "pip install 'em-convergence[scale]'" in str(told.value)


def die(plan: Plan, task) -> float | None:
    """Die, whatever the block."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_always_die_are_given_up(workspace, monkeypatch):
    monkeypatch.setattr("pipeline.computing.compute_in_worker", die)
    monkeypatch.setattr(cluster, "HOPELESS", 0.3)
    plan = planned(*DASK, "executor.retries=5")
    with pytest.raises(ClusterError, match=r"\d+ times in a row .* none was finished; the last"):
        complete(plan, drawn_samples(plan))


class LosesWorkers:
    """A client whose workers die a number of times while they are given the plan."""

    def __init__(self, times: int):
        self.left = times

    def register_plugin(self, plugin, name: str) -> None:
        """Fail as often as it has still to."""
        if self.left:
            self.left -= 1
            raise CommClosedError("in <TLS>: Stream is closed")


@pytest.mark.parametrize("times", [0, 1, cluster.ATTEMPTS - 1, cluster.ATTEMPTS])
def test_workers_that_die_before_they_begin_are_waited_for(times, monkeypatch, caplog):
    monkeypatch.setattr(cluster, "SECONDS_TO_REPLACE", 0.0)
    caplog.set_level("INFO")
    holder = cluster.Holder(planned(*DASK), compute_in_worker, own=True)
    if times < cluster.ATTEMPTS:
        cluster._give(LosesWorkers(times), holder)
        assert caplog.text.count("a worker was lost before it began") == times
    else:
        with pytest.raises(ClusterError, match="workers die before they begin"):
            cluster._give(LosesWorkers(times), holder)


def test_a_worker_is_replaced_whose_guard_has_given_up():
    with own(1) as (client, tend):
        guard = client.cluster.workers[0]
        client.cluster.sync(guard.close, reason="nanny-instantiate-failed")  # as it does by itself
        until(lambda: not client.nthreads())
        until(lambda: tend(1.0) or client.nthreads())
        with pytest.raises(ClusterError, match=r"die before they begin .* the same command goes"):
            tend(SECONDS_WITHOUT + 1.0)
    assert not descendants()


def test_keys_that_killed_runs_left_in_the_store_are_removed(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    of_killed = tmp_path / f".keys-{ended.pid}-a@{host}"
    others = [tmp_path / f".keys-1-a@{host}", tmp_path / f".keys-{ended.pid}-a@another-{host}"]
    for folder in (of_killed, *others):
        folder.mkdir()
        (folder / "key.pem").touch()
    with workers._shared(tmp_path) as shared:
        assert sorted(tmp_path.iterdir()) == sorted([*others, Path(shared)])
        with workers._shared(tmp_path):
            assert Path(shared).exists()
    assert sorted(tmp_path.iterdir()) == sorted(others)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
