"""A contest: every optimizer of the course trains the same small network, and all get the same search for settings.

Each optimizer brings two variants (one setting of its own that matters, at two values) and a first grid of eight
learning rates, each 1.58 times the one before: 16 candidates. A candidate at an end of the grid cannot be called best,
so while the best one is there the grid grows by one rate on that side; the rule is the same for all. Candidates are
compared by the loss on images kept aside, on tuning seeds; the result is measured on test images and other seeds.
The control is to standardise the pixels: that takes the common part out of all images, which every gradient shows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.optimizers import DGD, M3, SGD, Adam, AdamW, DeepMomentum, DeltaMomentum, Momentum, MultiscaleMomentum, Muon
from nlcore.tasks import Images
from nlcore.training import accuracy, batches, evaluate

HIDDEN, BATCH, KEPT = 32, 32, 300
FACTOR = 10**0.2


@dataclass(frozen=True)
class Contestant:
    """How to make an optimizer for a model, its two variants, and its lowest learning rate in the first grid."""

    make: Callable[..., torch.optim.Optimizer]
    variants: tuple[dict[str, Any], dict[str, Any]]
    lowest: float


def _of_parameters(kind: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    return lambda model, **settings: kind(model.parameters(), **settings)


def _of_matrices(kind: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The biases go to AdamW at a fixed rate that is good for it, so that one rate is searched, as for all others."""
    return lambda model, **settings: kind(model.parameters(), adamw_lr=0.003, **settings)


CONTESTANTS: dict[str, Contestant] = {
    "SGD": Contestant(_of_parameters(SGD), ({}, {"weight_decay": 1e-3}), 0.05),
    "momentum": Contestant(_of_parameters(Momentum), ({"beta": 0.9}, {"beta": 0.97}), 0.005),
    "Adam": Contestant(_of_parameters(Adam), ({"betas": (0.9, 0.999)}, {"betas": (0.95, 0.99)}), 0.001),
    "AdamW": Contestant(_of_parameters(AdamW), ({"weight_decay": 0.01}, {"weight_decay": 0.1}), 0.001),
    "delta momentum": Contestant(_of_parameters(DeltaMomentum), ({"erase": 0.3}, {"erase": 0.9}), 0.01),
    "deep momentum": Contestant(_of_parameters(DeepMomentum), ({"memory_lr": 0.1}, {"memory_lr": 0.5}), 0.05),
    "Muon": Contestant(_of_matrices(Muon), ({"beta": 0.9}, {"beta": 0.95}), 0.005),
    "slow + fast": Contestant(_of_parameters(MultiscaleMomentum), ({"period": 10}, {"period": 30}), 0.05),
    "M3": Contestant(_of_matrices(M3), ({"eps": 1e-2}, {"eps": 1e-1}), 1e-4),  # why so large: notebook 05
    "M3 without V": Contestant(
        lambda model, **settings: _of_matrices(M3)(model, second_moment=False, **settings),
        ({"period": 10}, {"period": 30}),
        0.005,
    ),
    "M3 as printed": Contestant(
        lambda model, **settings: _of_matrices(M3)(model, mode="literal", **settings),
        ({"eps": 1e-2}, {"eps": 1e-1}),
        4e-4,
    ),
    "DGD": Contestant(
        lambda model, **settings: DGD(model.parameters(), model=model, **settings),
        ({}, {"weight_decay": 1e-3}),
        0.2,
    ),
}


def standardised(images: Images) -> Images:
    """Return the images with each pixel shifted and divided so that its mean is 0 and its spread 1.

    Mean and spread are of the training images that are not kept aside. A pixel that never changes is only shifted.
    """
    seen = images.x_train[KEPT:]
    mean, spread = seen.mean(0), seen.std(0)
    spread = torch.where(spread > 0, spread, 1.0)
    return replace(images, x_train=(images.x_train - mean) / spread, x_test=(images.x_test - mean) / spread)


def network(images: Images, seed: int) -> nn.Sequential:
    """Return the network of this seed: pixels, 32 hidden units with ReLU, 10 classes; on the device of the images."""
    sizes = (images.x_train.shape[1], HIDDEN, len(images.names))
    model = nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:]))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, d_in in zip(model.parameters(), (sizes[0], sizes[0], HIDDEN, HIDDEN), strict=True):
            parameter.uniform_(-(d_in**-0.5), d_in**-0.5, generator=generator)
    return model.to(images.x_train)


def compete(
    name: str, settings: dict[str, Any], images: Images, seed: int, steps: int, tuning: bool
) -> dict[str, float]:
    """Train one network and measure it.

    Args     name: a key of CONTESTANTS. settings: "lr" and a variant. images: what to learn; the first 300 training
             images are kept aside. seed: of start weights and order. steps: batches of 32. tuning: measure on the
             images kept aside, instead of the test images.
    Returns  {"loss", "accuracy"}; a run that diverges has an infinite loss.
    Raises   ValueError for an unknown name.
    """
    if name not in CONTESTANTS:
        raise ValueError(f"expected one of {', '.join(CONTESTANTS)}; got {name!r}")
    model = network(images, seed)
    optimizer = CONTESTANTS[name].make(model, **settings)
    x, y = images.x_train[KEPT:], images.y_train[KEPT:]
    kept = (images.x_train[:KEPT], images.y_train[:KEPT])
    measured = kept if tuning else (images.x_test, images.y_test)
    try:
        _train(model, optimizer, x, y, steps, seed)
    except FloatingPointError:  # a gradient that is not finite: this run has diverged
        return {"loss": float("inf"), "accuracy": 0.0}
    loss = evaluate(model, *measured)
    return {"loss": loss if loss == loss else float("inf"), "accuracy": accuracy(model, *measured)}


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int, seed: int) -> None:
    for rows in batches(len(x), BATCH, steps, torch.Generator().manual_seed(seed)):
        optimizer.zero_grad()
        chosen = rows.to(x.device)
        cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()


def step_times(images: Images, rounds: int = 40, steps: int = 30) -> dict[str, float]:
    """Return the microseconds of process CPU time of one whole training step with each optimizer.

    They take turns in each round, so that a busy machine slows them alike; the median of the rounds is returned.

    Args     images: what is learned. rounds: how many are measured; one more warms up. steps: in each round, a multiple
             of the slow periods, so that slow memories are paid for.
    """
    models = {name: network(images, 0) for name in CONTESTANTS}
    optimizers = {name: one.make(models[name], lr=one.lowest, **one.variants[0]) for name, one in CONTESTANTS.items()}
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for seed in range(rounds + 1):
        for name, model in models.items():
            begin = time.process_time()
            _train(model, optimizers[name], images.x_train, images.y_train, steps, seed)
            times[name].append((time.process_time() - begin) / steps * 1e6)
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def search(name: str, images: Images, seeds: range, steps: int, rates: int = 8, most: int = 16) -> dict[str, Any]:
    """Return the settings of this optimizer that are best on the tuning seeds.

    Args     as in `compete`. rates: learning rates in the first grid. most: the grid grows to at most this many.
    Returns  {"settings", "tried" candidates, "at_edge": whether the best rate is still the first or the last}.
    """
    contestant = CONTESTANTS[name]
    first, last = 0, rates - 1
    losses: dict[tuple[int, int], float] = {}
    while True:
        for place in range(first, last + 1):
            for variant, own in enumerate(contestant.variants):
                if (place, variant) not in losses:
                    settings = {"lr": contestant.lowest * FACTOR**place, **own}
                    runs = [compete(name, settings, images, seed, steps, tuning=True)["loss"] for seed in seeds]
                    losses[place, variant] = sum(runs) / len(runs)
        place, variant = min(losses, key=lambda key: losses[key])
        at_edge = place in (first, last)
        if not at_edge or last - first + 1 >= most:
            settings = {"lr": contestant.lowest * FACTOR**place, **contestant.variants[variant]}
            return {"settings": settings, "tried": len(losses), "at_edge": at_edge}
        first, last = (first - 1, last) if place == first else (first, last + 1)
