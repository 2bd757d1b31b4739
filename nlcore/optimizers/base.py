"""What every optimizer of the course has in common: one loop over the weights, one list of levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from nlcore.levels import Level, describe
from nlcore.optimizers.checks import check_gradient, check_not_negative, check_parameter

Loss = TypeVar("Loss")


class MemoryOptimizer(torch.optim.Optimizer):
    """An optimizer that can say which memories it keeps, and how often each is written.

    A subclass lists its own hyper-parameters in `defaults`, checks them in `check_group`, and writes its memories in
    `update`. It works in any PyTorch loop: parameter groups, closures, `state_dict`, learning-rate schedulers.
    """

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write one gradient `g` into the memories of one weight tensor `W` (same shape), in place."""
        raise TypeError(f"{type(self).__name__} must define update(W, g, state, group)")

    def levels(self) -> list[Level]:
        """Return the memories of this optimizer, in the order in which one step computes them."""
        raise TypeError(f"{type(self).__name__} must define levels()")

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Return the hyper-parameters of a parameter group, checked; raise ValueError or TypeError."""
        checked = {name: check_not_negative(name, group[name]) for name in ("lr", "weight_decay")}
        return {**group, **checked}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with its own hyper-parameters; nothing is added if one of them is wrong."""
        checked = self.check_group({**self.defaults, **param_group})
        parameters = checked["params"]
        checked["params"] = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        for parameter in checked["params"]:
            tensor = parameter[1] if isinstance(parameter, tuple) else parameter  # (name, tensor) pairs are allowed
            if isinstance(tensor, Tensor):
                check_parameter(tensor)
        super().add_param_group(checked)

    @torch.no_grad()
    def step(self, closure: Callable[[], Loss] | None = None) -> Loss | None:  # type: ignore[override]
        """Write every gradient into its memories once.

        Args     closure: computes the loss and its gradients anew, as in `torch.optim`.
        Returns  what the closure returned, or None.
        Raises   ValueError for a sparse gradient, or a learning rate that a scheduler made negative or NaN.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not group["lr"] >= 0.0:
                check_not_negative("lr", group["lr"])
            for W in group["params"]:
                g = W.grad
                if g is not None:
                    check_gradient(g)
                    self.update(W, g, self.state[W], group)
        return loss

    def numbers(self) -> int:
        """Return how many weights the optimizer moves."""
        return sum(W.numel() for W in self._weights())

    def _weights(self) -> Iterable[Tensor]:
        return (cast(Tensor, W) for group in self.param_groups for W in group["params"])

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}: {describe(self.levels())}"]
        for index, group in enumerate(self.param_groups):
            settings = ", ".join(f"{name}={value}" for name, value in group.items() if name not in _NOT_SHOWN)
            lines.append(f"  group {index}: {settings}")
        return "\n".join(lines)


_NOT_SHOWN = {"params", "param_names", "initial_lr"}


def with_l2(g: Tensor, W: Tensor, weight_decay: float) -> Tensor:
    """Return the gradient of loss + weight_decay / 2 |W|^2: g + weight_decay W."""
    return g if weight_decay == 0.0 else g.add(W, alpha=weight_decay)
