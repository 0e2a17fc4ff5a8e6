"""Which recorded iterations are shown of one fit, where there is no room for all."""

import numpy as np

MOST_STEPS = 200  # of a player; an animation shows some of them


def thinned(iterations: np.ndarray, most: int) -> np.ndarray:
    """Return the positions of `most` iterations, or of all where there are no more.

    They are geometrically apart, as early iterations differ most; where powers round to the same
    iteration the next ones are taken, so that the number is kept.

    Parameters
    ----------
    iterations : int, shape (rows,)
        Recorded, ascending.
    most
        At least 2: the first and the last are always there.

    Returns
    -------
    int, shape (at most `most`,), ascending
    """
    if len(iterations) <= most:
        return np.arange(len(iterations))
    wanted = np.geomspace(1.0, 1.0 + iterations[-1], most) - 1.0
    positions = np.searchsorted(iterations, np.round(wanted))
    spread = np.arange(most)
    positions = np.maximum.accumulate(positions - spread) + spread
    return np.minimum(positions, len(iterations) - most + spread)
