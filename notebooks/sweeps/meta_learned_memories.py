"""Meta-learned memories on streams with contexts inside contexts: flat, continuum, nested, and every control.

Writes nlcore/data/sweeps/meta_learned_memories.json:

    python notebooks/sweeps/meta_learned_memories.py

Takes about 10 minutes on two quiet CPU cores, and is sized for that: 12 worlds, 120 outer iterations of 4 streams of
128 steps. For two variants the iterations are doubled, to see what that changes. Notebook 08 reads the file, and tests
run a part of it again.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed

import torch
from tqdm import tqdm

from nlcore.meta import variants
from nlcore.meta.learning import TESTING
from nlcore.meta.variants import BEST_FLAT, KINDS, MAP, NESTED_CMS, TRAINED, VARIANTS, WORLDS, run_variant, tune
from nlcore.sweeps import save_sweep
from nlcore.tasks.contexts import best_possible, streams

MEASURES = ("online", "last", "retention", "longer")


def measure(job: tuple[str, str]) -> dict:
    """Search the rates of one variant on one kind of stream, and learn and measure it in the reported worlds."""
    kind, name = job
    torch.set_num_threads(1)
    found = tune(name, kind)
    row = {**found, "cost": VARIANTS[name].cost, **run_variant(name, kind, found["rate"], found["outer_rate"])}
    if kind == "aligned" and name in (BEST_FLAT, NESTED_CMS):
        longer = run_variant(name, kind, found["rate"], found["outer_rate"], iterations=2 * TRAINED)
        row["online, iterations doubled"] = _rounded(longer["online"])
    return {key: _rounded(value) if key in MEASURES else value for key, value in row.items()}


def floor(kind: str) -> dict:
    """Return the errors of the best possible predictor and of the answer zero in each world, on the test streams."""
    given = streams(WORLDS, number=64, draw=TESTING, dtype=torch.float64, **KINDS[kind])
    error = best_possible(given).mean((1, 2))
    return {"best possible": _rounded(error.tolist()), "zero": _rounded(given.y.square().sum(-1).mean((1, 2)).tolist())}


def main() -> None:
    """Search, learn, measure, write."""
    torch.set_num_threads(1)
    about = {
        "command": "python notebooks/sweeps/meta_learned_memories.py",
        "torch": torch.__version__.split("+")[0],
        "tuning_worlds": list(variants.TUNING),
        "worlds": list(WORLDS),
        "rates": list(variants.RATES),
        "outer_rates": list(variants.OUTER_RATES),
        "iterations": {"search": variants.SEARCHED, "learning": TRAINED},
        "streams": {"an iteration": 4, "test": 64, "steps": 128},
        "floors": {kind: floor(kind) for kind in KINDS},
    }
    jobs = [(kind, name) for kind, names in MAP.items() for name in names]
    rows: dict[tuple[str, str], dict] = {}
    with ProcessPoolExecutor(2) as pool:
        waiting = {pool.submit(measure, job): job for job in jobs}
        for done in tqdm(as_completed(waiting), total=len(jobs)):
            rows[waiting[done]] = done.result()
            results = {kind: {n: rows[kind, n] for n in names if (kind, n) in rows} for kind, names in MAP.items()}
            file = save_sweep("meta_learned_memories", {**about, "results": results})
    print("wrote", file.name)


def _rounded(numbers: list[float]) -> list[float]:
    return [round(number, 4) for number in numbers]


if __name__ == "__main__":
    main()
