"""Self-modifying boxes that are networks: Eq. 89-91 against autograd, the chunk form against the plain loop."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, normalize, silu

from nlcore.sequence.self_modifying import NetworkBoxes, Rules, self_modifying_networks
from nlcore.sequence.self_modifying.networks import gelu_slope

B, H, T, D, HIDDEN = 2, 2, 13, 3, 4
F64 = torch.float64
L2 = {"rule": "dgd_l2", "target_bound": 1.0}
SETTINGS: dict[str, dict] = {
    "default": L2,
    "zero": {**L2, "decay_to": "zero"},
    "no fading": {**L2, "retain": 1.0},
    "fixed retain": {**L2, "retain": 0.9, "adaptive_q": True},
    "dot product": {"lr_max": 0.05, "silu": False},
    "memory only": {**L2, "rewrite": ("memory",)},
    "keys and rates": {**L2, "rewrite": ("k", "lr")},
    "detach": {**L2, "detach": True},
}
CHUNKS = [(1, 1), (4, 4), (5, 2), (2, 5), (64, 64)]


def stream(rules: Rules, length: int = T, rate: float | None = None) -> tuple[Tensor, Tensor | None, NetworkBoxes]:
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=F64)

    N = len(rules.boxes)
    boxes = NetworkBoxes(0.5 * normal(H, N, D, HIDDEN), 0.5 * normal(H, N, HIDDEN, D), normal(H), 2.0 + normal(H))
    boxes = boxes if rate is None else boxes._replace(rate=torch.tensor(rate, dtype=F64))
    x, q = normal(B, H, length, D), normalize(normal(B, H, length, D), dim=-1)
    return x, None if rules.adaptive_q else q, boxes


def gap(a: object, b: object) -> float:
    if isinstance(a, tuple):
        assert isinstance(b, tuple) and len(a) == len(b)
        return max((gap(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
        return (a - b).abs().max().item() if a.numel() else 0.0
    assert a == b
    return 0.0


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum() + 1e-6).sqrt()


def by_autograd(x: Tensor, q: Tensor | None, boxes: NetworkBoxes, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """Read each stream and head alone; torch.autograd takes the inner gradients."""
    answers, ends1, ends2 = [], [], []

    def net(weights: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        return z + weights[0] @ gelu(weights[1] @ z)

    for item in range(x.shape[0]):
        for h in range(H):
            M0 = {name: (boxes.W1[h, i], boxes.W2[h, i]) for i, name in enumerate(rules.boxes)}
            M, anchor = dict(M0), dict(M0)
            for t in range(x.shape[2]):
                for name in M:
                    if t % (rules.memory_chunk if name == "memory" else rules.projection_chunk) == 0:
                        anchor[name] = M[name]
                x_t = x[item, h, t]
                bend = silu if rules.silu else (lambda z: z)
                k, v = unit(bend(net(anchor["k"], x_t))), net(anchor["v"], x_t)
                v = unit(v) if rules.unit_values else v
                lr = rules.lr_max * torch.sigmoid(net(anchor["lr"], x_t).mean() + boxes.lr_bias[h])
                alpha = torch.as_tensor(rules.retain or 0.0, dtype=F64)
                if rules.retain is None:
                    alpha = torch.sigmoid(net(anchor["retain"], x_t).mean() + boxes.retain_bias[h])
                q_t = unit(bend(net(anchor["q"], x_t))) if rules.adaptive_q else q[item, h, t]
                answers.append(net(M["memory"], q_t))
                for name in rules.written:
                    target = net(anchor[name], v)
                    if rules.target_bound is not None:
                        length = (target.square().sum() + 1e-6).sqrt()
                        target = target * (rules.target_bound / length).clamp(max=1.0)
                    weights = [W.detach().requires_grad_() for W in anchor[name]]
                    out, goal = net((weights[0], weights[1]), k.detach()), target.detach()
                    loss = 0.5 * (out - goal).square().sum() if rules.rule == "dgd_l2" else -(out * goal).sum()
                    g1, g2 = torch.autograd.grad(loss, weights)
                    eta = lr if boxes.rate is None or name == "memory" else lr * boxes.rate
                    back = M0[name] if rules.decay_to == "start" else [torch.zeros_like(W) for W in M0[name]]
                    W1 = alpha * M[name][0] + (1 - alpha) * back[0] - eta * g1
                    P = alpha * torch.eye(len(k), dtype=F64) - eta * torch.outer(k, k)
                    W2 = M[name][1] @ P + (1 - alpha) * back[1] - eta * g2
                    M[name] = W1, W2
            ends1.append(torch.stack([M[name][0] for name in rules.boxes]))
            ends2.append(torch.stack([M[name][1] for name in rules.boxes]))
    W1, W2 = torch.stack(ends1).unflatten(0, (B, H)), torch.stack(ends2).unflatten(0, (B, H))
    return torch.stack(answers).view(*x.shape), W1, W2


def both(name: str, chunks: tuple[int, int]) -> Rules:
    return Rules(memory_chunk=chunks[0], projection_chunk=chunks[1], **SETTINGS[name])


@pytest.mark.parametrize("chunks", CHUNKS[1:4])
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "detach"])
def test_plain_loop_takes_the_gradients_of_autograd(name: str, chunks: tuple[int, int]) -> None:
    rules = both(name, chunks)
    x, q, boxes = stream(rules, rate=0.4 if name in ("zero", "memory only") else None)
    with torch.no_grad():
        y, state = self_modifying_networks(x, q, boxes, rules, lr_bound=None, token_by_token=True)
    with torch.enable_grad():
        assert gap((y, state.W1, state.W2), by_autograd(x, q, boxes, rules)) < 1e-10


def test_slope_is_the_derivative_of_gelu() -> None:
    z = torch.linspace(-4, 4, 41, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(gelu(z).sum(), z)
    assert gap(slope, gelu_slope(z.detach())) < 1e-14


def run(rules: Rules, token_by_token: bool, rate: float | None = None, lengths: Tensor | None = None) -> tuple:
    x, q, boxes = stream(rules, rate=rate)
    leaves = [leaf.requires_grad_() for leaf in (x, q, *boxes) if leaf is not None]
    y, state = self_modifying_networks(x, q, boxes, rules, token_by_token=token_by_token, lengths=lengths)
    draw = torch.Generator().manual_seed(5)
    parts = (y, *state[:4])
    loss = sum((part * torch.randn(part.shape, generator=draw, dtype=F64)).sum() for part in parts)
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return y, state, tuple(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(grads, leaves, strict=True))


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("name", SETTINGS)
def test_chunk_form_is_the_plain_loop(name: str, chunks: tuple[int, int]) -> None:
    rules, rate = both(name, chunks), 0.3 if chunks[0] % 2 else None
    lengths = torch.tensor([T, 6]) if name in ("default", "zero") else None
    assert gap(run(rules, False, rate, lengths), run(rules, True, rate, lengths)) < 1e-10


@pytest.mark.parametrize("token_by_token", [False, True])
def test_a_stream_may_be_cut_anywhere(token_by_token: bool) -> None:
    rules = both("default", (4, 3))
    x, q, boxes = stream(rules)
    assert q is not None
    whole = self_modifying_networks(x, q, boxes, rules, token_by_token=token_by_token)
    answers, state = [], None
    for x_n, q_n in zip(x.split((3, 1, 0, 5, 4), 2), q.split((3, 1, 0, 5, 4), 2), strict=True):
        y, state = self_modifying_networks(x_n, q_n, boxes, rules, state=state, token_by_token=token_by_token)
        answers.append(y)
    assert gap((torch.cat(answers, 2), state), whole) < 1e-12


def test_padding_and_later_tokens_change_nothing() -> None:
    rules = both("default", (4, 3))
    x, q, boxes = stream(rules)
    assert q is not None
    y, state = self_modifying_networks(x, q, boxes, rules, lengths=torch.tensor([T, 6]))
    y_short, short = self_modifying_networks(x[1:, :, :6], q[1:, :, :6], boxes, rules)
    assert gap(y[1:, :, :6], y_short) < 1e-12 and not y[1, :, 6:].any()
    assert gap(tuple(part[1:] for part in state[:4]), tuple(short[:4])) < 1e-12
    later = x.clone()
    later[:, :, 9:] += 1.0
    y_later, _ = self_modifying_networks(later, q, boxes, rules, lengths=torch.tensor([T, 6]))
    assert gap(y_later[:, :, :10], y[:, :, :10]) < 1e-13 and gap(y_later[0, :, 10:], y[0, :, 10:]) > 1e-4


@pytest.mark.parametrize("C", [16, 64])
def test_the_bound_keeps_a_repeated_key_from_overshooting(C: int) -> None:
    rules = Rules(C, lr_max=1.0, **L2)
    x, q, boxes = stream(rules, length=1)
    assert q is not None
    x, q = x.expand(-1, -1, 640, -1), q.expand(-1, -1, 640, -1)
    y, state = self_modifying_networks(x, q, boxes, rules)
    assert y.isfinite().all() and max(part.abs().max() for part in state[:2]) < 20.0
    y, state = self_modifying_networks(x, q, boxes, rules, lr_bound=None)
    assert not state.W1.abs().max() < 1e3  # without the bound it diverges


def test_half_precision_is_computed_in_float32() -> None:
    x, q, boxes = stream(Rules(**L2))
    assert q is not None
    boxes = NetworkBoxes(*(part.float() for part in boxes[:4]))
    y, state = self_modifying_networks(x.bfloat16(), q.bfloat16(), boxes, Rules(**L2))
    assert y.dtype == torch.bfloat16 and state.W1.dtype == torch.float32


def test_every_box_learns_through_the_writes() -> None:
    rules = both("default", (4, 4))
    x, q, boxes = stream(rules)
    W1, W2 = boxes.W1.requires_grad_(), boxes.W2.requires_grad_()
    y, _ = self_modifying_networks(x, q, boxes, rules)
    for grad in torch.autograd.grad(y[:, :, 4:8].square().sum(), (W1, W2)):
        assert (grad.abs().amax((0, 2, 3)) > 1e-7).all()


def test_wrong_input_is_named() -> None:
    rules = Rules(**L2)
    x, q, boxes = stream(rules)
    _, state = self_modifying_networks(x, q, boxes, rules)
    wrong: list[tuple[str, tuple, dict]] = [
        ("no momentum", (x, q, boxes, Rules(momentum=0.5)), {}),
        ("W1 .*W2", (x, q, boxes._replace(W1=boxes.W1[:, 1:]), rules), {}),
        ("another stream", (x[:1], x[:1], boxes, rules), {"state": state}),
        ("queries", (x, None, boxes, rules), {}),
    ]
    for words, given, more in wrong:
        with pytest.raises(ValueError, match=words):
            self_modifying_networks(*given, **more)
