"""What the layers around a memory of keys and values share: queries, keys and values of tokens, then `remember`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from nlcore.sequence.layers.frame import MemoryLayer
from nlcore.sequence.layers.projections import Output, Projections


class TokenMixer(MemoryLayer):
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
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        shaped: dict[str, Any] = {"activation": activation, "unit_keys": unit_keys, "unit_values": unit_values}
        super().__init__()
        self.projections = Projections(dim, heads, conv_width=conv_width, **shaped, **made)
        self.output = Output(dim, heads, norm=norm, gate=gate, **made)
        self.dim, self.heads, self.width = dim, heads, self.projections.width
        self.tail_shape = (self.projections.convolution.width - 1, self.projections.convolution.channels)

    def read_tokens(
        self, x: Tensor, tail: Tensor | None, memory: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, Any]:
        """Make queries, keys and values, then write and read the memory with them."""
        q, k, v, tail = self.projections(x, tail, lengths)
        answers, memory = self.remember(x, q, k, v, memory, lengths)
        return answers, tail, memory

    @abstractmethod
    def remember(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, memory: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Write and read the memory.

        Args     x: (B, T, dim), the tokens, for gates. q, k, v: (B, H, T, d). memory: its state, or None.
                 lengths: (B,).
        Returns  answers (B, H, T, d) and the new state of the memory.
        """
