"""What a stream has rewritten so far, so that it can stop, be saved, and go on.

Symbols   B streams, H heads, R rows of all boxes, d the width of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nlcore.sequence import saving
from nlcore.sequence.self_modifying.rules import Boxes, Rules


@saving.keeps_stream
class SelfModifyingState(NamedTuple):
    """All boxes in the middle of a stream; a plain tuple, which `torch.save` and a safe `torch.load` accept.

    Args     S: (B, H, R, d), the boxes now. anchor: (B, H, R, d), each box at the start of its open chunk, from which
             it generates; a chunk that is full is opened by the next token. Z: (B, H, R, d), the momentum, or None.
             tokens: how many the stream has read, padding included.
    """

    S: Tensor
    anchor: Tensor
    Z: Tensor | None = None
    tokens: int = 0

    def detach(self) -> SelfModifyingState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return saving.detach(self)

    def to(self, *args: Any, **settings: Any) -> SelfModifyingState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return saving.move(self, *args, **settings)


def new_state(boxes: Boxes, rules: Rules, batch_size: int) -> SelfModifyingState:
    """Return the state of `batch_size` streams that have not read anything."""
    S = boxes.start.expand(batch_size, -1, -1, -1)
    return SelfModifyingState(S, S, torch.zeros_like(S) if rules.momentum else None)


def cut_history(S: Tensor, Z: Tensor | None, start: Tensor, rules: Rules) -> tuple[Tensor, Tensor | None]:
    """Let gradients stop at the writes so far if `rules.detach` says so; the learned start still gets its own."""
    if not rules.detach:
        return S, Z
    return start + (S - start).detach(), None if Z is None else Z.detach()
