"""Exercises of notebook 08: the learning rates of the control, and how much is written for each token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.optimizers import SGD, PeriodicOptimizer


def control_rates(lr: float, periods: Sequence[int], reduction: str) -> list[float]:
    """Return the learning rate of each level of the control, in which every period is 1."""
    return [lr if reduction == "sum" else lr / period for period in periods]


def numbers_written(sizes: Sequence[int], periods: Sequence[float]) -> float:
    """Return how many numbers are written for each token, on average."""
    return sum(size / period for size, period in zip(sizes, periods, strict=True))


def _moved(lr: float, periods: Sequence[int], reduction: str) -> list[float]:
    """How far each level moves a step on gradients of one, measured over whole periods."""
    steps = math.lcm(*periods)
    levels = [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in periods]
    optimizer = PeriodicOptimizer([SGD([level], lr=lr) for level in levels], periods, reduction)
    for _ in range(steps):
        for level in levels:
            level.grad = torch.ones_like(level)
        optimizer.step()
    return [-level.item() / steps for level in levels]


def _counted(sizes: Sequence[int], periods: Sequence[float]) -> float:
    steps = math.lcm(*(int(period) for period in periods if math.isfinite(period)))
    pairs = list(zip(sizes, periods, strict=True))
    return sum(size for t in range(1, steps + 1) for size, period in pairs if t % period == 0) / steps


CONTROL_RATES = Exercise(
    name="control_rates",
    notebook="08",
    solution=control_rates,
    oracle=_moved,
    stages=(
        Stage("one level, the mean", lambda: (0.1, (4,), "mean")),
        Stage("three levels, the mean", lambda: (0.2, (1, 8, 64), "mean")),
        Stage("three levels, the sum", lambda: (0.2, (1, 8, 64), "sum")),
    ),
    mistakes=(
        Mistake(
            lambda lr, periods, reduction: [lr / period for period in periods],
            "Right for the mean. A sum of C gradients is written once in C steps: how far does it move for each step?",
        ),
        Mistake(
            lambda lr, periods, reduction: [lr for _ in periods],
            "Right for the sum. The mean of C gradients is C times shorter than their sum.",
        ),
        Mistake(
            lambda lr, periods, reduction: [lr if reduction == "mean" else lr / period for period in periods],
            "The two are swapped: think of equal gradients and count how far a level moves in C steps.",
        ),
        Mistake(
            lambda lr, periods, reduction: [lr * period if reduction == "sum" else lr for period in periods],
            "That is the length of one write. But it comes once in C steps only: divide by C.",
        ),
        Mistake(
            lambda lr, periods, reduction: [lr if reduction == "sum" else lr / period**0.5 for period in periods],
            "No root: with the mean a level moves by lr g once in C steps, so by lr g / C for each step.",
        ),
    ),
    hints=(
        "Let every gradient be 1. How far does a level move in C steps, with the sum and with the mean?",
        "With the sum it moves by lr * C once in C steps; with the mean by lr.",
        'return [lr if reduction == "sum" else lr / period for period in periods]',
    ),
)

NUMBERS_WRITTEN = Exercise(
    name="numbers_written",
    notebook="08",
    solution=numbers_written,
    oracle=_counted,
    stages=(
        Stage("one level", lambda: ((100,), (4,))),
        Stage("three levels of different size", lambda: ((100, 300, 700), (1, 8, 32))),
        Stage("a frozen level", lambda: ((100, 300, 700), (2, 8, math.inf))),
    ),
    mistakes=(
        Mistake(
            lambda sizes, periods: float(sum(sizes)),
            "That is what a flat memory writes. A level with period C is written in one token of C.",
        ),
        Mistake(
            lambda sizes, periods: sum(sizes) / sum(periods),
            "Divide each level by its own period first, then add.",
        ),
        Mistake(
            lambda sizes, periods: sum(s / p for s, p in zip(sizes, periods, strict=True)) / len(sizes),
            "That is the mean over the levels. All of them are written: add, and do not divide by their number.",
        ),
        Mistake(
            lambda sizes, periods: sum(1 / p for p in periods),
            "You count blocks, not numbers: a level of size P brings P / C.",
        ),
        Mistake(
            lambda sizes, periods: sum(s * p for s, p in zip(sizes, periods, strict=True)),
            "A long period makes writes rare: divide by the period.",
        ),
    ),
    hints=(
        "How many writes does one level do in C tokens, and how many numbers are in each?",
        "A level of size P and period C writes P numbers once in C tokens: P / C for each.",
        "return sum(size / period for size, period in zip(sizes, periods)); size / math.inf is 0.",
    ),
)
