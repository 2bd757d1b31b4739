"""A small network with a fixed stream of batches, on which the tests train every optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def net(seed: int = 0) -> nn.Sequential:
    """Return the network of this seed, in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    """Return the loss on the batch of this step."""
    random = torch.Generator().manual_seed(step)
    x = torch.randn(10, 6, dtype=torch.float64, generator=random)
    y = torch.randint(0, 3, (10,), generator=random)
    return nn.functional.cross_entropy(model(x), y)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, scheduler: Any = None) -> None:
    """Take these steps, each on its own batch."""
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
