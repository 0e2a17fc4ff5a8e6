"""The algorithms: how a fit goes from one row of its trace to the next."""

from typing import NamedTuple

from pipeline.core import em
from pipeline.core.compilation import compiled
from pipeline.core.vector import LANES, bits

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
def step(
    algorithm, x, masses, plain_rows, all_lanes, active, model, fixed_scales, total, unit,
    theta_1, constants, sums, work, theta,
):  # fmt: skip
    """Fill ``theta`` with the next iterate of every lane.

    Parameters
    ----------
    algorithm : int
        Code of one of ``ALGORITHMS``.
    x, masses, plain_rows, constants, work
        See ``pipeline.core.em.accumulate``.
    all_lanes : bool
        Whether the lanes are one fit.
    active : int
        Bit i: whether lane i runs a fit.
    model, fixed_scales, total
        See ``pipeline.core.em.m_step``.
    unit : vector
        Standard deviation of the samples.
    theta_1 : float64, shape (3 * K * 8,)
        The current iterate; ``sums`` and ``constants`` are at it.
    theta : float64, shape (3 * K * 8,)

    Returns
    -------
    residual : vector
        Largest |M(theta) - theta| in units, of the last map evaluation.
    map_evaluations : int
        How many applications of the EM map the step took.
    """
    # Plain EM is the only code so far.
    cancelled = active & bits(em.m_step(model, fixed_scales, total, sums, theta_1, theta))
    if cancelled:
        about, again = theta.copy(), theta.copy()
        em.accumulate(x, masses, plain_rows, theta_1, about, constants, sums, work)
        if all_lanes:
            em.add_lanes(sums)
            cancelled = (1 << LANES) - 1
        em.m_step(model, fixed_scales, total, sums, about, again)
        for i in range(theta.size):
            if (cancelled >> (i % LANES)) & 1:
                theta[i] = again[i]
    return em.largest_change(theta, theta_1, unit), 1
