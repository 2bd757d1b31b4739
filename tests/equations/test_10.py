"""Both sides of every equation of notebook 10, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from nlcore.sequence import MemoryState, titans_memory
from nlcore.sequence.deep.memory import deep_titans_memory
from nlcore.sequence.deep.weights import DeepWeights, new_deep_weights, read_deep
from nlcore.sequence.gates import Gates, kept

SEEDS = range(3)
f64 = torch.float64


def draws(seed: int, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=f64)


def stream(seed: int, T: int, d_k: int = 4, d_v: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k (T, d_k) with keys of length one, and v (T, d_v)."""
    q, k = draws(seed, 2, T, d_k)
    return q, k / k.norm(dim=-1, keepdim=True), draws(seed + 100, T, d_v)


def gates(seed: int, T: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return eta, beta and alpha of every token."""
    eta, beta, alpha = draws(seed + 200, 3, T).sigmoid()
    return eta, 0.9 * beta, 0.5 + 0.5 * alpha


def library(
    q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, alpha: Tensor, state: MemoryState | None = None
) -> tuple[Tensor, MemoryState]:
    y, state = titans_memory(*(x[None, None] for x in (q, k, v, eta, beta, alpha)), state=state)
    return y[0, 0], state


def before_every_token(k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, alpha: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return M_{t-1} for every token and the last M, from the sum over all past errors, without a momentum matrix."""
    memories, writes = [torch.zeros(v.shape[1], k.shape[1], dtype=f64)], []
    for t in range(len(k)):
        writes.append(eta[t] * torch.outer(v[t] - memories[-1] @ k[t], k[t]))
        momentum = sum(math.prod(beta[j + 1 : t + 1].tolist()) * write for j, write in enumerate(writes))
        memories.append(alpha[t] * memories[-1] + momentum)
    return memories[:-1], memories[-1]


@pytest.mark.equation("10.1")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_surprise_is_a_gradient(seed: int) -> None:
    """The gradient that torch finds, and the write of the library with the rate 1, which is minus it."""
    M = draws(seed, 3, 4).requires_grad_()
    _, k, v = stream(seed, 1)
    (0.5 * (M @ k[0] - v[0]).square().sum()).backward()
    begun = MemoryState(M.detach()[None, None])
    one, zero = torch.ones(1, dtype=f64), torch.zeros(1, dtype=f64)
    after = library(k, k, v, one, zero, one, begun)[1].M[0, 0]
    torch.testing.assert_close(M.grad, -(after - M.detach()), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(M.grad, -torch.outer(v[0] - M.detach() @ k[0], k[0]), rtol=1e-12, atol=1e-13)


@pytest.mark.equation("10.2")
@pytest.mark.parametrize("seed", SEEDS)
def test_titans(seed: int) -> None:
    """The chunks of the library, against the sum in which each past error has faded by its own betas."""
    q, k, v = stream(seed, 21)
    eta, beta, alpha = gates(seed, 21)
    y, state = library(q, k, v, eta, beta, alpha)
    memories, last = before_every_token(k, v, eta, beta, alpha)
    answers = torch.stack([M @ query for M, query in zip([*memories[1:], last], q, strict=True)])
    assert state.Z is not None
    torch.testing.assert_close(y, answers, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(state.M[0, 0], last, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(state.M - alpha[-1] * memories[-1], state.Z, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("10.3")
@pytest.mark.parametrize(("beta", "alpha"), [(0.0, 1.0), (0.9, 1.0), (0.0, 0.8), (0.9, 0.8), (0.7, 0.7)])
@pytest.mark.parametrize("n", [0, 1, 9])
def test_what_is_left_of_one_write(beta: float, alpha: float, n: int) -> None:
    """One token is written, n tokens with the key 0 follow."""
    k = torch.zeros(n + 1, 1, dtype=f64)
    k[0] = 1.0
    one = torch.ones(n + 1, dtype=f64)
    _, state = library(k, k, torch.ones_like(k), 0.3 * one, beta * one, alpha * one)
    left = 0.3 * sum(beta**i * alpha ** (n - i) for i in range(n + 1))
    assert state.M.item() == pytest.approx(left, rel=1e-12)


@pytest.mark.equation("10.4")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_weights_of_a_chunk(seed: int) -> None:
    """The library, which adds logarithms, against products entry by entry."""
    T = 5
    eta, beta, alpha = gates(seed, T)

    def D(gate: Tensor) -> Tensor:
        rows = [[math.prod(gate[j + 1 : t + 1].tolist()) if j <= t else 0.0 for j in range(T)] for t in range(T)]
        return torch.tensor(rows, dtype=f64)

    W = D(alpha) @ D(beta) @ torch.diag(eta)
    torch.testing.assert_close(kept(Gates(eta, alpha, beta), T).W, W, rtol=1e-12, atol=1e-14)


@pytest.mark.equation("10.5")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_memory_is_a_weighted_sum_of_errors(seed: int) -> None:
    """Every memory of a chunk that begins with a memory and a momentum: token by token, and as the sum."""
    T = 6
    _, k, v = stream(seed, T)
    eta, beta, alpha = gates(seed, T)
    M_0, Z_0 = draws(seed + 300, 2, 3, 4)
    left = kept(Gates(eta, alpha, beta), T)
    assert left.b is not None
    M, Z, errors = M_0, Z_0, []
    for t in range(T):
        errors.append(v[t] - M @ k[t])
        Z = beta[t] * Z + eta[t] * torch.outer(errors[t], k[t])
        M = alpha[t] * M + Z
        summed = sum(left.W[t, j] * torch.outer(errors[j], k[j]) for j in range(t + 1))
        torch.testing.assert_close(M, left.g[t] * M_0 + left.b[t] * Z_0 + summed, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("10.6")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_errors_of_a_chunk_solve_a_triangular_system(seed: int) -> None:
    """The errors of the loop, put into the system."""
    T = 8
    _, k, v = stream(seed, T)
    eta, beta, alpha = gates(seed, T)
    memories, _ = before_every_token(k, v, eta, beta, alpha)
    U = torch.stack([v[t] - memories[t] @ k[t] for t in range(T)])
    W = kept(Gates(eta, alpha, beta), T).W
    for t in range(T):
        corrected = sum((W[t - 1, j] * (k[t] @ k[j]) * U[j] for j in range(t)), torch.zeros(3, dtype=f64))
        torch.testing.assert_close(U[t] + corrected, v[t], rtol=1e-11, atol=1e-12)
    L = torch.zeros(T, T, dtype=f64)
    L[1:] = W[:-1] * (k @ k.T)[1:]
    torch.testing.assert_close((torch.eye(T, dtype=f64) + L) @ U, v, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("10.7")
@pytest.mark.parametrize("eta", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("length", [1.0, 0.5])
def test_a_repeated_key_with_gradients_at_the_start(eta: float, length: float) -> None:
    C = 16
    key, value = length * stream(0, 1)[1], draws(5, 1, 3)
    M_0 = draws(6, 1, 1, 3, 4)
    tokens = (x.expand(1, 1, C, -1) for x in (key, key, value))
    _, state = titans_memory(*tokens, eta, 0.0, gradient_period=C, lr_bound=None, state=MemoryState(M_0))
    before, after = (value[0] - M[0, 0] @ key[0] for M in (M_0, state.M))
    torch.testing.assert_close(after, (1 - C * eta * length**2) * before, rtol=1e-11, atol=1e-12)


@pytest.mark.equation("10.8")
@pytest.mark.parametrize("lr_bound", [0.5, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_bound_of_the_rate(seed: int, lr_bound: float) -> None:
    """The bounded library, against the literal one with rates cut by the formula."""
    T, C = 24, 8
    q, k, v = stream(seed, T)
    k = k * draws(seed + 400, T, 1).exp()
    eta, beta, alpha = gates(seed, T)
    cut = torch.minimum(eta, lr_bound * (1 - beta) / (C * k.square().sum(-1)))
    assert (cut < eta).any() and cut.sum() > 0
    tokens = [x[None, None] for x in (q, k, v)]
    faded = {"momentum": beta[None, None], "retain": alpha[None, None], "gradient_period": C}
    ours = titans_memory(*tokens, eta[None, None], lr_bound=lr_bound, **faded)[0]
    torch.testing.assert_close(
        ours, titans_memory(*tokens, cut[None, None], lr_bound=None, **faded)[0], rtol=0, atol=1e-13
    )


@pytest.mark.equation("10.9")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_deep_memory_answers(seed: int) -> None:
    """An unwritten memory of the library (rate 0), against the formula with gelu from the error function."""
    W1, W2, x = draws(seed, 4, 6), draws(seed + 1, 6, 4), draws(seed + 2, 4)
    z = W2 @ x
    answer = x + W1 @ (z * 0.5 * (1 + torch.erf(z / math.sqrt(2))))
    torch.testing.assert_close(read_deep(DeepWeights(W1, W2), x), answer, rtol=1e-12, atol=1e-13)
    one = x.view(1, 1, 1, -1)
    y, _ = deep_titans_memory(one, one, one, 0.0, 0.0, start=DeepWeights(W1[None], W2[None]))
    torch.testing.assert_close(y[0, 0, 0], answer, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("10.10")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_two_gradients_of_a_deep_memory(seed: int) -> None:
    """What one write of the library changes, what torch differentiates, and the formula with gelu' from erf."""
    start = new_deep_weights(1, 4, hidden=6, generator=torch.Generator().manual_seed(seed), dtype=f64)
    k, v = draws(seed + 1, 4), draws(seed + 2, 4)
    tokens = [x.view(1, 1, 1, -1) for x in (k, k, v)]
    _, state = deep_titans_memory(*tokens, 1.0, 0.0, start=start, gradient_period=1, lr_bound=None)
    W1, W2 = (W[0].clone().requires_grad_() for W in start)
    z = W2 @ k
    h = gelu(z)
    e = k + W1 @ h - v
    (0.5 * e.square().sum()).backward()
    slope = 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    s = (W1.T @ e) * slope
    by_hand = torch.outer(e, h).detach(), torch.outer(s, k).detach()
    for W, formula, first, after in zip((W1, W2), by_hand, start, state.weights, strict=True):
        torch.testing.assert_close(W.grad, formula, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(first[0] - after[0, 0], formula, rtol=1e-11, atol=1e-12)
