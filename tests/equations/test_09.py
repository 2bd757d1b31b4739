"""Both sides of every equation of notebook 09, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nlcore.memory import delta, read
from nlcore.sequence import MemoryState, delta_rule, linear_attention, oja_rule
from nlcore.sequence.attention import nadaraya_watson, softmax_attention

SEEDS = pytest.mark.parametrize("seed", range(4))
FORMS = pytest.mark.parametrize("chunk_size", [None, 4])


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]


def close(left: Tensor, right: Tensor, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def weighted_least_squares(s: Tensor, v: Tensor) -> Tensor:
    """Return argmin_m sum_i s_i |v_i - m|^2, by a solver that does not know that it is a mean."""
    root = s.sqrt()[:, None]
    return torch.linalg.lstsq(root, root * v).solution[0]


def stepped(objective: Callable[[Tensor], Tensor], M: Tensor, lr: Tensor, retain: Tensor) -> Tensor:
    """Return the memory after one step down the gradient of the objective, by autograd."""
    M = M.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(M), M)
    return (retain * M - lr * slope).detach()


@pytest.mark.equation("NL 62")
@SEEDS
def test_softmax_attention_is_the_answer_with_the_least_weighted_error(seed: int) -> None:
    q, k, v = draw(seed, (9, 4), (9, 4), (9, 3))
    y, _ = softmax_attention(*(x[None, None] for x in (q, k, v)))
    assert y.dtype == torch.float64
    for t in range(9):
        s = (k[: t + 1] @ q[t] / 4**0.5).exp()
        close(y[0, 0, t], weighted_least_squares(s, v[: t + 1]))
    close(nadaraya_watson(*(x[None, None] for x in (q, k, v))), y)


@pytest.mark.equation("NL 63")
@SEEDS
@pytest.mark.parametrize("c", [1, 3, 20])
def test_a_window_asks_the_last_pairs_only(seed: int, c: int) -> None:
    q, k, v = draw(seed, (12, 4), (12, 4), (12, 3))
    y, _ = softmax_attention(*(x[None, None] for x in (q, k, v)), window=c)
    assert y.dtype == torch.float64
    for t in range(12):
        first = max(0, t - c + 1)
        s = (k[first : t + 1] @ q[t] / 4**0.5).exp()
        close(y[0, 0, t], (s / s.sum()) @ v[first : t + 1])


@pytest.mark.equation("NL 64")
@SEEDS
@FORMS
def test_linear_attention_steps_down_a_dot_product(seed: int, chunk_size: int | None) -> None:
    q, k, v, gates = draw(seed, (9, 4), (9, 4), (9, 3), (2, 9))
    lr, retain = gates.sigmoid()
    y, state = linear_attention(
        *(x[None, None] for x in (q, k, v)), lr[None, None], retain[None, None], chunk_size=chunk_size
    )
    M = torch.zeros(3, 4, dtype=torch.float64)
    for t in range(9):
        M = stepped(lambda M, t=t: -(M @ k[t]) @ v[t], M, lr[t], retain[t])
        close(y[0, 0, t], M @ q[t])
    close(state.M[0, 0], M)


@pytest.mark.equation("NL 65")
@SEEDS
@FORMS
def test_the_delta_rule_steps_down_half_the_squared_error(seed: int, chunk_size: int | None) -> None:
    q, k, v, rates = draw(seed, (9, 4), (9, 4), (9, 3), (9,))
    k, lr, one = normalize(k, dim=-1), 2 * rates.sigmoid(), torch.ones(())
    y, state = delta_rule(*(x[None, None] for x in (q, k, v)), lr[None, None], chunk_size=chunk_size)
    M = S = torch.zeros(3, 4, dtype=torch.float64)
    for t in range(9):
        M = stepped(lambda M, t=t: 0.5 * (M @ k[t] - v[t]).square().sum(), M, lr[t], one)
        S = S @ (torch.eye(4, dtype=torch.float64) - lr[t] * torch.outer(k[t], k[t])) + lr[t] * torch.outer(v[t], k[t])
        close(y[0, 0, t], M @ q[t])
    close(state.M[0, 0], S)


@pytest.mark.equation("NL 67")
@SEEDS
@FORMS
def test_ojas_rule_steps_down_its_objective(seed: int, chunk_size: int | None) -> None:
    q, k, v, gates = draw(seed, (9, 4), (9, 4), (9, 3), (2, 9))
    v, (lr, retain) = normalize(v, dim=-1), gates.sigmoid()
    y, _ = oja_rule(*(x[None, None] for x in (q, k, v)), lr[None, None], retain[None, None], chunk_size=chunk_size)
    assert y.dtype == torch.float64
    M = torch.zeros(3, 4, dtype=torch.float64)
    for t in range(9):
        M = stepped(lambda M, t=t: -(M @ k[t]) @ v[t] + 0.5 * (M.mT @ v[t]).square().sum(), M, lr[t], retain[t])
        close(y[0, 0, t], M @ q[t])


@pytest.mark.equation("09.1")
@SEEDS
def test_linear_attention_is_a_sum_over_the_past(seed: int) -> None:
    q, k, v = draw(seed, (9, 4), (9, 4), (9, 3))
    y, _ = linear_attention(*(x[None, None] for x in (q, k, v)), chunk_size=None)
    assert y.dtype == torch.float64
    for t in range(9):
        close(y[0, 0, t], sum((k[i] @ q[t]) * v[i] for i in range(t + 1)))


@pytest.mark.equation("09.2")
@SEEDS
@pytest.mark.parametrize("eta", [0.3, 1.0, 1.7])
def test_the_error_of_a_repeated_pair_shrinks_by_one_factor(seed: int, eta: float) -> None:
    start, k, v = draw(seed, (3, 4), (4,), (3,))
    k = normalize(k, dim=0)
    M = start
    for n in range(1, 8):
        M = delta(M, k, v, lr=eta)
        close(read(M, k), v + (1 - eta) ** n * (start @ k - v))
    across = torch.linalg.svd(k[None]).Vh[1:]  # three directions at right angles to k
    close(M @ across.mT, start @ across.mT)


@pytest.mark.equation("09.3")
@SEEDS
@pytest.mark.parametrize("C", [1, 2, 13])
def test_the_errors_of_a_chunk_solve_a_triangular_system(seed: int, C: int) -> None:
    start, k, v = draw(seed, (3, 4), (C, 4), (C, 3))
    k, eta = normalize(k, dim=-1), 0.7
    M, errors = start, []
    for t in range(C):
        errors.append(v[t] - M @ k[t])
        M = delta(M, k[t], v[t], lr=eta)
    U, L = torch.stack(errors), torch.zeros(C, C, dtype=torch.float64)
    for t in range(C):
        for j in range(t):
            L[t, j] = eta * k[t] @ k[j]
    close(U + L @ U, v - k @ start.mT)
    _, state = delta_rule(
        k[None, None], k[None, None], v[None, None], eta, state=MemoryState(start[None, None]), chunk_size=C
    )
    close(state.M[0, 0], start + eta * U.mT @ k)


@pytest.mark.equation("NL 69")
@SEEDS
@FORMS
def test_a_layer_that_the_stream_writes_into(seed: int, chunk_size: int | None) -> None:
    """Linear attention that starts from W, against W and linear attention from zero side by side."""
    W, q, k, v = draw(seed, (3, 4), (9, 4), (9, 4), (9, 3))
    tokens, eta = [x[None, None] for x in (q, k, v)], 0.2
    y, state = linear_attention(*tokens, eta, state=MemoryState(W[None, None]), chunk_size=chunk_size)
    assert y.dtype == torch.float64
    for t in range(9):
        W_t = W + eta * sum(torch.outer(v[i], k[i]) for i in range(t + 1))
        close(y[0, 0, t], W_t @ q[t])
    close(state.M[0, 0], W + eta * v.mT @ k)
