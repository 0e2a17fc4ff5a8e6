"""What the traces of many fits have in common."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def gap_quantiles(
    traces: pd.DataFrame, iterations: np.ndarray, quantiles: Sequence[float] = (0.1, 0.5, 0.9)
) -> np.ndarray:
    """Return the quantiles over fits of the gap log L(last row) - log L(theta_t), per iteration t.

    A fit that has stopped stays at its last row (gap 0); an iteration that a thinned trace left
    out has the value of the last recorded one before it. Fits whose last log-likelihood is missing
    are left out.

    Parameters
    ----------
    traces
        One cell's rows: replicate, start, iteration, log_likelihood, sorted by these.
    iterations
        Shape (m,).

    Returns
    -------
    ndarray, shape (len(quantiles), m), in units of log-likelihood; empty of fits: nan.
    """
    fit = traces.groupby(["replicate", "start"], sort=False).ngroup().to_numpy()
    at = traces["iteration"].to_numpy()
    log_likelihood = traces["log_likelihood"].to_numpy(dtype=float)
    if not len(fit):
        return np.full((len(quantiles), len(iterations)), np.nan)
    last_row = np.flatnonzero(np.append(np.diff(fit) != 0, True))
    # One sorted key for (fit, iteration), so that one search serves every fit.
    stride = max(int(at.max()), int(np.max(iterations))) + 1
    wanted = np.arange(len(last_row))[:, None] * stride + np.asarray(iterations)
    rows = np.searchsorted(fit * stride + at, wanted, side="right") - 1
    gaps = log_likelihood[last_row][:, None] - log_likelihood[rows]
    gaps = gaps[np.isfinite(gaps).all(axis=1)]
    if not len(gaps):
        return np.full((len(quantiles), len(iterations)), np.nan)
    return np.quantile(gaps, quantiles, axis=0)
