"""Muon and M3 against torch.optim.Muon and published M3s: python tests/benchmarks/bench_matrix_optimizers.py

Three networks, matrices only, gradients already there, one CPU thread: the course's 64-64-10, the feed-forward block
of a Transformer of width 128, and an MLP of about 100,000 parameters. All optimizers take turns in each round; figures
are medians over rounds of process CPU time. A round is a whole number of slow periods, so M3's slow memory is paid for.

torch.optim.Muon computes in bfloat16. How fast that is depends on the CPU, so where the CPU has bfloat16 instructions
the races are run a second time without them, as on the many CPUs that have none.

Published M3s are optional: nested-learning is used if it is installed (pip install --no-deps nested-learning), any
other file is raced with --peer FILE:CLASS. Each meets our M3 twice, at its own period: with the very polynomial and
steps it has itself, and "as near", with the fewest steps of the minimax polynomials that come at least as near to U V^T
on random matrices of the same shapes. The second is the same work done; the bar belongs to it.
Exit status 1 if a bar is missed: Muon 1.5x faster than torch's, M3 at most 1.6x our Muon, and, where matrices have
more than 10,000 numbers, 2x faster than any peer (below that, the fixed cost of a call is most of the time).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_optimizers import race
from torch import Tensor, nn

from nlcore.optimizers import M3, Muon, newton_schulz
from nlcore.optimizers.orthogonal import POLYNOMIALS

NETS = {"64-64-10": (64, 64, 10), "128-512-128": (128, 512, 128), "196-256-180-17": (196, 256, 180, 17)}
PERIOD = 10
PERIOD_NAMES = ("slow_chunk", "f", "chunk_size")  # what published M3s call the slow period
FAST_ISA = "ONEDNN_MAX_CPU_ISA"  # read by torch's matrix library when it starts
Optimizer = torch.optim.Optimizer
Maker = Callable[[], Optimizer]


def matrices(widths: tuple[int, ...]) -> list[nn.Parameter]:
    """Return the weight matrices of an MLP, with gradients."""
    torch.manual_seed(0)
    weights = [nn.Linear(m, n).weight for m, n in zip(widths, widths[1:], strict=False)]
    for weight in weights:
        weight.grad = 0.01 * torch.randn_like(weight)
    return weights


def peers(files: list[str]) -> dict[str, type[Optimizer]]:
    """Return the published M3s that are here; say which are not."""
    found: dict[str, type[Optimizer]] = {}
    try:
        found["nested-learning"] = importlib.import_module("nested_learning.optim.m3").M3
    except ImportError:
        print("nested-learning is not installed: skipped")
    for number, entry in enumerate(files):
        path, _, name = entry.rpartition(":")
        if not path or not Path(path).is_file():
            raise SystemExit(f"--peer expects FILE:CLASS with an existing file, got {entry!r}")
        spec = importlib.util.spec_from_file_location(f"peer{number}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found[Path(path).stem] = getattr(module, name)
    return found


def distance(orthogonal: Callable[..., Tensor], widths: tuple[int, ...], *settings: Any) -> float:
    """Return how far the answers for random matrices of a network lie from U V^T, relative to its length."""
    off = total = 0.0
    for weight in matrices(widths):
        assert weight.grad is not None
        U, _, Vh = torch.linalg.svd(weight.grad, full_matrices=False)
        off += (orthogonal(weight.grad, *settings) - U @ Vh).square().sum().item()
        total += (U @ Vh).square().sum().item()
    return math.sqrt(off / total)


def like(kind: type[Optimizer], widths: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Return the settings of our M3 that match a peer's: "same" polynomial and steps, and "as near" to U V^T."""
    settings = kind(matrices(widths), lr=1e-4).defaults  # type: ignore[call-arg]
    steps, period = settings["ns_steps"], next(settings[key] for key in PERIOD_NAMES if key in settings)
    module = vars(sys.modules[kind.__module__])
    theirs = next(function for name, function in module.items() if "newton_schulz" in name)
    off = distance(theirs, widths, steps)
    method = min(POLYNOMIALS, key=lambda name: abs(distance(newton_schulz, widths, steps, name) - off))
    fewest = next(n for n in range(1, 20) if distance(newton_schulz, widths, n, "minimax") <= off)
    print(f"  {steps} steps ({method}) end {off:.2f} from U V^T; as near: {fewest} minimax steps")
    return {
        "same": {"ns_steps": steps, "ns_method": method, "period": period},
        "as near": {"ns_steps": fewest, "ns_method": "minimax", "period": period},
    }


def contestants(widths: tuple[int, ...], published: dict[str, type[Optimizer]]) -> dict[str, Maker]:
    """Return what takes turns on one network."""
    makers: dict[str, Maker] = {
        "torch Muon": lambda: torch.optim.Muon(matrices(widths), lr=1e-4),
        "Muon": lambda: Muon(matrices(widths), lr=1e-4),
        "Muon bfloat16": lambda: Muon(matrices(widths), lr=1e-4, ns_dtype=torch.bfloat16),
        "M3": lambda: M3(matrices(widths), lr=1e-4, period=PERIOD),
    }
    for name, kind in published.items():
        print(f"  {name}: ", end="")
        makers[name] = lambda kind=kind: kind(matrices(widths), lr=1e-4)  # type: ignore[misc]
        for how, settings in like(kind, widths).items():
            makers[f"M3 {how} {name}"] = lambda settings=settings: M3(  # type: ignore[misc]
                matrices(widths), lr=1e-4, mode="literal", **settings
            )
    return makers


def report(net: str, medians: dict[str, float], published: dict[str, type[Optimizer]]) -> int:
    """Print the figures and the bars of one network; return how many bars are missed."""
    large = max(weight.numel() for weight in matrices(NETS[net])) > 10_000
    print(f"{net}, microseconds a step: " + ", ".join(f"{name} {value:.0f}" for name, value in medians.items()))
    bars = [
        ("torch's Muon / our Muon", medians["torch Muon"] / medians["Muon"], ">=", 1.5),
        ("torch's Muon / our Muon in bfloat16", medians["torch Muon"] / medians["Muon bfloat16"], "", 0.0),
        ("our M3 / our Muon", medians["M3"] / medians["Muon"], "<=", 1.6),
    ]
    for name in published:
        same, near = (medians[name] / medians[f"M3 {how} {name}"] for how in ("same", "as near"))
        bars += [(f"{name} / our M3, same polynomial", same, "", 0.0)]
        bars += [(f"{name} / our M3, as near to U V^T", near, ">=" if large else "", 2.0)]
    missed = 0
    for what, ratio, sign, bar in bars:
        good = not sign or (ratio >= bar if sign == ">=" else ratio <= bar)
        missed += not good
        print(f"  {what:44}{ratio:6.2f}" + (f"   {'met' if good else 'MISSED'}: {sign} {bar}" if sign else ""))
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2 * PERIOD, help="steps a round, a multiple of the slow period")
    parser.add_argument("--peer", action="append", default=[], metavar="FILE:CLASS", help="another M3 to race")
    options = parser.parse_args()
    if options.steps % PERIOD:
        parser.error(f"--steps expects a multiple of {PERIOD}, got {options.steps}")
    torch.set_num_threads(1)
    held_back = FAST_ISA in os.environ
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() and not held_back
    print(f"torch {torch.__version__}, {'with' if has_bfloat16 else 'without'} bfloat16 instructions", flush=True)
    if not hasattr(torch.optim, "Muon"):
        print("torch.optim.Muon needs torch 2.9: nothing to race against")
        return 0
    published = peers(options.peer)
    missed = 0
    for net, widths in NETS.items():
        print()
        missed += report(net, race(contestants(widths, published), options.rounds, options.steps), published)
    if has_bfloat16:
        print("\nonce more ", end="", flush=True)
        missed += subprocess.run([sys.executable, *sys.argv], env={**os.environ, FAST_ISA: "AVX2"}).returncode
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
