"""Blocks computed by several processes: locks, shards, and two runs at once on one store."""

import errno
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer

import pandas as pd
import pytest

from pipeline import blocks, store
from pipeline.computing import Shard, Task, complete, compute_block
from pipeline.config import compose
from pipeline.locks import Locks
from pipeline.plan import write_plan
from pipeline.planning import make_plan
from pipeline.samples import drawn_samples
from pipeline.stages import fit as stages_fit
from pipeline.stages.generate import generate
from pipeline.store import Block, folder_of, stored_blocks
from pipeline.tables import FITS, TRACES, part_name
from tests.conftest import ROOT

CONTENT = "0" * 55 + "123456789"
STUDY = (
    "experiment=notebook",
    "model=[free]",
    "init=[random_points,kmeans_pp]",
    "sample_sizes=[40,100]",
    "replicates=3000",
    "schedule=converge",
    "schedule.record_replicates=5",
    "tracking=none",
    "report=minimal",
)
CLAIM = """
import sys
from contextlib import contextmanager
from pathlib import Path
from pipeline.locks import Locks
with Locks(Path(sys.argv[1])).claim(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def other_process(store: Path, first: int, stop: int) -> subprocess.Popen:
    line = [sys.executable, "-c", CLAIM, str(store), CONTENT, str(first), str(stop)]
    return subprocess.Popen(
        line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl: nothing is locked")
def test_overlapping_replicates_exclude_each_other_until_their_process_ends(tmp_path):
    locks = Locks(tmp_path)
    holder = other_process(tmp_path, 10, 20)
    assert holder.stdout.readline() == "True\n"
    for first, stop, free in ((0, 10, True), (19, 30, False), (12, 13, False), (20, 21, True)):
        with locks.claim(CONTENT, first, stop) as mine:
            assert mine == free
    with locks.claim(CONTENT.replace("9", "8"), 10, 20) as mine:
        assert mine, "another cell"
    holder.kill()
    holder.wait()
    holder.stdin.close(), holder.stdout.close()
    with locks.claim(CONTENT, 10, 20) as mine:
        assert mine, "a killed process holds nothing"
        late = other_process(tmp_path, 15, 16)
        assert late.communicate()[0] == "False\n"
    locks.close()


def contents(store: Path) -> dict[str, bytes]:
    paths = store.rglob("*.arrow")
    blocks = {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}
    assert blocks
    return blocks


def test_shards_together_make_the_store_of_an_ordinary_run(workspace):
    plan, _ = make_plan(compose([*STUDY, "store_dir=whole"]))
    complete(plan, drawn_samples(plan))
    sharded, _ = make_plan(compose([*STUDY, "store_dir=shards"]))
    computed = [complete(sharded, drawn_samples(sharded), Shard(k, 3)).timings for k in (3, 1, 2)]
    assert all(computed), "every shard has its part"
    assert contents(Path("shards")) == contents(Path("whole"))
    assert not complete(sharded, drawn_samples(sharded)).timings, "nothing is left to do"


def test_a_shard_keeps_its_blocks_whatever_the_others_have_done(workspace):
    plan, _ = make_plan(compose([*STUDY, "store_dir=a"]))
    complete(plan, drawn_samples(plan), Shard(1, 2))
    alone = set(contents(Path("a")))
    complete(plan, drawn_samples(plan), Shard(2, 2))
    other, _ = make_plan(compose([*STUDY, "store_dir=b"]))
    complete(other, drawn_samples(other), Shard(2, 2))
    assert set(contents(Path("b"))) == set(contents(Path("a"))) - alone


def test_the_command_computes_a_shard_and_then_assembles(command, workspace):
    study = [*STUDY, "replicates=40"]
    for shard in ("1/2", "2/2"):
        done = command("pipeline", *study, f"shard={shard}")
        assert done.returncode == 0, done.stderr
        assert f"shard {shard[0]} of 2" in done.stderr
    assert not Path("results").exists()
    done = command("pipeline", *study)
    assert done.returncode == 0, done.stderr
    assert "cells: 4 reused, 0 new" in done.stderr
    refused = command("pipeline.stages.plan", *study, "shard=1/2")
    assert refused.returncode == 2 and refused.stderr.startswith("error: shard")


def test_two_runs_at_once_share_the_work(workspace):
    def start(name: str) -> subprocess.Popen:
        line = [sys.executable, "-m", "pipeline", *STUDY, f"results_dir={name}"]
        return subprocess.Popen(
            line, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    first, second = start("one"), start("two")
    said = [run.communicate()[1] for run in (first, second)]
    assert first.returncode == second.returncode == 0, said
    plan, _ = make_plan(compose([*STUDY]))
    folders = [folder_of(Path(".cells"), cell.content) for cell in plan.cells]
    n_blocks = sum(len(stored_blocks(folder)) for folder in folders)
    blocks = [pd.read_parquet(f"{name}/notebook/timings.parquet") for name in ("one", "two")]
    worked = [(rows[rows["what"] == "block"]["seconds"] > 0.0).sum() for rows in blocks]
    assert sum(worked) == n_blocks, "no block was computed twice"
    for part in ("fits", "traces", "convergence.csv"):
        paths = sorted(path for path in Path("one/notebook").rglob("*") if part in str(path))
        for path in filter(Path.is_file, paths):
            assert path.read_bytes() == Path("two", *path.parts[1:]).read_bytes()


def test_a_run_that_ends_records_no_failure_of_the_fits_in_hand(workspace, monkeypatch, caplog):
    """A sample that threads share out cannot be fitted any more when they have ended."""
    overrides = ("init=[random_points]", "sample_sizes=[40,100]", "replicates=1")
    plan, _ = make_plan(compose([*STUDY, *overrides, "executor.workers=2"]))
    begun, left = Event(), Event()

    def fits(plan, cell, points, replicates, starts, truth, mapping):
        if points.shape[1] == 40:
            assert begun.wait(60)
            raise OSError(errno.ENOSPC, "No space left on device")
        begun.set()
        try:
            while True:
                assert list(mapping(abs, [-1])) == [1]
        finally:
            left.set()

    monkeypatch.setattr(blocks, "_fits", fits)
    with pytest.raises(OSError, match="No space"):
        complete(plan, drawn_samples(plan))
    assert left.wait(60)
    time.sleep(0.2)
    assert not list(Path(".cells").rglob("*.arrow"))
    assert "outcome 'error'" not in caplog.text


def test_what_a_killed_run_was_computing_is_taken_up(workspace, caplog):
    caplog.set_level("INFO")
    plan, _ = make_plan(compose([*STUDY, "replicates=20"]))
    content = plan.cells[0].content
    line = [sys.executable, "-c", CLAIM, ".cells", content, "0", "20"]
    holder = subprocess.Popen(
        line, env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    killer = Timer(2.0, holder.kill)
    killer.start()
    began = time.monotonic()
    stored = complete(plan, drawn_samples(plan))
    assert time.monotonic() - began > 1.0
    assert "another run is computing 1 of the cells" in caplog.text
    assert sum(block.n_fits for block in stored.blocks[content]) == 20
    killer.join()
    holder.wait()
    holder.stdin.close(), holder.stdout.close()


def test_what_a_smaller_run_has_finished_meanwhile_is_not_computed_again(workspace):
    small, large = (make_plan(compose([*STUDY, f"replicates={n}"]))[0] for n in (5, 20))
    (cell, *_), store = large.cells, Path(large.config["store_dir"])
    locks = Locks(store)
    block = Block(0, 20, 0, 1)  # found missing by the larger run
    complete(small, drawn_samples(small))
    assert compute_block(large, Task(cell, block), drawn_samples(large), store, locks) is None
    locks.close()
    stored = complete(large, drawn_samples(large))
    assert sorted(stored.blocks[cell.content]) == [Block(0, 5, 0, 1), Block(5, 20, 0, 1)]


def test_new_rows_at_hand_and_stored_rows_make_the_same_parts(workspace, monkeypatch):
    read: list[str] = []

    def assembled(folder, *arguments):
        read.append(folder.name)
        return store.assembled(folder, *arguments)

    monkeypatch.setattr(stages_fit, "assembled", assembled)
    monkeypatch.setattr(blocks, "MOST_FITS", 25)
    # Two inits of one content; cells of one block, and of three.
    grid = ["init=[kmeans_pp]", "+init.twin.method=kmeans_pp", "sample_sizes=[40]"]
    for replicates, cells_read in ((20, 0), (60, 2)):
        settings = [*STUDY, *grid, f"replicates={replicates}", f"store_dir={replicates}"]
        plan, folder = make_plan(compose(settings))[0], workspace / f"results-{replicates}"
        assert len(plan.cells) == 2 and len({cell.content for cell in plan.cells}) == 1
        write_plan(plan, folder)
        generate(folder)

        def parts(folder=folder, plan=plan):
            stages_fit.fit(folder)
            names = [part_name(index, cell) for index, cell in enumerate(plan.cells)]
            paths = [folder / kind / name for kind in (FITS, TRACES) for name in names]
            return {path: path.read_bytes() for path in paths}

        read.clear()
        at_hand = parts()
        assert len(read) == cells_read
        for path in at_hand:
            path.unlink()
        read.clear()
        assert parts() == at_hand
        assert len(read) == len(plan.cells)


@pytest.mark.parametrize("stored", [False, True])
def test_a_part_that_cannot_be_written_ends_the_run_and_is_written_by_the_next(
    workspace, monkeypatch, stored
):
    plan, folder = make_plan(compose([*STUDY, "replicates=20"]))[0], workspace / "results"
    write_plan(plan, folder)
    generate(folder)
    if stored:
        complete(plan, drawn_samples(plan))

    @contextmanager
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
        yield

    with monkeypatch.context() as patch:
        patch.setattr(stages_fit, "part_writer", full)
        with pytest.raises(OSError, match="No space"):
            stages_fit.fit(folder)
    assert list(Path(plan.config["store_dir"]).rglob("*.arrow"))
    stages_fit.fit(folder)
    assert len(pd.read_parquet(folder / FITS)) == 20 * len(plan.cells)
