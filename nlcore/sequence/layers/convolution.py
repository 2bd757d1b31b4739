r"""A causal depthwise convolution that can stop and go on: every number of a token looks at its own last few values.

    y_t = sum_{j=0}^{w-1} weight_j x_{t-j}        for each of C channels, w = width

The last w - 1 tokens, the tail, are carried from call to call. With padding the tail holds the last real tokens.

Source    Titans (arXiv 2501.00663) section 4.4, and section 9 of Nested Learning: width 4 after queries, keys, values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nlcore.optimizers.checks import check_count


class CausalConvolution(nn.Module):
    """The convolution with its learned weights; width 1 only scales.

    Args     channels: C. width: tokens each value looks at, itself included. dtype, device: of the weights.
    Raises   ValueError or TypeError for a size below 1.
    """

    def __init__(
        self,
        channels: int,
        width: int = 4,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.width = check_count("channels", channels), check_count("width", width)
        self.weight = nn.Parameter(torch.empty(width, channels, dtype=dtype, device=device))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)  # as nn.Conv1d

    def forward(self, x: Tensor, tail: Tensor | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the sums and the new tail.

        Args     x: (B, T, C). tail: (B, width - 1, C), the tokens before; None is zeros. lengths: (B,), real tokens.
        Returns  y (B, T, C), where padding holds numbers without meaning; the tail after the last real token.
        """
        T, before = x.shape[1], self.width - 1
        if tail is None:
            tail = x.new_zeros(len(x), before, self.channels)
        line = torch.cat([tail.to(x.dtype), x], 1)  # (B, w - 1 + T, C)
        now, *earlier = self.weight.unbind()
        y = line[:, before:] * now
        for j, weight in enumerate(earlier, 1):
            y = torch.addcmul(y, line[:, before - j : before - j + T], weight)
        if lengths is None:
            return y, line[:, T:].clone()  # a clone, to let go of the tokens before
        place = torch.arange(before, device=x.device) + lengths.to(x.device).unsqueeze(-1)
        return y, line.gather(1, place.unsqueeze(-1).expand(-1, -1, self.channels))

    def extra_repr(self) -> str:
        """Return the sizes, for `print`."""
        return f"{self.channels}, width={self.width}"
