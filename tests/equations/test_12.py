"""Both sides of every equation of notebook 12, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu

from nlcore.hope import HopeBlock, TokenContinuum
from nlcore.hope.continuum import Reading
from nlcore.hope.level import FastWeights, largest, pairs_of, see
from nlcore.hope.readout import new_readout
from nlcore.sequence.self_modifying import Boxes, Rules, self_modifying_memory

SEEDS = range(3)
F64 = torch.float64
D = 6


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def rms(y: Tensor) -> Tensor:
    return y / (y.square().mean(-1, keepdim=True) + 1e-12).sqrt()


def inside(W1: Tensor, a: Tensor) -> Tensor:
    return gelu(a @ W1.mT, approximate="tanh")


@pytest.mark.equation("NL 97")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_of_the_memory_goes_through_the_chain(seed: int) -> None:
    rules = Rules(memory_chunk=1, rewrite=("memory",))
    boxes = Boxes(0.5 * normal(seed, 1, rules.all_rows(D), D), normal(seed + 1, 1), 2 + normal(seed + 2, 1))
    x, q = normal(seed + 3, 1, 1, 5, D), normal(seed + 4, 1, 1, 5, D)
    answers, _ = self_modifying_memory(x, q, boxes, rules)
    _, before = self_modifying_memory(x[:, :, :4], q[:, :, :4], boxes, rules)
    memory = before.S[0, 0, -D:]  # M_memory after four tokens
    torch.manual_seed(seed)
    chain = TokenContinuum(D, (2, 8), dtype=F64)
    y, _ = chain(answers[:, 0])
    o = memory @ q[0, 0, 4]
    for W1, W2, norm in zip(chain.W1, chain.W2, chain.norms, strict=True):
        o = o + W2 @ inside(W1, norm(o))
    torch.testing.assert_close(y[0, 4], o, rtol=1e-10, atol=1e-10)


@pytest.mark.equation("12.1")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_block_is_titans_then_one_mlp_after_another(seed: int) -> None:
    torch.manual_seed(seed)
    block = HopeBlock(D, 2, periods=(3, 7), dtype=F64)
    x = normal(seed, 2, 9, D)
    h = x + block.mixer(block.mixer_norm(x))[0]
    for W1, W2, norm in zip(block.cms.W1, block.cms.W2, block.cms.norms, strict=True):
        h = h + inside(W1, norm(h)) @ W2.mT
    torch.testing.assert_close(block(x)[0], h, rtol=1e-12, atol=1e-12)


@pytest.mark.equation("12.2")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_error_is_the_gradient_of_the_next_tokens_loss(seed: int) -> None:
    H, y, token = normal(seed, 8, D), normal(seed + 1, D).requires_grad_(), torch.tensor(3)
    p = torch.softmax(H @ rms(y), 0)
    g = H.T @ p - H[token]
    n, scale = rms(y), (y.square().mean() + 1e-12).sqrt()
    e = (g - n * (g * n).mean()) / scale
    (expected,) = torch.autograd.grad(cross_entropy((H @ rms(y))[None], token[None]), y)
    torch.testing.assert_close(e, expected, rtol=1e-9, atol=1e-12)
    library, _ = new_readout(H, torch.ones(D, dtype=F64), 1e-6, F64).error(y.detach()[None, None], token[None, None])
    torch.testing.assert_close(library[0, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.equation("12.3")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradients_of_a_period_are_sums_of_outer_products(seed: int) -> None:
    W1, W2 = (normal(seed + i, *shape).requires_grad_() for i, shape in enumerate(((4, D), (D, 4))))
    x, a, tokens = normal(seed + 2, 5, D), normal(seed + 3, 5, D), torch.tensor([0, 3, 1, 1, 2])
    H = normal(seed + 4, 8, D)
    y = x + inside(W1, a) @ W2.mT
    expected = torch.autograd.grad(cross_entropy(rms(y) @ H.mT, tokens, reduction="sum"), (W1, W2))
    weights = FastWeights(W1.detach(), W2.detach())
    seen = see(weights, x[None], a[None])
    readout = new_readout(H, torch.ones(D, dtype=F64), 1e-6, F64)
    pairs = pairs_of(weights, seen, *readout.error(seen.y, tokens[None]))
    torch.testing.assert_close(pairs.error[0].T @ pairs.h[0], expected[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pairs.dz[0].T @ pairs.a[0], expected[0], rtol=1e-9, atol=1e-12)
    z = (a @ W1.mT).detach().requires_grad_()
    (slope,) = torch.autograd.grad(gelu(z, approximate="tanh").sum(), z)
    torch.testing.assert_close(pairs.dz[0], (pairs.error[0] @ weights.W2) * slope, rtol=1e-9, atol=1e-12)


@pytest.mark.equation("12.4")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_level_is_written_towards_its_start_and_down_the_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    chain = TokenContinuum(D, (4,), hidden=3, dtype=F64)
    H, x, tokens = normal(seed, 8, D), normal(seed + 1, 1, 9, D), torch.tensor([[0, 3, 1, 1, 2, 7, 5, 5, 4]])
    readout = new_readout(H, torch.ones(D, dtype=F64), 1e-6, F64)
    with torch.no_grad():
        _, state = chain(x, None, None, Reading(tokens, readout))
        level = chain.levels_now(F64)[0]
        start, W, kappa = level.start, level.start, float(level.keep)
        for first in (0, 4):  # tokens 0 to 3 learn when 1 to 4 have come; then 4 to 7
            part = slice(first, first + 4)
            seen = see(W, x[:, part], level.norm(x[:, part]))
            pairs = pairs_of(W, seen, *readout.error(seen.y, tokens[:, first + 1 : first + 5]))
            c, parts = pairs.bend.sum(), []
            for W_old, W_0, G, rows in (
                (W.W1, start.W1, pairs.dz[0].T @ pairs.a[0], pairs.a),
                (W.W2, start.W2, pairs.error[0].T @ pairs.h[0], pairs.h),
            ):
                bound = largest(rows, pairs.bend)[0, 0, 0] + c
                parts.append(W_0 + kappa * (W_old - W_0) - level.log_lr.exp() * G / bound)
            W = FastWeights(*parts)
    learned = state.levels[0].learned
    for got, now, begin in zip(learned, W, start, strict=True):
        torch.testing.assert_close(got[0], now - begin, rtol=1e-9, atol=1e-12)


@pytest.mark.equation("12.5")
@pytest.mark.parametrize("seed", SEEDS)
def test_gershgorins_bound_is_at_least_the_largest_eigenvalue(seed: int) -> None:
    h, c = normal(seed, 5, 7), normal(seed + 1, 5).square()
    bound = max(sum(c[t] * (h[s] @ h[t]).abs() for t in range(5)) for s in range(5))
    torch.testing.assert_close(largest(h[None], c[None, :, None])[0, 0, 0], bound, rtol=1e-12, atol=1e-12)
    assert torch.linalg.eigvalsh((h.T * c) @ h)[-1] <= bound
