r"""Boxes that are networks: M(x) = x + W1 gelu(W2 x), the memory architecture of Eq. 89 and 91.

    W2 <- W2 (alpha I - eta k k^T) - eta (d objective / d W2 k) k^T         the layer whose input is the key
    W1 <- alpha W1 - eta (d objective / d W1 h) h^T,   h = gelu(W2 k)

The gradients are those at the start of the chunk (Eq. 90). Writing W2 is the delta rule with the value -dz, writing W1
is Hebbian. A box that gives one number gives the mean of its answer.

Symbols   N boxes in the order of `Rules.boxes`, h hidden width; W1 (B, H, N, d, h), W2 (B, H, N, h, d).
Source    Behrouz et al. 2025, Nested Learning, Eq. 88-91. Which layer gets (alpha I - eta k k^T) is not said; the
          nonlinearity, the hidden width and the bound of the learning rate are chosen here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu

from nlcore.sequence import saving
from nlcore.sequence.self_modifying.boxes import Generated, cut_to, settle
from nlcore.sequence.self_modifying.rules import NUMBERS, Rules


class NetworkBoxes(NamedTuple):
    """The learned numbers all streams start from.

    Args     W1: (H, N, d, h). W2: (H, N, h, d). lr_bias, retain_bias: (H,), added before the sigmoid. rate: a factor on
             the lr of every box but the memory, or None.
    """

    W1: Tensor
    W2: Tensor
    lr_bias: Tensor
    retain_bias: Tensor
    rate: Tensor | None = None


@saving.keeps_stream
class NetworkState(NamedTuple):
    """All boxes in the middle of a stream.

    Args     W1, W2: now, (B, H, N, d, h) and (B, H, N, h, d). anchor1, anchor2: the same at the
             start of the open chunk of each box. tokens: how many the stream has read, padding included.
    """

    W1: Tensor
    W2: Tensor
    anchor1: Tensor
    anchor2: Tensor
    tokens: int = 0

    def detach(self) -> NetworkState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return saving.detach(self)

    def to(self, *args: Any, **settings: Any) -> NetworkState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return saving.move(self, *args, **settings)


class Descent(NamedTuple):
    """What the inner objective asks of the boxes for some tokens, at their anchors.

    Args     h: (B, H, N, n, hidden), what W1 reads. err: (B, H, N, n, d), the gradient of the answer. dz: (B, H, N, n,
             hidden), the gradient of W2 k.
    """

    h: Tensor
    err: Tensor
    dz: Tensor


def answer(W1: Tensor, W2: Tensor, x: Tensor) -> Tensor:
    """Read the boxes: x + W1 gelu(W2 x), (..., n, d) for x (..., n, d)."""
    return x + gelu(x @ W2.mT) @ W1.mT


def generate(x: Tensor, W1: Tensor, W2: Tensor, boxes: NetworkBoxes, rules: Rules, live: Tensor | None) -> Generated:
    """Generate key, value, learning rate and retention, as matrix boxes do.

    Args     x: (B, H, n, d). W1, W2: the anchors of all boxes. boxes: the biases. rules: the choices. live: (B, 1, n),
             1 for a token, 0 for padding; or None.
    """
    found = answer(W1[:, :, :-1], W2[:, :, :-1], x.unsqueeze(2)).unbind(2)
    parts = dict(zip(rules.boxes[:-1], found, strict=True))
    parts.update({name: parts[name].mean(-1) for name in NUMBERS if name in parts})
    return settle(parts, boxes.lr_bias, boxes.retain_bias, rules, live)


def descent(k: Tensor, v: Tensor, W1: Tensor, W2: Tensor, rules: Rules) -> Descent:
    """Return the gradients of the inner objective at the anchors, for the targets vhat = M_box(v).

    "dgd_l2": 1/2 |M(k) - vhat|^2. "delta": -<M(k), vhat>, which nothing erases from W1: keep its lr small.

    Args     k, v: (B, H, n, d). W1, W2: the anchors.
    """
    vhat = answer(W1, W2, v.unsqueeze(2))
    if rules.target_bound is not None:
        vhat = cut_to(vhat, rules.target_bound)
    z = k.unsqueeze(2) @ W2.mT
    h = gelu(z)
    err = k.unsqueeze(2) + h @ W1.mT - vhat if rules.rule == "dgd_l2" else -vhat
    return Descent(h, err, (err @ W1) * gelu_slope(z))


def gelu_slope(z: Tensor) -> Tensor:
    """Return the derivative of gelu: Phi(z) + z phi(z)."""
    return 0.5 * (1.0 + torch.erf(z * 0.5**0.5)) + z * torch.exp(-0.5 * z.square()) * (2.0 * torch.pi) ** -0.5
