"""Any one fit, again and alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.__main__ import main as run
from pipeline.core.starts import INITS
from pipeline.errors import InputError
from pipeline.replay import main

STUDY = (
    "experiment=convergence",
    "mixture=[overlap_high]",
    "sample_sizes=[40]",
    "replicates=12",
    "starts=2",
    "tracking=none",
    "report=minimal",
)


@pytest.fixture
def study(workspace: Path) -> Path:
    run([*STUDY, "schedule.record_replicates=5"])
    return Path("results/convergence")


@pytest.mark.parametrize("end", ["r0-s0", "r4-s1", "r11-s0"])
@pytest.mark.parametrize("init", ["random_points", "kmeans_pp"])
def test_a_fit_alone_equals_the_recorded_one(study, capsys, end, init):
    name = f"overlap_high-free-n40-{init}-em-{end}"
    assert main(["experiment=convergence", f"fit_id={name}"]) == 0
    out = capsys.readouterr().out
    assert "equal to the recorded fit, bit by bit" in out
    assert "iteration" in out and "outcome" in out
    # The trace is shown even where the study kept two rows only.
    assert len(out.splitlines()) > 6


@pytest.mark.parametrize("size", ["30000", "inf"])
def test_nodes_in_the_place_of_points_are_replayed(workspace, capsys, size):
    run([*STUDY, f"sample_sizes=[{size}]", "replicates=2", "init=[random_points]"])
    name = f"overlap_high-free-n{size}-random_points-em-r0-s1"
    assert main(["experiment=convergence", f"fit_id={name}"]) == 0
    assert "equal to the recorded fit, bit by bit" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["40", "inf"])
def test_a_study_of_every_init_is_replayed(workspace, capsys, size):
    options = ["init.grid.points=3", "init.grid.low=-1", "init.grid.high=3"]
    options += ["init.explicit.means=[-2,5]", "init.short_runs.runs=2"]
    inits = f"init=[{','.join(INITS)}]"
    settings = [f"sample_sizes=[{size}]", "replicates=2", "schedule.max_iter=20", inits, *options]
    run([*STUDY, *settings])
    for init in INITS:
        start = 0 if init in ("quantiles", "truth", "explicit") else 1
        name = f"overlap_high-free-n{size}-{init}-em-r0-s{start}"
        assert main(["experiment=convergence", f"fit_id={name}"]) == 0
        assert "equal to the recorded fit, bit by bit" in capsys.readouterr().out
    traces = pd.read_parquet("results/convergence/traces")
    row_0 = traces[(traces["iteration"] == 0) & (traces["replicate"] == 0)]
    of_init = {init: row_0[row_0["cell"].str.contains(f"-{init}-em")] for init in INITS}
    np.testing.assert_array_equal(np.sort(of_init["explicit"][["mean_0", "mean_1"]]), [[-2, 5]])
    lattice = of_init["grid"][["mean_0", "mean_1"]].to_numpy()
    assert len(lattice) == 9
    assert set(lattice.ravel()) == {-1.0, 1.0, 3.0}


@pytest.mark.parametrize(("table", "column"), [("fits", "scale_0"), ("traces", "mean_1")])
def test_a_changed_record_is_told(study, capsys, table, column):
    (path,) = (study / table).glob("*random_points*")
    rows = pq.read_table(path)
    values = rows[column].to_numpy().copy()
    values[0] += 1e-12
    index = rows.column_names.index(column)
    pq.write_table(rows.set_column(index, rows.field(column), [values]), path)
    name = "overlap_high-free-n40-random_points-em-r0-s0"
    assert main(["experiment=convergence", f"fit_id={name}"]) == 1
    assert "NOT equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fit_id", "named"),
    [
        ("nonsense", "nonsense"),
        ("overlap_high-free-n40-kmeans_pp-em-r00-s0", "r00"),
        ("nosuch-r0-s0", "nosuch"),
        ("overlap_high-free-n40-kmeans_pp-em-r12-s0", "r0 to r11"),
        ("overlap_high-free-n40-kmeans_pp-em-r0-s2", "s0 to s1"),
        ("overlap_high-free-n40-kmeans_pp-em-rx-s2", "rx"),
    ],
)
def test_a_wrong_name_is_refused(study, fit_id, named):
    with pytest.raises(InputError, match=named):
        main(["experiment=convergence", f"fit_id={fit_id}"])


def test_usage(workspace):
    with pytest.raises(InputError, match="usage"):
        main(["experiment=convergence"])
