"""HOPE beside our Transformer of equal width, forward and backward: python tests/benchmarks/bench_hope.py

Preset tiny, one thread, process CPU time; all take turns in each round, and a figure is the median over the rounds of
the ratio within a round. Exit status 1 if a bar is missed: a third of the Transformer's tokens in a second without
updates of the CMS in context, a quarter with them (first order).

With `--peer-path DIR` (see `sequence_peers`) ours is raced against the published HOPE models that are there, at equal
width, eager and after `compile()`, whose seconds do not count. The better one is held against the bar, 10x as fast.
  one block         of nested-learning: forward, backward, its updates; same width, chunk and periods. Ours has its
                    embedding and head besides
  whole model       two blocks, optimizer included: of nested-learning as its own training loop runs them with its
                    setting for self-modifying blocks (chunks of 8 and 64, an update after each piece of tokens)
  nothing learns    the same of aryateja2106, whose CMS and projections are never written, beside ours held alike
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sequence_peers import (
    HOPES,
    aryateja_step,
    find,
    hope_block,
    nested_learning_step,
    training_step,
)
from sequence_race import Size, Work, keep_memory, race, step
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.hope import HopeConfig, HopeLM, TransformerLM

VOCABULARY = 96
PUBLISHED = 10  # times as fast as a published HOPE
BARS = {"HOPE, levels never learn": 1 / 3, "HOPE, first order": 1 / 4}


def models() -> dict[str, nn.Module]:
    """Return the models, the Transformer first."""
    preset = HopeConfig.tiny(VOCABULARY)
    return {
        "Transformer": TransformerLM(preset),
        "Transformer with convolution": TransformerLM(preset, conv_width=preset.conv_width),
        "HOPE, levels never learn": HopeLM(preset.with_(learns="never")),
        "HOPE, first order": HopeLM(preset),
        "HOPE, second order": HopeLM(preset.with_(learns="second_order")),
        "Hope-Attention, first order": HopeLM(preset.with_(mixer="attention")),
    }


def seconds(model: nn.Module, text: Tensor) -> float:
    """Return the CPU time of one step of training but for the optimizer."""
    begin = time.process_time()
    loss = cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())
    loss.backward()
    model.zero_grad()
    return time.process_time() - begin


def our_block(size: Size, compiled: bool) -> Work:
    """Return forward and backward of a model with one block of the preset tiny."""
    model = HopeLM(HopeConfig.tiny(VOCABULARY, blocks=1, ffn=3.0)).to(size.device)
    if compiled:
        model.compile()
    text = torch.randint(VOCABULARY, (size.batch, size.tokens + 1), device=size.device)

    def forward() -> Tensor:
        return cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())

    return Work(forward, list(model.parameters()))


def our_step(size: Size, compiled: bool, learns: str = "first_order") -> Work:
    """Return a whole step of training of the preset tiny, with levels as wide as the tokens."""
    model = HopeLM(HopeConfig.tiny(VOCABULARY, ffn=3.0, learns=learns)).to(size.device)
    if compiled:
        model.compile()
    return training_step(model, lambda tokens: model(tokens)[0], VOCABULARY, size)


def contests(modules: dict[str, Any]) -> dict[str, tuple[Callable[[Size], Work], Callable[..., Work]]]:
    """Return what is raced, each with its counterpart of ours."""
    config = HopeConfig.tiny(VOCABULARY)
    sizes: dict[str, Any] = {"vocabulary": VOCABULARY, "blocks": config.blocks, "periods": config.periods}
    found: dict[str, Any] = {}
    if "nested-learning" in modules:
        found["one block, nested-learning"] = partial(hope_block, chunk=config.chunk, periods=config.periods), our_block
        found["whole model, nested-learning"] = partial(nested_learning_step, **sizes), our_step
    if "aryateja2106" in modules:
        held = partial(our_step, learns="never")
        found["nothing learns, aryateja2106"] = partial(aryateja_step, heads=config.heads, **sizes), held
    return found


def beside_published(batch: int, rounds: int, folders: list[Path]) -> int:
    """Race ours against the published ones that are here; return how many bars were missed."""
    modules, _, missing = find(HOPES, folders)
    print("", *missing, sep="\n")
    if not modules:
        return 0
    keep_memory()
    dim, missed = HopeConfig.tiny(VOCABULARY).dim, 0
    print("beside published HOPE models, CPU ms a step")
    for name, (theirs, ours) in contests(modules).items():
        for T in (256, 1024):
            size = Size(batch, 1, dim, T)
            works = {"published": theirs(size), "ours": ours(size, False), "ours compiled": ours(size, True)}
            for _ in range(2):
                step(works["ours compiled"])  # compiles
            times = {who: found.cpu for who, found in race(works, rounds, 60.0, "cpu").items()}
            best = times["published"] / min(times.values())
            missed += best < PUBLISHED
            line = (f"{who} {1e3 * cpu:.0f} ({times['published'] / cpu:.1f}x)" for who, cpu in times.items())
            print(f"  {name:29} T={T:5}", *line, f" bar {PUBLISHED}x: {'kept' if best >= PUBLISHED else 'MISSED'}")
    return missed


def main() -> int:
    """Measure and print; see above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peer-path", type=Path, action="append", default=[], metavar="DIR", help="where peers are")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    contest, missed = models(), 0
    for T in (256, 1024):
        text = torch.randint(VOCABULARY, (chosen.batch, T + 1))
        rounds = [{name: seconds(model, text) for name, model in contest.items()} for _ in range(chosen.rounds + 1)][1:]
        print(f"\n{chosen.batch} texts of {T} tokens")
        for name in contest:
            ratio = statistics.median(each["Transformer"] / each[name] for each in rounds)
            speed = chosen.batch * T / statistics.median(each[name] for each in rounds)
            bar = BARS.get(name, 0.0)
            missed += ratio < bar
            verdict = "" if not bar else f"  bar {bar:.2f}: {'kept' if ratio >= bar else 'MISSED'}"
            print(f"  {name:30} {speed:9,.0f} tokens/s  {ratio:5.2f} of the Transformer{verdict}")
    missed += beside_published(chosen.batch, 5, chosen.peer_path)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
