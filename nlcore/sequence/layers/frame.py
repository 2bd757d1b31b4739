"""The frame of every layer with a memory: checks, padding, the tail of the convolution, output, and its state.

A layer fills in `read_tokens` (tokens to answers, with tail and memory carried on) and `levels` (what its memory is).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn

from nlcore.levels import Level, describe
from nlcore.sequence import saving
from nlcore.sequence.checks import check_lengths, check_sequence, is_padding
from nlcore.sequence.layers.projections import Output


@saving.keeps_stream
class MixerState(NamedTuple):
    """A layer in the middle of a stream.

    Args     tail: (B, conv_width - 1, channels), the last tokens before the convolution. memory: the state of the
             memory. tokens: how many the batch has read, padding included.
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


class MemoryLayer(nn.Module, ABC):
    """A layer (B, T, dim) -> (B, T, dim) with a memory; `read_tokens` and `levels` are left to fill in.

    Whoever fills it in sets dim, the width of a token; heads, memories side by side; output, from answers to tokens;
    and tail_shape, what its convolution carries on: (width - 1, channels).
    """

    dim: int
    heads: int
    output: Output
    tail_shape: tuple[int, int]

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
        answers, tail, memory = self.read_tokens(x, tail, memory, lengths)
        y = self.output(answers, x)
        y = y if padding is None else y.masked_fill(padding, 0.0)
        return y, MixerState(tail, memory, tokens + x.shape[1])

    @abstractmethod
    def read_tokens(
        self, x: Tensor, tail: Tensor | None, memory: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, Any]:
        """Project the tokens, write and read the memory.

        Args     x: (B, T, dim), T >= 1, padding is 0. tail, memory: of the state, or None. lengths: (B,), or None.
        Returns  answers (B, H, T, d), the new tail, the new state of the memory.
        """

    @abstractmethod
    def levels(self) -> list[Level]:
        """Return what the stream writes into this layer; its weights belong to the optimizer that trains them."""

    def extra_repr(self) -> str:
        """Return the sizes and the nest of levels, for `print`."""
        return f"{self.dim}, heads={self.heads}, {describe(self.levels())}"

    def _check(self, x: Tensor, state: MixerState | None, lengths: Tensor | None) -> None:
        check_sequence(x, self.dim, self.output.linear.weight.dtype)
        check_lengths(lengths, x)
        if state is None:
            return
        if not isinstance(state, MixerState):
            raise TypeError(f"state must be a MixerState, what the call before returned; got {type(state).__name__}")
        expected = (len(x), *self.tail_shape)
        if tuple(state.tail.shape) != expected:
            found = tuple(state.tail.shape)
            raise ValueError(f"the state is of another stream: expected a tail of shape {expected}, got {found}")
