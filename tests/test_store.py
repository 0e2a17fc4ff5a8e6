"""The store: what is missing, what is damaged, and rows whatever the blocks."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.command import exit_status
from pipeline.computing import complete
from pipeline.config import compose
from pipeline.errors import InputError
from pipeline.locks import Locks
from pipeline.plan import Plan, write_plan
from pipeline.planning import make_plan
from pipeline.samples import drawn_samples
from pipeline.stages.fit import fit
from pipeline.stages.generate import generate
from pipeline.store import (
    Block,
    DamagedBlockError,
    Rows,
    assembled,
    folder_of,
    missing_blocks,
    stored_blocks,
    write_block,
)
from pipeline.store.__main__ import main
from tests.conftest import ROOT

STARTS = 2


@st.composite
def rectangles(draw):
    first, stop = sorted(draw(st.lists(st.integers(0, 30), min_size=2, max_size=2, unique=True)))
    low, high = sorted(draw(st.lists(st.integers(0, 5), min_size=2, max_size=2, unique=True)))
    return Block(first, stop, low, high)


@given(st.integers(1, 25), st.integers(1, 4), st.lists(rectangles(), max_size=4), st.integers(1, 9))
def test_missing_blocks_complete_a_cell_exactly_once(replicates, starts, stored, size):
    times = np.zeros((40, 8), int)
    for block in stored:
        times[block.first : block.stop, block.first_start : block.stop_start] = 1
    for block in missing_blocks(replicates, starts, stored, size):
        assert 0 <= block.first < block.stop <= replicates
        assert 0 <= block.first_start < block.stop_start <= starts
        assert block.stop - block.first <= size
        assert block.n_fits == (block.stop - block.first) * (block.stop_start - block.first_start)
        times[block.first : block.stop, block.first_start : block.stop_start] += 1
    assert (times[:replicates, :starts] == 1).all()


def rows_of(block: Block) -> Rows:
    pairs = [
        (replicate, start)
        for replicate in range(block.first, block.stop)
        for start in range(block.first_start, block.stop_start)
    ]
    replicates, starts = np.array(pairs).T
    fits = pa.table({"replicate": replicates, "start": starts, "value": replicates * 10 + starts})
    twice = {"replicate": replicates.repeat(2), "start": starts.repeat(2)}
    traces = pa.table({**twice, "iteration": np.tile([0, 1], len(pairs))})
    return Rows(fits, traces)


def store(folder: Path, *blocks: Block) -> None:
    for block in blocks:
        write_block(folder, block, rows_of(block))


def all_rows(*read) -> Rows:
    return Rows(*map(pa.concat_tables, zip(*assembled(*read), strict=True)))


def test_rows_come_in_order_whatever_the_blocks(tmp_path: Path):
    layouts = {
        "one": [Block(0, 10, 0, STARTS)],
        "grown": [Block(0, 4, 0, 1), Block(4, 12, 0, 1), Block(0, 5, 1, 3), Block(5, 12, 1, 3)],
        "twice": [Block(0, 4, 0, 1), Block(0, 10, 0, STARTS), Block(2, 7, 1, STARTS)],
    }
    for name, blocks in layouts.items():
        folder = tmp_path / "key=value" / name
        store(folder, *blocks)
        assert sorted(stored_blocks(folder)) == sorted(blocks)
        for size in (3, 10):
            found = all_rows(folder, stored_blocks(folder), 10, STARTS, size)
            assert found == rows_of(Block(0, 10, 0, STARTS))


@pytest.mark.parametrize("damage", ["truncated", "empty", "gone", "another's"])
def test_a_damaged_block_is_told_to_its_reader(tmp_path: Path, damage: str):
    good, bad = Block(0, 3, 0, STARTS), Block(3, 6, 0, STARTS)
    store(tmp_path, good, bad)
    (path,) = tmp_path.glob("r3-6-*.arrow")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "another's":
        (other,) = tmp_path.glob("r0-3-*.arrow")
        path.unlink()
        path = path.with_name(f"r3-6-s0-{STARTS}.{other.name.split('.')[1]}.arrow")
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    assert stored_blocks(tmp_path) == ([good] if damage == "gone" else [good, bad])
    for size in (3, 6):
        with pytest.raises(DamagedBlockError) as caught:
            all_rows(tmp_path, [good, bad], 6, STARTS, size)
        assert caught.value.path.name.startswith(f"r3-6-s0-{STARTS}")
    caught.value.path.unlink(missing_ok=True)
    assert list(missing_blocks(6, STARTS, stored_blocks(tmp_path), 9)) == [bad]
    store(tmp_path, bad)
    assert stored_blocks(tmp_path) == [good, bad]
    again = all_rows(tmp_path, [good, bad], 6, STARTS, 3)
    assert again == rows_of(Block(0, 6, 0, STARTS))


def test_no_flipped_bit_of_a_block_goes_unnoticed(tmp_path: Path):
    block = Block(0, 3, 0, STARTS)
    store(tmp_path, block)
    (path,) = tmp_path.glob("*.arrow")
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DamagedBlockError):
            all_rows(tmp_path, [block], 3, STARTS, 3)
    path.write_bytes(whole)
    assert all_rows(tmp_path, [block], 3, STARTS, 3) == rows_of(block)


def test_only_a_file_is_a_block(tmp_path: Path):
    block = Block(0, 3, 0, STARTS)
    store(tmp_path, block)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.unlink()
    path.mkdir()
    assert stored_blocks(tmp_path) == []
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        assert stored_blocks(tmp_path) == []
    store(tmp_path, block)  # takes the place of a pipe
    assert stored_blocks(tmp_path) == [block]
    assert path.read_bytes() == whole


def test_what_hinders_reading_a_block_is_no_damage(workspace, capsys, monkeypatch):
    plan = study()
    write_plan(plan, results := Path("results/notebook"))
    generate(results)
    (path,) = folder_of(Path(".cells"), plan.cells[0].content).iterdir()
    read_bytes = Path.read_bytes
    errors = [OSError(errno.EIO, "Input/output error") for _ in range(2)]  # they name no file

    def fails(self: Path) -> bytes:
        if self.name == path.name and errors:
            raise errors.pop()
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", fails)
    assert exit_status(lambda: fit(results)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: Input/output error: {path}"
    assert main(["verify"]) == 1
    told = capsys.readouterr().out
    assert f"{path}: Input/output error" in told
    assert "0 blocks read, 0 damaged; 1 could not be read" in told
    assert main(["verify"]) == 0


def test_prune_removes_what_killed_runs_and_other_versions_left(workspace, capsys):
    needed = study()
    write_plan(needed, Path("results/notebook"))
    folder = folder_of(Path(".cells"), needed.cells[0].content)
    before = sorted(folder.iterdir())
    left = [folder / ".123.tmp.arrow", folder / "r0-4-s0-1.of_another_version"]
    for path in left:
        path.write_bytes(b"piece")
    left.append(folder / f"r0-4-s0-1.{'0' * 16}.arrow")
    left[-1].mkdir()
    (left[-1] / "file").write_bytes(b"piece")
    told = "3 files that are no blocks, 15 bytes"
    for arguments in (["list"], ["verify"], ["prune", "--dry-run"]):
        Path(".cells/lock").unlink(missing_ok=True)
        assert main(arguments) == 0
        assert told in capsys.readouterr().out.splitlines()[-1]
        assert all(path.exists() for path in left)
        assert not Path(".cells/lock").exists(), "nothing is written"
    assert main(["prune"]) == 0
    assert told in capsys.readouterr().out
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl: nothing is locked")
def test_prune_leaves_a_run_at_work_alone(workspace, capsys, monkeypatch):
    """A run at work keeps its piece; one that ends after the listing has no piece any more."""
    plan = study()
    write_plan(plan, Path("results/notebook"))
    content = plan.cells[0].content
    folder = folder_of(Path(".cells"), content)
    (block,) = folder.iterdir()
    piece = block.rename(folder / ".123.tmp.arrow")
    program = (
        "import sys; from pathlib import Path; from pipeline.locks import Locks\n"
        f"with Locks(Path('.cells')).claim({content!r}, 3, 4): print(); sys.stdin.read()"
    )
    line = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(line, env=environment, **pipes) as run:
        run.stdout.readline()
        assert main(["prune"]) == 0
        assert "in use by a run, kept" in capsys.readouterr().out
        assert piece.exists()
        run.communicate()
    claim_all = Locks.claim_all

    def ends_before(self, content):
        piece.rename(block)
        return claim_all(self, content)

    monkeypatch.setattr(Locks, "claim_all", ends_before)
    assert main(["prune"]) == 0
    assert list(folder.iterdir()) == [block]


def test_only_folders_of_contents_are_a_store(workspace):
    results = Path("results/notebook")
    write_plan(study(), results)
    content = "ab" + "0" * 62
    elsewhere = Path("other") / "cd" / ("cd" + "0" * 62)
    strangers = [
        Path("home/05/2024"),
        Path("home/ab/ab"),
        Path("home/cd") / content,
        Path("home/zz") / ("zz" + "0" * 62),
        Path("home/ef") / ("EF" + "0" * 62),
        elsewhere,
    ]
    for folder in [*strangers, Path("home/ab") / content]:
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("x")
    Path("home/dd").symlink_to("../other/cd")
    Path("home/cd", "cd" + "0" * 62).symlink_to(elsewhere.absolute())
    Path("home/ab", "ab" + "1" * 62).write_text("x")
    kept = {path for path in Path().rglob("*") if content not in path.parts or "cd" in path.parts}
    assert main(["prune", "store_dir=home"]) == 0
    assert set(Path().rglob("*")) - {Path("home/lock")} == kept


def test_what_a_plan_needs_is_kept_wherever_store_and_plan_lie(workspace, monkeypatch):
    plan = study()
    write_plan(plan, Path("away/notebook"))
    Path("away/again").symlink_to(".")
    Path("results").mkdir()
    Path("results/linked").symlink_to("../away")
    Path("moved").mkdir()
    Path(".cells").rename("moved/cells")
    monkeypatch.chdir("moved")
    for results in ("../results", "../results/linked", "../away"):
        assert main(["prune", "store_dir=cells", f"results_dir={results}"]) == 0
        assert folder_of(Path("cells"), plan.cells[0].content).is_dir()


def test_prune_refuses_where_plans_may_be_missing(workspace, monkeypatch, capsys):
    plan = study()
    folder = folder_of(Path(".cells"), plan.cells[0].content)

    def status() -> int:
        found = exit_status(lambda: main(["prune"]))
        assert folder.is_dir()
        return found

    assert status() == 2
    assert "error: results_dir: no plan below 'results'" in capsys.readouterr().err
    results = Path("results/other")
    results.mkdir(parents=True)
    assert status() == 2
    assert main([]) == 0
    write_plan(make_plan(compose(["experiment=notebook", "tracking=none"]))[0], results)
    Path("results/unmounted").symlink_to("nowhere")
    assert status() == 2
    Path("results/unmounted").unlink()
    Path("results/theirs").mkdir()
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "theirs":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        assert status() == 1
    assert "error: Permission denied: results/theirs" in capsys.readouterr().err
    assert main(["prune"]) == 0
    assert not folder.exists()


def study(*overrides: str) -> Plan:
    settings = ["experiment=notebook", "model=[free]", "init=[kmeans_pp]", "replicates=4"]
    settings += ["schedule=converge", "tracking=none", *overrides]
    plan, _ = make_plan(compose(settings))
    complete(plan, drawn_samples(plan))
    return plan


def test_the_store_is_listed_verified_and_pruned(workspace, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    needed, extra = study(), study("seed=2")
    write_plan(needed, Path("results/notebook"))
    folders = {
        name: folder_of(Path(".cells"), plan.cells[0].content)
        for name, plan in (("needed", needed), ("extra", extra))
    }
    assert main([]) == 0
    listed = capsys.readouterr().out
    for name, row in (("needed", needed.cells[0].id), ("extra", "no plan")):
        (line,) = [text for text in listed.splitlines() if folders[name].name[:12] in text]
        assert row in line
    assert "2 contents" in listed
    assert main(["verify"]) == 0
    assert "2 blocks read, 0 damaged" in capsys.readouterr().out
    (block,) = folders["needed"].glob("*.arrow")
    block.write_bytes(block.read_bytes()[:-100])
    assert main(["verify"]) == 1
    told = capsys.readouterr().out
    assert str(block) in told and "1 damaged" in told
    assert main(["prune", "--dry-run"]) == 0
    assert "1 contents that no plan needs" in capsys.readouterr().out
    assert folders["extra"].is_dir()
    assert main(["prune"]) == 0
    assert not folders["extra"].exists() and folders["needed"].is_dir()
    generate(Path("results/notebook"))
    fit(Path("results/notebook"))  # the damaged one is computed again
    assert main(["verify"]) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["shrink"], "argument: got 'shrink'; allowed: list, verify, prune"),
        (["verify", "--dry-run"], "allowed: with prune"),
        (["store_dir=nowhere"], "nowhere is no folder"),
        (["store_dir="], "store_dir: got ''"),
        (["results_dir="], "results_dir: got ''"),
        (["results_dir=nowhere"], "results_dir: got 'nowhere'"),
    ],
)
def test_bad_arguments_are_told(workspace, arguments, text):
    with pytest.raises(InputError, match=re.escape(text)):
        main(arguments)
