"""The column contracts of fits and traces, and their Parquet data sets."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.checks import MEASURES
from pipeline.core.distances import Distances
from pipeline.core.outcomes import Outcome
from pipeline.errors import InputError
from pipeline.files import atomic_write, reading, remove_others
from pipeline.plan import Cell, Plan

FITS = "fits"
TRACES = "traces"
STATISTICS = "convergence.parquet"
REPLAY = "replay.parquet"
# Key of a Parquet file's metadata: what the file was made from.
CONTENT = "content"
# Rows of a row group: fixed, so that a file does not depend on how its rows were computed.
ROW_GROUP = 1 << 17

OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)
LABELS = ("mixture", "observed", "model", "sample_size", "init", "algorithm")


def parameter_columns(n_components: int) -> list[str]:
    """Return `weight_0 … mean_0 … scale_0 …` for this many components."""
    return [f"{p}_{k}" for p in ("weight", "mean", "scale") for k in range(n_components)]


def measure_columns(measure: str, n_components: int) -> list[str]:
    """Return the columns that an entry of the config key `measures` adds to the fits table."""
    if measure == "wald":
        return [f"se_{name}" for name in parameter_columns(n_components)]
    return list(Distances._fields)


def fits_schema(
    n_components: int, population: bool = False, measures: Sequence[str] = ()
) -> pa.Schema:
    """Return the schema of the fits table; columns of absent components are null.

    The sample size is an integer, but in a study with a population, whose size is infinite. The
    columns of `measures` come last, in an order that theirs does not change.
    """
    text, integer, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        ("cell", text),
        ("mixture", text),
        ("observed", text),
        ("model", text),
        ("sample_size", real if population else integer),
        ("init", text),
        ("algorithm", text),
        ("replicate", integer),
        ("start", integer),
        ("fit_id", text),
        ("outcome", text),
        ("n_iter", integer),
        ("map_evaluations", integer),
        ("log_likelihood", real),
        ("log_likelihood_start", real),
        ("log_likelihood_truth", real),
        *((name, real) for name in parameter_columns(n_components)),
        ("relabelled", pa.bool_()),
        ("rate_observed", real),
        ("rate_theory", real),
        ("map_residual", real),
        ("compression_error_bound", real),
        ("likelihood_evaluations", integer),
        ("n_floored", integer),
        ("log_penalty", real),
        ("stop_rule", text),
        ("stop_value", real),
        ("sample_scale", real),
        ("aic", real),
        ("bic", real),
        ("icl", real),
        *(
            (name, real)
            for measure in MEASURES
            if measure in measures
            for name in measure_columns(measure, n_components)
        ),
    ]
    return pa.schema(fields)


def traces_schema(n_components: int) -> pa.Schema:
    """Return the schema of the traces table."""
    integer, real = pa.int64(), pa.float64()
    fields = [
        ("cell", pa.string()),
        ("replicate", integer),
        ("start", integer),
        ("iteration", integer),
        ("map_evaluations", integer),
        ("log_likelihood", real),
        ("map_residual", real),
        ("parameter_change", real),
        *((name, real) for name in parameter_columns(n_components)),
    ]
    return pa.schema(fields)


def replay_schema(n_components: int) -> pa.Schema:
    """Return the schema of the table of replayed stopping rules."""
    text, integer, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        ("cell", text),
        ("replicate", integer),
        ("start", integer),
        ("fit_id", text),
        ("stop_rule", text),
        ("tolerance", real),
        ("patience", integer),
        ("outcome", text),
        ("n_iter", integer),
        ("map_evaluations", integer),
        ("log_likelihood", real),
        ("stop_value", real),
        *((name, real) for name in parameter_columns(n_components)),
        ("distance_to_fixed_point", real),
        ("distance_to_truth", real),
        ("log_likelihood_lost", real),
    ]
    return pa.schema(fields)


def fit_id(cell_id: str, replicate: int, start: int) -> str:
    """Return the name of a fit."""
    return f"{cell_id}-r{replicate}-s{start}"


def parse_fit_id(name: str) -> tuple[str, int, int]:
    """Return (cell id, replicate, start) of a fit's name.

    Raises
    ------
    ValueError
        If the name is not of the form that `fit_id` makes.
    """
    cell_id, replicate, start = name.rsplit("-", 2)
    if fit_id(cell_id, int(replicate[1:]), int(start[1:])) != name:
        raise ValueError(f"{name!r} is not of the form <cell>-r<replicate>-s<start>")
    return cell_id, int(replicate[1:]), int(start[1:])


def labelled(table: pa.Table, cell: Cell, schema: pa.Schema) -> pa.Table:
    """Give a stored table its cell's labels and the columns of `schema`, absent ones null."""
    n = table.num_rows
    stored = dict(zip(table.column_names, table.columns, strict=True))
    columns = []
    for name, type_ in zip(schema.names, schema.types, strict=True):
        if name in stored:
            column = stored[name]
            columns.append(column if column.type == type_ else column.cast(type_))
        elif name == "cell":
            columns.append(pa.repeat(pa.scalar(cell.id), n))
        elif name == "fit_id":
            ends = [f"{cell.id}-r", table["replicate"].cast(pa.string())]
            ends += ["-s", table["start"].cast(pa.string()), ""]
            columns.append(pc.binary_join_element_wise(*ends))
        elif name in LABELS:
            columns.append(pa.repeat(pa.scalar(getattr(cell, name), type_), n))
        else:
            columns.append(pa.nulls(n, type_))
    return pa.table(columns, schema=schema)


@contextmanager
def part_writer(path: Path, schema: pa.Schema, cell: Cell) -> Iterator[Callable[[pa.Table], None]]:
    """Yield what labels and adds stored rows to a cell's Parquet file, written whole or not at all.

    Row groups have `ROW_GROUP` rows and no chunks of their own: the bytes do not tell in which
    pieces the rows came. The file's metadata holds the cell's content.
    """
    schema = schema.with_metadata({CONTENT: _content(cell)})
    waiting: list[pa.Table] = []
    with (
        atomic_write(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        # Without dictionaries, as numbers hardly repeat: the file is smaller and sooner written.
        # With lz4 it is an eighth larger than with zstd, and written and read in half the time.
        pq.ParquetWriter(file, schema, compression="lz4", use_dictionary=False) as writer,
    ):

        def group(rows: pa.Table) -> None:
            writer.write_table(labelled(rows, cell, schema), ROW_GROUP)

        def add(rows: pa.Table) -> None:
            waiting.append(rows)
            while sum(table.num_rows for table in waiting) >= ROW_GROUP:
                together = pa.concat_tables(waiting).combine_chunks()
                group(together.slice(0, ROW_GROUP))
                waiting[:] = [together.slice(ROW_GROUP)]

        yield add
        group(pa.concat_tables(waiting).combine_chunks() if waiting else schema.empty_table())


def _content(cell: Cell) -> str:
    return f"{cell.content} {cell.replicates} {cell.starts}"


def check_parts(folder: Path, plan: Plan, data_sets: Sequence[str]) -> None:
    """Refuse fits or traces that were not made for this plan.

    Raises
    ------
    InputError
        If a part is missing, unreadable or of other content, or one of fits has not every fit.
    """
    for data_set in data_sets:
        for index, cell in enumerate(plan.cells):
            path = folder / data_set / part_name(index, cell)
            with reading(path, "fit"):
                written = pq.read_metadata(path)
            if (written.metadata or {}).get(CONTENT.encode()) != _content(cell).encode():
                raise InputError(f"{path}: made for another plan; run the stage fit again")
            if data_set == FITS:
                _check_count(path, written.num_rows, cell)


def check_fits(folder: Path, plan: Plan, fits: pd.DataFrame) -> None:
    """Refuse fits of which some are there twice and others not at all.

    Parameters
    ----------
    fits : DataFrame
        What `read_fits` gave of parts that `check_parts` lets pass, with columns `replicate` and
        `start`.

    Raises
    ------
    InputError
        Naming the first part that has not every fit.
    """
    planned = np.array([cell.replicates * cell.starts for cell in plan.cells])
    first = np.cumsum(planned) - planned
    starts = np.repeat([cell.starts for cell in plan.cells], planned)
    replicate, start = (fits[name].to_numpy() for name in ("replicate", "start"))
    number = replicate * starts + start
    known = (start >= 0) & (start < starts) & (number >= 0) & (number < np.repeat(planned, planned))
    there = np.zeros(len(fits), bool)
    there[(np.repeat(first, planned) + number)[known]] = True
    counts = np.add.reduceat(there, first, dtype=int)
    for index in np.flatnonzero(counts != planned)[:1]:
        cell = plan.cells[index]
        _check_count(folder / FITS / part_name(index, cell), counts[index], cell)


def _check_count(path: Path, number: int, cell: Cell) -> None:
    planned = cell.replicates * cell.starts
    if number != planned:
        raise InputError(f"{path}: has {number} of {planned} fits; run the stage fit again")


def write_statistics(path: Path, table: pd.DataFrame, plan: Plan) -> None:
    """Write `convergence.parquet` with the identity of what it was made from."""
    rows = pa.Table.from_pandas(table, preserve_index=False)
    identity = {CONTENT: plan.hashes["aggregate"]}
    with atomic_write(path) as temporary:
        pq.write_table(
            rows.replace_schema_metadata((rows.schema.metadata or {}) | identity), temporary
        )


def read_statistics(folder: Path, plan: Plan) -> pd.DataFrame:
    """Read `convergence.parquet`.

    Raises
    ------
    InputError
        If it is missing, or was not made for this plan.
    """
    path = folder / STATISTICS
    with reading(path, "aggregate"):
        rows = pq.ParquetFile(path).read()
    if rows.schema.metadata.get(CONTENT.encode()) != plan.hashes["aggregate"].encode():
        raise InputError(f"{path}: made for another plan; run the stage aggregate again")
    return rows.to_pandas()


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """Read a table that the stage aggregate wrote, `<name>.parquet`.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    path = folder / f"{name}.parquet"
    with reading(path, "aggregate"):
        return pd.read_parquet(path)


def part_name(index: int, cell: Cell) -> str:
    """Return the file name of a cell's part of a data set; parts sort in plan order."""
    return f"{index:05d}-{cell.id}.parquet"


def remove_other_parts(folder: Path, plan: Plan) -> None:
    """Remove the parts of cells that the plan does not have."""
    names = {part_name(index, cell) for index, cell in enumerate(plan.cells)}
    for data_set in (FITS, TRACES):
        remove_others(folder / data_set, names)


def read_fits(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the fits of a results folder, one row per fit, in plan order."""
    return _read(folder / FITS, columns)


def fits_columns(folder: Path, plan: Plan) -> list[str]:
    """Return the columns that the fits of a results folder have."""
    path = folder / FITS / part_name(0, plan.cells[0])
    with reading(path, "fit"):
        return pq.read_schema(path).names


def read_traces(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the traces of a results folder, one row per recorded (fit, iteration)."""
    return _read(folder / TRACES, columns)


def _read(path: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; run the stage fit first")
    with reading(path, "fit"):
        return pd.read_parquet(path, columns=None if columns is None else list(columns))
