"""What an init is, what it may use, and which ones there are."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core import random
from pipeline.core.mixture import Parameters
from pipeline.core.model import Model

Options = Mapping[str, Any]


class Option(NamedTuple):
    """An option of an init: its value where none is given, what is allowed, and the test of it."""

    default: Any
    allowed: str
    accepts: Callable[[Any], bool]


def integer(default: int, least: int, most: int) -> Option:
    """Return an option that is an integer from ``least`` to ``most``."""

    def accepts(value: Any) -> bool:
        return type(value) is int and least <= value <= most

    return Option(default, f"an integer from {least} to {most}", accepts)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Draw(NamedTuple):
    """What an init may use: the samples, the model, each fit's own stream, and its options.

    ``points`` is (R, n); ``scales`` (R,) their standard deviations, ``quantiles(levels)``
    (R, levels) their quantiles and ``limits()`` (R, 2) their range; ``starts`` (S,) the numbers of
    the starts; ``streams`` (R, S, 2) the stream of each fit under ``key``; ``truth`` (K,) the
    mixture that the samples were drawn from, where one is known; ``options`` are complete.
    """

    points: NDArray[np.float64]
    scales: NDArray[np.float64]
    quantiles: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    limits: Callable[[], NDArray[np.float64]]
    model: Model
    starts: NDArray[np.int64]
    key: NDArray[np.uint64]
    streams: NDArray[np.uint64]
    truth: Parameters | None
    options: Options

    @property
    def n_components(self) -> int:
        """The number of components of the model."""
        return self.model.n_components

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Return the first uniforms of each fit's own stream, (R, S, count)."""
        streams = self.streams.reshape(-1, 2)
        return random.uniforms(self.key, streams, count).reshape(*self.streams.shape[:2], count)

    def around(self, means: NDArray[np.float64]) -> Parameters:
        """Return equal weights and, for every scale, the sample's standard deviation."""
        return Parameters(
            np.full(self.n_components, 1.0 / self.n_components), means, self.scales[:, None, None]
        )


class Init(NamedTuple):
    """A way to choose starts; ``function`` returns (R, S, K), or what broadcasts to it.

    A ``deterministic`` init takes nothing from its stream. It has one start per sample, as more
    would be copies, or as many as ``n_starts(options, model)`` says. ``check(options, model)``
    raises ValueError for options that do not suit each other or the model.
    ``evaluations(options)`` are the map evaluations that it makes for one start.
    """

    function: Callable[[Draw], Parameters]
    deterministic: bool
    needs_truth: bool
    options: dict[str, Option]
    check: Callable[[Options, Model], None] | None
    n_starts: Callable[[Options, Model], int] | None
    evaluations: Callable[[Options], int] | None
    description: str


INITS: dict[str, Init] = {}


def init(
    deterministic: bool = False,
    needs_truth: bool = False,
    options: dict[str, Option] | None = None,
    check: Callable[[Options, Model], None] | None = None,
    n_starts: Callable[[Options, Model], int] | None = None,
    evaluations: Callable[[Options], int] | None = None,
) -> Callable[[Callable[[Draw], Parameters]], Callable[[Draw], Parameters]]:
    """Register a function as the init of its name; its docstring's first line describes it."""

    def register(function: Callable[[Draw], Parameters]) -> Callable[[Draw], Parameters]:
        description = (function.__doc__ or "").partition("\n")[0]
        INITS[function.__name__] = Init(
            function,
            deterministic,
            needs_truth,
            options or {},
            check,
            n_starts,
            evaluations,
            description,
        )
        return function

    return register


def chosen_init(name: str) -> Init:
    """Return the init of a name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in INITS:
        raise ValueError(f"init: got {name!r}, must be one of {', '.join(INITS)}")
    return INITS[name]


def complete_options(name: str, given: Options) -> dict[str, Any]:
    """Return all options of an init: those given, and the defaults of the others.

    Parameters
    ----------
    name : str
        One of ``INITS``.
    given : mapping
        None stands for the default.

    Raises
    ------
    ValueError
        Naming the option, the value got and what is allowed.
    """
    known = chosen_init(name).options
    for key, value in given.items():
        if value is not None and key not in known:
            its = f"has the options {', '.join(known)}" if known else "has no options"
            raise ValueError(f"{key}: got {value!r}; allowed: null, as {name} {its}")
    options = {}
    for key, option in known.items():
        value = given.get(key)
        options[key] = option.default if value is None else value
        if not option.accepts(options[key]):
            raise ValueError(f"{key}: got {options[key]!r}; allowed: {option.allowed}")
    return options


def check_options(name: str, options: Options, model: Model) -> None:
    """Refuse complete options that do not suit each other or the model.

    Raises
    ------
    ValueError
        Naming the option, the value got and what is allowed.
    """
    check = chosen_init(name).check
    if check is not None:
        check(options, model)


def number_of_starts(name: str, options: Options, model: Model, asked: int) -> int:
    """Return how many starts an init with complete options makes where ``asked`` are wanted."""
    chosen = chosen_init(name)
    if chosen.n_starts is not None:
        return chosen.n_starts(options, model)
    return 1 if chosen.deterministic else asked


def init_evaluations(name: str, options: Options) -> int:
    """Return the map evaluations that an init with complete options makes for one start.

    They come before row 0, so that a fit's own count lacks them: they belong to what it costs to
    get anywhere from such a start. Passes over the sample that are no evaluation of the EM map
    (those of k-means, say) do not count.
    """
    evaluations = chosen_init(name).evaluations
    return 0 if evaluations is None else evaluations(options)
