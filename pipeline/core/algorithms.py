"""The algorithms: how a fit goes from one row of its trace to the next."""

from typing import NamedTuple

from pipeline.core import em
from pipeline.core.compilation import compiled
from pipeline.core.vector import LANES, bits, load, mask_of, select, store

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
    algorithm, sample, all_lanes, active, model, total, unit, theta_1, constants, sums, work,
    theta,
):  # fmt: skip
    """Fill ``theta`` with the next iterate of every lane.

    Parameters
    ----------
    algorithm : int
        Code of one of ``ALGORITHMS``.
    sample, constants, work
        See ``pipeline.core.em.accumulate``.
    all_lanes : bool
        Whether the lanes are one fit.
    active : int
        Bit i: whether lane i runs a fit.
    model, total
        See ``pipeline.core.em.m_step``.
    unit : vector
        Standard deviation of the samples.
    theta_1 : rows, shape (3 * K * 8,)
        The current iterate; ``sums`` and ``constants`` are at it.
    theta : rows, shape (3 * K * 8,)

    Returns
    -------
    residual : vector
        Largest |M(theta) - theta| in units, of the last map evaluation.
    map_evaluations : int
        How many applications of the EM map the step took.
    """
    # Plain EM is the only code so far.
    n_components = model.n_components
    cancelled = active & bits(em.m_step(model, total, sums, theta_1, theta))
    if cancelled:
        em.accumulate(sample, n_components, theta_1, theta, constants, sums, work)
        if all_lanes:
            em.add_lanes(n_components, sums)
            cancelled = (1 << LANES) - 1
        em.m_step(model, total, sums, theta, work)
        chosen = mask_of(cancelled)
        for j in range(0, 3 * LANES * n_components, LANES):
            store(theta, j, select(chosen, load(work, j), load(theta, j)))
    return em.largest_change(n_components, theta, theta_1, unit), 1
