"""Blocked tasks: one teacher, shown through one narrow window after another, in blocks, again and again.

A linear teacher y = W* x + noise has d inputs. Task j shows only inputs from its own subspace of 6 directions. Training
stays with a task for L steps (a block), then goes to the next, and comes back. The subspaces overlap, so learning one
task moves the answers to the others: a learner that only minds the last few gradients forgets.

Symbols   S settings, R seeds, e outputs, d inputs, L steps in a block, B examples in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TASKS, SUBSPACE, BATCH, NOISE = 3, 6, 8, 0.1


@dataclass(frozen=True)
class Blocks:
    """Teachers (R, e, d), bases of the tasks (R, 3, d, 6), inputs and outputs of every step (R, steps, B, d or e)."""

    teacher: Tensor
    bases: Tensor
    x: Tensor
    y: Tensor
    block: int

    def gradient(self, W: Tensor, t: int) -> Tensor:
        """Return the gradient of the mean of 1/2 |W x - y|^2 over the batch of step t, for W (S, R, e, d)."""
        x, y = self.x[:, t], self.y[:, t]
        return (x @ W.mT - y).mT @ x / BATCH

    def error(self, W: Tensor) -> Tensor:
        """Return the mean over all tasks of |(W - W*) b|^2 / |W* b|^2 for inputs b of the task, (S, R)."""
        wrong = ((W - self.teacher).unsqueeze(-3) @ self.bases).square().sum((-2, -1))
        return (wrong / (self.teacher.unsqueeze(-3) @ self.bases).square().sum((-2, -1))).mean(-1)

    def at_block_ends(self, last: int) -> Callable[[Tensor, int], Tensor | None]:
        """Return a function (W, t) -> error at the ends of the `last` blocks, None at all other steps."""
        steps = self.x.shape[1]

        def watch(W: Tensor, t: int) -> Tensor | None:
            return self.error(W) if t % self.block == 0 and t > steps - last * self.block else None

        return watch

    def empty(self) -> Tensor:
        """Return the weights of each seed before training, zeros (R, e, d)."""
        return torch.zeros_like(self.teacher)


def blocks(
    seeds: Sequence[int],
    block: int = 30,
    cycles: int = 6,
    outputs: int = 8,
    inputs: int = 16,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Blocks:
    """Return a teacher with three tasks, each shown `cycles` times for `block` steps, for each seed others.

    Args     seeds: R whole numbers. block: L >= 1. cycles: >= 1. outputs, inputs: e >= 1 and d >= 6.
    Raises   ValueError for a value outside its range.
    """
    if not seeds or min(block, cycles, outputs) < 1 or inputs < SUBSPACE:
        raise ValueError(
            f"expected seeds, block, cycles and outputs >= 1, inputs >= {SUBSPACE}; "
            f"got {len(seeds)} seeds, {block}, {cycles}, {outputs} and {inputs}"
        )
    parts = [_one(seed, block, cycles, outputs, inputs) for seed in seeds]
    teacher, bases, x, y = (torch.stack(part).to(device, dtype) for part in zip(*parts, strict=True))
    return Blocks(teacher, bases, x, y, block)


def _one(seed: int, block: int, cycles: int, outputs: int, inputs: int) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    teacher = normal(outputs, inputs)
    bases = torch.linalg.qr(normal(TASKS, inputs, SUBSPACE)).Q
    steps = TASKS * cycles * block
    task = torch.arange(steps) // block % TASKS
    x = normal(steps, BATCH, SUBSPACE) @ bases[task].mT
    return teacher, bases, x, x @ teacher.mT + NOISE * normal(steps, BATCH, outputs)
