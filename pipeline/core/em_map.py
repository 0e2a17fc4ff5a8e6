"""The EM map on the lanes: one E-step and one M-step, however the lanes are laid out."""

from typing import NamedTuple

from pipeline.core import em
from pipeline.core.compilation import compiled
from pipeline.core.model import Model
from pipeline.core.vector import LANES, bits, lane_sum, load, mask_of, rows_from, select, store


class Problem(NamedTuple):
    """What is fitted in the lanes.

    The sample, whether it is one fit's, the model, the total mass; what keeps scales from 0, each
    None where there is none (see ``pipeline.core.em.m_step``).
    """

    sample: em.Sample
    all_lanes: bool
    model: Model
    mass: float
    floor: float | None
    penalty: float | None


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
    sums : rows, shape (3 * K * 8,)
        Left as they are.
    work : rows, shape (7 * K * 8,)
        Scratch.
    mapped : rows, shape (3 * K * 8,)
    """
    model, n_components = problem.model, problem.model.n_components
    floor, penalty = problem.floor, problem.penalty
    lost = em.m_step(model, problem.mass, sums, theta, unit, floor, penalty, mapped)
    cancelled = active & bits(lost)
    if cancelled:
        # Those about theta may still be needed.
        about_mapped = rows_from(work, 4 * LANES * n_components)
        em.accumulate(problem.sample, n_components, theta, mapped, constants, about_mapped, work)
        if problem.all_lanes:
            em.add_lanes(n_components, about_mapped)
            cancelled = (1 << LANES) - 1
        em.m_step(model, problem.mass, about_mapped, mapped, unit, floor, penalty, work)
        chosen = mask_of(cancelled)
        for j in range(0, 3 * LANES * n_components, LANES):
            store(mapped, j, select(chosen, load(work, j), load(mapped, j)))
    return em.largest_change(n_components, mapped, theta, unit)
