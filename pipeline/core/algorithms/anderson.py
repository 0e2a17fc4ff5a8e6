"""Damped Anderson acceleration with restarts and control of monotonicity: DAAREM.

Henderson & Varadhan (2019), "Damped Anderson acceleration with restarts and monotonicity control
for accelerating EM and EM-like algorithms", JCGS 28(4). With f(theta) = M(theta) - theta and the
last differences of theta and f in the columns of X and F, the iterate is theta + f - (X + F) g, g
the damped least-squares solution of F g = f: |g|^2 is a part d = 1 / (1 + 1.2^(25 - s)) of what it
is without damping, and s grows with every cycle of ``depth`` columns that ends no lower than it
began. After a cycle the columns are dropped. An iterate that lowers the log-likelihood is refused
for M(theta), without the paper's allowance. Scales are raised to the floor, if there is one.
"""

import math

import numpy as np

from pipeline.core.compilation import compiled
from pipeline.core.model import FREE
from pipeline.core.symmetric import diagonalise
from pipeline.core.vector import LANES, load, select, splat, store

BASE, KAPPA = 1.2, 25
BISECTIONS = 60
# Of the largest eigenvalue of F'F: below, a direction is rounding.
RANK = 1e-14
# Rows of memory before the parameters: whether there is a step before, columns, s, and the
# log-likelihood at the cycle's begin.
BEGUN, COLUMNS, SHRINK, CYCLE, HEAD = 0, LANES, 2 * LANES, 3 * LANES, 4 * LANES


@compiled
def memory_rows(depth, n_components):
    """Return how many rows of eight ``step`` needs.

    Its own four; M(theta); theta and f of the step before; ``depth`` columns of X and of F.
    """
    return 4 + 3 * n_components * (3 + 2 * depth)


@compiled
def _damping(shrink):
    """Return d = 1 / (1 + 1.2^(25 - s)), by multiplications alone."""
    power = 1.0
    for _ in range(abs(KAPPA - shrink)):
        power *= BASE
    return 1.0 / (1.0 + (power if shrink < KAPPA else 1.0 / power))


@compiled
def _damped_solution(gram, right, size, part, solution):
    """Fill g = (F'F + c)^-1 F'f with c such that |g|^2 is ``part`` of what it is for c = 0."""
    vectors = np.eye(size)
    diagonalise(gram, vectors, size)
    largest = 0.0
    for j in range(size):
        largest = max(largest, gram[j, j])
    rotated = np.zeros(size)
    undamped = 0.0
    for j in range(size):
        if gram[j, j] > RANK * largest:
            for i in range(size):
                rotated[j] += vectors[i, j] * right[i]
            undamped += (rotated[j] / gram[j, j]) ** 2
    # |g|^2 falls as c grows: bisection of log c.
    low, high = 1e-12 * largest, 1e12 * largest
    for _ in range(BISECTIONS):
        middle = math.sqrt(low) * math.sqrt(high)
        length = 0.0
        for j in range(size):
            length += (rotated[j] / (gram[j, j] + middle)) ** 2
        if length > part * undamped:
            low = middle
        else:
            high = middle
    for i in range(size):
        solution[i] = 0.0
        for j in range(size):
            if gram[j, j] > RANK * largest:
                solution[i] += vectors[i, j] * rotated[j] / (gram[j, j] + low)


@compiled
def _propose(lane, depth, n, free_weights, floor, theta, level, memory, mapped):
    """Put the iterate of one lane in the place of its M(theta); n / 8 rows of parameters."""
    last_theta, last_f = HEAD + n, HEAD + 2 * n
    x, f = HEAD + 3 * n, HEAD + (3 + depth) * n
    begun = memory[BEGUN + lane] > 0.0
    columns = int(memory[COLUMNS + lane])
    if begun and columns == depth:
        fell = level < memory[CYCLE + lane]
        shrink = memory[SHRINK + lane] + (-depth if fell else depth)
        memory[SHRINK + lane] = max(shrink, -2.0 * KAPPA)
        columns = 0
    if columns == 0:
        memory[CYCLE + lane] = level
    for j in range(lane, n, LANES):
        step = mapped[j] - theta[j]
        if begun:
            memory[x + n * columns + j] = theta[j] - memory[last_theta + j]
            memory[f + n * columns + j] = step - memory[last_f + j]
        memory[HEAD + j] = mapped[j]
        memory[last_theta + j], memory[last_f + j] = theta[j], step
    memory[BEGUN + lane] = 1.0
    if not begun:
        return
    columns += 1
    memory[COLUMNS + lane] = columns

    gram, right, solution = np.zeros((columns, columns)), np.zeros(columns), np.zeros(columns)
    for a in range(columns):
        for j in range(lane, n, LANES):
            right[a] += memory[f + n * a + j] * memory[last_f + j]
            for b in range(columns):
                gram[a, b] += memory[f + n * a + j] * memory[f + n * b + j]
    part = _damping(int(memory[SHRINK + lane]))
    _damped_solution(gram, right, columns, part, solution)
    inside, weights = True, 0.0
    for j in range(lane, n, LANES):
        value = mapped[j]
        for a in range(columns):
            value -= solution[a] * (memory[x + n * a + j] + memory[f + n * a + j])
        if j >= 2 * n // 3:
            value = max(value, floor)
        mapped[j] = value
        is_mean = n // 3 <= j < 2 * n // 3
        inside = inside and (value > 0.0 or (is_mean and abs(value) < math.inf))
        weights += value if j < n // 3 else 0.0
    if not inside:
        for j in range(lane, n, LANES):
            mapped[j] = memory[HEAD + j]
    elif free_weights:
        # Large coefficients leave the rounding errors of small differences in the sum.
        for j in range(lane, n // 3, LANES):
            mapped[j] /= weights


@compiled
def _set_floors(floor, unit, floors):
    """Fill the floor of the scales in each lane, if there is one."""
    if floor is not None:
        store(floors, 0, splat(floor) * unit)


@compiled
def step(depth, problem, active, unit, theta, level, memory, mapped):
    """Put the next iterate in the place of M(theta) in ``mapped``; ``level`` is at theta."""
    n = 3 * LANES * problem.model.n_components
    free_weights = problem.model.weights == FREE
    levels, floors = np.empty(LANES), np.full(LANES, -math.inf)
    store(levels, 0, level)
    _set_floors(problem.floor, unit, floors)
    for lane in range(1 if problem.all_lanes else LANES):
        if (active >> lane) & 1:
            _propose(
                lane, depth, n, free_weights, floors[lane], theta, levels[lane], memory, mapped
            )
    if problem.all_lanes:
        for j in range(0, n, LANES):
            store(mapped, j, splat(mapped[j]))
            store(memory, HEAD + j, splat(memory[HEAD + j]))


@compiled
def refuse(n_components, refused, memory, theta):
    """Put M(theta) in the place of the refused iterates."""
    for j in range(0, 3 * LANES * n_components, LANES):
        store(theta, j, select(refused, load(memory, HEAD + j), load(theta, j)))
