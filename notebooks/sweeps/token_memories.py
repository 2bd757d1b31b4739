"""Every memory of tokens on recall, needles and a stream that switches; and the weights notebooks show live.

Writes nlcore/data/sweeps/token_memories.json and nlcore/data/checkpoints/*.pt:

    python notebooks/sweeps/token_memories.py

Takes about 70 CPU minutes with OMP_NUM_THREADS=1; `--workers 2` runs two models side by side. Each finished model is
stored at once: an interrupted run goes on where it stopped, and finished models are not trained again. Parts:

    python notebooks/sweeps/token_memories.py --task recall --model delta --seed 0

Each family of models has the same grid of learning rates in each task; the loss on sequences of its own, after training
with a tuning seed, decides. The results come from other seeds and other sequences. A test trains one model again.
Checkpoints are always those of seed 0, never the best.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from nlcore.checkpoints import save_checkpoint
from nlcore.sequence.contest import (
    LAYERS,
    RATES,
    TASKS,
    TESTED_ON,
    TUNED_ON,
    TUNING_SEED,
    learn,
    measure,
    tuned_as,
    tuning_loss,
)
from nlcore.sweeps import load_sweep, save_sweep, stored_sweeps

NAME = "token_memories"
Job = tuple[str, str, int, float]  # task, model, seed, learning rate


def settings() -> dict[str, Any]:
    """Return how the results are made, for the record."""
    kept = ("symbols", "dim", "heads", "layers", "steps", "tuning_steps")
    return {
        "command": f"python notebooks/sweeps/{NAME}.py",
        "torch": torch.__version__.split("+")[0],
        "rates": list(RATES),
        "tuning_seed": TUNING_SEED,
        "seeds": {name: list(range(task.seeds)) for name, task in TASKS.items()},
        "sequences": {"tuning": TUNED_ON, "test": TESTED_ON},
        "tasks": {
            name: {key: getattr(task, key) for key in kept} | {"dtype": str(task.dtype).removeprefix("torch.")}
            for name, task in TASKS.items()
        },
    }


def record() -> dict[str, Any]:
    """Return the stored record with today's settings, or an empty one.

    Raises   ValueError if the stored results were made with other settings.
    """
    about = settings()
    old = load_sweep(NAME) if NAME in stored_sweeps() else {}
    if old and any(old[key] != about[key] for key in about if key != "torch"):
        raise ValueError(f"{NAME}.json was made with other settings: move it away to begin anew")
    results = old.get("results", {})
    return {**about, "results": {task: results.get(task, {}) for task in TASKS}}


def work(job: Job) -> dict[str, Any]:
    """Train one model: with the tuning seed return its tuning loss, with another seed what is reported."""
    task, name, seed, rate = job
    torch.set_num_threads(1)
    try:
        model, row = learn(task, name, seed, rate)
    except FloatingPointError as error:
        return {"rate": rate, "failed": str(error)}
    if seed == TUNING_SEED:
        return {**row, "tuning_loss": round(tuning_loss(task, model), 4)}
    if seed == 0 and name in TASKS[task].live:
        dtype = torch.float32 if TASKS[task].dtype == torch.float64 else torch.float16
        save_checkpoint(f"{task}_{name}", model, dtype)
    return {**row, **measure(task, model)}


def best_rate(tuned: dict[str, dict[str, Any]]) -> float:
    """Return the learning rate with the lowest tuning loss.

    Raises   ValueError if every rate failed.
    """
    losses = {rate: tuned[str(rate)].get("tuning_loss", math.inf) for rate in RATES}
    best = min(losses, key=lambda rate: losses[rate])
    if losses[best] == math.inf:
        raise ValueError("the loss was not finite at any learning rate: the grid needs smaller ones")
    return best


def untuned(results: dict[str, Any], task: str, names: list[str]) -> Iterator[Job]:
    """Yield the tuning runs that are still to be made before these models can be trained."""
    for name in dict.fromkeys(tuned_as(task, one) for one in names):
        done = results[task].get(name, {}).get("tuning", {})
        yield from ((task, name, TUNING_SEED, rate) for rate in RATES if str(rate) not in done)


def unseen(results: dict[str, Any], task: str, names: list[str], seed: int | None) -> Iterator[Job]:
    """Yield the reported runs that are still to be made, seed by seed; the models are tuned."""
    for one in range(TASKS[task].seeds) if seed is None else [seed]:
        for name in names:
            if str(one) not in results[task].get(name, {}).get("seeds", {}):
                yield task, name, one, best_rate(results[task][tuned_as(task, name)]["tuning"])


def keep(job: Job, row: dict[str, Any]) -> None:
    """Add one result to the stored record."""
    task, name, seed, rate = job
    about = record()
    entry = about["results"][task].setdefault(name, {"tuning": {}, "seeds": {}})
    if seed == TUNING_SEED:
        entry["tuning"][str(rate)] = row
    else:
        entry["seeds"][str(seed)] = row
    save_sweep(NAME, about)
    print(*job, {key: value for key, value in row.items() if not isinstance(value, list)}, flush=True)


def train(pool: ProcessPoolExecutor, jobs: Iterator[Job]) -> None:
    """Do all jobs, and keep each result at once."""
    waiting = {pool.submit(work, job): job for job in jobs}
    for done in as_completed(waiting):
        keep(waiting[done], done.result())


def main() -> None:
    """Tune, train, measure, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=list(TASKS))
    parser.add_argument("--model", action="append")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    with ProcessPoolExecutor(chosen.workers) as pool:
        for task in chosen.task or TASKS:
            names = [
                name for name in TASKS[task].models if name in LAYERS and (not chosen.model or name in chosen.model)
            ]
            train(pool, untuned(record()["results"], task, names))
            train(pool, unseen(record()["results"], task, names, chosen.seed))


if __name__ == "__main__":
    main()
