"""The settings of a Continuum Memory System, checked and put into the order of the chain.

Source   Behrouz et al. 2025, Nested Learning, section 7.1; the order of the levels is left open there (Fig. 5 puts the
         fastest first, Eq. 72-73 count from the slowest).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nlcore.optimizers.checks import check_choice, check_count

VARIANTS = ("sequential", "nested", "independent")
ORDERS = ("fast_first", "slow_first", "as_given")


@dataclass(frozen=True)
class Settings:
    """One entry a level, in the order of the chain.

    Args     periods: tokens a chunk, `math.inf` for a frozen level. lrs, decays: as given by the user.
             contexts: updates after which the level returns to its start, None for never.
    """

    periods: tuple[float, ...]
    lrs: tuple[float, ...]
    decays: tuple[float, ...]
    contexts: tuple[int | None, ...]


def arrange(
    periods: Sequence[float],
    variant: str,
    order: str,
    lrs: float | Sequence[float],
    decays: float | Sequence[float],
    contexts: Sequence[int | None] | None,
) -> Settings:
    """Check the settings of all levels and put them into the order of the chain.

    Args     as in `ContinuumMemory`.
    Raises   ValueError or TypeError that says which level is wrong and what was expected.
    """
    check_choice("variant", variant, VARIANTS)
    check_choice("order", order, ORDERS)
    periods = [_check_period(period) for period in periods]
    if not periods:
        raise ValueError("periods needs at least one level, for example (1, 4, 16)")
    sizes = _for_each("lrs", lrs, len(periods))
    losses = _for_each("decays", decays, len(periods))
    if not all(math.isfinite(lr) and lr >= 0 for lr in sizes):
        raise ValueError(f"lrs are finite numbers >= 0, got {sizes}; try 0.01")
    if not all(0 <= decay < 1 for decay in losses):
        raise ValueError(f"decays lie in [0, 1): the part of what was learned that is lost at each token; got {losses}")
    if contexts is None:
        ends = nested_contexts(periods) if variant == "nested" else [None] * len(periods)
    else:
        ends = _updates_in(contexts, periods)
    levels = list(zip(periods, sizes, losses, ends, strict=True))
    if order != "as_given":
        levels.sort(key=lambda level: level[0], reverse=order == "slow_first")
    return Settings(*(tuple(column) for column in zip(*levels, strict=True)))


def nested_contexts(periods: Sequence[float]) -> list[int | None]:
    """Return after how many of its own updates each level returns to its start: ceil(C_slower / C).

    C_slower is the period of the next slower level; levels of equal period share it. The slowest level, and one whose
    next slower level is frozen, never returns.

    Args     periods: tokens a chunk of each level, in any order.
    Source   Section 7.1, below Eq. 72.
    """
    slower = [min((other for other in periods if other > period), default=math.inf) for period in periods]
    return [math.ceil(s / p) if math.isfinite(s) else None for s, p in zip(slower, periods, strict=True)]


def _updates_in(contexts: Sequence[int | None], periods: Sequence[float]) -> list[int | None]:
    if len(contexts) != len(periods):
        raise ValueError(f"contexts needs one entry a level, {len(periods)}; got {len(contexts)}")
    ends: list[int | None] = []
    for context, period in zip(contexts, periods, strict=True):
        if context is not None and (check_count("a context", context) % period or not math.isfinite(period)):
            raise ValueError(
                f"a context holds whole chunks: for period {period} expected a multiple of it in tokens, or None for "
                f"a level that never returns to its start; got {context}"
            )
        ends.append(None if context is None else int(context // period))
    return ends


def _check_period(period: float) -> float:
    return math.inf if period == math.inf else check_count("a period (in tokens; math.inf for frozen)", period)


def _for_each(name: str, value: float | Sequence[float], levels: int) -> list[float]:
    values = [value] * levels if isinstance(value, int | float) else list(value)
    if len(values) != levels:
        raise ValueError(f"{name} is one number for all levels or one for each of the {levels}; got {len(values)}")
    return [float(number) for number in values]
