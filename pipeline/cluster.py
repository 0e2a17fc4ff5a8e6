"""Work done by processes of Dask: of this machine, of a running scheduler, or of SLURM jobs.

Imported only where the executor asks for it: `distributed` is an extra of the installation.
"""

import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import dask
import numpy as np
from distributed import CancelledError, Client, Future, KilledWorker, get_worker
from distributed.comm import CommClosedError
from distributed.diagnostics.plugin import WorkerPlugin

from pipeline.checks.values import one_line
from pipeline.errors import ClusterError, InputError
from pipeline.plan import Plan
from pipeline.planning import versions
from pipeline.workers import GOES_ON, SILENT, Workers, connected, own, slurm

log = logging.getLogger(__name__)

# Losses in a row, for each try of each task in Dask's hands, after which workers die of something
# else than a block.
HOPELESS = 3
ATTEMPTS = 5  # at giving the workers their work, before any has begun
SECONDS_TO_REPLACE = 1.0  # a worker that died
IN_FLIGHT = 2  # tasks for each thread of a worker: one in work, one at hand
LOOK = 1.0  # seconds between looks at how many workers there are
NO_WORKER = "fit: there is no worker %s: waiting"

T = TypeVar("T")
Work = Callable[[Plan, Any], Any]
Execute = Callable[[Sequence[T]], Iterator[tuple[int, Any]]]


class Holder(WorkerPlugin):
    """What every worker holds during a run: sent to it once, also to one that comes later."""

    def __init__(self, plan: Plan, work: Work, own: bool) -> None:
        self.name = f"em-convergence-{uuid.uuid4().hex}"
        self.plan, self.work, self.own = plan, work, own
        self.versions = versions()


def _work(name: str, task: Any) -> Any:
    """Do a task in a worker."""
    holder: Any = get_worker().plugins[name]
    here = versions()
    if here != holder.versions:
        raise InputError(
            f"executor: a worker runs {here}; allowed: what this process runs, {holder.versions}"
        )
    # A worker that had imported numpy before `pipeline` has not read its setting.
    if "X86_V4" in np.show_config(mode="dicts")["SIMD Extensions"]["found"]:
        raise InputError(
            "executor: a worker's numpy uses AVX-512, which rounds in another way; start workers "
            "with the environment variable NPY_DISABLE_CPU_FEATURES=X86_V4"
        )
    return holder.work(holder.plan, task)


@contextmanager
def cluster(plan: Plan, work: Work) -> Iterator[Execute]:
    """Yield what runs ``work(plan, task)`` for tasks on the workers that the plan's executor names.

    It yields (task index, result) as tasks end. A task whose worker is lost is done by another one.

    Parameters
    ----------
    work : callable
        Importable by the workers. It writes what is large itself: results go through the scheduler.

    Raises
    ------
    InputError
        If there is no such cluster, or its workers are no match for this process.
    ClusterError
        If a task loses its worker more than `executor.retries` times, or the scheduler is lost.
    """
    executor = plan.config["executor"]
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(SILENT)
    # The plan's limit counts, not the scheduler's, which blames all tasks that a worker had. And
    # who is gone may come back, such as a job that SLURM requeues: Dask would cancel it.
    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 0,
            "distributed.deploy.lost-worker-timeout": "1000 days",
        }
    )
    with ExitStack() as stack:
        if executor["backend"] == "slurm":
            store = Path(plan.config["store_dir"]).resolve()
            workers = stack.enter_context(slurm(executor, store))
        elif executor["address"] is None:
            workers = stack.enter_context(own(plan.workers))
        else:
            workers = stack.enter_context(connected(executor["address"]))
            _wait_for_one(workers.client)
        holder = Holder(_anywhere(plan), work, own=executor["address"] is None)
        _give(workers.client, holder)
        stack.callback(_forget, workers.client, holder)

        def execute(tasks: Sequence[T]) -> Iterator[tuple[int, Any]]:
            try:
                yield from _results(workers, holder.name, tasks, executor["retries"])
            except (CommClosedError, CancelledError) as error:
                raise ClusterError(f"executor: the scheduler is gone; {GOES_ON}") from error

        yield execute


def _wait_for_one(client: Client) -> None:
    """Wait for a first worker: only of one that is there it is told why it cannot have the plan."""
    try:
        if not _threads(client):
            log.info(NO_WORKER, "yet")
        while not _threads(client):
            time.sleep(LOOK)
    except CommClosedError as error:
        raise ClusterError(f"executor: the scheduler is gone; {GOES_ON}") from error


def _give(client: Client, holder: Holder) -> None:
    """Give the workers the plan; one that dies meanwhile is replaced, and they are asked again."""
    for attempt in range(ATTEMPTS):
        if attempt:
            log.warning("fit: a worker was lost before it began")
            time.sleep(SECONDS_TO_REPLACE)
        try:
            client.register_plugin(holder, name=holder.name)
        except OSError as error:  # of which lost connections are a kind
            lost = error
        except Exception as error:
            raise InputError(
                f"executor: the workers cannot run the pipeline ({one_line(repr(error))}); "
                "allowed: workers with the code and the environment of this process"
            ) from error
        else:
            return
    raise ClusterError(
        f"executor: workers die before they begin ({one_line(repr(lost))}); {GOES_ON}"
    )


def _anywhere(plan: Plan) -> Plan:
    """Return the plan with paths that hold in every working directory."""
    observed = {
        name: entry | {"path": str(Path(entry["path"]).resolve())}
        for name, entry in plan.config["observed"].items()
    }
    store = str(Path(plan.config["store_dir"]).resolve())
    return replace(plan, config=plan.config | {"observed": observed, "store_dir": store})


def _results(
    workers: Workers, holder: str, tasks: Sequence[T], retries: int
) -> Iterator[tuple[int, Any]]:
    """Yield (task index, result) as tasks end, with a bounded number of them in Dask's hands.

    A worker that dies takes all tasks with it that it had in hand, and Dask blames each. One that
    is blamed too often is done again at the end, alone: if that costs a worker too, it is guilty.
    """
    ended: SimpleQueue[Future] = SimpleQueue()
    waiting, suspects = deque(range(len(tasks))), deque[int]()
    running: dict[str, tuple[int, Future]] = {}
    losses: Counter[int] = Counter()
    in_a_row = 0
    alone, most, looked = False, IN_FLIGHT, -LOOK
    seen, known, told = time.monotonic(), "yet", False
    while waiting or running or suspects:
        if not (waiting or running):
            alone = True
            waiting.append(suspects.popleft())
        if time.monotonic() - looked > LOOK:
            threads, looked = _threads(workers.client), time.monotonic()
            if threads:
                seen, known, told = looked, "any more", False
            elif not told:
                log.info(NO_WORKER, known)
                told = True
            workers.tend(looked - seen)
            most = IN_FLIGHT * max(threads, 1)
        while waiting and len(running) < (1 if alone else most):
            index = waiting.popleft()
            key = f"fit-{uuid.uuid4().hex}"
            future = workers.client.submit(_work, holder, tasks[index], key=key, pure=False)
            running[key] = index, future
            future.add_done_callback(ended.put)
        try:
            future = ended.get(timeout=LOOK)
        except Empty:
            continue
        index, _ = running.pop(str(future.key))
        error = future.exception()
        if error is None:
            in_a_row = 0
            yield index, future.result()
        elif isinstance(error, RuntimeError) and "deserialization of the task graph" in str(error):
            raise InputError(
                f"executor: the scheduler cannot load a task ({one_line(repr(error.__cause__))}); "
                "allowed: a scheduler with the code and the environment of this process"
            ) from error
        elif not isinstance(error, KilledWorker):
            future.result()
        else:
            losses[index] += 1 + error.allowed_failures
            in_a_row += 1
            if in_a_row > HOPELESS * (retries + 1) * most:
                raise ClusterError(
                    f"executor: {in_a_row} times in a row a block lost its worker, and none was "
                    f"finished; the last one was {tasks[index]}; {GOES_ON}"
                )
            if losses[index] <= retries or not alone:
                log.info("fit: a worker was lost; again: %s", tasks[index])
                (waiting if losses[index] <= retries else suspects).append(index)
            else:
                raise ClusterError(
                    f"{tasks[index]}: its worker died {losses[index]} times "
                    f"(executor.retries: {retries}); finished blocks are kept"
                )


def _threads(client: Client) -> int:
    """Return how many threads all workers have."""
    try:
        return sum(client.nthreads().values())
    except OSError as error:  # of several kinds
        raise CommClosedError(str(error)) from error


def _forget(client: Client, holder: Holder) -> None:
    """Take the plan from the workers that stay."""
    if not holder.own:
        with suppress(OSError):
            client.unregister_worker_plugin(holder.name)
