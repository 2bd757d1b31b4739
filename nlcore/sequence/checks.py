"""What every memory of tokens asks of its input, and what it says when it gets something else."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlcore.optimizers.checks import check_count
from nlcore.sequence.states import MemoryState

Gate = float | Tensor
RANGES = {"lr": (0.0, float("inf")), "retain": (0.0, 1.0), "momentum": (0.0, 1.0)}


def check_tokens(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError or TypeError unless q, k (B, H, T, d_k) and v (B, H, T, d_v) are floating and agree."""
    tensors = {"q": q, "k": k, "v": v}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
    if q.ndim != 4 or k.shape != q.shape or v.ndim != 4 or v.shape[:3] != k.shape[:3]:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"expected q and k of shape (B, H, T, d_k), v of shape (B, H, T, d_v); got {shapes}")
    if (
        len({tensor.dtype for tensor in tensors.values()}) > 1
        or len({tensor.device for tensor in tensors.values()}) > 1
    ):
        kinds = ", ".join(f"{name} {tensor.dtype} on {tensor.device}" for name, tensor in tensors.items())
        raise TypeError(f"q, k and v must have one dtype and one device, got {kinds}: convert them with .to(...)")


def check_gate(name: str, gate: Gate, tokens: Tensor) -> None:
    """Raise ValueError unless a gate is a number in its range or a tensor (B, H, T); what is in a tensor is trusted.

    Args     name: lr, retain or momentum. gate: what was given. tokens: (B, H, T, d), what it belongs to.
    """
    if isinstance(gate, Tensor) and gate.ndim:
        if gate.shape != tokens.shape[:3]:
            expected = tuple(tokens.shape[:3])
            raise ValueError(
                f"{name} must be a number or have the shape (B, H, T) = {expected}, got {tuple(gate.shape)}"
            )
        return
    low, high = RANGES[name]
    if isinstance(gate, (int, float)) and not (math.isfinite(gate) and low <= gate <= high):
        raise ValueError(f"{name} must be a finite number in [{low:g}, {high:g}], got {gate}")


def check_lengths(lengths: Tensor | None, tokens: Tensor) -> None:
    """Raise ValueError or TypeError unless `lengths` is None or (B,) whole numbers in 0 .. T.

    Args     lengths: real tokens of each item of the batch. tokens: (B, H, T, d) or (B, T, d).
    """
    if lengths is None:
        return
    if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.dtype is torch.bool:
        raise TypeError(f"lengths must be a tensor of whole numbers, got {getattr(lengths, 'dtype', lengths)!r}")
    if lengths.shape != tokens.shape[:1]:
        raise ValueError(f"lengths must have the shape (B,) = ({len(tokens)},), got {tuple(lengths.shape)}")
    if not torch.compiler.is_compiling() and bool(((lengths < 0) | (lengths > tokens.shape[-2])).any()):
        raise ValueError(f"lengths lie in 0 .. {tokens.shape[-2]}, the tokens given; got {lengths.tolist()}")


def check_state(state: MemoryState | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the state is None or holds a memory of the given shape (B, H, d_v, d_k)."""
    if state is None:
        return
    if not isinstance(state, MemoryState):
        raise TypeError(f"state must be a MemoryState, what the call before returned; got {type(state).__name__}")
    if tuple(state.M.shape) != shape:
        raise ValueError(f"the state is of another stream: expected M of shape {shape}, got {tuple(state.M.shape)}")


def check_chunk(name: str, size: int | None) -> None:
    """Raise ValueError unless `size` is None or a whole number >= 1."""
    if size is not None:
        check_count(name, size)


def live_tokens(lengths: Tensor | None, tokens: Tensor) -> Tensor | None:
    """Return (B, 1, T), 1 for a real token and 0 for padding, in the dtype of `tokens`; None if all are real."""
    if lengths is None:
        return None
    steps = torch.arange(tokens.shape[2], device=tokens.device)
    return (steps < lengths.to(tokens.device)[:, None, None]).to(tokens.dtype)


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


def check_state_dtype(part: Tensor, dtype: torch.dtype) -> None:
    """Raise TypeError unless a part of a state has the dtype that the layer computes in."""
    if part.dtype != dtype:
        raise TypeError(f"the state holds {part.dtype}, but this layer computes in {dtype}; try state.to({dtype})")
