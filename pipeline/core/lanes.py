"""How fits are laid out in the eight lanes, and the units that the lanes compute in.

Small samples: a lane is a fit. Large ones: all lanes are one fit, each with an eighth of the
points. Which of the two depends on the sample size alone, so that a fit's numbers do not depend on
which other fits it runs with.

In the lanes, data are moved by the sample's mean and scaled, exactly, by a power of two near its
standard deviation: sums keep their digits at any offset, and squares stay within range.
"""

import math

import numpy as np

from pipeline.core.compilation import compiled
from pipeline.core.mixture import mean_and_standard_deviation
from pipeline.core.model import SYMMETRIC
from pipeline.core.vector import LANES

# From this many points on, one fit takes all lanes: fewer points would leave too little work
# between the M-steps, more would not fit the cache eight times.
POINTS_FOR_ALL_LANES = 512


@compiled
def units(points, masses, model):
    """Return the sample's standard deviation, and the offset and binary exponent of its units."""
    mean, unit = mean_and_standard_deviation(points, masses)
    exponent = 0
    if 0.0 < unit < math.inf:
        exponent = math.frexp(unit)[1]
    # Means at +t and -t are symmetric about 0, which must stay where it is.
    offset = 0.0 if model.means == SYMMETRIC else mean
    return unit, offset, exponent


@compiled
def load_points(points, offset, exponent, lane, x):
    """Write a sample into one lane of ``x``, or into all (``lane`` < 0), in the lanes' units.

    What is left of the last row of all lanes is 0.
    """
    # ldexp in two steps, each within the range of a double.
    half = -exponent // 2
    factor, other = math.ldexp(1.0, half), math.ldexp(1.0, -exponent - half)
    if lane < 0:
        for i in range(points.size):
            x[i] = (points[i] - offset) * factor * other
        for i in range(points.size, x.size):
            x[i] = 0.0
    else:
        for i in range(points.size):
            x[LANES * i + lane] = (points[i] - offset) * factor * other


@compiled
def load_theta(start, offset, exponent, lane, theta):
    """Write parameters (3, K) into one lane of ``theta``, or into all, in the lanes' units."""
    n_components = start.shape[1]
    for k in range(n_components):
        values = (
            start[0, k],
            math.ldexp(start[1, k] - offset, -exponent),
            math.ldexp(start[2, k], -exponent),
        )
        for row in range(3):
            at = LANES * (row * n_components + k)
            if lane < 0:
                theta[at : at + LANES] = values[row]
            else:
                theta[at + lane] = values[row]


@compiled
def read_theta(theta, offset, exponent, lane, out):
    """Read the parameters of one lane into ``out`` (3, K), in the data's units."""
    n_components = out.shape[1]
    for k in range(n_components):
        at = LANES * k + lane
        step = LANES * n_components
        out[0, k] = theta[at]
        out[1, k] = math.ldexp(theta[at + step], exponent) + offset
        out[2, k] = math.ldexp(theta[at + 2 * step], exponent)


@compiled
def row_masses(masses, rows, all_lanes):
    """Return the masses laid out like ``x``, (rows * 8,), and how many rows have mass 1 only."""
    out = np.zeros(rows * LANES)
    for i in range(masses.size):
        if all_lanes:
            out[i] = masses[i]
        else:
            out[LANES * i : LANES * (i + 1)] = masses[i]
    plain = 0
    while plain < rows and np.all(out[LANES * plain : LANES * (plain + 1)] == 1.0):
        plain += 1
    return out, plain
