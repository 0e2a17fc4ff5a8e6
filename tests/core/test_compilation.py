"""The cache of machine code follows the sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline import core

PROGRAM = """
from pipeline.core.sampling import draw
print(draw([1, 2], [0], 3, [1.0], [0.0], [1.0], "multinomial").tolist())
"""


def test_an_edit_in_one_file_reaches_the_callers_in_another(tmp_path):
    """The cached ``sampling`` holds the code of ``random`` that it was compiled with."""
    folder = tmp_path / "pipeline" / "core"
    shutil.copytree(
        Path(core.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder.parent / "__init__.py").touch()
    environment = {name: value for name, value in os.environ.items() if "NUMBA" not in name}

    def output():
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    before = output()
    source = (folder / "random.py").read_text()
    assert "ROUNDS = 10" in source
    (folder / "random.py").write_text(source.replace("ROUNDS = 10", "ROUNDS = 9"))
    assert output() != before
    (folder / "random.py").write_text(source)
    assert output() == before


def test_the_hash_follows_names_and_contents():
    assert len(core.source_hash()) == 64
    assert core.source_hash() == core.source_hash.__wrapped__()


def test_the_hash_reaches_into_folders(tmp_path, monkeypatch):
    folder = tmp_path / "core"
    shutil.copytree(
        Path(core.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(core, "__file__", str(folder / "__init__.py"))
    assert core.source_hash.__wrapped__() == core.source_hash()
    with (folder / "inits" / "given.py").open("a") as file:
        file.write("\n")
    assert core.source_hash.__wrapped__() != core.source_hash()
