"""A chain of three blocks on the streams of notebook 07: periods, learning rates divided by the period, and flat.

Writes nlcore/data/sweeps/continuum_on_digits.json:

    python notebooks/sweeps/continuum_on_digits.py

Takes about a quarter of an hour on two CPU cores. Notebook 08 reads the file and runs a part again.

Each variant has one learning rate to tune, on the same grid: the best average accuracy at the end decides, on eight
tuning seeds and 300 training images kept aside (with three, rates were chosen at which a seed in six diverges). The
result comes from twelve other seeds, all training images and the test images. Beside the best rate, four rates are
measured for every variant. The baseline, flat, is also measured at all rates, and the best one is picked with
hindsight, from the result itself: this favours the baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from nlcore.contest import KEPT
from nlcore.continual import chain_lifetimes
from nlcore.metrics import average_accuracy, forgetting, plasticity
from nlcore.sweeps import best_setting, save_sweep
from nlcore.tasks import Images, TaskStream, digits, permuted_pixels, rotated_images, split_classes

TUNING, FRESH = range(1000, 1008), range(12)
RATES = [round(0.0015 * 1.9**k, 5) for k in range(10)]
SHOWN = [RATES[k] for k in (2, 4, 6, 8)]  # measured for every variant, beside its best rate
STREAMS: dict[str, Callable[[Images], TaskStream]] = {
    "split, class": split_classes,
    "permuted": permuted_pixels,
    "rotated": rotated_images,
}
FACTORS = (2, 4, 8)
VARIANTS: dict[str, dict] = {"flat": {}}
for C in FACTORS:
    VARIANTS[f"periods 1-{C}-{C * C}, sum"] = {"periods": (1, C, C * C), "reduction": "sum"}
    VARIANTS[f"periods 1-{C}-{C * C}, mean"] = {"periods": (1, C, C * C)}
    VARIANTS[f"rates 1, 1/{C}, 1/{C * C}"] = {"scales": (1, 1 / C, 1 / C**2)}
VARIANTS["periods 64-8-1, mean"] = {"periods": (64, 8, 1)}
VARIANTS["rates 1/64, 1/8, 1"] = {"scales": (1 / 64, 1 / 8, 1)}
VARIANTS["only the first block learns"] = {"scales": (1, 0, 0)}


def measures(R: Tensor) -> dict[str, Tensor]:
    """Return accuracy at the end of all tasks and of the old ones, plasticity, forgetting; (S, R) each."""
    old = R[..., -1, :-1].mean(-1)
    return {"all": average_accuracy(R), "old": old, "learned": plasticity(R), "forgotten": forgetting(R)}


def measure(job: tuple[str, str]) -> dict:
    """Tune one variant on one stream, and measure it."""
    kind, name = job
    torch.set_num_threads(1)
    images = digits()
    x, y = images.x_train, images.y_train
    aside = replace(images, x_train=x[KEPT:], y_train=y[KEPT:], x_test=x[:KEPT], y_test=y[:KEPT])
    tuning = average_accuracy(chain_lifetimes(STREAMS[kind](aside), TUNING, RATES, **VARIANTS[name]))
    best = best_setting(1 - tuning)
    rates = [RATES[best], *SHOWN, *(RATES if name == "flat" else [])]
    found = measures(chain_lifetimes(STREAMS[kind](images), FRESH, rates, **VARIANTS[name]))
    row = {"rate": RATES[best], "at_edge": best in (0, len(RATES) - 1), **_row(found, 0)}
    if name == "flat":
        luckiest = best_setting(1 - found["all"][-len(RATES) :]) - len(RATES)
        row["with hindsight"] = {"rate": rates[luckiest], **_row(found, luckiest)}
    return {**row, "at": {str(rate): _row(found, k) for k, rate in enumerate(SHOWN, start=1)}}


def main() -> None:
    """Tune, measure, write."""
    results: dict[str, dict] = {kind: {} for kind in STREAMS}
    jobs = [(kind, name) for kind in STREAMS for name in VARIANTS]
    with ProcessPoolExecutor(2) as pool:
        for (kind, name), row in zip(jobs, pool.map(measure, jobs), strict=True):
            results[kind][name] = row
            print(kind, name, row["rate"], sum(row["all"]) / len(row["all"]), flush=True)
    about = {
        "command": "python notebooks/sweeps/continuum_on_digits.py",
        "torch": torch.__version__.split("+")[0],
        "tuning_seeds": list(TUNING),
        "seeds": list(FRESH),
        "rates": RATES,
        "variants": VARIANTS,
        "results": results,
    }
    print("wrote", save_sweep("continuum_on_digits", about).name)


def _row(found: dict[str, Tensor], setting: int) -> dict[str, list[float]]:
    return {words: [round(number, 4) for number in values[setting].tolist()] for words, values in found.items()}


if __name__ == "__main__":
    main()
