"""The observed rate of convergence: the factor by which an iteration shrinks the map residual.

The residual d_t falls like rate^t in the end, once the faster directions have died out. log2 d_t is
fitted by a line over the last one to two windows, each a factor of 16 in d, above the level where
rounding shows; and the line over the two windows before the last must have the same slope.
"""

import math

from pipeline.core.compilation import compiled
from pipeline.core.vector import LANES, absolute, load, log2, rounded_down, select, splat, store

# Rows: the window's number; of the window before the last, of the last and of the present one, the
# number of residuals, the sum of y = log2 d, and the sum of t y with t = 0, 1, ... from the
# window's first.
(
    WINDOW, COUNT_2, SUM_2, PRODUCT_2, COUNT_1, SUM_1, PRODUCT_1, COUNT, SUM, PRODUCT,
) = range(0, 10 * LANES, LANES)  # fmt: skip
ROWS = 10
BITS = 4.0  # of a window
# In units: below, the rounding errors of one map evaluation are more than 1e-6 of the residual.
FLOOR = 2.0**-33
FEWEST = 4
# By how much the two slopes (log2 of a rate) may differ: what is left of the faster directions in
# the later one is about as much, so that the rate has five digits.
SETTLED = 1e-5


@compiled
def begin(state, lane):
    """Forget what a lane's last fit left."""
    for row in range(ROWS):
        state[LANES * row + lane] = 0.0


@compiled
def watch(state, residual):
    """Take in the map residual of one iteration of every lane."""
    zero, one = splat(0.0), splat(1.0)
    seen = (residual > splat(FLOOR)) & (absolute(residual) < splat(math.inf))
    y = log2(select(seen, residual, one))
    # From 1 on, as 0 is no window.
    window = rounded_down(y * splat(1.0 / BITS)) + splat(1024.0)
    moved = seen & ~(window == load(state, WINDOW))
    store(state, WINDOW, select(moved, window, load(state, WINDOW)))
    for row in (COUNT_2, SUM_2, PRODUCT_2, COUNT_1, SUM_1, PRODUCT_1):
        later = load(state, row + COUNT - COUNT_1)
        store(state, row, select(moved, later, load(state, row)))
    for row in (COUNT, SUM, PRODUCT):
        store(state, row, select(moved, zero, load(state, row)))
    count = load(state, COUNT)
    store(state, PRODUCT, load(state, PRODUCT) + select(seen, count * y, zero))
    store(state, SUM, load(state, SUM) + select(seen, y, zero))
    store(state, COUNT, count + select(seen, one, zero))


@compiled
def _slope(state, first, second, lane):
    """Return the least-squares slope of y over two windows."""
    before = state[first + lane]
    n = before + state[second + lane]
    if n < FEWEST:
        return math.nan
    total = state[first + LANES + lane] + state[second + LANES + lane]
    product = state[first + 2 * LANES + lane] + state[second + 2 * LANES + lane]
    product += before * state[second + LANES + lane]
    return 12.0 * (product - 0.5 * (n - 1.0) * total) / (n * (n * n - 1.0))


@compiled
def observed_rate(state, lane):
    """Return the rate of a lane's fit.

    Not-a-number from fewer than ``FEWEST`` residuals in either pair of windows, or where the slope
    has not settled.
    """
    slope = _slope(state, COUNT_1, COUNT, lane)
    earlier = _slope(state, COUNT_2, COUNT_1, lane)
    if not abs(slope - earlier) <= SETTLED:
        return math.nan
    return 2.0**slope
