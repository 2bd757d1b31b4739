"""Exercises of notebook 05: the delta write and a Newton-Schulz step; the other two are in `gradients_slow`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.course.exercises.gradients_slow import DGD_STEP, SLOW_WRITE
from nlcore.optimizers import DeltaMomentum


def delta_write(m: Tensor, g: Tensor, beta: float, erase: float) -> Tensor:
    """Return m (beta I - erase k^T k) + g, with k = g / |g|."""
    k = g / g.norm()
    return beta * m - erase * (m @ k.T) @ k + g


def newton_schulz_step(X: Tensor, g: Tensor, zeta: float) -> Tensor:
    """Return X after one gradient step on 1/2 |X - g|^2 + 1/2 |X X^T - I|^2."""
    return X - zeta * (X - g + 2 * (X @ X.T - torch.eye(len(X), dtype=X.dtype)) @ X)


def _delta_oracle(m: Tensor, g: Tensor, beta: float, erase: float) -> Tensor:
    weight = torch.nn.Parameter(torch.zeros_like(m))
    optimizer = DeltaMomentum([weight], lr=0.0, beta=beta, erase=erase)
    optimizer.state[weight]["m"] = m.clone()
    weight.grad = g.clone()
    optimizer.step()
    return optimizer.state[weight]["m"]


def _newton_schulz_oracle(X: Tensor, g: Tensor, zeta: float) -> Tensor:
    variable = X.clone().requires_grad_()
    far = (variable - g).square().sum() + (variable @ variable.T - torch.eye(len(X), dtype=X.dtype)).square().sum()
    (0.5 * far).backward()
    assert variable.grad is not None
    return X - zeta * variable.grad


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _delta(keys: Callable[[Tensor], Tensor], combine: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda m, g, beta, erase: combine(m, g, keys(g), beta, erase)


def _unit(g: Tensor) -> Tensor:
    return g / g.norm()


DELTA_WRITE = Exercise(
    name="delta_write",
    notebook="05",
    solution=delta_write,
    oracle=_delta_oracle,
    stages=(
        Stage("an empty memory", lambda: (torch.zeros(1, 2, dtype=torch.float64), _random(1, 1, 2), 0.9, 0.5)),
        Stage("one row, erase = 0", lambda: (_random(2, 1, 3), _random(3, 1, 3), 0.9, 0.0)),
        Stage("one row, with the correction", lambda: (_random(2, 1, 3), _random(3, 1, 3), 0.9, 0.5)),
        Stage("a matrix with four rows", lambda: (_random(4, 4, 3), _random(5, 4, 3), 0.8, 1.2)),
    ),
    mistakes=(
        Mistake(
            _delta(lambda g: g, lambda m, g, k, beta, erase: beta * m - erase * (m @ k.T) @ k + g),
            "Your key is g itself. Divide it by g.norm(), or a large gradient erases too much.",
        ),
        Mistake(
            _delta(
                lambda g: g / g.norm(dim=1, keepdim=True),
                lambda m, g, k, beta, erase: beta * m - erase * (m @ k.T) @ k + g,
            ),
            "You give every row of the key the length one. Divide the whole of g by its norm g.norm().",
        ),
        Mistake(
            _delta(_unit, lambda m, g, k, beta, erase: beta * m + erase * (m @ k.T) @ k + g),
            "Your sign is wrong: the answer of the memory is taken out, so it is subtracted.",
        ),
        Mistake(
            _delta(_unit, lambda m, g, k, beta, erase: beta * (m - erase * (m @ k.T) @ k) + g),
            "You let the erased part fade by beta too. In (NL 49) beta stands beside erase k^T k, not before it.",
        ),
        Mistake(
            _delta(_unit, lambda m, g, k, beta, erase: beta * m - erase * (m @ k.T) @ k + k),
            "You write the key. What is written is the gradient g itself.",
        ),
        Mistake(lambda m, g, beta, erase: beta * m + g, "This is momentum. The correction is missing."),
    ),
    hints=(
        "The memory answers the keys with m @ k.T. What part of m gives this answer?",
        "That part is (m @ k.T) @ k. Take erase times it out of beta * m, then add g.",
        "k = g / g.norm(), and return beta * m - erase * (m @ k.T) @ k + g.",
    ),
)

NEWTON_SCHULZ_STEP = Exercise(
    name="newton_schulz_step",
    notebook="05",
    solution=newton_schulz_step,
    oracle=_newton_schulz_oracle,
    stages=(
        Stage("the first step, X = g", lambda: (_random(1, 2, 3) / 4, _random(1, 2, 3) / 4, 0.25)),
        Stage("a later step, X is not g", lambda: (_random(2, 2, 3) / 4, _random(3, 2, 3) / 4, 0.25)),
        Stage("another zeta", lambda: (_random(4, 3, 5) / 4, _random(5, 3, 5) / 4, 0.1)),
    ),
    mistakes=(
        Mistake(
            lambda X, g, zeta: 1.5 * X - 0.5 * X @ X.T @ X,
            "This is the cubic step for zeta = 1/4 and X = g. Write the whole gradient, with X - g and zeta.",
        ),
        Mistake(
            lambda X, g, zeta: X - zeta * (2 * (X @ X.T - torch.eye(len(X), dtype=X.dtype)) @ X),
            "The first part is missing: X - g pulls the matrix back to g.",
        ),
        Mistake(
            lambda X, g, zeta: X - zeta * (X - g + (X @ X.T - torch.eye(len(X), dtype=X.dtype)) @ X),
            "The factor 2 is missing: the gradient of 1/2 |X X^T - I|^2 is 2 (X X^T - I) X.",
        ),
        Mistake(
            lambda X, g, zeta: X - zeta * (X - g + 4 * (X @ X.T - torch.eye(len(X), dtype=X.dtype)) @ X),
            "Your factor is 4: that is the gradient without the 1/2 before |X X^T - I|^2.",
        ),
        Mistake(
            lambda X, g, zeta: X + zeta * (X - g + 2 * (X @ X.T - torch.eye(len(X), dtype=X.dtype)) @ X),
            "You climb: a step of gradient descent goes against the gradient.",
        ),
    ),
    hints=(
        "The objective has two parts. Write the gradient of each, add them, go zeta against the sum.",
        "The gradient of 1/2 |X - g|^2 is X - g; that of 1/2 |X X^T - I|^2 is 2 (X X^T - I) X.",
        "O - zeta * (X - g + 2 * (X @ X.T - torch.eye(len(X), dtype=X.dtype)) @ X).",
    ),
)

EXERCISES = (DELTA_WRITE, NEWTON_SCHULZ_STEP, SLOW_WRITE, DGD_STEP)
