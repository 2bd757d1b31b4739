"""Two rates of learning: equal to the formula, and what was covered comes back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nlcore.continual import TwoRates
from nlcore.levels import UpdateTrace, order_levels
from nlcore.optimizers import SGD

SETTINGS = {"lr": 0.3, "slow_lr": 0.05, "decay": 0.1, "period": 4}


def run(W: Tensor, optimizer: torch.optim.Optimizer, gradients: Tensor) -> None:
    for g in gradients:
        W.grad = g.clone()
        optimizer.step()


def fresh(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("steps", [1, 4, 11])
def test_both_levels_equal_the_closed_form(steps: int) -> None:
    W, gradients = fresh(3, 2), torch.randn(steps, 3, 2, dtype=torch.float64)
    start = W.detach().clone()
    optimizer = TwoRates([W], **SETTINGS)
    run(W, optimizer, gradients)
    ages = torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    fast = -0.3 * (0.9 ** ages.reshape(-1, 1, 1) * gradients).sum(0)
    slow = start - 0.05 * gradients[: steps - steps % 4].sum(0)  # only whole chunks have been written
    parts = optimizer.parts()
    torch.testing.assert_close(parts["fast"], [fast], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(parts["slow"], [slow], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(W.detach(), slow + fast, rtol=1e-12, atol=1e-13)


def test_without_fading_and_slow_level_it_is_gradient_descent() -> None:
    gradients = torch.randn(9, 5, dtype=torch.float64)
    one = fresh(5)
    other = one.detach().clone().requires_grad_()
    run(one, TwoRates([one], lr=0.2, slow_lr=0.0, decay=0.0), gradients)
    run(other, SGD([other], lr=0.2), gradients)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("before", [3, 4, 6])
@pytest.mark.parametrize("rest", [1, 2, 30])
def test_rest_is_that_many_steps_with_no_gradient(before: int, rest: int) -> None:
    gradients = torch.randn(before, 5, dtype=torch.float64)
    one = fresh(5)
    other = one.detach().clone().requires_grad_()
    resting, stepping = TwoRates([one], **SETTINGS), TwoRates([other], **SETTINGS)
    run(one, resting, gradients)
    run(other, stepping, gradients)
    resting.rest(rest)
    run(other, stepping, torch.zeros(rest, 5, dtype=torch.float64))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(resting.parts(), stepping.parts(), rtol=1e-12, atol=1e-13)


def test_practise_a_then_b_then_rest_and_a_comes_back() -> None:
    """The smallest case: one number should be 1 for task A, -1 for task B."""
    answers = {}
    for decay in (0.05, 0.0):
        W = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = TwoRates([W], lr=0.3, slow_lr=0.02, decay=decay, period=1)
        for goal, steps in ((1.0, 500), (-1.0, 15)):
            for _ in range(steps):
                optimizer.zero_grad()
                (0.5 * (W - goal) ** 2).sum().backward()
                optimizer.step()
        learned_b = W.item()
        optimizer.rest(300)
        answers[decay] = (learned_b, W.item())
    assert answers[0.05][0] < -0.6 and answers[0.05][1] > 0.5  # B is answered, then A again
    assert answers[0.0][0] == answers[0.0][1] < -0.6  # nothing fades, nothing comes back


@pytest.mark.parametrize("at", [2, 4])
def test_saved_and_loaded_it_goes_on_alike(at: int) -> None:
    gradients = torch.randn(9, 5, dtype=torch.float64)
    one = fresh(5)
    first = TwoRates([one], **SETTINGS)
    run(one, first, gradients[:at])
    other = one.detach().clone().requires_grad_()
    second = TwoRates([other])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for W, optimizer in ((one, first), (other, second)):
        run(W, optimizer, gradients[at:])
        optimizer.rest(3)
    assert torch.equal(one, other)


def test_it_works_in_an_ordinary_loop_with_groups_closures_and_schedulers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    groups = [{"params": model[0].parameters(), "period": 8}, {"params": model[2].parameters(), "lr": 0.1}]
    optimizer = TwoRates(groups, **SETTINGS)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    x, y = torch.randn(16, 3), torch.randint(2, (16,))
    trace = UpdateTrace(optimizer.parts())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    losses = []
    for _ in range(16):
        losses.append(optimizer.step(closure).item())
        scheduler.step()
        trace.record()
    assert losses[-1] < losses[0]
    assert trace.updates() == {"slow": 4, "fast": 16}  # the shorter period of the two groups
    assert [[part.name for part in level] for level in order_levels(optimizer.levels())] == [
        ["fast weights F"], ["slow weights S, period 4"], ["slow weights S, period 8"],
    ]  # fmt: skip
    assert "decay=0.1" in repr(optimizer)


def test_bad_input_is_refused_with_words() -> None:
    W = fresh(2)
    for name, value in (("lr", -1.0), ("slow_lr", -1.0), ("decay", -0.1), ("decay", 1.5), ("period", 0)):
        with pytest.raises(ValueError, match=name):
            TwoRates([W], **{name: value})
    optimizer = TwoRates([W])
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        optimizer.rest(0)
    W.grad = torch.full_like(W, float("nan"))
    with pytest.raises(FloatingPointError, match="nothing was written"):
        optimizer.step()
