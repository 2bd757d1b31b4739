"""Both sides of every equation of notebook 08, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nlcore.cms import ContinuumMemory
from nlcore.meta.adjoint import loss_and_gradients
from nlcore.meta.chain import Chain, new_start
from nlcore.meta.reading import read
from nlcore.optimizers import SGD, PeriodicOptimizer

SEEDS = range(5)
F64 = torch.float64


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def system(seed: int, variant: str = "sequential", **settings) -> ContinuumMemory:
    torch.manual_seed(seed)
    return ContinuumMemory(4, (1, 3, 6), variant, lrs=(0.1, 0.05, 0.02), hidden=5, dtype=F64, **settings)


def through(blocks, x: Tensor, weights: list[dict[str, Tensor]]) -> Tensor:
    """The chain by torch's own modules: x + f(x) for one block after the other."""
    for block, own in zip(blocks, weights, strict=True):
        x = x + functional_call(block, own, (x,))
    return x


@pytest.mark.equation("NL 70")
@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_in_a_chain(seed: int) -> None:
    cms, x = system(seed), normal(seed, 2, 7, 4)
    expected = through(cms.blocks, x, [dict(block.named_parameters()) for block in cms.blocks])
    torch.testing.assert_close(cms.read(x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.equation("NL 71")
@pytest.mark.parametrize("chunk_size", [None, 256])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_write_is_a_step_on_the_sum_of_a_chunk(seed: int, chunk_size: int | None) -> None:
    cms, x, target = system(seed, chunk_size=chunk_size), normal(seed, 1, 20, 4), normal(seed + 50, 1, 20, 4)
    with torch.no_grad():
        answers, state = cms(x, target)
    weights = [{name: W.detach().clone() for name, W in block.named_parameters()} for block in cms.blocks]
    start = [{name: W.clone() for name, W in own.items()} for own in weights]
    seen: list[list[dict[str, Tensor]]] = [[], [], []]
    for t in range(20):
        for own in weights:
            for W in own.values():
                W.requires_grad_()
        y = through(cms.blocks, x[0, t], weights)
        torch.testing.assert_close(answers[0, t], y.detach(), rtol=1e-11, atol=1e-12)
        flat = [W for own in weights for W in own.values()]
        found = iter(torch.autograd.grad(0.5 * (y - target[0, t]).square().sum(), flat))
        for level, (period, lr) in enumerate(zip((1, 3, 6), (0.1, 0.05, 0.02), strict=True)):
            seen[level].append({name: next(found) for name in weights[level]})
            if (t + 1) % period == 0:
                chunk = seen[level][t + 1 - period :]
                weights[level] = {
                    name: W.detach() - lr * sum(g[name] for g in chunk) for name, W in weights[level].items()
                }
    for own, begin, level in zip(weights, start, state.levels, strict=True):
        moved = torch.cat([(own[name] - begin[name]).detach().flatten() for name in own])
        torch.testing.assert_close(level.learned[0], moved, rtol=1e-10, atol=1e-12)


@pytest.mark.equation("NL 74")
@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_side_by_side(seed: int) -> None:
    cms, x = system(seed, "independent"), normal(seed, 2, 7, 4)
    with torch.no_grad():
        cms.mixture_logits.copy_(normal(seed + 9, 3))
    a = cms.mixture_logits.exp() / cms.mixture_logits.exp().sum()
    expected = sum(a[level] * (x + block(x)) for level, block in enumerate(cms.blocks))
    torch.testing.assert_close(cms.read(x), expected, rtol=1e-12, atol=1e-13)


def after(lr: float, period: int, steps: int, curvature: float) -> float:
    w = torch.ones(1, dtype=F64, requires_grad=True)
    optimizer = PeriodicOptimizer([SGD([w], lr=lr)], [period], "sum")
    for _ in range(steps):
        w.grad = curvature * w.detach()
        optimizer.step()
    return w.item()


@pytest.mark.equation("08.1")
@pytest.mark.parametrize("C", [2, 5, 16])
@pytest.mark.parametrize("curvature", [0.5, 3.0])
def test_a_period_is_a_learning_rate_to_first_order(C: int, curvature: float) -> None:
    for lr in (1e-4, 1e-5):
        together, singly = after(lr, C, C, curvature), after(lr, 1, C, curvature)
        assert together == pytest.approx(1 - C * lr * curvature, abs=1e-14)
        assert singly == pytest.approx((1 - lr * curvature) ** C, abs=1e-14)
        second = -C * (C - 1) / 2 * (lr * curvature) ** 2
        assert together - singly == pytest.approx(second, abs=(C * lr * curvature) ** 3 + 1e-14)


@pytest.mark.equation("08.2")
@pytest.mark.parametrize("C", [1, 4, 16])
@pytest.mark.parametrize("curvature", [0.5, 3.0])
def test_the_largest_stable_rate_falls_with_the_period(C: int, curvature: float) -> None:
    bound = 2 / (C * curvature)
    assert abs(after(0.99 * bound, C, 400 * C, curvature)) < 1e-3
    assert abs(after(1.01 * bound, C, 400 * C, curvature)) > 1e3


@pytest.mark.equation("08.3")
@pytest.mark.parametrize("variant", ["sequential", "nested", "independent"])
def test_what_is_written_for_each_token(variant: str) -> None:
    cms, x, target = system(0, variant), normal(0, 1, 24, 4), normal(1, 1, 24, 4)
    state, changed = cms.start_stream(1), 0
    for t in range(24):
        with torch.no_grad():
            _, new = cms(x[:, t : t + 1], target[:, t : t + 1], state)
        pairs = zip(state.levels, new.levels, strict=True)
        changed += sum(int((old.learned != now.learned).sum()) for old, now in pairs)
        state = new
    sizes = [sum(W.numel() for W in block.parameters()) for block in cms.blocks]
    assert changed / 24 == pytest.approx(sizes[0] / 1 + sizes[1] / 3 + sizes[2] / 6)
    assert changed / 24 == pytest.approx(sum(level.numbers * level.frequency for level in cms.levels()))


@pytest.mark.equation("NL 72")
@pytest.mark.parametrize("seed", range(2))
def test_the_start_of_a_nested_level_is_the_best_for_its_contexts(seed: int) -> None:
    """One linear block, one input, contexts of four tokens with a target each: the best start answers their mean.

    Without the reset, what one context taught is in the way of the next one, and the best start is another.
    """
    d, contexts = 3, normal(seed, 5, 3)
    target = contexts.repeat_interleave(4, 0)[None]
    x = torch.zeros(1, 20, d, dtype=F64)
    x[..., 0] = 1.0
    best = {}
    for name, ends in (("reset", (4,)), ("no reset", (None,))):
        torch.manual_seed(seed)
        block = nn.Linear(d, d, bias=False, dtype=F64)
        cms = ContinuumMemory.from_mlps([block], (2,), lrs=0.2, contexts=ends, residual=False)
        outer = torch.optim.LBFGS(cms.blocks.parameters(), line_search_fn="strong_wolfe", tolerance_grad=1e-12)

        def closure(cms=cms, outer=outer) -> Tensor:
            outer.zero_grad()
            loss = (cms(x, target)[0] - target).square().mean()
            loss.backward()
            return loss

        for _ in range(5):
            outer.step(closure)
        best[name] = cms.blocks[0].weight[:, 0].detach()
    torch.testing.assert_close(best["reset"], contexts.mean(0), rtol=1e-8, atol=1e-8)
    assert (best["no reset"] - contexts.mean(0)).norm() > 0.05


@pytest.mark.equation("NL 73")
@pytest.mark.parametrize("resets", [(0, 0, 0), (2, 6, 0)])
def test_the_gradient_for_the_starts_runs_through_all_writes(resets: tuple[int, ...]) -> None:
    """The library's gradient by hand against differences of the loss of whole readings."""
    chain = Chain((1, 2, 6), resets)
    start = new_start(chain, [0], [0.05], dtype=F64)
    x, y = normal(1, 15, 4, 2), normal(2, 15, 2, 2)
    gradients = loss_and_gradients(chain, start, x, y, 2)[1]

    def loss() -> float:
        with torch.no_grad():
            return read(chain, start.spread(2), x, y).errors.square().sum(1).mean().item()

    for place, (parameter, gradient) in enumerate(zip(start.parameters(), gradients, strict=True)):
        direction = normal(place, *parameter.shape)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-6 * direction
            sides.append(loss())
            with torch.no_grad():
                parameter -= sign * 1e-6 * direction
        expected = (sides[0] - sides[1]) / 2e-6
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-8)
