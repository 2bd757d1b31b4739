"""Both sides of every equation of notebook 06, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nlcore.course.exercises.nests import collect
from nlcore.levels import UpdateTrace
from nlcore.transfer import (
    adapted_loss,
    backpropagation,
    direct_parametric,
    generation,
    initialisation,
    regression_tasks,
)

SEEDS = range(4)


def random(*shapes: tuple[int, ...], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.equation("06.1")
@pytest.mark.parametrize("seed", SEEDS)
def test_moves_and_drift_are_lengths_of_differences(seed: int) -> None:
    (walk,) = random((30, 3, 4), seed=seed)
    walk[1::3] = 0.0  # at some steps it stays where it is
    w = torch.zeros(3, 4, dtype=torch.float64)
    trace = UpdateTrace({"w": w}, every=1)
    places = [w.clone()]
    for step in walk:
        w += step
        places.append(w.clone())
        trace.record()
    rows = torch.stack(places).flatten(1)
    gram = rows @ rows.mT  # |a - b|^2 = a.a - 2 a.b + b.b
    length = (gram.diagonal()[:, None] - 2 * gram + gram.diagonal()).clamp(min=0).sqrt()
    torch.testing.assert_close(trace.moves[:, 0], length.diagonal(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(trace.drift[:, 0], length[0, 1:], rtol=1e-9, atol=1e-9)


@pytest.mark.equation("06.2")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("period", [1, 3, 8])
def test_a_level_moves_by_the_sum_of_its_period(seed: int, period: int) -> None:
    (signals,) = random((24,), seed=seed)
    left, collected, right = 0.3, 0.0, torch.tensor(0.3, dtype=torch.float64)
    for step in range(1, 25):
        left, collected = collect(left, collected, left - signals[step - 1].item(), step, period, 0.1)
        if step % period == 0:
            chunk = signals[step - period : step]
            right = right - 0.1 * (right - chunk).sum()
        assert left == pytest.approx(right.item(), rel=1e-12, abs=1e-14)


@pytest.mark.equation("06.3")
@pytest.mark.parametrize("period", [1, 4, 64])
@pytest.mark.parametrize("rate", [0.001, 0.02, 0.5])
def test_a_period_in_a_bowl(period: int, rate: float) -> None:
    curvature, w = 1.7, torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=rate)
    for _ in range(period):
        (curvature * w.square() / 2).backward()  # PyTorch adds the gradients up
    optimizer.step()
    assert w.item() == pytest.approx((1 - period * rate * curvature) * 2.0, rel=1e-11)


@pytest.mark.equation("06.4")
@pytest.mark.parametrize("period", [2, 8, 64])
def test_many_small_steps_in_a_bowl_and_where_they_part(period: int) -> None:
    def steps(rate: float) -> float:
        w, collected = 1.0, 0.0
        for step in range(1, period + 1):
            w, collected = collect(w, collected, 1.7 * w, step, 1, rate)
        return w

    rates = torch.tensor([1e-3, 0.5e-3], dtype=torch.float64) / period
    for rate in (*rates.tolist(), 0.05):
        assert steps(rate) == pytest.approx((1 - rate * 1.7) ** period, rel=1e-12)
    gaps = [steps(rate) - (1 - period * rate * 1.7) for rate in rates.tolist()]
    assert gaps[0] / gaps[1] == pytest.approx(
        4.0, rel=1e-2
    )  # equal to first order: half the rate, a quarter of the gap


@pytest.mark.equation("NL 26")
@pytest.mark.parametrize("seed", SEEDS)
def test_linear_attention_is_a_slow_query_to_a_fast_memory(seed: int) -> None:
    x, W_q, W_k, W_v = random((7, 3), (3, 3), (3, 3), (3, 3), seed=seed)
    right = torch.tril((x @ W_q.T) @ (x @ W_k.T).T) @ (x @ W_v.T)  # each query meets the keys so far, no memory at all
    torch.testing.assert_close(direct_parametric(x, W_q, W_k, W_v).y, right, rtol=1e-10, atol=1e-12)


@pytest.mark.equation("06.5")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_surprise_comes_through_the_other_block(seed: int) -> None:
    W0, W1, x, target = random((5, 3), (2, 5), (1, 3), (1, 2), seed=seed)
    left = W0 - backpropagation(W0, W1, x, target, periods=(1, 1), lrs=(1.0, 0.0)).W0
    weight = W0.clone().requires_grad_()
    ((W1 @ torch.tanh(weight @ x[0]) - target[0]).square().sum() / 2).backward()
    torch.testing.assert_close(left, weight.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.equation("NL 28")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_learned_start_is_the_minimum_over_the_family(seed: int) -> None:
    x, y = regression_tasks(32, seed=seed)
    left, _ = initialisation(torch.zeros(6, dtype=torch.float64), x, y, seen=4, steps=3, outer_steps=1500)
    true = torch.linalg.lstsq(x, y.unsqueeze(-1)).solution.squeeze(-1)
    A = torch.eye(6, dtype=torch.float64) - 0.1 * x[:, :4].mT @ x[:, :4] / 4
    power = torch.linalg.matrix_power(A, 3)  # w_3 - w* = A^3 (start - w*): the loss is a bowl in the start
    bowl = power.mT @ (x[:, 4:].mT @ x[:, 4:] / 8) @ power
    right = torch.linalg.solve(bowl.mean(0), (bowl @ true.unsqueeze(-1)).mean(0)).squeeze(-1)
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)
    assert adapted_loss(left, x, y, 4, 3) <= adapted_loss(right + 1e-3, x, y, 4, 3)


@pytest.mark.equation("06.6")
@pytest.mark.parametrize("seed", SEEDS)
def test_generated_weights(seed: int) -> None:
    G, c, x = random((2, 3, 4), (4,), (5, 3), seed=seed)
    torch.testing.assert_close(generation(G, c, x).y, torch.einsum("edc,c,td->te", G, c, x), rtol=1e-10, atol=1e-12)
