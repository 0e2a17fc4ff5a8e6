"""Real data: one column of a file."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import CONF
from pipeline.errors import InputError


def find(path: Path) -> Path:
    """Return where a data file is: as given, or else the project's own, beside `conf/`.

    An absolute path, and one that exists from the working directory, is itself.
    """
    shipped = CONF.parent / path
    return path if path.exists() or not shipped.exists() else shipped


def read_observed(key: str, observed: dict[str, Any]) -> np.ndarray:
    """Read a column of a CSV or Parquet file as float64, shape (n,).

    A relative path is looked for in the working directory, then in the project's folder.

    Raises
    ------
    InputError
        If the file or column is missing, or a value is not a finite number.
    """
    import pandas as pd

    path = Path(observed["path"])
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}.get(path.suffix)
    if read is None:
        raise InputError(f"{key}.path: got {str(path)!r}; allowed: a .csv or .parquet file")
    place = find(path)
    if not place.is_file():
        raise InputError(f"{key}.path: got {str(path)!r}; no such file")
    try:
        table = read(place)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{key}.path: {str(path)!r} cannot be read: {reason}") from error
    column = observed["column"]
    if column not in table:
        names = ", ".join(map(str, table.columns))
        raise InputError(f"{key}.column: got {column!r}; allowed: {names}")
    if not len(table):
        raise InputError(f"{key}: column {column!r} in {path} is empty; allowed: numbers")
    values = table[column]
    kind = values.dtype
    if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
        numbers = pd.to_numeric(values.astype(str), errors="coerce")
        first = values[numbers.isna()].iloc[0] if numbers.isna().any() else values.iloc[0]
        raise InputError(
            f"{key}: column {column!r} in {path} is of type {kind}, with {first!r}; "
            "allowed: finite numbers"
        )
    # A copy: for pandas' read-only arrays every compiled function would be compiled once more.
    numbers = np.array(values.to_numpy(float, na_value=np.nan))
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        raise InputError(
            f"{key}: row {bad[0]} of column {column!r} in {path} is {float(numbers[bad[0]])}; "
            f"allowed: finite numbers ({bad.size} of {numbers.size} rows are not)"
        )
    return numbers


def observed_key(values: np.ndarray) -> str:
    """Return the identity of observed data: the hash of its values, 32 hex digits."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:32]
