"""What is kept and what is learned when tasks come one after the other, and how sure a number is.

After each of T tasks a model is tested on all of them. R[i, j] is the accuracy on task j after training on task i:

                     kept of task 1    kept of task 2    task 3 right after learning it
    after task 3     R[3, 1]           R[3, 2]           R[3, 3]                          ...

The column of a task shows it being learned and forgotten; every measure below is a mean over entries of R.

Symbols   T tasks, counted from 1 in the formulas and from 0 in the code. "..." stands for any leading axes, such as
          seeds: a stack of matrices (..., T, T) gives one value for each matrix, shape (...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Row = Sequence[float] | Tensor
Matrix = Sequence[Sequence[float]] | np.ndarray | Tensor


def accuracy_matrix(rows: Sequence[Row] | Callable[[int], Row], tasks: int | None = None) -> Tensor:
    """Return R, where R[i, j] is the accuracy on task j after training on task i.

    Args     rows: what was measured: rows[i] holds the accuracies on all T tasks after training on task i, (T,) or
             (..., T) with seeds first. Or a function that trains on task i, counted from 0, and returns such a row; it
             is called with 0, 1, ... in turn. tasks: T; needed for a function, checked for a list.
    Returns  R, shape (..., T, T), float64, on the CPU.
    Raises   ValueError if there is not one row a task, a row does not have T accuracies, or a number is not in [0, 1].
    Source   Lopez-Paz and Ranzato 2017, Gradient episodic memory, section 2.
    Example  accuracy_matrix(lambda i: (learn(tasks[i]), [test(task) for task in tasks])[1], tasks=len(tasks))
    """
    if callable(rows):
        if tasks is None or tasks < 1:
            raise ValueError(f"a function needs to know how often to call it: tasks=5, for example; got {tasks}")
        rows = [rows(i) for i in range(tasks)]
    made = [torch.as_tensor(row, dtype=torch.float64).cpu() for row in rows]
    T = len(made) if tasks is None else tasks
    if len(made) != T or T == 0:
        raise ValueError(f"expected one row of accuracies after each of the {T} tasks, got {len(made)}")
    shapes = sorted({tuple(row.shape) for row in made})
    if len(shapes) > 1 or shapes[0][-1:] != (T,):
        shown = ", ".join(map(str, shapes))
        raise ValueError(f"each of the {T} rows needs {T} accuracies, one a task, (..., {T}); got shapes {shown}")
    return _check(torch.stack(made, dim=-2), least=1)


def average_accuracy(R: Matrix) -> Tensor:
    """Return the accuracy at the end, averaged over all tasks.

        A = 1/T sum_{j=1}^{T} R[T, j]

    Args     R: (..., T, T), accuracies in [0, 1].
    Returns  one value a matrix, shape (...), float64; 1 is best.
    Raises   ValueError if R is not square or a number is not in [0, 1].
    Source   Lopez-Paz and Ranzato 2017, section 2 (ACC); Chaudhry et al. 2018, A_k with k = T.
    """
    return _check(R, least=1)[..., -1, :].mean(-1)


def plasticity(R: Matrix) -> Tensor:
    """Return the accuracy on each task right after training on it, averaged over all tasks: how well it still learns.

        P = 1/T sum_{i=1}^{T} R[i, i]

    Args     as in `average_accuracy`.
    Returns  one value a matrix, shape (...), float64; 1 is best.
    Raises   as in `average_accuracy`.
    Source   Riemer et al. 2019, Learning to learn without forgetting (there: learning accuracy).
    """
    return _check(R, least=1).diagonal(dim1=-2, dim2=-1).mean(-1)


def forgetting(R: Matrix) -> Tensor:
    """Return how far each old task is, at the end, below the best it ever was, averaged over the old tasks.

        F = 1/(T-1) sum_{j=1}^{T-1} ( max_{l in 1..T-1} R[l, j] - R[T, j] )

    Args     as in `average_accuracy`, with at least 2 tasks.
    Returns  one value a matrix, shape (...), in [-1, 1], float64; 0 is nothing forgotten, negative is improved.
    Raises   ValueError as in `average_accuracy`, or for fewer than 2 tasks.
    Source   Chaudhry et al. 2018, Riemannian walk for incremental learning (F_k with k = T).
    """
    R = _check(R, least=2)
    return (R[..., :-1, :-1].amax(-2) - R[..., -1, :-1]).mean(-1)


def backward_transfer(R: Matrix) -> Tensor:
    """Return what later tasks did to earlier ones, averaged over the old tasks: negative is forgetting.

        BWT = 1/(T-1) sum_{i=1}^{T-1} ( R[T, i] - R[i, i] )  =  T/(T-1) (A - P)

    Args     as in `forgetting`.
    Returns  one value a matrix, shape (...), in [-1, 1], float64. It is -F if no task was ever better than right
             after it was learned.
    Raises   as in `forgetting`.
    Source   Lopez-Paz and Ranzato 2017, section 2 (BWT).
    """
    R = _check(R, least=2)
    return (R[..., -1, :-1] - R.diagonal(dim1=-2, dim2=-1)[..., :-1]).mean(-1)


def forward_transfer(R: Matrix, untrained: Row) -> Tensor:
    """Return what earlier tasks did for later ones before these were learned, averaged over all tasks but the first.

        FWT = 1/(T-1) sum_{i=2}^{T} ( R[i-1, i] - b_i )

    Args     R: as in `forgetting`. untrained: b, the accuracy on each task of the model before any training, (T,) for
             all matrices or (..., T), one for each.
    Returns  one value a matrix, shape (...), in [-1, 1], float64; 0 is no help.
    Raises   ValueError as in `forgetting`, or if `untrained` does not have T numbers in [0, 1].
    Source   Lopez-Paz and Ranzato 2017, section 2 (FWT).
    """
    R = _check(R, least=2)
    start = torch.as_tensor(untrained, dtype=torch.float64).cpu()
    if start.shape not in {R.shape[-1:], R.shape[:-1]}:
        given = f"got shape {tuple(start.shape)} beside R {tuple(R.shape)}"
        raise ValueError(f"untrained needs the accuracy on each of the {R.shape[-1]} tasks before training, {given}")
    _check_range(start)
    return (R.diagonal(offset=1, dim1=-2, dim2=-1) - start[..., 1:]).mean(-1)


def _check(R: Matrix, least: int) -> Tensor:
    """Return R as float64 on the CPU if it is a stack of accuracy matrices with at least `least` tasks."""
    R = torch.as_tensor(R, dtype=torch.float64).cpu()
    if R.ndim < 2 or R.shape[-1] != R.shape[-2]:
        raise ValueError(f"R has a row and a column for each task, shape (..., T, T); got {tuple(R.shape)}")
    if R.shape[-1] < least:
        raise ValueError(f"this needs at least {least} tasks, so that one is an old one; got {R.shape[-1]}")
    _check_range(R)
    return R


def _check_range(accuracies: Tensor) -> None:
    wrong = ~((accuracies >= 0.0) & (accuracies <= 1.0))  # true for NaN as well
    if wrong.any():
        raise ValueError(
            f"accuracies lie in [0, 1], got {accuracies[wrong][0].item():g}; divide percentages by 100, and test every "
            "task after every task"
        )


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
