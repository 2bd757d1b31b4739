"""How sure a number is: means over seeds with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Interval(NamedTuple):
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def confidence_interval(values: Sequence[float] | Tensor, level: float = 0.95) -> Interval:
    """Return the mean of independent values and Student's confidence interval for it.

        mean +- t_{n-1} s / sqrt(n)

    For two methods run on the same seeds, pass the differences seed by seed: the interval is then a paired one.

    Args     values: one number a seed, at least 2. level: in (0, 1), default 0.95.
    Returns  Interval(mean, low, high).
    Raises   ValueError for fewer than 2 values, values that are not finite, or a level outside (0, 1).
    Source   Student 1908, The probable error of a mean.
    """
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"a confidence interval needs at least 2 finite values, got {numbers.tolist()}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), got {level}; a usual choice is 0.95")
    mean, error = float(numbers.mean()), float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    reach = student_quantile(0.5 + level / 2, len(numbers) - 1) * error
    return Interval(mean, mean - reach, mean + reach)


def student_quantile(probability: float, degrees: int) -> float:
    """Return the number that a Student variable with `degrees` degrees of freedom stays below with `probability`.

    With the angle a = arctan(t / sqrt(degrees)) the density of t is proportional to cos(a)^(degrees - 1); its integral
    is taken by the trapezoid rule on a fine grid.

    Args     probability: in (0, 1). degrees: >= 1.
    Raises   ValueError outside these ranges.
    """
    if not 0.0 < probability < 1.0 or degrees < 1:
        raise ValueError(f"expected 0 < probability < 1 and degrees >= 1, got {probability} and {degrees}")
    angles = np.linspace(-np.pi / 2, np.pi / 2, 200_001)
    density = np.cos(angles).clip(0.0) ** (degrees - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(probability, below / below[-1], angles)
    return float(np.tan(angle) * math.sqrt(degrees))
