"""How fits are laid out in the eight lanes, and the units that the lanes compute in.

Small samples: a lane is a fit. Large ones: all lanes are one fit, each with an eighth of the
points. Which of the two depends on the sample size alone, so that a fit's numbers do not depend on
which other fits it runs with.

In the lanes, data are moved by the sample's mean and scaled, exactly, by a power of two near its
standard deviation: sums keep their digits at any offset, and squares stay within range.
"""

import math

from pipeline.core.compilation import compiled
from pipeline.core.mixture import mean_and_standard_deviation
from pipeline.core.model import SYMMETRIC
from pipeline.core.vector import LANES, splat, store

# From this many points on, one fit takes all lanes: fewer points would leave too little work
# between the M-steps, more would not fit the cache eight times.
POINTS_FOR_ALL_LANES = 512


@compiled
def units(points, masses, model):
    """Return the sample's standard deviation, and the offset and binary exponent of its units."""
    mean, unit = mean_and_standard_deviation(points, masses)
    exponent = 0
    if 0.0 < unit < math.inf:
        # 2^-exponent is to be finite.
        exponent = max(math.frexp(unit)[1], -1023)
    # Means at +t and -t are symmetric about 0, which must stay where it is.
    offset = 0.0 if model.means == SYMMETRIC else mean
    return unit, offset, exponent


@compiled
def load_points(points, offset, exponent, lane, x):
    """Write a sample into one lane of ``x``, or into all (``lane`` < 0), in the lanes' units.

    What is left of the last row of all lanes is not touched.
    """
    power = math.ldexp(1.0, -exponent)
    first, stride = (0, 1) if lane < 0 else (lane, LANES)
    for i in range(points.size):
        x[first + stride * i] = (points[i] - offset) * power


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
                store(theta, at, splat(values[row]))
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
def load_masses(masses, all_lanes, out):
    """Write the masses into ``out``, laid out like ``x``; return how many rows have mass 1 only."""
    for i in range(masses.size):
        if all_lanes:
            out[i] = masses[i]
        else:
            store(out, LANES * i, splat(masses[i]))
    plain = 0
    while plain < masses.size and masses[plain] == 1.0:
        plain += 1
    return plain // LANES if all_lanes else plain
