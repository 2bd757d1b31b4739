"""What every optimizer of the course has in common: one loop over the weights, one list of levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from nlcore.levels import Level, describe
from nlcore.optimizers.checks import check_finite, check_gradient, check_not_negative, check_parameter

Loss = TypeVar("Loss")


class MemoryOptimizer(torch.optim.Optimizer):
    """An optimizer that can say which memories it keeps, and how often each is written.

    A subclass lists its own hyper-parameters in `defaults`, checks them in `check_group`, and writes its memories in
    `update`. It works in any PyTorch loop: parameter groups, closures, `state_dict`, learning-rate schedulers.

    Two class attributes steer it. `refuses_non_finite`: a gradient with NaN or infinity is reported before anything is
    written (the optimizers that equal `torch.optim` step for step write it, as torch does). `for_all_groups`: names of
    settings that belong to the whole optimizer; they are kept out of the groups, and so out of `state_dict`.
    """

    refuses_non_finite = False
    for_all_groups: tuple[str, ...] = ()

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
        misplaced = sorted(set(self.for_all_groups) & set(param_group))
        if misplaced:
            raise ValueError(
                f"{misplaced[0]} is a setting of the whole optimizer, not of a group: pass it beside params"
            )
        checked = self.check_group({**self.defaults, **param_group})
        parameters = checked["params"]
        checked["params"] = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        for parameter in checked["params"]:
            tensor = parameter[1] if isinstance(parameter, tuple) else parameter  # (name, tensor) pairs are allowed
            if isinstance(tensor, Tensor):
                check_parameter(tensor)
        super().add_param_group(checked)
        for name in self.for_all_groups:
            del self.param_groups[-1][name]

    @torch.no_grad()
    def step(self, closure: Callable[[], Loss] | None = None) -> Loss | None:  # type: ignore[override]
        """Write every gradient into its memories once.

        Args     closure: computes the loss and its gradients anew, as in `torch.optim`.
        Returns  what the closure returned, or None.
        Raises   ValueError for a sparse gradient, or a learning rate that a scheduler made negative or NaN;
                 FloatingPointError for a gradient that is not finite, where the optimizer refuses those. Nothing has
                 been written then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        writes = []
        for group in self.param_groups:
            if not group["lr"] >= 0.0:
                check_not_negative("lr", group["lr"])
            for W in group["params"]:
                if W.grad is not None:
                    self.check_write(W, W.grad, group)
                    writes.append((W, group))
        for W, group in writes:
            self.update(W, W.grad, self.state[W], group)
        return loss

    def check_write(self, W: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        """Raise an error if the gradient `g` of the weights `W` cannot be written; called before anything is."""
        check_gradient(g)
        if self.refuses_non_finite:
            check_finite(g)

    def numbers(self) -> int:
        """Return how many weights the optimizer moves."""
        return sum(W.numel() for W in self._weights())

    def _weights(self) -> Iterable[Tensor]:
        return (cast(Tensor, W) for group in self.param_groups for W in group["params"])

    def without_effect(self, group: dict[str, Any]) -> set[str]:
        """Return the names of the settings that change nothing for this group; they are not printed."""
        return set()

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}: {describe(self.levels())}"]
        for index, group in enumerate(self.param_groups):
            shown = [name for name in group if name not in _NOT_SHOWN and name not in self.without_effect(group)]
            settings = ", ".join(f"{name}={group[name]}" for name in shown)
            lines.append(f"  group {index}: {settings}")
        return "\n".join(lines)


_NOT_SHOWN = {"params", "param_names", "initial_lr"}


def with_l2(g: Tensor, W: Tensor, weight_decay: float) -> Tensor:
    """Return the gradient of loss + weight_decay / 2 |W|^2: g + weight_decay W."""
    return g if weight_decay == 0.0 else g.add(W, alpha=weight_decay)
