r"""Delta momentum: before a gradient is written, what the memory answers to it is erased.

    m <- m (beta I - c k^T k) + P g          W <- W - eta m          (Eq. 49, corrected)

Momentum only adds (a Hebbian write). Here the keys are the rows of the gradient: m answers them with m k^T, and the
part c of that answer is taken out, as in the delta rule. Old gradients fade where the new one points, and stay
elsewhere.

The printed Eq. 49 has no step size on the erased part, so c = 1 and k = g, which is stable only for small gradients:
the new memory is bounded if c |k|^2 < 1 + beta. Two ways to keep that are built in.

    key = "unit"        k = g / |g|, and c < 1 + beta is all that is needed
    key = "gradient"    k = g as printed; c is cut, where it must be, to stay below (1 + beta) / |g|^2

With key = "gradient" and c = eta it is gradient descent with step size eta on 1/2 |m' g^T + P|^2 for m' = -eta m.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.base import MemoryOptimizer, with_l2
from nlcore.optimizers.checks import check_beta, check_choice, check_not_negative
from nlcore.optimizers.momentum import Preconditioner, precondition

KEYS = ("unit", "gradient")
MARGIN = 0.99  # the part of the bound (1 + beta) / |g|^2 that a cut step uses


class DeltaMomentum(MemoryOptimizer):
    """Momentum that corrects itself: the delta rule on a memory of gradients.

    A vector counts as a matrix with one row, a tensor with more than two axes as (first axis, all the others).

    Args     params: parameters or groups of them. lr: step size eta >= 0. beta: part of the memory kept, in [0, 1).
             erase: c >= 0, the strength of the correction; with "unit" below 1 + beta; 0 is `Momentum`.
             weight_decay: L2 penalty, >= 0. key: "unit" or "gradient", see above. stacked: a parameter (..., m, n) is a
             stack of separate matrices. preconditioner: g -> P g, what is written for g (Eq. 47); None writes g.
    Raises   ValueError for a value outside its range, TypeError for one of the wrong kind; FloatingPointError in `step`
             for a gradient that is not finite.
    Source   Behrouz et al. 2025, Eq. 46-49; the step size on the erased part and the bound are put in.
    """

    refuses_non_finite = True
    for_all_groups = ("preconditioner",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        beta: float = 0.9,
        erase: float = 0.9,
        weight_decay: float = 0.0,
        key: str = "unit",
        stacked: bool = False,
        preconditioner: Preconditioner | None = None,
    ) -> None:
        own = {"beta": beta, "erase": erase, "key": key, "stacked": stacked, "preconditioner": preconditioner}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **own})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check all settings, the bound on `erase` among them."""
        check_choice("key", group["key"], KEYS)
        beta, erase = check_beta("beta", group["beta"]), check_not_negative("erase", group["erase"])
        if group["key"] == "unit" and not erase < 1 + beta:
            raise ValueError(
                f"erase must be below 1 + beta = {1 + beta:g}, or the memory grows; got {erase}; try {beta}"
            )
        return {**super().check_group(group), "beta": beta, "erase": erase}

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Erase what m answers to the rows of g, write P g, move W."""
        if "m" not in state:
            state["m"] = torch.zeros_like(W)
        g = with_l2(g, W, group["weight_decay"])
        written = precondition(self.defaults["preconditioner"], g)
        rows = as_rows(g, group["stacked"])
        m = state["m"].view(rows.shape)
        k, c = self.keys(rows, group)
        correction = c * ((m @ k.mT) @ k)
        hebbian(m, None, written.reshape(rows.shape) - correction, retain=group["beta"], out=m)
        hebbian(W, None, state["m"], lr=-group["lr"], out=W)

    def keys(self, rows: Tensor, group: dict[str, Any]) -> tuple[Tensor, Tensor | float]:
        """Return the keys (..., m, n) and the strength c of the correction, within the bound."""
        size = rows.norm(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        if group["key"] == "unit":
            return rows / size, group["erase"]
        return rows, (MARGIN * (1 + group["beta"]) / size / size).clamp(max=group["erase"])

    def levels(self) -> list[Level]:
        """Two parts: the memory m, and the weights that need it."""
        n = self.numbers()
        return [
            Level("momentum m", 1, "the past gradients, corrected by each new one", numbers=n),
            Level("weights W", 1, "inputs -> their surprise, smoothed by m", needs=("momentum m",), numbers=n),
        ]


def as_rows(g: Tensor, stacked: bool = False) -> Tensor:
    """Return `g` as a matrix (rows, numbers in a row), or as a stack (..., m, n) of matrices."""
    if stacked and g.ndim > 2:
        return g
    return g.reshape(1, -1) if g.ndim < 2 else g.reshape(g.shape[0], -1)
