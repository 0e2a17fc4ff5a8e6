"""One fit again, alone.

python -m pipeline.replay experiment=NAME fit_id=ID [results_dir=DIR]

Draws the fit's sample and start anew from its identity, runs EM, prints the
trace, and says whether it equals the recorded one, to the last bit. The column
`fit_id` of `fits/` holds the identities: <cell>-r<replicate>-s<start>.
"""

import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.blocks import fit_block
from pipeline.command import EXIT_ERROR, run_command
from pipeline.console import counted
from pipeline.core.random import key_from_hex
from pipeline.core.sampling import draw
from pipeline.errors import InputError
from pipeline.plan import Cell, Plan, read_plan, read_planned, truth
from pipeline.stages import folders
from pipeline.store import Block
from pipeline.tables import (
    fits_schema,
    labelled,
    parse_fit_id,
    read_fits,
    read_traces,
    traces_schema,
)

LABEL = "fit_id="


def replayed(
    plan: Plan, cell: Cell, replicate: int, start: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run one fit of a plan alone and return its row of fits and its rows of traces."""
    # The trace is wanted even of a replicate whose trace the study did not keep.
    config = copy.deepcopy(plan.config)
    config["schedule"]["record_replicates"] = "all"
    data = plan.data_set(cell)
    if data.observed is not None:
        points = read_planned(data, config["observed"][data.observed])[None, :]
    elif data.file is None:
        points = None
    else:
        mixture = config["mixture"][data.mixture]
        key, rows = key_from_hex(data.key), np.array([replicate])
        points = draw(key, rows, data.n_points, *truth(mixture), mixture["allocation"])
    block = Block(replicate, replicate + 1, start, start + 1)
    fits, traces = fit_block(replace(plan, config=config), cell, points, block)
    schema = fits_schema(plan.n_components, plan.has_population, config["measures"])
    return (
        labelled(fits, cell, schema).to_pandas(),
        labelled(traces, cell, traces_schema(plan.n_components)).to_pandas(),
    )


def same_bits(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    """Return whether two tables of one schema are equal, missing values included."""
    tables = [pa.Table.from_pandas(table, preserve_index=False) for table in (left, right)]
    return tables[0].equals(tables[1].cast(tables[0].schema))


def _cell(plan: Plan, name: str) -> tuple[Cell, int, int]:
    try:
        cell_id, replicate, start = parse_fit_id(name)
    except ValueError as error:
        raise InputError(f"fit_id: got {name!r}; allowed: <cell>-r<replicate>-s<start>") from error
    cell = next((cell for cell in plan.cells if cell.id == cell_id), None)
    if cell is None:
        ids = ", ".join(cell.id for cell in plan.cells[:6])
        more = f" and {len(plan.cells) - 6} more" if len(plan.cells) > 6 else ""
        raise InputError(f"fit_id: no cell {cell_id!r} in the plan; allowed: {ids}{more}")
    if not (0 <= replicate < cell.replicates and 0 <= start < cell.starts):
        allowed = f"r0 to r{cell.replicates - 1}, s0 to s{cell.starts - 1}"
        raise InputError(f"fit_id: got replicate {replicate}, start {start}; allowed: {allowed}")
    return cell, replicate, start


def main(arguments: Sequence[str]) -> int:
    """Replay the fit that the command line names; return 0 if it equals the record, else 1."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    names = [a.removeprefix(LABEL) for a in arguments if a.startswith(LABEL)]
    where = folders([a for a in arguments if not a.startswith(LABEL)])
    if len(names) != 1 or len(where) != 1:
        raise InputError("usage: python -m pipeline.replay experiment=NAME fit_id=ID")
    folder: Path = where[0]
    plan = read_plan(folder)
    cell, replicate, start = _cell(plan, names[0])
    fit, trace = replayed(plan, cell, replicate, start)

    with pd.option_context("display.width", 200, "display.max_columns", None):
        shown = trace.drop(columns=["cell", "replicate", "start"]).dropna(axis="columns", how="all")
        print(shown.to_string(index=False))
    row = fit.iloc[0]
    print(f"outcome {row['outcome']} after {counted(row['n_iter'], 'iteration')}")

    fits, traces = read_fits(folder), read_traces(folder)
    recorded_fit = fits[fits["fit_id"] == names[0]]
    is_its = (traces["replicate"] == replicate) & (traces["start"] == start)
    recorded = traces[is_its & (traces["cell"] == cell.id)]
    again = trace[trace["iteration"].isin(recorded["iteration"])]
    if same_bits(fit, recorded_fit) and same_bits(again, recorded):
        print(f"equal to the recorded fit, bit by bit ({counted(len(recorded), 'recorded row')})")
        return 0
    print("NOT equal to the recorded fit: were the files made by another version of the core?")
    return EXIT_ERROR


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
