r"""Momentum: a second memory, of past gradients, that fades by the factor beta at each step.

The same idea is written in three ways; `convention` names them.

    "torch"      m <- beta m + g          W <- W - eta m          torch.optim.SGD(momentum=beta)
    "step"       m <- beta m - eta g      W <- W + m              section 4.2, Eq. 33 (the paper's alpha is beta here)
    "gradient"   m <- beta m + eta g      W <- W - m              section 3.1, Eq. 10-13, where beta = 1

With a constant step size eta all three move the weights alike. When eta changes they differ: in "torch" the new eta
rescales the whole memory, in the other two only what is written from now on.

What is written need not be g: a preconditioner P writes P g, a more expressive value (Eq. 46-47).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.base import MemoryOptimizer, with_l2
from nlcore.optimizers.checks import check_beta

CONVENTIONS = ("torch", "step", "gradient")
Preconditioner = Callable[[Tensor], Tensor]


def rates(convention: str, lr: float) -> tuple[float, float]:
    """Return the strength of the write into m, and that of the write of m into W."""
    if convention == "torch":
        return 1.0, -lr
    return (-lr, 1.0) if convention == "step" else (lr, -1.0)


def precondition(preconditioner: Preconditioner | None, g: Tensor) -> Tensor:
    """Return P g, or g without a preconditioner.

    Raises   ValueError if P g has another shape than g.
    """
    written = g if preconditioner is None else preconditioner(g)
    if written.shape != g.shape:
        raise ValueError(
            f"the preconditioner turned shape {tuple(g.shape)} into {tuple(written.shape)}; keep the shape"
        )
    return written


class Momentum(MemoryOptimizer):
    """Gradient descent with a memory of past gradients; "torch" equals `torch.optim.SGD(momentum=beta)`.

    Args     params: parameters or groups of them. lr: step size eta >= 0. beta: part of the memory kept at each step,
             in [0, 1); "gradient" also takes 1, the paper's memory that never forgets. weight_decay: L2 penalty, >= 0.
             convention: "torch", "step" or "gradient", see above. preconditioner: g -> P g, what is written for a
             gradient; one for all groups, not saved in `state_dict`; None writes g.
    Raises   ValueError for a value outside its range or an unknown convention; TypeError for one that is no number.
    Source   Behrouz et al. 2025, Eq. 10-13, 32-34 and 46-47.
    """

    for_all_groups = ("preconditioner",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        convention: str = "torch",
        preconditioner: Preconditioner | None = None,
    ) -> None:
        own = {"lr": lr, "beta": beta, "weight_decay": weight_decay, "convention": convention}
        super().__init__(params, {**own, "preconditioner": preconditioner})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check lr, weight_decay, beta and convention."""
        if group["convention"] not in CONVENTIONS:
            raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}; got {group['convention']!r}")
        never_forgets = group["convention"] == "gradient" and group["beta"] == 1.0
        beta = 1.0 if never_forgets else check_beta("beta", group["beta"])
        return {**super().check_group(group), "beta": beta}

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write the gradient into the memory m, then the memory into the weights."""
        if "m" not in state:
            state["m"] = torch.zeros_like(W)
        write, move = rates(group["convention"], group["lr"])
        g = with_l2(g, W, group["weight_decay"])
        value = precondition(self.defaults["preconditioner"], g)  # g itself, without a preconditioner
        m = hebbian(state["m"], None, value, lr=write, retain=group["beta"], out=state["m"])
        hebbian(W, None, m, lr=move, out=W)

    def levels(self) -> list[Level]:
        """Two parts: the memory m, and the weights that need it."""
        n = self.numbers()
        return [
            Level("momentum m", 1, "the past gradients, fading", numbers=n),
            Level("weights W", 1, "inputs -> their surprise, smoothed by m", needs=("momentum m",), numbers=n),
        ]
