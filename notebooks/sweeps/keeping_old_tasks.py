"""Every way to keep old tasks, on eight streams, and on split classes with standardised pixels, tuned alike.

Writes nlcore/data/sweeps/keeping_old_tasks.json:

    python notebooks/sweeps/keeping_old_tasks.py

Takes about half an hour on two CPU cores. Notebook 07 reads the file and runs a part again, and so does a test.

Each method gets 15 candidates: 15 learning rates, or five learning rates with three settings of its own. The
best average accuracy at the end decides, on three tuning seeds and 300 training images kept aside. The result comes
from twelve other seeds, all training images and the test images.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from nlcore.contest import KEPT, standardised
from nlcore.continual import NearestClassMean, all_at_once, lifetimes
from nlcore.metrics import average_accuracy, plasticity
from nlcore.sweeps import save_sweep
from nlcore.tasks import Images, TaskStream, digits, fashion, permuted_pixels, rotated_images, split_classes

TUNING, FRESH = range(1000, 1003), range(12)
RATES = [0.0005 * 1.69**k for k in range(15)]
FEW_RATES = RATES[2::3]
USUAL = RATES[11]
STRENGTHS, HORIZONS = (10.0, 100.0, 1000.0), (200.0, 500.0, 1000.0)
STREAMS: dict[str, Callable[[Images], TaskStream]] = {
    "split, class": split_classes,
    "split, task": lambda images: split_classes(images, scenario="task"),
    "permuted": permuted_pixels,
    "rotated": rotated_images,
}
METHODS: dict[str, list[dict]] = {
    "plain": [{"lrs": RATES}],
    "replay 50": [{"lrs": RATES, "replay": 50}],
    "replay 200": [{"lrs": RATES, "replay": 200}],
    "EWC": [{"lrs": [lr], "strength": strength} for lr in FEW_RATES for strength in STRENGTHS],
    "slow average": [{"lrs": FEW_RATES, "horizons": HORIZONS}],
}
CURVES: dict[str, list[dict]] = {  # around one learning rate, for the plasticity-stability curve on rotated digits
    "learning rate": [{"lrs": [lr]} for lr in RATES[5:]],
    "EWC strength": [{"lrs": [USUAL], "strength": 10.0**k} for k in range(5)],
    "horizon of the average": [{"lrs": [USUAL], "horizons": (h,)} for h in (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)],
    "replayed examples": [{"lrs": [USUAL], "replay": n} for n in (10, 20, 50, 100, 200, 500)],
}


def load(words: str) -> Images:
    """Return a set of images by the name it has in the file."""
    name, _, prepared = words.partition(", ")
    images = {"digits": digits, "Fashion": fashion}[name]()
    return standardised(images) if prepared else images


def aside(images: Images) -> Images:
    """Return the images for tuning: the first 300 training images are tested on, the others learned from."""
    x, y = images.x_train, images.y_train
    return replace(images, x_train=x[KEPT:], y_train=y[KEPT:], x_test=x[:KEPT], y_test=y[:KEPT])


def scores(stream: TaskStream, call: dict, seeds: range) -> list[tuple[dict, Tensor]]:
    """Return each candidate of one call with its accuracy matrices, (R, T, T)."""
    found = lifetimes(stream, seeds, **call)
    wanted = [h for h in found if h != 1] or [1]  # an average is measured instead of its learner
    own = {key: call[key] for key in call if key not in ("lrs", "horizons")}
    return [
        ({"lrs": [lr], **own, **({"horizons": [h]} if h != 1 else {})}, found[h][k])
        for h in wanted
        for k, lr in enumerate(call["lrs"])
    ]


def at_edge(settings: dict, method: str) -> bool:
    """Say whether a chosen setting is an end of what was tried."""
    tried = {"lrs": [lr for call in METHODS[method] for lr in call["lrs"]], "strength": STRENGTHS, "horizons": HORIZONS}
    ends = {key: (min(values), max(values)) for key, values in tried.items()}
    one = {key: value[0] if isinstance(value, list) else value for key, value in settings.items()}
    return any(one[key] in ends[key] for key in ends if key in one)


def measured(R: Tensor) -> dict:
    """Return what is stored of accuracy matrices: at the end, right after learning, old tasks at the end, by seed."""
    parts = {"accuracy": average_accuracy(R), "plasticity": plasticity(R), "stability": R[..., -1, :-1].mean(-1)}
    return {key: [round(value, 5) for value in values.tolist()] for key, values in parts.items()}


def measure(job: tuple[str, str, str]) -> dict:
    """Tune one method on one stream and run it on fresh seeds; or draw one curve."""
    words, stream, method = job
    torch.set_num_threads(1)
    images = load(words)
    final = STREAMS[stream](images)
    if method in CURVES:
        rows = [scores(final, call, FRESH)[0] for call in CURVES[method]]
        return {"points": [{**settings, **measured(R)} for settings, R in rows]}
    if method == "class means":
        return {"accuracy": _class_means(final)}
    tuning = STREAMS[stream](aside(images))
    if method == "all at once":
        best = int(all_at_once(tuning, TUNING, RATES).mean((1, 2)).argmax())
        reached = all_at_once(final, FRESH, [RATES[best]])[0].mean(-1)
        return {"settings": {"lrs": [RATES[best]]}, "accuracy": [round(value, 5) for value in reached.tolist()]}
    candidates = [pair for call in METHODS[method] for pair in scores(tuning, call, TUNING)]
    settings, _ = max(candidates, key=lambda pair: float(average_accuracy(pair[1]).mean()))
    R = scores(final, settings, FRESH)[0][1]
    return {"settings": settings, "at_edge": at_edge(settings, method), **measured(R)}


def _class_means(stream: TaskStream) -> float:
    """Return the average accuracy of nearest class mean; it needs no seed and no learning rate."""
    x = stream[0].x_train
    means = NearestClassMean(stream.outputs, x.shape[1])
    for task in stream:
        means.add(*task.train)
    right = [(task.answers(means(task.x_test)).argmax(-1) == task.y_test).double().mean() for task in stream]
    return round(float(torch.stack(right).mean()), 5)


def main() -> None:
    """Search, measure, write."""
    every = [*METHODS, "class means", "all at once"]
    sets = [(name, stream) for name in ("digits", "Fashion") for stream in STREAMS]
    sets += [(name + ", standardised", "split, class") for name in ("digits", "Fashion")]
    jobs = [(*one, method) for one in sets for method in every]
    jobs += [("digits", "rotated", curve) for curve in CURVES]
    with ProcessPoolExecutor(2) as pool:
        rows = list(tqdm(pool.map(measure, jobs), total=len(jobs)))
    results: dict[str, dict[str, dict[str, dict]]] = {}
    curves = {}
    for (words, stream, method), row in zip(jobs, rows, strict=True):
        if method in CURVES:
            curves[method] = row["points"]
        else:
            results.setdefault(words, {}).setdefault(stream, {})[method] = row
    about = {
        "command": "python notebooks/sweeps/keeping_old_tasks.py",
        "torch": torch.__version__.split("+")[0],
        "tuning_seeds": list(TUNING),
        "seeds": list(FRESH),
        "candidates": 15,
    }
    print("wrote", save_sweep("keeping_old_tasks", {**about, "results": results, "curves": curves}).name)


if __name__ == "__main__":
    main()
