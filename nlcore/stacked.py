"""Many small networks trained at once: one for each setting and seed, and none of them feels the others.

To say how sure a comparison is you need many runs. A tiny network leaves a processor idle most of the time, so its
runs are stacked: every weight matrix gets leading axes (settings, seeds) and one batched product serves all runs. The
loss is the SUM over the runs, so the gradient of a run is what it would be alone; SGD, momentum and Adam act on each
number by itself, so its update is too.

Symbols   S settings (for example learning rates), R seeds, B examples in a batch, D inputs, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.training import batches


class StackedMLP(nn.Module):
    """S x R copies of one network with ReLU layers; a seed starts from the same weights in every setting.

    Args     sizes: width of the input, of each hidden layer, of the output, for example (64, 32, 10).
             seeds: one whole number for each of the R copies within a setting. settings: S, at least 1.
             dtype, device: of the weights.
    Raises   ValueError for fewer than two sizes, a size below 1, no seed, or no setting.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seeds: Sequence[int],
        settings: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes needs an input and an output width, all at least 1, got {tuple(sizes)}")
        if len(seeds) == 0 or settings < 1:
            raise ValueError(f"expected at least one seed and one setting, got {len(seeds)} and {settings}")
        self.shapes = [shape for d_in, d_out in pairwise(sizes) for shape in ((d_out, d_in), (1, d_out))]
        start = torch.stack([_one_start(self.shapes, seed) for seed in seeds]).to(device, dtype)  # (R, all weights)
        self.settings = nn.ParameterList(start.clone() for _ in range(settings))

    def weights(self) -> list[Tensor]:
        """Return the weights (S, R, out, in) and biases (S, R, 1, out) of each layer, in turn."""
        flat = torch.stack(list(self.settings))  # (S, R, all weights of a copy)
        parts = flat.split([math.prod(shape) for shape in self.shapes], dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all copies, shape (S, R, B, K).

        Args     x: (B, D), the same examples for all, or (R, B, D), examples for each seed.
        """
        layers = self.weights()
        for depth in range(0, len(layers), 2):
            x = (x.relu() if depth else x) @ layers[depth].mT + layers[depth + 1]  # (S, R, B, out)
        return x

    def groups(self, **hyper: Sequence[Any]) -> list[dict[str, Any]]:
        """Return one parameter group a setting, with its own hyper-parameters, for any `torch.optim.Optimizer`.

        Args     hyper: name -> one value for each of the S settings, for example lr=[0.1, 0.2].
        Raises   ValueError if a list is not S long.
        """
        S = len(self.settings)
        for name, values in hyper.items():
            if len(values) != S:
                raise ValueError(f"{name} needs one value for each of the {S} settings, got {len(values)}")
        each = [dict(zip(hyper, values, strict=True)) for values in zip(*hyper.values(), strict=True)]
        each = each or [{} for _ in self.settings]
        return [{"params": [setting], **own} for setting, own in zip(self.settings, each, strict=True)]


def _one_start(shapes: Sequence[tuple[int, int]], seed: int) -> Tensor:
    """Return all weights and biases of one copy in a row, uniform within 1 / sqrt(in) as in `nn.Linear`."""
    generator = torch.Generator().manual_seed(seed)
    row = []
    for (d_out, d_in), bias in zip(shapes[::2], shapes[1::2], strict=True):
        for shape in ((d_out, d_in), bias):
            row.append((2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) / math.sqrt(d_in))
    return torch.cat([part.flatten() for part in row])


def loss_of_each(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of each run, shape (S, R).

    Args     outputs: (S, R, B, K). y: (B,) class numbers for all, or (R, B) for each seed.
    """
    S, R, B, K = outputs.shape
    targets = y.expand(S, R, B).reshape(-1)
    return cross_entropy(outputs.reshape(-1, K), targets, reduction="none").reshape(S, R, B).mean(-1)


@torch.no_grad()
def measure(model: StackedMLP, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the test measures of every run: {"loss": (S, R), "accuracy": (S, R)}, float64, on the CPU.

    A run whose outputs are no longer finite has an infinite loss and the accuracy 0.

    Args     x: (N, D) inputs. y: (N,) class numbers.
    """
    outputs = model(x).double()
    fine = outputs.isfinite().all(-1).all(-1)
    right = (outputs.argmax(-1) == y).double().mean(-1)
    loss = loss_of_each(outputs, y)
    never = torch.full_like(loss, math.inf)
    return {"loss": torch.where(fine, loss, never).cpu(), "accuracy": torch.where(fine, right, 0.0).cpu()}


def fit_stacked(
    model: StackedMLP,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    seeds: Sequence[int],
    batch_size: int = 32,
    at_step: Mapping[int, Callable[[], None]] | None = None,
) -> Tensor:
    """Train all copies for `steps` batches; a seed sees the same batches in every setting.

    Args     model, optimizer: the optimizer must act on each number by itself (SGD, Momentum, Adam, AdamW do).
             x: (N, D). y: (N,). steps: updates. seeds: order of the batches, one for each of the R copies.
             batch_size: examples an update, 1 to N. at_step: what to do after the updates with these numbers (from 1).
    Returns  the loss of each batch before its update, shape (steps, S, R). A run that diverges does so alone.
    Raises   ValueError for a bad batch_size or a number of seeds that is not R.
    """
    R = len(model.settings[0])
    if len(seeds) != R:
        raise ValueError(f"seeds needs one seed for each of the {R} copies in a setting, got {len(seeds)}")
    orders = [batches(len(x), batch_size, steps, torch.Generator().manual_seed(seed)) for seed in seeds]
    losses = []
    for step, rows in enumerate(zip(*orders, strict=True), start=1):
        chosen = torch.stack(rows).to(x.device)  # (R, B)
        each = loss_of_each(model(x[chosen]), y[chosen])
        losses.append(each.detach())
        optimizer.zero_grad()
        each.sum().backward()
        optimizer.step()
        if at_step is not None and step in at_step:
            at_step[step]()
    return torch.stack(losses)


def trials(
    optimizer: Callable[..., torch.optim.Optimizer],
    lrs: Sequence[float],
    seeds: Sequence[int],
    *,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    budgets: Sequence[int],
    hidden: int = 32,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """Train a network with one hidden layer for each learning rate and seed, and measure it after each budget.

    Args     optimizer: a class of optimizers, called as optimizer(groups). lrs: S learning rates. seeds: R seeds, each
             for a start and an order of the batches. train, test: (inputs (N, D), class numbers (N,)).
             budgets: numbers of steps, increasing. hidden: width of the hidden layer. batch_size: examples a step.
    Returns  {"loss": ..., "accuracy": ...} on `test`, each of shape (budgets, S, R).
    Raises   ValueError if the budgets are not increasing numbers of at least 1.
    """
    if len(budgets) == 0 or list(budgets) != sorted(set(budgets)) or budgets[0] < 1:
        raise ValueError(f"budgets must be increasing numbers of steps, at least 1, got {list(budgets)}")
    x, y = train
    sizes = (x.shape[-1], hidden, int(y.max()) + 1)
    model = StackedMLP(sizes, seeds, len(lrs), dtype=x.dtype, device=x.device)
    found: list[dict[str, Tensor]] = []
    look = dict.fromkeys(budgets, lambda: found.append(measure(model, *test)))
    made = optimizer(model.groups(lr=lrs))
    fit_stacked(model, made, x, y, steps=budgets[-1], seeds=seeds, batch_size=batch_size, at_step=look)
    return {name: torch.stack([one[name] for one in found]) for name in ("loss", "accuracy")}
