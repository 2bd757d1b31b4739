"""Both sides of every equation of notebook 04, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nlcore.optimizers import Adam, AdamW

SEEDS = range(5)


def stream(seed: int, t: int = 40) -> Tensor:
    return torch.randn(t, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fading(beta: float, t: int) -> Tensor:
    """The weights beta^(t-i) for i = 1..t."""
    return torch.tensor([beta ** (t - i) for i in range(1, t + 1)], dtype=torch.float64)


def least_squares(keys: Tensor, values: Tensor, weights: Tensor) -> float:
    """The number m that minimises the sum of weights * (m keys - values)^2, by a solver."""
    root = weights.sqrt()
    return torch.linalg.lstsq((root * keys)[:, None], (root * values)[:, None]).solution.item()


def run(optimizer: type, gradients: Tensor, start: float = 0.0, **settings: object) -> tuple[list[float], dict]:
    """All places of one weight that reads these gradients, and the optimizer's state at the end."""
    weight = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    made = optimizer([weight], **settings)
    places = [weight.item()]
    for g in gradients:
        weight.grad = g.reshape(1)
        made.step()
        places.append(weight.item())
    return places, made.state[weight]


@pytest.mark.equation("04.1")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.3, 0.9, 1.0])
def test_objective_of_the_best_fit(seed: int, beta: float) -> None:
    g, m = stream(seed), 0.1 * seed - 0.3
    left = sum(beta ** (len(g) - i) * (m - g[i - 1].item()) ** 2 for i in range(1, len(g) + 1))
    total, first, second = (torch.dot(fading(beta, len(g)), g**power).item() for power in (0, 1, 2))
    assert left == pytest.approx(total * m * m - 2 * m * first + second, rel=1e-12)


@pytest.mark.equation("04.2")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.3, 0.9, 1.0])
def test_best_fit_is_the_weighted_mean(seed: int, beta: float) -> None:
    g = stream(seed)
    weights = fading(beta, len(g))
    left = least_squares(torch.ones_like(g), g, weights)
    assert left == pytest.approx((weights * g).sum().item() / weights.sum().item(), rel=1e-11, abs=1e-13)


@pytest.mark.equation("04.3")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta", "t"), [(0.9, 1), (0.9, 40), (0.5, 7), (0.999, 40)])
def test_first_moment_with_its_bias_corrected(seed: int, beta: float, t: int) -> None:
    g = stream(seed, t)
    _, state = run(Adam, g, betas=(beta, 0.99))
    memory = 0.0
    for one in g.tolist():
        memory = beta * memory + (1 - beta) * one
    assert state["m"].item() == pytest.approx(memory, rel=1e-12)
    fit = least_squares(torch.ones_like(g), g, fading(beta, t))
    assert state["m"].item() / (1 - beta**t) == pytest.approx(fit, rel=1e-10, abs=1e-13)


@pytest.mark.equation("04.4")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta", "t"), [(0.999, 1), (0.999, 40), (0.9, 7)])
def test_second_moment_with_its_bias_corrected(seed: int, beta: float, t: int) -> None:
    g = stream(seed, t)
    _, state = run(Adam, g, betas=(0.9, beta))
    fit = least_squares(torch.ones_like(g), g**2, fading(beta, t))
    assert state["v"].item() / (1 - beta**t) == pytest.approx(fit, rel=1e-11)


@pytest.mark.equation("04.5")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_step_of_adam(seed: int, eps: float) -> None:
    g, betas, lr = stream(seed), (0.8, 0.95), 0.05
    places, _ = run(Adam, g, start=1.5, lr=lr, betas=betas, eps=eps)
    for t in (1, 2, 17, len(g)):
        m_hat = least_squares(torch.ones(t, dtype=torch.float64), g[:t], fading(betas[0], t))
        v_hat = least_squares(torch.ones(t, dtype=torch.float64), g[:t] ** 2, fading(betas[1], t))
        right = places[t - 1] - lr * m_hat / (math.sqrt(v_hat) + eps)
        assert places[t] == pytest.approx(right, rel=1e-12)


@pytest.mark.equation("NL 101")
@pytest.mark.parametrize("seed", SEEDS)
def test_objective_of_the_appendix(seed: int) -> None:
    g, m, P, penalty = stream(seed), 0.4 * seed - 1, 0.7, 0.3
    left = sum((m * one - P) ** 2 for one in g.tolist()) + penalty * m**2
    right = m * m * (g.square().sum().item() + penalty) - 2 * m * P * g.sum().item() + len(g) * P * P
    assert left == pytest.approx(right, rel=1e-12)


def two_sums(g: Tensor, beta1: float, beta2: float) -> tuple[float, float]:
    """The paper's recursions for M and H, term by term."""
    M = H = 0.0
    for one in g.tolist():
        M, H = M + beta1 * one, H + beta2 * one * one
    return M, H


def minimiser(g: Tensor, P: float, penalty: float) -> float:
    """The minimum of (NL 101) by a solver: the penalty is one more row."""
    rows = torch.cat([g, torch.tensor([math.sqrt(penalty)], dtype=torch.float64)])
    wanted = torch.cat([torch.full_like(g, P), torch.zeros(1, dtype=torch.float64)])
    return least_squares(rows, wanted, torch.ones_like(rows))


@pytest.mark.equation("NL 102")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta1", "beta2"), [(1.0, 1.0), (0.9, 0.5)])
def test_closed_form_of_the_appendix(seed: int, beta1: float, beta2: float) -> None:
    g, P, penalty = stream(seed), 0.7, 0.3
    M, H = two_sums(g, beta1, beta2)
    # The betas are constant factors: they rescale the target and the penalty of (NL 101), nothing fades.
    left = minimiser(g, P * beta1 / beta2, penalty / beta2)
    assert left == pytest.approx(M * P / (H + penalty), rel=1e-11, abs=1e-13)


@pytest.mark.equation("NL 103")
@pytest.mark.parametrize("seed", SEEDS)
def test_step_along_the_answer(seed: int) -> None:
    g, W, lr = stream(seed), 1.3, 0.07
    answer = minimiser(g, 0.7, 0.3)
    weight = torch.tensor([W], dtype=torch.float64, requires_grad=True)
    weight.grad = torch.tensor([answer], dtype=torch.float64)
    torch.optim.SGD([weight], lr=lr).step()
    assert weight.item() == pytest.approx(W - lr * answer, rel=1e-13)


@pytest.mark.equation("NL 104")
@pytest.mark.parametrize("seed", SEEDS)
def test_target_that_gives_momentum_and_the_printing_error(seed: int) -> None:
    g, beta1, beta2 = stream(seed), 0.9, 0.5
    M, H = two_sums(g, beta1, beta2)
    P = g.square().sum().item()
    for penalty in (1e-9, 0.0):  # lambda -> 0
        assert M * P / (H + penalty) == pytest.approx(M / beta2, rel=1e-9)
    plain = minimiser(g, P, 0.0)  # betas 1: the sum of the gradients
    assert plain == pytest.approx(g.sum().item(), rel=1e-11)
    assert abs(M * P / H) > 1.5 * abs(beta2 * M)  # beta2 M is what the paper prints


@pytest.mark.equation("NL 105")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_target_that_gives_a_relative_of_adam(seed: int, eps: float) -> None:
    g, beta1, beta2, W, lr = stream(seed), 0.9, 0.5, 1.3, 0.07
    M, H = two_sums(g, beta1, beta2)
    P = g.square().sum().sqrt().item()
    # epsilon is a penalty: lambda = epsilon sqrt(H) in (NL 102) gives sqrt(H) + epsilon below the fraction line.
    penalty = eps * math.sqrt(H)
    left = W - lr * minimiser(g, P * beta1 / beta2, penalty / beta2)
    right = W - lr / math.sqrt(beta2) * M / (math.sqrt(H) + eps)
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.equation("04.6")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999])
def test_bridge_to_adam_with_equal_betas(seed: int, beta: float) -> None:
    g = stream(seed)
    places, _ = run(Adam, g, lr=1.0, betas=(beta, beta), eps=0.0)
    for t in (1, 2, 17, len(g)):
        weights, seen = fading(beta, t), g[:t]
        P = ((weights * seen**2).sum() / weights.sum()).sqrt().item()
        fit = least_squares(seen, torch.full_like(seen, P), weights)
        assert places[t - 1] - places[t] == pytest.approx(fit, rel=1e-9, abs=1e-13)


@pytest.mark.equation("04.7")
@pytest.mark.parametrize(("beta1", "beta2", "t"), [(0.9, 0.999, 50), (0.95, 0.9, 30), (0.9, 0.9, 20), (0.5, 0.8, 2)])
def test_largest_move_of_adam(beta1: float, beta2: float, t: int) -> None:
    a, b = fading(beta1, t) / fading(beta1, t).sum(), fading(beta2, t) / fading(beta2, t).sum()
    right = (a * a / b).sum().sqrt().item()
    # (a.g)^2 / (g.Bg) is largest along the leading eigenvector of B^-1/2 a a^T B^-1/2.
    scaled = torch.outer(a, a) / torch.outer(b.sqrt(), b.sqrt())
    values, vectors = torch.linalg.eigh(scaled)
    assert math.sqrt(values[-1].item()) == pytest.approx(right, rel=1e-10)
    g = vectors[:, -1] / b.sqrt()
    places, _ = run(Adam, g * torch.sign((a * g).sum()), lr=1.0, betas=(beta1, beta2), eps=0.0)
    assert places[-2] - places[-1] == pytest.approx(right, rel=1e-8)
    assert right == pytest.approx(1.0) if beta1 == beta2 else right > 1.0 + 1e-6
    for seed in range(20):
        random, _ = run(Adam, stream(seed, t), lr=1.0, betas=(beta1, beta2), eps=0.0)
        assert abs(random[-2] - random[-1]) <= right + 1e-9


class NoCorrection(Adam):
    def total_weights(self, step: int, beta1: float, beta2: float) -> tuple[float, float]:
        return 1.0, 1.0


@pytest.mark.equation("04.8")
@pytest.mark.parametrize("size", [1e-3, 1.0, -50.0])
@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.5, 0.9)])
def test_leaps_without_bias_correction(size: float, beta1: float, beta2: float) -> None:
    steady = torch.full((30,), size, dtype=torch.float64)
    places, _ = run(NoCorrection, steady, lr=1.0, betas=(beta1, beta2), eps=0.0)
    for t in range(1, 31):
        right = (1 - beta1**t) / math.sqrt(1 - beta2**t)
        assert abs(places[t] - places[t - 1]) == pytest.approx(right, rel=1e-9)


@pytest.mark.equation("04.9")
@pytest.mark.parametrize("seed", SEEDS)
def test_step_of_adamw(seed: int) -> None:
    g, betas, lr, eps, decay = stream(seed), (0.8, 0.95), 0.05, 1e-8, 0.4
    places, _ = run(AdamW, g, start=1.5, lr=lr, betas=betas, eps=eps, weight_decay=decay)
    theirs, _ = run(torch.optim.AdamW, g, start=1.5, lr=lr, betas=betas, eps=eps, weight_decay=decay)
    assert places == pytest.approx(theirs, rel=1e-12)
    for t in (1, 2, 17, len(g)):
        m_hat = least_squares(torch.ones(t, dtype=torch.float64), g[:t], fading(betas[0], t))
        v_hat = least_squares(torch.ones(t, dtype=torch.float64), g[:t] ** 2, fading(betas[1], t))
        right = (1 - lr * decay) * places[t - 1] - lr * m_hat / (math.sqrt(v_hat) + eps)
        assert places[t] == pytest.approx(right, rel=1e-12, abs=1e-14)
