"""The Continuum Memory System: Eq. 70-74, when each level learns, and what it may not see."""

import copy
import io
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nlcore.cms import ContinuumMemory, StreamState, squared_error
from nlcore.cms.blocks import read_block, row_of_weights

B, T, DIM = 2, 23, 3
PERIODS = [(1, 4, 16), (2, 6), (3, 5), (4, 7, 2), (1,), (30,), (5, 5), (3, math.inf)]


def memory(periods: Sequence[float] = (2, 6), variant: str = "sequential", **settings: object) -> ContinuumMemory:
    settings = {"lrs": 0.02, "hidden": 4, **settings}
    return ContinuumMemory(DIM, periods, variant, dtype=torch.float64, **settings)  # type: ignore[arg-type]


def stream(length: int = T) -> tuple[Tensor, Tensor]:
    return torch.randn(B, length, DIM, dtype=torch.float64), torch.randn(B, length, DIM, dtype=torch.float64)


def plain_stream(model: ContinuumMemory, x: Tensor, target: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
    """Read each stream alone with ordinary modules, `backward` and steps by hand; no code of the library."""
    answers, weights = [], []
    for item in range(len(x)):
        blocks = [copy.deepcopy(block) for block in model.blocks]
        sums = [[torch.zeros_like(w) for w in block.parameters()] for block in blocks]
        answers.append([])
        for t in range(x.shape[1]):
            h = x[item, t]
            for block in blocks:
                h = h + block(h)
            answers[-1].append(h.detach())
            for block in blocks:
                block.zero_grad()
            (0.5 * (h - target[item, t]).square().sum()).backward()
            for block, begun, total, period, lr, decay in zip(
                blocks, model.blocks, sums, model.periods, model.lrs, model.decays, strict=True
            ):
                for w, w0, s in zip(block.parameters(), begun.parameters(), total, strict=True):
                    s += w.grad
                    if (t + 1) % period == 0:
                        w.data = w0.data + (1 - decay) ** period * (w.data - w0.data) - lr * s
                        s.zero_()
        weights.append([row_of_weights(block).detach() for block in blocks])
        answers[-1] = torch.stack(answers[-1])
    return torch.stack(answers), weights


def run(model: ContinuumMemory, chunk_size: int | None, x: Tensor, target: Tensor) -> tuple[Tensor, StreamState]:
    model.chunk_size = chunk_size
    return model(x, target)


def assert_same_state(one: StreamState, other: StreamState, atol: float = 1e-10) -> None:
    for a, b in zip(one.levels, other.levels, strict=True):
        assert (a.tokens, a.updates) == (b.tokens, b.updates)
        torch.testing.assert_close(a.learned, b.learned, rtol=0, atol=atol)
        torch.testing.assert_close(a.summed, b.summed, rtol=0, atol=atol)


# When each level learns


@pytest.mark.parametrize("chunk_size", [None, 5, 256])
def test_each_level_is_updated_once_a_period(chunk_size: int | None) -> None:
    x, target = stream(64)
    _, state = run(memory((1, 4, 16, 100, math.inf)), chunk_size, x, target)
    assert [level.updates for level in state.levels] == [64, 16, 4, 0, 0]
    assert [level.tokens for level in state.levels] == [0, 0, 0, 64, 0]
    moved = [bool(level.learned.abs().sum() > 0) for level in state.levels]
    assert moved == [True, True, True, False, False]


def test_weights_move_exactly_at_the_ends_of_the_chunks() -> None:
    model, state, moved = memory((1, 3, 4)), None, []
    x, target = stream(12)
    before = model.start_stream(B)
    for t in range(12):
        _, state = model(x[:, t : t + 1], target[:, t : t + 1], state)
        pairs = zip(before.levels, state.levels, strict=True)
        moved.append([not torch.equal(old.learned, new.learned) for old, new in pairs])
        before = state
    assert moved == [[t % period == 0 for period in (1, 3, 4)] for t in range(1, 13)]


def test_one_chunk_is_one_step_of_sgd_on_the_summed_loss() -> None:
    period = 7
    model = memory((period,), lrs=0.1)
    x, target = stream(period)
    _, state = model(x, target)
    for item in range(B):
        block = copy.deepcopy(model.blocks[0])
        optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
        loss = squared_error(x[item] + block(x[item]), target[item]).sum()  # C terms, not C + 1 and not their mean
        loss.backward()
        optimizer.step()
        learned = row_of_weights(block) - row_of_weights(model.blocks[0])
        torch.testing.assert_close(state.levels[0].learned[item], learned, rtol=0, atol=1e-14)


@pytest.mark.parametrize("periods", PERIODS)
@pytest.mark.parametrize("chunk_size", [None, 256])
def test_it_is_the_plain_loop_with_backward_and_steps_by_hand(
    periods: tuple[float, ...], chunk_size: int | None
) -> None:
    model = memory(periods, decays=0.02)
    x, target = stream()
    y, state = run(model, chunk_size, x, target)
    answers, weights = plain_stream(model, x, target)
    torch.testing.assert_close(y, answers, rtol=0, atol=1e-12)
    for index, (block, level) in enumerate(zip(model.blocks, state.levels, strict=True)):
        for item in range(B):
            now = row_of_weights(block) + level.learned[item]
            torch.testing.assert_close(now, weights[item][index], rtol=0, atol=1e-12)


def test_a_token_is_answered_before_it_is_learned() -> None:
    model = memory((1,), lrs=0.5)
    x, target = stream(1)
    y, state = model(x, target)
    torch.testing.assert_close(y, x + model.blocks[0](x), rtol=0, atol=1e-14)
    assert squared_error(model.read(x, state), target).sum() < squared_error(y, target).sum()


# What a level may not see


@pytest.mark.parametrize("variant", ["sequential", "nested", "independent"])
@pytest.mark.parametrize("chunk_size", [None, 256])
def test_nothing_before_a_changed_token_changes(variant: str, chunk_size: int | None) -> None:
    model, (x, target), at = memory((2, 6), variant), stream(), 8
    y, _ = run(model, chunk_size, x, target)
    other_x, other_target = x.clone(), target.clone()
    other_x[:, at] += 1
    other_target[:, at] += 1
    changed, _ = run(model, chunk_size, other_x, other_target)
    assert torch.equal(changed[:, :at], y[:, :at])
    torch.testing.assert_close(changed[:, at + 1], y[:, at + 1], rtol=0, atol=0)  # its chunk is still open
    assert not torch.allclose(changed[:, at + 2], y[:, at + 2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("chunk_size", [None, 256])
def test_streams_of_a_batch_do_not_see_each_other(chunk_size: int | None) -> None:
    model, (x, target) = memory((1, 4)), stream()
    y, _ = run(model, chunk_size, x, target)
    alone, _ = model(x[:1], target[:1])
    torch.testing.assert_close(y[:1], alone, rtol=0, atol=1e-14)
    x2 = x.clone()
    x2[1] += 5
    torch.testing.assert_close(model(x2, target)[0][0], y[0], rtol=0, atol=1e-14)


# The two forms


@pytest.mark.parametrize("periods", PERIODS)
@pytest.mark.parametrize("variant", ["sequential", "nested", "independent"])
def test_chunks_equal_the_token_loop_in_outputs_state_and_gradients(periods: tuple[float, ...], variant: str) -> None:
    model = memory(periods, variant, decays=0.02, learn_lrs=True, learn_decays=True)
    x, target = (tensor.requires_grad_() for tensor in stream())
    inputs = [x, target, *model.parameters()]

    def everything(chunk_size: int | None) -> tuple[Tensor, StreamState, tuple[Tensor | None, ...]]:
        y, state = run(model, chunk_size, x, target)
        outer = squared_error(y, target).sum() + sum(o.learned.square().sum() for o in model.flush(state).levels)
        return y, state, torch.autograd.grad(outer, inputs, allow_unused=True)

    y, state, gradients = everything(None)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)
    for chunk_size in (1, 2, 3, 7, 256):
        other_y, other_state, other_gradients = everything(chunk_size)
        torch.testing.assert_close(other_y, y, rtol=0, atol=1e-10)
        assert_same_state(other_state, state)
        for mine, reference in zip(other_gradients, gradients, strict=True):
            torch.testing.assert_close(mine, reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize("chunk_size", [None, 256])
@pytest.mark.parametrize("variant", ["sequential", "nested", "independent"])
def test_gradients_through_the_updates_are_those_of_finite_differences(chunk_size: int | None, variant: str) -> None:
    model = memory((1, 3), variant, decays=0.05, learn_lrs=True, learn_decays=True, hidden=2, chunk_size=chunk_size)
    x, target = stream(5)
    names, values = zip(*model.named_parameters(), strict=True)

    def outer(*parameters: Tensor) -> Tensor:
        y, _ = functional_call(model, dict(zip(names, parameters, strict=True)), (x, target))
        return squared_error(y, target).sum()

    assert torch.autograd.gradcheck(outer, values)


def test_first_order_gives_the_same_answers_and_no_gradient_through_a_gradient() -> None:
    model, (x, target) = memory((1, 3), lrs=0.1, learn_lrs=True), stream()
    target.requires_grad_()
    results = {}
    for second_order in (True, False):
        model.second_order = second_order
        y, _ = model(x, target)
        starts = torch.autograd.grad(y.square().sum(), [*model.parameters(), target], allow_unused=True)
        results[second_order] = y, starts
    assert torch.equal(results[True][0], results[False][0])
    first, second = results[False][1], results[True][1]
    assert second[-1] is not None and second[-1].abs().sum() > 0  # the targets reach y through the gradients only
    assert first[-1] is None
    assert all(g is not None and g.abs().sum() > 0 for g in first[:-1])  # starts and learning rates are still trained
    assert not torch.allclose(first[0], second[0])


@pytest.mark.parametrize("chunk_size", [None, 256])
def test_without_a_graph_it_learns_the_same(chunk_size: int | None) -> None:
    model, (x, target) = memory((1, 4), decays=0.1), stream()
    y, state = run(model, chunk_size, x, target)
    with torch.no_grad():
        quiet_y, quiet_state = model(x, target)
    assert not quiet_y.requires_grad and not any(o.learned.requires_grad for o in quiet_state.levels)
    assert torch.equal(y, quiet_y)
    assert_same_state(state, quiet_state, atol=0)


def test_frozen_weights_still_learn_in_the_stream() -> None:
    model, (x, target) = memory((1, 4)), stream()
    y, _ = model(x, target)
    assert torch.equal(model.requires_grad_(False)(x, target)[0], y)


# Streams


@pytest.mark.parametrize("variant", ["sequential", "nested", "independent"])
@pytest.mark.parametrize("chunk_size", [None, 256])
def test_a_stream_cut_anywhere_equals_the_whole(variant: str, chunk_size: int | None) -> None:
    model, (x, target) = memory((1, 3, 8), variant, decays=0.02), stream()
    y, state = run(model, chunk_size, x, target)
    for cut in range(T + 1):
        head, middle = model(x[:, :cut], target[:, :cut])
        tail, last = model(x[:, cut:], target[:, cut:], middle)
        torch.testing.assert_close(torch.cat([head, tail], 1), y, rtol=0, atol=1e-12)
        assert_same_state(last, state, atol=1e-12)


def test_a_saved_state_goes_on_and_a_detached_one_has_no_history() -> None:
    model, (x, target) = memory((2, 6), learn_lrs=True), stream()
    y, _ = model(x, target)
    _, state = model(x[:, :9], target[:, :9])
    assert state.levels[0].learned.requires_grad and not state.detach().levels[0].learned.requires_grad
    file = io.BytesIO()
    torch.save(state.as_dict(), file)
    file.seek(0)
    loaded = StreamState.from_dict(torch.load(file, weights_only=True))
    assert_same_state(loaded, state.detach(), atol=0)
    torch.testing.assert_close(model(x[:, 9:], target[:, 9:], loaded)[0], y[:, 9:], rtol=0, atol=1e-14)
    assert loaded.to(torch.float32).levels[0].summed.dtype == torch.float32
    with pytest.raises(ValueError, match="lists of equal length"):
        StreamState.from_dict({"learned": []})


def test_flush_applies_what_waits_and_begins_new_chunks() -> None:
    model, (x, target) = memory((4, 8), lrs=0.1, decays=0.1), stream(6)
    _, state = model(x, target)
    assert [level.tokens for level in state.levels] == [2, 6]
    flushed = model.flush(state)
    for old, new, tokens in zip(state.levels, flushed.levels, (2, 6), strict=True):
        torch.testing.assert_close(new.learned, 0.9**tokens * old.learned - 0.1 * old.summed, rtol=0, atol=1e-14)
        assert (new.tokens, new.updates, new.summed.abs().sum()) == (0, old.updates + 1, 0)
    assert_same_state(model.flush(flushed), flushed, atol=0)  # nothing waits: nothing happens
    _, later = model(x, target, flushed)
    assert [(level.tokens, level.updates) for level in later.levels] == [(2, 3), (6, 1)]


def test_reading_learns_nothing() -> None:
    model, (x, target) = memory((1, 4)), stream()
    _, state = model(x, target)
    y = model.read(x, state)
    rows = [row_of_weights(b) + o.learned for b, o in zip(model.blocks, state.levels, strict=True)]
    h = x
    for block, row in zip(model.blocks, rows, strict=True):
        h = h + read_block(block, row, h)
    torch.testing.assert_close(y, h, rtol=0, atol=1e-14)


# The variants


@pytest.mark.parametrize("chunk_size", [None, 256])
def test_without_learning_rates_it_is_the_plain_chain(chunk_size: int | None) -> None:
    model, (x, target) = memory((1, 4), lrs=0.0, norm=True), stream()
    h = x
    for block in model.blocks:
        h = h + block(h)
    torch.testing.assert_close(run(model, chunk_size, x, target)[0], h, rtol=0, atol=1e-14)
    frozen = memory((math.inf, math.inf), lrs=1.0, blocks=model.blocks)
    torch.testing.assert_close(run(frozen, chunk_size, x, target)[0], h, rtol=0, atol=1e-14)
    with torch.no_grad():
        torch.testing.assert_close(frozen(x, target)[0], h, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("periods", "contexts"), [((1, 4, 16), (4, 16, None)), ((2, 5), (6, None)), ((2, 2, 6), (6, 6, None))]
)
def test_a_nested_level_returns_to_its_start_at_the_end_of_its_context(
    periods: tuple[int, ...], contexts: tuple[int | None, ...]
) -> None:
    model, state = memory(periods, "nested"), None
    x, target = stream(40)
    for t in range(1, 41):
        _, state = model(x[:, t - 1 : t], target[:, t - 1 : t], state)
        for period, context, level in zip(periods, contexts, state.levels, strict=True):
            returned = t < period or (context is not None and t % context < period)
            assert bool((level.learned == 0).all()) == returned, (t, period)


def test_after_a_return_the_weights_are_those_of_the_start_and_the_slower_level_keeps_what_it_learned() -> None:
    model, (x, target) = memory((1, 4), "nested"), stream(4)
    _, state = model(x, target)
    fast, slow = state.levels
    assert bool((fast.learned == 0).all()) and slow.learned.abs().sum() > 0
    changed = model.read(x, state)
    h = x + model.blocks[0](x)
    h = h + read_block(model.blocks[1], row_of_weights(model.blocks[1]) + slow.learned, h)
    torch.testing.assert_close(changed, h, rtol=0, atol=1e-14)


def test_contexts_can_be_set_apart_from_periods() -> None:
    x, target = stream(16)
    control = memory((1, 1, 1), contexts=(4, 8, None))
    _, state = control(x, target)
    assert [level.updates for level in state.levels] == [16, 16, 16]
    assert [bool((level.learned == 0).all()) for level in state.levels] == [True, True, False]
    assert memory((1, 4, 16), "nested").contexts == (4, 4, None) == memory((16, 4, 1), "nested").contexts


def test_independent_blocks_are_mixed_with_weights_that_sum_to_one() -> None:
    model, (x, target) = memory((1, 4, 16), "independent", lrs=0.0), stream()
    torch.testing.assert_close(model.mixture, torch.full((3,), 1 / 3, dtype=torch.float64))
    nn.init.normal_(model.mixture_logits)
    assert model.mixture.min() > 0 and model.mixture.sum().item() == pytest.approx(1, abs=1e-15)
    each = [x + block(x) for block in model.blocks]
    expected = sum(a * y for a, y in zip(model.mixture, each, strict=True))
    y, _ = model(x, target)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    y.sum().backward()
    assert model.mixture_logits.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="only the independent variant"):
        _ = memory().mixture


def test_the_order_of_the_chain_is_explicit_and_settings_follow_their_periods() -> None:
    settings = {"lrs": (0.4, 0.1, 0.2), "decays": (0.04, 0.01, 0.02)}
    for order, periods in {"fast_first": (1, 2, 4), "slow_first": (4, 2, 1), "as_given": (4, 1, 2)}.items():
        model = memory((4, 1, 2), order=order, **settings)
        assert model.periods == periods
        torch.testing.assert_close(model.lrs, torch.tensor(periods, dtype=torch.float64) / 10)
        torch.testing.assert_close(model.decays, torch.tensor(periods, dtype=torch.float64) / 100)


def test_levels_say_their_period_and_what_they_store() -> None:
    model = memory((1, 4, math.inf), "nested")
    levels = model.levels()
    assert [level.period for level in levels] == [1, 4, math.inf]
    assert "back to its start every 4 steps" in levels[0].stores and "back" not in levels[1].stores
    assert levels[0].numbers == row_of_weights(model.blocks[0]).numel()
    assert "3 levels, the fastest first" in repr(model) and "never (frozen)" in repr(model)


# Trained networks as levels


class Gated(nn.Module):
    """A gated network as in recent language models: no chain of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = (nn.Linear(DIM, DIM, dtype=torch.float64) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def trained() -> list[nn.Module]:
    def wide() -> nn.Module:
        return nn.Sequential(nn.Linear(DIM, 5), nn.ReLU(), nn.Linear(5, DIM, bias=False)).double()

    return [nn.Sequential(nn.LayerNorm(DIM), wide()).double(), Gated(), wide()]


@pytest.mark.parametrize("residual", [True, False])
def test_trained_networks_are_recovered_exactly_at_learning_rate_zero(residual: bool) -> None:
    mlps, (x, target) = trained(), stream()
    model = ContinuumMemory.from_mlps(mlps, (4, 1, 16), lrs=0.0, residual=residual)
    assert model.periods == (4, 1, 16)  # trained networks keep their places
    h = x
    for block in mlps:
        h = h + block(h) if residual else block(h)
    torch.testing.assert_close(model(x, target)[0], h, rtol=0, atol=1e-14)


def test_the_first_update_of_trained_networks_is_that_of_sgd_and_leaves_the_originals_alone() -> None:
    mlps, (x, target) = trained(), stream(4)
    kept = copy.deepcopy(mlps)
    model = ContinuumMemory.from_mlps(mlps, (4, 4, 4), lrs=0.1)
    _, state = model(x, target)
    assert not {id(w) for w in model.parameters()} & {id(w) for block in mlps for w in block.parameters()}
    h = x[0]
    for block in mlps:
        h = h + block(h)
    squared_error(h, target[0]).sum().backward()
    for block, old, level in zip(mlps, kept, state.levels, strict=True):
        for w, w0 in zip(block.parameters(), old.parameters(), strict=True):
            assert torch.equal(w, w0)
        step = torch.cat([-0.1 * w.grad.flatten() for w in block.parameters()])
        torch.testing.assert_close(level.learned[0], step, rtol=0, atol=1e-14)


def test_one_network_at_several_speeds_starts_as_that_network() -> None:
    wide, (x, target) = trained()[-1], stream(16)
    model = ContinuumMemory.from_mlps([wide] * 3, (1, 4, 16), variant="independent", residual=False, lrs=0.05)
    y, state = model(x, target)
    torch.testing.assert_close(y[:, 0], wide(x[:, 0]), rtol=0, atol=1e-14)
    assert [level.updates for level in state.levels] == [16, 4, 1]
    assert not torch.allclose(state.levels[0].learned, state.levels[1].learned)


def test_another_loss_and_targets_of_another_shape() -> None:
    model, (x, _) = memory((2, 4)), stream()
    classes = torch.randint(3, (B, T))

    def surprise(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output.mT, target, reduction="none")

    y, state = model(x, classes, loss=surprise)
    model.chunk_size = None
    loop_y, loop_state = model(x, classes, loss=surprise)
    torch.testing.assert_close(loop_y, y, rtol=0, atol=1e-12)
    assert_same_state(loop_state, state)


# Errors


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"periods": ()}, ValueError, "at least one level"),
        ({"periods": (0, 4)}, ValueError, "at least 1, got 0"),
        ({"periods": (1.5,)}, TypeError, "whole number"),
        ({"variant": "parallel"}, ValueError, "one of 'sequential', 'nested', 'independent'"),
        ({"order": "down"}, ValueError, "one of 'fast_first'"),
        ({"lrs": (0.1,)}, ValueError, "one for each of the 2; got 1"),
        ({"lrs": -1.0}, ValueError, "finite numbers >= 0"),
        ({"decays": 1.0}, ValueError, r"lie in \[0, 1\)"),
        ({"learn_lrs": True, "lrs": 0.0}, ValueError, "must start above 0"),
        ({"learn_decays": True}, ValueError, "must start above 0"),
        ({"contexts": (3, None)}, ValueError, "a multiple of it"),
        ({"contexts": (4,)}, ValueError, "one entry a level, 2; got 1"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
        ({"blocks": [nn.Linear(3, 3)]}, ValueError, "one block a period, 2; got 1"),
        ({"blocks": [nn.ReLU(), nn.ReLU()]}, ValueError, "this block has none"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        memory(**settings)  # type: ignore[arg-type]


def test_bad_input_is_refused_with_what_was_expected() -> None:
    model, (x, target) = memory((2, 6)), stream()
    _, state = model(x, target)
    for bad in (x[0], x[..., :2]):
        with pytest.raises(ValueError, match=r"shape \(B, T, 3\)"):
            model(bad, target)
    with pytest.raises(TypeError, match="float32 but the weights are torch.float64"):
        model(x.float(), target)
    with pytest.raises(ValueError, match="a target for each token"):
        model(x, target[:, :-1])
    with pytest.raises(ValueError, match="the state is of another stream"):
        model(x[:1], target[:1], state)
    with pytest.raises(ValueError, match=r"one number a token, shape \(2, 2\); got \(\)"):
        model(x, target, loss=lambda output, wanted: (output - wanted).square().sum())
    with pytest.raises(ValueError, match="does not depend on the output"):
        model(x, target, loss=lambda output, wanted: wanted.sum(-1))
    with pytest.raises(RuntimeError, match="no_grad"), torch.inference_mode():
        model(x, target)
    narrow = memory((1,), blocks=[nn.Linear(DIM, 2, dtype=torch.float64)])
    with pytest.raises(ValueError, match="keep the shape of its input"):
        narrow(x, target)
    layer = nn.Linear(DIM, DIM, dtype=torch.float64)
    with pytest.raises(ValueError, match="share their weights"):
        memory((1,), blocks=[nn.Sequential(layer, layer)])
    with pytest.raises(ValueError, match="keep their order"):
        ContinuumMemory.from_mlps(trained(), (1, 2, 3), order="slow_first")
