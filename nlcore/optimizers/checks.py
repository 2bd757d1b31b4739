"""Hyper-parameters and gradients an optimizer accepts, and the errors that say why not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def check_not_negative(name: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number >= 0.

    Raises   TypeError if it is no number; ValueError if it is negative, infinite or NaN.
    """
    number = _number(name, value)
    if not (math.isfinite(number) and number >= 0.0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}; a usual choice is {_USUAL.get(name, 0.0)}")
    return number


def check_beta(name: str, value: Any) -> float:
    """Return `value` as a float if it lies in [0, 1).

    Raises   TypeError if it is no number; ValueError if it lies outside [0, 1) or is NaN.
    """
    number = _number(name, value)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name} must lie in [0, 1): the part of the memory kept at each step; got {value}; try 0.9")
    return number


def check_betas(value: Any) -> tuple[float, float]:
    """Return a pair (beta1, beta2) of floats in [0, 1); raise as `check_beta` does."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"betas must be a pair (beta1, beta2), for example (0.9, 0.999); got {value!r}")
    return check_beta("beta1", value[0]), check_beta("beta2", value[1])


def check_parameter(parameter: Tensor) -> None:
    """Raise TypeError unless `parameter` holds real floating-point numbers."""
    if not parameter.is_floating_point():
        raise TypeError(f"parameters must be real floating-point tensors, got dtype {parameter.dtype}")


def check_gradient(gradient: Tensor) -> None:
    """Raise ValueError for a sparse gradient."""
    if gradient.layout is not torch.strided:
        raise ValueError(
            "got a sparse gradient, expected a dense one: use nn.Embedding(..., sparse=False) or torch.optim.SparseAdam"
        )


def check_finite(gradient: Tensor) -> None:
    """Raise FloatingPointError if the gradient holds NaN or infinity, which would stay in a memory for ever."""
    if not math.isfinite(gradient.sum()) and not gradient.isfinite().all():  # the sum is cheap and keeps NaN
        bad = int(gradient.numel() - gradient.isfinite().sum())
        raise FloatingPointError(
            f"{bad} of {gradient.numel()} numbers of a gradient of shape {tuple(gradient.shape)} are NaN or infinite; "
            "nothing was written. Try a smaller learning rate, or clip the gradients"
        )


def check_count(name: str, value: Any) -> int:
    """Return `value` if it is a whole number of at least 1.

    Raises   TypeError if it is no whole number; ValueError if it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}: {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


_USUAL = {"lr": 0.001, "weight_decay": 0.0, "eps": 1e-8}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or isinstance(value, Tensor) and value.numel() != 1:
        raise TypeError(f"{name} must be one number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}: {value!r}") from None
