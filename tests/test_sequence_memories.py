"""Matrix memories of tokens: the chunk-parallel forms against the plain loops, streams, padding, guards."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nlcore import memory
from nlcore.sequence import MemoryState, delta_rule, linear_attention, oja_rule, titans_memory

B, H, T, D_K, D_V = 2, 3, 37, 5, 4
FUNCTIONS: dict[str, Callable[..., tuple[Tensor, MemoryState]]] = {
    "linear": linear_attention,
    "delta": delta_rule,
    "oja": oja_rule,
    "titans": titans_memory,
    "titans, period 4": lambda *a, **s: titans_memory(*a, gradient_period=4, **s),
    "titans, period 7, unbounded": lambda *a, **s: titans_memory(*a, gradient_period=7, lr_bound=None, **s),
}
MATRIX_RULES = {"linear": memory.hebbian, "delta": memory.delta, "oja": memory.oja}
CHUNKS = (1, 3, 8, 32, 64)


def tokens(seed: int = 0, length: int = T, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(B, H, length, d, generator=generator, dtype=torch.float64) for d in (D_K, D_K, D_V)]
    return [(x / x.norm(dim=-1, keepdim=True)).to(dtype) for x in made]


def gates(name: str, kind: str, length: int = T) -> dict[str, Any]:
    """Gates of three kinds: numbers that forget nothing, numbers, a number for each token."""
    names = ["lr", "retain", *(["momentum"] if "titans" in name else [])]
    if kind != "tensors":
        return dict(zip(names, (0.6, 1.0 if kind == "no decay" else 0.9, 0.8), strict=False))
    generator = torch.Generator().manual_seed(7)
    return {name: torch.rand(B, H, length, generator=generator, dtype=torch.float64) for name in names}


def cut(gate: Any, start: int, stop: int) -> Any:
    return gate[:, :, start:stop] if isinstance(gate, Tensor) else gate


def gradients(f: Callable[..., tuple[Tensor, MemoryState]], settings: dict[str, Any], size: int | None) -> list[Tensor]:
    inputs = [x.requires_grad_() for x in tokens()]
    learned = {n: g.clone().requires_grad_() for n, g in settings.items() if isinstance(g, Tensor) and n != "lengths"}
    y, state = f(*inputs, **{**settings, **learned}, chunk_size=size)
    score = y.square().sum() + state.M.sin().sum()
    return list(torch.autograd.grad(score, [*inputs, *learned.values()]))


def largest_difference(one: list[Tensor | None], other: list[Tensor | None]) -> float:
    assert [x is None for x in one] == [x is None for x in other]
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True) if a is not None and b is not None)


@pytest.mark.parametrize("lengths", [None, (37, 11), (0, 37)])
@pytest.mark.parametrize("kind", ["no decay", "numbers", "tensors"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_chunks_equal_the_loop(name: str, kind: str, lengths: tuple[int, int] | None) -> None:
    settings = gates(name, kind)
    if lengths is not None:
        settings["lengths"] = torch.tensor(lengths)
    y, state = FUNCTIONS[name](*tokens(), **settings, chunk_size=None)
    assert y.shape == (B, H, T, D_V) and y.abs().max() > 0.1 and state.tokens == T
    by_loop = gradients(FUNCTIONS[name], settings, None)
    for size in CHUNKS:
        y_c, state_c = FUNCTIONS[name](*tokens(), **settings, chunk_size=size)
        assert largest_difference([y, *state[:3]], [y_c, *state_c[:3]]) < 1e-10 and state_c.tokens == T
        assert largest_difference(by_loop, gradients(FUNCTIONS[name], settings, size)) < 1e-10


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("kind", ["numbers", "tensors"])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("cuts", [(0, 8, 16, 37), (0, 1, 2, 3, 12, 12, 36, 37), tuple(range(T + 1))])
def test_a_stream_cut_anywhere_equals_the_whole(name: str, kind: str, size: int | None, cuts: tuple[int, ...]) -> None:
    settings = gates(name, kind)
    whole, last = FUNCTIONS[name](*tokens(), **settings, chunk_size=size)
    state, answers = None, []
    for start, stop in pairwise(cuts):
        here = {gate: cut(value, start, stop) for gate, value in settings.items()}
        y, state = FUNCTIONS[name](*(cut(x, start, stop) for x in tokens()), **here, state=state, chunk_size=size)
        answers.append(y)
    assert state is not None and state.tokens == last.tokens
    assert largest_difference([whole, *last[:3]], [torch.cat(answers, 2), *state[:3]]) < 1e-10


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_padding_changes_nothing(name: str, size: int | None) -> None:
    settings = gates(name, "tensors")
    y, state = FUNCTIONS[name](*tokens(), **settings, lengths=torch.tensor([37, 11]), chunk_size=size)
    spoiled = [x.clone() for x in tokens()]
    for x in spoiled:
        x[1, :, 11:] = torch.nan
    y_nan, state_nan = FUNCTIONS[name](*spoiled, **settings, lengths=torch.tensor([37, 11]), chunk_size=size)
    assert torch.equal(y, y_nan) and torch.equal(state.M, state_nan.M)
    alone = {gate: value[1:, :, :11] for gate, value in settings.items()}
    y_1, state_1 = FUNCTIONS[name](*(x[1:, :, :11] for x in tokens()), **alone, chunk_size=size)
    assert torch.allclose(y[1:, :, :11], y_1, atol=1e-12) and not y[1:, :, 11:].any()
    assert torch.allclose(state.M[1:], state_1.M, atol=1e-12)
    if state.Z is not None and state_1.Z is not None:
        assert torch.allclose(state.Z[1:], state_1.Z, atol=1e-12)


@pytest.mark.parametrize("name", MATRIX_RULES)
def test_the_write_is_the_rule_of_the_memory_room(name: str) -> None:
    q, k, v = tokens()
    M = q.new_zeros(B, H, D_V, D_K)
    for t in range(T):
        M = MATRIX_RULES[name](M, k[:, :, t], v[:, :, t], 0.6, 0.9)
    for size in (None, 8):
        y, state = FUNCTIONS[name](q, k, v, 0.6, 0.9, chunk_size=size)
        assert torch.allclose(state.M, M, atol=1e-12)
        assert torch.allclose(y[:, :, -1], memory.read(M, q[:, :, -1]), atol=1e-12)


def test_titans_is_its_three_equations() -> None:
    q, k, v = tokens()
    M = Z = q.new_zeros(B, H, D_V, D_K)
    for t in range(T):
        surprise = v[:, :, t] - (M @ k[:, :, t, :, None]).squeeze(-1)
        Z = 0.8 * Z + 0.6 * surprise[..., :, None] * k[:, :, t, None, :]
        M = 0.9 * M + Z
    _, state = titans_memory(q, k, v, 0.6, 0.8, 0.9)
    assert state.Z is not None and torch.allclose(state.M, M, atol=1e-12) and torch.allclose(state.Z, Z, atol=1e-12)


def test_titans_without_momentum_is_the_delta_rule() -> None:
    y, state = titans_memory(*tokens(), lr=0.6, momentum=0.0, retain=0.9)
    y_delta, state_delta = delta_rule(*tokens(), lr=0.6, retain=0.9)
    assert torch.allclose(y, y_delta, atol=1e-12) and torch.allclose(state.M, state_delta.M, atol=1e-12)


def test_a_larger_gradient_period_is_another_memory() -> None:
    answers = [titans_memory(*tokens(), lr=0.5, gradient_period=period, lr_bound=None)[0] for period in (1, 2, 8)]
    assert (answers[0] - answers[1]).abs().max() > 0.01 and (answers[1] - answers[2]).abs().max() > 0.01


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    inputs = [x[:1, :1, :5].clone().requires_grad_() for x in tokens()]
    names = ["lr", "retain", *(["momentum"] if "titans" in name else [])]
    inputs += [gates(name, "tensors")[gate][:1, :1, :5].clone().requires_grad_() for gate in names]

    def answer(q: Tensor, k: Tensor, v: Tensor, *found: Tensor) -> tuple[Tensor, Tensor]:
        y, state = FUNCTIONS[name](q, k, v, **dict(zip(names, found, strict=True)), chunk_size=3)
        return y, state.M

    assert torch.autograd.gradcheck(answer, inputs)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_precision(name: str, dtype: torch.dtype) -> None:
    exact, _ = FUNCTIONS[name](*tokens(), lr=0.5, retain=0.95)
    y, state = FUNCTIONS[name](*tokens(dtype=dtype), lr=0.5, retain=0.95)
    assert y.dtype is dtype and state.M.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    allowed = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-4, torch.float64: 1e-10}[dtype]
    assert (y.double() - exact).abs().max() < allowed * exact.abs().max()


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_token_at_all(name: str, size: int | None) -> None:
    y, state = FUNCTIONS[name](*tokens(length=0), chunk_size=size)
    assert y.shape == (B, H, 0, D_V) and not state.M.any() and state.tokens == 0


@pytest.mark.parametrize("name", ["linear", "delta", "oja", "titans"])
def test_a_gate_of_zero_forgets_everything(name: str) -> None:
    settings = gates(name, "tensors")
    settings["retain"][:, :, 10] = 0.0
    settings["retain"][:, :, 13] = 0.0
    loop, _ = FUNCTIONS[name](*tokens(), **settings, chunk_size=None)
    chunks, state = FUNCTIONS[name](*tokens(), **settings, chunk_size=32)
    assert torch.allclose(loop, chunks, atol=1e-12) and state.M.isfinite().all()
    assert largest_difference(*(gradients(FUNCTIONS[name], settings, size) for size in (None, 32))) < 1e-10


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("period", [4, 16, 64])
def test_the_bound_keeps_a_repeated_key_from_diverging(period: int, momentum: float) -> None:
    k, v = torch.zeros(1, 1, 4000, 3, dtype=torch.float64), torch.zeros(1, 1, 4000, 3, dtype=torch.float64)
    k[..., 0], v[..., 1] = 5.0, 1.0
    y, _ = titans_memory(k, k, v, 1.0, momentum, gradient_period=period)
    assert y.abs().max() < 2.0 and abs(float(y[0, 0, -1, 1]) - 1.0) < 0.01
    wild, _ = titans_memory(k, k, v, 1.0, momentum, gradient_period=period, lr_bound=None)
    assert not wild.abs().max() < 1e6
    exact, _ = titans_memory(k / 5, k / 5, v, 1.0, momentum)
    assert exact.abs().max() < 2.0


def test_gates_are_in_the_middle_of_a_chunk_as_at_its_ends() -> None:
    """The same tokens, once as two streams and once behind each other, end in the same memory."""
    q, k, v = tokens()
    settings = gates("titans", "tensors")
    _, state = titans_memory(q, k, v, **settings, chunk_size=7)
    _, other = titans_memory(q, k, v, **settings, chunk_size=13)
    assert torch.allclose(state.M, other.M, atol=1e-12)


def test_a_state_can_be_kept_and_moved(tmp_path: Any) -> None:
    q, k, v = tokens()
    whole, _ = titans_memory(q, k, v, gradient_period=4)
    first, state = titans_memory(*(x[:, :, :10] for x in (q, k, v)), gradient_period=4)
    torch.save(tuple(state.detach()), tmp_path / "state.pt")
    kept = MemoryState(*torch.load(tmp_path / "state.pt", weights_only=True))
    rest, _ = titans_memory(*(x[:, :, 10:] for x in (q, k, v)), gradient_period=4, state=kept)
    assert torch.allclose(torch.cat([first, rest], 2), whole, atol=1e-12)
    assert state.to(torch.float32).M.dtype is torch.float32 and kept.tokens == 10
    assert not state.detach().M.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"q": torch.zeros(2, 3, 5)}, ValueError, r"expected q and k of shape \(B, H, T, d_k\)"),
        ({"v": torch.zeros(2, 3, 6, 4)}, ValueError, r"v \(2, 3, 6, 4\)"),
        ({"k": torch.zeros(2, 3, 5, 4, dtype=torch.long)}, TypeError, "k must be a floating-point tensor"),
        ({"v": torch.zeros(2, 3, 5, 4, dtype=torch.float64)}, TypeError, "one dtype"),
        ({"lr": -0.1}, ValueError, "lr must be a finite number in"),
        ({"lr": float("nan")}, ValueError, "lr must be a finite number"),
        ({"retain": 1.1}, ValueError, r"retain must be a finite number in \[0, 1\]"),
        ({"retain": torch.ones(2, 5)}, ValueError, r"retain must be a number or have the shape \(B, H, T\)"),
        ({"chunk_size": 0}, ValueError, "chunk_size"),
        ({"lengths": torch.tensor([1.0, 2.0])}, TypeError, "whole numbers"),
        ({"lengths": torch.tensor([1, 2, 3])}, ValueError, r"lengths must have the shape \(B,\)"),
        ({"lengths": torch.tensor([1, 6])}, ValueError, r"lengths lie in 0 .. 5, the tokens given; got \[1, 6\]"),
        ({"lengths": torch.tensor([-1, 5])}, ValueError, "lengths lie in 0 .. 5"),
        ({"state": "nothing"}, TypeError, "MemoryState"),
        ({"state": MemoryState(torch.zeros(2, 3, 4, 5))}, ValueError, "another stream"),
    ],
)
@pytest.mark.parametrize("f", [linear_attention, delta_rule, oja_rule, titans_memory])
def test_bad_input_is_named(
    f: Callable[..., tuple[Tensor, MemoryState]], change: dict[str, Any], error: type[Exception], says: str
) -> None:
    q, k, v = (change.pop(n, torch.zeros(2, 3, 5, 4)) for n in ("q", "k", "v"))
    with pytest.raises(error, match=says):
        f(q, k, v, **change)
    change |= {"q": q, "k": k, "v": v}


def test_bad_momentum_and_period_are_named() -> None:
    q = torch.zeros(1, 1, 3, 2)
    with pytest.raises(ValueError, match="momentum"):
        titans_memory(q, q, q, momentum=1.5)
    with pytest.raises(ValueError, match="gradient_period"):
        titans_memory(q, q, q, gradient_period=0)


def test_cost_of_the_backward_pass_of_the_loop_is_linear() -> None:
    """No operation of the loop touches the whole sequence: the largest tensor autograd keeps does not grow with T."""
    largest = []
    for length in (20, 40):
        seen: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=seen: s.append(x.numel()) or x, lambda x: x):
            delta_rule(*(x.requires_grad_() for x in tokens(length=length)), chunk_size=None)
        largest.append(max(seen))
    assert largest[0] == largest[1]
