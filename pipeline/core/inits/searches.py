"""Inits that try several starts and keep the best."""

import numpy as np

from pipeline.core.fitting import Schedule, fit
from pipeline.core.inits.points import distinct_points
from pipeline.core.inits.registry import Draw, Options, init, integer
from pipeline.core.mixture import Parameters
from pipeline.core.model import project
from pipeline.core.outcomes import MAX_ITER

# Short runs at a time: what bounds the memory.
MOST_RUNS = 1 << 15


def _of_all_runs(options: Options) -> int:
    return options["runs"] * options["iterations"]


@init(
    options={"runs": integer(10, 1, 1000), "iterations": integer(5, 1, 1000)},
    evaluations=_of_all_runs,
)
def short_runs(draw: Draw) -> Parameters:
    """Best of several short runs of EM from random points, by log-likelihood.

    Biernacki, Celeux & Govaert (2003), "Choosing starting values for the EM algorithm for getting
    the highest likelihood in multivariate Gaussian mixture models": ``runs`` runs of plain EM from
    starts of ``random_points``, under the same model on the same points, each of ``iterations``
    iterations (they stop a run by its progress instead). Runs that degenerate take no part; where
    all do, the start of the first is the start.
    """
    shape = (len(draw.points), len(draw.starts), draw.n_components)
    found = Parameters(*(np.empty(shape) for _ in range(3)))
    starts_at_once = max(1, MOST_RUNS // draw.options["runs"])
    for s in range(0, shape[1], starts_at_once):
        some_starts = slice(s, min(s + starts_at_once, shape[1]))
        replicates_at_once = max(1, starts_at_once // (some_starts.stop - s))
        for r in range(0, shape[0], replicates_at_once):
            part = slice(r, min(r + replicates_at_once, shape[0])), some_starts
            best = _best_runs(draw, *part)
            for column, values in zip(found, best, strict=True):
                column[part] = values
    return found


def _best_runs(draw: Draw, replicates: slice, starts: slice) -> Parameters:
    """Return the ends of the best runs of some replicates (R) and starts (S), (R, S, K)."""
    draw = draw._replace(
        points=draw.points[replicates],
        scales=draw.scales[replicates],
        streams=draw.streams[replicates, starts],
    )
    runs, iterations = draw.options["runs"], draw.options["iterations"]
    shape = (*draw.streams.shape[:2], runs, draw.n_components)
    uniform = draw.uniforms(runs * draw.n_components)
    means = distinct_points(draw.points, uniform.reshape(shape[0], -1, draw.n_components))
    first = Parameters(*(np.broadcast_to(part, means.shape) for part in draw.around(means)))
    first = project(draw.model, first)
    schedule = Schedule(iterations, record=np.zeros(1, np.int64))
    fits = fit(draw.points, np.ones(draw.points.shape[1]), first, draw.model, "em", schedule)
    # Without a stopping rule, nothing else ends a run that is sound.
    sound = np.equal(fits.outcome, MAX_ITER).reshape(shape[:3])
    value = np.where(sound, fits.log_likelihood.reshape(shape[:3]), -np.inf)
    best = np.argmax(value, axis=2)[..., None, None]
    any_sound = np.any(sound, axis=2)[..., None]
    return Parameters(
        *(
            np.where(
                any_sound,
                np.take_along_axis(end.reshape(shape), best, axis=2)[:, :, 0],
                start.reshape(shape)[:, :, 0],
            )
            for end, start in zip(fits.parameters, first, strict=True)
        )
    )
