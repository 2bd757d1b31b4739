"""What the optimizers for matrices share: matrices take their own rule, every other parameter goes to AdamW."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nlcore.levels import Level
from nlcore.optimizers.adam import AdamW
from nlcore.optimizers.checks import check_choice, check_count, check_not_negative
from nlcore.optimizers.orthogonal import coefficients, newton_schulz

ADJUSTMENTS = ("original", "match_rms_adamw", None)


class MatrixOptimizer(AdamW):
    """AdamW, but a parameter with two axes is moved by `update_matrix`, which a subclass defines.

    A group whose `use_muon` is None is split in two: its matrices, and the rest with the learning rate `adamw_lr`.
    Both parts are ordinary groups, so schedulers reach both. An embedding or a read-out layer is a matrix too; those
    who want AdamW there pass it in a group of its own with `use_muon=False` and a learning rate.
    """

    refuses_non_finite = True
    for_all_groups: tuple[str, ...] = ("adamw_lr",)
    only_for_others: set[str] = set()

    def check_group(self, group: dict[str, Any]) -> dict[str, Any]:
        """Check what all matrix optimizers share: Newton-Schulz, the adjustment of lr, and who is a matrix."""
        coefficients(group["ns_method"], check_count("ns_steps", group["ns_steps"]))
        if group["ns_dtype"] is not None and not getattr(group["ns_dtype"], "is_floating_point", False):
            raise TypeError(f"ns_dtype must be a floating-point torch.dtype or None, got {group['ns_dtype']!r}")
        check_choice("adjust_lr", group["adjust_lr"], ADJUSTMENTS)
        check_choice("use_muon", group["use_muon"], (True, False, None))
        check_not_negative("ns_eps", group["ns_eps"])
        check_not_negative("adamw_lr", group.get("adamw_lr", 0.0))
        return super().check_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; if its `use_muon` is None, as two groups. Nothing is added if a setting is wrong."""
        settings = {**self.defaults, **param_group}
        given = settings["params"]
        parameters = [given] if isinstance(given, Tensor) else list(given)
        matrix = [self._is_matrix(parameter, settings["stacked"]) for parameter in parameters]
        if settings["use_muon"] is True and not all(matrix):
            shape = next(tuple(_shape(p)) for p, fits in zip(parameters, matrix, strict=True) if not fits)
            raise ValueError(
                f"use_muon=True expects matrices, got a parameter of shape {shape}: leave use_muon out, or reshape it"
            )
        before = len(self.param_groups)
        try:
            for chosen, part in self._parts(settings, parameters, matrix):
                super().add_param_group({**param_group, **part, "use_muon": chosen})
        except Exception:
            del self.param_groups[before:]
            raise

    def _parts(self, settings: dict[str, Any], parameters: list, matrix: list[bool]) -> list[tuple[bool, dict]]:
        if settings["use_muon"] is not None:
            return [(settings["use_muon"], {"params": parameters})]
        matrices = [p for p, fits in zip(parameters, matrix, strict=True) if fits]
        others = [p for p, fits in zip(parameters, matrix, strict=True) if not fits]
        parts = [(True, {"params": matrices}), (False, {"params": others, **self.for_others(settings)})]
        return [part for part in parts if part[1]["params"]] or parts[:1]

    def for_others(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings that parameters which are no matrices get instead of those of their group."""
        return {"lr": settings["adamw_lr"]}

    @staticmethod
    def _is_matrix(parameter: Any, stacked: bool) -> bool:
        axes = len(_shape(parameter))
        return axes == 2 or (stacked and axes > 2)

    def update(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move a matrix by its own rule, anything else as AdamW does."""
        (self.update_matrix if group["use_muon"] else super().update)(W, g, state, group)

    def update_matrix(self, W: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Write one gradient into the memories of one matrix, in place."""
        raise TypeError(f"{type(self).__name__} must define update_matrix(W, g, state, group)")

    def orthogonal(self, m: Tensor, group: dict[str, Any]) -> Tensor:
        """Return `m` with its singular values near one."""
        return newton_schulz(m, group["ns_steps"], group["ns_method"], group["ns_dtype"], group["ns_eps"])

    def without_effect(self, group: dict[str, Any]) -> set[str]:
        """A group that is left to AdamW shows only what AdamW reads; matrices do not show what AdamW alone reads."""
        if group["use_muon"]:
            return self.only_for_others
        return set(group) - {"lr", "betas", "eps", "weight_decay", "use_muon"}

    def levels_of_others(self) -> list[Level]:
        """Return the levels of AdamW for the parameters that are no matrices; none if there are none."""
        n = self.count(matrices=False)
        moments = ("first moment (AdamW)", "second moment (AdamW)")
        return [
            Level(moments[0], 1, "the past gradients of the rest, fading", numbers=n),
            Level(moments[1], 1, "their squares, fading", numbers=n),
            Level("other weights", 1, "inputs -> their surprise", needs=moments, numbers=n),
        ][: 3 if n else 0]

    def count(self, matrices: bool) -> int:
        """Return how many numbers the matrices hold, or all the other parameters."""
        groups = [group for group in self.param_groups if group["use_muon"] is matrices]
        return sum(W.numel() for group in groups for W in group["params"])


def adjusted(lr: float, how: str | None, W: Tensor) -> float:
    """Return the step size for a matrix of this shape.

    Args     lr: step size. how: "original": lr sqrt(max(1, m / n)); "match_rms_adamw": 0.2 lr sqrt(max(m, n)), so that
             one entry moves about as far as with AdamW; without a name, lr. W: (..., m, n).
    Source   Jordan et al. 2024; Liu et al. 2025, Muon is scalable for LLM training.
    """
    m, n = W.shape[-2:]
    if how == "original":
        return lr * math.sqrt(max(1, m / n))
    return lr * 0.2 * math.sqrt(max(m, n)) if how == "match_rms_adamw" else lr


def _shape(parameter: Any) -> torch.Size:
    tensor = parameter[1] if isinstance(parameter, tuple) else parameter  # (name, tensor) pairs are allowed
    return getattr(tensor, "shape", torch.Size())
