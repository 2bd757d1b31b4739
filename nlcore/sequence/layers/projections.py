r"""What every memory of tokens is wrapped in: how a token becomes query, key, value and gates, and the answer a token.

    q, k, v   = shape(conv(W x))        shape: silu, and for queries and keys unit length
    gate      = high sigmoid(w.x + b)   one number for each head and token: lr, retain, momentum
    y         = W_o (norm(o) [* silu(W_g x)])       o: what the memory answered, norm: RMSNorm in each head

The paper names the unit length and the convolution of width 4 and leaves the rest open; the choices are arguments.

Symbols   B batch, T tokens, H heads, d = dim / H.
Source    Behrouz et al. 2025, Nested Learning, section 9; Titans section 4.4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from nlcore.optimizers.checks import check_count
from nlcore.sequence.checks import head_width
from nlcore.sequence.layers.convolution import CausalConvolution
from nlcore.sequence.layers.norms import RMSNorm, unit
from nlcore.sequence.states import precise


class Projections(nn.Module):
    """Make queries, keys and values of tokens: three linear maps, a causal convolution, SiLU, unit length.

    Args     dim: width of a token. heads: H, divides dim. conv_width: tokens the convolution after q, k and v sees; 1
             looks at the token alone. activation: SiLU after it; without it, before unit length, small experiments
             learn far worse. unit_keys: q and k of length 1. unit_values: v too, which a deep memory needs to be
             stable. dtype, device: of the weights.
    Raises   ValueError or TypeError for sizes that do not fit.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        conv_width: int = 4,
        activation: bool = True,
        unit_keys: bool = True,
        unit_values: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.heads = check_count("dim", dim), check_count("heads", heads)
        self.width = head_width(dim, heads)
        self.activation, self.unit_keys, self.unit_values = activation, unit_keys, unit_values
        self.linear = nn.Linear(dim, 3 * dim, bias=False, dtype=dtype, device=device)
        self.convolution = CausalConvolution(3 * dim, conv_width, dtype=dtype, device=device)

    def forward(
        self, x: Tensor, tail: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q, k, v, each (B, H, T, d), and the tail of the convolution.

        Args     x: (B, T, dim). tail: (B, conv_width - 1, 3 dim), from the call before. lengths: (B,), real tokens.
        """
        mixed, tail = self.convolution(self.linear(x), tail, lengths)
        mixed = silu(mixed) if self.activation else mixed
        q, k, v = mixed.unflatten(-1, (3, self.heads, self.width)).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        if self.unit_keys:
            q, k = unit(q), unit(k)
        return q, k, unit(v) if self.unit_values else v, tail


class Gate(nn.Module):
    """One number in (0, high) for each head and token: high sigmoid(w.x + b).

    Args     dim: width of a token. heads: H. high: 1 for lr in (0, 1), retain and momentum; 2 for lr in (0, 2).
             start: its value at x = 0 before training. dtype, device: of the weights.
    Raises   ValueError unless 0 < start < high.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        high: float = 1.0,
        start: float = 0.5,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(high) and 0 < start < high):
            raise ValueError(f"a gate starts between 0 and its highest value, got start {start}, high {high}")
        self.high = high
        self.linear = nn.Linear(dim, heads, dtype=dtype, device=device)
        nn.init.constant_(self.linear.bias, math.log(start / (high - start)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, H, T) for x (B, T, dim); half precision knows no number between .996 and 1, so in float32."""
        logits = self.linear(x)
        return self.high * logits.to(precise(logits.dtype)).sigmoid().mT

    def extra_repr(self) -> str:
        """Return the range, for `print`."""
        return f"0 to {self.high:g}"


class Output(nn.Module):
    """Make one token of the answers of all heads: norm in each head, a gate if wanted, a linear map.

    Args     dim, heads: as in `Projections`. norm: RMSNorm over each head, scales of its own. gate: multiply by
             silu(W x), x the token asked for. dtype, device: of the weights.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        norm: bool = True,
        gate: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(head_width(dim, heads), dtype=dtype, device=device) if norm else None
        self.gate = nn.Linear(dim, dim, bias=False, dtype=dtype, device=device) if gate else None
        self.linear = nn.Linear(dim, dim, bias=False, dtype=dtype, device=device)

    def forward(self, answers: Tensor, x: Tensor) -> Tensor:
        """Return (B, T, dim) for answers (B, H, T, d) and the tokens x (B, T, dim)."""
        y = answers if self.norm is None else self.norm(answers)
        y = y.transpose(1, 2).flatten(2)
        return self.linear(y if self.gate is None else y * silu(self.gate(x)))
