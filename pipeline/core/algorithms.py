"""The algorithms: how a fit goes from one row of its trace to the next."""

from typing import NamedTuple

from pipeline.core import em
from pipeline.core.compilation import compiled
from pipeline.core.stopping import largest_change

EM = 0


class Algorithm(NamedTuple):
    """An algorithm as the loop knows it.

    ``monotone``: whether theory forbids its log-likelihood to fall.
    """

    code: int
    monotone: bool
    description: str


ALGORITHMS: dict[str, Algorithm] = {
    "em": Algorithm(EM, True, "plain Expectation-Maximization (Dempster, Laird & Rubin 1977)"),
}


@compiled
def step(algorithm, points, masses, responsibilities, counts, model, unit, theta, theta_new):
    """Fill ``theta_new`` (3, K) with the next iterate.

    Parameters
    ----------
    algorithm : int
        Code of one of ``ALGORITHMS``.
    points, masses : float64, shape (n,)
    responsibilities : float64, shape (K, n)
        At ``theta``.
    counts : float64, shape (K,)
        Effective counts at ``theta``.
    model : Model
    unit : float
        Standard deviation of the sample.
    theta, theta_new : float64, shape (3, K)

    Returns
    -------
    map_evaluations : int
        How many applications of the EM map the step took.
    residual : float
        Largest |M(theta) - theta| in units, of the last of them.
    """
    # Plain EM is the only code so far.
    em.m_step(points, masses, responsibilities, counts, model, theta, theta_new)
    return 1, largest_change(theta_new, theta, unit)
