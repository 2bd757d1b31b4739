"""What attention and the layers ask of their input besides `checks`, and the errors that say what to try."""

from __future__ import annotations

import torch
from torch import Tensor

from nlcore.sequence.checks import check_lengths


def check_padding(lengths: Tensor | None, x: Tensor) -> None:
    """Raise unless `lengths` is None or (B,) whole numbers in 0 .. T, for x (B, T, dim) or (B, H, T, d)."""
    check_lengths(lengths, x)
    if lengths is None or torch.compiler.is_compiling():
        return
    if bool(((lengths < 0) | (lengths > x.shape[-2])).any()):
        raise ValueError(f"lengths lie in 0 .. {x.shape[-2]}, the tokens given; got {lengths.tolist()}")


def is_padding(lengths: Tensor, T: int) -> Tensor:
    """Return which tokens are padding, (B, T)."""
    return torch.arange(T, device=lengths.device) >= lengths.unsqueeze(-1)


def check_sequence(x: Tensor, dim: int, dtype: torch.dtype) -> None:
    """Raise unless x is (B, T, dim) in the dtype of the weights (any floating-point dtype under autocast)."""
    if x.ndim != 3 or x.shape[-1] != dim:
        raise ValueError(f"expected x of shape (B, T, {dim}), batch first; got {tuple(x.shape)}")
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"x is {x.dtype} but the weights are {dtype}: convert one with .to(dtype)")


def head_width(dim: int, heads: int) -> int:
    """Return the width of a head.

    Raises   ValueError if `heads` does not divide `dim`.
    """
    if dim % heads:
        fits = [count for count in range(1, dim + 1) if dim % count == 0]
        nearest = min(fits, key=lambda count: abs(count - heads))
        raise ValueError(f"heads must divide dim, got dim {dim} and heads {heads}; try heads={nearest}")
    return dim // heads
