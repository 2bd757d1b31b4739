"""Exercises of notebook 08: a chunk and a context; the other two are in `continuum_rates`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlcore.course.exercises.continuum_rates import CONTROL_RATES, NUMBERS_WRITTEN
from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.optimizers import SGD, PeriodicOptimizer


def chunk_weights(theta: Tensor, gradients: list[Tensor], lr: float, period: int) -> Tensor:
    """Return the weights after these tokens: one step on the sum of each full chunk."""
    waiting = torch.zeros_like(theta)
    for t, g in enumerate(gradients, start=1):
        waiting = waiting + g
        if t % period == 0:
            theta, waiting = theta - lr * waiting, torch.zeros_like(theta)
    return theta


def context_weights(start: Tensor, gradients: list[Tensor], lr: float, period: int, context: int) -> Tensor:
    """Return the weights after these tokens, put back to their start at the end of each context."""
    theta, waiting = start, torch.zeros_like(start)
    for t, g in enumerate(gradients, start=1):
        waiting = waiting + g
        if t % period == 0:
            theta, waiting = theta - lr * waiting, torch.zeros_like(start)
        if t % context == 0:
            theta = start
    return theta


def _by_optimizer(theta: Tensor, gradients: list[Tensor], lr: float, period: int) -> Tensor:
    weight = torch.nn.Parameter(theta.clone())
    optimizer = PeriodicOptimizer([SGD([weight], lr=lr)], [period])
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
    return weight.detach()


def _last_context(start: Tensor, gradients: list[Tensor], lr: float, period: int, context: int) -> Tensor:
    since = gradients[len(gradients) - len(gradients) % context :]
    full = since[: len(since) // period * period]
    return start - lr * sum(full, torch.zeros_like(start))


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _tokens(n: int) -> list[Tensor]:
    return [_random(seed, 3) for seed in range(n)]


def _chunks(write: Callable[[list[Tensor], int], Any]) -> Callable[..., Tensor]:
    """Return an answer that writes `write(gradients, end)` at the end of each chunk."""

    def wrong(theta: Tensor, gradients: list[Tensor], lr: float, period: int) -> Tensor:
        for end in range(period, len(gradients) + 1, period):
            theta = theta - lr * write(gradients[:end], period)
        return theta

    return wrong


CHUNK_WEIGHTS = Exercise(
    name="chunk_weights",
    notebook="08",
    solution=chunk_weights,
    oracle=_by_optimizer,
    stages=(
        Stage("one full chunk", lambda: (_random(9, 3), _tokens(4), 0.1, 4)),
        Stage("three full chunks", lambda: (_random(9, 3), _tokens(6), 0.1, 2)),
        Stage("a chunk that is not full at the end", lambda: (_random(9, 3), _tokens(11), 0.3, 4)),
    ),
    mistakes=(
        Mistake(
            lambda theta, gradients, lr, period: theta - lr * sum(gradients),
            "You write the open chunk at the end too. A level waits until its chunk is full.",
        ),
        Mistake(
            _chunks(lambda seen, period: sum(seen[-period:]) / period),
            "You write the mean of a chunk. (NL 71) writes the sum.",
        ),
        Mistake(
            _chunks(lambda seen, period: seen[-1]),
            "You write the last gradient of a chunk alone. All gradients of the chunk are summed.",
        ),
        Mistake(
            _chunks(lambda seen, period: sum(seen[-period - 1 :])),
            "The token at the border is counted in two chunks: a chunk has exactly `period` gradients.",
        ),
        Mistake(
            _chunks(lambda seen, period: sum(seen)),
            "What was written is written again. Empty the sum after each write.",
        ),
        Mistake(
            _chunks(lambda seen, period: -sum(seen[-period:])),
            "The sign is wrong: the weights move against the gradient.",
        ),
    ),
    hints=(
        "Keep a sum of the gradients that wait. Count the tokens from 1.",
        "After every token add its gradient. If the number of the token is a multiple of `period`, write and empty.",
        "if t % period == 0: theta = theta - lr * waiting; waiting = 0 * theta. Return theta after the loop.",
    ),
)


def _contexts(
    back: Callable[[Tensor, Tensor], Tensor],
    every: Callable[[int, int], int] = lambda period, context: context,
) -> Callable[..., Tensor]:
    def wrong(start: Tensor, gradients: list[Tensor], lr: float, period: int, context: int) -> Tensor:
        theta = start
        for end in range(period, len(gradients) + 1, period):
            theta = theta - lr * sum(gradients[end - period : end], torch.zeros_like(start))
            if end % every(period, context) == 0:
                theta = back(theta, start)
        return theta

    return wrong


def _reset_first(start: Tensor, gradients: list[Tensor], lr: float, period: int, context: int) -> Tensor:
    theta = start
    for end in range(period, len(gradients) + 1, period):
        theta = start if end % context == 0 else theta
        theta = theta - lr * sum(gradients[end - period : end], torch.zeros_like(start))
    return theta


CONTEXT_WEIGHTS = Exercise(
    name="context_weights",
    notebook="08",
    solution=context_weights,
    oracle=_last_context,
    stages=(
        Stage("a context that is not over", lambda: (_random(9, 3), _tokens(4), 0.1, 2, 6)),
        Stage("a context that has just ended", lambda: (_random(9, 3), _tokens(6), 0.1, 2, 6)),
        Stage("the third context, and an open chunk", lambda: (_random(9, 3), _tokens(21), 0.3, 2, 8)),
    ),
    mistakes=(
        Mistake(_contexts(lambda theta, start: theta), "Nothing goes back. At the end of a context return to start."),
        Mistake(
            _contexts(lambda theta, start: torch.zeros_like(start)),
            "You go back to zero. The level goes back to its start, which was learned and is not zero.",
        ),
        Mistake(
            _contexts(lambda theta, start: start, lambda period, context: period),
            "You go back after every chunk. A context holds several chunks: test t % context.",
        ),
        Mistake(
            _contexts(lambda theta, start: (theta + start) / 2),
            "You go back half of the way. A reset forgets everything that this context taught.",
        ),
        Mistake(
            _reset_first,
            "You write after going back, so the last chunk of the old context lives on. Go back last.",
        ),
    ),
    hints=(
        "It is chunk_weights with one more test at each token.",
        "Keep `start` as it is, and change a second name, theta. When does theta become start again?",
        "After the write: if t % context == 0: theta = start.",
    ),
)

EXERCISES = (CHUNK_WEIGHTS, CONTEXT_WEIGHTS, CONTROL_RATES, NUMBERS_WRITTEN)
