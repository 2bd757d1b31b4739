"""Slow copies of the weights: equal to the closed form, one horizon a level."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from nlcore.continual import WeightAverages
from nlcore.horizon import share_of_last
from nlcore.levels import order_levels
from nlcore.stacked import StackedMLP

HORIZONS = (1, 2, 10, 250.5)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def walk(model: nn.Module, averages: WeightAverages, steps: int) -> list[dict[str, torch.Tensor]]:
    """Move the weights at random and return where they were, the start first."""
    path = [{name: W.detach().clone() for name, W in model.named_parameters()}]
    for _ in range(steps):
        with torch.no_grad():
            for W in model.parameters():
                W.add_(torch.randn_like(W))
        averages.update()
        path.append({name: W.detach().clone() for name, W in model.named_parameters()})
    return path


@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_level_equals_the_closed_form(horizon: float) -> None:
    model = net()
    averages, T, r = WeightAverages(model, HORIZONS), 40, 1 - 1 / horizon
    path = walk(model, averages, T)
    for name, average in averages.weights_at(horizon).items():
        expected = r**T * path[0][name] + (1 - r) * sum(r ** (T - t) * path[t][name] for t in range(1, T + 1))
        torch.testing.assert_close(average, expected, rtol=1e-12, atol=1e-12)


def test_the_last_h_steps_have_63_percent_of_the_weight() -> None:
    assert share_of_last(1 - 1 / 200, 200) == pytest.approx(1 - 2.718281828**-1, abs=0.001)


def test_the_live_model_is_read_and_never_steered() -> None:
    one, two = net(), net()
    two.load_state_dict(one.state_dict())
    averages = WeightAverages(one, (10,))
    generators = []
    for model in (one, two):
        torch.manual_seed(5)
        walk(model, averages, 5) if model is one else walk(model, WeightAverages(two, (3,)), 5)
        generators.append({name: W.detach().clone() for name, W in model.named_parameters()})
    torch.testing.assert_close(generators[0], generators[1], rtol=0, atol=0)


def test_a_copy_has_the_averaged_weights_and_the_buffers_of_the_learner() -> None:
    model = net()
    averages = WeightAverages(model, (1, 50))
    walk(model, averages, 5)
    model.train()(torch.randn(8, 3, dtype=torch.float64))
    slow, live = averages.model_at(50), averages.model_at(1)
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(live.eval()(x), model.eval()(x))  # horizon 1 is the learner
    assert torch.equal(slow[1].running_mean, model[1].running_mean)
    assert torch.equal(slow[0].weight, averages.weights_at(50)["0.weight"])
    with torch.no_grad():
        slow[0].weight.zero_()
    assert not torch.equal(averages.weights_at(50)["0.weight"], slow[0].weight)  # a copy
    assert not torch.allclose(averages.weights_at(50)["0.weight"], model[0].weight)


def test_runs_side_by_side_are_averaged_as_they_would_be_alone() -> None:
    stack = StackedMLP((3, 2), seeds=[0, 1], dtype=torch.float64)
    averages = WeightAverages(stack, (4,))
    walk(stack, averages, 3)
    assert averages.model_at(4)(torch.randn(5, 3, dtype=torch.float64)).shape == (1, 2, 5, 2)


def test_saved_and_loaded_the_levels_go_on_alike() -> None:
    model = net()
    one = WeightAverages(model, HORIZONS)
    walk(model, one, 3)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = WeightAverages(model, HORIZONS)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        model[0].weight.add_(1.0)
    for averages in (one, other):
        averages.update()
    for horizon in HORIZONS:
        torch.testing.assert_close(one.weights_at(horizon), other.weights_at(horizon), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"have the horizons \(1, 2, 10, 250.5\), these \(5,\)"):
        WeightAverages(model, (5,)).load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="of a model with the weights"):
        WeightAverages(nn.Linear(2, 2), HORIZONS).load_state_dict(one.state_dict())


def test_by_definition_2_all_averages_have_the_frequency_of_the_learner() -> None:
    averages = WeightAverages(net(), (100, 500))
    first, second = order_levels(averages.levels())
    assert [part.name for part in first] == ["live weights"]
    assert [part.name for part in second] == ["average over 100 steps", "average over 500 steps"]
    assert {part.frequency for part in (*first, *second)} == {1.0} and "average over 500 steps" in repr(averages)


def test_bad_input_is_refused_with_words() -> None:
    for horizons in ((), (0.5, 2), (10, 5), (5, 5), (float("nan"),)):
        with pytest.raises(ValueError, match="rising numbers of steps, each at least 1"):
            WeightAverages(net(), horizons)
    with pytest.raises(ValueError, match="horizon must be one of 100, 200, 500, 1000; got 300"):
        WeightAverages(net()).model_at(300)
