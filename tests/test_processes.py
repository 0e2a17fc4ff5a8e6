"""Work shared among processes: the same results, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from pipeline.processes import FEWEST_TASKS, ordered_map

SLEEPERS = """
import signal, sys, time
from functools import partial
from pipeline.processes import ordered_map
if __name__ == "__main__":
    print("begun", flush=True)
    try:
        list(ordered_map(time.sleep, [60.0] * 8, 2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def children(parent: int) -> list[int]:
    """Return the ids of the processes below one, as /proc tells."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(parent) and fields[0] != "Z":
            found += [int(name), *children(int(name))]
    return found


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(workers):
    tasks = [30, 1, 2, 10, 3, 4, 5, 0]
    assert list(ordered_map(partial(pow, 3), tasks, workers)) == [3**task for task in tasks]


def test_the_work_is_done_elsewhere_unless_there_is_little():
    tasks = [0] * FEWEST_TASKS
    assert set(ordered_map(os.getpgid, tasks, 2)) == {os.getpgid(0)}
    elsewhere = set(ordered_map(eval, ["__import__('os').getpid()"] * FEWEST_TASKS, 2))
    assert os.getpid() not in elsewhere and 1 <= len(elsewhere) <= 2
    assert list(ordered_map(eval, ["__import__('os').getpid()"] * 2, 2)) == [os.getpid()] * 2


def test_an_error_comes_back_and_ends_the_processes():
    with pytest.raises(ZeroDivisionError) as raised:
        list(ordered_map(partial(divmod, 1), [1, 2, 0, 3, 4, 5, 6], 2))
    assert "in a process of its own" in raised.value.__notes__[0]


def test_a_killed_process_is_told():
    with pytest.raises(ChildProcessError, match="was killed"):
        list(ordered_map(eval, ["__import__('os')._exit(9)"] * FEWEST_TASKS, 2))


def test_the_processes_do_not_hear_of_an_interrupt_at_the_terminal():
    """In a program of its own, where nothing has started the watcher of multiprocessing before."""
    asked = "__import__('signal').pthread_sigmask(0, ())"
    program = (
        "from pipeline.processes import ordered_map\n"
        f"for mask in ordered_map(eval, [{asked!r}] * {FEWEST_TASKS}, 2): print(*map(int, mask))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.split("\n")[:-1] == [str(int(signal.SIGINT))] * FEWEST_TASKS, run.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_leaves_nothing_behind(ended_by, tmp_path):
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    line = [sys.executable, str(script)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(line, env=environment, start_new_session=True, **pipes)
    try:
        assert process.stdout.readline() == "begun\n"
        deadline = time.monotonic() + 60
        # Two that work and multiprocessing's own watcher.
        while len(below := children(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.5)
        # As from a terminal: to all of them, but for the kill.
        if ended_by == signal.SIGINT:
            os.killpg(process.pid, ended_by)
        else:
            process.kill()
        began = time.monotonic()
        _, errors = process.communicate(timeout=20)
        while any(map(alive, below)) and time.monotonic() < began + 20:
            time.sleep(0.05)
        assert not any(map(alive, below))
        assert time.monotonic() < began + 2
        assert "semaphore" not in errors and "Traceback" not in errors
    finally:
        process.kill()
