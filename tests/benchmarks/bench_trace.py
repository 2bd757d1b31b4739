"""What watching costs: a training step with an `UpdateTrace` and without: python tests/benchmarks/bench_trace.py

The model is an MLP of about 100,000 parameters in 6 tensors, the batch has 64 examples, all on one CPU thread. A step
is zero_grad, forward, backward and the optimizer; with a trace, also `record()`. Both take turns in each round, so a
busy machine slows them alike; the figures are medians over rounds of process CPU time, and the ratio is the median of
the ratios of neighbouring rounds. Exit status 1 if watching all weights, at the settings a learner gets when they pass
none, costs more than 5 % of a step. Rows without a bar show what more watching costs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from nlcore.levels import UpdateTrace, parts_of
from nlcore.optimizers import M3, SGD, Adam, MultiscaleMomentum

BAR = 1.05
Maker = Callable[[nn.Module], torch.optim.Optimizer]
CASES: dict[str, tuple[Maker, tuple[str, ...], int | None, bool]] = {  # optimizer, its memories, every, under the bar
    "SGD, weights": (lambda m: SGD(m.parameters(), lr=1e-3), (), None, True),
    "Adam, weights": (lambda m: Adam(m.parameters(), lr=1e-4), (), None, True),
    "torch Adam, weights": (lambda m: torch.optim.Adam(m.parameters(), lr=1e-4), (), None, True),
    "Multiscale, weights + slow s": (lambda m: MultiscaleMomentum(m.parameters(), lr=1e-3), ("s",), None, True),
    "M3, weights + slow M2": (lambda m: M3(m.parameters(), lr=1e-3), ("M2",), None, True),
    "Adam, weights + m + v": (lambda m: Adam(m.parameters(), lr=1e-4), ("m", "v"), None, True),
    "torch Adam fused, weights": (lambda m: torch.optim.Adam(m.parameters(), lr=1e-4, fused=True), (), None, False),
    "Adam, weights, every=1": (lambda m: Adam(m.parameters(), lr=1e-4), (), 1, False),
}


def training(make: Maker, memories: tuple[str, ...] | None, every: int | None) -> Callable[[], None]:
    """Return a function that trains one step, and records it if `memories` is not None."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(196, 256), nn.ReLU(), nn.Linear(256, 180), nn.ReLU(), nn.Linear(180, 17))
    optimizer = make(model)
    x, y = torch.randn(64, 196), torch.randint(0, 17, (64,))
    trace = None if memories is None else UpdateTrace(parts_of(optimizer, *memories), every)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        if trace is not None:
            trace.record()

    return step


def race(plain: Callable[[], None], watched: Callable[[], None], rounds: int, steps: int) -> tuple[float, float, float]:
    """Return the median microseconds of a step of both, and the median of watched / plain over the rounds."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 3):
        for name, step in ((False, plain), (True, watched)) if number % 2 else ((True, watched), (False, plain)):
            begin = time.process_time()
            for _ in range(steps):
                step()
            if number >= 3:  # the first rounds warm up
                times[name].append((time.process_time() - begin) / steps * 1e6)
    ratios = [after / before for before, after in zip(times[False], times[True], strict=True)]
    return statistics.median(times[False]), statistics.median(times[True]), statistics.median(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, MLP of 99,755 parameters, batch 64, microseconds a step")
    print(f"{'':30}{'without':>9}{'with':>9}   ratio")
    missed = 0
    for name, (make, memories, every, barred) in CASES.items():
        steps = training(make, None, None), training(make, memories, every)
        without, watched, ratio = race(*steps, options.rounds, options.steps)
        missed += barred and ratio > BAR
        verdict = ("met" if ratio <= BAR else "MISSED") + f" <= {BAR}" if barred else "no bar"
        print(f"{name:30}{without:9.0f}{watched:9.0f}   {ratio:.3f}   {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
