"""Levels: how often each part of a system is updated, and which part is faster than which.

The unit of time is one update step over one data point. A part with period p is updated every p steps; its frequency
is 1/p. Period `math.inf` is a frozen part (frequency 0), period 0 a part that is computed anew for every token, such
as attention (frequency infinite). The paper numbers levels in two opposite ways; here they are always listed from the
fastest to the slowest and never referred to by number alone.

Source   Behrouz et al. 2025, Nested Learning, section 3.2, Def. 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nlcore.trace import UpdateTrace, parts_of

__all__ = ["Level", "Slower", "UpdateTrace", "describe", "nest", "order_levels", "parts_of"]


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
        often = f"every {self.period:g} steps" if self.period > 1 else f"{self.frequency:g} times a step"
        return special.get(self.period, often)


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


@dataclass(frozen=True)
class Slower:
    """A system with a slower clock: one of its own steps takes `by` steps of the clock that the nest counts in.

    An optimizer that moves the weights once in a text of 512 tokens is `Slower(optimizer, by=512)` in a nest that
    counts tokens. Frozen parts stay frozen, and parts computed anew for each token stay so.

    Args     system: what `nest` takes. by: > 0 and finite.
    Raises   ValueError for another `by`.
    Source   Def. 2: frequencies can be compared only in one unit of time.
    """

    system: Any
    by: float

    def __post_init__(self) -> None:
        if not 0 < self.by < math.inf:
            raise ValueError(f"Slower expects by > 0, in steps of the common clock, got {self.by}")


def nest(*systems: Any, **named: Any) -> list[Level]:
    """Return the parts of several systems as one: an optimizer, the model it trains, and whatever is slower or faster.

    Args     systems: each a Level, a list of them, anything with `levels()` (our optimizers and sequence models), an
             optimizer of `torch.optim` (the weights it moves are one part), or a module: its weights that no optimizer
             here moves are one part, and frozen. Systems with another clock are given as `Slower(system, by)`.
             named: the same; the names of their parts then begin with this name, "fast: weights W".
    Returns  all parts, the fastest first, for `describe` and `order_levels`.
    Raises   TypeError for anything else; ValueError if no part is left, or as in `order_levels`.
    Source   Def. 2 and 3; architecture and optimizer together are one nested system (Eq. 22-23).
    Example  print(describe(nest(model, Adam(model.head.parameters()), Level("average of the weights", 100))))
    """
    moved = {id(W) for system in (*systems, *named.values()) for W in _moved_weights(system)}
    parts = [part for system in systems for part in _parts(system, moved)]
    for name, system in named.items():
        own = _parts(system, moved)
        names = {part.name: f"{name}: {part.name}" for part in own}
        parts += [replace(p, name=names[p.name], needs=tuple(names.get(need, need) for need in p.needs)) for p in own]
    if not parts:
        raise ValueError("a nest needs at least one part: an optimizer, a module with weights, a Level")
    return [part for level in order_levels(parts) for part in level]


def _parts(system: Any, moved: set[int]) -> list[Level]:
    """Return the levels of one system, in the order given."""
    if isinstance(system, Level):
        return [system]
    if isinstance(system, Slower):
        return [replace(part, period=part.period * system.by) for part in _parts(system.system, moved)]
    if callable(getattr(system, "levels", None)):
        return list(system.levels())
    if isinstance(system, torch.optim.Optimizer):
        n = sum(W.numel() for W in _moved_weights(system))
        return [Level("weights", 1, f"what {type(system).__name__} writes into them", numbers=n)]
    if isinstance(system, nn.Module):
        n = sum(W.numel() for W in system.parameters() if id(W) not in moved)
        return [Level(f"weights of {type(system).__name__}", math.inf, "given", numbers=n)] if n else []
    if isinstance(system, Iterable) and not isinstance(system, str | Tensor):
        return [part for each in system for part in _parts(each, moved)]
    raise TypeError(f"a nest is made of levels, modules, optimizers and things with levels(), got {system!r}")


def _moved_weights(system: Any) -> list[Tensor]:
    """Return the tensors that the optimizers in this system move."""
    if isinstance(system, Slower):
        return _moved_weights(system.system)
    if isinstance(system, torch.optim.Optimizer):
        return [W for group in system.param_groups for W in group["params"]]
    return [W for each in system for W in _moved_weights(each)] if isinstance(system, list | tuple) else []
