"""A small loop that trains any model with any optimizer, and two measures of how well it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

PROGRESS_VARIABLE = "NLCORE_PROGRESS"
Item = TypeVar("Item")
Loss = Callable[[Tensor, Tensor], Tensor]


def batches(n: int, batch_size: int, steps: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Yield `steps` batches of row numbers: shuffled passes over 0..n-1, never a short batch.

    Args     n: number of examples. batch_size: rows a batch, 1 to n. steps: batches to yield.
             generator: for the shuffles (on the CPU); None uses torch's global one.
    Returns  an iterator over int64 tensors of shape (batch_size,).
    Raises   ValueError if batch_size is not in 1..n or steps is negative.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must lie between 1 and the {n} examples there are, got {batch_size}")
    if steps < 0:
        raise ValueError(f"steps must be >= 0, got {steps}")
    return _batches(n, batch_size, steps, generator)


def _batches(n: int, batch_size: int, steps: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    done = 0
    while done < steps:
        whole = torch.randperm(n, generator=generator)[: n - n % batch_size]
        for rows in whole.split(batch_size)[: steps - done]:
            yield rows
            done += 1


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    batch_size: int = 32,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Train `model` on (x, y) for `steps` batches and return the loss of each batch, before its update.

    A progress bar is shown; set the environment variable NLCORE_PROGRESS=0 to hide it.

    Args     model, optimizer: any PyTorch pair. x: (N, ...) inputs. y: (N, ...) targets, on the same device.
             steps: number of updates. batch_size: examples an update, 1 to N. loss: (prediction, target) -> scalar.
             generator: order of the batches. on_step: called with the step number after each update.
    Returns  the losses, `steps` numbers.
    Raises   ValueError if x and y differ in length, or for a bad batch_size; FloatingPointError if the loss is no
             longer finite (the learning rate is too high).
    """
    if len(x) != len(y):
        raise ValueError(f"x and y must have the same length, got {len(x)} and {len(y)}")
    losses = []
    model.train()
    for step, rows in enumerate(with_bar(batches(len(x), batch_size, steps, generator), steps)):
        rows = rows.to(x.device)
        value = loss(model(x[rows]), y[rows])
        losses.append(value.item())
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss is {losses[-1]} at step {step}: try a smaller learning rate")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if on_step is not None:
            on_step(step)
    return losses


def with_bar(rows: Iterable[Item], steps: int) -> Iterator[Item]:
    """Yield the items with a progress bar of `steps` steps, unless NLCORE_PROGRESS=0 hides it."""
    quiet = os.environ.get(PROGRESS_VARIABLE) == "0"
    return iter(tqdm(rows, total=steps, disable=quiet, leave=False, desc="training"))


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the part of the rows of x, in [0, 1], whose largest output is at the class y.

    Args     x: (N, ...) inputs. y: (N,) class numbers.
    Raises   ValueError if x and y differ in length or are empty.
    """
    _check_rows(x, y)
    model.eval()
    return float((model(x).argmax(-1) == y).double().mean())


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> float:
    """Return the mean loss of `model` on (x, y), without training it.

    Raises   ValueError if x and y differ in length or are empty.
    """
    _check_rows(x, y)
    model.eval()
    return float(loss(model(x), y))


def _check_rows(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"x and y must have the same length, at least 1; got {len(x)} and {len(y)}")
