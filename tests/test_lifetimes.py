"""Whole lives side by side: each is what `study` does alone, with and without its helpers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nlcore.continual import EWC, Reservoir, WeightAverages, accuracies, all_at_once, lifetimes, study
from nlcore.continual.lifetimes import HIDDEN, LOOKED_AT
from nlcore.metrics import accuracy_matrix, average_accuracy
from nlcore.stacked import StackedMLP
from nlcore.sweeps import load_sweep
from nlcore.tasks import TaskStream, digits, permuted_pixels, split_classes

SEEDS, RATES = (3, 8), (0.05, 0.2)


def short(scenario: str = "class") -> TaskStream:
    images = digits(dtype=torch.float64)
    if scenario == "permuted":
        return permuted_pixels(images, 3)
    whole = split_classes(images, scenario=scenario)
    return TaskStream(whole.name, whole.tasks[:3], whole.outputs)


def alone(stream: TaskStream, seed: int, lr: float, replay: int, strength: float, horizon: int | None) -> torch.Tensor:
    """Live one life with the loop for a single network."""
    weights = StackedMLP((64, HIDDEN, stream.outputs), [seed], dtype=torch.float64).weights()
    net = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, stream.outputs)).double()
    with torch.no_grad():
        for parameter, start in zip(net.parameters(), weights, strict=True):
            parameter.copy_(start.reshape(parameter.shape))
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    store = Reservoir(replay, seed) if replay else None
    ewc, averages = EWC(net, strength), WeightAverages(net, (horizon or 5,))
    generator, rows = torch.Generator().manual_seed(seed), []

    def after(_: int) -> None:
        ewc.pull(lr)
        averages.update()

    for task in stream:
        study(net, optimizer, task, steps=7, generator=generator, replay=store, on_step=after)
        if strength:
            ewc.remember(task.x_train[:LOOKED_AT], allowed=task.allowed)
        rows.append(accuracies(averages.model_at(horizon) if horizon else copy.deepcopy(net), stream))
    return accuracy_matrix(rows)


@pytest.mark.parametrize("scenario", ["class", "task", "permuted"])
@pytest.mark.parametrize(
    ("helper", "horizon"), [({}, None), ({"replay": 20}, None), ({"strength": 30.0}, None), ({"horizons": (5,)}, 5)]
)
def test_each_life_is_what_study_does_alone(scenario: str, helper: dict, horizon: int | None) -> None:
    stream = short(scenario)
    rates = RATES[:1] if "strength" in helper else RATES
    together = lifetimes(stream, SEEDS, rates, steps=7, **helper)[horizon or 1]
    assert together.shape == (len(rates), 2, 3, 3)
    for k, lr in enumerate(rates):
        for r, seed in enumerate(SEEDS):
            one = alone(stream, seed, lr, helper.get("replay", 0), helper.get("strength", 0.0), horizon)
            torch.testing.assert_close(together[k, r], one, rtol=0, atol=1e-9)


def test_learned_all_at_once_nothing_is_old() -> None:
    reached = all_at_once(short("task"), SEEDS, [0.2], steps=60)
    assert reached.shape == (1, 2, 3) and reached.min() > 0.8


def test_ewc_wants_one_learning_rate() -> None:
    with pytest.raises(ValueError, match="one learning rate, got 2: call once for each"):
        lifetimes(short(), SEEDS, RATES, strength=10.0)


@pytest.mark.parametrize("method", ["plain", "replay 50", "EWC"])
def test_the_stored_sweep_is_what_comes_out_again(method: str) -> None:
    record = load_sweep("keeping_old_tasks")
    stored = record["results"]["digits"]["split, class"][method]
    again = average_accuracy(lifetimes(split_classes(digits()), range(2), **stored["settings"])[1][0])
    assert record["seeds"][:2] == [0, 1] and len(stored["accuracy"]) == len(record["seeds"]) == 12
    assert again.tolist() == pytest.approx(stored["accuracy"][:2], abs=0.03)
