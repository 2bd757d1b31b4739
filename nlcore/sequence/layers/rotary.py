r"""Rotary positions: turn queries and keys by an angle that grows with their place in the stream.

    (x_i, x_{i+d/2}) is turned by the angle  t base^{-2i/d},  i = 0 .. d/2 - 1

Then q_s.k_t depends on q, k and the distance s - t alone. The angles go on from call to call, so a stream may be cut.

Source    Su et al. 2021 (RoFormer), arXiv 2104.09864; pairs (i, i + d/2) as in GPT-NeoX.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, seen: Tensor | int = 0, base: float = 10_000.0) -> Tensor:
    """Turn T tokens that follow after `seen` tokens.

    Args     x: (B, H, T, d), d even. seen: tokens of the stream before these, a number or (B,), one an item.
             base: the slowest pair makes a full turn in about 2 pi base tokens.
    Returns  the turned tokens, same shape and dtype; lengths are kept.
    Raises   ValueError if d is odd or the shapes do not fit.
    """
    if x.ndim != 4 or x.shape[-1] % 2:
        raise ValueError(f"rotary positions expect x (B, H, T, d) with even d, got {tuple(x.shape)}; try other heads")
    if isinstance(seen, Tensor) and seen.shape not in ((), (len(x),)):
        raise ValueError(f"expected seen to be a number or of shape ({len(x)},), got {tuple(seen.shape)}")
    angles = _angles(x, seen, base)
    cos, sin = (part.to(x.dtype) for part in (angles.cos(), angles.sin()))
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _angles(x: Tensor, seen: Tensor | int, base: float) -> Tensor:
    """Return the angles (B or 1, 1, T, d/2), in float64 where there is one: a late place times a rate is exact."""
    exact = torch.float32 if x.device.type == "mps" else torch.float64
    T, d = x.shape[-2:]
    rates = base ** (-torch.arange(0, d, 2, dtype=exact, device=x.device) / d)
    places = torch.arange(T, device=x.device) + torch.as_tensor(seen, device=x.device).reshape(-1, 1)
    return (places.to(exact).unsqueeze(-1) * rates).unsqueeze(1)
