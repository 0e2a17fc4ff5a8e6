"""How many replicates a wanted Monte-Carlo standard error (MCSE) needs, from a pilot's results.

    python -m pipeline.replicates_needed experiment=NAME statistic=bias_mean_0 mcse=0.005
    python -m pipeline.replicates_needed experiment=NAME        (the statistics that there are)

Options: results_dir=DIR; a results folder, such as results/NAME, may be named instead of
experiment=NAME. The pilot is what `convergence.parquet` of the folder holds.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from scipy.stats import chi2

from pipeline.command import run_command
from pipeline.console import console, show
from pipeline.errors import InputError
from pipeline.plan import FILE, read_plan
from pipeline.stages import RESULTS_DIR, folders
from pipeline.statistics.presentation import MISSING, rounded
from pipeline.statistics.sizes import is_share, replicates_behind
from pipeline.tables import read_statistics

USAGE = (
    "usage: python -m pipeline.replicates_needed experiment=NAME [results_dir=DIR] | FOLDER "
    "[statistic=NAME mcse=NUMBER]"
)
OPTIONS = ("statistic", "mcse")
FEWEST = 2  # replicates with a value, from which there is an MCSE
WIDTH = 160  # of what does not go to a terminal


def replicates_needed(
    replicates: np.ndarray,
    behind: np.ndarray,
    mcse: np.ndarray,
    wanted: float,
    share: bool = False,
) -> pd.DataFrame:
    """Return how many replicates give the wanted MCSE, with a 95 % range.

    Parameters
    ----------
    replicates : shape (C,)
        Of the pilot, in every cell.
    behind : shape (C,)
        R, those of them that have a value of the statistic; in a larger study as large a part.
    mcse : shape (C,)
        Of the pilot.
    wanted : float
        In the statistic's unit.
    share : bool
        Whether the statistic is one: no number is then above that of `most_for_a_share`.

    Returns
    -------
    DataFrame
        `needed` = R (mcse / wanted)^2 replicates with a value, as an MCSE falls like 1/sqrt(R),
        times `replicates` / R, as so many must be made for one that has a value; rounded up. `low`
        and `high`: the same from the ends of the 95 % interval of the variance that R values
        estimated, (R - 1) s^2 / chi-square, for values that are normal. Missing where the pilot
        has no MCSE (R < 2), or one of 0: of values that never differed nothing can be said. At
        least two with a value, as one has no MCSE.

    Notes
    -----
    Morris, White & Crowther (2019), Section 5.3.
    """
    known = np.where((mcse > 0) & (behind > 1), mcse, np.nan)
    values = behind * (known / wanted) ** 2
    freedom = np.maximum(behind - 1, 1)
    low, high = (values * freedom / chi2.ppf(end, freedom) for end in (0.975, 0.025))
    planned = replicates / np.maximum(behind, 1)
    most = _most(wanted) if share else math.inf
    return pd.DataFrame(
        {
            name: _whole(np.clip(number, FEWEST, most) * planned)
            for name, number in (("needed", values), ("low", low), ("high", high))
        }
    )


def most_for_a_share(replicates: np.ndarray, behind: np.ndarray, wanted: float) -> float:
    """Return how many replicates give a share the wanted MCSE, whatever it is, in every cell.

    The variance of values between 0 and 1 is at most 1/4, so that 1 / (4 wanted^2) replicates with
    a value are enough; times `replicates` / R as in `replicates_needed`. Cells without a value tell
    nothing; missing where no cell has one.
    """
    some = behind > 0
    planned = replicates[some] / behind[some]
    return float(_whole(_most(wanted) * planned.max())) if some.any() else math.nan


def _most(wanted: float) -> float:
    """Return how many values between 0 and 1 give their mean the wanted MCSE, whatever they are."""
    return max(0.25 / wanted**2, FEWEST)


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Round up, but for rounding errors, which must not ask for one more."""
    return np.ceil(numbers * (1.0 - 1e-12))


def _statistics(convergence: pd.DataFrame) -> list[str]:
    """Return the statistics with an MCSE, without parameters that never differ: fixed ones."""
    largest = convergence.filter(regex="_mcse$").max()
    names = [(name.removesuffix("_mcse"), error) for name, error in largest.dropna().items()]
    return [name for name, error in names if error > 0.0 or is_share(name)]


def _listed(convergence: pd.DataFrame) -> Table:
    table = Table("statistic", "cells with an MCSE", "smallest MCSE", "largest MCSE")
    for name in _statistics(convergence):
        errors = convergence[f"{name}_mcse"].dropna()
        table.add_row(name, str(len(errors)), rounded(errors.min()), rounded(errors.max()))
    return table


def _sizes(convergence: pd.DataFrame, statistic: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the replicates of every cell, and those with a value of the statistic."""
    return tuple(convergence[n].to_numpy() for n in ("replicates", replicates_behind(statistic)))


def _shown(convergence: pd.DataFrame, statistic: str, wanted: float) -> Table:
    errors = convergence[f"{statistic}_mcse"].to_numpy(float)
    replicates, behind = _sizes(convergence, statistic)
    found = replicates_needed(replicates, behind, errors, wanted, is_share(statistic))
    title = f"replicates for an MCSE of {wanted:g} of {statistic}"
    table = Table(title=title, show_footer=True)
    most = found["needed"].max()
    every = "in every cell" if found["needed"].notna().all() else "in every cell with a number"
    table.add_column("cell", every, overflow="fold")
    table.add_column("replicates", justify="right")
    table.add_column("with a value", justify="right")
    table.add_column(statistic, justify="right")
    table.add_column("MCSE", justify="right")
    table.add_column("needed", MISSING if math.isnan(most) else f"{most:,.0f}", justify="right")
    table.add_column("95 % range", justify="right")
    rows = zip(found.itertuples(), behind, convergence.iterrows(), strict=True)
    for row, values, (_, cell) in rows:
        known = not math.isnan(row.needed)
        table.add_row(
            cell["cell"],
            f"{cell['replicates']:,}",
            f"{values:,}",
            rounded(cell[statistic]),
            rounded(cell[f"{statistic}_mcse"]),
            f"{row.needed:,.0f}" if known else MISSING,
            f"{row.low:,.0f} to {row.high:,.0f}" if known else MISSING,
        )
    return table


def _pilot(folder: Path) -> pd.DataFrame:
    if not (folder / FILE).is_file():
        elsewhere = "" if folder.parent == Path(RESULTS_DIR) else f" results_dir={folder.parent}"
        raise InputError(
            f"{folder}: no pilot; make one with "
            f"python -m pipeline experiment={folder.name} replicates=NUMBER{elsewhere}"
        )
    return read_statistics(folder, read_plan(folder))


def _wanted(text: str) -> float:
    try:
        wanted = float(text)
    except ValueError:
        wanted = math.nan
    if not 0 < wanted < math.inf:
        raise InputError(f"mcse: got {text!r}; allowed: a number above 0")
    return wanted


def main(arguments: Sequence[str]) -> int:
    """Print the table that the command line asks for."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    split = [argument.partition("=") for argument in arguments]
    options = {key: value for key, equals, value in split if equals and key in OPTIONS}
    where = folders([a for a in arguments if a.partition("=")[0] not in OPTIONS])
    if len(where) != 1 or len(options) == 1:
        raise InputError(USAGE)
    convergence = _pilot(where[0])
    if not _statistics(convergence):
        raise InputError(
            f"{where[0]}: no statistic has a standard error; allowed: a pilot of two replicates "
            "or more"
        )
    page = console(WIDTH)
    if not options:
        show(page, _listed(convergence))
        return 0
    wanted, statistic = _wanted(options["mcse"]), options["statistic"]
    if statistic not in _statistics(convergence):
        raise InputError(
            f"statistic: got {statistic!r}; allowed: one that has an MCSE, as listed by "
            f"python -m pipeline.replicates_needed {' '.join(map(str, where))}"
        )
    show(page, _shown(convergence, statistic, wanted))
    if is_share(statistic):
        most = most_for_a_share(*_sizes(convergence, statistic), wanted)
        if not math.isnan(most):
            show(page, f"A share never needs more than {most:,.0f} replicates.")
    show(
        page,
        f"{MISSING}: the pilot has no MCSE, or its values do not differ. The range is that of the "
        "pilot's variance, for values that are normal. Replicates without a value are taken to be "
        "as frequent as in the pilot.",
    )
    return 0


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
