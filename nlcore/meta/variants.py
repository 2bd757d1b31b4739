"""The contest of meta-learned memories: the same chain of three blocks, and every way to let it learn in a stream.

Nested levels differ from flat ones in two things that are easily mixed up: how often a block is written (its period)
and when it is put back to its start (its reset). So both are here alone, both together, and neither. The flat memories
have what nested ones do without: decay, and rates for each parameter.

All variants have the same blocks, the same starts and the same computation for each input, forwards and backwards; they
differ in what is written. Each has the same search for its first inner rate and its outer rate, in worlds of its own.
"""

from __future__ import annotations

import math
from typing import Any

from nlcore.meta.chain import Chain
from nlcore.meta.learning import examine, meta_learn, search

NESTED, RESETS = (1, 8, 32), (8, 32, 0)
BEST_FLAT, NESTED_CMS, CONTROL = "flat, rate + decay a parameter", "nested CMS 1-8-32", "periods 1, resets 8 and 32"

VARIANTS: dict[str, Chain] = {
    "flat, one rate": Chain(rates="one"),
    "flat, rate a block": Chain(),
    "flat, rate + decay a block": Chain(decay="block"),
    BEST_FLAT: Chain(rates="parameter", decay="parameter"),
    "CMS 1-8-32": Chain(NESTED),
    "CMS 1-8-32, decay a block": Chain(NESTED, decay="block"),
    NESTED_CMS: Chain(NESTED, RESETS),
    CONTROL: Chain((1, 1, 1), RESETS),
    "nested CMS, slow block first": Chain(NESTED[::-1], RESETS[::-1]),
    "nested CMS, rate + decay a parameter": Chain(NESTED, RESETS, rates="parameter", decay="parameter"),
    "independent nested CMS": Chain(NESTED, RESETS, independent=True),
    "independent flat, rate + decay a parameter": Chain(rates="parameter", decay="parameter", independent=True),
    "all reset every 8": Chain(resets=(8, 8, 8)),
    "all reset every 32": Chain(resets=(32, 32, 32)),
    "flat, all periods 2, decay a block": Chain((2, 2, 2), decay="block"),
    "flat, all periods 3, decay a block": Chain((3, 3, 3), decay="block"),
    "only the first block, decay": Chain((1, math.inf, math.inf), decay="block"),
    "only the last block, decay": Chain((math.inf, math.inf, 1), decay="block"),
}

# What is measured on every kind of stream: periods and resets alone, together and not at all, and the best flat chain.
IMPORTANT = (
    "flat, rate a block",
    BEST_FLAT,
    "CMS 1-8-32",
    "CMS 1-8-32, decay a block",
    NESTED_CMS,
    CONTROL,
)

KINDS: dict[str, dict[str, Any]] = {
    "aligned": {"boundaries": "aligned"},
    "random phase": {"boundaries": "phase"},
    "random boundaries": {"boundaries": "random"},
    "noise 1.0": {"boundaries": "aligned", "noise": 1.0},
}

MAP: dict[str, tuple[str, ...]] = {
    "aligned": tuple(VARIANTS),
    "random phase": IMPORTANT,
    "random boundaries": (
        *IMPORTANT,
        "nested CMS, rate + decay a parameter",
        "independent nested CMS",
        "independent flat, rate + decay a parameter",
    ),
    "noise 1.0": IMPORTANT,
}

TUNING, WORLDS = (1000, 1001), tuple(range(12))
RATES, OUTER_RATES = (0.015, 0.03), (0.02, 0.04, 0.08)
SEARCHED, TRAINED = 30, 120  # outer iterations of four streams a world


def tune(name: str, kind: str) -> dict[str, Any]:
    """Return the first inner rate and the outer rate that are best for a variant on a kind of stream.

    Args     name: a key of VARIANTS. kind: a key of KINDS.
    """
    return search(VARIANTS[name], TUNING, RATES, OUTER_RATES, SEARCHED, **KINDS[kind])


def run_variant(
    name: str,
    kind: str,
    rate: float,
    outer_rate: float,
    worlds: tuple[int, ...] = WORLDS,
    iterations: int = TRAINED,
    number: int = 64,
) -> dict[str, Any]:
    """Meta-learn a variant in each world and measure it on fresh streams.

    Args     name: a key of VARIANTS. kind: a key of KINDS. rate, outer_rate: from `tune`. worlds: seeds. iterations:
             outer steps. number: of test streams a world.
    Returns  what `examine` returns.
    """
    chain, count = VARIANTS[name], len(worlds)
    start = meta_learn(chain, worlds, [rate] * count, [outer_rate] * count, iterations, **KINDS[kind])
    return examine(chain, start, worlds, number=number, **KINDS[kind])
