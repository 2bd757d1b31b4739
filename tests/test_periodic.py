"""Optimizers that step once in a period: what they step on, when, and that they can stop in between."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nlcore.levels import UpdateTrace, order_levels
from nlcore.optimizers import DGD, M3, SGD, Adam, AdamW, Momentum, Muon, PeriodicOptimizer
from tests.small_net import loss_of, net, train

T = torch.optim
Maker = Callable[..., T.Optimizer]


def assert_same(a: nn.Module, b: nn.Module, atol: float = 1e-14) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=atol)


def slow_and_fast(model: nn.Sequential, make: Maker = Adam, period: int = 4, **settings: str) -> PeriodicOptimizer:
    return PeriodicOptimizer([make(model[0].parameters()), make(model[2].parameters())], [period, 1], **settings)


def test_each_optimizer_steps_once_in_its_period() -> None:
    model = net()
    layers = {"slow": model[0], "middle": model[2]}
    optimizer = PeriodicOptimizer([SGD(o.parameters(), lr=0.1) for o in layers.values()], [4, 3])
    trace = UpdateTrace({name: list(layer.parameters()) for name, layer in layers.items()})
    for step in range(12):
        train(model, optimizer, range(step, step + 1))
        trace.record()
    assert trace.moved[:, 0].tolist() == [step % 4 == 0 for step in range(1, 13)]
    assert trace.moved[:, 1].tolist() == [step % 3 == 0 for step in range(1, 13)]


@pytest.mark.parametrize("make", [SGD, Momentum, Adam, AdamW, Muon, M3, T.SGD, T.Adam, T.AdamW])
def test_period_one_is_the_optimizer_itself(make: Maker) -> None:
    a, b = net(), net()
    train(a, PeriodicOptimizer([make(a.parameters(), lr=0.01)], [1]), range(5))
    train(b, make(b.parameters(), lr=0.01), range(5))
    assert_same(a, b)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("make", [SGD, Momentum, Adam, M3, T.AdamW])
def test_a_step_is_one_of_the_optimizer_on_all_gradients_of_the_period(make: Maker, reduction: str) -> None:
    a, b, period = net(), net(), 3
    train(a, PeriodicOptimizer([make(a.parameters(), lr=0.01)], [period], reduction), range(2 * period))
    optimizer = make(b.parameters(), lr=0.01)
    for chunk in range(2):
        optimizer.zero_grad()
        losses = sum(loss_of(b, step) for step in range(chunk * period, (chunk + 1) * period))
        (losses if reduction == "sum" else losses / period).backward()
        optimizer.step()
    assert_same(a, b, atol=1e-11)  # Newton-Schulz enlarges the rounding of a sum


def test_delta_gradient_descent_sees_the_inputs_of_its_whole_period() -> None:
    a, b, period = net(), net(), 3
    optimizer = PeriodicOptimizer([DGD(a.parameters(), lr=0.1, model=a)], [period], "mean")
    train(a, optimizer, range(2 * period))
    plain = DGD(b.parameters(), lr=0.1, model=b)
    for chunk in range(2):
        plain.zero_grad()
        for step in range(chunk * period, (chunk + 1) * period):
            (loss_of(b, step) / period).backward()
        plain.step()
    assert_same(a, b)


def test_the_sum_of_plain_steps_is_the_mean_with_a_period_times_larger_rate() -> None:
    a, b = net(), net()
    train(a, PeriodicOptimizer([SGD(a.parameters(), lr=0.01)], [5]), range(10))
    train(b, PeriodicOptimizer([SGD(b.parameters(), lr=0.05)], [5], "mean"), range(10))
    assert_same(a, b)


def test_the_gradients_of_the_caller_stay_as_they_were() -> None:
    model = net()
    optimizer = slow_and_fast(model, period=2)
    for step in range(2):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        before = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("make", [Momentum, Adam, M3, T.AdamW])
@pytest.mark.parametrize("cut", range(1, 9))
def test_it_goes_on_from_a_saved_state_also_inside_a_period(make: Maker, cut: int) -> None:
    whole = net()
    train(whole, slow_and_fast(whole, make), range(12))
    first = net()
    optimizer = slow_and_fast(first, make)
    train(first, optimizer, range(cut))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = net()
    second.load_state_dict(saved["model"])
    again = slow_and_fast(second, make)
    again.load_state_dict(saved["optimizer"])
    train(second, again, range(cut, 12))
    assert_same(second, whole)


def test_a_loaded_state_is_a_copy() -> None:
    model = net()
    optimizer = slow_and_fast(model)
    train(model, optimizer, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    other = net()
    again = slow_and_fast(other)
    again.load_state_dict(saved)
    train(other, again, range(1))
    for kept, original in zip(saved["summed"][0], optimizer.state_dict()["summed"][0], strict=True):
        assert torch.equal(kept, original)


@pytest.mark.parametrize("make", [Adam, T.Adam])
def test_schedulers_reach_the_groups_of_all_optimizers(make: Maker) -> None:
    model, reference = net(), net()
    optimizer = slow_and_fast(model, make, period=1)
    scheduler = T.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    train(model, optimizer, range(5), scheduler)
    assert [group["lr"] for one in optimizer.optimizers for group in one.param_groups] == [0.00025, 0.00025]
    plain = make(reference.parameters())
    train(reference, plain, range(5), T.lr_scheduler.StepLR(plain, step_size=2, gamma=0.5))
    assert_same(model, reference)


def test_schedulers_still_reach_them_after_loading() -> None:
    optimizer = slow_and_fast(net())
    optimizer.load_state_dict(slow_and_fast(net()).state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    assert [group["lr"] for one in optimizer.optimizers for group in one.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_flush_steps_on_what_waits(reduction: str) -> None:
    a, b = net(), net()
    optimizer = PeriodicOptimizer([SGD(a.parameters(), lr=0.1)], [5], reduction)
    train(a, optimizer, range(3))
    assert_same(a, b)
    optimizer.flush()
    optimizer.flush()  # nothing waits any more
    plain = SGD(b.parameters(), lr=0.1)
    loss = sum(loss_of(b, step) for step in range(3))
    (loss if reduction == "sum" else loss / 3).backward()
    plain.step()
    assert_same(a, b)
    assert optimizer.waiting == [0]


def test_weights_without_a_gradient_are_left_alone() -> None:
    model, unused = net(), nn.Parameter(torch.ones(2))
    optimizer = PeriodicOptimizer([SGD([*model.parameters(), unused], lr=0.1, weight_decay=0.1)], [2])
    train(model, optimizer, range(4))
    assert unused.grad is None and torch.equal(unused, torch.ones(2))


def test_a_closure_is_called_once_a_step() -> None:
    model, calls = net(), []
    optimizer = slow_and_fast(model)

    def closure() -> torch.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    expected = loss_of(model, 0).item()
    assert optimizer.step(closure).item() == expected
    assert len(calls) == 1


def test_levels_are_as_many_times_slower_as_the_period_says() -> None:
    model = net()
    optimizer = PeriodicOptimizer([M3(model[0].parameters(), period=3), T.SGD(model[2].parameters(), lr=0.1)], [4, 2])
    ordered = [[(part.name[:2], part.period) for part in level] for level in order_levels(optimizer.levels())]
    assert ordered[0] == [("2:", 2)]
    assert {period for level in ordered for name, period in level if name == "1:"} == {4, 12}
    assert "every 12 steps" in repr(optimizer)


def test_a_gradient_that_is_not_finite_is_refused_before_anything_is_collected() -> None:
    model = net()
    optimizer = slow_and_fast(model)
    train(model, optimizer, range(1))
    before = copy.deepcopy((optimizer.state_dict(), model.state_dict()))
    model[0].weight.grad[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        optimizer.step()
    assert str(before) == str((optimizer.state_dict(), model.state_dict()))


def test_a_step_that_fails_loses_no_gradient() -> None:
    model = net()
    optimizer = PeriodicOptimizer([Adam(model.parameters())], [2])
    train(model, optimizer, range(1))
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr"):
        train(model, optimizer, range(1))
    assert all(row is not None for row in optimizer.state_dict()["summed"][0])
    assert all(p.grad is not None for p in model.parameters())


def test_bad_settings_are_refused() -> None:
    model = net()
    one = SGD(model.parameters(), lr=0.1)
    for optimizers, periods, error, words in [
        ([], [], TypeError, "one or more optimizers"),
        ([model], [1], TypeError, "got .'Sequential'."),
        ([one], [0], ValueError, "a period must be at least 1, got 0"),
        ([one], [1.5], TypeError, "whole number"),
        ([one], [1, 2], ValueError, "one period for each of the 1 optimizers, got 2"),
        ([one, SGD(model[0].parameters(), lr=0.1)], [1, 2], ValueError, "belongs to two"),
    ]:
        with pytest.raises(error, match=words):
            PeriodicOptimizer(optimizers, periods)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one of 'sum', 'mean'"):
        PeriodicOptimizer([one], [2], reduction="max")
    optimizer = PeriodicOptimizer([one], [2])
    with pytest.raises(TypeError, match="the optimizer it belongs to"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(ValueError, match="periods .2., got .3."):
        optimizer.load_state_dict(PeriodicOptimizer([one], [3]).state_dict())
    with pytest.raises(ValueError, match="weights of the optimizers, got"):
        optimizer.load_state_dict(PeriodicOptimizer([SGD(model[0].parameters(), lr=0.1)], [2]).state_dict())
