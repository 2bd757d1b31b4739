"""Stacked networks: every run is exactly what it would be alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nlcore.optimizers import SGD, Adam, AdamW, Momentum
from nlcore.stacked import StackedMLP, fit_stacked, loss_of_each, measure, trials
from nlcore.training import accuracy, evaluate, fit

SIZES, SEEDS, LRS = (6, 5, 3), [3, 8], [0.01, 0.1, 0.3]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (40,), generator=generator)


def alone(stack: StackedMLP, setting: int, seed: int) -> nn.Sequential:
    """One copy as an ordinary network."""
    w1, b1, w2, b2 = (part.detach()[setting, seed].clone() for part in stack.weights())
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for own, given in zip(net.parameters(), (w1, b1[0], w2, b2[0]), strict=True):
            own.copy_(given)
    return net


@pytest.mark.parametrize("optimizer", [SGD, Momentum, Adam, AdamW, torch.optim.Adam, torch.optim.SGD])
def test_each_run_is_what_it_would_be_alone(optimizer: type, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    stack = StackedMLP(SIZES, SEEDS, len(LRS), dtype=torch.float64)
    nets = [[alone(stack, s, r) for r in range(len(SEEDS))] for s in range(len(LRS))]
    losses = fit_stacked(stack, optimizer(stack.groups(lr=LRS)), x, y, steps=30, seeds=SEEDS, batch_size=8)
    found = measure(stack, x, y)
    assert losses.shape == (30, len(LRS), len(SEEDS))
    for s, lr in enumerate(LRS):
        for r, seed in enumerate(SEEDS):
            order, own_optimizer = torch.Generator().manual_seed(seed), optimizer(nets[s][r].parameters(), lr=lr)
            own = fit(nets[s][r], own_optimizer, x, y, steps=30, batch_size=8, generator=order)
            torch.testing.assert_close(losses[:, s, r], torch.tensor(own, dtype=torch.float64), rtol=1e-12, atol=1e-12)
            for mine, theirs in zip(nets[s][r].parameters(), stack.weights(), strict=True):
                torch.testing.assert_close(mine, theirs[s, r].reshape(mine.shape), rtol=1e-12, atol=1e-12)
            assert found["loss"][s, r].item() == pytest.approx(evaluate(nets[s][r], x, y), rel=1e-12)
            assert found["accuracy"][s, r].item() == accuracy(nets[s][r], x, y)


def test_a_run_that_diverges_does_so_alone(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    calm = trials(SGD, [0.1], SEEDS, train=(100 * x, y), test=(x, y), budgets=[20], hidden=5, batch_size=8)
    mixed = trials(SGD, [0.1, 1e300], SEEDS, train=(100 * x, y), test=(x, y), budgets=[20], hidden=5, batch_size=8)
    assert torch.equal(mixed["loss"][:, :1], calm["loss"]) and torch.equal(mixed["accuracy"][:, :1], calm["accuracy"])
    assert (mixed["loss"][0, 1] == math.inf).all() and (mixed["accuracy"][0, 1] == 0).all()


def test_a_seed_starts_alike_in_every_setting_and_whatever_its_neighbours_are() -> None:
    stack = StackedMLP(SIZES, SEEDS, 2)
    other = StackedMLP(SIZES, [SEEDS[1]], 1)
    one, two = stack.settings
    assert torch.equal(one, two) and torch.equal(one[1:], other.settings[0]) and not torch.equal(one[0], one[1])


def test_starts_have_the_spread_of_a_linear_layer() -> None:
    weights, bias = StackedMLP((400, 300), [0]).weights()
    assert bias.shape == (1, 1, 1, 300) and bias.abs().max() <= 1 / 20
    assert weights.abs().max() <= 1 / 20 and weights.std().item() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.02)


def test_inputs_may_be_shared_or_given_for_each_seed(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    stack = StackedMLP(SIZES, SEEDS, 3, dtype=torch.float64)
    assert stack(x).shape == (3, 2, 40, 3)
    torch.testing.assert_close(stack(x.expand(2, -1, -1)), stack(x))
    torch.testing.assert_close(loss_of_each(stack(x), y.expand(2, -1)), loss_of_each(stack(x), y))


def test_trials_measure_at_each_budget_what_a_run_of_that_length_reaches(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    both = trials(Adam, LRS, SEEDS, train=(x, y), test=(x, y), budgets=[5, 12], hidden=4, batch_size=8)
    short = trials(Adam, LRS, SEEDS, train=(x, y), test=(x, y), budgets=[5], hidden=4, batch_size=8)
    assert both["loss"].shape == both["accuracy"].shape == (2, 3, 2)
    assert torch.equal(both["loss"][0], short["loss"][0]) and not torch.equal(both["loss"][0], both["loss"][1])


def test_bad_input_is_refused_with_words(data: tuple[Tensor, Tensor]) -> None:
    stack = StackedMLP(SIZES, SEEDS, 2)
    with pytest.raises(ValueError, match="one value for each of the 2 settings, got 3"):
        stack.groups(lr=LRS)
    for sizes, seeds, settings in [((6,), [0], 1), ((6, 0), [0], 1), (SIZES, [], 1), (SIZES, [0], 0)]:
        with pytest.raises(ValueError, match="at least"):
            StackedMLP(sizes, seeds, settings)
    with pytest.raises(ValueError, match="one seed for each of the 2"):
        fit_stacked(stack, SGD(stack.groups()), *data, steps=1, seeds=[0])
    for budgets in ([], [0], [5, 5], [9, 3]):
        with pytest.raises(ValueError, match="increasing"):
            trials(SGD, [0.1], [0], train=data, test=data, budgets=budgets)
