"""A chain reads a stream: it answers, is told the truth, and now and then a block is written.

The gradients are written by hand. They are outer products of what a block saw and what came back to it, so a chunk
keeps these factors and multiplies them when the block is written: no gradient is stored.

Symbols   as in `nlcore.meta.chain`: N copies in the last axis, T steps, d width, L blocks.
Source    Behrouz et al. 2025, Nested Learning, Eqs. (70) to (74).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nlcore.meta.chain import Chain, Matrices, Start


@dataclass
class Reading:
    """What came of it: errors (T, 2, N) before each write, the weights at the end, and the writes of each block."""

    errors: Tensor
    up: Matrices
    down: Matrices
    written: list[int]


@dataclass
class Step:
    """One step of a reading, kept to run it again: weights before the write, what the blocks saw, factors, the end."""

    up: Matrices
    down: Matrices
    seen: list[tuple[Tensor, Tensor]]
    factors: list[tuple[Tensor, Tensor]]
    end: Tensor


def times(M: Tensor, v: Tensor) -> Tensor:
    """Return the products M v of all copies; M (rows, columns, N), v (columns, N)."""
    return (M * v).sum(1)


def transposed_times(M: Tensor, v: Tensor) -> Tensor:
    """Return the products M^T v of all copies; M (rows, columns, N), v (rows, N)."""
    return (M * v[:, None]).sum(0)


def shrink(error: Tensor, cut: float) -> Tensor:
    """Return min(1, cut / |e|) of each copy, shape (N,), for errors (2, N)."""
    if math.isinf(cut):
        return torch.ones_like(error[0])
    return (cut / error.square().sum(0).clamp(min=1e-12).sqrt()).clamp(max=1.0)


def forward(chain: Chain, h: Tensor, up: Matrices, down: Matrices) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return the end of the chain (d, N), and what each block read and its hidden units, for h (d, N)."""
    seen, first = [], h
    for U, D in zip(up, down, strict=True):
        source = first if chain.independent else h
        hidden = times(U, source).tanh()
        seen.append((source, hidden))
        h = h + times(D, hidden)
    return h, seen


def factors_of_gradients(
    chain: Chain, g: Tensor, seen: list[tuple[Tensor, Tensor]], up: Matrices, down: Matrices
) -> list[tuple[Tensor, Tensor]]:
    """Return (a, b) of each block: its gradients are a h^T for U (h what it read) and b z^T for D (z hidden units).

    Args     g: gradient at the end of the chain, (d, N). seen: from `forward`. up, down: L matrices each.
    """
    found = []
    for level in range(len(up) - 1, -1, -1):
        hidden = seen[level][1]
        back = transposed_times(down[level], g)
        a = torch.addcmul(back, back * hidden, hidden, value=-1)  # tanh' = 1 - tanh^2
        found.append((a, g))
        if level and not chain.independent:
            g = g + transposed_times(up[level], a)
    return found[::-1]


def read(chain: Chain, start: Start, x: Tensor, y: Tensor, keep: list[Step] | None = None) -> Reading:
    """Let the chain read streams and learn from them.

    Args     chain: how it learns. start: one for every copy, from `Start.spread`. x: (T, inputs, N). y: (T, 2, N).
             keep: a list that receives every step.
    """
    up, down = list(start.up), list(start.down)
    waiting: list[list[tuple[Tensor, ...]]] = [[] for _ in up]
    written, errors = [0] * len(up), []
    entering = (start.into[:, :-1] * x[:, None]).sum(2) + start.into[:, -1]  # (T, d, N)
    for step, (h, target) in enumerate(zip(entering.unbind(), y.unbind(), strict=True), start=1):
        end, seen = forward(chain, h, up, down)
        errors.append(times(start.out, end) - target)
        bounded = errors[-1] * shrink(errors[-1], chain.cut)
        factors = factors_of_gradients(chain, transposed_times(start.out, bounded), seen, up, down)
        if keep is not None:
            keep.append(Step(list(up), list(down), seen, factors, end))
        for level, (period, reset) in enumerate(zip(chain.periods, chain.resets, strict=True)):
            if math.isinf(period):
                continue
            waiting[level].append((*factors[level], *seen[level]))
            if step % period:
                continue
            if reset and step % reset == 0:
                up[level], down[level] = start.up[level], start.down[level]
            else:
                up[level], down[level] = _write(start, level, up[level], down[level], waiting[level])
            waiting[level] = []
            written[level] += 1
    return Reading(torch.stack(errors), up, down, written)


def _write(start: Start, level: int, U: Tensor, D: Tensor, chunk: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
    """Return U and D after one step on the summed gradients of a chunk, and after decay."""
    a, b, h, z = (torch.stack(part) if len(chunk) > 1 else part[0] for part in zip(*chunk, strict=True))
    if start.decays:
        fade_up, fade_down = start.decays[level]
        U, D = torch.lerp(U, start.up[level], fade_up), torch.lerp(D, start.down[level], fade_down)
    rate_up, rate_down = start.rates[level]
    return _step(U, rate_up, a, h), _step(D, rate_down, b, z)


def _step(M: Tensor, rate: Tensor, a: Tensor, h: Tensor) -> Tensor:
    """Return M - rate * sum of a h^T over the chunk; a and h are (d, N), or (C, d, N)."""
    if a.ndim == 3:
        return torch.addcmul(M, rate, torch.einsum("cin,cjn->ijn", a, h), value=-1)
    return torch.addcmul(M, rate * a[:, None], h[None], value=-1)
