"""Streams of pairs (x_t, v_t) for memories that learn in one pass: correlated inputs, and teachers of several kinds.

Symbols   R seeds, T steps, d inputs, e outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stream:
    """Inputs (R, T, d) of length one, values (R, T, e), and the linear teacher at the end (R, e, d)."""

    x: Tensor
    v: Tensor
    teacher: Tensor

    def error(self, W: Tensor) -> Tensor:
        """Return |W - W*|^2 / |W*|^2, the relative error for inputs from all directions alike; W (..., R, e, d)."""
        return (W - self.teacher).square().sum((-2, -1)) / self.teacher.square().sum((-2, -1))


def _normal(seeds: Sequence[int], *shape: int, salt: int = 0) -> Tensor:
    generators = [torch.Generator().manual_seed(100 * seed + salt) for seed in seeds]
    return torch.stack([torch.randn(*shape, generator=one, dtype=torch.float64) for one in generators])


def correlated_stream(
    seeds: Sequence[int],
    correlation: float = 0.0,
    drift: float = 0.0,
    steps: int = 400,
    inputs: int = 16,
    device: torch.device | str = "cpu",
) -> Stream:
    """Return a stream whose inputs resemble the one before, read from a linear teacher that may drift; float64.

    Args     seeds: R whole numbers. correlation: of an input with the one before, in [0, 1). drift: how much of the
             teacher is replaced at each step, in [0, 1]. steps: T >= 1. inputs: d >= 1; there are d outputs.
             device: of all tensors.
    Raises   ValueError for a value outside its range.
    """
    if not seeds or not 0 <= correlation < 1 or not 0 <= drift <= 1 or min(steps, inputs) < 1:
        raise ValueError(
            "expected seeds, correlation in [0, 1), drift in [0, 1], steps and inputs >= 1; "
            f"got {len(seeds)} seeds, {correlation}, {drift}, {steps} and {inputs}"
        )
    fresh, teacher = _normal(seeds, steps, inputs), _normal(seeds, inputs, inputs, salt=1)
    news = _normal(seeds, steps, inputs, inputs, salt=2) if drift else None
    x, keys, values = fresh[:, 0], [], []
    for t in range(steps):
        x = correlation * x + math.sqrt(1 - correlation**2) * fresh[:, t] if t else x
        if news is not None:
            teacher = math.sqrt(1 - drift**2) * teacher + drift * news[:, t]
        keys.append(x / x.norm(dim=-1, keepdim=True))
        values.append((teacher @ keys[-1].unsqueeze(-1)).squeeze(-1))
    return Stream(torch.stack(keys, 1).to(device), torch.stack(values, 1).to(device), teacher.to(device))


TEACHERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linear": lambda x, A, B: x @ A.mT,
    "bent": lambda x, A, B: (2 * x @ A.mT).tanh() @ B.mT,
    "even": lambda x, A, B: (x @ A.mT).abs() @ B.mT,
}


def teacher_stream(
    seeds: Sequence[int], kind: str, steps: int = 2000, inputs: int = 16, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return inputs x, standard normal, and u(x), both (R, T, d), for one of three teachers; float64.

    Args     seeds: R whole numbers. kind: "linear" u = A x; "bent" u = B tanh(2 A x); "even" u = B |A x|, the same
             for x and -x. steps: T >= 1. inputs: d >= 1. device: of both.
    Raises   ValueError for no seed or another kind.
    """
    if not seeds or kind not in TEACHERS:
        raise ValueError(f"expected seeds and one of {', '.join(TEACHERS)}; got {len(seeds)} seeds and {kind!r}")
    x = _normal(seeds, steps, inputs)
    A, B = (_normal(seeds, inputs, inputs, salt=salt) / math.sqrt(inputs) for salt in (1, 2))
    u = TEACHERS[kind](x, A, B)
    return x.to(device), (u / u.square().mean((1, 2), keepdim=True).sqrt()).to(device)


def prediction_error(x: Tensor, u: Tensor, lrs: Sequence[float], memory: str, hidden: int = 64) -> Tensor:
    """Let a memory read a stream once and predict each u before it is told; return the error in the last quarter.

    Args     x, u: (R, T, d). lrs: S learning rates. memory: "mean", a fading mean that ignores x; "matrix", the delta
             rule; "network", one hidden layer of `hidden` units, by gradient descent on the same squared error.
    Returns  the mean squared error, (S, R); 1 for a memory that answers zero if u has spread one.
    Raises   ValueError for another memory.
    """
    if memory not in ("mean", "matrix", "network"):
        raise ValueError(f"memory must be one of mean, matrix, network; got {memory!r}")
    R, T, d = x.shape
    lr = torch.tensor(lrs, dtype=x.dtype, device=x.device)[:, None, None, None]
    B = torch.randn(hidden, d + 1, generator=torch.Generator().manual_seed(0), dtype=x.dtype) / math.sqrt(d)
    B[:, -1] *= math.sqrt(d)  # thresholds of size one
    B = B.to(x.device).expand(len(lrs), R, hidden, d + 1).clone()
    A = x.new_zeros(len(lrs), R, d, {"mean": 1, "matrix": d, "network": hidden}[memory])
    total = x.new_zeros(len(lrs), R)
    for t in range(T):
        key = torch.cat([x[:, t], x.new_ones(R, 1)], -1)[..., None]  # the input, and a one
        linear = key[..., -1:, :] if memory == "mean" else key[..., :-1, :]
        h = (B @ key).tanh() if memory == "network" else linear
        error = A @ h - u[:, t, :, None]
        if t >= 3 * T // 4:
            total += error.square().mean((-2, -1))
        if memory == "network":
            B -= lr * ((A.mT @ error) * (1 - h * h)) @ key.mT
        A -= lr * error @ h.mT
    return total / (T - 3 * T // 4)
