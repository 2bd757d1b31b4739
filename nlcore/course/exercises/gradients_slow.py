"""Exercises of notebook 05: the slow memory, and one step of DGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.optimizers import DGD, MultiscaleMomentum


def slow_write(s: Tensor, chunk: list[Tensor], slow_beta: float, period: int) -> Tensor:
    """Return the slow memory after a step: written if the chunk is full, as it was otherwise."""
    if len(chunk) < period:
        return s
    return slow_beta * s + (1 - slow_beta) * sum(chunk) / period


def dgd_step(W: Tensor, x: Tensor, gradient: Tensor, lr: float) -> Tensor:
    """Return W (I - eta' x x^T) - eta' (dL/dy) x^T with eta' = lr / (1 + lr |x|^2)."""
    rate = lr / (1 + lr * x @ x)
    return W - rate * torch.outer(W @ x + gradient, x)


def _slow_oracle(s: Tensor, chunk: list[Tensor], slow_beta: float, period: int) -> Tensor:
    weight = torch.nn.Parameter(torch.zeros_like(s))
    optimizer = MultiscaleMomentum([weight], lr=0.0, slow_beta=slow_beta, period=period)
    optimizer.state[weight].update(step=0, m=torch.zeros_like(s), s=s.clone(), chunk=torch.zeros_like(s))
    for g in [*chunk, torch.zeros_like(s)]:  # the class writes a full chunk at the start of the next step
        weight.grad = g.clone()
        optimizer.step()
    return optimizer.state[weight]["s"]


def _dgd_oracle(W: Tensor, x: Tensor, gradient: Tensor, lr: float) -> Tensor:
    layer = torch.nn.Linear(len(x), len(gradient), bias=False).to(W)
    with torch.no_grad():
        layer.weight.copy_(W)
    optimizer = DGD(layer.parameters(), lr=lr, model=layer)
    (layer(x) @ gradient).backward()
    optimizer.step()
    return layer.weight.detach()


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _chunk(n: int) -> list[Tensor]:
    return [_random(seed, 3) for seed in range(n)]


def _unit(g: Tensor) -> Tensor:
    return g / g.norm()


SLOW_WRITE = Exercise(
    name="slow_write",
    notebook="05",
    solution=slow_write,
    oracle=_slow_oracle,
    stages=(
        Stage("a chunk that is not full", lambda: (_random(9, 3), _chunk(2), 0.9, 5)),
        Stage("a full chunk, into an empty memory", lambda: (torch.zeros(3, dtype=torch.float64), _chunk(4), 0.9, 4)),
        Stage("a full chunk, into a memory", lambda: (_random(9, 3), _chunk(5), 0.6, 5)),
    ),
    mistakes=(
        Mistake(
            lambda s, chunk, slow_beta, period: slow_beta * s + (1 - slow_beta) * sum(chunk) / period,
            "You write at every step. Return s unchanged until the chunk holds `period` gradients.",
        ),
        Mistake(
            lambda s, chunk, slow_beta, period: (
                slow_beta * s + (1 - slow_beta) * sum(chunk) if len(chunk) == period else s
            ),
            "You write the sum of the chunk. Write its mean: divide by the period.",
        ),
        Mistake(
            lambda s, chunk, slow_beta, period: (
                (1 - slow_beta) * s + slow_beta * sum(chunk) / period if len(chunk) == period else s
            ),
            "The two parts are swapped: slow_beta is what the slow memory keeps.",
        ),
        Mistake(
            lambda s, chunk, slow_beta, period: (
                slow_beta * s + (1 - slow_beta) * chunk[-1] if len(chunk) == period else s
            ),
            "You write the last gradient alone. The slow memory is given the mean of the whole chunk.",
        ),
        Mistake(
            lambda s, chunk, slow_beta, period: s + sum(chunk) / period if len(chunk) == period else s,
            "Nothing fades in your memory. It keeps the part slow_beta and takes in 1 - slow_beta of the mean.",
        ),
    ),
    hints=(
        "Two cases: the chunk holds fewer than `period` gradients, or it is full.",
        "When it is full, the slow memory is a fading mean of chunk means.",
        "If len(chunk) < period return s, else slow_beta * s + (1 - slow_beta) * sum(chunk) / period.",
    ),
)


def _dgd(rate: Callable[[Tensor, float], Any], error: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda W, x, gradient, lr: W - rate(x, lr) * torch.outer(error(W @ x, gradient), x)


DGD_STEP = Exercise(
    name="dgd_step",
    notebook="05",
    solution=dgd_step,
    oracle=_dgd_oracle,
    stages=(
        Stage("an empty layer", lambda: (torch.zeros(2, 3, dtype=torch.float64), _random(1, 3), _random(2, 2), 0.5)),
        Stage("an input of length one", lambda: (_random(3, 2, 3), _unit(_random(1, 3)), _random(2, 2), 0.5)),
        Stage("any input, a large step", lambda: (_random(3, 2, 3), 3 * _random(1, 3), _random(2, 2), 4.0)),
    ),
    mistakes=(
        Mistake(
            _dgd(lambda x, lr: lr, lambda y, d: d),
            "This is gradient descent. DGD also takes out what the layer answers now, W x.",
        ),
        Mistake(_dgd(lambda x, lr: lr / (1 + lr * x @ x), lambda y, d: d), "The erased part is missing: W x."),
        Mistake(
            _dgd(lambda x, lr: lr, lambda y, d: y + d),
            "Your rate is lr itself, which can overshoot. Use lr / (1 + lr |x|^2).",
        ),
        Mistake(
            _dgd(lambda x, lr: lr / (1 + lr), lambda y, d: y + d),
            "Your rate holds only for inputs of length one: put |x|^2 beside lr in the denominator.",
        ),
        Mistake(
            _dgd(lambda x, lr: lr / (1 + lr * x @ x), lambda y, d: y - d),
            "The sign of the gradient is wrong: the layer moves against it, as it moves against its old answer.",
        ),
    ),
    hints=(
        "Both parts of (NL 57) are an outer product with x. Put them together: torch.outer(something, x).",
        "The something is W @ x + gradient. What is the rate for an input of any length?",
        "rate = lr / (1 + lr * x @ x); return W - rate * torch.outer(W @ x + gradient, x).",
    ),
)
