"""Bowls of many dimensions: f(w) = 1/2 sum_i lambda_i w_i^2, with and without noise, for many settings at once.

The condition is the largest curvature lambda over the smallest. A large one makes a ravine: the step size is limited
by the steep directions, the time by the flat ones.

Symbols   S settings, R seeds, d directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def curvatures(condition: float, directions: int = 30, device: torch.device | str = "cpu") -> Tensor:
    """Return d curvatures from 1 / condition to 1, each the same factor above the one before; float64.

    Raises   ValueError for a condition below 1 or fewer than two directions.
    """
    if not condition >= 1 or directions < 2:
        raise ValueError(f"expected a condition >= 1 and at least 2 directions, got {condition} and {directions}")
    return torch.logspace(0, 1, directions, base=float(condition), dtype=torch.float64).to(device) / condition


def draws(seeds: Sequence[int], *shape: int, device: torch.device | str = "cpu") -> Tensor:
    """Return standard normal numbers (R, *shape), for each seed its own, the same on every device; float64."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(*shape, generator=one, dtype=torch.float64) for one in generators]).to(device)


def heights(
    curvature: Tensor, start: Tensor, lr: Tensor, beta: Tensor, erase: Tensor, steps: int, noise: Tensor | None = None
) -> Tensor:
    """Descend with delta momentum, key = "unit" (momentum, where erase is 0); return f at the end, (S, R).

    The loop of `DeltaMomentum` for vectors, with a setting for each copy; a test holds both against each other.

    Args     curvature: (d,). start: (R, d). lr, beta, erase: (S,), step size eta, part kept, strength c of the
             correction. steps: how many. noise: (R, steps, d), added to the gradients.
    """
    lr, beta, erase = (value.to(start)[:, None, None] for value in (lr, beta, erase))
    W = start.expand(len(lr), *start.shape).clone()
    m = torch.zeros_like(W)
    for t in range(steps):
        g = curvature * W
        if noise is not None:
            g += noise[:, t]
        along = (m * g).sum(-1, keepdim=True) / g.square().sum(-1, keepdim=True).clamp(min=1e-300)  # m k^T / |g|
        m = m.mul_(beta).add_(g * (1 - erase * along))
        W -= lr * m
    return 0.5 * (curvature * W.square()).sum(-1)
