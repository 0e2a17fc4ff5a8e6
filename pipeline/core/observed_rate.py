"""The observed rate of convergence: the factor by which an iteration shrinks the map residual.

The residual d_t falls like rate^t in the end. log2 d_t is fitted by a line over the last one to two
windows, each a factor of 16 in d, above the level where rounding shows.
"""

import math

from pipeline.core.compilation import compiled
from pipeline.core.vector import LANES, absolute, load, log2, rounded_down, select, splat, store

# Rows: the window's number; of the window before and of the present one, the number of residuals,
# the sum of y = log2 d, and the sum of t y with t = 0, 1, ... from the window's first.
WINDOW, COUNT_1, SUM_1, PRODUCT_1, COUNT, SUM, PRODUCT = range(0, 7 * LANES, LANES)
ROWS = 7
BITS = 4.0  # of a window
# In units: below, the rounding errors of one map evaluation are more than 1e-6 of the residual.
FLOOR = 2.0**-33
FEWEST = 4


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
    for row in (COUNT_1, SUM_1, PRODUCT_1):
        present = load(state, row + COUNT - COUNT_1)
        store(state, row, select(moved, present, load(state, row)))
        store(state, row + COUNT - COUNT_1, select(moved, zero, present))
    count = load(state, COUNT)
    store(state, PRODUCT, load(state, PRODUCT) + select(seen, count * y, zero))
    store(state, SUM, load(state, SUM) + select(seen, y, zero))
    store(state, COUNT, count + select(seen, one, zero))


@compiled
def observed_rate(state, lane):
    """Return the rate of a lane's fit; not-a-number from fewer than ``FEWEST`` residuals."""
    before = state[COUNT_1 + lane]
    n = before + state[COUNT + lane]
    if n < FEWEST:
        return math.nan
    total = state[SUM_1 + lane] + state[SUM + lane]
    product = state[PRODUCT_1 + lane] + state[PRODUCT + lane] + before * state[SUM + lane]
    # The least-squares slope over t = 0, ..., n - 1.
    slope = 12.0 * (product - 0.5 * (n - 1.0) * total) / (n * (n * n - 1.0))
    return 2.0**slope
