"""Chains of blocks as one model in an ordinary training loop: each block is a level with its own period or rate.

    h_0 = E x + e,   h_l = h_{l-1} + D_l relu(U_l h_{l-1} + u_l) + d_l,   outputs = O h_L + o                (Eq. 70)

The embedding E belongs to the level of the first block; the read-out O is written at every step, with the full rate, in
all variants. The lives of a chain are those of `lifetimes`: the same streams, batches and seeds.

Symbols   S learning rates, R seeds, L blocks, T tasks, B examples in a batch.
Source    Behrouz et al. 2025, Nested Learning, section 7.1, Eqs. 70 and 71.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nlcore.continual.lessons import accuracies
from nlcore.continual.lifetimes import _columns, _learn
from nlcore.metrics import accuracy_matrix
from nlcore.optimizers import PeriodicOptimizer
from nlcore.stacked import _one_start
from nlcore.tasks.continual import TaskStream

WIDTH, BLOCKS = 32, 3
CUT = 1e6  # gradients of copies that diverge are cut here, so that they stop no other copy


class StackedChain(nn.Module):
    """S x R copies of a chain of residual blocks; a seed starts from the same weights in every setting.

    Args     inputs, outputs: widths at the two ends. seeds: R whole numbers. settings: S, at least 1.
             width: of the chain and inside each block. blocks: L. dtype, device: of the weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        seeds: Sequence[int],
        settings: int = 1,
        *,
        width: int = WIDTH,
        blocks: int = BLOCKS,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        block = [(width, width), (1, width)] * 2
        first = [(width, inputs), (1, width), *block]
        self.shapes = [first, *[block] * (blocks - 1), [(outputs, width), (1, outputs)]]
        self.levels = nn.ModuleList()  # one a block, then the read-out
        for number, shapes in enumerate(self.shapes):
            rows = torch.stack([_one_start(shapes, 100 * seed + number) for seed in seeds]).to(device, dtype)
            self.levels.append(nn.ParameterList(rows.clone() for _ in range(settings)))
        for row in self.parameters():
            row.register_hook(lambda gradient: gradient.nan_to_num(0.0, CUT, -CUT).clamp(-CUT, CUT))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all copies, (S, R, B, K), for x (B, D), or (R, B, D) with examples for each seed."""
        *blocks, out = [self._weights(level) for level in range(len(self.levels))]
        E, e, *blocks[0] = blocks[0]
        h = x @ E.mT + e
        for U, u, D, d in blocks:
            h = h + (h @ U.mT + u).relu() @ D.mT + d
        return h @ out[0].mT + out[1]

    @torch.no_grad()
    def finite(self) -> Tensor:
        """Return which copies still have finite weights, (S, R) booleans."""
        rows = [torch.stack(self._rows(level)).isfinite().all(-1) for level in range(len(self.levels))]
        return torch.stack(rows).all(0)

    def _rows(self, level: int) -> list[Tensor]:
        """Return the weights of a level, one tensor (R, all weights of a copy) a setting."""
        return list(self.levels[level].parameters())

    def _weights(self, level: int) -> list[Tensor]:
        shapes = self.shapes[level]
        rows = torch.stack(self._rows(level))  # (S, R, all weights of a copy)
        parts = rows.split([math.prod(shape) for shape in shapes], dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def optimizer(
        self, lrs: Sequence[float], periods: Sequence[int], reduction: str, scales: Sequence[float]
    ) -> PeriodicOptimizer:
        """Return gradient descent with a period for each level and lrs[s] * scales[l] for level l of setting s."""
        each: list[torch.optim.Optimizer] = []
        for level, scale in enumerate([*scales, 1.0]):
            groups = [{"params": [row], "lr": lr * scale} for row, lr in zip(self._rows(level), lrs, strict=True)]
            each.append(torch.optim.SGD(groups, lr=0.0))
        return PeriodicOptimizer(each, [*periods, 1], reduction)


def chain_lifetimes(
    stream: TaskStream,
    seeds: Sequence[int],
    lrs: Sequence[float],
    periods: Sequence[int] = (1, 1, 1),
    reduction: str = "mean",
    scales: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    steps: int = 150,
) -> Tensor:
    """Learn the stream with a chain whose levels have their own periods or rates, and return accuracy matrices.

    What waits for a write when the stream ends is not written.

    Args     stream: T tasks. seeds: R seeds, each for a start and the order of the batches. lrs: S learning rates.
             periods: C_l, steps between two writes of block l, in the order of the chain. reduction: "sum" (Eq. 71) or
             "mean" of the gradients of a period. scales: block l learns with lr * scales[l]; 0 freezes it.
             steps: updates a task, 16 new examples each.
    Returns  (S, R, T, T); a copy that diverges has the accuracy 0.
    Raises   ValueError if periods and scales do not have one entry a block.
    """
    if len(periods) != BLOCKS or len(scales) != BLOCKS:
        raise ValueError(f"expected {BLOCKS} periods and scales, one a block; got {list(periods)} and {list(scales)}")
    x = stream[0].x_train
    model = StackedChain(x.shape[-1], stream.outputs, seeds, len(lrs), dtype=x.dtype, device=x.device)
    optimizer = model.optimizer(lrs, periods, reduction, scales)
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows = []
    for task in stream:
        _learn(model, optimizer, _columns(task), steps, orders, [], lambda: None)
        rows.append(accuracies(model, stream) * model.finite()[..., None].cpu())
    return accuracy_matrix(rows)
