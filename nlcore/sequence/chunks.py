r"""The chunk-parallel forms: the same memories as the plain loops, many tokens at once.

Inside a chunk every memory is the one it began with plus the pairs written since, faded by the gates (`gates`):

    M_t = g_t M_0 + b_t Z_0 + sum_{j<=t} W_tj u_j k_j^T         y_t = M_t q_t

What differs is the value u that is written. A Hebbian memory writes v. The delta rule and Titans write the error v_t -
M_{t-1} k_t, in which all earlier errors of the chunk stand: a triangular system, solved for all chunks at once,

    (I + L) U = V - g_{t-1} K M_0^T - b_{t-1} K Z_0^T,          L_tj = W_{t-1,j} k_t . k_j   (j < t).

With the gradient at the start of the chunk (TTT, Titans) nothing is left to solve: U = V - K M_0^T. In each case U is
linear in the memory X = [M_0 Z_0] the chunk began with, U = Y - R X^T, and so is the memory at its end, X_C^T = A X^T +
B: one small matrix product a chunk is all that has to wait for its turn.

Symbols   N chunks of C tokens; q, k (B, H, N, C, d_k), v (B, H, N, C, d_v). In the code S = X^T, keys in rows.
Source    Yang et al. 2024, *Parallelizing linear transformers with the delta rule*; Behrouz et al. 2025, Eq. 90 and
          section 8.2; the combination with momentum is derived here and tested against the loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nlcore.sequence.gates import Gates, Kept, before, kept, rows_before, stretch


class Chunks(NamedTuple):
    """Tokens cut into N chunks of C: q, k (B, H, N, C, d_k), v (B, H, N, C, d_v), gates (..., N or 1, C or 1)."""

    q: Tensor
    k: Tensor
    v: Tensor
    gates: Gates


Form = Callable[[Chunks, Tensor], tuple[Tensor, Tensor]]


def in_chunks(form: Form, q: Tensor, k: Tensor, v: Tensor, gates: Gates, S: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Read T tokens: all whole chunks at once, then the shorter one that is left.

    Args     form: what reads chunks of one size, such as `chunk_form`. q, k: (B, H, T, d_k). v: (B, H, T, d_v).
             gates: of the T tokens. S: where the memory is. size: tokens a chunk.
    Returns  y: (B, H, T, d_v). S after the last token.
    """
    total = k.shape[2]
    whole = total - total % size
    answers = []
    for start, stop, C in (0, whole, size), (whole, total, total - whole):
        if start < stop:
            here = slice(start, stop)
            y, S = form(cut(q[:, :, here], k[:, :, here], v[:, :, here], stretch(gates, start, stop), C), S)
            answers.append(y)
    if not answers:
        return v[:, :, :0], S
    return torch.cat(answers, 2) if len(answers) > 1 else answers[0], S


def cut(q: Tensor, k: Tensor, v: Tensor, gates: Gates, size: int) -> Chunks:
    """Cut T = N C tokens into chunks of `size` tokens.

    Args     q, k: (B, H, T, d_k). v: (B, H, T, d_v). gates: (B or 1, H or 1, T) or (1,). size: C, a divisor of T.
    """
    q, k, v = (x.unflatten(2, (-1, size)) for x in (q, k, v))
    return Chunks(q, k, v, Gates._make(None if g is None else _cut_gate(g, size) for g in gates))


def _cut_gate(gate: Tensor, size: int) -> Tensor:
    return gate if gate.ndim == 1 else gate.unflatten(-1, (-1, size))


def chunk_form(rule: str, chunks: Chunks, S: Tensor) -> tuple[Tensor, Tensor]:
    """Write and read all chunks.

    Args     rule: "hebbian", "delta" (the error at the current memory) or "chunk_start" (at the memory the chunk began
             with). chunks: the tokens. S: (B, H, d_k, d_v), or (B, H, 2 d_k, d_v) with the momentum below the memory.
    Returns  y: (B, H, N C, d_v). S after the last chunk.
    """
    q, k, v, gates = chunks
    left = kept(gates, k.shape[-2])
    Y, R = _errors(rule, k, v, left)
    starts, S = _memories(k, Y, R, left, S)
    W = (q @ k.mT) * left.W
    P = _faded(q, left.g, left.b)
    P = P if R is None else P - W @ R
    return (P @ starts + W @ Y).flatten(2, 3), S


def oja_form(chunks: Chunks, M: Tensor) -> tuple[Tensor, Tensor]:
    """Write and read all chunks with Oja's rule: the delta rule on M^T, whose keys are the values and the reverse.

    Args     chunks: the tokens. M: (B, H, d_v, d_k).
    Returns  y: (B, H, N C, d_v). M after the last chunk.
    """
    q, k, v, gates = chunks
    left = kept(gates, k.shape[-2])
    Y, R = _errors("delta", v, k, left)
    assert R is not None
    starts, M = _memories(v, Y, R, left, M)
    U = Y - R @ starts
    y = (q @ starts.mT) * left.g[..., None] + ((q @ U.mT) * left.W) @ v
    return y.flatten(2, 3), M


def _errors(rule: str, k: Tensor, v: Tensor, left: Kept) -> tuple[Tensor, Tensor | None]:
    """Return Y (..., C, d_v) and R (..., C, rows of S) of the written values U = Y - R S; R None stands for 0."""
    if rule == "hebbian":
        return v, None
    if rule == "chunk_start":
        return v, k if left.b is None else torch.cat([k, torch.zeros_like(k)], -1)
    L = (k @ k.mT) * rows_before(left.W)
    old = _faded(k, before(left.g, 1.0), None if left.b is None else before(left.b, 0.0))
    solved = torch.linalg.solve_triangular(L, torch.cat([v, old], -1), upper=False, unitriangular=True)
    Y, R = solved.split([v.shape[-1], old.shape[-1]], -1)
    return Y, R


def _memories(k: Tensor, Y: Tensor, R: Tensor | None, left: Kept, S: Tensor) -> tuple[Tensor, Tensor]:
    """Return S at the start of every chunk, (B, H, N, rows, d_v), and after the last one."""
    written = k * left.W[..., -1, :, None]
    if left.W_Z is not None:
        written = torch.cat([written, k * left.W_Z[..., None]], -1)
    B = written.mT @ Y
    A = _carried(left, S.shape[-2])
    A = A.expand(*B.shape[:3], -1, -1) if R is None else A - written.mT @ R
    starts = []
    flat = S.flatten(0, 1)
    for A_n, B_n in zip(_by_chunk(A), _by_chunk(B), strict=True):
        starts.append(flat)
        flat = torch.baddbmm(B_n, A_n, flat)
    return torch.stack(starts, 1).unflatten(0, S.shape[:2]), flat.view_as(S)


def _carried(left: Kept, rows: int) -> Tensor:
    """Return what an unwritten chunk does to S: g_C I, with momentum [[g_C I, b_C I], [0, b_Z I]]."""
    if left.b is None:
        return left.g[..., -1:, None] * torch.eye(rows, dtype=left.g.dtype, device=left.g.device)
    assert left.b_Z is not None
    one = torch.eye(rows // 2, dtype=left.g.dtype, device=left.g.device)
    g, b, z = torch.broadcast_tensors(left.g[..., -1:], left.b[..., -1:], left.b_Z)
    above = torch.cat([g[..., None] * one, b[..., None] * one], -1)
    return torch.cat([above, torch.cat([torch.zeros_like(z[..., None] * one), z[..., None] * one], -1)], -2)


def _by_chunk(x: Tensor) -> tuple[Tensor, ...]:
    return x.flatten(0, 1).unbind(1)


def _faded(x: Tensor, g: Tensor, b: Tensor | None) -> Tensor:
    return x * g[..., None] if b is None else torch.cat([x * g[..., None], x * b[..., None]], -1)
