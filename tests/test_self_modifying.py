"""Self-modifying memories: Eq. 83-93, the plain loop against plain arithmetic, the chunk form against the plain loop."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, silu

from nlcore.sequence.self_modifying import (
    Boxes,
    Rules,
    SelfModifyingState,
    self_modifying_memory,
    transition_eigenvalue,
)
from nlcore.sequence.self_modifying.chunks import segment_sizes

B, H, T, D = 2, 2, 17, 3
F64 = torch.float64
CHUNKS = [(1, 1), (4, 4), (8, 3), (3, 8), (5, 2), (64, 64), (1, 7)]
SETTINGS: dict[str, dict] = {
    "default": {},
    "zero": {"decay_to": "zero"},
    "no fading": {"retain": 1.0},
    "fixed retain": {"retain": 0.9},
    "fixed retain to zero": {"retain": 0.9, "decay_to": "zero"},
    "literal L2": {
        "rule": "dgd_l2",
        "lr_max": 0.2,
        "decay_to": "zero",
        "unit_values": False,
        "own_value": False,
        "silu": False,
    },
    "momentum": {"momentum": 0.8, "lr_max": 0.5},
    "momentum to zero": {"momentum": 0.8, "lr_max": 0.5, "decay_to": "zero", "rule": "dgd_l2"},
    "momentum, no fading": {"momentum": 0.8, "lr_max": 0.5, "retain": 1.0},
    "memory only": {"rewrite": ("memory",)},
    "keys and memory": {"rewrite": ("k", "memory"), "momentum": 0.5},
    "all but memory": {"rewrite": ("lr", "v", "retain")},
    "nothing": {"rewrite": ()},
    "adaptive q": {"adaptive_q": True},
    "bounded": {"target_bound": 0.3},
    "detach": {"detach": True},
    "detach, momentum": {"detach": True, "momentum": 0.5, "lr_max": 0.5},
}


def stream(rules: Rules, length: int = T, seed: int = 0, rate: float | None = None, batch: int = B, d: int = D):
    """Tokens, queries and boxes in float64, all of which want gradients."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=F64)

    height = sum(rules.height(name, d) for name in rules.boxes)
    boxes = Boxes(0.5 * normal(H, height, d), 0.3 * normal(H), 2.0 + 0.3 * normal(H))
    boxes = boxes if rate is None else boxes._replace(rate=torch.tensor(rate, dtype=F64))
    x, q = normal(batch, H, length, d), normalize(normal(batch, H, length, d), dim=-1)
    return x, None if rules.adaptive_q else q, boxes


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum() + 1e-6).sqrt()


def by_hand(x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, start: int = 0) -> tuple[Tensor, Tensor]:
    """Read each stream and head alone with matrices and vectors; no code of the library but the order of the rows."""
    everything, states = [], []
    for item in range(x.shape[0]):
        for h in range(H):
            M0 = {name: boxes.start[h, rows] for name, rows in rules.rows(x.shape[-1]).items()}
            M, anchor, Z = dict(M0), dict(M0), {name: torch.zeros_like(m) for name, m in M0.items()}
            for t in range(x.shape[2]):
                for name in M:
                    if t % (rules.memory_chunk if name == "memory" else rules.projection_chunk) == 0:
                        anchor[name] = M[name]
                x_t = x[item, h, t]
                bend = silu if rules.silu else (lambda z: z)
                k, v = unit(bend(anchor["k"] @ x_t)), anchor["v"] @ x_t
                v = unit(v) if rules.unit_values else v
                lr = rules.lr_max * torch.sigmoid((anchor["lr"] @ x_t).squeeze() + boxes.lr_bias[h])
                alpha = torch.as_tensor(rules.retain or 0.0, dtype=F64)
                if rules.retain is None:
                    alpha = torch.sigmoid((anchor["retain"] @ x_t).squeeze() + boxes.retain_bias[h])
                q_t = unit(bend(anchor["q"] @ x_t)) if rules.adaptive_q else q[item, h, t]
                everything.append(M["memory"] @ q_t)
                for name in M:
                    if name not in rules.rewrite and not (name == "q" and rules.adaptive_q):
                        continue
                    target = anchor[name] @ v
                    if name == "memory" and rules.own_value:
                        target = target + v
                    if rules.target_bound is not None:
                        length = target.abs() if len(target) == 1 else (target.square().sum() + 1e-6).sqrt()
                        target = target * (rules.target_bound / length).clamp(max=1.0)
                    gradient = -target if rules.rule == "delta" else anchor[name] @ k - target
                    eta = lr if boxes.rate is None or name == "memory" else lr * boxes.rate
                    Z[name] = rules.momentum * Z[name] - eta * torch.outer(gradient, k)
                    back = M0[name] if rules.decay_to == "start" else torch.zeros_like(M0[name])
                    P = alpha * torch.eye(len(k), dtype=F64) - eta * torch.outer(k, k)
                    M[name] = M[name] @ P + (1 - alpha) * back + Z[name]
            states.append(torch.cat([M[name] for name in rules.boxes]))
    shape = (*x.shape[:2], x.shape[2], x.shape[3])
    return torch.stack(everything).view(shape), torch.stack(states).unflatten(0, x.shape[:2])


def both(name: str, chunks: tuple[int, int]) -> Rules:
    return Rules(memory_chunk=chunks[0], projection_chunk=chunks[1], **SETTINGS[name])


def gap(a: object, b: object) -> float:
    """The largest difference between two results, states included."""
    if isinstance(a, tuple):
        assert isinstance(b, tuple) and len(a) == len(b)
        return max((gap(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
        return (a - b).abs().max().item() if a.numel() else 0.0
    assert a == b
    return 0.0


@pytest.mark.parametrize("chunks", CHUNKS[:5])
@pytest.mark.parametrize("name", [name for name in SETTINGS if "detach" not in name])
def test_plain_loop_is_the_written_recurrence(name: str, chunks: tuple[int, int]) -> None:
    rules = both(name, chunks)
    x, q, boxes = stream(rules, rate=0.3 if name in ("zero", "momentum", "bounded") else None)
    y, state = self_modifying_memory(x, q, boxes, rules, token_by_token=True)
    y_hand, S_hand = by_hand(x, q, boxes, rules)
    assert gap(y, y_hand) < 1e-10 and gap(state.S, S_hand) < 1e-10


def run_and_differentiate(rules: Rules, token_by_token: bool, rate: float | None, length: int = T, **more: object):
    x, q, boxes = stream(rules, length=length, rate=rate)
    leaves = [leaf.requires_grad_() for leaf in (x, q, *boxes) if leaf is not None]
    y, state = self_modifying_memory(x, q, boxes, rules, token_by_token=token_by_token, **more)
    draw = torch.Generator().manual_seed(5)
    loss = sum(
        (part * torch.randn(part.shape, generator=draw, dtype=F64)).sum()
        for part in (y, *state)
        if isinstance(part, Tensor)
    )
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return y, state, tuple(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(grads, leaves, strict=True))


@pytest.mark.parametrize("rate", [None, 0.3])
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("name", SETTINGS)
def test_chunk_form_is_the_plain_loop(name: str, chunks: tuple[int, int], rate: float | None) -> None:
    rules = both(name, chunks)
    assert gap(run_and_differentiate(rules, False, rate), run_and_differentiate(rules, True, rate)) < 1e-10
