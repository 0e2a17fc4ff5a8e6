"""Take the pictures of the README and of the docs anew, from real runs: `make pictures`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "images"
# Of each run: its overrides, and which figure becomes which picture.
RUNS: list[tuple[str, dict[str, str]]] = [
    (
        "experiment=notebook",
        {
            "notebook": "notebook-notebook-snapshots.png",
            "notebook-animation": "notebook-notebook-animation.gif",
            "mean_plane": "notebook-notebook-mean_plane.png",
        },
    ),
    ("experiment=notebook seed=3", {"collapse": "notebook-notebook-snapshots.png"}),
    (
        "experiment=convergence",
        {
            "iterations": "overlap_medium-free-iterations_distribution.png",
            "gap_bands": "overlap_medium-free-log_likelihood_gap_bands.png",
            "rates": "overlap_medium-free-rates.png",
        },
    ),
    ("experiment=stop_rules", {"stop_replay": "overlap_unequal-free-stop_replay.png"}),
    ("experiment=basins", {"basins": "*-basins.png"}),
    ("experiment=root_n", {"slopes": "overlap_low-free-error_against_n.png"}),
    ("experiment=mine", {"error_against_n": "mine-free-error_against_n.png"}),
]
# The files that the tutorial tells its reader to write.
WRITTEN = re.compile(r"^```yaml (conf/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Run each study in a copy of the project and copy its figures."""
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        project = Path(folder)
        for name in ("conf", "data", "pipeline"):
            shutil.copytree(ROOT / name, project / name)
        for path, content in WRITTEN.findall((ROOT / "docs" / "tutorial.md").read_text("utf-8")):
            (project / path).write_text(content)
        for overrides, pictures in RUNS:
            shutil.rmtree(project / "results", ignore_errors=True)
            line = [sys.executable, "-m", "pipeline", *overrides.split(), "tracking=none"]
            subprocess.run(line, cwd=project, env=os.environ | {"PYTHONPATH": folder}, check=True)
            for name, figure in pictures.items():
                (source,) = project.glob(f"results/*/figures/{figure}")
                copy(source, PICTURES / f"{name}{source.suffix}")


def copy(source: Path, target: Path) -> None:
    """Copy a picture; a PNG as small as it goes without a palette, which would change colours."""
    if source.suffix == ".gif":
        target.write_bytes(source.read_bytes())
    else:
        with Image.open(source) as picture:
            picture.convert("RGB").save(target, optimize=True)
    print(target.relative_to(ROOT), target.stat().st_size)


if __name__ == "__main__":
    main()
