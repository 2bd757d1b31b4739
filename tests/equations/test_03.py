"""Both sides of every equation of notebook 03, in float64: one side from nlcore, the other computed in another way."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nlcore.horizon import horizon, past_weights, share_of_last
from nlcore.memory import hebbian
from nlcore.optimizers import Momentum

SEEDS = range(5)


def draws(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def walk(W: Tensor, gradients: Tensor, **settings: object) -> tuple[list[Tensor], list[Tensor]]:
    """Give an nlcore Momentum these gradients; return the weights and the memory after each step."""
    W = W.clone().requires_grad_()
    optimizer = Momentum([W], **settings)  # type: ignore[arg-type]
    weights, memories = [], []
    for gradient in gradients:
        W.grad = gradient.clone()
        optimizer.step()
        weights.append(W.detach().clone())
        memories.append(optimizer.state[W]["m"].clone())
    return weights, memories


def minimise(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Find the lowest point with a general solver that knows nothing of momentum."""
    answer = start.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [answer], line_search_fn="strong_wolfe", tolerance_grad=1e-13, tolerance_change=1e-15, max_iter=200
    )

    def cost() -> Tensor:
        solver.zero_grad()
        value = objective(answer)
        value.backward()
        return value

    for _ in range(3):
        solver.step(cost)
    return answer.detach()


def linear_loss(W: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (W @ x - y).square().sum()


@pytest.mark.equation("03.1")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99])
def test_one_step_of_momentum(seed: int, beta: float) -> None:
    start, gradients = draws(seed, (3, 4), (20, 3, 4))
    weights, _ = walk(start, gradients, lr=0.1, beta=beta)
    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=beta)
    for gradient, ours in zip(gradients, weights, strict=True):
        theirs.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.equation("NL 10")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_weights_move_by_the_memory(seed: int) -> None:
    start, gradients = draws(seed, (3, 4), (10, 3, 4))
    weights, memories = walk(start, gradients, lr=0.3, beta=1.0, convention="gradient")
    before = start
    for after, memory in zip(weights, memories, strict=True):
        torch.testing.assert_close(after, before - memory, rtol=1e-13, atol=1e-14)
        before = after


@pytest.mark.equation("NL 11")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_memory_adds_eta_times_the_gradient(seed: int) -> None:
    W, m, x, y = draws(seed, (3, 4), (3, 4), (4,), (3,))
    W.requires_grad_()
    (gradient,) = torch.autograd.grad(linear_loss(W, x, y), W)
    optimizer = Momentum([W], lr=0.3, beta=1.0, convention="gradient")
    optimizer.state[W]["m"] = m.clone()
    W.grad = gradient
    optimizer.step()
    surprise = (W.grad @ x) / (x @ x)  # the gradient of a linear layer is surprise times input
    torch.testing.assert_close(optimizer.state[W]["m"], m + 0.3 * torch.outer(surprise, x), rtol=1e-12, atol=1e-13)


@pytest.mark.equation("NL 12")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_outer_problem_uses_the_answer_of_the_inner_one(seed: int) -> None:
    W, x, y = draws(seed, (3, 4), (4,), (3,))
    W.requires_grad_()
    optimizer = Momentum([W], lr=0.2, beta=1.0, convention="gradient")
    memory = torch.zeros(3, 4, dtype=torch.float64)
    for _ in range(3):
        before = W.detach().clone()
        (gradient,) = torch.autograd.grad(linear_loss(W, x, y), W)
        memory = minimise(lambda m, g=gradient, old=memory: _inner_question(m, g, old, 0.2), memory)  # type: ignore[misc]
        W.grad = gradient
        optimizer.step()
        torch.testing.assert_close(W.detach(), before - memory, rtol=0, atol=1e-9)


@pytest.mark.equation("NL 13")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("eta", [0.01, 0.3, 2.0])
def test_the_memory_answers_its_question(seed: int, eta: float) -> None:
    m, gradient = draws(seed, (3, 4), (3, 4))
    answer = minimise(lambda new: _inner_question(new, gradient, m, eta), torch.zeros_like(m))
    torch.testing.assert_close(answer, hebbian(m, None, gradient, lr=eta), rtol=0, atol=1e-9)


def _inner_question(new: Tensor, gradient: Tensor, old: Tensor, eta: float) -> Tensor:
    return -(new * gradient).sum() + (new - old).square().sum() / (2 * eta)


@pytest.mark.equation("NL 32")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_memory_is_the_step(seed: int) -> None:
    start, gradients = draws(seed, (3, 4), (10, 3, 4))
    weights, memories = walk(start, gradients, lr=0.3, beta=0.8, convention="step")
    torch.testing.assert_close(weights[-1], start + torch.stack(memories).sum(0), rtol=1e-12, atol=1e-13)


@pytest.mark.equation("NL 33")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_memory_fades_and_subtracts_surprise_times_input(seed: int) -> None:
    W, m, x, y = draws(seed, (3, 4), (3, 4), (4,), (3,))
    alpha, eta = 0.8, 0.3
    logits = (W @ x).requires_grad_()
    (surprise,) = torch.autograd.grad(0.5 * (logits - y).square().sum(), logits)
    W.requires_grad_()
    (gradient,) = torch.autograd.grad(linear_loss(W, x, y), W)
    optimizer = Momentum([W], lr=eta, beta=alpha, convention="step")
    optimizer.state[W]["m"] = m.clone()
    W.grad = gradient
    optimizer.step()
    memory = optimizer.state[W]["m"]
    torch.testing.assert_close(memory, alpha * m - eta * gradient, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(memory, alpha * m - eta * torch.outer(surprise, x), rtol=1e-12, atol=1e-13)


@pytest.mark.equation("NL 34")
@pytest.mark.parametrize("seed", SEEDS)
def test_without_fading_it_is_gradient_descent_on_the_answers(seed: int) -> None:
    m, x, u = draws(seed, (3, 4), (4,), (3,))
    m.requires_grad_()
    (slope,) = torch.autograd.grad((m @ x) @ u, m)
    descended = m.detach() - 0.3 * slope
    torch.testing.assert_close(hebbian(m.detach(), x, u, lr=-0.3), descended, rtol=1e-13, atol=1e-14)


@pytest.mark.equation("03.2")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("penalty", [0.0, 0.5, 2.0])
def test_fading_is_a_penalty_on_large_memories(seed: int, penalty: float) -> None:
    start, gradients = draws(seed, (3, 4), (12, 3, 4))
    eta, m = 0.2, torch.zeros(3, 4, dtype=torch.float64)
    _, memories = walk(start, gradients, lr=eta, beta=min(1 - eta * penalty, 1 - 1e-16), convention="step")
    for gradient, ours in zip(gradients, memories, strict=True):
        old = m.clone().requires_grad_()
        (slope,) = torch.autograd.grad((old * gradient).sum() + penalty / 2 * old.square().sum(), old)
        m = m - eta * slope
        torch.testing.assert_close(ours, m, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("03.3")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_learning_rate_of_the_averaging_form(seed: int, beta: float) -> None:
    start, gradients = draws(seed, (3, 4), (30, 3, 4))
    weights, _ = walk(start, gradients, lr=0.1, beta=beta)
    W, average = start.clone(), torch.zeros(3, 4, dtype=torch.float64)
    for gradient, ours in zip(gradients, weights, strict=True):
        average = average.lerp(gradient, 1 - beta)
        W = W - 0.1 / (1 - beta) * average
        torch.testing.assert_close(W, ours, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("03.4")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_the_buffer_is_a_sum_and_a_hebbian_memory(seed: int, beta: float) -> None:
    keys, values = draws(seed, (40, 4), (40, 3))
    gradients = values.unsqueeze(-1) * keys.unsqueeze(-2)
    _, memories = walk(torch.zeros(3, 4, dtype=torch.float64), gradients, lr=0.1, beta=beta)
    total = sum(beta**age * gradients[-1 - age] for age in range(40))
    memory = torch.zeros(3, 4, dtype=torch.float64)
    for key, value in zip(keys, values, strict=True):
        memory = hebbian(memory, key, value, retain=beta)
    torch.testing.assert_close(memories[-1], total, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(memories[-1], memory, rtol=1e-15, atol=1e-15)


@pytest.mark.equation("03.5")
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 0.99])
def test_share_of_one_gradient(beta: float) -> None:
    steps = 60
    _, memories = walk(torch.zeros(steps, dtype=torch.float64), torch.eye(steps, dtype=torch.float64), beta=beta)
    inside = memories[-1].flip(0)  # the weight in m of the gradient of age 0, 1, ...
    everything = math.fsum(beta**age for age in range(20_000))
    torch.testing.assert_close(past_weights(beta, steps), inside / everything, rtol=1e-11, atol=1e-300)


@pytest.mark.equation("03.6")
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("n", [1, 7, 44, 459])
def test_share_of_the_last_gradients(beta: float, n: int) -> None:
    total = torch.tensor(math.fsum(past_weights(beta, n).tolist()), dtype=torch.float64)
    assert share_of_last(beta, n) == pytest.approx(total.item(), rel=1e-12)


@pytest.mark.equation("03.7")
@pytest.mark.parametrize("beta", [0.5, 0.77, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_horizon_is_the_first_count_that_is_enough(beta: float, share: float) -> None:
    n = horizon(beta, share)
    kept = torch.tensor(beta, dtype=torch.float64) ** torch.tensor([n - 1, n], dtype=torch.float64)
    assert 1 - kept[0] < share <= 1 - kept[1]
    assert n == math.ceil(math.log(1 - share) / math.log(beta))


@pytest.mark.equation("NL 45")
@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_of_a_task_lie_along_its_direction(seed: int) -> None:
    W, direction, scale, y = draws(seed, (20,), (20,), (16, 1), (16,))
    direction = direction / direction.norm()
    x = scale * direction
    W.requires_grad_()
    loss = torch.stack([(W @ row - target) ** 2 for row, target in zip(x, y, strict=True)]).mean()
    (gradient,) = torch.autograd.grad(loss, W)
    by_hand = (2 * (x @ W.detach() - y).unsqueeze(-1) * x).mean(0)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient, (gradient @ direction) * direction, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("03.8")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_the_part_along_an_old_task_only_fades(seed: int, beta: float) -> None:
    frame, first, second = draws(seed, (20, 2), (30, 1), (40, 1))
    u1, u2 = torch.linalg.qr(frame)[0].T
    gradients = torch.cat([first * u1, second * u2])
    _, memories = walk(torch.zeros(20, dtype=torch.float64), gradients, beta=beta)
    for later in (0, 1, 10, 40):
        left = memories[29 + later] @ u1
        torch.testing.assert_close(left, beta**later * (memories[29] @ u1), rtol=1e-9, atol=1e-13)


@pytest.mark.equation("03.9")
@pytest.mark.parametrize("beta", [0.5, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
def test_a_swing_shrinks_by_the_root_of_beta(beta: float, place: float) -> None:
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    curvature = low + place * (high - low)  # eta = 1, so this is eta times lambda
    assert (1 + beta - curvature) ** 2 < 4 * beta
    columns = []
    for W, m in torch.eye(2, dtype=torch.float64):  # the matrix, from the steps of nlcore itself
        weight = W.reshape(1).clone().requires_grad_()
        optimizer = Momentum([weight], lr=1.0, beta=beta)
        optimizer.state[weight]["m"] = m.reshape(1).clone()
        weight.grad = curvature * weight.detach()
        optimizer.step()
        columns.append(torch.cat([weight.detach(), optimizer.state[weight]["m"]]))
    matrix = torch.stack(columns, dim=1)
    by_hand = torch.tensor([[1 - curvature, -beta], [curvature, beta]], dtype=torch.float64)
    torch.testing.assert_close(matrix, by_hand, rtol=1e-13, atol=1e-14)
    size = torch.linalg.eigvals(matrix).abs()
    torch.testing.assert_close(size, torch.full_like(size, math.sqrt(beta)), rtol=1e-9, atol=0)
