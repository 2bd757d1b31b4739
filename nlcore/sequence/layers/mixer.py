"""The frame of every layer that reads tokens into a memory: checks, projections, memory, output, and its state.

A layer fills in two methods: `remember` (how the memory is written and read) and `levels` (what it is).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nlcore.levels import Level, describe
from nlcore.sequence import saving
from nlcore.sequence.inputs import check_padding, check_sequence, is_padding
from nlcore.sequence.layers.projections import Output, Projections


@saving.keeps_stream
class MixerState(NamedTuple):
    """A layer in the middle of a stream.

    Args     tail: (B, conv_width - 1, 3 dim), the last tokens before the convolution. memory: the state of the memory.
             tokens: how many the batch has read, padding included.
    """

    tail: Tensor
    memory: Any
    tokens: int = 0

    def detach(self) -> MixerState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return saving.detach(self)

    def to(self, *args: Any, **settings: Any) -> MixerState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return saving.move(self, *args, **settings)


class TokenMixer(nn.Module, ABC):
    """A layer (B, T, dim) -> (B, T, dim) around a memory of tokens; `remember` is left to fill in.

    Args     dim: width of a token. heads: memories side by side, each dim / heads wide. conv_width, activation,
             unit_keys, unit_values: how queries, keys and values are made, see `Projections`. norm, gate: of the
             output, see `Output`. dtype, device: of the weights.
    Raises   ValueError or TypeError for sizes that do not fit.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        *,
        conv_width: int = 4,
        activation: bool = True,
        unit_keys: bool = True,
        unit_values: bool = False,
        norm: bool = True,
        gate: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        shaped: dict[str, Any] = {"activation": activation, "unit_keys": unit_keys, "unit_values": unit_values}
        self.projections = Projections(dim, heads, conv_width=conv_width, **shaped, **made)
        self.output = Output(dim, heads, norm=norm, gate=gate, **made)
        self.dim, self.heads, self.width = dim, heads, self.projections.width

    def forward(
        self, x: Tensor, state: MixerState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, MixerState | None]:
        """Read a stretch of B streams; every token is answered from what came up to it.

        Args     x: (B, T, dim). state: from the call before; None begins new streams. lengths: (B,), real tokens of
                 each item; the rest is padding, which changes nothing and answers 0.
        Returns  y (B, T, dim) and the state; pass it on to continue the streams. For T = 0 the state given.
        Raises   ValueError for shapes that do not fit; TypeError for another dtype than that of the weights.
        """
        self._check(x, state, lengths)
        if x.shape[1] == 0:
            return x, state
        padding = None if lengths is None else is_padding(lengths.to(x.device), x.shape[1]).unsqueeze(-1)
        x = x if padding is None else x.masked_fill(padding, 0.0)
        tail, memory, tokens = state or (None, None, 0)
        q, k, v, tail = self.projections(x, tail, lengths)
        answers, memory = self.remember(x, q, k, v, memory, lengths)
        y = self.output(answers, x)
        y = y if padding is None else y.masked_fill(padding, 0.0)
        return y, MixerState(tail, memory, tokens + x.shape[1])

    @abstractmethod
    def remember(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, memory: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Write and read the memory.

        Args     x: (B, T, dim), the tokens, for gates. q, k, v: (B, H, T, d). memory: its state, or None.
                 lengths: (B,).
        Returns  answers (B, H, T, d) and the new state of the memory.
        """

    @abstractmethod
    def levels(self) -> list[Level]:
        """Return what the stream writes into this layer; its weights belong to the optimizer that trains them."""

    def extra_repr(self) -> str:
        """Return the sizes and the nest of levels, for `print`."""
        return f"{self.dim}, heads={self.heads}, {describe(self.levels())}"

    def _check(self, x: Tensor, state: MixerState | None, lengths: Tensor | None) -> None:
        check_sequence(x, self.dim, self.output.linear.weight.dtype)
        check_padding(lengths, x)
        if state is None:
            return
        if not isinstance(state, MixerState):
            raise TypeError(f"state must be a MixerState, what the call before returned; got {type(state).__name__}")
        expected = (len(x), self.projections.convolution.width - 1, 3 * self.dim)
        if tuple(state.tail.shape) != expected:
            found = tuple(state.tail.shape)
            raise ValueError(f"the state is of another stream: expected a tail of shape {expected}, got {found}")
