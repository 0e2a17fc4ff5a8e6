"""The EM map on the lanes: one E-step and one M-step, however the lanes are laid out."""

from typing import NamedTuple

from pipeline.core import em
from pipeline.core.compilation import compiled
from pipeline.core.model import Model
from pipeline.core.vector import LANES, bits, lane_sum, load, mask_of, select, store


class Problem(NamedTuple):
    """What is fitted in the lanes: the sample, whether it is one fit's, the model, the mass."""

    sample: em.Sample
    all_lanes: bool
    model: Model
    mass: float


@compiled
def e_step(problem, theta, constants, sums, work):
    """Fill ``constants`` and ``sums`` at ``theta`` and return the log2-density of each lane.

    Rows are those of ``pipeline.core.em.accumulate``; the sums are about the means of ``theta``.
    """
    n_components = problem.model.n_components
    em.set_constants(n_components, theta, constants)
    return expect(problem, theta, constants, sums, work)


@compiled
def expect(problem, theta, constants, sums, work):
    """Do what ``e_step`` does, with constants that are there already."""
    n_components = problem.model.n_components
    density = em.accumulate(problem.sample, n_components, theta, None, constants, sums, work)
    if problem.all_lanes:
        em.add_lanes(n_components, sums)
        density = lane_sum(density)
    return density


@compiled
def em_map(problem, active, unit, theta, constants, sums, work, mapped):
    """Fill ``mapped`` with M(theta) and return max |M(theta) - theta| in units.

    Parameters
    ----------
    problem : Problem
    active : int
        Bit i: whether lane i runs a fit.
    unit : vector
        Standard deviation of the samples.
    theta : rows, shape (3 * K * 8,)
        ``constants`` and ``sums`` are at it.
    mapped : rows, shape (3 * K * 8,)
    """
    model, n_components = problem.model, problem.model.n_components
    cancelled = active & bits(em.m_step(model, problem.mass, sums, theta, mapped))
    if cancelled:
        em.accumulate(problem.sample, n_components, theta, mapped, constants, sums, work)
        if problem.all_lanes:
            em.add_lanes(n_components, sums)
            cancelled = (1 << LANES) - 1
        em.m_step(model, problem.mass, sums, mapped, work)
        chosen = mask_of(cancelled)
        for j in range(0, 3 * LANES * n_components, LANES):
            store(mapped, j, select(chosen, load(work, j), load(mapped, j)))
    return em.largest_change(n_components, mapped, theta, unit)
