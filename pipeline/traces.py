"""Traces of any size read a part at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import reading

# Rows of a trace whose columns are read all together.
ROWS_AT_ONCE = 1 << 20
# Row groups of a trace that are read at a time.
ROW_GROUPS = 4


def trace_columns(path: Path, replicates: int | None = None) -> Callable[[str], np.ndarray]:
    """Return a function that gives one column of a cell's traces, one value per row.

    Many rows are read a column at a time, as all columns may be too much for the memory.

    Parameters
    ----------
    replicates : int, optional
        Read only so many, the first.
    """
    with reading(path, "fit"):
        part = pq.ParquetFile(path)
    groups = list(range(part.num_row_groups))
    if replicates is not None:
        place = part.schema_arrow.get_field_index("replicate")
        groups = [k for k in groups if _least(part, k, place) < replicates]
    small = sum(part.metadata.row_group(k).num_rows for k in groups) <= ROWS_AT_ONCE
    names = [name for name in part.schema_arrow.names if name != "cell"]
    with reading(path, "fit"):
        table = part.read_row_groups(groups, columns=names, use_threads=False) if small else None

    def read(name: str) -> np.ndarray:
        with reading(path, "fit"):
            whole = part.read_row_groups(groups, columns=[name]) if table is None else table
            return whole.column(name).to_numpy()

    of_rows = read("replicate")
    within = len(of_rows) if replicates is None else int(np.searchsorted(of_rows, replicates))
    return lambda name: read(name)[:within]


def _least(part: pq.ParquetFile, group: int, column: int) -> float:
    """Return the least value of a column of integers in a row group that may be empty."""
    statistics = part.metadata.row_group(group).column(column).statistics
    return statistics.min if statistics is not None and statistics.has_min_max else -math.inf


def whole_traces(
    path: Path, columns: Sequence[str], starts: int, n_fits: int, most: int
) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield the rows of a cell's first `n_fits` fits, at most `most` fits at a time.

    A part of any size is read a few row groups at a time.

    Parameters
    ----------
    path : Path
        The cell's part of the traces.
    columns : sequence of str
        With `replicate` and `start`; fit f is start f % starts of replicate f // starts.

    Yields
    ------
    first, stop : int
        The rows are those of fits first, ..., stop - 1, each with all that it has (none for a fit
        that ended in an error).
    rows : Table
    """
    with pq.ParquetFile(path) as file:
        n_groups = file.num_row_groups
        rows = file.schema_arrow.empty_table().select(columns)
        first = group = 0
        while first < n_fits:
            read = list(range(group, min(group + ROW_GROUPS, n_groups)))
            group += len(read)
            with reading(path, "fit"):
                more = file.read_row_groups(read, columns)
            rows = pa.concat_tables([rows, more]).combine_chunks()
            fit = rows["replicate"].to_numpy() * starts + rows["start"].to_numpy()
            # The rows of the last fit may go on in the next row group.
            done = n_fits if group == n_groups else min(n_fits, int(fit[-1]))
            for low in range(first, done, most):
                high = min(low + most, done)
                at, end = np.searchsorted(fit, (low, high))
                yield low, high, rows.slice(at, end - at)
            rows, first = rows.slice(np.searchsorted(fit, done)), done
