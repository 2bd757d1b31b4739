r"""The best quintic for each step of Newton-Schulz: Muon's one quintic is a compromise for all of its steps.

A step knows between which two numbers l < u the singular values lie. Among all odd quintics it takes the one whose
values stay nearest to 1 on [l, u] (a minimax problem); that gives the next, narrower interval. Each best polynomial
turns four times, at l, q, r and u, where it misses 1 by the same amount E, alternately below and above:

    a s + b s^3 + c s^5 = 1 - E, 1 + E, 1 - E, 1 + E      at s = l, q, r, u

Remez's method finds it: solve these four equations, move q and r to where the slope is zero, repeat.

Source   Amsel, Persson, Musco, Gower 2025, The Polar Express, arXiv 2505.16932, algorithm 1.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Coefficients = tuple[float, float, float]
ROUNDS = 12  # of Remez's method; the number of right digits doubles in each
SMALLEST = -5.0  # powers of ten: no schedule reaches for smaller singular values
TOLERANCE = 0.2  # how far from 1 the last step may leave a value, about as far as Muon's quintic does


def best_quintic(low: float, high: float) -> tuple[Coefficients, float]:
    """Return (a, b, c) of the odd quintic nearest to 1 on [low, high], and by how much it misses 1 at most.

    Args     low, high: 0 < low < high. If they are within 1 % of each other, the quintic that is flattest between them.
    """
    if low > 0.99 * high:
        middle = (low + high) / 2
        return (1.875 / middle, -1.25 / middle**3, 0.375 / middle**5), 2.5 * ((high - low) / (2 * middle)) ** 3
    q, r = (3 * low + high) / 4, (low + 3 * high) / 4
    for _ in range(ROUNDS):
        rows = [[s, s**3, s**5, sign] for s, sign in ((low, 1), (q, -1), (r, 1), (high, -1))]
        a, b, c, miss = map(float, np.linalg.solve(np.array(rows), np.ones(4)))
        q, r = np.sort(np.sqrt(np.roots([5 * c, 3 * b, a]).real))  # where the slope is zero
    return (a, b, c), miss


def descend(low: float, steps: int) -> tuple[tuple[Coefficients, ...], float]:
    """Return the best quintic of each step for singular values in [low, 1], and how far from 1 the last one misses."""
    high, found, miss = 1.0, [], 0.0
    for _ in range(steps):
        polynomial, miss = best_quintic(low, high)
        found.append(polynomial)
        low, high = 1 - miss, 1 + miss
    return tuple(found), miss


@lru_cache(maxsize=64)
def schedule(steps: int) -> tuple[Coefficients, ...]:
    """Return one quintic for each step; together they bring the widest interval [l, 1] to within 0.2 of 1.

    Args     steps: >= 1. More steps reach smaller singular values: 3 from about 0.013, 5 from 0.0007.
    Returns  (a, b, c) of each step.
    """
    narrow, wide = 0.0, SMALLEST  # powers of ten: from [1, 1], which is easy, to an interval that is too wide
    for _ in range(50):
        middle = (narrow + wide) / 2
        if descend(10**middle, steps)[1] > TOLERANCE:
            wide = middle
        else:
            narrow = middle
    return descend(10**narrow, steps)[0]
