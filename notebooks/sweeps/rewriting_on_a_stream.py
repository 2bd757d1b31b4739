"""Does it help on a stream whose rule switches that the boxes are rewritten? Self-modification beside the delta rule.

Writes nlcore/data/sweeps/rewriting_on_a_stream.json:

    OMP_NUM_THREADS=1 python notebooks/sweeps/rewriting_on_a_stream.py

Takes about 2 CPU minutes. All models have the same size, steps and learning rate. They are trained on streams A | B of
96 tokens and tested on A | B | A. A self-modifying model is tested again with only its memory rewritten, and with
nothing rewritten, without training it anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from nlcore.sequence.fitting import fit_tokens, nats_by_position
from nlcore.sequence.layers.memories import DeltaRule
from nlcore.sequence.model import TokenModel
from nlcore.sequence.self_modifying import SelfModifyingTitans
from nlcore.sweeps import save_sweep
from nlcore.tasks.switching import best_loss, by_segment, switching
from nlcore.tasks.tokens import TokenBatch

NAME, SEEDS = "rewriting_on_a_stream", 3
SYMBOLS, DIM, HEADS, LENGTH, BATCH, STEPS, RATE = 8, 32, 2, 96, 16, 200, 1e-2
ABA = (("A", 48), ("B", 48), ("A", 48))
OWN = "self-modifying, C = 16"
MODELS: dict[str, Callable[[], nn.Module]] = {
    "delta rule": partial(DeltaRule, DIM, HEADS),
    "delta rule with decay": partial(DeltaRule, DIM, HEADS, retain="learned"),
    OWN: partial(SelfModifyingTitans, DIM, HEADS, memory_chunk=16),
}


def draw(generator: torch.Generator) -> TokenBatch:
    """Return streams A | B; the switch is in the middle half."""
    switch = int(torch.randint(LENGTH // 4, LENGTH - LENGTH // 4 + 1, (), generator=generator))
    return switching(BATCH, generator, segments=(("A", switch), ("B", LENGTH - switch)), symbols=SYMBOLS)


def measure(name: str, seed: int) -> dict[str, Any]:
    """Train one model; return the nats at the start and the end of each segment, for each way of testing it."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = TokenModel(SYMBOLS, DIM, [MODELS[name]()])
    fit_tokens(model, draw, steps=STEPS, lr=RATE, seed=seed)
    test = switching(256, torch.Generator().manual_seed(3000), segments=ABA, symbols=SYMBOLS)
    layer: Any = model.blocks[0].mixer
    found, ways = {}, {"as trained": None}
    if name == OWN:
        ways |= {"only the memory rewritten": ("memory",), "nothing rewritten": ()}
        learned = layer.rules
    for words, boxes in ways.items():
        if boxes is not None:
            layer.rules = replace(learned, rewrite=boxes)
        segments = by_segment(nats_by_position(model, test), ABA, 8, 16)
        found[words] = [[round(number, 3) for number in segment] for segment in segments]
    return found


def main() -> None:
    """Train all and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    results: dict[str, dict[str, Any]] = {name: {} for name in MODELS}
    with ProcessPoolExecutor(parser.parse_args().workers) as pool:
        waiting = {pool.submit(measure, name, seed): (name, seed) for seed in range(SEEDS) for name in MODELS}
        for done in as_completed(waiting):
            name, seed = waiting[done]
            results[name][str(seed)] = done.result()
            print(name, seed, done.result(), flush=True)
    record = {
        "command": f"python notebooks/sweeps/{NAME}.py",
        "torch": torch.__version__.split("+")[0],
        "seeds": list(range(SEEDS)),
        "model": {"dim": DIM, "heads": HEADS, "steps": STEPS, "rate": RATE, "symbols": SYMBOLS},
        "segments": [list(segment) for segment in ABA],
        "best": round(best_loss(SYMBOLS), 3),
        "results": {name: dict(sorted(rows.items())) for name, rows in results.items()},
    }
    save_sweep(NAME, record)


if __name__ == "__main__":
    main()
