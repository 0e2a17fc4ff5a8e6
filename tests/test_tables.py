"""The Parquet data sets: bytes, labels, names."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import compose
from pipeline.errors import InputError
from pipeline.planning import make_plan
from pipeline.tables import (
    FITS,
    ROW_GROUP,
    check_fits,
    check_parts,
    fit_id,
    fits_schema,
    labelled,
    parse_fit_id,
    part_name,
    part_writer,
    read_fits,
)

PLAN, _ = make_plan(compose(["experiment=notebook", "model=[free]"]))
(CELL,) = PLAN.cells
ROWS = ROW_GROUP + 20_000
VALUES = np.random.default_rng(2).normal(size=ROWS)
TABLE = pa.table({"a": VALUES, "b": pa.array([f"row {i}" for i in range(ROWS)])})


def write_part(path, tables, schema=TABLE.schema):
    with part_writer(path, schema, CELL) as add:
        for table in tables:
            add(table)


def pieces(size):
    return (TABLE.slice(first, size) for first in range(0, ROWS, size))


@pytest.mark.parametrize("size", [777, 50_000, ROW_GROUP, ROW_GROUP + 1])
def test_the_bytes_do_not_tell_in_which_pieces_the_rows_came(tmp_path, size):
    write_part(tmp_path / "whole.parquet", [TABLE])
    write_part(tmp_path / "pieces.parquet", pieces(size))
    assert (tmp_path / "pieces.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    written = pq.ParquetFile(tmp_path / "pieces.parquet")
    groups = [written.metadata.row_group(i).num_rows for i in range(2)]
    assert (written.num_row_groups, groups) == (2, [ROW_GROUP, ROWS - ROW_GROUP])
    assert written.read().replace_schema_metadata().equals(TABLE)


def test_a_cell_without_rows_is_a_part_with_its_schema(tmp_path):
    schema = fits_schema(2)
    write_part(tmp_path / "none.parquet", [], schema)
    assert pq.read_table(tmp_path / "none.parquet").schema.remove_metadata() == schema


def test_labels_are_the_cells_and_absent_columns_are_null():
    stored = pa.table({"replicate": [3, 12], "start": [0, 1], "mean_0": [0.5, 1.5]})
    rows = labelled(stored, CELL, fits_schema(2)).to_pylist()
    assert [row["fit_id"] for row in rows] == [fit_id(CELL.id, 3, 0), fit_id(CELL.id, 12, 1)]
    for row in rows:
        assert (row["cell"], row["mixture"], row["observed"]) == (CELL.id, "notebook", None)
        assert (row["sample_size"], row["init"], row["model"]) == (40, "notebook", "free")
        assert row["mean_0"] is not None and row["mean_1"] is None


@pytest.mark.parametrize(("replicate", "start"), [(0, 0), (12, 3), (999_999, 10)])
def test_a_fits_name_is_read_back(replicate, start):
    assert parse_fit_id(fit_id(CELL.id, replicate, start)) == (CELL.id, replicate, start)


def test_parts_are_refused_that_are_missing_or_of_other_content(tmp_path):
    with pytest.raises(InputError, match="no such folder; run the stage fit"):
        read_fits(tmp_path)
    with pytest.raises(InputError, match="run the stage fit first"):
        check_parts(tmp_path, PLAN, [FITS])
    write_part(tmp_path / FITS / part_name(0, CELL), [TABLE.slice(0, CELL.replicates)])
    check_parts(tmp_path, PLAN, [FITS])
    other, _ = make_plan(compose(["experiment=notebook", "model=[free]", "replicates=2"]))
    with pytest.raises(InputError, match="made for another plan"):
        check_parts(tmp_path, other, [FITS])


STARTS, _ = make_plan(
    compose(
        [
            "mixture=[overlap_low]",
            "model=[free]",
            "init=[random_points,quantiles]",
            "sample_sizes=[40,50]",
            "replicates=5",
            "starts=3",
            "schedule=converge",
        ]
    )
)


def every_fit():
    return pd.DataFrame(
        [
            (cell.id, replicate, start)
            for cell in STARTS.cells
            for replicate in range(cell.replicates)
            for start in range(cell.starts)
        ],
        columns=["cell", "replicate", "start"],
    )


def write_fits(folder, fits):
    for index, cell in enumerate(STARTS.cells):
        rows = pa.Table.from_pandas(fits[fits["cell"] == cell.id], preserve_index=False)
        rows = rows.replace_schema_metadata()
        with part_writer(folder / FITS / part_name(index, cell), rows.schema, cell) as add:
            add(rows)


@pytest.mark.parametrize("kept", [0, 1, 14, 16])
def test_parts_that_lack_fits_are_refused(tmp_path, kept):
    assert [cell.starts for cell in STARTS.cells] == [3, 1, 3, 1]
    fits = every_fit()
    write_fits(tmp_path, fits)
    check_parts(tmp_path, STARTS, [FITS])
    third = fits["cell"] == STARTS.cells[2].id
    rows = fits[third].iloc[[*range(15), 3][:kept]]
    write_fits(tmp_path, pd.concat([fits[~third], rows]))
    told = f"00002-{STARTS.cells[2].id}.parquet: has {kept} of 15 fits; run the stage fit again"
    with pytest.raises(InputError, match=re.escape(told)):
        check_parts(tmp_path, STARTS, [FITS])


@pytest.mark.parametrize(
    ("row", "column", "value", "cell"),
    [
        (0, "start", 1, 0),  # twice, and another not at all
        (16, "replicate", 0, 1),
        (25, "replicate", 5, 2),  # none that was planned
        (25, "replicate", -1, 2),
        (25, "start", 3, 2),
        (25, "start", -1, 2),
        (39, "replicate", 2**40, 3),
    ],
)
def test_fits_that_are_there_twice_are_refused(tmp_path, row, column, value, cell):
    fits = every_fit()
    check_fits(tmp_path, STARTS, fits)
    shuffled = fits[:15].sample(frac=1, random_state=1)
    check_fits(tmp_path, STARTS, pd.concat([shuffled, fits[15:]]))  # in any order within a part
    fits.loc[row, column] = value
    number = 15 if STARTS.cells[cell].starts == 3 else 5
    told = f"-{STARTS.cells[cell].id}.parquet: has {number - 1} of {number} fits; run the stage fit"
    with pytest.raises(InputError, match=re.escape(told)):
        check_fits(tmp_path, STARTS, fits)
