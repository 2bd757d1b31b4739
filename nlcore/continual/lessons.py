"""Learn a task, be tested on all: the loop that every method of this room plugs into.

for each task i         study(model, optimizer, task i)
                        R[i] = accuracies(model, all tasks)        a row of the accuracy matrix
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.continual.replay import Reservoir
from nlcore.tasks.continual import Task
from nlcore.training import batches


@torch.no_grad()
def accuracies(model: nn.Module, tasks: Iterable[Task]) -> Tensor:
    """Return the accuracy of the model on the test part of each task, among the outputs that may answer.

    Args     model: outputs (..., B, K) for inputs (B, ...); leading axes are runs side by side. tasks: T of them, for
             example a `TaskStream`.
    Returns  (T,), or (..., T) with the leading axes first, float64, on the CPU.
    Raises   ValueError if the model does not have the outputs of the stream.
    """
    model.eval()
    each = [(task.answers(model(task.x_test)).argmax(-1) == task.y_test).double().mean(-1) for task in tasks]
    return torch.stack(each, dim=-1).cpu()


def study(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    *,
    steps: int,
    batch_size: int = 16,
    generator: torch.Generator | None = None,
    replay: Reservoir | None = None,
    penalty: Callable[[], Tensor] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Train the model on one task, with old examples beside the new ones or a penalty, and return the losses.

    With `replay`, each batch is joined by as many old examples as soon as there are some: a step then costs about
    twice as much. The task's own examples pass by the reservoir once, in a random order, when it has been learned.

    Args     model, optimizer: any PyTorch pair with outputs (B, K). task: what is learned. steps: updates.
             batch_size: new examples an update. generator: order of the batches, on the CPU. replay: a memory of old
             examples; it is filled here. penalty: added to the loss, for example `EWC.penalty`. on_step: called with
             the step number after each update, for example to update averages.
    Returns  the loss of each batch before its update, without the penalty.
    Raises   ValueError for a bad batch_size; FloatingPointError if the loss is no longer finite.
    """
    losses = []
    allowed = task.allowed.expand(len(task.x_train), -1)
    for step, rows in enumerate(batches(len(task.x_train), batch_size, steps, generator)):
        model.train()
        rows = rows.to(task.x_train.device)
        x, y, may_answer = task.x_train[rows], task.y_train[rows], allowed[rows]
        if replay is not None and len(replay):
            new, old = (x, y, may_answer), replay.sample(batch_size)
            x, y, may_answer = (torch.cat(pair) for pair in zip(new, old, strict=True))
        loss = cross_entropy(model(x).masked_fill(~may_answer, -torch.inf), y)
        total = loss if penalty is None else loss + penalty()
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is {total.item()} at step {step}: try a smaller lr or a weaker penalty")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step)
    if replay is not None:
        order = torch.randperm(len(allowed), generator=generator).to(allowed.device)
        replay.add(task.x_train[order], task.y_train[order], allowed[order])
    return losses
