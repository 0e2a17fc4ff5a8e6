"""What the statistics of `convergence` are made of: the fits and the replicates behind a number."""

from pipeline.statistics.cells import RATES
from pipeline.statistics.measures import CONVERGED, DISTANCES

# Statistics that are made of Wald standard errors.
FROM_WALD = ("coverage_", "model_se_")
# Over fits that are not degenerate; converged fits never are.
LOG_LIKELIHOODS = ("log_likelihood_mean", "mean_log_likelihood")
# Counts and shares of fits: every fit has a value.
COUNTED = ("n_", "map_evaluations", "expected_running_time")


def is_share(statistic: str) -> bool:
    """Tell whether a statistic is a share of fits."""
    return statistic.endswith("_share") or statistic.startswith("coverage_")


def fits_behind(statistic: str) -> str:
    """Return the column that counts the fits with the value that a statistic is made of."""
    basis = _basis(statistic)
    return f"n_{basis}" if basis else "n_fits"


def replicates_behind(statistic: str) -> str:
    """Return the column that counts the replicates with such a fit, the R of a statistic."""
    basis = _basis(statistic)
    return f"replicates_{basis}" if basis else "replicates"


def _basis(statistic: str) -> str:
    """Return what the names of both counts end in; nothing where all fits count."""
    if statistic.startswith(COUNTED) or statistic.endswith("_share"):
        return ""
    if statistic.removesuffix("_mean") in RATES:
        return statistic.removesuffix("_mean")
    plain = statistic.removesuffix(CONVERGED)
    among = statistic[len(plain) :]
    if plain in LOG_LIKELIHOODS and not among:
        return "log_likelihood"
    if plain.startswith(FROM_WALD):
        return f"wald{among}"
    if plain in DISTANCES:
        return f"distances{among}"
    return f"finite{among}"
