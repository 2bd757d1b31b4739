r"""A deep memory: a residual network of two layers in place of a matrix, and what a stream has written into it.

    M(x) = x + W1 gelu(W2 x)                                    Eq. 89, 91
    surprise(M; k, v) = 1/2 |M(k) - v|^2                        what every write makes smaller

A step for one token changes its own answer by -eta G (M(k) - v). The largest eigenvalue of G is at most

    reach(M; k) = |h|^2 + |k|^2 sum_i gelu'(z_i)^2 |column i of W1|^2,     z = W2 k,  h = gelu(z)

which plays the part of |k|^2 in a matrix memory: a step with eta reach < 2 does not overshoot, as long as it is small
enough that the network is nearly linear: values of length one are safe, values of length 10^4 overshoot and come back.

Symbols   d width of keys and values; h, z hidden numbers, `hidden` of them; B batch, H heads, eta = lr,
          beta = momentum, C = gradient_period, the tokens that take their gradients at the same memory.
Source    Behrouz et al. 2025, Nested Learning, section 8.1, Eq. 89; Behrouz et al. 2025, Titans, section 3. The paper
          leaves the activation and the hidden width open; gelu without biases is chosen here. The bound is ours.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu

from nlcore.memory import read


class DeepWeights(NamedTuple):
    """The two matrices of a deep memory, or anything of their shapes: a momentum, a gradient.

    Args     W1: (..., d, hidden), writes to the answer. W2: (..., hidden, d), reads the key.
    """

    W1: Tensor
    W2: Tensor

    def detach(self) -> DeepWeights:
        """Return the same weights without their history."""
        return DeepWeights(self.W1.detach(), self.W2.detach())

    def to(self, *args: Any, **settings: Any) -> DeepWeights:
        """Return the weights on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return DeepWeights(self.W1.to(*args, **settings), self.W2.to(*args, **settings))


class DeepState(NamedTuple):
    """A deep memory in the middle of a stream.

    Args     weights: the memory now, W1 (B, H, d, hidden), W2 (B, H, hidden, d). momentum: Z, the same shapes.
             anchor: the memory at which the open chunk takes its gradients. tokens: how many were read; a tensor (B,)
             once `lengths` made that differ between the streams.
    """

    weights: DeepWeights
    momentum: DeepWeights
    anchor: DeepWeights
    tokens: int | Tensor = 0

    def detach(self) -> DeepState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return DeepState(self.weights.detach(), self.momentum.detach(), self.anchor.detach(), self.tokens)

    def to(self, *args: Any, **settings: Any) -> DeepState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        weights, momentum, anchor = (part.to(*args, **settings) for part in (self.weights, self.momentum, self.anchor))
        tokens = self.tokens.to(weights.W1.device) if isinstance(self.tokens, Tensor) else self.tokens
        return DeepState(weights, momentum, anchor, tokens)


class DeepTokens(NamedTuple):
    """Some tokens of all streams.

    Args     q, k, v: (B, H, n, d). lr, momentum: (B, H, n), or (1,) for one number. retain: the same, or None for 1.
             live: (B, H, n), 1 for a token and 0 for an empty place; None if all are tokens.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    lr: Tensor
    momentum: Tensor
    retain: Tensor | None = None
    live: Tensor | None = None


def new_deep_weights(
    heads: int,
    dim: int,
    hidden: int | None = None,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> DeepWeights:
    """Return random starting weights; the memory then answers nearly its key, M(k) = k + a tenth of it.

    Args     heads: H. dim: d. hidden: width inside, 4 dim if None. generator: where the numbers come from.
             dtype: of the weights, torch's default if None.
    Returns  W1 (H, d, hidden), W2 (H, hidden, d).
    Raises   ValueError for a size below 1.
    """
    hidden = 4 * dim if hidden is None else hidden
    if min(heads, dim, hidden) < 1:
        raise ValueError(f"sizes are at least 1, got heads={heads}, dim={dim}, hidden={hidden}")
    W1 = torch.randn(heads, dim, hidden, generator=generator, dtype=dtype) * (0.1 / math.sqrt(hidden))
    return DeepWeights(W1, torch.randn(heads, hidden, dim, generator=generator, dtype=dtype) / math.sqrt(dim))


def read_deep(weights: DeepWeights, k: Tensor) -> Tensor:
    """Answer the key: M(k) = k + W1 gelu(W2 k), (..., d) -> (..., d)."""
    return k + read(weights.W1, gelu(read(weights.W2, k)))


def surprise(weights: DeepWeights, k: Tensor, v: Tensor) -> Tensor:
    """Return 1/2 |M(k) - v|^2, summed over all memories: each gets its own gradient, as none shares a weight."""
    return 0.5 * (read_deep(weights, k) - v).square().sum()


def gelu_slope(z: Tensor) -> Tensor:
    """Return the derivative of gelu: Phi(z) + z phi(z), with the normal distribution Phi and its density phi."""
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * density


def reach(W1: Tensor, k: Tensor, z: Tensor) -> Tensor:
    """Return how far a step of size 1 reaches: at least the largest eigenvalue of G, see above.

    Args     W1: (B, H, d, hidden). k: (B, H, n, d). z: W2 k, (B, H, n, hidden).
    Returns  (B, H, n), >= 0.
    """
    columns = W1.square().sum(-2).unsqueeze(-1)  # (B, H, hidden, 1)
    through_W2 = (gelu_slope(z).square() @ columns).squeeze(-1)
    return gelu(z).square().sum(-1) + k.square().sum(-1) * through_W2


def bounded(lr: Tensor, momentum: Tensor, reached: Tensor, period: int, lr_bound: float | None) -> Tensor:
    r"""Return eta, cut to lr_bound / (reach stale), stale = 1 + (C - 1) / (1 - beta).

    C tokens take their gradients at the same memory. With beta = 0 a chunk is one step of gradient descent with the sum
    of its gradients; cut by C the steps together reach no further than lr_bound, whatever the keys are, and below 2 the
    (linearised) memory cannot overshoot. With momentum each of the C - 1 gradients that come too late goes on for
    1 / (1 - beta) tokens; then eta reach stale < 2 is enough for one key repeated. At C = 1 momentum needs no smaller
    step. The cut of a token comes from the token itself and the memory at the start of its chunk, from nothing later.

    Args     lr, momentum: (B, H, n) or (1,). reached: (B, H, n), from `reach`. period: C. lr_bound: at most 2; None
             leaves eta as it is.
    Returns  eta, (B, H, n) or as given.
    """
    if lr_bound is None:
        return lr
    least = torch.finfo(reached.dtype).eps  # a key of zeros reaches nothing, and nothing is not to be divided by
    stale = 1 + (period - 1) / (1 - momentum).clamp(min=least)
    return torch.minimum(lr, lr_bound / (reached.clamp(min=least) * stale))


def renew_anchor(state: DeepState, chunk_begins: bool | Tensor, live: Tensor | None) -> DeepState:
    """Take gradients at the memory as it is now, in the streams where a chunk begins and has tokens.

    Args     state: of B streams. chunk_begins: for all streams, or (B,). live: (B, H, n), as in `DeepTokens`.
    Returns  the state with the new anchor.
    """
    if live is not None:
        chunk_begins = (live.flatten(1) > 0).any(-1) & chunk_begins
    if isinstance(chunk_begins, bool):
        return state._replace(anchor=state.weights) if chunk_begins else state
    return state._replace(anchor=choose(chunk_begins, state.weights, state.anchor))


def choose(first: Tensor, one: DeepWeights, other: DeepWeights) -> DeepWeights:
    """Return `one` in the streams where `first` (B,) is true, else `other`."""
    pairs = zip(one, other, strict=True)
    return DeepWeights(*(torch.where(first[:, None, None, None], a, b) for a, b in pairs))
