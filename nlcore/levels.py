"""Levels: how often each part of a system is updated, and which part is faster than which.

The unit of time is one update step over one data point. A part with period p is updated every p steps; its frequency
is 1/p. Period `math.inf` is a frozen part (frequency 0), period 0 a part that is computed anew for every token, such
as attention (frequency infinite). The paper numbers levels in two opposite ways; here they are always listed from the
fastest to the slowest and never referred to by number alone.

Source   Behrouz et al. 2025, Nested Learning, section 3.2, Def. 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """One part of a nested system: what it is called, how often it is updated, what it stores.

    Args     name: unique within the system. period: steps between two updates, >= 0; `math.inf` for a frozen part,
             0 for a part computed anew for each token. stores: plain words. needs: names of the parts whose state at
             the same step is needed to compute this part's state. numbers: how many numbers it holds, 0 if unknown.
    Raises   ValueError for an empty name or a period that is negative or NaN.
    """

    name: str
    period: float
    stores: str = ""
    needs: tuple[str, ...] = ()
    numbers: int = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a level needs a name")
        if not self.period >= 0:
            raise ValueError(f"level {self.name!r}: period must be >= 0 steps (math.inf if frozen), got {self.period}")

    @property
    def frequency(self) -> float:
        """Updates per step: 1 / period."""
        return math.inf if self.period == 0 else 1.0 / self.period

    @property
    def rhythm(self) -> str:
        """The period in words."""
        special = {0: "at every token, anew", 1: "every step", math.inf: "never (frozen)"}
        return special.get(self.period, f"every {self.period:g} steps")


def order_levels(levels: Iterable[Level]) -> list[list[Level]]:
    """Sort the parts of a system into levels, the fastest level first.

    A is faster than B if (1) f_A > f_B, or (2) f_A = f_B and B's state at a step needs A's state at that step.
    Parts that neither rule separates share a level; rule (2) is applied along chains of needs.

    Args     levels: parts with unique names; every name in `needs` is one of them.
    Returns  a list of levels, each a list of parts in the order given.
    Raises   ValueError for a repeated name, an unknown need, or parts that need each other at the same step.
    Source   Def. 2.
    """
    parts = list(levels)
    by_name = {part.name: part for part in parts}
    if len(by_name) < len(parts):
        raise ValueError(f"every part needs its own name, got {[part.name for part in parts]}")
    rank = {part.name: _depth(part, by_name, ()) for part in parts}
    keys = sorted({(-part.frequency, rank[part.name]) for part in parts})
    return [[part for part in parts if (-part.frequency, rank[part.name]) == key] for key in keys]


def _depth(part: Level, by_name: Mapping[str, Level], path: tuple[str, ...]) -> int:
    """Return how many parts of the same frequency must be computed before this one."""
    if part.name in path:
        raise ValueError(f"these parts need each other at the same step: {' -> '.join((*path, part.name))}")
    unknown = [name for name in part.needs if name not in by_name]
    if unknown:
        raise ValueError(f"{part.name!r} needs {unknown}, which is none of {sorted(by_name)}")
    before = [by_name[name] for name in part.needs if by_name[name].frequency == part.frequency]
    return max((1 + _depth(other, by_name, (*path, part.name)) for other in before), default=0)


def describe(levels: Iterable[Level]) -> str:
    """Return the nest in words, one line a part, grouped by level from the fastest to the slowest."""
    ordered = order_levels(levels)
    parts = [part for level in ordered for part in level]
    width = max(len(part.name) for part in parts)
    rhythm = max(len(part.rhythm) for part in parts)
    lines = [f"{len(ordered)} level{'s' if len(ordered) > 1 else ''}, the fastest first"]
    for index, level in enumerate(ordered, start=1):
        for part in level:
            count = f" [{part.numbers:,} numbers]" if part.numbers else ""
            lines.append(f"  {index}. {part.name:{width}}  {part.rhythm:{rhythm}}  {part.stores}{count}")
    return "\n".join(lines)


class UpdateTrace:
    """Watch the parts of a system: when did each move, how far, and how far is it from where it started?

    Args     parts: name -> the tensors of that part (they are watched, not copied into).
    Raises   ValueError if there is nothing to watch.
    Example  trace = UpdateTrace({"slow": [w0], "fast": [w1]}); after each step call trace.record().
    """

    def __init__(self, parts: Mapping[str, Sequence[Tensor]]) -> None:
        if not parts or any(len(tensors) == 0 for tensors in parts.values()):
            raise ValueError("UpdateTrace needs at least one part, and at least one tensor for each part")
        self.names = list(parts)
        self._tensors = {name: list(tensors) for name, tensors in parts.items()}
        self._start = {name: _flat(tensors) for name, tensors in self._tensors.items()}
        self._last = dict(self._start)
        self._moved_by: list[list[float]] = []
        self._from_start: list[list[float]] = []

    def record(self) -> None:
        """Note the state after one more step."""
        now = {name: _flat(tensors) for name, tensors in self._tensors.items()}
        self._moved_by.append([_distance(now[name], self._last[name]) for name in self.names])
        self._from_start.append([_distance(now[name], self._start[name]) for name in self.names])
        self._last = now

    @property
    def moved_by(self) -> Tensor:
        """Euclidean length of each part's move at each step, shape (steps, parts)."""
        return torch.tensor(self._moved_by, dtype=torch.float64).reshape(-1, len(self.names))

    @property
    def from_start(self) -> Tensor:
        """Euclidean distance of each part from its start after each step, shape (steps, parts)."""
        return torch.tensor(self._from_start, dtype=torch.float64).reshape(-1, len(self.names))

    @property
    def moved(self) -> Tensor:
        """Whether each part moved at each step, booleans of shape (steps, parts)."""
        return self.moved_by > 0

    def updates(self) -> dict[str, int]:
        """Return how many steps moved each part."""
        return dict(zip(self.names, self.moved.sum(0).tolist(), strict=True))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _distance(now: Tensor, before: Tensor) -> float:
    return float(torch.linalg.vector_norm(now - before))
