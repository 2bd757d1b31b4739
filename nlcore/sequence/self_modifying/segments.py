r"""One segment of tokens written at once: what the delta rule does inside a chunk, without stepping through it.

With given keys, targets, learning rates and retentions the memory after token a of a segment is

    S_a = D_a0 S_0 + sum_{j<=a} D_aj eta_j u_j k_j^T        D_aj = alpha_{j+1} ... alpha_a     (j <= a; 0 otherwise)
    u_t = value_t - S_{t-1} k_t                             what the write still has to add

so that the u solve a triangular system, (I + L) U = Value - D_{t-1,0} K S_0^T, with L_tj = D_{t-1,j} eta_j k_t . k_j.
With momentum beta the value goes through Z, the error does not:

    S_a = D_a0 S_0 + b_a Z_0 + sum_j (D_aj eta_j e_j + W_aj eta_j value_j) k_j^T
    e_t = - S_{t-1} k_t         W = D D_beta, from j on         b the same for Z_0

If fading returns to an origin O, what is gone of S_0 is O: D_a0 S_0 + (1 - D_a0) O.

Symbols   n tokens; keys k (..., n, d) in rows; S (..., R, d). Of the weights, rows a = 0..n count the tokens written so
          far and columns j = 0..n the writes, where 0 is what the segment began with.
Source    Yang et al. 2024 for the delta rule; Behrouz et al. 2025, Eq. 90 and 93; the momentum term is derived here.
"""

from __future__ import annotations

from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Kept(NamedTuple):
    """What is left of everything in a segment.

    Args     S: (..., n + 1, 1), what is left of the first state after a tokens; None for all of it. errors: (...,
             n + 1, n), what is left of each error, eta included. values: the same for the values, or None.
             Z: (..., n + 1, 1), how much of the first momentum is in the state. Z_values: (..., n), what is left of the
             values in the last momentum. Z_Z: (..., 1, 1), what is left of the first momentum in it.
    """

    S: Tensor | None
    errors: Tensor
    values: Tensor | None = None
    Z: Tensor | None = None
    Z_values: Tensor | None = None
    Z_Z: Tensor | None = None

    def scaled(self, rate: Tensor) -> Kept:
        """Return the same for writes whose lr is `rate` times as large."""
        values, Z_values = (None if part is None else part * rate for part in (self.values, self.Z_values))
        return self._replace(errors=self.errors * rate, values=values, Z_values=Z_values)

    def beside(self, axis: int) -> Kept:
        """Return the same with an axis of size 1 at this place, for several boxes side by side."""
        return Kept(*(None if part is None else part.unsqueeze(axis) for part in self))  # type: ignore[arg-type]


def kept(lr: Tensor, log_retain: Tensor | None, momentum: float = 0.0, live: Tensor | None = None) -> Kept:
    """Return what is left of everything after each token of a segment.

    Args     lr: (..., n). log_retain: (..., n), or None if nothing fades. momentum: beta. live: (..., n), 1 for a
             token, 0 for padding, which must not let the momentum move the state; None if there is no padding.
    """
    if not momentum:
        return _kept_plainly(lr, log_retain)
    D = decay_products(log_retain, lr)
    first = None if log_retain is None else D[..., :1]
    errors = D[..., 1:] * lr[..., None, :]
    logs = torch.full_like(lr, momentum).log()
    E = decay_products(logs if live is None else logs * live, lr)
    through = (D[..., 1:] if live is None else D[..., 1:] * live[..., None, :]) @ E[..., 1:, :]
    return Kept(
        first, errors, through[..., 1:] * lr[..., None, :], through[..., :1], E[..., -1, 1:] * lr, E[..., -1:, :1]
    )


def _kept_plainly(lr: Tensor, log_retain: Tensor | None) -> Kept:
    """Return the same without momentum: no product is computed only to be cut off."""
    n = lr.shape[-1]
    later = torch.ones(n + 1, n, dtype=torch.bool, device=lr.device).triu()
    if log_retain is None:
        return Kept(None, (~later).to(lr.dtype) * lr[..., None, :])
    total = log_retain.cumsum(-1)
    after = pad(total, (1, 0)).unsqueeze(-1)
    D = (after - total.unsqueeze(-2)).masked_fill(later, -torch.inf).exp()
    return Kept(after.exp(), D * lr[..., None, :])


def decay_products(log_retain: Tensor | None, like: Tensor) -> Tensor:
    """Return D (..., n + 1, n + 1), D_aj the product of the gates after token j up to token a, 0 for j > a.

    Args     log_retain: (..., n), logarithms, or None for gates of 1. like: (..., n).
    """
    size = like.shape[-1] + 1
    later = torch.ones(size, size, dtype=torch.bool, device=like.device).triu(1)
    if log_retain is None:
        return (~later).to(like.dtype)
    total = pad(log_retain.cumsum(-1), (1, 0))
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()


class Piece(NamedTuple):
    """Some rows of the boxes in a segment: what they begin with, and what fading returns to.

    Args     S: (..., r, d), the state. origin: the same shape, or None for zero. Z: the momentum, or None.
    """

    S: Tensor
    origin: Tensor | None
    Z: Tensor | None = None

    def rows(self, rows: slice) -> Piece:
        """Return only these rows."""
        return Piece(*(None if part is None else part[..., rows, :] for part in self))  # type: ignore[arg-type]

    def split(self, heights: list[int]) -> list[Piece]:
        """Return the rows cut into runs of these heights; one cut is far cheaper to differentiate than many slices."""
        parts = [repeat(None) if part is None else part.split(heights, -2) for part in self]
        return [Piece(*run) for run, _ in zip(zip(*parts, strict=False), heights, strict=False)]


def answer_before(begin: Piece, k: Tensor, left: Kept) -> Tensor:
    """Return what each token would be answered, (..., n, r), if the segment had written nothing before it."""
    if left.S is None:
        answer = k @ begin.S.mT
    else:
        part = left.S[..., :-1, :]
        answer = (part * k) @ begin.S.mT
        answer = answer if begin.origin is None else answer + ((1.0 - part) * k) @ begin.origin.mT
    if begin.Z is None or left.Z is None:
        return answer
    return answer + (left.Z[..., :-1, :] * k) @ begin.Z.mT


def write(
    begin: Piece, k: Tensor, value: Tensor | None, right: Tensor, left: Kept, corrects: bool = True
) -> tuple[Piece, Tensor]:
    """Write a segment.

    Args     begin: the rows to be written. k: (..., n, d). value: (..., n, r), what goes through the momentum; None
             without momentum. right: (..., n, r), what the errors are solved from. left: from `kept`. corrects: whether
             a write looks at what is stored; otherwise the errors are `right` itself.
    Returns  the rows after it, and the errors U (..., n, r).
    """
    match = k @ k.mT if k.shape[-2] > 1 else torch.zeros_like(left.errors[..., :-1, :])
    if value is None or left.values is None:
        before, end = left.errors.split([match.shape[-2], 1], -2)
        errors = _solve(before, match, right) if corrects else right
        return Piece(state_after(begin, k, end.mT * errors, left), begin.origin), errors
    assert begin.Z is not None and left.Z is not None and left.Z_Z is not None and left.Z_values is not None
    errors = right
    if corrects:
        errors = _solve(left.errors[..., :-1, :], match, right - (match * left.values[..., :-1, :]) @ value)
    added = left.errors[..., -1, :, None] * errors + left.values[..., -1, :, None] * value
    S = state_after(begin, k, added, left) + left.Z[..., -1:, :] * begin.Z
    Z = left.Z_Z * begin.Z + (left.Z_values[..., None] * value).mT @ k
    return Piece(S, begin.origin, Z), errors


def state_after(begin: Piece, k: Tensor, added: Tensor, left: Kept) -> Tensor:
    """Return the rows after a segment that added `added` k^T; the momentum is not in it.

    Args     begin: what the segment begins with. k: (..., n, d). added: (..., n, r), weighted by what is
             left at the end.
    """
    S = begin.S
    if left.S is not None:
        part = left.S[..., -1:, :]
        S = part * S if begin.origin is None else torch.lerp(begin.origin, S, part)
    return torch.baddbmm(S, added.mT, k) if S.ndim == 3 else S + added.mT @ k


def _solve(errors: Tensor, match: Tensor, right: Tensor) -> Tensor:
    """Return U with U_t = right_t - sum_{j<t} errors_{t-1,j} match_tj U_j."""
    if match.shape[-2] == 1:
        return right
    return torch.linalg.solve_triangular(errors * match, right, upper=False, unitriangular=True)


def read(begin: Piece, q: Tensor, k: Tensor, errors: Tensor, values: Tensor | None, left: Kept) -> Tensor:
    """Answer each token before it is written: S_{t-1} q_t, (..., n, r).

    Args     begin: what the segment began with. q, k: (..., n, d). errors: U, (..., n, r). values: what went through
             the momentum, the same shape, or None. left: from `kept`.
    """
    match = q @ k.mT
    answer = answer_before(begin, q, left) + (match * left.errors[..., :-1, :]) @ errors
    if values is None or left.values is None:
        return answer
    return answer + (match * left.values[..., :-1, :]) @ values
