"""Every optimizer on digits and Fashion, pixels as they are and standardised, for two budgets, tuned alike for each.

Writes nlcore/data/sweeps/optimizers_on_images.json:

    python notebooks/sweeps/optimizers_on_images.py

Takes half an hour on two CPU cores. Notebook 05 reads the file and runs a part again, and so do the tests.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import torch
from tqdm import tqdm

from nlcore.contest import CONTESTANTS, compete, search, standardised, step_times
from nlcore.sweeps import save_sweep
from nlcore.tasks import Images, digits, fashion

BUDGETS, TUNING, FRESH = (300, 1500), range(1000, 1003), range(12)
SETS = ("digits", "Fashion", "digits, standardised", "Fashion, standardised")


def load(words: str) -> Images:
    """Return a set of images by the name it has in the file."""
    name, _, prepared = words.partition(", ")
    images = {"digits": digits, "Fashion": fashion}[name]()
    return standardised(images) if prepared else images


def measure(job: tuple[str, int, str]) -> dict:
    """Search the settings of one optimizer on one set for one budget, and run them on fresh seeds."""
    words, steps, name = job
    torch.set_num_threads(1)
    images = load(words)
    found = search(name, images, TUNING, steps)
    runs = [compete(name, found["settings"], images, seed, steps, tuning=False) for seed in FRESH]
    return {**found, **{key: [round(run[key], 5) for run in runs] for key in ("accuracy", "loss")}}


def main() -> None:
    """Search, measure, write."""
    torch.set_num_threads(1)
    jobs = [(words, steps, name) for words in SETS for steps in BUDGETS for name in CONTESTANTS]
    with ProcessPoolExecutor(2) as pool:
        rows = list(tqdm(pool.map(measure, jobs), total=len(jobs)))
    results: dict[str, dict[str, dict[str, dict]]] = {}
    for (words, steps, name), row in zip(jobs, rows, strict=True):
        results.setdefault(words, {}).setdefault(str(steps), {})[name] = row
    timed = {words: step_times(load(words)) for words in SETS[:2]}
    about = {
        "command": "python notebooks/sweeps/optimizers_on_images.py",
        "torch": torch.__version__.split("+")[0],
        "budgets": list(BUDGETS),
        "tuning_seeds": list(TUNING),
        "seeds": list(FRESH),
        "microseconds": {words: {name: round(us) for name, us in times.items()} for words, times in timed.items()},
    }
    print("wrote", save_sweep("optimizers_on_images", {**about, "results": results}).name)


if __name__ == "__main__":
    main()
