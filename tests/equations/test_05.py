"""Both sides of every equation of notebook 05, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nlcore.memory import dgd
from nlcore.optimizers import DGD, M3, DeepMomentum, DeltaMomentum, Momentum, MultiscaleMomentum, Muon, newton_schulz
from nlcore.optimizers.orthogonal import POLYNOMIALS
from nlcore.tasks.surfaces import bent_valley

SEEDS = range(5)
F64 = torch.float64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def run(make, gradients: Tensor) -> tuple[Tensor, dict]:
    """The weight (from zero) and its memories after these gradients."""
    weight = torch.zeros_like(gradients[0]).requires_grad_()
    optimizer = make([weight])
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
    return weight.detach(), optimizer.state[weight]


@pytest.mark.equation("NL 49")
@pytest.mark.parametrize("seed", SEEDS)
def test_delta_momentum(seed: int) -> None:
    gradients, P = normal(seed, 15, 1, 4), normal(seed + 50, 4).abs()
    settings = {"lr": 0.1, "beta": 0.8, "erase": 0.7, "preconditioner": lambda g: P * g}
    W, state = run(lambda p: DeltaMomentum(p, **settings), gradients)
    m, V = torch.zeros(1, 4, dtype=F64), torch.zeros(1, 4, dtype=F64)
    for g in gradients:
        k = g / g.norm()
        m = m @ (0.8 * torch.eye(4, dtype=F64) - 0.7 * k.T @ k) + P * g
        V = V - 0.1 * m
    torch.testing.assert_close(state["m"], m, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(W, V, rtol=1e-12, atol=1e-14)


@pytest.mark.equation("05.1")
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_the_bound_of_a_memory_with_a_fixed_key(beta: float) -> None:
    k = normal(0, 1, 4)
    for part, grows in ((0.99, False), (1.01, True)):
        c = part * (1 + beta) / k.square().sum()
        matrix = beta * torch.eye(4, dtype=F64) - c * k.T @ k
        largest = torch.linalg.eigvalsh(matrix).abs().max()
        assert bool(largest > 1) == grows
        m = torch.linalg.matrix_power(matrix, 3000)
        assert bool(m.norm() > 1e6) == grows


@pytest.mark.equation("NL 47")
@pytest.mark.parametrize("seed", SEEDS)
def test_preconditioned_momentum(seed: int) -> None:
    gradients, P = normal(seed, 10, 3, 4), normal(seed + 50, 3, 3)
    W, state = run(lambda p: Momentum(p, lr=0.1, beta=0.8, preconditioner=lambda g: P @ g), gradients)
    m = sum(0.8 ** (9 - i) * P @ g for i, g in enumerate(gradients))
    torch.testing.assert_close(state["m"], m, rtol=1e-12, atol=1e-13)
    assert W.abs().max() > 0


def objective(X: Tensor, g: Tensor) -> Tensor:
    return 0.5 * (X - g).square().sum() + 0.5 * (X @ X.T - torch.eye(len(X), dtype=F64)).square().sum()


@pytest.mark.equation("05.2")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_objective_is_least_at_a_matrix_with_the_same_directions(seed: int) -> None:
    """From g the descent keeps the singular directions and moves every singular value s to a root of its slope."""
    g = normal(seed, 3, 5)
    U, s, Vh = torch.linalg.svd(g, full_matrices=False)
    X = g / g.norm()
    for _ in range(20000):
        X = X - 0.02 * (X - g + 2 * (X @ X.T - torch.eye(3, dtype=F64)) @ X)
    inner = U.T @ X @ Vh.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-9
    assert (inner.diagonal() - s + 2 * (inner.diagonal() ** 2 - 1) * inner.diagonal()).abs().max() < 1e-9
    assert objective(X, g) <= objective(X + 1e-3 * normal(seed + 9, 3, 5), g)


@pytest.mark.equation("NL 44")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_newton_schulz_step_is_a_gradient_step(seed: int) -> None:
    g, X = normal(seed, 3, 5), normal(seed + 50, 3, 5).requires_grad_()
    objective(X, g).backward()
    by_formula = X - g + 2 * (X @ X.T - torch.eye(3, dtype=F64)) @ X
    torch.testing.assert_close(X.grad, by_formula.detach(), rtol=1e-12, atol=1e-12)
    unit = g / g.norm()
    first = unit - 0.25 * (unit - unit + 2 * (unit @ unit.T - torch.eye(3, dtype=F64)) @ unit)
    torch.testing.assert_close(first, newton_schulz(g, 1, "cubic", eps=0.0), rtol=1e-12, atol=1e-14)


@pytest.mark.equation("05.3")
@pytest.mark.parametrize("method", POLYNOMIALS)
def test_newton_schulz_moves_singular_values_by_a_polynomial(method: str) -> None:
    M = normal(1, 4, 6)
    U, s, Vh = torch.linalg.svd(M, full_matrices=False)
    a, b, c = POLYNOMIALS[method]
    s = s / M.norm()
    for _ in range(3):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(newton_schulz(M, 3, method), U @ torch.diag(s) @ Vh, rtol=1e-10, atol=1e-11)


@pytest.mark.equation("NL 42")
@pytest.mark.parametrize("seed", SEEDS)
def test_muon(seed: int) -> None:
    gradients = normal(seed, 8, 3, 5)
    W, state = run(lambda p: Muon(p, lr=0.1, beta=0.8, nesterov=False, adjust_lr=None), gradients)
    m, V = torch.zeros(3, 5, dtype=F64), torch.zeros(3, 5, dtype=F64)
    for g in gradients:
        m = 0.8 * m + 0.2 * g
        V = V - 0.1 * newton_schulz(m)
    torch.testing.assert_close(state["m"], m, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(W, V, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("05.4")
@pytest.mark.parametrize("period", [2, 5])
def test_the_slow_memory(period: int) -> None:
    gradients = normal(3, 11, 4)
    _, state = run(lambda p: MultiscaleMomentum(p, slow_beta=0.6, period=period), gradients)
    s = torch.zeros(4, dtype=F64)
    for end in range(period, 11, period):  # written before the first gradient of the next chunk
        s = 0.6 * s + 0.4 * gradients[end - period : end].mean(0)
    torch.testing.assert_close(state["s"], s, rtol=1e-12, atol=1e-14)


@pytest.mark.equation("05.5")
def test_slow_and_fast_move_the_weights_together() -> None:
    gradients = normal(4, 9, 4)
    settings = {"lr": 0.1, "beta": 0.7, "slow_beta": 0.6, "alpha": 0.5, "period": 4}
    W, _ = run(lambda p: MultiscaleMomentum(p, **settings), gradients)
    moves = torch.zeros(4, dtype=F64)
    for t in range(9):
        state = run(lambda p: MultiscaleMomentum(p, **settings), gradients[: t + 1])[1]
        moves = moves - 0.1 * (state["m"] + 0.5 * state["s"])
    torch.testing.assert_close(W, moves, rtol=1e-12, atol=1e-14)


@pytest.mark.equation("NL 75")
def test_m3_moves_by_both_orthogonal_memories_over_the_root_of_v() -> None:
    gradients = normal(5, 9, 3, 5)
    settings = {"lr": 0.1, "betas": (0.9, 0.95, 0.8), "alpha": 0.3, "period": 4, "mode": "literal"}
    W, _ = run(lambda p: M3(p, **settings), gradients)
    V = torch.zeros(3, 5, dtype=F64)
    for t in range(9):
        state = run(lambda p: M3(p, **settings), gradients[: t + 1])[1]
        both = newton_schulz(state["M1"]) + 0.3 * newton_schulz(state["M2"])
        V = V - 0.1 * both / (state["V"].sqrt() + 1e-8)
    torch.testing.assert_close(W, V, rtol=1e-9, atol=1e-11)


@pytest.mark.equation("05.6")
@pytest.mark.parametrize("steps", [4, 7, 13])
def test_the_printed_memories_of_m3_differ_by_the_open_chunk(steps: int) -> None:
    gradients = normal(6, steps, 3, 5)
    _, state = run(lambda p: M3(p, mode="literal", betas=(0.9, 0.99, 0.8), period=4), gradients)
    since = gradients[4 * ((steps - 1) // 4) :].sum(0)
    torch.testing.assert_close(state["M1"] / 0.9 - state["M2"] / 0.8, since, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("NL 50")
def test_deep_momentum_moves_by_the_answer_of_a_trained_network() -> None:
    gradients = normal(7, 6, 1, 4)
    W, _ = run(lambda p: DeepMomentum(p, lr=0.1, memory_lr=0.3, retain=0.9, hidden=6), gradients)
    A = torch.zeros(4, 6, dtype=F64)
    B = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=F64) / math.sqrt(4)
    V = torch.zeros(1, 4, dtype=F64)
    for g in gradients:
        u = g / g.norm()
        A.requires_grad_(), B.requires_grad_()
        into_A, into_B = torch.autograd.grad(0.5 * ((u @ B.T).tanh() @ A.T + u).square().sum(), (A, B))
        A, B = (0.9 * A - 0.3 * into_A).detach(), (B - 0.3 * into_B).detach()
        V = V + 0.1 * g.norm() * (u @ B.T).tanh() @ A.T
    torch.testing.assert_close(W, V, rtol=1e-12, atol=1e-14)


def dgd_layer(W: Tensor, x: Tensor, d: Tensor, lr: float) -> Tensor:
    """The weights of a layer after one step of the class, for the loss <d, y>."""
    layer = nn.Linear(W.shape[1], W.shape[0], bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(W)
    optimizer = DGD(layer.parameters(), lr=lr, model=layer)
    (layer(x) @ d).backward()
    optimizer.step()
    return layer.weight.detach()


@pytest.mark.equation("NL 56")
@pytest.mark.parametrize("seed", SEEDS)
def test_dgd_solves_its_objective(seed: int) -> None:
    W, x, d = normal(seed, 3, 4), 2 * normal(seed + 50, 4), normal(seed + 90, 3)
    new = dgd_layer(W, x, d, 0.7).requires_grad_()
    (0.5 * (new @ x + d).square().sum() + (new - W).square().sum() / (2 * 0.7)).backward()
    assert new.grad is not None and new.grad.abs().max() < 1e-12


@pytest.mark.equation("NL 57")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_solution_for_an_input_of_any_length(seed: int) -> None:
    W, x, d = normal(seed, 3, 4), 2 * normal(seed + 50, 4), normal(seed + 90, 3)
    rate = 0.7 / (1 + 0.7 * x @ x)
    by_formula = W @ (torch.eye(4, dtype=F64) - rate * torch.outer(x, x)) - rate * torch.outer(d, x)
    torch.testing.assert_close(dgd_layer(W, x, d, 0.7), by_formula, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(dgd(W, x, -d, lr=0.7), by_formula, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("05.7")
@pytest.mark.parametrize("lr", [0.1, 1.0, 30.0])
def test_on_a_squared_loss_dgd_settles_at_half_the_value(lr: float) -> None:
    W, x, v = normal(1, 3, 4), normal(2, 4), normal(3, 3)
    for _ in range(1500):
        W = dgd_layer(W, x, W @ x - v, lr)
    torch.testing.assert_close(W @ x, v / 2, rtol=1e-9, atol=1e-10)


@pytest.mark.equation("NL 53")
def test_the_winding_valley_and_its_slope() -> None:
    valley = bent_valley(wall=8.0, bend=0.6, bends=6.0)
    for r, theta in ((-3.5, 2.0), (0.3, -1.0), (0.0, 0.0)):
        place = torch.tensor([r, theta], dtype=F64, requires_grad=True)
        psi = place[0] ** 2 + 8 * (place[0] - place[1] + 0.6 * torch.sin(6 * place[0])) ** 2
        psi.backward()
        assert valley.value(r, theta) == pytest.approx(psi.item(), rel=1e-13, abs=1e-15)
        assert place.grad is not None
        assert valley.gradient(r, theta) == pytest.approx(tuple(place.grad.tolist()), rel=1e-12, abs=1e-13)
    assert valley.start == (-3.5, 2.0) and valley.value(*valley.lowest) == 0
