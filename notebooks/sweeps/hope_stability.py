"""Does HOPE train without a NaN? Both presets, five seeds, three learning rates: the loss of every step.

Writes nlcore/data/sweeps/hope_stability.json:

    python notebooks/sweeps/hope_stability.py

Takes about 20 CPU minutes with OMP_NUM_THREADS=1; `--workers 2` trains two models side by side. The texts are longer
than the slowest period, so that every level is updated in every step of training.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import torch

from nlcore.hope import HopeConfig, HopeLM
from nlcore.hope.contest import characters, text
from nlcore.sequence.fitting import fit_tokens
from nlcore.sweeps import save_sweep
from nlcore.tasks.characters import windows

NAME = "hope_stability"
SEEDS, RATES = range(5), (2.5e-3, 5e-3, 1e-2)
PRESETS = {"tiny": (HopeConfig.tiny, 8, 256, 60), "small": (HopeConfig.small, 1, 544, 24)}  # windows, length, steps


def train(preset: str, seed: int, rate: float) -> dict[str, Any]:
    """Return the losses in nats; fewer than the steps if one was not finite."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    make, rows, length, steps = PRESETS[preset]
    torch.manual_seed(seed)
    model = HopeLM(make(characters().size))
    draw = partial(windows, text("austen"), length, rows)
    try:
        losses = fit_tokens(model, draw, steps=steps, lr=rate, seed=seed)
    except FloatingPointError as error:
        return {"failed": str(error)}
    finite = all(bool(weight.isfinite().all()) for weight in model.parameters())
    return {"finite": finite and all(map(math.isfinite, losses)), "losses": [round(loss, 3) for loss in losses]}


def main() -> None:
    """Train all, and keep what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    jobs = list(product(PRESETS, SEEDS, RATES))
    with ProcessPoolExecutor(chosen.workers) as pool:
        rows = list(pool.map(train, *zip(*jobs, strict=True)))
    results: dict[str, dict[str, dict[str, Any]]] = {preset: {str(rate): {} for rate in RATES} for preset in PRESETS}
    for (preset, seed, rate), row in zip(jobs, rows, strict=True):
        results[preset][str(rate)][str(seed)] = row
    save_sweep(
        NAME,
        {
            "command": f"python notebooks/sweeps/{NAME}.py",
            "torch": torch.__version__.split("+")[0],
            "seeds": list(SEEDS),
            "rates": list(RATES),
            "presets": {name: {"rows": rows, "length": T, "steps": n} for name, (_, rows, T, n) in PRESETS.items()},
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
