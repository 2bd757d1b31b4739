"""Chains of fast weights: gradients by hand against autograd, periods, resets, causality; and learning their starts."""

import math

import pytest
import torch
from torch import Tensor

from nlcore.meta import Chain, Start, examine, meta_learn, new_start, read, search
from nlcore.meta.adjoint import loss_and_gradients

KINDS = {
    "flat": Chain(),
    "one rate": Chain(rates="one"),
    "decay": Chain(decay="block"),
    "by parameter": Chain(rates="parameter", decay="parameter"),
    "CMS": Chain((1, 2, 4), decay="block"),
    "nested, slow first": Chain((4, 2, 1), (0, 4, 2), decay="parameter"),
    "independent": Chain((1, 2, 4), (2, 4, 0), independent=True),
    "one block": Chain((math.inf, 1, 3)),
    "cut early": Chain((1, 2, 1), (0, 4, 0), cut=0.8),
    "plain square": Chain(cut=math.inf),
}


def small(chain: Chain, steps: int = 11) -> tuple[Start, Tensor, Tensor]:
    """Two worlds with two streams each, in float64: inputs (T, 4, 4) and outputs (T, 2, 4)."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(steps, size, 4, generator=random, dtype=torch.float64) for size in (4, 2))
    return new_start(chain, [3, 4], [0.05, 0.02], dtype=torch.float64), x, y


def answer(chain: Chain, into: Tensor, out: Tensor, weights: list[Tensor], x: Tensor) -> Tensor:
    """The chain as one would write it for one stream; weights are U, D of each block in turn."""
    first = h = into @ torch.cat([x, x.new_ones(1)])
    for U, D in zip(weights[::2], weights[1::2], strict=True):
        h = h + D @ torch.tanh(U @ (first if chain.independent else h))
    return out @ h


def slowly(chain: Chain, start: Start, x: Tensor, y: Tensor, copy: int) -> tuple[Tensor, list[Tensor]]:
    """Read one stream (of world copy // 2) with gradients by torch.autograd; return errors and weights."""
    into, out = start.into[..., copy // 2], start.out[..., copy // 2]
    begin = [m[..., copy // 2].detach() for pair in zip(start.up, start.down, strict=True) for m in pair]
    now, waiting, errors = list(begin), [torch.zeros_like(m) for m in begin], []
    for i in range(1, len(x) + 1):
        weights = [m.clone().requires_grad_() for m in now]
        errors.append(answer(chain, into, out, weights, x[i - 1, :, copy]) - y[i - 1, :, copy])
        length = errors[-1].square().sum().sqrt()
        huber = length.square() / 2 if length <= chain.cut else chain.cut * (length - chain.cut / 2)
        for total, gradient in zip(waiting, torch.autograd.grad(huber, weights), strict=True):
            total += gradient
        for place in range(len(now)):
            level, side = divmod(place, 2)
            if i % chain.periods[level]:
                continue
            rate = start.rates[level][side][..., copy // 2].exp()
            fade = start.decays[level][side][..., copy // 2].sigmoid() if start.decays else 0.0
            now[place] = now[place] + fade * (begin[place] - now[place]) - rate * waiting[place]
            if chain.resets[level] and i % chain.resets[level] == 0:
                now[place] = begin[place]
            waiting[place].zero_()
    return torch.stack(errors).detach(), [m.detach() for m in now]


@pytest.mark.parametrize("name", KINDS)
def test_gradients_by_hand_equal_autograd(name: str) -> None:
    chain = KINDS[name]
    start, x, y = small(chain)
    reading = read(chain, start.spread(2), x, y)
    for copy in range(4):
        errors, weights = slowly(chain, start, x, y, copy)
        torch.testing.assert_close(reading.errors[..., copy], errors, rtol=1e-11, atol=1e-12)
        for level in range(3):
            torch.testing.assert_close(reading.up[level][..., copy], weights[2 * level], rtol=1e-11, atol=1e-12)
            torch.testing.assert_close(reading.down[level][..., copy], weights[2 * level + 1], rtol=1e-11, atol=1e-12)


def test_one_write_of_a_period_is_one_step_on_the_summed_loss() -> None:
    chain = Chain((math.inf, 8, math.inf), cut=math.inf)
    start, x, y = small(chain, steps=8)
    reading = read(chain, start.spread(2), x, y)
    weights = [m[..., 1] for pair in zip(start.up, start.down, strict=True) for m in pair]
    losses = [
        (answer(chain, start.into[..., 1], start.out[..., 1], weights, x[t, :, 3]) - y[t, :, 3]).square().sum() / 2
        for t in range(8)
    ]
    gradient = torch.autograd.grad(sum(losses), weights[2])[0]
    rate = start.rates[1][0][..., 1].exp()
    torch.testing.assert_close(reading.up[1][..., 3], weights[2] - rate * gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", KINDS)
def test_the_outer_gradient_is_that_of_finite_differences(name: str) -> None:
    chain = KINDS[name]
    start, x, y = small(chain)

    def loss() -> Tensor:
        return read(chain, start.spread(2), x, y).errors.square().sum()

    parameters = start.parameters()
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss(), parameters, allow_unused=True), strict=True):
        if gradient is None:  # the rate of a block that is never written
            continue
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-5 * direction
                values.append(loss())
                parameter -= sign * 1e-5 * direction
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", KINDS)
def test_the_outer_gradient_by_hand_equals_autograd(name: str) -> None:
    chain = KINDS[name]
    start, x, y = small(chain)
    loss, gradients = loss_and_gradients(chain, start, x, y, 2)
    slow = read(chain, start.spread(2), x, y).errors.square().sum() / (2 * len(x))
    expected = torch.autograd.grad(slow, start.parameters(), allow_unused=True)
    torch.testing.assert_close(loss, slow.detach())
    for gradient, wanted in zip(gradients, expected, strict=True):
        wanted = torch.zeros_like(gradient) if wanted is None else wanted
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-13)


def test_writes_are_counted_and_fall_on_the_periods() -> None:
    chain = Chain((1, 4, 16))
    start, x, y = small(chain, steps=64)
    assert read(chain, start.spread(2), x, y).written == [64, 16, 4] and chain.cost == 1 + 1 / 4 + 1 / 16
    early, late = (read(chain, start.spread(2), x[:steps], y[:steps]) for steps in (15, 16))
    assert torch.equal(early.up[2], start.spread(2).up[2]) and not torch.equal(late.up[2], start.spread(2).up[2])
    assert not torch.equal(early.up[1], start.spread(2).up[1])


def test_a_reset_puts_a_block_back_and_leaves_the_others() -> None:
    chain = Chain((1, 1, 1), (4, 8, 0))
    start, x, y = small(chain, steps=8)
    begin = start.spread(2)
    four, eight = (read(chain, begin, x[:steps], y[:steps]) for steps in (4, 8))
    assert torch.equal(four.up[0], begin.up[0]) and not torch.equal(four.up[1], begin.up[1])
    assert torch.equal(eight.down[1], begin.down[1]) and not torch.equal(eight.down[2], begin.down[2])
    everything = Chain((1, 1, 1), (4, 4, 4))
    again = read(everything, begin, torch.cat([x[:4], x[:4]]), torch.cat([y[:4], y[:4]])).errors
    torch.testing.assert_close(again[:4], again[4:], rtol=0, atol=0)


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_later_changes_nothing_before(name: str) -> None:
    chain = KINDS[name]
    start, x, y = small(chain)
    before = read(chain, start.spread(2), x, y).errors
    y2 = y.clone()
    y2[6] += 1.0
    after = read(chain, start.spread(2), x, y2).errors
    assert torch.equal(before[:6], after[:6])
    torch.testing.assert_close(before[6] - 1.0, after[6])  # the answer itself knew nothing of y_6
    assert not torch.equal(before[7:], after[7:])


def test_streams_and_worlds_do_not_feel_each_other() -> None:
    chain = KINDS["nested, slow first"]
    start, x, y = small(chain)
    together = read(chain, start.spread(2), x, y).errors
    x2 = x.clone()
    x2[..., 0] += 1.0
    assert torch.equal(read(chain, start.spread(2), x2, y).errors[..., 1:], together[..., 1:])
    alone = meta_learn(chain, [7], [0.03], [0.02], 3, number=2, steps=16)
    both = meta_learn(chain, [5, 7], [0.02, 0.03], [0.04, 0.02], 3, number=2, steps=16)
    torch.testing.assert_close(alone.up[1][..., 0], both.up[1][..., 1], rtol=1e-4, atol=1e-5)


def test_chains_start_alike_and_a_world_has_one_start() -> None:
    flat, nested = (new_start(KINDS[name], [1, 2], [0.02, 0.02]) for name in ("by parameter", "CMS"))
    assert all(torch.equal(a, b) for a, b in zip(flat.up + flat.down, nested.up + nested.down, strict=True))
    assert (
        len(new_start(Chain(rates="one"), [1], [0.1]).parameters())
        == len(new_start(Chain(), [1], [0.1]).parameters()) - 2
    )
    torch.testing.assert_close(nested.rates[2][0].exp(), nested.rates[0][0].exp() / 2)  # period 4
    assert len(flat.decays) == 3 and not new_start(Chain(), [1], [0.1]).decays


def test_learning_lowers_the_error_and_a_search_finds_its_rates() -> None:
    chain = Chain((1, 8, 32), (8, 32, 0))
    before = examine(chain, new_start(chain, [1, 2], [0.03, 0.03]), [1, 2], number=8)
    after = examine(chain, meta_learn(chain, [1, 2], [0.03] * 2, [0.04] * 2, 12, number=4), [1, 2], number=8)
    assert set(after) == {"online", "last", "retention", "longer", "written"}
    assert all(a < b for a, b in zip(after["online"], before["online"], strict=True))
    assert after["written"] == chain.cost
    found = search(chain, [1], [0.03, 3.0], [0.001, 0.04], 6)
    assert found["rate"] == 0.03 and found["outer_rate"] == 0.04 and len(found["errors"]) == 2


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="multiple of its period"):
        Chain((1, 8, 32), (8, 12, 0))
    with pytest.raises(ValueError, match="a period >= 1 and a reset >= 0"):
        Chain((0.5, 1, 1))
    with pytest.raises(ValueError, match="expected rates one"):
        Chain(rates="layer")
    with pytest.raises(ValueError, match="one positive rate a seed"):
        new_start(Chain(), [1, 2], [0.1])
    with pytest.raises(ValueError, match="as many rates as seeds"):
        meta_learn(Chain(), [1], [0.1], [0.1, 0.2], 1)
    with pytest.raises(ValueError, match="every pair of rates diverged"):
        search(Chain(), [1], [1e30], [0.01], 1)
