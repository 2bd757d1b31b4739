r"""One segment of tokens written at once: what the delta rule does inside a chunk, without stepping through it.

With given keys, targets, learning rates and retentions the memory after token a of a segment is

    S_a = D_a0 S_0 + sum_{j<=a} D_aj eta_j u_j k_j^T        D_aj = alpha_{j+1} ... alpha_a     (j <= a; 0 otherwise)
    u_t = value_t - S_{t-1} k_t                             what the write still has to add

so that the u solve a triangular system, (I + L) U = Value - D_{t-1,0} K S_0^T with L_tj = D_{t-1,j} eta_j k_t . k_j. With
momentum beta the value goes through Z, the error does not:

    S_a = D_a0 S_0 + b_a Z_0 + sum_j (D_aj eta_j e_j + W_aj eta_j value_j) k_j^T
    W = D D_beta (from j on),  b the same for Z_0,  e_t = - S_{t-1} k_t

Symbols   n tokens; keys k (B, H, n, d) in rows; S (B, H, R, d); rows a = 0..n count the tokens written so far, columns
          j = 0..n, of which 0 is what the segment began with.
Source    Yang et al. 2024 for the delta rule; Behrouz et al. 2025, Eq. 90 and 93; the momentum term is derived here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Kept(NamedTuple):
    """What is left of everything in a segment.

    Args     S: (..., n + 1, 1) or None for all ones, what is left of the first state after a tokens. errors: (..., n + 1,
             n), what is left of each error. values: the same for the values; `errors` itself without momentum.
             Z: (..., n + 1, 1), how much of the first momentum is in the state; None without momentum. Z_values: (...,
             n), what is left of the values in the last momentum. Z_Z: (..., 1, 1), of the first momentum in it.
    """

    S: Tensor | None
    errors: Tensor
    values: Tensor
    Z: Tensor | None = None
    Z_values: Tensor | None = None
    Z_Z: Tensor | None = None


def kept(lr: Tensor, log_retain: Tensor | None, momentum: float = 0.0, live: Tensor | None = None) -> Kept:
    """Return what is left of everything after each token of a segment.

    Args     lr: (..., n). log_retain: (..., n), or None if nothing fades. momentum: beta. live: (..., n), 1 for a token,
             0 for padding, which must not let the momentum move the state; or None.
    """
    D = decay_products(log_retain, lr)
    first = None if log_retain is None else D[..., :1]
    errors = D[..., 1:] * lr[..., None, :]
    if not momentum:
        return Kept(first, errors, errors)
    betas = torch.full_like(lr, momentum).log()
    E = decay_products(betas if live is None else betas * live, lr)
    moved = D[..., 1:] if live is None else D[..., 1:] * live[..., None, :]
    through = moved @ E[..., 1:, :]
    values = through[..., 1:] * lr[..., None, :]
    return Kept(first, errors, values, through[..., :1], E[..., -1, 1:] * lr, E[..., -1:, :1])


def decay_products(log_retain: Tensor | None, like: Tensor) -> Tensor:
    """Return D (..., n + 1, n + 1), D_aj the product of the gates after token j up to token a, 0 for j > a.

    Args     log_retain: (..., n), logarithms, or None for gates of 1. like: (..., n).
    """
    size = like.shape[-1] + 1
    later = torch.ones(size, size, dtype=torch.bool, device=like.device).triu(1)
    if log_retain is None:
        return (~later).to(like.dtype)
    total = torch.nn.functional.pad(log_retain.cumsum(-1), (1, 0))
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()


class Piece(NamedTuple):
    """Some rows of the boxes in a segment: what they begin with, and what fading returns to.

    Args     S: (B, H, r, d), the state. origin: (H, r, d), or None for zero. Z: (B, H, r, d), the momentum, or None.
    """

    S: Tensor
    origin: Tensor | None
    Z: Tensor | None = None

    def rows(self, rows: slice) -> Piece:
        """Return only these rows."""
        return Piece(*(None if part is None else part[..., rows, :] for part in self))


class Added(NamedTuple):
    """What each token added along its key, (B, H, n, r): at once, and through the momentum (None without it)."""

    errors: Tensor
    values: Tensor | None = None

    def rows(self, rows: slice) -> Added:
        """Return only what was added to these rows."""
        return Added(*(None if part is None else part[..., rows] for part in self))


def write(begin: Piece, k: Tensor, value: Tensor, left: Kept) -> tuple[Piece, Added]:
    """Write a segment.

    Args     begin: the rows to be written. k: (B, H, n, d). value: (B, H, n, r). left: from `kept`.
    Returns  the rows after it, and what was added.
    """
    answer = _answer(begin, k, left)
    if begin.Z is None:
        errors = _solve(left.errors, k, value - answer)
        S = _faded(begin.S, begin.origin, left, -1) + (left.errors[..., -1, :, None] * errors).mT @ k
        return Piece(S, begin.origin), Added(errors)
    assert left.Z is not None and left.Z_values is not None and left.Z_Z is not None
    errors = _solve(left.errors, k, -answer - (left.values[..., :-1, :] * (k @ k.mT)) @ value)
    added = left.errors[..., -1, :, None] * errors + left.values[..., -1, :, None] * value
    S = _faded(begin.S, begin.origin, left, -1) + left.Z[..., -1:, :] * begin.Z + added.mT @ k
    Z = left.Z_Z * begin.Z + (left.Z_values[..., None] * value).mT @ k
    return Piece(S, begin.origin, Z), Added(errors, value)


def read(begin: Piece, q: Tensor, k: Tensor, added: Added, left: Kept) -> Tensor:
    """Answer each token before it is written: S_{t-1} q_t, (B, H, n, r).

    Args     begin, k, left: as for `write`. q: (B, H, n, d). added: what `write` returned for these rows.
    """
    match, answer = q @ k.mT, _answer(begin, q, left)
    answer = answer + (match * left.errors[..., :-1, :]) @ added.errors
    return answer if added.values is None else answer + (match * left.values[..., :-1, :]) @ added.values


def _answer(begin: Piece, k: Tensor, left: Kept) -> Tensor:
    """Return what would be answered for the keys if the segment wrote nothing."""
    at_origin = None if begin.origin is None else k @ begin.origin.mT
    answer = _faded(k @ begin.S.mT, at_origin, left, slice(-1))
    return answer if begin.Z is None or left.Z is None else answer + left.Z[..., :-1, :] * (k @ begin.Z.mT)


def _solve(errors: Tensor, k: Tensor, right: Tensor) -> Tensor:
    """Return U with U_t = right_t - sum_{j<t} errors_{t-1,j} (k_t . k_j) U_j."""
    if k.shape[-2] == 1:
        return right
    return torch.linalg.solve_triangular(errors[..., :-1, :] * (k @ k.mT), right, upper=False, unitriangular=True)


def _faded(x: Tensor, origin: Tensor | None, left: Kept, row: int | slice) -> Tensor:
    """Return what is left of x, the rest replaced by the origin."""
    if left.S is None:
        return x
    part = left.S[..., row, :] if isinstance(row, slice) else left.S[..., row, :, None]
    return part * x if origin is None else torch.lerp(origin.expand_as(x), x, part)
