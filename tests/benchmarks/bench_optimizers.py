"""Optimizer steps against torch.optim, side by side in one run: python tests/benchmarks/bench_optimizers.py

The model is an MLP of about 100,000 parameters in 6 tensors with gradients already there, on one CPU thread. All
optimizers take turns in each round, so a busy machine slows them alike; the figures are medians over rounds of process
CPU time. Exit status 1 if a bar is missed: SGD and Momentum within 1.3x of torch's foreach, Adam not slower than
torch's for-loop.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from nlcore.optimizers import SGD, Adam, AdamW, Momentum

T = torch.optim
Maker = Callable[..., torch.optim.Optimizer]
STYLES = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
RACES: dict[str, tuple[Maker, Maker]] = {
    "SGD": (lambda p: SGD(p, lr=1e-4), lambda p, **style: T.SGD(p, lr=1e-4, **style)),
    "Momentum": (lambda p: Momentum(p, lr=1e-4, beta=0.9), lambda p, **style: T.SGD(p, lr=1e-4, momentum=0.9, **style)),
    "Adam": (lambda p: Adam(p, lr=1e-4), lambda p, **style: T.Adam(p, lr=1e-4, **style)),
    "AdamW": (lambda p: AdamW(p, lr=1e-4), lambda p, **style: T.AdamW(p, lr=1e-4, **style)),
}
BARS = {"SGD": ("foreach", 1.3), "Momentum": ("foreach", 1.3), "Adam": ("for-loop", 1.0), "AdamW": ("for-loop", 1.0)}


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(196, 256), nn.ReLU(), nn.Linear(256, 180), nn.ReLU(), nn.Linear(180, 17))
    for parameter in net.parameters():
        parameter.grad = 0.01 * torch.randn_like(parameter)
    return net


def race(makers: dict[str, Callable[[], torch.optim.Optimizer]], rounds: int, steps: int) -> dict[str, float]:
    """Return the median microseconds of one step of each optimizer; they take turns in every round."""
    optimizers = {name: make() for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in makers}
    for round_number in range(rounds + 3):
        for name, optimizer in optimizers.items():
            begin = time.process_time()
            for _ in range(steps):
                optimizer.step()
            if round_number >= 3:  # the first rounds warm up
                times[name].append((time.process_time() - begin) / steps * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {sum(p.numel() for p in model().parameters()):,} parameters, microseconds a step"
    )
    print(f"{'':10}{'ours':>8}" + "".join(f"{name:>10}" for name in STYLES) + "   ours / each        bar")
    missed = 0
    for name, (ours, theirs) in RACES.items():
        makers = {"ours": lambda make=ours: make(model().parameters())}
        makers |= {
            key: lambda make=theirs, style=style: make(model().parameters(), **style) for key, style in STYLES.items()
        }
        medians = race(makers, options.rounds, options.steps)
        ratios = {key: medians["ours"] / medians[key] for key in STYLES}
        against, bar = BARS[name]
        good = ratios[against] <= bar
        missed += not good
        figures = f"{medians['ours']:8.1f}" + "".join(f"{medians[key]:10.1f}" for key in STYLES)
        shown = "  ".join(f"{ratios[key]:.2f}" for key in STYLES)
        print(
            f"{name:10}{figures}   {shown}   {'met' if good else 'MISSED'}: {ratios[against]:.2f} <= {bar} x {against}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
