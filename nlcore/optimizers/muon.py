r"""Muon: momentum whose answer is made orthogonal before it moves the weights.

    m <- beta m + (1 - beta) g          O = NewtonSchulz(m)          W <- W - eta O              (Eq. 42)

m is an ordinary memory of gradients; what is new is how it is read. m has a few large singular values, the directions
that many examples push, and many small ones. O gives all of them the same length, so a direction that few examples
push moves the weights as far as any other. In the paper's words the memory has a nonlinear output (Eq. 52).
Newton-Schulz ignores the scale of m, so a step size inside m would have no effect: eta multiplies O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.checks import check_beta
from nlcore.optimizers.matrices import MatrixOptimizer, adjusted


class Muon(MatrixOptimizer):
    """Muon; with ns_dtype=torch.bfloat16 it equals `torch.optim.Muon` step for step on matrices.

    Args     params: parameters or groups of them. lr: step size eta of matrices, >= 0. beta: part of the memory kept,
             in [0, 1). nesterov: read the memory as if g had been written twice. weight_decay: lambda >= 0, decoupled:
             W <- (1 - eta lambda) W first. ns_steps, ns_method, ns_dtype, ns_eps: see `newton_schulz`; None computes in
             float32. adjust_lr: "original", "match_rms_adamw" or None, see `adjusted`. adamw_lr, betas, eps: for
             parameters that are no matrices, moved as by AdamW. use_muon: None: every parameter with two axes; a group
             may say True or False. stacked: a parameter (..., m, n) with more axes is a stack of separate matrices.
    Raises   ValueError for a value outside its range, TypeError for one of the wrong kind; FloatingPointError in `step`
             for a gradient that is not finite.
    Source   Behrouz et al. 2025, Eq. 42; Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks.
    """

    only_for_others = {"betas", "eps"}

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        beta: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        ns_method: str | Sequence[float] = "quintic",
        ns_dtype: torch.dtype | None = None,
        ns_eps: float = 1e-7,
        adjust_lr: str | None = "original",
        adamw_lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        use_muon: bool | None = None,
        stacked: bool = False,
    ) -> None:
        own = {"lr": lr, "beta": beta, "nesterov": nesterov, "weight_decay": weight_decay, "adjust_lr": adjust_lr}
        ns = {"ns_steps": ns_steps, "ns_method": ns_method, "ns_dtype": ns_dtype, "ns_eps": ns_eps}
        others = {"adamw_lr": adamw_lr, "betas": betas, "eps": eps, "use_muon": use_muon, "stacked": stacked}
        torch.optim.Optimizer.__init__(self, params, {**own, **ns, **others})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check all settings."""
        return {**super().check_group(group), "beta": check_beta("beta", group["beta"])}

    def update_matrix(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write g into m, make the answer orthogonal, move W."""
        if "m" not in state:
            state["m"] = torch.zeros_like(W)
        beta, lr = group["beta"], group["lr"]
        m = hebbian(state["m"], None, g, lr=1 - beta, retain=beta, out=state["m"])
        even = self.orthogonal(g.lerp(m, beta) if group["nesterov"] else m, group)
        keep = 1 - lr * group["weight_decay"]
        hebbian(W, None, even, lr=-adjusted(lr, group["adjust_lr"], W), retain=keep, out=W)

    def levels(self) -> list[Level]:
        """Two levels for matrices, and those of AdamW for the rest if there is a rest."""
        n = self.count(matrices=True)
        parts = [
            Level("momentum m", 1, "the past gradients of the matrices, fading", numbers=n),
            Level("weights W", 1, "inputs -> their surprise, every direction alike", needs=("momentum m",), numbers=n),
        ]
        return parts + self.levels_of_others()
