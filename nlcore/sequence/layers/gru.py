"""A GRU behind the same interface: the yardstick that is no associative memory, a recurrent network of before.

Source    Cho et al. 2014; the LSTM is the yardstick of Table 5 of Nested Learning.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nlcore.levels import Level, describe
from nlcore.optimizers.checks import check_count
from nlcore.sequence import saving
from nlcore.sequence.checks import check_lengths, check_sequence, is_padding


@saving.keeps_stream
class GRUState(NamedTuple):
    """A GRU in the middle of a stream.

    Args     h: (B, dim), the hidden numbers. tokens: how many the batch has read, padding included.
    """

    h: Tensor
    tokens: int = 0

    def detach(self) -> GRUState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return saving.detach(self)

    def to(self, *args: Any, **settings: Any) -> GRUState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return saving.move(self, *args, **settings)


class GRU(nn.Module):
    """One layer of `torch.nn.GRU` that carries its state and knows padding.

    Args     dim: width of a token and of the hidden state. dtype, device: of the weights.
    Raises   ValueError or TypeError if dim is no whole number of at least 1.
    """

    def __init__(self, dim: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)
        self.cell = nn.GRU(dim, dim, batch_first=True, dtype=dtype, device=device)

    def forward(
        self, x: Tensor, state: GRUState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, GRUState | None]:
        """Read a stretch of B streams; as `TokenMixer.forward`.

        Args     x: (B, T, dim). state: from the call before, or None. lengths: (B,), real tokens of each item.
        Returns  y (B, T, dim) and the state. For T = 0 the state given.
        Raises   ValueError for shapes that do not fit; TypeError for another dtype than that of the weights.
        """
        check_sequence(x, self.dim, next(self.cell.parameters()).dtype)
        check_lengths(lengths, x)
        if state is not None and tuple(state.h.shape) != (len(x), self.dim):
            raise ValueError(f"the state is of another stream: expected h ({len(x)}, {self.dim}), got {state.h.shape}")
        if x.shape[1] == 0:
            return x, state
        h, tokens = (x.new_zeros(len(x), self.dim), 0) if state is None else state
        if lengths is None:
            y, last = self.cell(x, h.unsqueeze(0))
            return y, GRUState(last[0], tokens + x.shape[1])
        padding = is_padding(lengths.to(x.device), x.shape[1]).unsqueeze(-1)
        y, _ = self.cell(x.masked_fill(padding, 0.0), h.unsqueeze(0))
        index = lengths.to(x.device)[:, None, None].expand(-1, 1, self.dim)
        h = torch.cat([h.unsqueeze(1), y], 1).gather(1, index).squeeze(1)  # after the last real token
        return y.masked_fill(padding, 0.0), GRUState(h, tokens + x.shape[1])

    def levels(self) -> list[Level]:
        """Return one level: the hidden state, written at every token."""
        return [Level("hidden state", 1, "whatever training made it keep", numbers=self.dim)]

    def extra_repr(self) -> str:
        """Return the nest of levels, for `print`."""
        return describe(self.levels())
