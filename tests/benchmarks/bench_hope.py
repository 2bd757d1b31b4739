"""HOPE beside our Transformer of equal width, forward and backward: python tests/benchmarks/bench_hope.py

Preset tiny, one thread, process CPU time; all take turns in each round, and a figure is the median over the rounds of
the ratio within a round. Exit status 1 if a bar is missed: a third of the Transformer's tokens in a second without
updates of the CMS in context, a quarter with them (first order).

With `--peer-path DIR` (see `sequence_peers`) one block of ours, with its embedding and head, is raced against the HOPE
block of `nested-learning`: a step forward and backward and its updates, same width, chunk, periods and width of the
CMS. Bar: 10 times as fast; the second line is after `mixer.compile()`, whose seconds of compiling do not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from sequence_peers import PEERS, find, hope_block
from sequence_race import Size, Work, keep_memory, race
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
    """Return a step of a model with one block of the preset tiny."""
    model = HopeLM(HopeConfig.tiny(VOCABULARY, blocks=1, ffn=3.0)).to(size.device)
    if compiled:
        model.blocks[0].mixer.compile()
    text = torch.randint(VOCABULARY, (size.batch, size.tokens + 1), device=size.device)

    def forward() -> Tensor:
        return cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())

    return Work(forward, list(model.parameters()))


def beside_published(batch: int, rounds: int, folders: list[Path]) -> int:
    """Race one block against the published one, if it is here; return how many bars were missed."""
    modules, _, missing = find([peer for peer in PEERS if peer.name == "nested-learning"], folders)
    if not modules:
        print("", *missing, sep="\n")
        return 0
    keep_memory()
    config, missed = HopeConfig.tiny(VOCABULARY), 0
    print("\none block beside the HOPE block of nested-learning, CPU ms a step")
    for T in (256, 1024):
        size = Size(batch, 1, config.dim, T)
        works = {"published": hope_block(size, config.chunk, config.periods)}
        works |= {words: our_block(size, words != "ours") for words in ("ours", "ours, mixer compiled")}
        times = {name: found.cpu for name, found in race(works, rounds, 60.0, "cpu").items()}
        best = times["published"] / min(times.values())
        missed += best < PUBLISHED
        print(
            f"  T={T:5}", *(f"{name} {1e3 * cpu:.0f} ({times['published'] / cpu:.1f}x)" for name, cpu in times.items())
        )
        print(f"  bar {PUBLISHED}x: {'kept' if best >= PUBLISHED else 'MISSED'}")
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
    missed += beside_published(chosen.batch, 3, chosen.peer_path)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
