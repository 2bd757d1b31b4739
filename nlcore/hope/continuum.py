r"""A Continuum Memory System inside a language model: a chain of MLPs that learn from the next token while they read.

    y = MLP_k(... MLP_2(MLP_1(x)))      each x + W2 gelu(W1 norm(x))        Eq. 70
    MLP_l is written after every C_l-th token with the gradient of the next-token loss, read out behind it     Eq. 71

`nlcore.cms.ContinuumMemory` learns from any loss by autograd; here the loss is the model's own, so the gradient is
derived by hand, each level learns from what it can see alone, and no graph is needed to learn. Every level can be held.

Source    Behrouz et al. 2025, Nested Learning, sections 7.1 and 8.3, Eq. 70-71 and 97.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nlcore.cms.settings import arrange
from nlcore.hope.level import FastWeights
from nlcore.hope.readout import Readout
from nlcore.hope.stretch import FastLevel, Lesson, Level, read_level
from nlcore.levels import Level as Named
from nlcore.optimizers.checks import check_choice, check_count
from nlcore.sequence import saving
from nlcore.sequence.checks import check_state_dtype
from nlcore.sequence.layers.norms import RMSNorm
from nlcore.sequence.states import precise

LR_START, KEEP_START = 1.0, 0.982
LEARNS = ("first_order", "second_order", "never")


@saving.keeps_stream
class ContinuumState(NamedTuple):
    """The chain in the middle of a stream.

    Args     levels: one state a level. waiting: (B, 1), 1 for a stream that has read a token, or None if all have.
             tokens: how many the batch has read, padding included: the clock of all levels.
    """

    levels: tuple[FastLevel, ...]
    waiting: Tensor | None = None
    tokens: int = 0


class Reading(NamedTuple):
    """What a model tells its blocks about the stretch they read.

    Args     tokens: (B, T), of which every one is the lesson of the token before it. readout: the end of the model.
             held: full names of the levels that are not to be written now.
    """

    tokens: Tensor
    readout: Readout
    held: Collection[str] = ()


class TokenContinuum(nn.Module):
    """The chain as the feed-forward part of a block.

    Args     dim: width of a token. periods: tokens between two updates, one a level, in the order of the chain; sorted,
             the fastest first, unless `order` is "as_given" or "slow_first". hidden: width inside each MLP. learns:
             "first_order" (updates are constants for the outer loop), "second_order" (its gradients flow through the
             inner gradients) or "never" (the MLPs are those of a Transformer). lr_start: where eta starts, a step as
             long as the bound on the bending allows being 1. keep_start: where the part that is left of what was
             learned starts, at each update; None loses nothing. dtype, device: of the weights.
    Raises   ValueError or TypeError for settings that do not fit.
    """

    backend: str | Callable | None

    def __init__(
        self,
        dim: int,
        periods: Sequence[int] = (16, 64, 256),
        hidden: int | None = None,
        *,
        order: str = "fast_first",
        learns: str = "first_order",
        lr_start: float = LR_START,
        keep_start: float | None = KEEP_START,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.dim, self.hidden = check_count("dim", dim), check_count("hidden", 2 * dim if hidden is None else hidden)
        check_choice("learns", learns, LEARNS)
        ordered = arrange(periods, "sequential", order, 0.0, 0.0, None).periods
        self.periods, self.learns = tuple(check_count("a period", period) for period in ordered), learns
        self.backend = None
        self.norms = nn.ModuleList(RMSNorm(dim, **made) for _ in self.periods)
        h = self.hidden
        self.W1 = nn.ParameterList(_matrix(h, dim, made) for _ in self.periods)
        self.W2 = nn.ParameterList(_matrix(dim, h, made) for _ in self.periods)
        self.log_lrs: nn.Parameter | None = None
        self.keep_logits: nn.Parameter | None = None
        if learns != "never":
            self.log_lrs = _numbers(math.log(_above_zero("lr_start", lr_start)), len(self.periods), made)
        if learns != "never" and keep_start is not None:
            if not 0 < keep_start < 1:
                raise ValueError(f"keep_start must lie between 0 and 1, or be None; got {keep_start}; try {KEEP_START}")
            self.keep_logits = _numbers(math.log(keep_start / (1 - keep_start)), len(self.periods), made)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the levels, in the order of the chain: cms 1, cms 2, ..."""
        return tuple(f"cms {index}" for index, _ in enumerate(self.periods, 1))

    def forward(
        self,
        x: Tensor,
        state: ContinuumState | None = None,
        lengths: Tensor | None = None,
        reading: Reading | None = None,
    ) -> tuple[Tensor, ContinuumState | None]:
        """Read a stretch of B streams; every level learns the pair of a token when the token after it is read.

        Args     x: (B, T, dim). state: from the call before; None begins new streams. lengths: (B,), real tokens of
                 each item; padding teaches nothing. reading: what there is to learn from; None only reads.
        Returns  y (B, T, dim) and the state; None for a chain that never learns.
        Raises   ValueError for a state of another chain.
        """
        dtype, wide = x.dtype, x.to(precise(x.dtype))
        levels = self.levels_now(wide.dtype)
        if self.learns == "never":
            if state is not None:
                raise ValueError("the state is of a model that learns while it reads, but this one never learns")
            for level in levels:
                wide, _ = read_level(level, wide, FastLevel(), None)
            return wide.to(dtype), None
        before = ContinuumState(tuple(FastLevel() for _ in self.periods)) if state is None else self.checked(state, x)
        lesson = None if reading is None else _lesson(reading, before, lengths, wide, self.learns == "second_order")
        after = []
        for name, level, now in zip(self.names, levels, before.levels, strict=True):
            held = reading is not None and name in reading.held
            last = _last(wide, now.last, lengths)
            last = last if self.learns == "second_order" else last.detach()
            wide, now = read_level(level, wide, now, None if held else lesson)
            after.append(now._replace(last=last))
        return wide.to(dtype), ContinuumState(tuple(after), _waiting(before, lengths, wide), before.tokens + x.shape[1])

    def levels_now(self, dtype: torch.dtype) -> list[Level]:
        """Return the parts of all levels, in the dtype they are computed in."""
        count = len(self.periods)
        none = self.W1[0].new_zeros(count, dtype=dtype)
        lrs = (none if self.log_lrs is None else self.log_lrs.to(dtype)).unbind()
        keeps: Any = [1.0] * count if self.keep_logits is None else self.keep_logits.to(dtype).sigmoid().unbind()
        parts = zip(self.W1, self.W2, self.norms, lrs, keeps, self.periods, strict=True)
        return [
            Level(FastWeights(W1.to(dtype), W2.to(dtype)), norm.scale.to(dtype), norm.eps, lr, keep, C, self.backend)
            for W1, W2, norm, lr, keep, C in parts
        ]

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Compile what is done with the tokens between two updates, once for all of them.

        Args     backend: of torch.compile; "inductor" needs a C++ compiler on a CPU.
        """
        self.backend = backend

    def levels(self) -> list[Named]:
        """Return the MLPs, which the stream writes at their periods, or never."""
        size, learns = 2 * self.dim * self.hidden, self.learns != "never"
        what = "what tokens come next, seen from here" if learns else "as trained"
        pairs = zip(self.names, self.periods, strict=True)
        return [Named(name, period if learns else math.inf, what, numbers=size) for name, period in pairs]

    def extra_repr(self) -> str:
        """Return the sizes, for `print`."""
        return f"{self.dim}, hidden={self.hidden}, periods={self.periods}, learns={self.learns!r}"

    def checked(self, state: ContinuumState, x: Tensor | None = None) -> ContinuumState:
        """Return the state.

        Args     x: (B, T, dim), what is read with it; None does not look at the number of streams.
        Raises   ValueError if it is that of another chain, or of other streams; TypeError for another dtype.
        """
        count = len(state.levels) if isinstance(state, ContinuumState) else type(state).__name__
        if count != len(self.periods):
            raise ValueError(f"the state is of another chain: expected {len(self.periods)} levels, got {count}")
        inside = (self.hidden, self.dim)
        for level in state.levels:
            if level.learned is not None and level.learned.W1.shape[1:] != inside:
                found = tuple(level.learned.W1.shape[1:])
                raise ValueError(f"the state is of another chain: expected (hidden, dim) = {inside}, got {found}")
            if x is not None and level.last is not None and level.last.shape != (len(x), self.dim):
                found = tuple(level.last.shape)
                raise ValueError(f"the state is of another stream: expected {(len(x), self.dim)}, got {found}")
            if x is not None and level.last is not None:
                check_state_dtype(level.last, precise(x.dtype))
        return state


def _lesson(reading: Reading, before: ContinuumState, lengths: Tensor | None, x: Tensor, second_order: bool) -> Lesson:
    """Return what there is to learn in a stretch: which pairs are complete."""
    first, live = before.waiting, None
    if lengths is not None:
        lengths = lengths.to(x.device)[:, None]
        begun = (lengths > 0).to(x.dtype)
        first = begun if first is None else first.to(x.dtype) * begun
        places = torch.arange(1, x.shape[1], device=x.device)
        live = (places < lengths).to(x.dtype).unsqueeze(-1)
    first = None if first is None else first.to(x.dtype).unsqueeze(-1)
    return Lesson(reading.tokens, reading.readout, before.tokens, first, live, second_order)


def _last(x: Tensor, before: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Return the last real token (B, d), or the one before if there is none."""
    if lengths is None:
        return x[:, -1]
    before = torch.zeros_like(x[:, 0]) if before is None else before
    place = lengths.to(x.device)[:, None, None]
    return torch.cat([before.unsqueeze(1), x], 1).gather(1, place.expand(-1, 1, x.shape[-1])).squeeze(1)


def _waiting(before: ContinuumState, lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Return which streams have read a token, (B, 1); None if all have."""
    if lengths is None or (before.tokens and before.waiting is None):
        return None
    begun = (lengths.to(x.device)[:, None] > 0).to(x.dtype)
    return begun if before.waiting is None else torch.maximum(before.waiting, begun)


def _matrix(rows: int, columns: int, made: dict[str, Any]) -> nn.Parameter:
    """Return new weights that begin as those of `nn.Linear`."""
    return nn.Parameter(torch.empty(rows, columns, **made).uniform_(-(columns**-0.5), columns**-0.5))


def _numbers(value: float, count: int, made: dict[str, Any]) -> nn.Parameter:
    return nn.Parameter(torch.full((count,), value, **made))


def _above_zero(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value}; try 1.0")
    return value
