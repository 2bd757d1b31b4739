"""Learning task after task: the loop, its baselines together, and the row of accuracies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nlcore.continual import EWC, Reservoir, WeightAverages, accuracies, study
from nlcore.metrics import accuracy_matrix, average_accuracy, forgetting
from nlcore.stacked import StackedMLP
from nlcore.tasks import TaskStream, digits, split_classes
from nlcore.training import accuracy, batches, fit

IMAGES = digits()


def network(outputs: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, outputs))


def learn_all(stream: TaskStream, capacity: int = 0, steps: int = 80) -> torch.Tensor:
    model = network(stream.outputs)
    optimizer, generator = torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator().manual_seed(0)
    replay = Reservoir(capacity) if capacity else None

    def learn(i: int) -> torch.Tensor:
        study(model, optimizer, stream[i], steps=steps, generator=generator, replay=replay)
        return accuracies(model, stream)

    return accuracy_matrix(learn, tasks=len(stream))


def test_plain_learning_is_the_loop_of_training() -> None:
    stream = split_classes(IMAGES)
    nets = [network(10), network(10)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]
    orders = [torch.Generator().manual_seed(1) for _ in nets]
    losses = study(nets[0], optimizers[0], stream[0], steps=12, generator=orders[0])
    assert losses == fit(nets[1], optimizers[1], *stream[0].train, steps=12, batch_size=16, generator=orders[1])


def test_accuracies_are_those_of_each_task() -> None:
    stream, model = split_classes(IMAGES), network(10)
    expected = [accuracy(model, *task.test) for task in stream]
    assert accuracies(model, stream).tolist() == expected
    side_by_side = StackedMLP((64, 8, 10), seeds=[0, 1, 2], settings=2)
    assert accuracies(side_by_side, stream).shape == (2, 3, 5)
    outputs = side_by_side(stream[1].x_test)[1, 2]
    assert accuracies(side_by_side, stream)[1, 2, 1] == (outputs.argmax(-1) == stream[1].y_test).double().mean()


def test_plain_descent_forgets_and_replay_keeps() -> None:
    stream = split_classes(IMAGES)
    plain, replayed = learn_all(stream), learn_all(stream, capacity=100)
    assert average_accuracy(plain) < 0.35 and forgetting(plain) > 0.8
    assert average_accuracy(replayed) > 0.8 and forgetting(replayed) < 0.2


def test_a_model_that_is_told_the_task_forgets_less() -> None:
    told, not_told = (learn_all(split_classes(IMAGES, scenario=scenario)) for scenario in ("task", "class"))
    assert average_accuracy(told) > average_accuracy(not_told) + 0.4


def test_old_examples_of_other_tasks_keep_the_outputs_that_may_answer() -> None:
    stream, replay, model = split_classes(IMAGES, scenario="task"), Reservoir(50), network(10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for task in stream.tasks[:2]:
        losses = study(model, optimizer, task, steps=20, replay=replay)
        assert all(torch.isfinite(torch.tensor(losses)))
    _, y, allowed = replay.columns
    assert replay.seen == sum(len(task.y_train) for task in stream.tasks[:2])
    assert (allowed.sum(-1) == 2).all() and allowed[torch.arange(50), y].all()


def test_a_step_with_replay_is_the_mean_over_new_and_old_each_among_its_own_outputs() -> None:
    stream, replay, twin, model = split_classes(IMAGES, scenario="task"), Reservoir(50), Reservoir(50), network(10)
    optimizer, orders = torch.optim.SGD(model.parameters(), lr=0.1), [torch.Generator().manual_seed(2) for _ in "ab"]
    study(model, optimizer, stream[0], steps=1, replay=replay)
    twin.load_state_dict(replay.state_dict())
    rows = next(batches(len(stream[1].y_train), 16, 1, orders[0]))
    x_old, y_old, _ = twin.sample(16)
    new = stream[1].loss(model(stream[1].x_train[rows]), stream[1].y_train[rows])
    old = stream[0].loss(model(x_old), y_old)
    (loss,) = study(model, optimizer, stream[1], steps=1, generator=orders[1], replay=replay)
    assert loss == pytest.approx(((new + old) / 2).item(), rel=1e-5)


def test_penalties_and_averages_plug_in() -> None:
    stream, model = split_classes(IMAGES), network(10)
    optimizer, ewc = torch.optim.SGD(model.parameters(), lr=0.05), EWC(model, strength=10.0)
    averages = WeightAverages(model, (50,))
    study(model, optimizer, stream[0], steps=60, on_step=lambda _: averages.update())
    ewc.remember(stream[0].x_train)
    before = [W.detach().clone() for W in model.parameters()]
    free = network(10)
    free.load_state_dict(model.state_dict())
    study(model, optimizer, stream[1], steps=60, penalty=ewc.penalty, on_step=lambda _: averages.update())
    study(free, torch.optim.SGD(free.parameters(), lr=0.05), stream[1], steps=60)
    held = EWC(free, strength=10.0)
    held.load_state_dict(ewc.state_dict())
    assert ewc.penalty() < held.penalty()  # the free model moved further where it mattered
    assert any(not torch.equal(W, old) for W, old in zip(model.parameters(), before, strict=True))
    assert accuracies(averages.model_at(50), stream)[0] > accuracies(model, stream)[0]


def test_a_diverging_run_says_so() -> None:
    stream, model = split_classes(IMAGES), network(10)
    with pytest.raises(FloatingPointError, match="try a smaller lr or a weaker penalty"):
        study(model, torch.optim.SGD(model.parameters(), lr=1e20), stream[0], steps=50)
    with pytest.raises(ValueError, match="batch_size"):
        study(model, torch.optim.SGD(model.parameters(), lr=0.1), stream[0], steps=1, batch_size=10_000)
    with pytest.raises(ValueError, match="needs a model with 10 outputs"):
        accuracies(network(3), stream)
