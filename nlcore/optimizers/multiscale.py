r"""Slow + fast momentum: two memories of the same gradients, one written every step, one every `period` steps.

    m <- beta m + (1 - beta) g                                          every step
    s <- beta_s s + (1 - beta_s) mean of the last `period` gradients    every `period` steps
    W <- W - eta (m + alpha s)

One beta is one horizon: a short one forgets the task before last, a long one reacts late. Two memories with different
update frequencies keep both. This is M3 without Newton-Schulz and without the second moment, so that the effect of the
slow level can be seen alone.

Source   Behrouz et al. 2025, section 7.2 (the idea of M3, Eq. 75), reduced; the fading means are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.base import MemoryOptimizer, with_l2
from nlcore.optimizers.checks import check_beta, check_count, check_not_negative


class MultiscaleMomentum(MemoryOptimizer):
    """Momentum with a slow memory beside the fast one.

    Args     params: parameters or groups of them. lr: step size eta >= 0. beta, slow_beta: parts of the fast and the
             slow memory kept at each of their writes, in [0, 1). alpha: weight of the slow memory in a step, >= 0; with
             0 it is momentum as a fading mean. period: steps between two writes of the slow memory, >= 1.
             weight_decay: L2 penalty, >= 0.
    Raises   ValueError for a value outside its range, TypeError for one of the wrong kind; FloatingPointError in `step`
             for a gradient that is not finite.
    Source   Section 7.2.
    """

    refuses_non_finite = True

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        beta: float = 0.9,
        slow_beta: float = 0.9,
        alpha: float = 1.0,
        period: int = 10,
        weight_decay: float = 0.0,
    ) -> None:
        memories = {"beta": beta, "slow_beta": slow_beta, "alpha": alpha, "period": period}
        super().__init__(params, {"lr": lr, **memories, "weight_decay": weight_decay})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check all settings."""
        betas = {name: check_beta(name, group[name]) for name in ("beta", "slow_beta")}
        own = {"alpha": check_not_negative("alpha", group["alpha"]), "period": check_count("period", group["period"])}
        return {**super().check_group(group), **betas, **own}

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write the slow memory if its time has come, then the fast one; move W by both."""
        if "step" not in state:
            state["step"] = 0
            state.update({name: torch.zeros_like(W) for name in ("m", "s", "chunk")})
        g, beta = with_l2(g, W, group["weight_decay"]), group["beta"]
        remember_chunk(state, "s", g, group["period"], group["slow_beta"])
        m = hebbian(state["m"], None, g, lr=1 - beta, retain=beta, out=state["m"])
        hebbian(W, None, m.add(state["s"], alpha=group["alpha"]), lr=-group["lr"], out=W)

    def levels(self) -> list[Level]:
        """The fast memory and the weights at every step, the slow memory once a period."""
        n = self.numbers()
        slow = slow_levels("slow momentum s", self.param_groups)
        needs = ("fast momentum m", *(part.name for part in slow))
        return [
            Level("fast momentum m", 1, "the past gradients, fading fast", numbers=n),
            *slow,
            Level("weights W", 1, "inputs -> their surprise, at two time scales", needs=needs, numbers=n),
        ]


def remember_chunk(
    state: dict[str, Any], slow: str, g: Tensor, period: int, beta: float, literal: bool = False
) -> bool:
    """Collect `g`; before it, once a period, write what was collected into the slow memory and start a new chunk.

    Args     state: holds "step" (gradients so far), "chunk" (their sum since the last slow write) and the slow memory.
             slow: its key. g: the gradient of this step. period: gradients in a chunk. beta: part of the slow memory
             kept. literal: Algorithm 1, slow + beta sum, instead of the fading mean of chunk means.
    Returns  whether the slow memory was written.
    """
    due = state["step"] > 0 and state["step"] % period == 0
    if due:
        write, retain = (beta, 1.0) if literal else ((1 - beta) / period, beta)
        hebbian(state[slow], None, state["chunk"], lr=write, retain=retain, out=state[slow])
        state["chunk"].zero_()
    hebbian(state["chunk"], None, g, out=state["chunk"])
    state["step"] += 1
    return due


def slow_levels(name: str, groups: Sequence[dict[str, Any]]) -> list[Level]:
    """Return one slow level for each period that the groups use."""
    periods = sorted({group["period"] for group in groups})
    sizes = {p: sum(W.numel() for group in groups if group["period"] == p for W in group["params"]) for p in periods}
    names = {p: name if len(periods) == 1 else f"{name}, period {p}" for p in periods}
    return [Level(names[p], p, "the past chunks of gradients, fading slowly", numbers=sizes[p]) for p in periods]
