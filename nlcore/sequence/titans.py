r"""Titans: a memory that learns at test time, by gradient descent with momentum and decay.

    surprise        v_t - M_{t-1} k_t                          with a gradient period C > 1: v_t - M_{start of C} k_t
    momentum        Z_t = beta Z_{t-1} + eta surprise k_t^T
    memory          M_t = alpha M_{t-1} + Z_t                  y_t = M_t q_t

Symbols   as in `memories`; beta = momentum. The Titans paper writes eta for the momentum, theta for the rate and 1 -
          alpha for what is kept.
Source    Behrouz et al. 2024, *Titans* (arXiv 2501.00663), Eq. 8-14; Behrouz et al. 2025, section 5.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nlcore.sequence.checks import Gate, check_chunk
from nlcore.sequence.chunks import chunk_form, in_chunks
from nlcore.sequence.gates import stretch
from nlcore.sequence.loops import titans_loop
from nlcore.sequence.states import MemoryState
from nlcore.sequence.stream import Stream, begin


def titans_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Gate = 1.0,
    momentum: Gate = 0.9,
    retain: Gate = 1.0,
    *,
    gradient_period: int = 1,
    lr_bound: float | None = 1.0,
    state: MemoryState | None = None,
    chunk_size: int | None = 32,
    lengths: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """Read a stream with the memory of Titans: gradient descent on 1/2 |M k - v|^2 with momentum and decay.

    With momentum 0 it is `delta_rule`.

    Args     momentum: the part of the last move that goes on, 0 to 1; Titans calls it eta, its lr theta and its decay
             1 - alpha. gradient_period: tokens that share the memory at which their gradients are taken, C; 1 takes
             each at the memory as it is (exact), larger is the mini-batch of TTT and of the Titans paper: cheaper, and
             unstable once the writes of one key within a period sum to more than 2 errors. lr_bound: for C > 1 each lr
             is at most lr_bound (1 - beta) / (C |k|^2), so that they sum to at most lr_bound; None takes lr as it is.
             Padding takes its place in a period, though it writes nothing.
             chunk_size: None is the plain loop; otherwise tokens at once, `gradient_period` of them if that is above 1.
             The rest as for `linear_attention`.
    Returns  as for `linear_attention`.
    Raises   as for `linear_attention`.
    Source   Titans Eq. 8-14.
    """
    check_chunk("gradient_period", gradient_period)
    gates = {"lr": lr, "retain": retain, "momentum": momentum}
    stream = begin(q, k, v, gates, state, chunk_size, lengths)
    if gradient_period > 1 and lr_bound is not None:
        stream = stream.bounded(lr_bound, gradient_period)
    if chunk_size is None:
        return stream.finish(*titans_loop(*stream.tokens, stream.gates, stream.state, gradient_period))
    if gradient_period == 1:
        return stream.finish(*_titans_exact(stream, chunk_size))
    return stream.finish(*_titans_by_period(stream, gradient_period))


def _titans_exact(stream: Stream, chunk_size: int) -> tuple[Tensor, MemoryState]:
    S = _stacked(stream.state)
    y, S = in_chunks(partial(chunk_form, "delta"), *stream.tokens, stream.gates, S, chunk_size)
    return y, _unstacked(S, None, stream.state.tokens + y.shape[2])


def _titans_by_period(stream: Stream, period: int) -> tuple[Tensor, MemoryState]:
    """First the rest of the period the call before left open, at its anchor; then whole periods; then what is left."""
    (q, k, v), gates, state = stream.tokens, stream.gates, stream.state
    S, anchor, total = _stacked(state), state.anchor, k.shape[2]
    open_until = min(-state.tokens % period, total)
    last = open_until + (total - open_until) // period * period
    answers = []
    for rule, start, stop in (
        ("hebbian", 0, open_until),
        ("chunk_start", open_until, last),
        ("chunk_start", last, total),
    ):
        if start == stop:
            continue
        here = slice(start, stop)
        if rule == "chunk_start":
            values, anchor = v[:, :, here], S.mT[..., : k.shape[-1]]
        else:
            assert anchor is not None
            values = v[:, :, here] - k[:, :, here] @ anchor.mT
        part = stretch(gates, start, stop)
        y, S = in_chunks(partial(chunk_form, rule), q[:, :, here], k[:, :, here], values, part, S, period)
        answers.append(y)
    tokens = state.tokens + total
    y = torch.cat(answers, 2) if answers else v[:, :, :0]
    return y, _unstacked(S, anchor if tokens % period else None, tokens)


def _stacked(state: MemoryState) -> Tensor:
    """Return memory and momentum as one state of the chunk form, (B, H, 2 d_k, d_v)."""
    assert state.Z is not None
    return torch.cat([state.M, state.Z], -1).mT


def _unstacked(S: Tensor, anchor: Tensor | None, tokens: int) -> MemoryState:
    M, Z = S.mT.chunk(2, -1)
    return MemoryState(M, Z, anchor, tokens)
