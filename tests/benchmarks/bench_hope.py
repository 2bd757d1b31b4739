"""HOPE beside our Transformer of equal width, forward and backward: python tests/benchmarks/bench_hope.py

Preset tiny, one thread, process CPU time; all take turns in each round, and a figure is the median over the rounds of
the ratio within a round. Exit status 1 if a bar is missed: a third of the Transformer's tokens in a second without
updates of the CMS in context, a quarter with them (first order).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.hope import HopeConfig, HopeLM, TransformerLM

VOCABULARY = 96
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


def main() -> int:
    """Measure and print; see above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    race, missed = models(), 0
    for T in (256, 1024):
        text = torch.randint(VOCABULARY, (chosen.batch, T + 1))
        rounds = [{name: seconds(model, text) for name, model in race.items()} for _ in range(chosen.rounds + 1)][1:]
        print(f"\n{chosen.batch} texts of {T} tokens")
        for name in race:
            ratio = statistics.median(each["Transformer"] / each[name] for each in rounds)
            speed = chosen.batch * T / statistics.median(each[name] for each in rounds)
            bar = BARS.get(name, 0.0)
            missed += ratio < bar
            verdict = "" if not bar else f"  bar {bar:.2f}: {'kept' if ratio >= bar else 'MISSED'}"
            print(f"  {name:30} {speed:9,.0f} tokens/s  {ratio:5.2f} of the Transformer{verdict}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
