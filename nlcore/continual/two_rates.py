r"""Two rates of learning: a fast level that fades, on top of a slow level that does not.

    weights            W = S + F                                       what the model answers with
    every step         F <- (1 - d) F - eta g                          fast: learns at once, forgets by itself
    every C steps      S <- S - eta_S (sum of the last C gradients)    slow: learns little, keeps it
    at rest            F <- (1 - d) F                                  no data, no gradient

Practise A for long: the slow level takes it over. Practise a conflicting B for a short time: the fast level covers A.
Rest: the fast level fades and A comes back, "spontaneous recovery" as in models of motor memory. It is the fading that
does it: with d = 0 nothing comes back, and the period C hardly matters.

Symbols   S slow, F fast, g gradient; d = decay; eta = lr; eta_S = slow_lr; C = period.
Source    Smith, Ghazizadeh, Shadmehr 2006, Interacting adaptive processes with different timescales (two rates, one
          error); the slow level as in Behrouz et al. 2025, Nested Learning, Eq. 71, which has no fading level.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nlcore.levels import Level
from nlcore.memory import hebbian
from nlcore.optimizers.base import MemoryOptimizer
from nlcore.optimizers.checks import check_count, check_not_negative


class TwoRates(MemoryOptimizer):
    """Gradient descent with a fast level that fades and a slow level that stays; `rest` lets time pass without data.

    The weights are set to S + F after each step; a weight without a gradient stands still, as in `torch.optim`.

    Args     params: parameters or groups of them. lr: step size eta of the fast level, >= 0. slow_lr: eta_S of the
             slow level for the sum of a chunk, >= 0. decay: d, the part of the fast level lost at each step, in [0, 1].
             period: C, steps between two writes of the slow level, >= 1.
    Raises   ValueError for a value outside its range, TypeError for one of the wrong kind; FloatingPointError in `step`
             for a gradient that is not finite.
    """

    refuses_non_finite = True

    def __init__(
        self, params: ParamsT, lr: float = 0.4, slow_lr: float = 0.06, decay: float = 0.02, period: int = 16
    ) -> None:
        super().__init__(params, {"lr": lr, "slow_lr": slow_lr, "decay": decay, "period": period})

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check all settings."""
        checked = {name: check_not_negative(name, group[name]) for name in ("lr", "slow_lr", "decay")}
        if checked["decay"] > 1.0:
            raise ValueError(f"decay must lie in [0, 1], the part lost at each step; got {group['decay']}; try 0.02")
        return {**group, **checked, "period": check_count("period", group["period"])}

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write the gradient into the fast level and the chunk, then let one step pass."""
        state = self._begin(W)
        hebbian(state["fast"], None, g, lr=-group["lr"], retain=1 - group["decay"], out=state["fast"])
        hebbian(state["chunk"], None, g, out=state["chunk"])
        _let_pass(W, state, group, 1)

    @torch.no_grad()
    def rest(self, steps: int) -> None:
        """Let steps pass without data: the fast level fades, the slow level gets what its last chunk still holds.

        Args     steps: >= 1.
        Raises   ValueError or TypeError if steps is no whole number >= 1.
        """
        check_count("steps", steps)
        for group in self.param_groups:
            for W in group["params"]:
                state = self._begin(W)
                state["fast"].mul_((1 - group["decay"]) ** steps)
                _let_pass(W, state, group, steps)

    def parts(self) -> dict[str, list[Tensor]]:
        """Return the weights of both levels, {"slow": ..., "fast": ...}, one tensor a parameter, for `UpdateTrace`."""
        states = [self._begin(W) for W in self._weights()]
        return {name: [state[name] for state in states] for name in ("slow", "fast")}

    def levels(self) -> list[Level]:
        """The fast level at every step, the slow level once a period."""
        n = self.numbers()
        periods = sorted({group["period"] for group in self.param_groups})
        names = {p: "slow weights S" if len(periods) == 1 else f"slow weights S, period {p}" for p in periods}
        sizes = {p: sum(W.numel() for g in self.param_groups if g["period"] == p for W in g["params"]) for p in periods}
        slow = [Level(names[p], p, "inputs -> their surprise, for good", numbers=sizes[p]) for p in periods]
        return [Level("fast weights F", 1, "inputs -> their surprise, fading", numbers=n), *slow]

    def _begin(self, W: Tensor) -> dict[str, Any]:
        """Return the memories of one weight tensor; at first all of it is slow."""
        state = self.state[W]
        if "step" not in state:
            state.update(step=0, slow=W.detach().clone(), fast=torch.zeros_like(W), chunk=torch.zeros_like(W))
        return state


def _let_pass(W: Tensor, state: dict[str, Any], group: dict[str, Any], steps: int) -> None:
    """Let time pass, write the slow level if its time has come, and set W = S + F."""
    due = (state["step"] + steps) // group["period"] > state["step"] // group["period"]
    state["step"] += steps
    if due:
        hebbian(state["slow"], None, state["chunk"], lr=-group["slow_lr"], out=state["slow"])
        state["chunk"].zero_()
    torch.add(state["slow"], state["fast"], out=W)
