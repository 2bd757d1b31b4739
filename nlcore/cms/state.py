"""What a stream has taught each level so far, so that the stream can stop, be saved, and go on.

The weights a level reads with are its start plus `learned`. The start belongs to the model and is shared by all
streams; only what was learned belongs to the stream.

Symbols   B streams in a batch, P numbers in all weights of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LevelState:
    """One level in the middle of a stream.

    Args     learned: (B, P), what the stream has added to the start of the level. summed: (B, P), the gradients of the
             tokens in the open chunk, not yet applied. tokens: how many those are. updates: how often the level has
             been updated since the stream began.
    """

    learned: Tensor
    summed: Tensor
    tokens: int = 0
    updates: int = 0


@dataclass(frozen=True)
class StreamState:
    """All levels in the middle of a stream, in the order of the chain.

    Args     levels: one state a level.
    """

    levels: tuple[LevelState, ...]

    def detach(self) -> StreamState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return self._map(Tensor.detach)

    def to(self, *args: Any, **settings: Any) -> StreamState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return self._map(lambda tensor: tensor.to(*args, **settings))

    def _map(self, change: Callable[[Tensor], Tensor]) -> StreamState:
        return StreamState(tuple(replace(o, learned=change(o.learned), summed=change(o.summed)) for o in self.levels))

    def as_dict(self) -> dict[str, list[Any]]:
        """Return plain lists of tensors and whole numbers, which `torch.save` and a safe `torch.load` accept."""
        levels = self.detach().levels
        tensors = {name: [getattr(level, name).contiguous() for level in levels] for name in ("learned", "summed")}
        return {**tensors, **{name: [getattr(level, name) for level in levels] for name in ("tokens", "updates")}}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Sequence[Any]]) -> StreamState:
        """Return the state that `as_dict` wrote.

        Args     saved: what `as_dict` returned.
        Raises   ValueError if a list is missing or the lists differ in length.
        """
        names = ("learned", "summed", "tokens", "updates")
        lengths = {name: len(saved[name]) for name in names if name in saved}
        if set(lengths) != set(names) or len(set(lengths.values())) != 1:
            raise ValueError(f"a saved state has lists of equal length for {', '.join(names)}; got {lengths}")
        return cls(tuple(LevelState(*parts) for parts in zip(*(saved[name] for name in names), strict=True)))


def new_stream(starts: Sequence[Tensor], batch_size: int) -> StreamState:
    """Return the state of `batch_size` streams that have not read anything.

    Args     starts: (P,) for each level. batch_size: B, at least 1.
    """
    rows = (zeros_like_row(row.expand(batch_size, -1)) for row in starts)
    return StreamState(tuple(LevelState(nothing, nothing) for nothing in rows))


def zeros_like_row(row: Tensor) -> Tensor:
    """Return zeros of the shape of `row` that take no memory (one number, seen everywhere)."""
    return torch.zeros((), dtype=row.dtype, device=row.device).expand(row.shape)
