"""Exercises of notebook 07: how much was forgotten, a mean that is written one by one (and `rates_and_pulls`)."""

from __future__ import annotations

import torch
from torch import Tensor

from nlcore import metrics
from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.course.exercises.rates_and_pulls import EWC_PULL, TWO_RATES_STEP, numbers, random

Rows = list[list[float]]


def forgetting(R: Rows) -> float:
    """Return how far the old tasks are below their best, on average."""
    T = len(R)
    drops = [max(R[i][j] for i in range(T - 1)) - R[T - 1][j] for j in range(T - 1)]
    return sum(drops) / len(drops)


def mean_write(mean: Tensor, n: int, x: Tensor) -> Tensor:
    """Return the mean of n + 1 examples from the mean of n and one more."""
    return mean + (x - mean) / (n + 1)


def _forgetting_oracle(R: Rows) -> float:
    return float(metrics.forgetting(R))


def _mean_oracle(mean: Tensor, n: int, x: Tensor) -> Tensor:
    return torch.stack([*[mean] * n, x]).mean(0)


def _from_the_diagonal(R: Rows) -> float:
    T = len(R)
    return sum(R[j][j] - R[T - 1][j] for j in range(T - 1)) / (T - 1)


def _best_of_all_rows(R: Rows) -> float:
    T = len(R)
    return sum(max(row[j] for row in R) - R[T - 1][j] for j in range(T - 1)) / (T - 1)


def _over_all_tasks(R: Rows) -> float:
    return sum(max(row[j] for row in R[:-1]) - R[-1][j] for j in range(len(R))) / len(R)


def _old_over_all(R: Rows) -> float:
    return forgetting(R) * (len(R) - 1) / len(R)


def _transposed(R: Rows) -> float:
    return forgetting([list(column) for column in zip(*R, strict=True)])


def _four(seed: int) -> Rows:
    rows: Rows = torch.rand(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    return rows


_LATE: Rows = [[0.5, 0.0, 0.0], [0.9, 0.8, 0.0], [0.6, 0.75, 0.7]]

FORGETTING = Exercise(
    name="forgetting",
    notebook="07",
    solution=forgetting,
    oracle=_forgetting_oracle,
    stages=(
        Stage("two tasks", lambda: ([[0.9, 0.1], [0.3, 0.8]],)),
        Stage("a task that is best a while after it was learned", lambda: (_LATE,)),
        Stage("a task that gets better to the end", lambda: ([[0.5, 0.2, 0.1], [0.6, 0.7, 0.1], [0.8, 0.4, 0.9]],)),
        Stage("four tasks", lambda: (_four(1),)),
    ),
    mistakes=(
        Mistake(
            _from_the_diagonal,
            "You start from R[j][j], right after the task was learned. A task may get better later: start from the "
            "best it ever was, in all rows but the last.",
        ),
        Mistake(lambda R: -forgetting(R), "The sign is the other way round: what was lost counts as positive."),
        Mistake(
            _best_of_all_rows,
            "Your best includes the last row. Then a task that improves to the end counts as 0 and not as negative.",
        ),
        Mistake(_over_all_tasks, "The newest task is no old task: leave its column out, and divide by T - 1."),
        Mistake(_old_over_all, "You divide by T. There are only T - 1 old tasks."),
        Mistake(_transposed, "Rows and columns are swapped: R[i][j] is task j after training on task i."),
        Mistake(lambda R: forgetting(R) * (len(R) - 1), "You return the sum over the old tasks. Divide it by T - 1."),
    ),
    hints=(
        "One column of R is the life of one task. The last column has no old task.",
        "For each old task j: the largest R[i][j] over all rows but the last, minus the entry of the last row.",
        "T = len(R); sum max(R[i][j] for i in range(T - 1)) - R[T - 1][j] over j in range(T - 1), divide by T - 1.",
    ),
)


MEAN_WRITE = Exercise(
    name="mean_write",
    notebook="07",
    solution=mean_write,
    oracle=_mean_oracle,
    stages=(
        Stage("the second example", lambda: (*numbers((2, 4)), 1, *numbers((4, 0)))),
        Stage("the tenth example", lambda: (*numbers((2, 4)), 9, *numbers((4, 0)))),
        Stage("the first example", lambda: (*numbers((0, 0)), 0, *numbers((4, 0)))),
        Stage("an image", lambda: (*random(4, 1), 41, *random(5, 1))),
    ),
    mistakes=(
        Mistake(
            lambda mean, n, x: (mean + x) / 2,
            "Half and half is right for the second example only. Later the mean stands for n examples, and x for one.",
        ),
        Mistake(
            lambda mean, n, x: mean + (x - mean) / n,
            "You divide by n, the number seen before. With x there are n + 1 examples.",
        ),
        Mistake(
            lambda mean, n, x: (mean + x) / (n + 1),
            "The old mean counts n times, not once: n * mean + x, divided by n + 1.",
        ),
        Mistake(lambda mean, n, x: n * mean + x, "This is the sum of all examples. Divide it by n + 1."),
        Mistake(
            lambda mean, n, x: mean + (mean - x) / (n + 1),
            "The sign is wrong: the mean moves towards x, by (x - mean) / (n + 1).",
        ),
    ),
    hints=(
        "What is the sum of the n examples, if you know their mean? And of n + 1?",
        "The new mean is (n * mean + x) / (n + 1). Write it as the old mean and a correction.",
        "return mean + (x - mean) / (n + 1).",
    ),
)

EXERCISES = (FORGETTING, TWO_RATES_STEP, EWC_PULL, MEAN_WRITE)
