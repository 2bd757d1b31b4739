"""Whole lives at once: a stream of tasks, learned with each learning rate and each seed, none feeling the others.

It is `lessons` for a `StackedMLP`: the same batches, the same order, the same memories for each seed as there. A life
is one network that learns task after task; what comes out of it is its accuracy matrix.

Symbols   S learning rates, R seeds, T tasks, B examples in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nlcore.continual.averages import WeightAverages
from nlcore.continual.ewc import EWC
from nlcore.continual.lessons import accuracies
from nlcore.continual.replay import Reservoir
from nlcore.stacked import StackedMLP, loss_of_each
from nlcore.tasks.continual import Task, TaskStream
from nlcore.training import batches

HIDDEN, BATCH, LOOKED_AT = 64, 16, 100


def lifetimes(
    stream: TaskStream,
    seeds: Sequence[int],
    lrs: Sequence[float],
    *,
    steps: int = 150,
    replay: int = 0,
    strength: float = 0.0,
    horizons: Sequence[float] = (),
) -> dict[float, Tensor]:
    """Learn the stream with plain gradient descent, or with one helper, and return accuracy matrices.

    Args     stream: T tasks. seeds: R seeds, each for a start, the batches and what is kept of them. lrs: S learning
             rates. steps: updates a task, 16 new examples each. replay: how many old examples are kept; 0 is none.
             strength: of EWC, pulled after each step, the importance from the first 100 examples of a task; 0 is none.
             horizons: of slow averages of the weights, each above 1.
    Returns  {1: R of the learner, h: R of its average over h steps, ...}, each (S, R, T, T).
    Raises   ValueError for EWC with more than one learning rate: it is pulled with one.
    """
    if strength and len(lrs) > 1:
        raise ValueError(f"EWC is pulled with one learning rate, got {len(lrs)}: call once for each")
    model, optimizer = _born(stream, seeds, lrs)
    averages, ewc = WeightAverages(model, (1, *horizons)), EWC(model, strength)
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]
    stores = [Reservoir(replay, seed) for seed in seeds] if replay else []

    def after() -> None:
        if strength:
            ewc.pull(lrs[0])
        if horizons:
            averages.update()

    rows: dict[float, list[Tensor]] = {horizon: [] for horizon in (1, *horizons)}
    for task in stream:
        columns = _columns(task)
        _learn(model, optimizer, columns, steps, orders, stores, after)
        for store, order in zip(stores, orders, strict=bool(stores)):
            passing = torch.randperm(len(columns[0]), generator=order).to(columns[0].device)
            store.add(*(column[passing] for column in columns))
        if strength and task is not stream[-1]:
            ewc.remember(task.x_train[:LOOKED_AT], allowed=task.allowed)
        for horizon, row in rows.items():
            row.append(accuracies(model if horizon == 1 else averages.model_at(horizon), stream))
    return {horizon: torch.stack(row, dim=-2) for horizon, row in rows.items()}


def all_at_once(stream: TaskStream, seeds: Sequence[int], lrs: Sequence[float], *, steps: int = 150) -> Tensor:
    """Learn all tasks of the stream together, in mixed batches, and return the accuracy on each: what could be reached.

    Args     as in `lifetimes`; as many updates in all, T times `steps`.
    Returns  (S, R, T).
    """
    model, optimizer = _born(stream, seeds, lrs)
    columns = tuple(torch.cat(parts) for parts in zip(*(_columns(task) for task in stream), strict=True))
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]
    _learn(model, optimizer, columns, steps * len(stream), orders, [], lambda: None)
    return accuracies(model, stream)


def _born(stream: TaskStream, seeds: Sequence[int], lrs: Sequence[float]) -> tuple[StackedMLP, torch.optim.Optimizer]:
    x = stream[0].x_train
    model = StackedMLP((x.shape[-1], HIDDEN, stream.outputs), seeds, len(lrs), dtype=x.dtype, device=x.device)
    return model, torch.optim.SGD(model.groups(lr=list(lrs)), lr=0.0)


def _columns(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a lesson is made of: images, labels, and for each image which outputs may answer."""
    return task.x_train, task.y_train, task.allowed.expand(len(task.x_train), -1)


def _learn(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    columns: Sequence[Tensor],
    steps: int,
    orders: Sequence[torch.Generator],
    stores: Sequence[Reservoir],
    after: Callable[[], None],
) -> None:
    """Train all copies on one lesson; a seed sees the same examples at every learning rate."""
    plans = [batches(len(columns[0]), BATCH, steps, order) for order in orders]
    for rows in zip(*plans, strict=True):
        chosen = torch.stack(rows).to(columns[0].device)  # (R, B)
        x, y, allowed = (column[chosen] for column in columns)
        if stores and len(stores[0]):
            old = [torch.stack(part) for part in zip(*(store.sample(BATCH) for store in stores), strict=True)]
            x, y, allowed = (torch.cat(pair, dim=1) for pair in zip((x, y, allowed), old, strict=True))
        loss = loss_of_each(model(x).masked_fill(~allowed, -torch.inf), y)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        after()
