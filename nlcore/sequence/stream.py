"""Tokens on their way into a memory: checked, in the dtype memories are computed in, their gates complete."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nlcore.sequence.checks import Gate, check_chunk, check_gate, check_lengths, check_state, check_tokens, live_tokens
from nlcore.sequence.gates import Gates
from nlcore.sequence.states import MemoryState, precise


class Stream(NamedTuple):
    """Tokens that were checked and brought to the dtype memories are computed in.

    Args     tokens: q, k, v. gates, state: as given, complete. live: (B, 1, T) or None. dtype: of the answer.
    """

    tokens: tuple[Tensor, Tensor, Tensor]
    gates: Gates
    state: MemoryState
    live: Tensor | None
    dtype: torch.dtype

    def bounded(self, bound: float, period: int) -> Stream:
        """Return the stream with every lr at most bound (1 - beta) / (period |k|^2).

        A write goes on through the momentum, 1 / (1 - beta) times its size in the end, and all writes of a period may
        have one key: so bounded, their sum is at most `bound`. The bound of a token asks nothing of other tokens.
        """
        least = torch.finfo(self.tokens[1].dtype).eps  # not the tiniest number: 1 over its square is a gradient
        length = self.tokens[1].square().sum(-1).clamp_min(least)
        slowing = 1.0 if self.gates.momentum is None else 1.0 - self.gates.momentum
        lr = torch.minimum(self.gates.lr, bound * slowing / (period * length))
        return self._replace(gates=self.gates._replace(lr=lr))

    def finish(self, y: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """Return the answers, 0 for padding, in the dtype of the input, and the state."""
        y = y if self.live is None else torch.where(self.live.unsqueeze(-1) > 0, y, 0.0)
        return y.to(self.dtype), state


def begin(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: dict[str, Gate],
    state: MemoryState | None,
    chunk_size: int | None,
    lengths: Tensor | None,
) -> Stream:
    """Check what a memory of tokens was given and return it complete.

    Args     q, k: (B, H, T, d_k). v: (B, H, T, d_v). gates: lr, retain and perhaps momentum, by name, each a number or
             (B, H, T). state: of the call before, or None. chunk_size, lengths: as for the memories.
    Raises   ValueError or TypeError that says what was expected.
    """
    check_tokens(q, k, v)
    for name, gate in gates.items():
        check_gate(name, gate, k)
    check_chunk("chunk_size", chunk_size)
    check_lengths(lengths, k)
    shape = (*k.shape[:2], v.shape[-1], k.shape[-1])
    check_state(state, shape)
    dtype = precise(q.dtype)
    tokens = q.to(dtype), k.to(dtype), v.to(dtype)
    live = live_tokens(lengths, tokens[1])
    if live is not None:  # whatever stands in the padding, even NaN, must not be read
        q, k, v = (torch.where(live.unsqueeze(-1) > 0, x, 0.0) for x in tokens)
        tokens = q, k, v
    if state is None:
        state = MemoryState(tokens[0].new_zeros(shape))
    if "momentum" in gates and state.Z is None:
        state = state._replace(Z=torch.zeros_like(state.M))
    return Stream(tokens, _all_gates(gates, live, tokens[0]), state, live, q.dtype)


def _all_gates(gates: dict[str, Gate], live: Tensor | None, like: Tensor) -> Gates:
    """Return gates as tensors; padding writes nothing (lr 0) and fades nothing (retain 1, momentum 1)."""
    found = {name: torch.as_tensor(gate, dtype=like.dtype, device=like.device) for name, gate in gates.items()}
    found = {name: gate if gate.ndim else gate[None] for name, gate in found.items()}
    if live is not None:
        found["lr"] = found["lr"] * live
        for name in found.keys() - {"lr"}:
            found[name] = torch.where(live > 0, found[name], 1.0)
        return Gates(**found, live=live)
    nothing_fades = not isinstance(gates["retain"], Tensor) and gates["retain"] == 1.0
    return Gates(**{**found, "retain": None} if nothing_fades else found)
