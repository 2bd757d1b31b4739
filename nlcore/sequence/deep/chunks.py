r"""The deep memory read by whole chunks, with the gradients derived by hand: no weights for single tokens are built.

All tokens j of a chunk take their gradients at the same memory A, so each gradient is an outer product:

    z_j = A2 k_j,  h_j = gelu(z_j),  e_j = k_j + A1 h_j - v_j,  s_j = (A1^T e_j) gelu'(z_j)
    gradient for W1: e_j h_j^T            gradient for W2: s_j k_j^T

With the memory W and the momentum Z before the chunk, the memory after its t-th token is

    W_t = g_t W + b_t Z - sum_{j<=t} F_tj gradient_j        F, g, b from the gates (`gates`; F holds eta)

(if it decays to the start S: the same for W - S). A query needs only products of it with vectors:

    W2_t q_t = g_t W2 q_t + b_t Z2 q_t - sum_j F_tj (k_j . q_t) s_j             then, for gelu of it, the same with W1

Tokens lie in a grid of chunks, in which each stream stands where it was cut; places before its first and after its last
token are empty. An empty place has alpha = beta = 1, eta = 0 and lets no momentum move the memory: it changes nothing.

Symbols   d width; n tokens at once; C = period. Tokens stand in rows here, (B, H, n, d), so W k is `k @ W.mT`.
Source    Titans, section 3.2; Sun et al. 2024, TTT, the dual form; with momentum it is derived here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from nlcore.sequence.deep.weights import DeepState, DeepTokens, DeepWeights, bounded, gelu_slope, reach, renew_anchor
from nlcore.sequence.gates import Gates, Kept, kept


def chunk_loop(
    tokens: DeepTokens, state: DeepState, home: DeepWeights | None, period: int, lr_bound: float | None, size: int
) -> tuple[Tensor, DeepState]:
    """Write and read all tokens, `size` of them at once within a chunk of `period`.

    Args     tokens: (B, H, T, ...), T >= 1. state: the streams so far. home: what the memory decays to, None for zero.
             period: C. lr_bound: see `bounded`. size: at least 1.
    Returns  y: (B, H, T, d), and the state; its `tokens` are those of the state given.
    """
    begun = state.tokens % period  # tokens of the chunk in which the streams were cut
    places = None if isinstance(begun, int) else _places(tokens, begun, period)
    grid = tokens if places is None else _into_grid(tokens, places, period)
    outputs = []
    for index, chunk in enumerate(_chunks(grid, period, begun if isinstance(begun, int) else 0)):
        state = renew_anchor(state, begun == 0 if index == 0 else True, chunk.live)
        for piece in _cut(chunk, [size] * (chunk.q.shape[2] // size)):
            y, state = _piece(piece, state, home, period, lr_bound)
            outputs.append(y)
    y = torch.cat(outputs, 2)
    return (y if places is None else y.gather(2, places.unsqueeze(-1).expand_as(tokens.q))), state


def _piece(
    piece: DeepTokens, state: DeepState, home: DeepWeights | None, period: int, lr_bound: float | None
) -> tuple[Tensor, DeepState]:
    """Write and read n tokens that share an anchor."""
    q, k, v, A = piece.q, piece.k, piece.v, state.anchor
    W, Z, S = state.weights, state.momentum, home or (None, None)
    z = k @ A.W2.mT
    h = gelu(z)
    e = k + h @ A.W1.mT - v
    s = (e @ A.W1) * gelu_slope(z)
    eta = bounded(piece.lr, piece.momentum, reach(A.W1, k, z), period, lr_bound)
    left = kept(Gates(eta, piece.retain, piece.momentum, piece.live), k.shape[2])
    hq = gelu(_read(W.W2, Z.W2, S[1], left, q) - (left.W * (q @ k.mT)) @ s)
    y = q + _read(W.W1, Z.W1, S[0], left, hq) - (left.W * (hq @ h.mT)) @ e
    W1, Z1 = _after(W.W1, Z.W1, S[0], left, e, h)
    W2, Z2 = _after(W.W2, Z.W2, S[1], left, s, k)
    return y, state._replace(weights=DeepWeights(W1, W2), momentum=DeepWeights(Z1, Z2))


def _read(W: Tensor, Z: Tensor, home: Tensor | None, left: Kept, x: Tensor) -> Tensor:
    """Return what the matrix before these tokens, as faded as it is at each of them, answers: (B, H, n, ...)."""
    assert left.b is not None
    g = left.g.unsqueeze(-1)
    fading = W if home is None else W - home
    y = g * (x @ fading.mT) + left.b.unsqueeze(-1) * (x @ Z.mT)
    return y if home is None else y + x @ home.mT


def _after(
    W: Tensor, Z: Tensor, home: Tensor | None, left: Kept, values: Tensor, keys: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a matrix and its momentum after these tokens, whose gradients are values keys^T."""
    assert left.b is not None and left.W_Z is not None and left.b_Z is not None
    g, b, b_Z = (x[..., -1, None, None] for x in (left.g, left.b, left.b_Z))
    after = g * (W if home is None else W - home) + b * Z - (values * left.W[..., -1, :, None]).mT @ keys
    momentum = b_Z * Z - (values * left.W_Z.unsqueeze(-1)).mT @ keys
    return after if home is None else home + after, momentum


def _chunks(tokens: DeepTokens, period: int, begun: int) -> list[DeepTokens]:
    """Cut the tokens where a chunk ends; `begun` tokens of the first one were read before."""
    first = min(period - begun, tokens.q.shape[2])
    return _cut(tokens, [first] + [period] * ((tokens.q.shape[2] - first) // period))


def _cut(tokens: DeepTokens, sizes: list[int]) -> list[DeepTokens]:
    """Cut the tokens into parts of these sizes and what is left."""
    rest = tokens.q.shape[2] - sum(sizes)
    sizes = [*sizes, rest] if rest else sizes
    per_token = [[x] * len(sizes) if x is None or x.ndim == 1 else x.split(sizes, 2) for x in tokens]
    return [DeepTokens(*parts) for parts in zip(*per_token, strict=True)]


def _places(tokens: DeepTokens, begun: Tensor, period: int) -> Tensor:
    """Return the place of every token in the grid, (B, 1, T): each stream begins where its open chunk was cut."""
    return (begun[:, None] + torch.arange(tokens.q.shape[2], device=begun.device))[:, None]


def _into_grid(tokens: DeepTokens, places: Tensor, period: int) -> DeepTokens:
    """Put every token into its place; the grid has room for a chunk cut anywhere; what is left over is empty."""
    B, H, T, _ = tokens.q.shape
    live = tokens.q.new_ones(B, H, T) if tokens.live is None else tokens.live

    def spread(x: Tensor, empty: float) -> Tensor:
        x = x.expand(B, H, T) if x.ndim == 1 else x
        at = places.unsqueeze(-1) if x.ndim == 4 else places
        grid = x.new_full((B, H, T + period - 1, *x.shape[3:]), empty)
        return grid.scatter(2, at.expand_as(x), x)

    q, k, v = (spread(x, 0.0) for x in (tokens.q, tokens.k, tokens.v))
    retain = None if tokens.retain is None else spread(tokens.retain, 1.0)
    return DeepTokens(q, k, v, spread(tokens.lr, 0.0), spread(tokens.momentum, 1.0), retain, spread(live, 0.0))
