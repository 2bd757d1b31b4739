"""The plain loops: one token after the other, each written with a rule of `nlcore.memory`. The reference of all chunks.

Symbols   M (B, H, d_v, d_k); q_t, k_t (B, H, d_k), v_t (B, H, d_v); a gate of one token is a number or (B, H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

import torch
from torch import Tensor

from nlcore.memory import hebbian, read
from nlcore.sequence.gates import Gates
from nlcore.sequence.states import MemoryState

WriteRule = Callable[..., Tensor]


def write_loop(
    write: WriteRule, q: Tensor, k: Tensor, v: Tensor, gates: Gates, state: MemoryState
) -> tuple[Tensor, MemoryState]:
    """Write every pair, then read: y_t = M_t q_t.

    Args     write: a rule of `nlcore.memory`. q, k: (B, H, T, d_k). v: (B, H, T, d_v). gates: lr and retain.
             state: where the stream is.
    Returns  y (B, H, T, d_v) and the state after it.
    """
    M, answers = state.M, []
    for q_t, k_t, v_t, lr, retain in zip(
        *(x.unbind(2) for x in (q, k, v)), *_each(gates.lr, gates.retain), strict=False
    ):
        M = write(M, k_t, v_t, lr, retain)
        answers.append(read(M, q_t))
    return _together(answers, v), MemoryState(M, tokens=state.tokens + len(answers))


def titans_loop(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, state: MemoryState, period: int
) -> tuple[Tensor, MemoryState]:
    """Surprise, momentum of surprise, memory, answer; the surprise is measured at the anchor, renewed every `period`.

    Args     q, k: (B, H, T, d_k). v: (B, H, T, d_v). gates: all four. state: with Z and, for period > 1, the anchor.
             period: tokens that share one anchor.
    Returns  y (B, H, T, d_v) and the state after it.
    """
    M, Z, tokens = state.M, state.Z, state.tokens
    anchor = M if state.anchor is None else state.anchor
    assert Z is not None
    answers = []
    for q_t, k_t, v_t, lr, retain, momentum, live in zip(
        *(x.unbind(2) for x in (q, k, v)), *_each(*gates), strict=False
    ):
        if tokens % period == 0:
            anchor = M
        surprise = v_t - read(anchor, k_t)
        Z = hebbian(Z, k_t, surprise, lr, momentum)
        M = hebbian(M, None, Z, live, retain)
        tokens += 1
        answers.append(read(M, q_t))
    return _together(answers, v), MemoryState(M, Z, anchor if tokens % period else None, tokens)


def _each(*gates: Tensor | None) -> list[Iterable[Tensor | float]]:
    """Return, for each gate, its value at every token: (B, H), or a single number for a gate that never changes."""
    return [repeat(1.0) if g is None else repeat(g.squeeze(-1)) if g.shape[-1] == 1 else g.unbind(-1) for g in gates]


def _together(answers: list[Tensor], v: Tensor) -> Tensor:
    return torch.stack(answers, 2) if answers else v[:, :, :0]
