r"""Levels in an ordinary training loop: each optimizer steps at its own period, on the gradients since its last step.

    S <- S + g                                every step
    one step of the optimizer on S; S <- 0    every C steps

This is Eq. 71 with "one token" read as "one batch", for any optimizer and any split of a model into levels. The control
that belongs beside it: the same levels with period 1 and C times smaller gradients or learning rates.

Symbols   g gradient of the batch; S what waits (reduction "sum"; "mean" hands S / C to the optimizer); C period.
Source    Behrouz et al. 2025, Nested Learning, section 7.1, Eq. 71.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nlcore.levels import Level, describe
from nlcore.optimizers.base import Loss
from nlcore.optimizers.checks import check_choice, check_count, check_finite, check_gradient


class PeriodicOptimizer(Optimizer):
    """Several optimizers as one; each takes a step once in its period, on all gradients since its last one.

    It goes wherever an optimizer goes: the loop calls `zero_grad`, `backward` and `step` at every batch, and a
    learning-rate scheduler on it reaches the groups of all its optimizers.

    Args     optimizers: any `torch.optim.Optimizer`s, no weight in two of them. periods: steps between two steps of
             each, whole numbers >= 1. reduction: "sum" (Eq. 71) or "mean" of the gradients of a period.
    Raises   TypeError for something that is no optimizer, ValueError for a bad period or reduction, or a weight in two
             optimizers; FloatingPointError in `step` for a gradient that is not finite and would have to wait.
    Example  PeriodicOptimizer([Adam(slow.parameters()), Adam(fast.parameters())], periods=[16, 1])
    Source   Section 7.1, Eq. 71.
    """

    def __init__(self, optimizers: Sequence[Optimizer], periods: Sequence[int], reduction: str = "sum") -> None:
        check_choice("reduction", reduction, ("sum", "mean"))
        optimizers = [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers)
        wrong = [type(one).__name__ for one in optimizers if not isinstance(one, Optimizer)]
        if wrong or not optimizers:
            raise TypeError(f"expected a list of one or more optimizers, got {wrong or 'an empty list'}")
        periods = [check_count("a period", period) for period in periods]
        if len(periods) != len(optimizers):
            raise ValueError(f"expected one period for each of the {len(optimizers)} optimizers, got {len(periods)}")
        weights = [W for one in optimizers for W in _weights(one)]
        if len({id(W) for W in weights}) < len(weights):
            raise ValueError("a weight belongs to two of the optimizers: give each weight to one of them")
        super().__init__(weights, {})
        self.optimizers, self.periods, self.reduction = optimizers, periods, reduction
        self.waiting = [0] * len(optimizers)  # steps since the last step of each optimizer
        self._share_groups()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: a group belongs to one of the optimizers, add it there."""
        if hasattr(self, "optimizers"):
            raise TypeError("add the group to the optimizer it belongs to: periodic.optimizers[i].add_param_group(...)")
        super().add_param_group(param_group)

    def _share_groups(self) -> None:
        """Show the very groups of the optimizers, so that a scheduler changes theirs."""
        self.param_groups = [group for one in self.optimizers for group in one.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the caller, never what waits for a later step."""
        self._share_groups()
        super().zero_grad(set_to_none)
        for optimizer, steps in zip(self.optimizers, self.waiting, strict=True):
            if steps == 0:  # DGD keeps the inputs of its layers too, and needs those of the whole period
                optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Loss] | None = None) -> Loss | None:  # type: ignore[override]
        """Collect the gradients of this step; let every optimizer whose period is full take its step.

        Args     closure: computes the loss and its gradients anew, as in `torch.optim`.
        Returns  what the closure returned, or None.
        Raises   as the class says; nothing has been collected or written then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._share_groups()
        patient = [one for one, period in zip(self.optimizers, self.periods, strict=True) if period > 1]
        gradients = {W: W.grad for one in patient for W in _weights(one) if W.grad is not None}
        for gradient in gradients.values():
            check_gradient(gradient)
            check_finite(gradient)
        for W, gradient in gradients.items():
            summed = self.state[W].get("summed")
            self.state[W]["summed"] = gradient.clone() if summed is None else summed.add_(gradient)
        for index, period in enumerate(self.periods):
            self.waiting[index] += 1
            if self.waiting[index] == period:
                self._step_of(index)
        return loss

    @torch.no_grad()
    def flush(self) -> None:
        """Let every optimizer for which gradients wait take its step now; its next period begins after it."""
        for index, steps in enumerate(self.waiting):
            if steps:
                self._step_of(index)

    def _step_of(self, index: int) -> None:
        """Step one optimizer on what waits for it; the gradients of the caller are put back afterwards."""
        optimizer, steps = self.optimizers[index], self.waiting[index]
        if self.periods[index] > 1:
            weights = list(_weights(optimizer))
            own = [W.grad for W in weights]
            try:
                for W in weights:
                    summed = self.state[W].get("summed")
                    W.grad = summed / steps if summed is not None and self.reduction == "mean" else summed
                optimizer.step()
            finally:
                for W, gradient in zip(weights, own, strict=True):
                    W.grad = gradient
            for W in weights:
                self.state.pop(W, None)
        else:
            optimizer.step()
        self.waiting[index] = 0

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on, also in the middle of a period."""
        summed = [
            [self.state[W].get("summed") if W in self.state else None for W in _weights(o)] for o in self.optimizers
        ]
        inner = [optimizer.state_dict() for optimizer in self.optimizers]
        return {"periods": list(self.periods), "waiting": list(self.waiting), "summed": summed, "optimizers": inner}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Args     state_dict: of a PeriodicOptimizer with the same periods and as many weights.
        Raises   ValueError if it is of another one; nothing has been loaded then.
        """
        if state_dict.get("periods") != self.periods:
            raise ValueError(f"expected a state with the periods {self.periods}, got {state_dict.get('periods')}")
        weights = [list(_weights(optimizer)) for optimizer in self.optimizers]
        found, expected = [len(row) for row in state_dict["summed"]], [len(row) for row in weights]
        if found != expected:
            raise ValueError(f"expected a state for {expected} weights of the optimizers, got {found}")
        for optimizer, inner in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(inner)
        self.waiting = list(state_dict["waiting"])
        self.state.clear()
        for W, summed in zip(sum(weights, []), sum(state_dict["summed"], []), strict=True):
            if summed is not None:
                self.state[W]["summed"] = summed.to(W, copy=True)
        self._share_groups()

    def levels(self) -> list[Level]:
        """Return the levels of all optimizers, each as many times slower as its period says."""
        rows = zip(self.optimizers, self.periods, strict=True)
        return [level for index, (one, period) in enumerate(rows, start=1) for level in _slowed(one, period, index)]

    def __repr__(self) -> str:
        return f"PeriodicOptimizer, {self.reduction} of the gradients of a period: {describe(self.levels())}"


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [W for group in optimizer.param_groups for W in group["params"]]


def _slowed(optimizer: Optimizer, period: int, index: int) -> list[Level]:
    own = getattr(optimizer, "levels", None)
    if own is None:
        numbers = sum(W.numel() for W in _weights(optimizer))
        return [Level(f"{index}: weights of {type(optimizer).__name__}", period, numbers=numbers)]
    return [
        replace(
            level,
            name=f"{index}: {level.name}",
            period=level.period * period,
            needs=tuple(f"{index}: {name}" for name in level.needs),
        )
        for level in own()
    ]
