"""HOPE and the Transformer side by side: text, streams that switch, needles, parity; and the weights notebook 12 reads.

Writes nlcore/data/sweeps/hope_and_transformer.json and nlcore/data/checkpoints/{stream,language}_*.pt:

    python notebooks/sweeps/hope_and_transformer.py

Takes about 80 CPU minutes with OMP_NUM_THREADS=1; `--workers 2` trains two models side by side. Each finished model is
stored at once: an interrupted run goes on where it stopped, and finished models are not trained again. Parts:

    python notebooks/sweeps/hope_and_transformer.py --task language --model hope --seed 0

Each family of models has the same grid of learning rates in each task (`tuned_as`); a tuning seed and sequences of its
own decide. The results come from other seeds and other sequences. A test trains one model again. Checkpoints are always
those of seed 0, never the best. The Transformers of `SAME_TIME` train as many steps as fit into the CPU time of HOPE.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from typing import Any

import torch

from nlcore.checkpoints import save_checkpoint
from nlcore.hope.contest import (
    CONTESTS,
    LONGER,
    SAME_TIME,
    TESTED_ON,
    TUNED_ON,
    TUNING_SEED,
    learn,
    tuned_as,
    tuning_loss,
)
from nlcore.hope.measures import BINS, measure
from nlcore.sweeps import load_sweep, save_sweep, stored_sweeps

NAME = "hope_and_transformer"
Job = tuple[str, str, int, float, int | None]  # task, model, seed, learning rate, steps if not those of the task


def settings() -> dict[str, Any]:
    """Return how the results are made, for the record."""
    return {
        "command": f"python notebooks/sweeps/{NAME}.py",
        "torch": torch.__version__.split("+")[0],
        "tuning_seed": TUNING_SEED,
        "seeds": {name: list(range(task.seeds)) for name, task in CONTESTS.items()},
        "sequences": {"tuning": TUNED_ON, "test": TESTED_ON},
        "positions": [list(part) for part in BINS],
        "tasks": {
            name: {
                "rates": list(task.rates),
                "steps": task.steps,
                "tuning_steps": task.tuning_steps,
                "config": asdict(task.config) | {"periods": list(task.config.periods)},
            }
            for name, task in CONTESTS.items()
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
    return {**about, "results": {task: results.get(task, {}) for task in CONTESTS}}


def work(job: Job) -> dict[str, Any]:
    """Train one model: with the tuning seed return its tuning loss, with another seed what is reported."""
    task, name, seed, rate, steps = job
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        model, row = learn(task, name, seed, rate, steps)
    except FloatingPointError as error:
        return {"rate": rate, "failed": str(error)}
    if seed == TUNING_SEED:
        return {**row, "tuning_loss": round(tuning_loss(task, model), 4)}
    if seed == 0 and name in CONTESTS[task].live:
        save_checkpoint(f"{task}_{name}", model)
    return {**row, **measure(task, name, model)}


def best_rate(tuned: dict[str, dict[str, Any]]) -> float:
    """Return the learning rate with the lowest tuning loss.

    Raises   ValueError if every rate failed.
    """
    losses = {float(rate): row.get("tuning_loss", math.inf) for rate, row in tuned.items()}
    best = min(losses, key=lambda rate: losses[rate])
    if losses[best] == math.inf:
        raise ValueError("the loss was not finite at any learning rate: the grid needs smaller ones")
    return best


def untuned(results: dict[str, Any], task: str, names: Iterable[str]) -> Iterator[Job]:
    """Yield the tuning runs that are still to be made before these models can be trained."""
    for name in dict.fromkeys(tuned_as(one) for one in names):
        done = results[task].get(name, {}).get("tuning", {})
        rates = (rate for rate in CONTESTS[task].rates if str(rate) not in done)
        yield from ((task, name, TUNING_SEED, rate, None) for rate in rates)


def unseen(results: dict[str, Any], task: str, names: list[str], seed: int | None) -> Iterator[Job]:
    """Yield the reported runs that are still to be made, seed by seed; the models are tuned."""
    rates = {name: best_rate(results[task][tuned_as(name)]["tuning"]) for name in names}
    for one in range(CONTESTS[task].seeds) if seed is None else [seed]:
        for name, rate in rates.items():
            done = results[task].get(name, {}).get("seeds", {}).get(str(one), {})
            if done.get("rate") != rate:
                yield task, name, one, rate, own_steps(results[task], name, one)


def own_steps(results: dict[str, Any], name: str, seed: int) -> int | None:
    """Return how many steps a model takes if it takes as much time, or as many steps, as another one did; else None."""

    def took(name: str) -> Any:
        return results[name]["seeds"][str(seed)]

    if name in LONGER:
        return int(took(LONGER[name])["steps"])
    if name not in SAME_TIME:
        return None
    other = took(SAME_TIME[name])
    return round(took("hope")["cpu_seconds"] / (other["cpu_seconds"] / other["steps"]))


def keep(job: Job, row: dict[str, Any]) -> None:
    """Add one result to the stored record; seeds stay in order, so that rows of two models can be paired."""
    task, name, seed, rate, _ = job
    about = record()
    entry = about["results"][task].setdefault(name, {"tuning": {}, "seeds": {}})
    if seed == TUNING_SEED:
        entry["tuning"][str(rate)] = row
    else:
        entry["seeds"] = dict(sorted((entry["seeds"] | {str(seed): row}).items(), key=lambda one: int(one[0])))
    save_sweep(NAME, about)
    print(*job, {key: value for key, value in row.items() if not isinstance(value, (list, dict))}, flush=True)


def train(pool: ProcessPoolExecutor, jobs: Iterable[Job]) -> None:
    """Do all jobs, and keep each result at once."""
    waiting = {pool.submit(work, job): job for job in jobs}
    for done in as_completed(waiting):
        keep(waiting[done], done.result())


def main() -> None:
    """Tune, train, measure, keep; at last who trains as long as HOPE."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=list(CONTESTS))
    parser.add_argument("--model", action="append")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    with ProcessPoolExecutor(chosen.workers) as pool:
        for task in chosen.task or CONTESTS:
            names = [name for name in CONTESTS[task].models if not chosen.model or name in chosen.model]
            train(pool, untuned(record()["results"], task, names))
            first = [name for name in names if name not in SAME_TIME and name not in LONGER]
            for part in (first, SAME_TIME, LONGER):  # who waits for what others took
                train(pool, unseen(record()["results"], task, [name for name in names if name in part], chosen.seed))


if __name__ == "__main__":
    main()
