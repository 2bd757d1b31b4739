"""What of nlcore.sequence is raced, and torch's own attention and GRU as yardsticks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sequence_race import Racer, Size, Work, layer_work, op_inputs, step
from torch import Tensor

from nlcore.sequence import SelfModifyingTitans, Titans, delta_rule, linear_attention, titans_memory

CHUNK = 16
Answer = Callable[..., tuple[Tensor, Any]]


def _op(memory: Answer, gates: int, **settings: Any) -> Callable[[Size], Work]:
    def build(size: Size) -> Work:
        tokens, fades = op_inputs(size, gates)
        return Work(lambda: memory(*tokens, *fades, **settings)[0], [*tokens, *fades])

    return build


def _layer(kind: Callable[..., torch.nn.Module], heads: int | None = None, **settings: Any) -> Callable[[Size], Work]:
    def build(size: Size) -> Work:
        layer = kind(size.dim, heads or size.heads, **settings)
        return layer_work(layer, size, lambda layer, x: layer(x)[0])

    return build


def _compiled(
    kind: Callable[..., torch.nn.Module], heads: int | None = None, **settings: Any
) -> Callable[[Size], Work]:
    def build(size: Size) -> Work:
        layer = kind(size.dim, heads or size.heads, **settings)
        layer.compile()
        work = layer_work(layer.to(size.device), size, lambda layer, x: layer(x)[0])
        step(work)  # compiles
        return work

    return build


def _attention(size: Size) -> Work:
    tokens, _ = op_inputs(size, 0)
    return Work(lambda: torch.nn.functional.scaled_dot_product_attention(*tokens, is_causal=True), tokens)


def _gru(size: Size) -> Work:
    return layer_work(torch.nn.GRU(size.dim, size.dim, batch_first=True), size, lambda gru, x: gru(x)[0])


# Of each memory the chunks and the token loop, q, k, v and the gates of every token given and differentiated.
OPS: dict[str, tuple[Answer, int]] = {
    "linear attention": (linear_attention, 0),
    "delta rule": (delta_rule, 1),
    "gated delta": (delta_rule, 2),
    "Titans": (titans_memory, 3),
}
OURS = [
    *(Racer(name, _op(memory, gates), ours=True) for name, (memory, gates) in OPS.items()),
    *(Racer(f"{name} loop", _op(memory, gates, chunk_size=None), ours=True) for name, (memory, gates) in OPS.items()),
    Racer(
        "Titans period 16", _op(titans_memory, 3, gradient_period=CHUNK), ours=True, note="gradients refreshed every 16"
    ),
    Racer("Titans layer", _layer(Titans), ours=True, note="exact; with projections, gates, convolution, norm"),
    Racer(
        "Titans layer period 16", _layer(Titans, gradient_period=CHUNK), ours=True, note="gradients refreshed every 16"
    ),
    Racer(
        "Titans layer MLP", _layer(Titans, memory="mlp", gradient_period=CHUNK), ours=True, note="MLP memory, every 16"
    ),
    Racer("self-modifying", _layer(SelfModifyingTitans, memory_chunk=CHUNK), True, "C=16, matrix boxes, all trained"),
    Racer("self-modifying 1 head", _layer(SelfModifyingTitans, heads=1, memory_chunk=CHUNK), True, "the same, 1 head"),
    Racer(
        "self-modifying MLP 1 head",
        _layer(SelfModifyingTitans, heads=1, boxes="mlp", memory_chunk=CHUNK),
        True,
        "C=16, MLP boxes, all trained",
    ),
    Racer("Titans layer compiled", _compiled(Titans), True, "exact, after layer.compile()"),
    Racer("self-modifying compiled", _compiled(SelfModifyingTitans, memory_chunk=CHUNK), True, "after layer.compile()"),
    Racer(
        "self-modifying MLP compiled 1 head",
        _compiled(SelfModifyingTitans, heads=1, boxes="mlp", memory_chunk=CHUNK),
        True,
        "MLP boxes, after layer.compile()",
    ),
]
YARDSTICKS = [Racer("torch attention", _attention, note="SDPA, causal"), Racer("torch GRU", _gru)]
