"""Both sides of every equation of notebook 01, in float64."""

import math

import pytest
import torch
from torch import Tensor

from nlcore.memory import delta, hebbian, read
from nlcore.tasks.facts import best_memory, fast_weights, relative_error

SEEDS = pytest.mark.parametrize("seed", range(5))


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]


def close(left: Tensor, right: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


@pytest.mark.equation("NL 5")
@SEEDS
def test_fast_weights_are_a_fading_sum_of_outer_products(seed: int) -> None:
    keys, values, query, logits = draw(seed, (9, 6), (9, 4), (6,), (9,))
    retain = torch.sigmoid(logits)

    def features(k: Tensor) -> Tensor:
        return torch.nn.functional.elu(k) + 1

    M = torch.zeros(4, 6, dtype=torch.float64)
    for k, v, alpha in zip(keys, values, retain, strict=True):
        M = hebbian(M, features(k), v, retain=alpha)
    left = torch.stack([retain[t + 1 :].prod() for t in range(9)])  # what is left of each write at the end
    unrolled = torch.einsum("t,ti,tj->ij", left, values, features(keys))
    close(M, unrolled)
    close(read(M, features(query)), torch.einsum("t,t,ti->i", left, features(keys) @ features(query), values))


@pytest.mark.equation("NL 6")
@SEEDS
def test_the_best_memory_has_the_least_error_of_all(seed: int) -> None:
    keys, values, push = draw(seed, (20, 6), (20, 4), (4, 6))
    best = best_memory(keys, values)
    close(best, torch.linalg.lstsq(keys, values).solution.mT, 1e-10)

    def objective(M: Tensor) -> Tensor:
        return (keys @ M.mT - values).square().sum()

    (slope,) = torch.autograd.grad(objective(M := best.clone().requires_grad_()), M)
    close(slope, torch.zeros_like(slope), 1e-10)
    assert all(objective(best + size * push) > objective(best) for size in (-1.0, -1e-3, 1e-3, 1.0))


@pytest.mark.equation("01.1")
@SEEDS
def test_the_best_number_is_value_over_key(seed: int) -> None:
    k, v = draw(seed, (1,), (1,))
    close(best_memory(k[None], v[None])[0], v / k)
    m = (v / k).requires_grad_()
    (0.5 * (m * k - v).square()).sum().backward()
    close(m.grad, torch.zeros_like(v))


@pytest.mark.equation("01.2")
@SEEDS
def test_reading_a_single_write_returns_the_value_times_the_squared_length(seed: int) -> None:
    k, v = draw(seed, (6,), (4,))
    empty = torch.zeros(4, 6, dtype=torch.float64)
    close(read(hebbian(empty, k, v), k), k.square().sum() * v)


@pytest.mark.equation("01.3")
@SEEDS
def test_crosstalk_is_the_other_values_weighted_by_likeness(seed: int) -> None:
    keys, values = draw(seed, (7, 6), (7, 4))
    keys = unit(keys)
    M = torch.zeros(4, 6, dtype=torch.float64)
    for k, v in zip(keys, values, strict=True):
        M = hebbian(M, k, v)
    for j in range(7):
        others = [i for i in range(7) if i != j]
        close(read(M, keys[j]), values[j] + sum((keys[i] @ keys[j]) * values[i] for i in others))


@pytest.mark.equation("01.4")
@SEEDS
def test_the_delta_rule_is_a_step_of_gradient_descent(seed: int) -> None:
    M, k, v = draw(seed, (4, 6), (6,), (4,))
    weights = torch.nn.Parameter(M.clone())
    (0.5 * (weights @ k - v).square().sum()).backward()
    torch.optim.SGD([weights], lr=0.3).step()
    close(delta(M, k, v, lr=0.3), weights.detach())
    close(delta(M, k, v, lr=0.3), M + 0.3 * torch.einsum("i,j->ij", v - torch.mv(M, k), k))


@pytest.mark.equation("01.5")
@SEEDS
def test_fast_weights_correct_the_common_answer(seed: int) -> None:
    slow, keys, values = draw(seed, (4, 6), (8, 6), (8, 4))
    fast = torch.zeros(4, 6, dtype=torch.float64)
    for k, v in zip(unit(keys), values, strict=True):
        error = v - torch.mv(slow + fast, k)
        fast = 0.9 * fast + 0.7 * torch.einsum("i,j->ij", error, k)
    close(fast_weights(slow, unit(keys), values, delta, lr=0.7, retain=0.9), fast)


@pytest.mark.equation("01.6")
@SEEDS
def test_without_decay_slow_and_fast_together_are_online_gradient_descent(seed: int) -> None:
    slow, keys, values = draw(seed, (4, 6), (30, 6), (30, 4))
    moved = torch.nn.Parameter(slow.clone())
    optimizer = torch.optim.SGD([moved], lr=0.6)
    for k, v in zip(unit(keys), values, strict=True):
        optimizer.zero_grad()
        (0.5 * (moved @ k - v).square().sum()).backward()
        optimizer.step()
    close(slow + fast_weights(slow, unit(keys), values, delta, lr=0.6), moved.detach())


@pytest.mark.equation("01.7")
@pytest.mark.parametrize("retain", [0.25, 0.6, 0.9, 0.98, 0.999])
def test_half_of_a_write_is_left_after_the_half_life(retain: float) -> None:
    k, v = draw(0, (6,), (4,))
    nothing = torch.zeros(4, dtype=torch.float64)
    start = hebbian(torch.zeros(4, 6, dtype=torch.float64), unit(k), v)
    steps = math.log(0.5) / math.log(retain)
    M, part = start, []
    for _ in range(math.ceil(steps)):
        M = hebbian(M, unit(k), nothing, retain=retain)
        part.append((M.norm() / start.norm()).item())
    assert part[-1] <= 0.5 < ([1.0] + part)[-2]  # the first whole write at or after the half-life
    whole = math.floor(steps)
    assert ([1.0] + part)[whole] * retain ** (steps - whole) == pytest.approx(0.5, rel=1e-10)


@pytest.mark.equation("01.8")
@SEEDS
def test_relative_error_is_squared_error_over_squared_values(seed: int) -> None:
    M, keys, values = draw(seed, (3, 4, 6), (3, 5, 6), (3, 5, 4))
    for world in range(3):
        missed = sum((M[world] @ k - v).dot(M[world] @ k - v) for k, v in zip(keys[world], values[world], strict=True))
        whole = sum(v.dot(v) for v in values[world])
        close(relative_error(M, keys, values)[world], missed / whole)
    close(relative_error(torch.zeros_like(M), keys, values), torch.ones(3, dtype=torch.float64))
