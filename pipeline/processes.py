"""Work shared among processes, for what threads cannot share; the results are the same."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

FEWEST_TASKS = 6  # a process takes about a second to start


def ordered_map(
    function: Callable[[Any], Any], tasks: Sequence[Any], workers: int
) -> Iterator[Any]:
    """Yield `function` of every task, in the order of `tasks`, from up to `workers` processes.

    Function, tasks and results are pickled; a task is sent when a process is free for it. Few tasks
    are done in this process. When the iteration ends, in whatever way, so do the processes.

    Raises
    ------
    ChildProcessError
        If a process was killed.
    """
    workers = min(workers, len(tasks))
    if workers < 2 or len(tasks) < FEWEST_TASKS:
        yield from map(function, tasks)
        return
    # Pipes, and no locks or queues: those are named semaphores, and an exit in a hurry leaks them.
    context = multiprocessing.get_context("spawn")
    processes: dict[Any, Any] = {}
    doing: dict[Any, int] = {}
    results: dict[int, Any] = {}
    waiting = iter(range(len(tasks)))

    def send(connection: Any) -> None:
        index = next(waiting, None)
        if index is not None:
            doing[connection] = index
            with _alive():
                connection.send(tasks[index])

    try:
        with deaf_to_interrupts():
            for _ in range(workers):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, function), daemon=True)
                process.start()
                there.close()
                processes[here] = process
    except BaseException:
        _end(processes.values())
        raise
    try:
        for connection in processes:
            send(connection)
        for index in range(len(tasks)):
            while index not in results:
                ready: list[Any] = wait(list(doing))
                for connection in ready:
                    with _alive():
                        result, error = connection.recv()
                    if error is not None:
                        raise error
                    results[doing.pop(connection)] = result
                    send(connection)
            yield results.pop(index)
    finally:
        _end(processes.values())
        for connection in processes:
            connection.close()


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start processes and threads such that they do not hear of Ctrl-C, which is this one's.

    A terminal sends it to all processes; they inherit what the thread that starts them has blocked.
    """
    # It would unblock it, if it were started later. After an interruption it tidies up: no warning.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    resource_tracker.ensure_running()
    sys.warnoptions.pop()
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise ChildProcessError(
            "a process was killed, perhaps for want of memory; executor.workers=1 makes do with one"
        ) from error


def _end(processes: Any) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _serve(connection: Any, function: Callable[[Any], Any]) -> None:
    """Answer tasks until there are no more; end at once when the process that asks does."""
    threading.Thread(target=_watch, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer: tuple[Any, Exception | None] = (function(task), None)
        except Exception as error:
            error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
            answer = (None, error)
        connection.send(answer)


def _watch() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
