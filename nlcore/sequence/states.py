"""What a stream has written into a memory so far, so that it can stop, be saved, and go on.

Symbols   B streams in a batch, H heads, d_k and d_v the sizes of a key and of a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class MemoryState(NamedTuple):
    """A matrix memory in the middle of a stream. To keep it: `torch.save(tuple(state), file)`, then
    `MemoryState(*torch.load(file))`.

    Args     M: (B, H, d_v, d_k), the memory. Z: the momentum of its writes, the shape of M, or None. anchor: the memory
             at the start of the open chunk, where gradients are taken, or None if they are taken at M itself.
             tokens: how many the stream has read.
    """

    M: Tensor
    Z: Tensor | None = None
    anchor: Tensor | None = None
    tokens: int = 0

    def detach(self) -> MemoryState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return self._mapped(Tensor.detach)

    def to(self, *args: Any, **settings: Any) -> MemoryState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return self._mapped(lambda part: part.to(*args, **settings))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> MemoryState:
        Z, anchor = (None if part is None else change(part) for part in (self.Z, self.anchor))
        return MemoryState(change(self.M), Z, anchor, self.tokens)


def precise(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype memories are kept and computed in: float32 for half precision, otherwise the same."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
