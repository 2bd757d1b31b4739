r"""Two ways to set the length of a vector that are safe for all finite numbers: unit length, and root mean square 1.

    unit(x)   x / sqrt(|x|^2 + eps^2)            keys and queries of a memory: a step lr < 2 then never diverges
    rms(x)    x / sqrt(mean x^2 + eps^2)         RMSNorm: what enters a layer

Zero stays zero, with a finite gradient, and numbers whose square is no number any more are scaled down first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nlcore.sequence.states import precise

EPS = 1e-3  # of the length: vectors much shorter than this fade to zero in place of becoming noise


def unit(x: Tensor, eps: float = EPS) -> Tensor:
    """Return x / sqrt(|x|^2 + eps^2) over the last axis, same shape and dtype; length at most 1."""
    size = _size(x)
    y = x.to(precise(x.dtype)) / size
    return (y * (y.square().sum(-1, keepdim=True) + (eps / size).square()).rsqrt()).to(x.dtype)


def rms(x: Tensor, eps: float = EPS) -> Tensor:
    """Return x / sqrt(mean x^2 + eps^2) over the last axis, same shape and dtype."""
    size = _size(x)
    y = x.to(precise(x.dtype)) / size
    return (y * (y.square().mean(-1, keepdim=True) + (eps / size).square()).rsqrt()).to(x.dtype)


class RMSNorm(nn.Module):
    """rms(x) times a learned scale for each number.

    Args     dim: size of the last axis. eps: see above. dtype, device: of the weights.
    """

    def __init__(
        self, dim: int, eps: float = EPS, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(dim, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., dim), normalised and scaled."""
        return rms(x, self.eps) * self.scale

    def extra_repr(self) -> str:
        """Return the size, for `print`."""
        return str(len(self.scale))


def _size(x: Tensor) -> Tensor:
    """Return the largest number of each vector, at least 1; a constant, as the result does not depend on it."""
    return x.detach().abs().amax(-1, keepdim=True).to(precise(x.dtype)).clamp(min=1.0)
