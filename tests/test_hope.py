"""The continuum that learns from the next token: by hand, many tokens at once, against autograd, token by token."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nlcore.hope import HopeConfig, HopeLM, TokenContinuum, first_order, stretch
from nlcore.hope.continuum import ContinuumState, Reading
from nlcore.hope.level import largest
from nlcore.hope.readout import Readout, new_readout
from nlcore.hope.reference import token_loop
from nlcore.sequence.layers.norms import rms

F64 = torch.float64
B, T, D, H, V = 3, 23, 6, 9, 11


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def chain(*periods: int, **settings: Any) -> TokenContinuum:
    torch.manual_seed(0)
    return TokenContinuum(D, periods, H, dtype=F64, **settings)


def stream(length: int = T, seed: int = 1) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return normal(B, length, D, seed=seed).requires_grad_(), torch.randint(V, (B, length), generator=draw)


def ending() -> tuple[Tensor, Tensor]:
    return normal(V, D, seed=2).requires_grad_(), (1 + normal(D, seed=3) / 4).requires_grad_()


def readout() -> Readout:
    return new_readout(*ending(), 1e-3, F64)


def relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def read(
    module: TokenContinuum, x: Tensor, tokens: Tensor, cuts: tuple[int, ...] = (), lengths: Tensor | None = None
) -> tuple[Tensor, ContinuumState]:
    answers, state, begin, end_of_model = [], None, 0, readout()
    for end in (*cuts, x.shape[1]):
        part = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        y, state = module(x[:, begin:end], state, part, Reading(tokens[:, begin:end], end_of_model))
        answers.append(y)
        begin = end
    assert state is not None
    return torch.cat(answers, 1), state


def test_the_hand_derived_gradient_is_that_of_autograd() -> None:
    y, (_, tokens) = normal(B, T, D).requires_grad_(), stream()
    head, scale = ending()
    loss = cross_entropy((rms(y, 1e-3) * scale @ head.mT).flatten(0, 1), tokens.flatten(), reduction="sum")
    (expected,) = torch.autograd.grad(loss, y)
    error, _ = new_readout(head, scale, 1e-3, F64).error(y, tokens)
    assert relative(error, expected) < 1e-12


def test_the_loss_bends_no_more_than_the_readout_says() -> None:
    for seed in range(20):
        y, end_of_model = normal(1, 1, D, seed=seed) * 0.3, readout()
        _, bend = end_of_model.error(y, torch.zeros(1, 1, dtype=torch.long))

        def loss(point: Tensor) -> Tensor:
            return (rms(point, 1e-3) @ readout().H.mT).logsumexp(-1).sum()

        n = rms(y, 1e-3).detach()
        bends_in_n = torch.autograd.functional.hessian(lambda n: (n @ readout().H.mT).logsumexp(-1).sum(), n)
        turn = torch.autograd.functional.jacobian(lambda p: rms(p, 1e-3), y).reshape(D, D)
        total = turn.mT @ bends_in_n.reshape(D, D) @ turn  # Gauss-Newton: the bending along the readout
        assert torch.linalg.eigvalsh(total).max() <= bend.item()
        assert loss(y).isfinite()


@pytest.mark.parametrize(("n", "d"), [(1, 4), (4, 4), (3, 8), (20, 5)])
def test_the_bound_is_at_least_the_largest_eigenvalue(n: int, d: int) -> None:
    for seed in range(10):
        x, weight = normal(2, n, d, seed=seed), normal(2, n, 1, seed=seed + 50).abs()
        exact = torch.linalg.eigvalsh((x * weight).mT @ x).max(-1).values
        assert (largest(x, weight).flatten() >= exact * (1 - 1e-12)).all()


@pytest.mark.parametrize("learns", ["first_order", "second_order"])
@pytest.mark.parametrize("periods", [(1, 3, 7), (2, 4, 16), (5,), (4, 4), (50,)])
def test_the_fast_form_equals_the_token_loop_by_autograd(learns: str, periods: tuple[int, ...]) -> None:
    module, (x, tokens), weight = chain(*periods, learns=learns), stream(), normal(B, T, D, seed=7)
    head, scale = ending()
    wanted = [x, *module.W1, *module.W2, *(norm.scale for norm in module.norms)]
    if max(periods) < T / 2:  # else nothing was learned that could fade
        wanted += [module.log_lrs, module.keep_logits]
    wanted += [head, scale] if learns == "second_order" and min(periods) < T else []
    end_of_model = new_readout(head, scale, 1e-3, F64)
    y, state = module(x, None, None, Reading(tokens, end_of_model))
    z, learned = token_loop(module, x, tokens, end_of_model)
    assert relative(y, z) < 1e-12
    found = [W for level in state.levels for W in level.learned or (torch.zeros(()),) * 2]
    for one, other in zip(found, learned, strict=True):
        assert (one - other).abs().max() < 1e-12
    pairs = [torch.autograd.grad((out * weight).sum(), wanted, retain_graph=True) for out in (y, z)]
    for one, other in zip(*pairs, strict=True):
        assert relative(one, other) < 1e-10


@pytest.mark.parametrize("learns", ["first_order", "second_order"])
@pytest.mark.parametrize("cuts", [(8, 16), (1, 6, 7, 20), tuple(range(1, T))])
def test_a_stream_in_pieces_equals_the_whole(learns: str, cuts: tuple[int, ...]) -> None:
    module, (x, tokens), weight = chain(2, 4, 8, learns=learns), stream(), normal(B, T, D, seed=7)
    wanted = list(module.parameters())
    results = []
    for where in ((), cuts):
        y, state = read(module, x, tokens, where)
        loss = (y * weight).sum() + sum(W.square().sum() for level in state.levels for W in level.learned or ())
        results.append((y, torch.autograd.grad(loss, wanted)))
    assert relative(results[1][0], results[0][0]) < 1e-10
    for one, other in zip(results[1][1], results[0][1], strict=True):
        assert relative(one, other) < 1e-10


def test_without_gradients_the_same_is_learned() -> None:
    module, (x, tokens) = chain(2, 4), stream()
    y, state = read(module, x, tokens)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            z, after = read(module, x, tokens)
        assert torch.equal(y, z) and after.levels[1].learned is not None and state.levels[1].learned is not None
        assert torch.equal(after.levels[1].learned.W1, state.levels[1].learned.W1)


def test_a_level_updates_at_its_period_only() -> None:
    module, (x, tokens), state, moves = chain(2, 5), stream(), None, [[], []]
    before: list[Any] = [None, None]
    for t in range(T):
        _, state = module(x[:, t : t + 1], state, None, Reading(tokens[:, t : t + 1], readout()))
        for i, level in enumerate(state.levels):
            if level.learned is not None and (before[i] is None or not torch.equal(level.learned.W1, before[i])):
                moves[i].append(t)
                before[i] = level.learned.W1
    assert moves == [list(range(2, T, 2)), list(range(5, T, 5))]


def test_a_later_token_changes_no_earlier_output() -> None:
    module, (x, tokens) = chain(1, 3), stream()
    y, _ = read(module, x, tokens)
    for t in (1, 5, 12, T - 1):
        other = tokens.clone()
        other[:, t:] = (other[:, t:] + 1) % V
        z, _ = read(module, x, other)
        assert torch.equal(z[:, :t], y[:, :t]) and not torch.equal(z[:, t:], y[:, t:])


def test_streams_of_a_batch_do_not_notice_each_other() -> None:
    module, (x, tokens) = chain(2, 4), stream()
    y, _ = read(module, x, tokens)
    alone, _ = read(module, x[1:2], tokens[1:2])
    assert relative(alone, y[1:2]) < 1e-12


@pytest.mark.parametrize("cuts", [(), (8,), (3, 4, 17)])
def test_padding_teaches_nothing(cuts: tuple[int, ...]) -> None:
    module, (x, tokens), lengths = chain(2, 4), stream(), torch.tensor([T, 0, 10])
    y, state = read(module, x, tokens, cuts, lengths)
    alone, _ = read(module, x[2:, :10], tokens[2:, :10])
    assert relative(y[2:, :10], alone) < 1e-12
    for level in state.levels:
        assert level.learned is not None and not level.learned.W1[1].any() and level.learned.W1[2].any()
    other = torch.where(torch.arange(T) >= lengths[:, None], (tokens + 1) % V, tokens)
    _, again = read(module, x, other, cuts, lengths)
    assert torch.equal(state.levels[0].learned.W1, again.levels[0].learned.W1)


def test_a_chunk_lowers_the_loss_of_its_own_tokens() -> None:
    """The step is bounded: with eta = 1, reading the same tokens again is easier, at every scale of the weights."""
    for size in (0.1, 1.0, 10.0):
        module, (x, tokens), losses = chain(T, keep_start=None), stream(), []
        with torch.no_grad():
            head, scale = ending()
            for end_of_model in [new_readout(size * head, scale, 1e-3, F64)]:
                y, state = module(x, None, None, Reading(tokens, end_of_model))
                again, _ = module(x, state, None, Reading(tokens, end_of_model))
                for out in (y, again):
                    logits = rms(out, 1e-3)[:, :-1] @ end_of_model.H.mT
                    losses.append(cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item())
        assert losses[1] < losses[0]


def test_what_is_learned_fades_towards_the_start() -> None:
    module, (x, tokens) = chain(4, keep_start=0.5), stream()
    with torch.no_grad():
        _, state = read(module, x, tokens)
        module.log_lrs.fill_(-60.0)  # nothing new is learned
        _, after = module(x[:, :4], state, None, Reading(tokens[:, :4], readout()))
    one, other = (now.levels[0].learned for now in (state, after))
    assert one is not None and other is not None and torch.allclose(other.W1, 0.5 * one.W1, atol=1e-12)


def test_without_a_lesson_or_held_nothing_is_learned() -> None:
    module, (x, tokens) = chain(2, 4), stream()
    _, state = read(module, x, tokens)
    for reading in (None, Reading(tokens, readout(), {"cms 1", "cms 2"})):
        _, after = module(x, state, None, reading)
        assert all(one.learned is other.learned for one, other in zip(state.levels, after.levels, strict=True))
    _, after = module(x, state, None, Reading(tokens, readout(), {"cms 2"}))
    assert after.levels[1].learned is state.levels[1].learned
    assert not torch.equal(after.levels[0].learned.W1, state.levels[0].learned.W1)


def test_a_chain_that_never_learns_is_a_plain_mlp() -> None:
    module, (x, tokens) = chain(2, 4, learns="never"), stream()
    y, state = read_static(module, x, tokens)
    expected = x
    for W1, W2, norm in zip(module.W1, module.W2, module.norms, strict=True):
        expected = expected + torch.nn.functional.gelu(norm(expected) @ W1.mT, approximate="tanh") @ W2.mT
    assert state is None and relative(y, expected) < 1e-12
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"W1", "W2", "norms"}


def read_static(module: TokenContinuum, x: Tensor, tokens: Tensor) -> tuple[Tensor, Any]:
    return module(x, None, None, Reading(tokens, readout()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"periods": (0, 4)}, "a period"),
        ({"periods": ()}, "at least one level"),
        ({"hidden": 0}, "hidden"),
        ({"learns": "always"}, "'first_order', 'second_order', 'never'"),
        ({"lr_start": 0.0}, "lr_start"),
        ({"keep_start": 1.0}, "keep_start"),
        ({"order": "up"}, "order"),
    ],
)
def test_bad_settings_say_what_was_expected(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        TokenContinuum(D, **{"periods": (2, 4), **settings})


def test_a_state_of_something_else_is_refused() -> None:
    module, (x, tokens) = chain(2, 4), stream()
    _, state = read(module, x, tokens)
    with pytest.raises(ValueError, match="another chain"):
        chain(2)(x, state)
    with pytest.raises(ValueError, match="another stream"):
        module(x[:2], state)


def test_nothing_of_a_step_is_kept_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that holds its own outputs is never freed: training would fill the memory of the machine."""
    records: list[weakref.ref] = []

    def watched(learn: Any) -> first_order.Record:
        record = first_order.Record(learn)
        records.append(weakref.ref(record))
        return record

    monkeypatch.setattr(stretch, "Record", watched)
    model = HopeLM(HopeConfig.tiny(8, dim=8, periods=(4, 64)))  # one level is updated in this text, one is not
    logits, state = model(torch.randint(8, (2, 12)))
    logits.sum().backward()
    assert len(records) == 4 and all(record() is not None for record in records)
    del logits, state
    gc.collect()
    assert [record() for record in records] == [None] * 4
