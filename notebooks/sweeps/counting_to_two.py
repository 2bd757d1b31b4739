"""Which small memories learn parity, how far beyond the trained length, and which eigenvalue a bit has for them.

Writes nlcore/data/sweeps/counting_to_two.json:

    OMP_NUM_THREADS=1 python notebooks/sweeps/counting_to_two.py

Takes about 5 CPU minutes; `--workers 2` trains two models side by side. Each finished model is stored at once: an
interrupted run goes on where it stopped. All models have the same steps and the same learning rate, in float64; those
that learn the trained words with no seed are tried again at other rates, so that it is not the rate that failed them.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from nlcore.sequence.counting import (
    COUNTERS,
    DIM,
    HEADS,
    LENGTHS,
    RATE,
    STEPS,
    TESTED,
    WORDS,
    bit_eigenvalues,
    counts_right,
    learn_to_count,
)
from nlcore.sweeps import load_sweep, save_sweep, stored_sweeps

NAME, SEEDS = "counting_to_two", 5
OTHER_RATES = (RATE / 4, RATE / 2, 2 * RATE)
LEARNT = 0.9  # right on so many positions of the longest trained words


def measure(name: str, seed: int) -> dict[str, Any]:
    """Train one model; return its accuracies, its loss at the end, and the eigenvalues of a 0 and a 1 in each head."""
    torch.set_num_threads(1)
    model, losses = learn_to_count(name, seed)
    row: dict[str, Any] = {"accuracy": {str(T): round(counts_right(model, T), 4) for T in TESTED}}
    row["loss"] = round(sum(losses[-10:]) / 10, 4)
    row["parameters"] = sum(weight.numel() for weight in model.parameters())
    found = bit_eigenvalues(model)
    if found is not None:
        row["real"] = [[round(number, 4) for number in head] for head in found.real.tolist()]
        row["imaginary"] = [[round(number, 4) for number in head] for head in found.imag.tolist()]
    return row


def at_another_rate(name: str, rate: float) -> float:
    """Train one model with seed 0 at this rate; return its accuracy on the longest trained words."""
    torch.set_num_threads(1)
    return round(counts_right(learn_to_count(name, rate=rate)[0], TESTED[0]), 4)


def main() -> None:
    """Train what is missing and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    workers = parser.parse_args().workers
    about: dict[str, Any] = {
        "command": f"python notebooks/sweeps/{NAME}.py",
        "torch": torch.__version__.split("+")[0],
        "seeds": list(range(SEEDS)),
        "words": {"bits": list(LENGTHS), "in a batch": WORDS},
        "model": {"dim": DIM, "heads": HEADS, "steps": STEPS, "rate": RATE},
    }
    stored = load_sweep(NAME) if NAME in stored_sweeps() else {}
    results = stored.get("results", {name: {} for name in COUNTERS})
    others = stored.get("other rates", {})

    def keep() -> None:
        ordered = {key: dict(sorted(rows.items())) for key, rows in results.items()}
        save_sweep(NAME, {**about, "results": ordered, "other rates": others})

    with ProcessPoolExecutor(workers) as pool:
        jobs = [(name, seed) for seed in range(SEEDS) for name in COUNTERS if str(seed) not in results[name]]
        waiting: dict[Any, Any] = {pool.submit(measure, *job): job for job in jobs}
        for done in as_completed(waiting):
            name, seed = waiting[done]
            results[name][str(seed)] = done.result()
            keep()
            print(name, seed, done.result(), flush=True)
        failed = [name for name, rows in results.items() if all(r["accuracy"]["20"] < LEARNT for r in rows.values())]
        again = [(name, rate) for name in failed for rate in OTHER_RATES if str(rate) not in others.get(name, {})]
        waiting = {pool.submit(at_another_rate, *job): job for job in again}
        for done in as_completed(waiting):
            name, rate = waiting[done]
            others.setdefault(name, {})[str(rate)] = done.result()
            keep()
            print(name, rate, done.result(), flush=True)


if __name__ == "__main__":
    main()
