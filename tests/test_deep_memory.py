"""Titans with a deep memory: the hand-derived form against the plain loop, torch and numbers worked out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nlcore.sequence.deep.memory import deep_titans_memory
from nlcore.sequence.deep.weights import DeepState, DeepWeights, gelu_slope, new_deep_weights, reach, read_deep

B, H, T, D, HIDDEN = 3, 2, 21, 4, 6


class Setting:
    """One stream of random tokens with gates for each of them, and a start; everything can be differentiated."""

    def __init__(self, length: int = T) -> None:
        self.q, self.k, self.v = (torch.randn(B, H, length, D, dtype=torch.float64) for _ in range(3))
        self.lr = torch.rand(B, H, length, dtype=torch.float64) * 0.3
        self.momentum = torch.rand(B, H, length, dtype=torch.float64)
        self.retain = 0.5 + 0.5 * torch.rand(B, H, length, dtype=torch.float64)
        self.start = new_deep_weights(H, D, HIDDEN, dtype=torch.float64)
        self.inputs = [self.q, self.k, self.v, self.lr, self.momentum, self.retain, *self.start]
        for tensor in self.inputs:
            tensor.requires_grad_()

    def read(self, cuts: tuple[int, ...] = (), lengths: Tensor | None = None, **settings: object) -> list[Tensor]:
        """Return y, the state, and the gradient of a function of both for every input."""
        y, state = in_parts(self.inputs[:6], self.start, cuts, lengths, **settings)
        loss = (y * torch.arange(y.numel()).view_as(y).sin()).sum()
        loss = loss + sum((i + 1.5) * W.square().sum() for i, W in enumerate(tensors(state)))
        return [y, *tensors(state), *torch.autograd.grad(loss, self.inputs)]


def in_parts(
    tokens: list[Tensor], start: DeepWeights, cuts: tuple[int, ...], lengths: Tensor | None = None, **settings: object
) -> tuple[Tensor, DeepState]:
    length = tokens[0].shape[2]
    state, answers, begin = None, [], 0
    for end in (*cuts, length):
        part = [x[:, :, begin:end] for x in tokens]
        left = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        y, state = deep_titans_memory(*part, start=start, state=state, lengths=left, **settings)  # type: ignore[arg-type]
        answers.append(y)
        begin = end
    assert state is not None
    return torch.cat(answers, 2), state


def tensors(state: DeepState) -> list[Tensor]:
    return [*state.weights, *state.momentum, *state.anchor]


def assert_equal(one: list[Tensor], other: list[Tensor], atol: float = 1e-10) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=atol)


# The rule itself


def test_one_step_is_sgd_with_momentum_on_a_torch_network() -> None:
    """For a constant step size it does not matter whether momentum is of gradients or of steps."""
    s = Setting(9)
    y, _ = deep_titans_memory(s.q, s.k, s.v, 0.05, 0.7, start=s.start, gradient_period=1, lr_bound=None, chunk_size=4)
    for b in range(B):
        for h in range(H):
            net = nn.Sequential(nn.Linear(D, HIDDEN, bias=False), nn.GELU(), nn.Linear(HIDDEN, D, bias=False)).double()
            net[0].weight.data, net[2].weight.data = s.start.W2[h].detach().clone(), s.start.W1[h].detach().clone()
            sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.7)
            for t in range(9):
                sgd.zero_grad()
                key = s.k[b, h, t].detach()
                (0.5 * (key + net(key) - s.v[b, h, t].detach()).square().sum()).backward()
                sgd.step()
                query = s.q[b, h, t].detach()
                torch.testing.assert_close(y[b, h, t].detach(), (query + net(query)).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 64])
def test_a_chunk_of_gradients_is_one_step_with_their_sum(chunk_size: int | None) -> None:
    s = Setting(8)
    _, state = deep_titans_memory(
        s.q, s.k, s.v, 0.02, 0.0, start=s.start, gradient_period=8, lr_bound=None, chunk_size=chunk_size
    )
    W = [w.detach().expand(B, *w.shape).clone().requires_grad_() for w in s.start]
    answers = s.k + torch.nn.functional.gelu(s.k @ W[1].mT) @ W[0].mT
    (0.5 * (answers - s.v).square().sum()).backward()
    for after, before in zip(state.weights, W, strict=True):
        torch.testing.assert_close(after, before - 0.02 * before.grad, rtol=0, atol=1e-12)


def test_an_answer_comes_from_the_memory_after_the_write() -> None:
    s = Setting(1)
    y, state = deep_titans_memory(s.q, s.k, s.v, 0.1, start=s.start)
    torch.testing.assert_close(y[:, :, 0], read_deep(state.weights, s.q[:, :, 0]))
    assert not torch.allclose(y[:, :, 0], read_deep(DeepWeights(*s.start), s.q[:, :, 0]))


# The form by hand against the plain loop


@pytest.mark.parametrize("period", [1, 4, 16, 50])
@pytest.mark.parametrize("chunk_size", [1, 3, 8, 64])
def test_the_chunk_form_is_the_token_loop(period: int, chunk_size: int) -> None:
    s = Setting()
    loop = s.read(gradient_period=period, chunk_size=None)
    assert_equal(s.read(gradient_period=period, chunk_size=chunk_size), loop)


@pytest.mark.parametrize("decay_to", ["start", "zero"])
@pytest.mark.parametrize("lr_bound", [None, 0.3, 2.0])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_streams_cut_anywhere_are_the_whole(decay_to: str, lr_bound: float | None, chunk_size: int | None) -> None:
    s = Setting()
    settings = {"gradient_period": 4, "decay_to": decay_to, "lr_bound": lr_bound}
    whole = s.read(chunk_size=None, **settings)
    for cuts in ((5, 6, 6, 14), (8, 16), tuple(range(1, T))):
        assert_equal(s.read(cuts, chunk_size=chunk_size, **settings), whole)


@pytest.mark.parametrize("chunk_size", [None, 3, 64])
@pytest.mark.parametrize("period", [1, 4])
def test_padding_is_as_if_it_were_not_there(chunk_size: int | None, period: int) -> None:
    """Each stream alone, without padding, gives the same; and goes on the same, though the streams are cut apart."""
    s, lengths, more = Setting(), torch.tensor([T, 0, 10]), Setting(7)
    for x in (s.q, s.k, s.v):
        x.data[2, :, 10:] = float("nan")  # whatever stands in the padding
    settings = {"start": s.start, "gradient_period": period, "chunk_size": chunk_size}
    y, state = deep_titans_memory(*s.inputs[:6], lengths=lengths, **settings)  # type: ignore[arg-type]
    y2, after = deep_titans_memory(*more.inputs[:6], state=state, **settings)  # type: ignore[arg-type]
    assert not y[1].any() and not y[2, :, 10:].any()
    for b, length in enumerate(lengths.tolist()):
        one = [x[b : b + 1, :, :length] for x in s.inputs[:6]]
        alone, begun = deep_titans_memory(*one, **settings)  # type: ignore[arg-type]
        alone2, ended = deep_titans_memory(*(x[b : b + 1] for x in more.inputs[:6]), state=begun, **settings)  # type: ignore[arg-type]
        assert_equal([y[b : b + 1, :, :length], y2[b : b + 1]], [alone, alone2])
        assert_equal([x[b : b + 1] for x in tensors(state)], tensors(begun))
        assert_equal([x[b : b + 1] for x in tensors(after)], tensors(ended))
    assert torch.as_tensor(after.tokens).tolist() == [T + 7, 7, 17]


def test_gradients_with_padding_are_those_of_the_token_loop() -> None:
    s, lengths = Setting(), torch.tensor([T, 0, 10])
    settings = {"lengths": lengths, "gradient_period": 4}
    assert_equal(s.read((3, 11), chunk_size=3, **settings), s.read(chunk_size=None, **settings))


def test_numbers_for_gates_are_tensors_of_that_number() -> None:
    s = Setting()
    full = [torch.full((B, H, T), x, dtype=torch.float64) for x in (0.1, 0.6, 0.9)]
    for chunk_size in (None, 64):
        settings = {"start": s.start, "chunk_size": chunk_size, "gradient_period": 8}
        one = deep_titans_memory(s.q, s.k, s.v, 0.1, 0.6, 0.9, **settings)  # type: ignore[arg-type]
        other = deep_titans_memory(s.q, s.k, s.v, *full, **settings)  # type: ignore[arg-type]
        assert_equal([one[0], *tensors(one[1])], [other[0], *tensors(other[1])])


@pytest.mark.parametrize("chunk_size", [None, 64])
def test_gradcheck(chunk_size: int | None) -> None:
    s = Setting(5)

    def answers(*inputs: Tensor) -> Tensor:
        start = DeepWeights(*inputs[6:])
        settings = {"gradient_period": 2, "chunk_size": chunk_size, "lr_bound": 1.9}
        return deep_titans_memory(*inputs[:6], start=start, **settings)[0]  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(answers, [x[:1].detach().requires_grad_() for x in s.inputs[:6]] + s.inputs[6:])


def test_no_tokens_change_nothing() -> None:
    s = Setting()
    _, state = deep_titans_memory(s.q, s.k, s.v, start=s.start)
    y, same = deep_titans_memory(s.q[:, :, :0], s.k[:, :, :0], s.v[:, :, :0], start=s.start, state=state)
    assert y.shape == (B, H, 0, D) and same is state


def test_a_decay_to_the_start_forgets_the_stream_and_a_decay_to_zero_forgets_the_start_too() -> None:
    s = Setting()
    for target, home in (("start", s.start.W1), ("zero", torch.zeros_like(s.start.W1))):
        for chunk_size in (None, 8):
            _, state = deep_titans_memory(
                s.q, s.k, s.v, 0.0, 0.0, 0.1, start=s.start, decay_to=target, chunk_size=chunk_size
            )
            torch.testing.assert_close(state.weights.W1, home.expand(B, -1, -1, -1), rtol=0, atol=1e-10)


def test_a_memory_that_forgets_all_keeps_the_last_write() -> None:
    """alpha = 0 is no trap for products of gates; the last token of a stream is then its only one."""
    s = Setting(8)
    long = deep_titans_memory(s.q, s.k, s.v, 0.1, 0.0, 0.0, start=s.start, gradient_period=1)[1]
    loop = deep_titans_memory(s.q, s.k, s.v, 0.1, 0.0, 0.0, start=s.start, gradient_period=1, chunk_size=None)[1]
    assert_equal(tensors(long), tensors(loop))


# Stability


def repeated(length: int, scale: float = 1.0) -> tuple[Tensor, Tensor, DeepWeights]:
    k, v = (normalize(torch.randn(1, 1, 1, 8), dim=-1).expand(1, 1, length, 8) for _ in range(2))
    return k, scale * v, new_deep_weights(1, 8, 16)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("period", [1, 16, 64])
def test_a_pair_repeated_4000_times_is_learned_at_any_momentum(beta: float, period: int) -> None:
    k, v, start = repeated(4000)
    with torch.no_grad():
        y, state = deep_titans_memory(k, k, v, 1.0, beta, start=start, gradient_period=period)
    error = (y - v).norm(dim=-1).squeeze()
    assert error[-1] < 1e-3
    assert error.max() < 4  # it may swing past v, but not away from it
    assert all(W.isfinite().all() for W in tensors(state))


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_without_the_bound_the_same_stream_diverges(beta: float) -> None:
    """The step is small, yet 64 of them at the same memory are not; one at a time they are harmless."""
    k, v, start = repeated(640)
    with torch.no_grad():
        literal, _ = deep_titans_memory(k, k, v, 0.2, beta, start=start, gradient_period=64, lr_bound=None)
        exact, _ = deep_titans_memory(k, k, v, 0.2, beta, start=start, gradient_period=1, lr_bound=None)
        kept, _ = deep_titans_memory(k, k, v, 0.2, beta, start=start, gradient_period=64)
    begin = (k[0, 0, 0] - v[0, 0, 0]).norm()
    assert not (literal[0, 0, -1] - v[0, 0, -1]).norm() < begin  # far away, or NaN
    assert (exact[0, 0, -1] - v[0, 0, -1]).norm() < 1e-2
    assert (kept[0, 0, -1] - v[0, 0, -1]).norm() < 1e-2


def test_the_bound_is_below_the_largest_stable_step() -> None:
    """A linear memory with one repeated key: C tokens at one memory are a 2 x 2 map of (error, momentum)."""
    for period in (1, 2, 3, 16, 64):
        for beta in (0.0, 0.1, 0.5, 0.9, 0.99):
            step = 2 / (1 + (period - 1) / (1 - beta))
            columns = []
            for error, momentum in ((1.0, 0.0), (0.0, 1.0)):
                stale = error
                for _ in range(period):
                    momentum = beta * momentum - step * stale
                    error = error + momentum
                columns.append([error, momentum])
            largest = torch.linalg.eigvals(torch.tensor(columns, dtype=torch.float64)).abs().max()
            assert largest <= 1 + 1e-9, (period, beta, largest)


def test_reach_bounds_the_largest_eigenvalue_of_what_a_step_does() -> None:
    s = Setting(5)
    start = DeepWeights(*(W.detach()[0] for W in s.start))
    for k in s.k[0, 0].detach():
        J = [
            j.reshape(D, -1)
            for j in torch.autograd.functional.jacobian(
                lambda W1, W2, k=k: read_deep(DeepWeights(W1, W2), k), tuple(start)
            )
        ]
        G = sum(j @ j.T for j in J)
        bound = reach(start.W1[None, None], k[None, None, None], (start.W2 @ k)[None, None, None])
        assert torch.linalg.eigvalsh(G).max() <= bound.item() + 1e-12
        assert bound.item() <= torch.trace(G) + 1e-12


def test_the_bound_of_a_token_does_not_know_later_tokens() -> None:
    s = Setting()
    y, _ = deep_titans_memory(s.q, s.k, s.v, 5.0, start=s.start, gradient_period=8)
    k = s.k.detach().clone()
    k[:, :, 13:] *= 100
    other, _ = deep_titans_memory(s.q, k, s.v, 5.0, start=s.start, gradient_period=8)
    torch.testing.assert_close(y[:, :, :13], other[:, :, :13], rtol=0, atol=1e-12)


def test_extreme_tokens_stay_finite() -> None:
    s = Setting()
    for scale in (0.0, 1e4):
        y, state = deep_titans_memory(
            scale * s.q.float(),
            scale * s.k.float(),
            scale * s.v.float(),
            1.0,
            0.9,
            start=DeepWeights(*(W.float() for W in s.start)),
        )
        y.square().mean().backward()
        assert y.isfinite().all() and all(W.isfinite().all() for W in tensors(state))
        assert all(x.grad is None or x.grad.isfinite().all() for x in s.inputs)


def test_gelu_slope_is_the_derivative_of_gelu() -> None:
    z = torch.linspace(-8, 8, 101, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.gelu(z).sum().backward()
    torch.testing.assert_close(gelu_slope(z.detach()), z.grad, rtol=0, atol=1e-14)


# State, dtypes, errors


@pytest.mark.parametrize("chunk_size", [None, 64])
def test_half_precision_is_computed_in_float32(chunk_size: int | None) -> None:
    s = Setting()
    half = [x.detach().bfloat16() for x in s.inputs[:6]]
    start = DeepWeights(*(W.detach().bfloat16() for W in s.start))
    y, state = deep_titans_memory(*half, start=start, chunk_size=chunk_size)
    as_float = DeepWeights(*(W.float() for W in start))
    full, _ = deep_titans_memory(*(x.float() for x in half), start=as_float, chunk_size=chunk_size)
    assert y.dtype is torch.bfloat16 and all(W.dtype is torch.float32 for W in tensors(state))
    torch.testing.assert_close(y, full.bfloat16())
    y2, _ = deep_titans_memory(*half, start=start, state=state, chunk_size=chunk_size)
    assert y2.dtype is torch.bfloat16


def test_a_state_can_be_kept_saved_and_moved() -> None:
    s = Setting()
    _, state = deep_titans_memory(*s.inputs[:6], start=s.start)
    assert state.weights.W1.requires_grad and not any(W.requires_grad for W in tensors(state.detach()))
    assert state.to(torch.float32).momentum.W2.dtype is torch.float32 and state.to(torch.float32).tokens == T
    leaves, spec = torch.utils._pytree.tree_flatten(state)
    assert len(leaves) == 7 and torch.utils._pytree.tree_unflatten(leaves, spec) == state
    counted = state._replace(tokens=torch.tensor([1, 2, 3])).to(torch.float32)
    assert counted.tokens.dtype is torch.int64  # type: ignore[union-attr]
    assert copy.deepcopy(state.detach()).tokens == T


def test_errors_say_what_to_do() -> None:
    s = Setting()

    def run(*tokens: Tensor, **settings: object) -> None:
        q, k, v = tokens or (s.q, s.k, s.v)
        deep_titans_memory(q, k, v, **{"start": s.start, **settings})  # type: ignore[arg-type]

    cases: list[tuple[tuple[Tensor, ...], dict[str, object], type[Exception], str]] = [
        ((s.q, s.k, s.v[..., :3]), {}, ValueError, "project the values to width 4"),
        ((s.q[0], s.k[0], s.v[0]), {}, ValueError, "expected q and k of shape"),
        ((), {"lr": -1.0}, ValueError, "lr must be"),
        ((), {"momentum": 1.5}, ValueError, "momentum must be"),
        ((), {"retain": torch.ones(2, 3)}, ValueError, "retain must be"),
        ((), {"gradient_period": 0}, ValueError, "gradient_period"),
        ((), {"chunk_size": 0}, ValueError, "chunk_size"),
        ((), {"lr_bound": 3.0}, ValueError, r"lr_bound must be in \(0, 2\]"),
        ((), {"decay_to": "home"}, ValueError, "decay_to must be one of start, zero"),
        ((), {"start": s.start.W1}, TypeError, "new_deep_weights"),
        ((), {"start": new_deep_weights(H + 1, D, dtype=torch.float64)}, ValueError, "2 heads"),
        ((), {"start": DeepWeights(s.start.W2, s.start.W1)}, ValueError, "expected start.W1"),
        ((), {"lengths": torch.ones(B)}, TypeError, "whole numbers"),
        ((), {"state": 3}, TypeError, "DeepState"),
    ]
    for tokens, settings, kind, words in cases:
        with pytest.raises(kind, match=words):
            run(*tokens, **settings)
    _, state = deep_titans_memory(s.q, s.k, s.v, start=s.start)
    with pytest.raises(ValueError, match="another stream"):
        run(s.q[:2], s.k[:2], s.v[:2], state=state)
    with pytest.raises(TypeError, match="convert it"):
        run(state=state.to(torch.float32))
    with pytest.raises(ValueError, match="at least 1"):
        new_deep_weights(0, 3)
