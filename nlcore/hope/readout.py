r"""What a layer would predict if the model ended here, and the gradient of that loss: derived by hand, no autograd.

    r = 1 / sqrt(mean y^2 + eps^2)      n = r y      p = softmax(H n)      H = head diag(scale)
    d loss / d n = H^T (p - one_hot(next token))
    d loss / d y = r (g - n mean(g n))                 g = d loss / d n

H is the head of the model with the scale of its last norm: the same for every level, nothing new to learn. The loss
bends in y by at most r^2 max_v |H_v|^2, which bounds the step that may be taken along this gradient.

Symbols   y hidden state, (B, n, d); V tokens in the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding


class Readout(NamedTuple):
    """The end of a model, as a level inside it sees it.

    Args     H: (V, d), the head times the scale of the last norm. bend: max |H_v|^2, a tensor with one number.
             eps: of the last norm.
    """

    H: Tensor
    bend: Tensor
    eps: float

    def error(self, y: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of the cross-entropy in y, and how much the loss can bend there.

        Args     y: (B, n, d). token: (B, n), what came next.
        Returns  gradient (B, n, d); bend (B, n, 1).
        """
        r = (y.square().mean(-1, keepdim=True) + self.eps**2).rsqrt()
        n = y * r
        p = (n @ self.H.mT).softmax(-1)
        g = p @ self.H - embedding(token, self.H)
        along = (g * n).mean(-1, keepdim=True)
        return r * torch.addcmul(g, n, along, value=-1), r.square() * self.bend


def new_readout(head: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Readout:
    """Return the readout of a model.

    Args     head: (V, d). scale: (d,), of the last norm. eps: of the last norm. dtype: what to compute in.
    """
    H = head.to(dtype) * scale.to(dtype)
    return Readout(H, H.square().sum(-1).amax(), eps)
