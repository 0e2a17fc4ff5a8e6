"""The replicate as the unit of replication: means over starts, and Monte-Carlo standard errors.

The starts of a replicate see the same data, so they are averaged first and every standard error is
taken over the R replicates that have a value. Morris, White & Crowther (2019), "Using simulation
studies to evaluate statistical methods", Statistics in Medicine 38(11), 2074-2102, Table 6.
"""

import numpy as np
import pandas as pd

from pipeline.plan import Plan

REPLICATE = ["position", "replicate"]  # a cell's place in the plan, and the data set in the cell


def in_plan_order(fits: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Sort the fits, so that sums do not depend on the order of rows, and add their position."""
    code, names = pd.factorize(fits["cell"])
    position = pd.Index([cell.id for cell in plan.cells]).get_indexer(names)[code]
    if (position < 0).any():
        raise ValueError(f"cell: got {fits['cell'][position < 0].iloc[0]!r}, which no plan has")
    order = np.lexsort((fits["start"], fits["replicate"], position))
    return fits.assign(position=position).iloc[order]


def replicate_means(values: pd.Series) -> pd.Series:
    """Return the mean over the starts of every replicate, leaving out what is missing."""
    if values.index.is_unique:
        return values  # one start each
    return values.groupby(level=REPLICATE).mean()


def mean_and_mcse(values: pd.Series, ddof: int = 1) -> tuple[pd.Series, pd.Series]:
    """Return mean and sd / sqrt(R) over the replicates of every cell; no error from R < 2."""
    by_cell = values.groupby(level="position")
    count = by_cell.count()
    return by_cell.mean(), (by_cell.std(ddof=ddof) / np.sqrt(count)).where(count > 1)


def share_and_mcse(flags: pd.Series, name: str) -> pd.DataFrame:
    """Return a cell's share p of flags that are set, and its MCSE.

    With p_r the share among the starts of replicate r, MCSE = sqrt(sum_r (p_r - p)^2) / R, which
    for one start is the binomial sqrt(p (1 - p) / R) of a coverage in Table 6.
    """
    mean, error = mean_and_mcse(replicate_means(flags.astype(float)), ddof=0)
    return pd.DataFrame({name: mean, f"{name}_mcse": error})
