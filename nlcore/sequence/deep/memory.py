r"""Titans with a deep memory: gradient descent on what a small network answers, with momentum and decay.

    M(x) = x + W1 gelu(W2 x)
    Z_t = beta Z_{t-1} - eta d/dM 1/2 |M(k_t) - v_t|^2          the gradient at the memory at the start of its chunk
    M_t = alpha M_{t-1} + Z_t                                   or M_0 + alpha (M_{t-1} - M_0) + Z_t
    y_t = M_t(q_t)

`token_loop` is this line by line, with the gradient from torch. `chunk_loop` (`chunks`) gives the same numbers for
many tokens at once, with the gradient derived by hand.

A chunk has C = gradient_period tokens. C = 1 takes each gradient at the memory as it is ("exact"), and then every token
has to wait for the one before it, in either form. With a larger C the steps of a chunk do not know of each other: a key
repeated C times is stepped towards C times, and diverges as soon as eta C reaches 2 (with momentum earlier). So each
step is bounded (`lr_bound`); `lr_bound=None` is the literal form.

Symbols   B streams, H heads, T tokens, d width of keys and values; eta = lr, beta = momentum, alpha = retain.
Source    Behrouz et al. 2025, Titans (arXiv 2501.00663), section 3; Nested Learning, Eq. 89-91.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from nlcore.sequence.checks import Gate, check_chunk, check_gate, check_lengths, check_tokens, live_tokens
from nlcore.sequence.deep.chunks import chunk_loop
from nlcore.sequence.deep.weights import (
    DeepState,
    DeepTokens,
    DeepWeights,
    bounded,
    choose,
    reach,
    read_deep,
    renew_anchor,
    surprise,
)
from nlcore.sequence.states import precise

DECAYS = ("start", "zero")


def deep_titans_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Gate = 0.1,
    momentum: Gate = 0.9,
    retain: Gate = 1.0,
    *,
    start: DeepWeights,
    gradient_period: int = 16,
    lr_bound: float | None = 1.0,
    decay_to: str = "start",
    state: DeepState | None = None,
    chunk_size: int | None = 64,
    lengths: Tensor | None = None,
) -> tuple[Tensor, DeepState]:
    """Read a stream with a memory that is a network of two layers.

    Args     q, k, v: (B, H, T, d); a residual memory has keys and values of one width. lr >= 0, momentum and retain in
             [0, 1]: numbers or (B, H, T), whose values are trusted. start: the memory before the first token, W1
             (H, d, hidden) and W2 (H, hidden, d), or anything that broadcasts to (B, H, ...); train it, it is M_0.
             gradient_period: C, see above. lr_bound: eta is cut as `bounded` says, in (0, 2]; None leaves it.
             decay_to: where `retain` below 1 leads, "start" (what the stream taught fades) or "zero" (Titans, Eq. 13:
             the start fades as well). state: from the call before. chunk_size: tokens at once, never more than are left
             of a chunk; None is the plain loop. lengths: (B,), real tokens of each stream; what follows is padding,
             which writes nothing, does not count, and is answered 0.
    Returns  y: (B, H, T, d), in the dtype of q; the state, in float32 for half precision.
    Raises   ValueError for shapes or numbers that do not fit; TypeError for other dtypes.
    Source   Titans Eq. 8-14, with the memory of Nested Learning Eq. 89. The bound and `decay_to="start"` are ours.
    """
    _check(q, k, v, start, gradient_period, lr_bound, decay_to)
    check_chunk("chunk_size", chunk_size)
    for name, gate in (("lr", lr), ("momentum", momentum), ("retain", retain)):
        check_gate(name, gate, q)
    check_lengths(lengths, q)
    dtype = precise(q.dtype)
    start = _start_of_streams(DeepWeights(*start), q, dtype)
    state = _begun(start) if state is None else _checked(state, start)
    if not q.shape[2]:
        return v, state
    live = live_tokens(lengths, q)
    tokens = _tokens(q, k, v, (lr, momentum, retain), live, dtype)
    home = start if decay_to == "start" and tokens.retain is not None else None
    if chunk_size is None:
        y, state = token_loop(tokens, state, home, gradient_period, lr_bound)
    else:
        y, state = chunk_loop(tokens, state, home, gradient_period, lr_bound, chunk_size)
    if live is not None:
        y = torch.where(live.unsqueeze(-1) > 0, y, 0.0)
    read_now = q.shape[2] if lengths is None else lengths.to(q.device).clamp(0, q.shape[2])
    return y.to(q.dtype), state._replace(tokens=state.tokens + read_now)


def token_loop(
    tokens: DeepTokens, state: DeepState, home: DeepWeights | None, period: int, lr_bound: float | None
) -> tuple[Tensor, DeepState]:
    """Write and read token by token: the reference.

    Args     tokens: (B, H, T, ...), T >= 1. state: the streams so far. home: what the memory decays to, None for zero.
             period: C. lr_bound: see `bounded`.
    Returns  y: (B, H, T, d), and the state; its `tokens` are those of the state given.
    """
    answers = []
    for t, (q, k, v, lr, beta, alpha, live) in enumerate(_each(tokens)):
        state = renew_anchor(state, (state.tokens + t) % period == 0, live)
        M, Z, anchor, _ = state
        key = k.unsqueeze(2)  # (B, H, 1, d): one token
        eta = bounded(lr, beta, reach(anchor.W1, key, key @ anchor.W2.mT), period, lr_bound)
        slope = grad(surprise)(anchor, k, v)
        Z = DeepWeights(*(beta[..., None] * z - eta[..., None] * s for z, s in zip(Z, slope, strict=True)))
        M = DeepWeights(*(m + z for m, z in zip(_faded(M, alpha, home), Z, strict=True)))
        if live is not None:  # padding changes nothing
            is_token = live[:, 0, 0] > 0
            M, Z = choose(is_token, M, state.weights), choose(is_token, Z, state.momentum)
        state = DeepState(M, Z, state.anchor, state.tokens)
        answers.append(read_deep(M, q))
    return torch.stack(answers, 2), state


def _faded(M: DeepWeights, alpha: Tensor | None, home: DeepWeights | None) -> DeepWeights:
    """Return alpha M, or home + alpha (M - home)."""
    if alpha is None:
        return M
    if home is None:
        return DeepWeights(*(alpha[..., None] * m for m in M))
    return DeepWeights(*(h + alpha[..., None] * (m - h) for m, h in zip(M, home, strict=True)))


def _each(tokens: DeepTokens) -> Iterator[tuple[Any, ...]]:
    """Return every token: q, k, v (B, H, d), its gates (B, H, 1) or (1,), None for what is None."""
    q, k, v, *gates = tokens
    each = [repeat(gate) if gate is None or gate.ndim == 1 else gate.split(1, 2) for gate in gates]
    return zip(q.unbind(2), k.unbind(2), v.unbind(2), *each, strict=False)


def _tokens(
    q: Tensor, k: Tensor, v: Tensor, gates: Sequence[Gate], live: Tensor | None, dtype: torch.dtype
) -> DeepTokens:
    """Return everything as tensors of the dtype the memory is computed in; padding gets eta 0."""
    lr, momentum, retain = (torch.as_tensor(gate, dtype=dtype, device=q.device) for gate in gates)
    lr, momentum, retain = (gate if gate.ndim else gate.reshape(1) for gate in (lr, momentum, retain))
    every = None if live is None else live.to(dtype).expand(q.shape[:3])
    if every is not None:
        lr, momentum, retain = lr * every, 1 - (1 - momentum) * every, 1 - (1 - retain) * every
        q, k, v = (torch.where(every.unsqueeze(-1) > 0, x, 0.0) for x in (q, k, v))  # whatever stands in the padding
    keeps_all = isinstance(gates[2], int | float) and gates[2] == 1
    return DeepTokens(q.to(dtype), k.to(dtype), v.to(dtype), lr, momentum, None if keeps_all else retain, every)


def _begun(start: DeepWeights) -> DeepState:
    return DeepState(start, DeepWeights(*(torch.zeros_like(W) for W in start)), start)


def _start_of_streams(start: DeepWeights, q: Tensor, dtype: torch.dtype) -> DeepWeights:
    """Return the start of every stream: W1 (B, H, d, hidden), W2 (B, H, hidden, d)."""
    B, H, _, d = q.shape
    hidden = start.W1.shape[-1]
    sizes = {"W1": (B, H, d, hidden), "W2": (B, H, hidden, d)}
    try:
        return DeepWeights(*(W.to(dtype).expand(sizes[name]) for name, W in start._asdict().items()))
    except RuntimeError:
        got = ", ".join(f"{name} {tuple(W.shape)}" for name, W in start._asdict().items())
        raise ValueError(
            f"for keys of width {d} and {H} heads, expected start.W1 (H, d, hidden), start.W2 (H, hidden, d) "
            f"or shapes that broadcast to {sizes['W1']}, {sizes['W2']}; got {got}"
        ) from None


def _checked(state: DeepState, start: DeepWeights) -> DeepState:
    if not isinstance(state, DeepState):
        raise TypeError(f"state must be a DeepState, what the call before returned; got {type(state).__name__}")
    for part in state[:3]:
        if [W.shape for W in part] != [W.shape for W in start]:
            expected, got = [tuple(W.shape) for W in start], [tuple(W.shape) for W in part]
            raise ValueError(f"the state is of another stream: expected weights {expected}, got {got}")
        if {W.dtype for W in part} != {start.W1.dtype}:
            raise TypeError(f"the state must be {start.W1.dtype}, got {part.W1.dtype}: convert it with .to(...)")
    return state


def _check(
    q: Tensor, k: Tensor, v: Tensor, start: DeepWeights, period: int, lr_bound: float | None, decay_to: str
) -> None:
    check_tokens(q, k, v)
    if q.shape != v.shape:
        raise ValueError(
            f"a residual memory answers in the width of its keys: expected v of shape {tuple(q.shape)}, "
            f"got {tuple(v.shape)}; project the values to width {q.shape[-1]}"
        )
    if not (isinstance(start, tuple) and len(start) == 2 and all(isinstance(W, Tensor) and W.ndim > 1 for W in start)):
        raise TypeError(
            f"start must be DeepWeights(W1, W2), try new_deep_weights(heads, dim); got {type(start).__name__}"
        )
    check_chunk("gradient_period", period)
    if lr_bound is not None and not 0 < lr_bound <= 2:
        raise ValueError(f"lr_bound must be in (0, 2], or None for no bound; got {lr_bound}; try 1.0")
    if decay_to not in DECAYS:
        raise ValueError(f"decay_to must be one of {', '.join(DECAYS)}; got {decay_to!r}")
