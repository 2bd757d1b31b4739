r"""One level of a continuum that learns from the next token: a residual MLP whose weights a stream rewrites.

    y_t = x_t + W2 gelu(W1 a_t)                  a = norm(x); read with the weights as they are
    e_t, c_t                                     gradient of the next-token loss in y_t, and its bend (`readout`)
    G2 = sum e_t h_t^T      G1 = sum (W2^T e_t * gelu'(z_t)) a_t^T         over the period, h = gelu(z), z = W1 a
    W  <- start + keep (W - start) - eta G / (lambda + sum c_t)            after every C-th pair

lambda bounds how much the summed loss can bend in W: the largest eigenvalue of sum c_t h_t h_t^T (of a a^T for W1) is
at most the largest row sum of |c_s h_t . h_s| (Gershgorin). So eta below 2 cannot overshoot in a layer alone, however
alike the tokens of a period are. The term after it counts every token as one of length 1 at least, so that nearly
silent units do not get huge weights. The paper's Eq. 71 leaves the step size open.

Symbols   B streams, n tokens, d width of a token, h inside the MLP; eta = lr, keep = what is left of the learned part.
Source    Behrouz et al. 2025, Nested Learning, section 7.1, Eq. 71; bound and decay are chosen here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nlcore.sequence import saving

LINEAR = math.sqrt(8.0 / math.pi)
CUBIC = 0.044715 * LINEAR


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


class Pairs(NamedTuple):
    """The pairs of a period; a gradient is a sum of products of what is here of each token.

    Args     a, error: (B, m, d). h, dz: (B, m, h). bend: (B, m, 1). All are 0 where there was no pair.
    """

    a: Tensor
    dz: Tensor
    h: Tensor
    error: Tensor
    bend: Tensor

    def and_(self, more: Pairs) -> Pairs:
        """Return these and some more."""
        return Pairs(*(torch.cat(parts, 1) for parts in zip(self, more, strict=True)))


class Seen(NamedTuple):
    """Some tokens as a level has read them.

    Args     a: (B, n, d), the input after the norm. h, slope: (B, n, h): gelu(z), gelu'(z). y: (B, n, d), the answer.
    """

    a: Tensor
    h: Tensor
    slope: Tensor
    y: Tensor


def see(W: FastWeights, x: Tensor, a: Tensor) -> Seen:
    """Read tokens.

    Args     W: (h, d) and (d, h), or one a stream. x, a: (..., n, d).
    """
    h, slope = gelu_and_slope(a @ W.W1.mT)
    return Seen(a, h, slope, x + h @ W.W2.mT)


def gelu_and_slope(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return gelu(z) and gelu'(z), by gelu(z) = z sigmoid(sqrt(8/pi) (z + 0.044715 z^3)), often written with a tanh."""
    square = z * z
    part = (z * (LINEAR + CUBIC * square)).sigmoid()
    h = z * part
    return h, torch.addcmul(part, h * (1.0 - part), LINEAR + 3.0 * CUBIC * square)


def pairs_of(W: FastWeights, seen: Seen, error: Tensor, bend: Tensor, live: Tensor | None = None) -> Pairs:
    """Return the pairs (hidden state, next token) of some tokens.

    Args     W: what the tokens were read with. seen: the tokens. error: (B, n, d), bend: (B, n, 1), from the readout.
             live: (B, n, 1), 1 where the next token has come, else 0; None if it has for all.
    """
    a, h = seen.a, seen.h
    if live is not None:
        a, h, error, bend = a * live, h * live, error * live, bend * live
    dz = (error @ W.W2) * seen.slope
    return Pairs(a, dz, h, error, bend)


def updated(
    W: FastWeights, start: FastWeights, pairs: Pairs, lr: Tensor, keep: Tensor | float
) -> tuple[FastWeights, Tensor]:
    """Return the weights after a full period, (B, h, d) and (B, d, h), and which streams learned, (B, 1, 1).

    A stream that had no pair in the period loses nothing either.

    Args     W: the weights it was read with. start: (h, d) and (d, h). pairs: of the period. lr, keep: one number each.
    """
    total = pairs.bend.sum(1, keepdim=True)
    read = total > 0
    left = torch.where(read, torch.as_tensor(keep, dtype=total.dtype, device=total.device), 1.0)
    tiny = torch.finfo(total.dtype).tiny
    rates = (lr / (largest(part, pairs.bend) + total).clamp_min(tiny) for part in (pairs.a, pairs.h))
    outer = ((pairs.dz, pairs.a), (pairs.error, pairs.h))
    after = []
    for old, begin, rate, (rows, columns) in zip(W, start, rates, outer, strict=True):
        base = torch.lerp(begin, old, left).expand(len(total), -1, -1)
        after.append(torch.baddbmm(base, (-rate * rows).mT, columns))
    return FastWeights(*after), read


def largest(x: Tensor, weight: Tensor) -> Tensor:
    """Return a bound on the largest eigenvalue of sum_t w_t x_t x_t^T, (B, 1, 1): Gershgorin.

    The sum (d x d) and the products of all tokens (n x n) have the same largest eigenvalue; the smaller matrix is used.

    Args     x: (B, n, d). weight: (B, n, 1), >= 0; x is 0 where it is.
    """
    weighted = x * weight
    products = x @ weighted.mT if x.shape[1] <= x.shape[2] else weighted.mT @ x
    return products.abs().sum(-1).amax(-1)[:, None, None]
