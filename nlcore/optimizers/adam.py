r"""Adam: two memories side by side, of the gradients and of their squares.

    m <- beta1 m + (1 - beta1) g            m^ = m / (1 - beta1^t)
    v <- beta2 v + (1 - beta2) g^2          v^ = v / (1 - beta2^t)
    W <- W - eta m^ / (sqrt(v^) + epsilon)

m^ and v^ are exact answers to weighted least-squares questions (notebook 04): m^ is the number closest to the past
gradients, v^ the number closest to their squares, where a gradient of age k weighs beta^k.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.base import MemoryOptimizer, with_l2
from nlcore.optimizers.checks import check_betas, check_not_negative


class Adam(MemoryOptimizer):
    """Adam, equal to `torch.optim.Adam`.

    Args     params: parameters or groups of them. lr: step size eta >= 0. betas: (beta1, beta2), the parts of the two
             memories kept at each step, in [0, 1). eps: >= 0, added to the root. weight_decay: L2 penalty, >= 0.
    Raises   ValueError for a value outside its range; TypeError for one that is no number or no pair.
    Source   Kingma and Ba 2015; Behrouz et al. 2025, section 4.1 and appendix B, Eq. 100-105.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check lr, weight_decay, betas and eps."""
        own = {"betas": check_betas(group["betas"]), "eps": check_not_negative("eps", group["eps"])}
        return {**super().check_group(group), **own}

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write g and g^2 into their memories, correct their bias, then move the weights."""
        if "step" not in state:
            state.update(step=0, m=torch.zeros_like(W), v=torch.zeros_like(W))
        state["step"] += 1
        (beta1, beta2), lr = group["betas"], group["lr"]
        g, keep = self.decay(W, g, group)
        m = hebbian(state["m"], None, g, lr=1 - beta1, retain=beta1, out=state["m"])
        square = g * g
        v = hebbian(state["v"], None, square, lr=1 - beta2, retain=beta2, out=state["v"])
        weight1, weight2 = self.total_weights(state["step"], beta1, beta2)
        scale = self.scale(torch.div(v, weight2, out=square), group["eps"])  # square is free to be written over
        hebbian(W, None, torch.div(m, scale, out=scale), lr=-lr / weight1, retain=keep, out=W)

    def total_weights(self, step: int, beta1: float, beta2: float) -> tuple[float, float]:
        """Return the weight that each memory has given out so far: 1 - beta^t. Dividing by it corrects the bias."""
        return 1 - beta1**step, 1 - beta2**step

    def scale(self, v_hat: Tensor, eps: float) -> Tensor:
        """Return what the direction is divided by: sqrt(v^) + epsilon. `v_hat` may be overwritten."""
        return v_hat.sqrt_().add_(eps)

    def decay(self, W: Tensor, g: Tensor, group: dict[str, Any]) -> tuple[Tensor, float]:
        """Return the gradient to remember and the part of the weights to keep. Here the penalty joins the gradient."""
        return with_l2(g, W, group["weight_decay"]), 1.0

    def levels(self) -> list[Level]:
        """Three parts on two levels: m and v do not need each other; the weights need both."""
        n = self.numbers()
        return [
            Level("first moment m", 1, "the past gradients, fading", numbers=n),
            Level("second moment v", 1, "their squares, fading", numbers=n),
            Level(
                "weights W",
                1,
                "inputs -> their surprise, smoothed by m and scaled by v",
                needs=("first moment m", "second moment v"),
                numbers=n,
            ),
        ]


class AdamW(Adam):
    """Adam whose weights forget on their own, equal to `torch.optim.AdamW`: W <- (1 - eta lambda) W - eta m^/(...).

    Weight decay is the `retain` of the memory W, so it stays out of the memories of gradients.

    Args     as for Adam; weight_decay: lambda, default 0.01.
    Source   Loshchilov and Hutter 2019.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def decay(self, W: Tensor, g: Tensor, group: dict[str, Any]) -> tuple[Tensor, float]:
        """Return the gradient as it is, and the part of the weights to keep: 1 - eta lambda."""
        return g, 1.0 - group["lr"] * group["weight_decay"]
