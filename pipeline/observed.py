"""Real data: one column of a file."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError


def read_observed(key: str, observed: dict[str, Any]) -> np.ndarray:
    """Read a column of a CSV or Parquet file as float64, shape (n,).

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
    try:
        table = read(path)
    except FileNotFoundError as error:
        raise InputError(f"{key}.path: got {str(path)!r}; no such file") from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{key}.path: {str(path)!r} cannot be read: {reason}") from error
    column = observed["column"]
    if column not in table:
        names = ", ".join(map(str, table.columns))
        raise InputError(f"{key}.column: got {column!r}; allowed: {names}")
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(float, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        got = table[column].iloc[bad[0]]
        raise InputError(
            f"{key}: row {bad[0]} of column {column!r} in {path} is {got!r}; "
            f"allowed: finite numbers ({bad.size} of {values.size} rows are not)"
        )
    if not values.size:
        raise InputError(f"{key}: column {column!r} in {path} is empty; allowed: numbers")
    return values


def observed_key(values: np.ndarray) -> str:
    """Return the identity of observed data: the hash of its values, 32 hex digits."""
    return hashlib.sha256(values.tobytes()).hexdigest()[:32]
