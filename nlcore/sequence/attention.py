r"""Softmax attention: the memory that compresses nothing, stores every pair, and answers by a weighted mean.

    y_t = argmin_M sum_{i <= t} s(k_i, q_t) |v_i - M|^2  =  sum_i s(k_i, q_t) v_i / sum_j s(k_j, q_t)       Eq. 62
    s(k, q) = exp(scale k.q), scale = 1 / sqrt(d_k)  gives softmax attention
    only the last c tokens, i = t-c+1 .. t: sliding-window attention                                        Eq. 63

The best answer is computed anew for every question (kernel regression after Nadaraya and Watson), so nothing is ever
forgotten inside the window, and the memory grows with every token. With a window it stays as it is.

Symbols   B batch, H heads, T tokens, c = window, n tokens in the cache. q, k (B, H, T, d_k); v, y (B, H, T, d_v).
Source    Behrouz et al. 2025, Nested Learning, section 5, Eq. 62-63.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlcore.optimizers.checks import check_count
from nlcore.sequence import saving
from nlcore.sequence.checks import check_lengths, check_tokens, is_padding
from nlcore.sequence.states import precise


@saving.keeps_stream
class CacheState(NamedTuple):
    """The pairs that the next token can still see. The newest is last; a stream that has seen less has gaps in front.

    Args     k: (B, H, n, d_k). v: (B, H, n, d_v). seen: (B,) whole numbers, real tokens of each stream so far.
             tokens: how many tokens the batch has read, padding included.
    """

    k: Tensor
    v: Tensor
    seen: Tensor
    tokens: int = 0

    def detach(self) -> CacheState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return saving.detach(self)

    def to(self, *args: Any, **settings: Any) -> CacheState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return saving.move(self, *args, **settings)


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    state: CacheState | None = None,
    lengths: Tensor | None = None,
    fused: bool = True,
) -> tuple[Tensor, CacheState]:
    """Answer every token from all pairs up to it: causal softmax attention with a cache.

    With a window the work is linear in T and the cache holds the last window - 1 pairs, however long the stream is.

    Args     q, k: (B, H, T, d_k). v: (B, H, T, d_v). window: tokens that are seen, the present one included; None for
             all. scale: factor of k.q; None is 1 / sqrt(d_k). state: from the call before; None begins new streams.
             lengths: (B,), real tokens of each item; the rest is padding, is never attended to, and answers 0.
             fused: use torch's kernels, the fastest; False computes the plain formula, which can be differentiated
             twice (as nested learning needs).
    Returns  y (B, H, T, d_v) in the dtype of q, and the state; pass it on to continue the streams.
    Raises   ValueError or TypeError if shapes, dtypes, window, lengths or state do not fit.
    Source   Eq. 62-63. Half precision is computed and kept in float32.
    """
    check_tokens(q, k, v)
    check_lengths(lengths, q)
    window = None if window is None else check_count("window", window)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype, T = q.dtype, q.shape[2]
    q, k, v = (x.to(precise(dtype)) for x in (q, k, v))
    padding = None if lengths is None else is_padding(lengths, T)[:, None, :, None]
    if padding is not None:
        q, k, v = (x.masked_fill(padding, 0.0) for x in (q, k, v))  # whatever lies there, its gradient is 0 as well
    cache = _empty(k, v) if state is None else _checked(state, k, v)
    keys, values = torch.cat([cache.k, k], 2), torch.cat([cache.v, v], 2)
    if window is not None and window < T:
        y = _by_blocks(q, keys, values, cache.seen, window, scale, fused)
    elif state is None:
        y = _answer(q, k, v, None, scale, fused)
    else:
        y = _answer(q, keys, values, _visible(cache, T, window), scale, fused)
    if padding is not None:
        y = y.masked_fill(padding, 0.0)
    seen = cache.seen + (T if lengths is None else lengths.to(cache.seen))
    kept = [_keep(x, T, window, lengths) for x in (keys, values)]
    return y.to(dtype), CacheState(kept[0], kept[1], seen, cache.tokens + T)


def nadaraya_watson(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    kernel: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Answer every token by the mean of the values, weighted by how near their keys are: Eq. 62 letter by letter.

    Slow and plain: `softmax_attention` is tested against it. Large k.q overflow here and not there.

    Args     q, k: (B, H, T, d_k). v: (B, H, T, d_v). window, scale: as in `softmax_attention`.
             kernel: s(k, q) >= 0 for k (B, H, n, d_k) and q (B, H, 1, d_k), shape (B, H, n); None is exp(scale k.q).
    Returns  y (B, H, T, d_v); 0 where all weights are 0.
    Raises   ValueError if the shapes do not fit.
    Source   Eq. 62, and Eq. 63 with a window.
    """
    check_tokens(q, k, v)
    rate = q.shape[-1] ** -0.5 if scale is None else scale
    nearness = kernel or (lambda keys, query: (rate * (keys * query).sum(-1)).exp())
    answers = []
    for t, query in enumerate(q.unbind(2)):
        first = 0 if window is None else max(0, t + 1 - window)
        s = nearness(k[:, :, first : t + 1], query.unsqueeze(2)).unsqueeze(-1)  # (B, H, n, 1)
        total = s.sum(2)
        mean = (s * v[:, :, first : t + 1]).sum(2) / total.where(total > 0, 1.0)
        answers.append(mean)
    return torch.stack(answers, 2) if answers else torch.zeros_like(v)


def _answer(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, fused: bool) -> Tensor:
    """Return softmax(scale q k^T) v; without a mask, token t sees the keys up to t."""
    if q.shape[2] == 0:
        return v[:, :, :0]
    if fused:
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    return (scale * q @ k.mT).masked_fill(~mask, -torch.inf).softmax(-1) @ v


def _visible(cache: CacheState, T: int, window: int | None) -> Tensor:
    """Return which of the n cached and T new pairs each new token sees, (B, 1, T, n + T); always itself."""
    n, device = cache.k.shape[2], cache.k.device
    pair, token = torch.arange(n + T, device=device), torch.arange(n, n + T, device=device).unsqueeze(-1)
    band = pair <= token if window is None else (pair <= token) & (pair > token - window)
    filled = pair >= (n - cache.seen).unsqueeze(-1)  # (B, n + T): the gaps are in front
    return band & filled[:, None, None, :]


def _by_blocks(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor, window: int, scale: float, fused: bool) -> Tensor:
    """Let each block of `window` tokens look at itself and at the window - 1 pairs before it: linear in T."""
    B, _, T, _ = q.shape
    gap, rest = window - 1 - (keys.shape[2] - T), -T % window
    blocks = (T + rest) // window
    q = F.pad(q, (0, 0, 0, rest)).unflatten(2, (blocks, window))  # (B, H, N, c, d)
    k, v = (F.pad(x, (0, 0, gap, rest)).unfold(2, 2 * window - 1, window).mT for x in (keys, values))
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # (B N, H, c or 2c - 1, d)
    pair, token = (torch.arange(size, device=q.device) for size in (2 * window - 1, window))
    band = (pair >= token.unsqueeze(-1)) & (pair < token.unsqueeze(-1) + window)  # (c, 2c - 1)
    place = pair + window * torch.arange(blocks, device=q.device).unsqueeze(-1)  # (N, 2c - 1)
    filled = place >= (window - 1 - seen)[:, None, None]
    mask = (band & filled.unsqueeze(-2)).flatten(0, 1).unsqueeze(1)  # (B N, 1, c, 2c - 1)
    y = _answer(q, k, v, mask, scale, fused).unflatten(0, (B, blocks)).transpose(1, 2)
    return y.flatten(2, 3)[:, :, :T]


def _keep(pairs: Tensor, T: int, window: int | None, lengths: Tensor | None) -> Tensor:
    """Return the pairs the next token can see, (B, H, n, d): padding taken out, the newest last."""
    n = pairs.shape[2]
    first = 0 if window is None else max(0, n - (window - 1))
    if lengths is None:
        return pairs if first == 0 else pairs[:, :, first:].clone()  # a clone, to let go of the pairs before
    place = torch.arange(first, n, device=pairs.device) - (T - lengths.to(pairs.device)).unsqueeze(-1)
    index = place.clamp(min=0)[:, None, :, None]  # (B, 1, n, 1); what moves into a gap is never seen
    return pairs.gather(2, index.expand(-1, pairs.shape[1], -1, pairs.shape[3]))


def _empty(k: Tensor, v: Tensor) -> CacheState:
    seen = torch.zeros(len(k), dtype=torch.long, device=k.device)
    return CacheState(k[:, :, :0], v[:, :, :0], seen)


def _checked(state: CacheState, k: Tensor, v: Tensor) -> CacheState:
    found = [(*x.shape[:2], x.shape[3]) for x in (state.k, state.v)]
    expected = [(*x.shape[:2], x.shape[3]) for x in (k, v)]
    if found != expected:
        raise ValueError(f"the state is of another stream: expected (B, H, d) of k, v {expected}, got {found}")
    return state._replace(k=state.k.to(k.dtype), v=state.v.to(v.dtype))
