"""Softmax attention as a memory: the literal Eq. 62-63, torch's own attention, streams, padding, windows, positions."""

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from nlcore.sequence.attention import CacheState, nadaraya_watson, softmax_attention
from nlcore.sequence.layers.rotary import rotate
from nlcore.sequence.saving import as_plain, from_plain

B, H, T, DK, DV = 3, 2, 13, 4, 5
WINDOWS = [None, 1, 2, 5, 13, 40]
CUTS = [(4, 4, 5), (1,) * T, (12, 1), (1, 12), (0, 7, 0, 6)]


def qkv(length: int = T, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    q, k = (torch.randn(B, H, length, DK, dtype=dtype) for _ in range(2))
    return q, k, torch.randn(B, H, length, DV, dtype=dtype)


def cut(tokens: tuple[Tensor, ...], start: int, stop: int) -> list[Tensor]:
    return [x[:, :, start:stop] for x in tokens]


def assert_close(found: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# Against the formula and against torch


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_it_is_the_literal_weighted_mean(window: int | None, fused: bool, scale: float | None) -> None:
    q, k, v = qkv()
    y, _ = softmax_attention(q, k, v, window=window, fused=fused, scale=scale)
    assert_close(y, nadaraya_watson(q, k, v, window=window, scale=scale))


def test_without_a_window_it_is_torch_causal_attention() -> None:
    q, k, v = qkv()
    assert_close(softmax_attention(q, k, v)[0], F.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_the_literal_mean_is_where_the_objective_is_smallest() -> None:
    q, k, v = qkv()
    t, window = 9, 4
    M = nadaraya_watson(q, k, v, window=window)[:, :, t].requires_grad_()
    seen = slice(t + 1 - window, t + 1)
    s = (torch.einsum("bhnd,bhd->bhn", k[:, :, seen], q[:, :, t]) / math.sqrt(DK)).exp()
    loss = (s * (v[:, :, seen] - M.unsqueeze(2)).square().sum(-1)).sum()
    (slope,) = torch.autograd.grad(loss, M)
    assert slope.abs().max() < 1e-12  # convex, so a point without slope is the minimum


def test_another_kernel_gives_another_mean() -> None:
    q, k, v = qkv()
    everyone = nadaraya_watson(q, k, v, kernel=lambda keys, query: torch.ones_like(keys[..., 0]))
    assert_close(everyone, v.cumsum(2) / torch.arange(1, T + 1).unsqueeze(-1))
    nobody = nadaraya_watson(q, k, v, kernel=lambda keys, query: torch.zeros_like(keys[..., 0]))
    assert torch.equal(nobody, torch.zeros_like(v))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_those_of_the_formula(window: int | None, fused: bool) -> None:
    tokens = tuple(x[:1, :1, :7].requires_grad_() for x in qkv())
    assert gradcheck(lambda *x: softmax_attention(*x, window=window, fused=fused)[0], tokens)


@pytest.mark.parametrize("window", [None, 3])
def test_the_plain_formula_can_be_differentiated_twice(window: int | None) -> None:
    tokens = tuple(x[:1, :1, :5].requires_grad_() for x in qkv())
    assert gradgradcheck(lambda *x: softmax_attention(*x, window=window, fused=False)[0], tokens)


# Streams


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("fused", [True, False])
def test_a_stream_cut_anywhere_is_the_whole(window: int | None, cuts: tuple[int, ...], fused: bool) -> None:
    tokens = qkv()
    whole, end = softmax_attention(*tokens, window=window, fused=fused)
    state, answers, start = None, [], 0
    for size in cuts:
        y, state = softmax_attention(*cut(tokens, start, start + size), window=window, state=state, fused=fused)
        answers.append(y)
        start += size
    assert_close(torch.cat(answers, 2), whole)
    assert state is not None and state.tokens == end.tokens == T
    for found, expected in zip(state[:3], end[:3], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("window", [1, 3, 8])
def test_with_a_window_the_cache_stays_small(window: int) -> None:
    state = None
    for _ in range(30):
        _, state = softmax_attention(*qkv(2), window=window, state=state)
    assert state is not None and state.k.shape[2] == state.v.shape[2] == window - 1
    assert state.k.untyped_storage().nbytes() == state.k.numel() * 8  # nothing older is held behind a view


def test_gradients_flow_through_the_cache_until_it_is_detached() -> None:
    q, k, v = (x.requires_grad_() for x in qkv())
    _, state = softmax_attention(*cut((q, k, v), 0, 6))
    y, _ = softmax_attention(*cut((q, k, v), 6, T), state=state)
    (slope,) = torch.autograd.grad(y.sum(), v, retain_graph=True)
    whole, _ = softmax_attention(q, k, v)
    assert_close(slope, torch.autograd.grad(whole[:, :, 6:].sum(), v)[0])
    y, _ = softmax_attention(*cut((q, k, v), 6, T), state=state.detach())
    assert torch.autograd.grad(y.sum(), v)[0][:, :, :6].abs().max() == 0


@pytest.mark.parametrize("window", [None, 1, 3, 7])
@pytest.mark.parametrize("fused", [True, False])
def test_padding_is_never_attended_to_not_even_later(window: int | None, fused: bool) -> None:
    tokens = qkv(20)
    calls = [torch.tensor([3, 0, 9]), torch.tensor([10, 4, 0]), torch.tensor([1, 1, 1]), torch.tensor([2, 6, 6])]
    expected = nadaraya_watson(*tokens, window=window)
    place, state = torch.zeros(B, dtype=torch.long), None
    for lengths in calls:
        size = int(lengths.max()) + 1
        call = [x.new_full((B, H, size, x.shape[-1]), math.nan) for x in tokens]
        for b, n in enumerate(lengths.tolist()):
            for padded, x in zip(call, tokens, strict=True):
                padded[b, :, :n] = x[b, :, place[b] : place[b] + n]
        y, state = softmax_attention(*call, window=window, state=state, lengths=lengths, fused=fused)
        for b, n in enumerate(lengths.tolist()):
            assert_close(y[b, :, :n], expected[b, :, place[b] : place[b] + n])
            assert y[b, :, n:].abs().sum() == 0
        place = place + lengths
        assert torch.equal(state.seen, place)


@pytest.mark.parametrize("window", [None, 3])
def test_what_lies_in_the_padding_spoils_no_gradient(window: int | None) -> None:
    tokens = [x.index_fill(2, torch.tensor([11, 12]), math.nan).requires_grad_() for x in qkv()]
    y, state = softmax_attention(*tokens, window=window, lengths=torch.tensor([11, 5, 0]))
    (y.sum() + state.k.sum()).backward()
    for x in tokens:
        assert x.grad is not None and x.grad.isfinite().all()
        assert x.grad[1, :, 5:].abs().max() == x.grad[2].abs().max() == 0


@pytest.mark.parametrize("window", [None, 4])
def test_nothing_before_a_changed_token_changes_and_no_other_item(window: int | None) -> None:
    tokens = qkv()
    changed = [x.clone() for x in tokens]
    for x in changed:
        x[1, :, 8] += 1.0
    before, after = (softmax_attention(*each, window=window)[0] for each in (tokens, changed))
    moved = (before - after).abs().amax((1, 3))
    assert moved[[0, 2]].max() == 0 and moved[1, :8].max() == 0 and moved[1, 8] > 1e-6
    assert (moved[1, 9] > 1e-9) and (window is None or moved[1, 8 + window :].max() == 0)


# Dtypes, sizes, saving


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_and_kept_in_float32(dtype: torch.dtype) -> None:
    tokens = tuple(x.to(dtype) for x in qkv())
    y, state = softmax_attention(*tokens)
    assert y.dtype == dtype and state.k.dtype == state.v.dtype == torch.float32
    assert torch.equal(y, softmax_attention(*(x.float() for x in tokens))[0].to(dtype))


def test_empty_input_is_answered_with_nothing() -> None:
    y, state = softmax_attention(*qkv(0))
    assert y.shape == (B, H, 0, DV) and state.tokens == 0
    assert nadaraya_watson(*qkv(0)).shape == (B, H, 0, DV)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("window", [None, 3])
def test_zero_constant_and_huge_input_gives_numbers(value: float, window: int | None) -> None:
    q, k, v = (torch.full_like(x, value, requires_grad=True) for x in qkv(dtype=torch.float32))
    y, _ = softmax_attention(q, k, v, window=window)
    torch.testing.assert_close(y, torch.full_like(y, value))
    y.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))


def test_a_saved_cache_goes_on_after_a_safe_load() -> None:
    tokens = qkv()
    whole, _ = softmax_attention(*tokens, window=6)
    _, state = softmax_attention(*cut(tokens, 0, 7), window=6)
    file = io.BytesIO()
    torch.save(as_plain(state), file)
    file.seek(0)
    back = from_plain(torch.load(file, weights_only=True))
    assert isinstance(back, CacheState) and back.tokens == 7
    assert_close(softmax_attention(*cut(tokens, 7, T), window=6, state=back)[0], whole[:, :, 7:])


def test_a_state_moves_to_another_dtype_and_keeps_its_counts() -> None:
    _, state = softmax_attention(*qkv())
    moved = state.to(torch.float32)
    assert (moved.k.dtype, moved.v.dtype, moved.seen.dtype) == (torch.float32, torch.float32, torch.long)


@pytest.mark.parametrize("window", [None, 4])
def test_it_compiles_without_a_break(window: int | None) -> None:
    tokens = qkv()
    attend = torch.compile(softmax_attention, backend="eager", fullgraph=True)
    y, state = attend(*cut(tokens, 0, 9), window=window)
    z, _ = attend(*cut(tokens, 9, T), window=window, state=state, lengths=torch.full((B,), T - 9))
    assert_close(torch.cat([y, z], 2), softmax_attention(*tokens, window=window)[0])


def test_wrong_input_is_refused_in_words() -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match="expected q and k of shape"):
        softmax_attention(q[0], k, v)
    with pytest.raises(ValueError, match="expected q and k of shape"):
        nadaraya_watson(q, k[..., :2], v)
    with pytest.raises(TypeError, match="one dtype"):
        softmax_attention(q, k.float(), v)
    with pytest.raises(ValueError, match="window must be at least 1"):
        softmax_attention(q, k, v, window=0)
    with pytest.raises(ValueError, match="lengths lie in 0 .. 13"):
        softmax_attention(q, k, v, lengths=torch.tensor([1, 2, 14]))
    with pytest.raises(ValueError, match="another stream"):
        softmax_attention(q, k, v, state=softmax_attention(q[:1], k[:1], v[:1])[1])
    with pytest.raises(ValueError, match="expected a saved state"):
        from_plain({"kind": "nothing"})
    with pytest.raises(ValueError, match="a saved CacheState has"):
        from_plain({"kind": "CacheState", "k": q})


# Rotary positions


def test_only_the_distance_counts() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def answer(s: int, t: int) -> float:
        return float((rotate(q, s) * rotate(k, t)).sum())

    assert answer(7, 3) == pytest.approx(answer(1_000_007, 1_000_003), abs=1e-9)
    assert abs(answer(7, 3) - answer(7, 4)) > 1e-4


def test_a_turn_is_the_complex_number_of_the_formula() -> None:
    x = torch.randn(2, 1, 6, 8, dtype=torch.float64)
    angles = torch.arange(3, 9)[:, None] * 100.0 ** (-torch.arange(4) / 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(6, 4).double(), angles.double())
    assert_close(rotate(x, 3, base=100.0), torch.cat([turned.real, turned.imag], -1), 1e-5)


def test_positions_go_on_from_call_to_call_and_differ_between_items() -> None:
    x = torch.randn(2, 1, 6, 4, dtype=torch.float64)
    assert_close(torch.cat([rotate(x[:, :, :2]), rotate(x[:, :, 2:], 2)], 2), rotate(x))
    turned = rotate(x, torch.tensor([5, 0]))
    assert_close(turned[:1], rotate(x[:1], 5))
    assert_close(turned[1:], rotate(x[1:], 0))


def test_late_places_in_float32_are_as_exact_as_early_ones() -> None:
    x = torch.randn(1, 1, 1, 64)
    late = rotate(x, 3_000_000)
    torch.testing.assert_close(late.double(), rotate(x.double(), 3_000_000), rtol=0, atol=1e-6)


def test_rotary_positions_refuse_odd_widths() -> None:
    with pytest.raises(ValueError, match="even d"):
        rotate(torch.zeros(1, 1, 2, 3))
    with pytest.raises(ValueError, match="expected seen"):
        rotate(torch.zeros(2, 1, 2, 4), torch.zeros(3))
