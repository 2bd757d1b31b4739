r"""How much of each write is left later in a chunk: products of the gates between two tokens.

    decay       D_tj = alpha_{j+1} ... alpha_t                  what is left at t of a write at j           (j <= t)
    momentum    W = D_alpha D_beta                              the same if each write goes on through Z
    memory      g_t = alpha_1 ... alpha_t                       what is left of the memory the chunk began with
                b_t = sum_i D_alpha,ti beta_1 ... beta_i        what its momentum has added by t

Symbols   C tokens in a chunk; eta = lr, alpha = retain, beta = momentum, c = live (1 for a token, 0 for padding, which
          must not let the momentum move the memory).
Source    the dual forms of Titans and TTT (spec section 5.2); Behrouz et al. 2025, section 8.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-30  # stands for a gate of 0 under the logarithm


class Gates(NamedTuple):
    """The gates of some tokens; each has T (or C) as its last axis and broadcasts over the axes before it.

    Args     lr: eta. retain: alpha, or None if nothing decays. momentum: beta, or None for a memory without momentum.
             live: 1 for a token, 0 for padding, or None if there is no padding.
    """

    lr: Tensor
    retain: Tensor | None = None
    momentum: Tensor | None = None
    live: Tensor | None = None


class Kept(NamedTuple):
    """What a chunk keeps of its writes and of the memory it began with.

    Args     W: (..., C, C), W[t, j] what is left of write j in the memory after token t, eta_j included; 0 for j > t.
             g: (..., C), what is left of the memory. b: (..., C), what the old momentum adds; None without momentum.
             W_Z: (..., C), what is left of each write in the momentum after the last token. b_Z: (..., 1), what is left
             of the old momentum in it.
    """

    W: Tensor
    g: Tensor
    b: Tensor | None = None
    W_Z: Tensor | None = None
    b_Z: Tensor | None = None


def kept(gates: Gates, size: int) -> Kept:
    """Return what is left of everything inside chunks of `size` tokens.

    Args     gates: with the last axis C, or 1 for a gate that is the same for all tokens.
             size: C.
    """
    lr = gates.lr.expand(*gates.lr.shape[:-1], size)
    D, g = _products(gates.retain, lr)
    if gates.momentum is None:
        return Kept(D * lr[..., None, :], g)
    if gates.live is not None:
        D = D * gates.live[..., None, :]
    D_beta, g_beta = _products(gates.momentum, lr)
    W = (D @ D_beta) * lr[..., None, :]
    b = (D @ g_beta[..., None]).squeeze(-1)
    return Kept(W, g, b, D_beta[..., -1, :] * lr, g_beta[..., -1:])


def _products(decay: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return D (..., C, C) and g (..., C); all ones if nothing decays."""
    size = like.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool, device=like.device).triu(1)  # j > t
    if decay is None:
        return (~later).to(like.dtype), like.new_ones(size)
    log = torch.where(decay > 0, decay, decay + TINY).log().expand(*decay.shape[:-1], size)
    spans = log[..., :, None].expand(*log.shape, size).masked_fill(~later.mT, 0.0).cumsum(-2)  # no differences of sums:
    return spans.masked_fill(later, -torch.inf).exp(), log.cumsum(-1).exp()  # they lose a gate that is almost 0


def stretch(gates: Gates, start: int, stop: int) -> Gates:
    """Return the gates of the tokens from `start` to before `stop`; a gate that never changes stays as it is."""
    return Gates._make(g if g is None or g.ndim == 1 else g[..., start:stop] for g in gates)


def before(after: Tensor, first: float) -> Tensor:
    """Return the same quantity one token earlier: (..., C) or (..., C, C) moved down by one row, `first` on top."""
    return torch.cat([torch.full_like(after[..., :1], first), after[..., :-1]], -1)


def rows_before(W: Tensor) -> Tensor:
    """Return W one token earlier: row t is row t - 1, row 0 is zero; shape (..., C, C)."""
    return torch.cat([torch.zeros_like(W[..., :1, :]), W[..., :-1, :]], -2)
