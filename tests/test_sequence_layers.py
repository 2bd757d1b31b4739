"""The layers around memories of tokens: streams, padding, causality, gradients, dtypes, hard input, saving, words."""

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from nlcore.levels import nest, order_levels
from nlcore.sequence.layers.convolution import CausalConvolution
from nlcore.sequence.layers.frame import MixerState
from nlcore.sequence.layers.memories import DeltaRule, LinearAttention, SoftmaxAttention
from nlcore.sequence.layers.mixer import TokenMixer
from nlcore.sequence.layers.named import MIXERS, mixer
from nlcore.sequence.layers.norms import RMSNorm, rms, unit
from nlcore.sequence.layers.projections import Gate, Output, Projections
from nlcore.sequence.layers.titans import Titans
from nlcore.sequence.saving import as_plain, from_plain, map_tensors

B, T, DIM, HEADS = 3, 21, 8, 2
CUTS = [(8, 8, 5), (3, 9, 1, 8), (1,) * T, (0, 20, 0, 1)]
LAYERS: dict[str, Callable[..., nn.Module]] = {
    **MIXERS,
    "window 3": lambda dim, heads, **s: SoftmaxAttention(dim, heads, window=3, **s),
    "linear, writes of 1": lambda dim, heads, **s: LinearAttention(dim, heads, lr_max=None, **s),
    "delta, token loop": lambda dim, heads, **s: DeltaRule(dim, heads, chunk_size=None, **s),
    "delta, gated output": lambda dim, heads, **s: DeltaRule(dim, heads, gate=True, conv_width=1, chunk_size=4, **s),
    "titans, period 4": lambda dim, heads, **s: Titans(dim, heads, gradient_period=4, **s),
    "titans, numbers": lambda dim, heads, **s: Titans(dim, heads, momentum=0.5, retain=None, **s),
    "titans_mlp, period 4": lambda dim, heads, **s: Titans(dim, heads, memory="mlp", gradient_period=4, **s),
}
WITH_MEMORY = [name for name in LAYERS if name != "gru"]
EACH = pytest.mark.parametrize("name", LAYERS)


def layer(name: str, **settings: Any) -> nn.Module:
    return LAYERS[name](DIM, HEADS, **{"dtype": torch.float64, **settings})


def tokens(length: int = T, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(B, length, DIM, dtype=dtype)


def assert_close(found: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def assert_same_state(found: Any, expected: Any) -> None:
    found, expected = (torch.utils._pytree.tree_leaves(state) for state in (found, expected))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other) if isinstance(one, Tensor) else None
        assert isinstance(one, Tensor) or one == other


# Streams


@EACH
@pytest.mark.parametrize("cuts", CUTS)
def test_a_stream_cut_anywhere_is_the_whole(name: str, cuts: tuple[int, ...]) -> None:
    model, x = layer(name), tokens()
    whole, end = model(x)
    state, answers = None, []
    for part in x.split(cuts, 1):
        y, state = model(part, state)
        answers.append(y)
    assert_close(torch.cat(answers, 1), whole)
    assert_same_state(state, end)


# The periods of a matrix memory count the tokens of the batch, so there a stream that lags behind has other anchors.
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "titans, period 4"])
def test_a_padded_stream_is_each_stream_alone(name: str) -> None:
    model, x = layer(name), tokens()
    calls = [torch.tensor([3, 0, 7]), torch.tensor([9, 5, 1]), torch.tensor([2, 2, 2]), torch.tensor([4, 6, 0])]
    place, state = torch.zeros(B, dtype=torch.long), None
    alone = [model(x[b : b + 1, : int(sum(n[b] for n in calls))])[0][0] for b in range(B)]
    for lengths in calls:
        call = x.new_full((B, int(lengths.max()) + 2, DIM), math.nan)
        for b, n in enumerate(lengths.tolist()):
            call[b, :n] = x[b, place[b] : place[b] + n]
        y, state = model(call, state, lengths)
        for b, n in enumerate(lengths.tolist()):
            assert_close(y[b, :n], alone[b][place[b] : place[b] + n])
            assert y[b, n:].abs().sum() == 0
        place = place + lengths


@EACH
def test_full_lengths_are_no_lengths(name: str) -> None:
    model, x = layer(name), tokens()
    assert_close(model(x, None, torch.full((B,), T))[0], model(x)[0])


@EACH
def test_padding_spoils_no_gradient(name: str) -> None:
    model, x = layer(name), tokens().index_fill(1, torch.tensor([T - 1]), math.nan).requires_grad_()
    y, _ = model(x, None, torch.tensor([T - 1, 4, 0]))
    y.square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad[1, 4:].abs().max() == 0
    assert all(w.grad is not None and w.grad.isfinite().all() for w in model.parameters())


@EACH
def test_gradients_flow_through_the_state_until_it_is_detached(name: str) -> None:
    model, x = layer(name), tokens().requires_grad_()
    _, state = model(x[:, :9])
    y, _ = model(x[:, 9:], state)
    (through,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
    (whole,) = torch.autograd.grad(model(x)[0][:, 9:].square().sum(), x)
    assert_close(through, whole)
    (cut,) = torch.autograd.grad(model(x[:, 9:], state.detach())[0].square().sum(), x)
    assert cut[:, :9].abs().max() == 0 and through[:, :9].abs().max() > 0


@EACH
def test_a_saved_stream_and_saved_weights_go_on_after_a_safe_load(name: str) -> None:
    model, x = layer(name), tokens()
    whole, _ = model(x)
    file = io.BytesIO()
    torch.save({"weights": model.state_dict(), "stream": as_plain(model(x[:, :10])[1])}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    torch.manual_seed(1)
    other = layer(name)
    other.load_state_dict(saved["weights"])
    state = from_plain(saved["stream"])
    assert type(state) is type(model(x)[1])
    assert_close(other(x[:, 10:], state)[0], whole[:, 10:])


@EACH
def test_a_state_moves_to_another_dtype(name: str) -> None:
    model, x = layer(name), tokens()
    _, state = model(x[:, :9])
    y, _ = model.float()(x[:, 9:].float(), state.to(torch.float32))
    assert y.dtype == torch.float32 and y.isfinite().all()


# What a token may see


@EACH
def test_nothing_before_a_changed_token_changes_and_no_other_item(name: str) -> None:
    model, x, at = layer(name), tokens(), 11
    changed = x.clone()
    changed[1, at:] += 1.0
    moved = (model(x)[0] - model(changed)[0]).abs().amax(-1)
    assert moved[[0, 2]].max() == 0 and moved[1, :at].max() < 1e-14 and moved[1, at:].min() > 1e-9


@EACH
def test_every_weight_gets_a_gradient(name: str) -> None:
    model = layer(name)
    model(tokens())[0].square().sum().backward()
    silent = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("name", ["softmax", "gated_delta", "titans", "titans_mlp, period 4", "delta, gated output"])
def test_a_gradient_is_that_of_finite_differences(name: str) -> None:
    model, x = layer(name), tokens(5)[:1]
    assert torch.autograd.gradcheck(lambda z: model(z)[0], (x.requires_grad_(),), fast_mode=True)


@EACH
def test_it_learns_with_an_ordinary_optimizer(name: str) -> None:
    model, x = layer(name), tokens()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=0.03), []
    for _ in range(12):
        loss = (model(x)[0] - x.roll(1, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


@EACH
def test_it_is_a_function_of_its_weights(name: str) -> None:
    model, x = layer(name), tokens(7)
    weights = {key: weight.detach() for key, weight in model.named_parameters()}
    slopes = grad(lambda w: functional_call(model, w, (x,))[0].square().sum())(weights)
    model(x)[0].square().sum().backward()
    for key, weight in model.named_parameters():
        assert_close(slopes[key], weight.grad)


# Dtypes and hard input


@EACH
def test_it_works_in_bfloat16_and_keeps_its_memory_in_float32(name: str) -> None:
    model, x = layer(name, dtype=torch.bfloat16), tokens(dtype=torch.bfloat16)
    y, state = model(x)
    exact = layer(name, dtype=torch.float32)
    exact.load_state_dict(model.state_dict())
    assert y.dtype == torch.bfloat16 and y.isfinite().all()
    torch.testing.assert_close(y.float(), exact(x.float())[0], rtol=0.1, atol=0.1)
    memory = state.memory if name != "gru" else None
    kept = {x.dtype for x in torch.utils._pytree.tree_leaves(memory) if isinstance(x, Tensor) and x.is_floating_point()}
    assert kept <= {torch.float32}
    assert model(x, state)[0].isfinite().all()


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_it_works_under_autocast(name: str) -> None:
    model, x = layer(name, dtype=torch.float32), tokens(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = model(x)
        y, _ = model(x, state)
    assert y.isfinite().all()


@EACH
@pytest.mark.parametrize("kind", ["zero", "constant", "huge", "repeated", "tiny"])
def test_hard_input_gives_numbers_and_gradients(name: str, kind: str) -> None:
    attends = name.startswith(("softmax", "window"))
    x = (
        {
            "zero": torch.zeros(B, 100, DIM),
            "constant": torch.ones(B, 100, DIM),
            "huge": torch.randn(B, 100, DIM) * (1e6 if attends else 1e15),
            "repeated": torch.randn(B, 1, DIM).expand(B, 100, DIM),
            "tiny": torch.randn(B, 100, DIM) * 1e-30,
        }[kind]
        .clone()
        .requires_grad_()
    )
    model = layer(name, dtype=torch.float32)
    y, state = model(x)
    assert y.isfinite().all()
    assert all(part.isfinite().all() for part in torch.utils._pytree.tree_leaves(state) if isinstance(part, Tensor))
    if kind != "huge":
        y.sum().backward()
        assert x.grad is not None and x.grad.isfinite().all()
        assert all(w.grad is not None and w.grad.isfinite().all() for w in model.parameters())


@pytest.mark.parametrize("name", ["softmax", "delta", "titans"])
def test_it_compiles_without_a_break(name: str) -> None:
    model, x = layer(name), tokens(40)
    expected, _ = model(x)
    y, _ = torch.compile(model, backend="eager", fullgraph=True)(x)
    assert_close(y, expected)


# The parts


def test_the_convolution_is_torch_conv1d() -> None:
    model, x = CausalConvolution(DIM, 4, dtype=torch.float64), tokens()
    y, tail = model(x)
    kernel = model.weight.flip(0).T.unsqueeze(1)  # (C, 1, width), oldest first
    padded = torch.nn.functional.pad(x.mT, (3, 0))
    assert_close(y, torch.nn.functional.conv1d(padded, kernel, groups=DIM).mT)
    assert torch.equal(tail, x[:, -3:])


def test_the_tail_is_the_last_real_tokens() -> None:
    model, x = CausalConvolution(DIM, 4, dtype=torch.float64), tokens(6)
    _, before = model(x)
    _, tail = model(x, before, torch.tensor([6, 2, 0]))
    assert torch.equal(tail[0], x[0, 3:])
    assert torch.equal(tail[1], torch.cat([x[1, 5:], x[1, :2]]))
    assert torch.equal(tail[2], x[2, 3:])


def test_unit_and_rms_are_what_they_say() -> None:
    x = tokens()
    assert_close(unit(x), x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt(), 1e-14)
    assert_close(rms(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt(), 1e-14)
    assert torch.autograd.gradcheck(lambda z: unit(10 * z), (x[:1, :2].clone().requires_grad_(),))
    assert torch.autograd.gradcheck(lambda z: rms(10 * z), (x[:1, :2].clone().requires_grad_(),))
    huge = torch.full((4,), 3e38)
    torch.testing.assert_close(unit(huge), torch.full((4,), 0.5))
    torch.testing.assert_close(RMSNorm(4)(huge), torch.ones(4))


def test_keys_have_length_one_and_values_only_if_asked() -> None:
    x = 100 * tokens()
    q, k, v, _ = Projections(DIM, HEADS, activation=False, dtype=torch.float64)(x)
    assert q.shape == k.shape == v.shape == (B, HEADS, T, DIM // HEADS)
    assert_close(q.norm(dim=-1), torch.ones(B, HEADS, T).double(), 1e-3)
    assert_close(k.norm(dim=-1), torch.ones(B, HEADS, T).double(), 1e-3)
    assert (v.norm(dim=-1) - 1).abs().min() > 1e-3
    *_, v, _ = Projections(DIM, HEADS, activation=False, unit_values=True, dtype=torch.float64)(x)
    assert_close(v.norm(dim=-1), torch.ones(B, HEADS, T).double(), 1e-3)


def test_the_projections_are_the_formula() -> None:
    x, model = tokens(), Projections(DIM, HEADS, dtype=torch.float64)
    mixed, _ = model.convolution(x @ model.linear.weight.T)
    mixed = mixed * mixed.sigmoid()
    for part, found in zip(mixed.split(DIM, -1), model(x)[:2], strict=False):
        heads = torch.stack(part.split(DIM // HEADS, -1), 1)
        assert_close(found, unit(heads))


@pytest.mark.parametrize(("high", "start"), [(1.0, 0.5), (2.0, 1.0), (1.0, 0.99), (0.1, 0.05)])
def test_a_gate_begins_at_its_start_and_stays_in_its_range(high: float, start: float) -> None:
    gate = Gate(DIM, HEADS, high=high, start=start, dtype=torch.float64)
    assert_close(gate(torch.zeros(B, T, DIM).double()), torch.full((B, HEADS, T), start).double(), 1e-8)
    values = gate(3 * tokens())
    assert values.shape == (B, HEADS, T) and values.min() > 0 and values.max() < high
    assert gate.bfloat16()(tokens().bfloat16()).dtype == torch.float32


def test_learned_gates_begin_where_they_are_told() -> None:
    at_zero = torch.zeros(1, 1, DIM, dtype=torch.float64)
    titans = layer("titans", momentum_start=0.5, retain_start=0.9)
    assert titans.momentum_gate(at_zero).mean().item() == pytest.approx(0.5)
    assert titans.retain_gate(at_zero).mean().item() == pytest.approx(0.9)
    assert layer("gated_delta", retain_start=0.95).retain_gate(at_zero).mean().item() == pytest.approx(0.95)
    assert layer("gated_linear").retain_gate(at_zero).mean().item() == pytest.approx(0.99)


def test_each_head_has_its_own_answer_norm_and_the_gate_closes() -> None:
    output, x = Output(DIM, HEADS, gate=True, dtype=torch.float64), tokens()
    answers = torch.randn(B, HEADS, T, DIM // HEADS, dtype=torch.float64)
    louder = answers * torch.tensor([1e4, 1.0])[:, None, None]
    assert_close(output(louder, x), output(answers, x), 1e-3)
    assert output(answers, 0 * x).abs().max() == 0


# The memories inside


def test_the_delta_rule_layer_is_its_parts() -> None:
    from nlcore.sequence import delta_rule

    model, x = DeltaRule(DIM, HEADS, lr_max=2.0, retain="learned", dtype=torch.float64), tokens()
    q, k, v, _ = model.projections(x)
    lr = 2 * (x @ model.lr_gate.linear.weight.T + model.lr_gate.linear.bias).sigmoid().mT
    retain = (x @ model.retain_gate.linear.weight.T + model.retain_gate.linear.bias).sigmoid().mT
    y, _ = delta_rule(q, k, v, lr, retain, chunk_size=None)
    y = model.output.norm(y).transpose(1, 2).reshape(B, T, DIM) @ model.output.linear.weight.T
    assert_close(model(x)[0], y)


def test_retnet_fades_each_head_at_its_own_rate() -> None:
    model, x = LinearAttention(DIM, 4, "fixed", dtype=torch.float64), tokens(9)
    zero = torch.zeros(B, 5, DIM, dtype=torch.float64)
    _, before = model(x)
    model.projections.linear.weight.data.zero_()
    model.projections.convolution.weight.data.zero_()
    _, after = model(zero, before)
    faded = (after.memory.M / before.memory.M).mean((0, 2, 3))
    assert_close(faded, (1 - 2.0 ** -torch.arange(5, 9)).double() ** 5)


def test_the_chunk_size_changes_nothing() -> None:
    x = tokens()
    for kind in (LinearAttention, DeltaRule, Titans):
        torch.manual_seed(0)
        loop = kind(DIM, HEADS, chunk_size=None, dtype=torch.float64)
        torch.manual_seed(0)
        chunks = kind(DIM, HEADS, chunk_size=5, dtype=torch.float64)
        assert_close(loop(x)[0], chunks(x)[0])


def test_rotary_positions_make_order_matter_and_nothing_else_does() -> None:
    settings: dict[str, Any] = {"conv_width": 1, "dtype": torch.float64}
    x = tokens(6)
    shuffled = x[:, [3, 1, 4, 0, 2, 5]]
    blind = SoftmaxAttention(DIM, HEADS, "none", **settings)
    assert_close(blind(x)[0][:, -1], blind(shuffled)[0][:, -1])
    sees = SoftmaxAttention(DIM, HEADS, "rope", **settings)
    assert (sees(x)[0][:, -1] - sees(shuffled)[0][:, -1]).abs().max() > 1e-3


def test_a_window_reaches_as_far_as_window_and_convolution() -> None:
    model, x = SoftmaxAttention(DIM, HEADS, window=3, dtype=torch.float64), tokens()
    changed = x.clone()
    changed[:, 4] += 1.0
    moved = (model(x)[0] - model(changed)[0]).abs().amax((0, 2)) > 1e-12
    assert moved.nonzero().flatten().tolist() == list(range(4, 4 + 4 + 3 - 1))


# Words


@EACH
def test_the_levels_say_what_a_stream_writes(name: str) -> None:
    model = layer(name)
    levels = model.levels()
    assert all(level.period in (0, 1) and level.stores for level in levels)
    assert len(order_levels(levels)) == (2 if "momentum" in [level.name for level in levels] else 1)
    assert levels[-1].name in str(model) and "level" in str(model)
    optimizer = torch.optim.AdamW(model.parameters())
    assert {level.name for level in nest(model, optimizer)} == {level.name for level in levels} | {"weights"}


def test_titans_have_a_momentum_faster_than_their_memory_unless_it_is_zero() -> None:
    fast, slow = Titans(DIM, HEADS).levels()
    assert (fast.name, slow.needs, fast.numbers) == ("momentum", ("momentum",), 2 * 4 * 4)
    assert [level.name for level in Titans(DIM, HEADS, momentum=None).levels()] == ["memory"]


def test_the_numbers_of_a_level_are_those_of_the_state() -> None:
    for name in ("linear", "delta", "titans", "titans_mlp", "gru"):
        model = layer(name)
        _, state = model(tokens()[:1])
        held = state.h if name == "gru" else getattr(state.memory, "weights", None) or state.memory.M
        count = sum(part.numel() for part in torch.utils._pytree.tree_leaves(held))
        assert model.levels()[-1].numbers == count


def test_wrong_input_and_settings_are_refused_in_words() -> None:
    model, x = DeltaRule(DIM, HEADS), tokens(dtype=torch.float32)
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ValueError, "heads must divide dim, got dim 8 and heads 3; try heads=2", lambda: DeltaRule(DIM, 3)),
        (ValueError, r"expected x of shape \(B, T, 8\)", lambda: model(x[0])),
        (ValueError, r"expected x of shape \(B, T, 8\)", lambda: model(x[..., :4])),
        (TypeError, "convert one with", lambda: model(x.double())),
        (ValueError, r"lengths must have the shape", lambda: model(x, None, torch.tensor([1]))),
        (TypeError, "whole numbers", lambda: model(x, None, torch.ones(B))),
        (ValueError, "lengths lie in 0 .. 21", lambda: model(x, None, torch.tensor([1, 1, 22]))),
        (ValueError, "another stream", lambda: model(x, model(x[:1])[1])),
        (TypeError, "must be a MixerState", lambda: model(x, model(x)[1].memory)),
        (TypeError, "must be a MemoryState", lambda: model(x, SoftmaxAttention(DIM, HEADS)(x)[1])),
        (ValueError, "lr_max must lie in", lambda: DeltaRule(DIM, lr_max=2.5)),
        (ValueError, "retain must be one of", lambda: DeltaRule(DIM, retain="fixed")),
        (ValueError, "retain must be one of", lambda: LinearAttention(DIM, retain="some")),
        (ValueError, "positions must be one of", lambda: SoftmaxAttention(DIM, positions="sin")),
        (ValueError, "even width", lambda: SoftmaxAttention(6, 2)),
        (ValueError, "memory must be one of", lambda: Titans(DIM, memory="deep")),
        (ValueError, "momentum must be 'learned'", lambda: Titans(DIM, momentum=1.5)),
        (ValueError, "a gate starts between 0", lambda: Gate(DIM, 1, start=1.0)),
        (ValueError, "name must be one of", lambda: mixer("transformer", DIM)),
        (TypeError, "dim must be a whole number", lambda: DeltaRule(8.0)),
        (TypeError, "abstract methods .*levels.*remember", lambda: TokenMixer(DIM)),
        (ValueError, "another stream", lambda: mixer("gru", DIM)(x, mixer("gru", DIM)(x[:1])[1])),
    ]
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()


def test_a_state_is_a_tree_that_torch_knows() -> None:
    _, state = layer("titans")(tokens())
    assert isinstance(state, MixerState)
    doubled = torch.utils._pytree.tree_map_only(Tensor, lambda x: 2 * x, state)
    assert_same_state(doubled, map_tensors(state, lambda x: 2 * x))
