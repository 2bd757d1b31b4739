r"""Deep momentum: the memory of gradients is a small neural network, asked with the current gradient.

    m <- gradient descent on L2(m; u_i), fading by alpha          W <- W + eta |g| m(u_i)          (Eq. 50)

The paper fixes neither network nor objective and warns that both need care. Every choice here is ours:

    input       each row of g, divided by the root mean square length of the rows (|g| above), so its scale is one
    network     m(u) = A tanh(B u), one for each parameter tensor; B random, A = 0 at the start: an empty memory
                answers 0, so the first steps are short
    writing     before reading, with one step of size `memory_lr` on the mean over the rows of
                  "squared"   1/2 |m(u) + u|^2     answer a gradient by its opposite; the rule that works
                  "dot"       <m(u), u>            the same without looking at the answer; needs retain < 1
                  "ones"      <m(u), 1>            the example of the paper; it teaches m the same answer for every u
    fading      A <- retain A; B does not fade, because a network whose both layers fade goes dead

With "squared" a direction that came often is answered in full, one that is new hardly at all: a learned filter of
gradients, not a mean of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.optimizers.base import MemoryOptimizer, with_l2
from nlcore.optimizers.checks import check_choice, check_count, check_not_negative
from nlcore.optimizers.delta_momentum import as_rows

OBJECTIVES = ("squared", "dot", "ones")


class DeepMomentum(MemoryOptimizer):
    """Gradient descent through a learned memory of gradients (DMGD).

    Args     params: parameters or groups of them. lr: step size eta >= 0. memory_lr: step size of the memory, >= 0.
             retain: part of the memory's read-out kept at each step, in (0, 1]. hidden: width of the memory's network,
             >= 1. objective: "squared", "dot" or "ones", see above. seed: of the random layer B.
             weight_decay: L2 penalty, >= 0.
    Raises   ValueError for a value outside its range, TypeError for one of the wrong kind; FloatingPointError in `step`
             for a gradient that is not finite.
    Source   Behrouz et al. 2025, Eq. 50 and 52.
    """

    refuses_non_finite = True

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        memory_lr: float = 0.1,
        retain: float = 1.0,
        hidden: int = 32,
        objective: str = "squared",
        seed: int = 0,
        weight_decay: float = 0.0,
    ) -> None:
        memory = {"memory_lr": memory_lr, "retain": retain, "hidden": hidden, "objective": objective, "seed": seed}
        super().__init__(params, {"lr": lr, **memory, "weight_decay": weight_decay})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check all settings."""
        check_choice("objective", group["objective"], OBJECTIVES)
        check_count("hidden", group["hidden"])
        own = {name: check_not_negative(name, group[name]) for name in ("memory_lr", "retain")}
        if not 0.0 < own["retain"] <= 1.0:
            raise ValueError(f"retain must lie in (0, 1]: the part of the memory kept; got {group['retain']}; try 0.99")
        return {**super().check_group(group), **own}

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write the rows of g into the network, read it with them, move W by the answer."""
        rows = as_rows(with_l2(g, W, group["weight_decay"]))
        if "A" not in state:
            state["A"], state["B"] = empty_network(rows, group["hidden"], group["seed"])
        size = rows.norm() / math.sqrt(len(rows))
        u = rows / size.clamp(min=torch.finfo(rows.dtype).tiny)
        A, B = state["A"], state["B"]
        write(A, B, u, group["memory_lr"], group["retain"], group["objective"])
        W.add_((size * answer(A, B, u)).reshape(W.shape), alpha=group["lr"])

    def levels(self) -> list[Level]:
        """The network and the weights; the network's size is known after the first step."""
        held = [self.state[W] for W in self._weights() if W in self.state]
        n = sum(state["A"].numel() + state["B"].numel() for state in held if "A" in state)
        return [
            Level("memory network m", 1, "gradients -> the step to take", numbers=n),
            Level(
                "weights W", 1, "inputs -> their surprise, filtered by m", ("memory network m",), numbers=self.numbers()
            ),
        ]


def empty_network(rows: Tensor, hidden: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return A = 0, shape (d, hidden), and a random B, shape (hidden, d), for rows of d numbers."""
    d = rows.shape[-1]
    B = torch.randn(hidden, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / math.sqrt(d)
    return rows.new_zeros(d, hidden), B.to(rows)


def answer(A: Tensor, B: Tensor, u: Tensor) -> Tensor:
    """Return m(u) = A tanh(B u) for each row of u, shape (rows, d)."""
    return (u @ B.mT).tanh() @ A.mT


def write(A: Tensor, B: Tensor, u: Tensor, lr: float, retain: float, objective: str) -> None:
    """Take one step of gradient descent on the mean of L2(m; u) over the rows of u; A and B change in place."""
    h = (u @ B.mT).tanh()
    error = {"squared": lambda: h @ A.mT + u, "dot": lambda: u, "ones": lambda: torch.ones_like(u)}[objective]()
    error = error / len(u)  # gradient of the mean objective with respect to the answers
    into_B = (error @ A * (1 - h * h)).mT @ u
    A.mul_(retain).sub_(error.mT @ h, alpha=lr)
    B.sub_(into_B, alpha=lr)
