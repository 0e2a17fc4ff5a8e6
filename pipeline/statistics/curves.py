"""Many short curves as one long table."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd


class Curve(NamedTuple):
    """The same labels for all points, and columns with one value for each."""

    labels: dict[str, str | float]
    columns: dict[str, np.ndarray]


def long_table(curves: Iterable[Curve]) -> pd.DataFrame:
    """Return one row per point: the labels of its curve, then its columns; at least one curve."""
    parts = list(curves)
    lengths = [len(next(iter(part.columns.values()))) for part in parts]
    table = {}
    for name, value in parts[0].labels.items():
        type_ = "str" if isinstance(value, str) else float
        table[name] = pd.Series([part.labels[name] for part in parts], dtype=type_).repeat(lengths)
        table[name] = table[name].reset_index(drop=True)
    for name in parts[0].columns:
        table[name] = np.concatenate([part.columns[name] for part in parts])
    return pd.DataFrame(table)
