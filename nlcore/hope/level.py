r"""One level of a continuum that learns from the next token: a residual MLP whose weights a stream rewrites.

    y_t = x_t + W2 gelu(W1 a_t)                  a = norm(x); read with the weights as they are
    e_t, c_t                                     gradient of the next-token loss in y_t, and its bend (`readout`)
    G2 = sum e_t h_t^T     G1 = sum (W2^T e_t * gelu'(z_t)) a_t^T          summed over the period, h = gelu(z), z = W1 a
    K2 = sum c_t h_t h_t^T     K1 = sum c_t a_t a_t^T                      how much the summed loss can bend
    W  <- start + keep (W - start) - eta G / (lambda(K) + sum c_t)         after every C-th pair

lambda is the largest row sum of |K| (Gershgorin), at least the largest eigenvalue: so eta below 2 cannot overshoot in a
layer alone, however alike the tokens of a period are. The last term counts every token as one of length 1 at least, so
that nearly silent units do not get huge weights. The paper's Eq. 71 leaves the step size open.

Symbols   B streams, n tokens, d width of a token, h inside the MLP; eta = lr, keep = what is left of the learned part.
Source    Behrouz et al. 2025, Nested Learning, section 7.1, Eq. 71; bound and decay are chosen here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu

from nlcore.sequence import saving


@saving.keeps_stream
class FastWeights(NamedTuple):
    """The two matrices of an MLP, or changes to them.

    Args     W1: (h, d), or (B, h, d), one a stream. W2: (d, h), or (B, d, h).
    """

    W1: Tensor
    W2: Tensor

    def plus(self, change: FastWeights | None) -> FastWeights:
        """Return the sum of two, or this one for None."""
        return self if change is None else FastWeights(self.W1 + change.W1, self.W2 + change.W2)


@saving.keeps_stream
class Sums(NamedTuple):
    """What the pairs of an open period add up to.

    Args     first: (B, h + d, d), G1 above K1. second: (B, d + h, h), G2 above K2. bend: (B, 1, 1), the sum of c.
    """

    first: Tensor
    second: Tensor
    bend: Tensor


class Seen(NamedTuple):
    """Some tokens as a level has read them.

    Args     x, a: (B, n, d), the input, normalised in a. z, h: (B, n, h), inside. y: (B, n, d), the output.
    """

    x: Tensor
    a: Tensor
    z: Tensor
    h: Tensor
    y: Tensor

    def first(self, n: int) -> Seen:
        """Return only the first n tokens."""
        return self if n == self.x.shape[1] else Seen(*(part[:, :n] for part in self))


def see(W: FastWeights, x: Tensor, a: Tensor) -> Seen:
    """Read tokens.

    Args     W: (h, d) and (d, h), or one a stream. x, a: (..., n, d).
    """
    z = a @ W.W1.mT
    h = gelu(z, approximate="tanh")
    return Seen(x, a, z, h, x + h @ W.W2.mT)


def add_pairs(
    sums: Sums | None, W: FastWeights, seen: Seen, error: Tensor, bend: Tensor, live: Tensor | None = None
) -> Sums:
    """Add the pairs (hidden state, next token) of some tokens.

    Args     sums: so far, or None. W: what the tokens were read with. error: (B, n, d), bend: (B, n, 1), from the
             readout. live: (B, n, 1), 1 where the next token has come, else 0; None if it has for all.
    """
    if live is not None:
        error, bend = error * live, bend * live
    dz = torch.ops.aten.gelu_backward(error @ W.W2, seen.z, approximate="tanh")
    first = torch.cat([dz, seen.a * bend], -1).mT
    second = torch.cat([error, seen.h * bend], -1).mT
    total = bend.sum(1, keepdim=True)
    if sums is None:
        return Sums(first @ seen.a, second @ seen.h, total)
    return Sums(torch.baddbmm(sums.first, first, seen.a), torch.baddbmm(sums.second, second, seen.h), sums.bend + total)


def step_of(sums: Sums, d: int) -> tuple[FastWeights, Tensor]:
    """Return G / (lambda(K) + sum c) of a full period, and (B, 1, 1): 1 for a stream that has read a pair, else 0."""
    h = sums.first.shape[1] - d
    smallest = torch.finfo(sums.bend.dtype).tiny
    steps = []
    for both, rows in ((sums.first, h), (sums.second, d)):
        bound = both[:, rows:].abs().sum(-1).amax(-1)[:, None, None]
        steps.append(both[:, :rows] / (bound + sums.bend).clamp_min(smallest))
    return FastWeights(*steps), (sums.bend > 0).to(sums.bend.dtype)


def moved(
    learned: FastWeights | None, step: FastWeights, read: Tensor, lr: Tensor | float, keep: Tensor | float
) -> FastWeights:
    """Return what is learned after an update: keep times what it was, less lr times the step.

    Args     learned: (B, h, d) and (B, d, h), or None for nothing. read: (B, 1, 1), 0 for a stream that had no pair in
             the period and loses nothing. lr, keep: one number each.
    """
    if learned is None:
        return FastWeights(-lr * step.W1, -lr * step.W2)
    left = 1.0 - read * (1.0 - keep)
    return FastWeights(left * learned.W1 - lr * step.W1, left * learned.W2 - lr * step.W2)
