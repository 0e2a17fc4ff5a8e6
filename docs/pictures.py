"""Take the pictures of the README and of the docs anew, from real runs: `make pictures`."""

import os
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
]


def main() -> None:
    """Run each study in a folder of its own and copy its figures, PNG with a palette."""
    PICTURES.mkdir(exist_ok=True)
    for overrides, pictures in RUNS:
        with TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "pipeline", *overrides.split(), "tracking=none"]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            subprocess.run(line, cwd=folder, env=environment, check=True)
            for name, figure in pictures.items():
                (source,) = Path(folder).glob(f"results/*/figures/{figure}")
                copy(source, PICTURES / f"{name}{source.suffix}")


def copy(source: Path, target: Path) -> None:
    """Copy a picture; a palette takes a third of the bytes."""
    if source.suffix == ".gif":
        target.write_bytes(source.read_bytes())
    else:
        with Image.open(source) as picture:
            picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
                target, optimize=True
            )
    print(target.relative_to(ROOT), target.stat().st_size)


if __name__ == "__main__":
    main()
