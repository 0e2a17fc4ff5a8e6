"""The algorithms: how a fit goes from one row of its trace to the next.

Every step begins with M(theta), which the loop has made; an algorithm puts another iterate in its
place. What a step costs is counted in passes over the sample: map evaluations (the sums of an
E-step went into the iterate) and likelihood evaluations (they did not).
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pipeline.core.algorithms import anderson, quasi_newton, squared, tempered
from pipeline.core.compilation import compiled
from pipeline.core.vector import splat


class Options(NamedTuple):
    """The options of all algorithms and their defaults, as the compiled code reads them.

    ``start`` and ``growth``: the first power of annealed responsibilities and the factor by which
    an iteration raises it. ``depth``: how many differences Anderson acceleration uses.
    """

    start: float = 0.5
    growth: float = 1.1
    depth: int = 3


class Algorithm(NamedTuple):
    """An algorithm as the loop knows it.

    ``monotone``: whether its log-likelihood must not fall. ``guarded``: whether an iterate that
    lowers it is refused, and the fallback of ``refuse`` taken. ``smooth``: whether its map is the
    EM map in the end, smooth in the points, so that nodes may take their place and its fixed
    points are those of EM. ``options``: the least and the largest value of each of ``Options`` that
    it reads. ``most_components``: how many it has memory for.
    """

    monotone: bool
    guarded: bool
    smooth: bool
    description: str
    options: Mapping[str, tuple[float, float]] = MappingProxyType({})
    most_components: float = math.inf


ALGORITHMS: dict[str, Algorithm] = {
    "em": Algorithm(True, False, True, "plain Expectation-Maximization (Dempster et al. 1977)"),
    "squarem": Algorithm(
        True, True, True, "squared iterative extrapolation (Varadhan & Roland 2008)"
    ),
    "anderson": Algorithm(
        True,
        True,
        True,
        "damped Anderson acceleration (DAAREM, Henderson & Varadhan 2019)",
        {"depth": (1, 10)},
    ),
    "annealed": Algorithm(
        False,
        False,
        True,
        "deterministic annealing (Ueda & Nakano 1998)",
        {"start": (1e-3, 1.0), "growth": (1.001, 1e3)},
    ),
    "classification": Algorithm(False, False, False, "hard assignment (Celeux & Govaert 1992)"),
    "bfgs": Algorithm(
        True,
        True,
        True,
        "BFGS on the log-likelihood, gradient from the E-step (Nocedal & Wright 2006)",
        most_components=100,
    ),
}


def complete_settings(method: str, given: Mapping[str, float | None]) -> dict[str, float]:
    """Return all options of an algorithm: those given, and the defaults of the others.

    Raises
    ------
    ValueError
        Naming the option, the value got and what is allowed.
    """
    if method not in ALGORITHMS:
        raise ValueError(f"method: got {method!r}; allowed: {', '.join(ALGORITHMS)}")
    ranges = ALGORITHMS[method].options
    settings = {name: Options._field_defaults[name] for name in ranges}
    for name, value in given.items():
        if value is None:
            continue
        if name not in ranges:
            allowed = ", ".join(ranges) or "none"
            raise ValueError(f"{name}: got {value!r}; {method} has the options {allowed}")
        least, most = ranges[name]
        if not least <= value <= most:
            raise ValueError(f"{name}: got {value!r}; allowed: a number from {least:g} to {most:g}")
        settings[name] = value
    return settings


class Choice(NamedTuple):
    """The algorithm as compiled code takes it: None but for the chosen one; all None: plain EM.

    numba leaves out what is None: each algorithm has machine code of its own, made when it is
    first used.
    """

    squarem: bool | None = None
    anderson: int | None = None
    annealed: Options | None = None
    classification: bool | None = None
    bfgs: bool | None = None


def choice(algorithm: str, options: Options) -> Choice:
    """Return the choice of one of ``ALGORITHMS``."""
    values: dict[str, Any] = {
        "em": Choice(),
        "squarem": Choice(squarem=True),
        "anderson": Choice(anderson=int(options.depth)),
        "annealed": Choice(annealed=options),
        "classification": Choice(classification=True),
        "bfgs": Choice(bfgs=True),
    }
    return values[algorithm]


def first_armed(algorithm: str, options: Options) -> int:
    """Return the first iteration at which a stopping rule may stop one of ``ALGORITHMS``."""
    annealed = choice(algorithm, options).annealed
    return 1 if annealed is None else tempered.first_armed(annealed.start, annealed.growth)


@compiled
def memory_rows(squarem, depth, annealed, bfgs, n_components):
    """Return how many rows of eight an algorithm needs for itself."""
    if squarem is not None:
        return squared.memory_rows(n_components)
    if depth is not None:
        return anderson.memory_rows(depth, n_components)
    if annealed is not None:
        return tempered.memory_rows(n_components)
    if bfgs is not None:
        return quasi_newton.memory_rows(n_components)
    return 0


@compiled
def step(
    squarem, depth, annealed, classification, bfgs, problem, active, unit, theta, level, constants,
    sums, work, memory, mapped, residual,
):  # fmt: skip
    """Put the next iterate of every lane in the place of M(theta).

    Parameters
    ----------
    squarem, depth, annealed, classification, bfgs
        See ``Choice``.
    problem, active, unit, theta, constants, sums, work
        See ``pipeline.core.em_map``.
    level : vector
        The objective at theta: the log-likelihood and, if there is one, its penalty.
    memory : rows
        The algorithm's own; all 0 in a lane that begins a fit.
    mapped : rows, shape (3 * K * 8,)
        M(theta); the next iterate.
    residual : vector
        max |M(theta) - theta| in units.

    Returns
    -------
    residual : vector
        The one of the last map evaluation.
    map_evaluations, likelihood_evaluations : vector
    armed : mask
        Lanes that a stopping rule may stop.
    """
    one, zero = splat(1.0), splat(0.0)
    maps, likelihoods, armed = one, zero, zero < one
    if squarem is not None:
        residual = squared.step(
            problem, active, unit, theta, constants, sums, work, memory, mapped, residual
        )
        maps = splat(3.0)
    if depth is not None:
        anderson.step(depth, problem, active, unit, theta, level, memory, mapped)
    if annealed is not None:
        residual, likelihoods, armed = tempered.annealed(
            annealed, problem, active, unit, theta, constants, sums, work, memory, mapped, residual
        )
    if classification is not None:
        residual = tempered.classification(
            problem, active, unit, theta, constants, sums, work, mapped
        )
        likelihoods = one
    if bfgs is not None:
        quasi_newton.step(problem, unit, theta, sums, memory, mapped)
    return residual, maps, likelihoods, armed


@compiled
def accepted(bfgs, memory, level, level_before):
    """Return the lanes in which a guarded algorithm keeps the iterate with this objective."""
    if bfgs is not None:
        return quasi_newton.enough(memory, level, level_before)
    return level >= level_before


@compiled
def refuse(squarem, depth, bfgs, problem, refused, unit, memory, theta, residual):
    """Put the fallback in the place of the iterate in the refused lanes; return the residual.

    The one of BFGS is its next trial, which can be refused again.
    """
    n_components = problem.model.n_components
    if squarem is not None:
        return squared.refuse(n_components, refused, memory, theta, residual)
    if depth is not None:
        anderson.refuse(n_components, refused, memory, theta)
    if bfgs is not None:
        quasi_newton.refuse(problem, refused, unit, memory, theta)
    return residual
