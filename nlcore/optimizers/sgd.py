"""Gradient descent: one memory, the weights, that maps each input to its surprise.

    W <- W - eta g                                                   (Eq. 1, 8)

For a linear layer g = u x^T, so the step is a Hebbian write of the value -u (the surprise, turned round) under the
key x (Eq. 8). See notebook 02.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.base import MemoryOptimizer, with_l2


class SGD(MemoryOptimizer):
    """Gradient descent, equal to `torch.optim.SGD` without momentum.

    Args     params: parameters or groups of them. lr: step size eta >= 0. weight_decay: L2 penalty, >= 0.
    Raises   ValueError for a negative or non-finite hyper-parameter; TypeError for one that is no number.
    Source   Behrouz et al. 2025, Eq. 1 and 8.
    """

    def __init__(self, params: ParamsT, lr: float = 0.01, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """W <- W - eta g."""
        hebbian(W, None, with_l2(g, W, group["weight_decay"]), lr=-group["lr"], out=W)

    def levels(self) -> list[Level]:
        """One part: the weights."""
        return [Level("weights W", 1, "inputs -> their surprise", numbers=self.numbers())]
