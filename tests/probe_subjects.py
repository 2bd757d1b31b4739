"""Every memory of tokens that the probes are run on. A new one is a line in `SUBJECTS`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nlcore.cms import ContinuumMemory
from nlcore.hope import HopeConfig, HopeLM
from nlcore.sequence.attention import softmax_attention
from nlcore.sequence.deep.memory import deep_titans_memory
from nlcore.sequence.deep.weights import DeepWeights, new_deep_weights
from nlcore.sequence.layers.named import MIXERS, mixer, named_model
from nlcore.sequence.memories import delta_rule, linear_attention, oja_rule
from nlcore.sequence.self_modifying import SelfModifyingTitans
from nlcore.sequence.self_modifying.layer import LITERAL
from nlcore.sequence.titans import titans_memory
from tests.probes import Subject

HEADS, DIM = 2, 4
WIDTH = HEADS * (3 * DIM + 3)  # q, k, v and three gates of every head
GATES = ("lr", "momentum", "retain")


class Packed(nn.Module):
    """A function of q, k, v and gates as a module that reads tokens (B, T, WIDTH), one part of each for each argument.

    Keys and queries get length one; gates are sigmoids with a learned bias.
    """

    def __init__(
        self, function: Callable[..., Any], dtype: torch.dtype, unit_values: bool = False, **settings: Any
    ) -> None:
        super().__init__()
        self.function, self.unit_values, self.settings = function, unit_values, settings
        known = inspect.signature(function).parameters
        self.gates = [name for name in GATES if name in known]
        self.bias = nn.Parameter(torch.zeros(len(self.gates), HEADS, 1, dtype=dtype)) if self.gates else None
        if "start" in known:
            self.W1, self.W2 = (nn.Parameter(W) for W in new_deep_weights(HEADS, DIM, 6, dtype=dtype))

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        parts = x.unflatten(-1, (HEADS, -1)).transpose(1, 2).split([DIM, DIM, DIM, 1, 1, 1], -1)  # (B, H, T, ...)
        q, k, v = normalize(parts[0], dim=-1), normalize(parts[1], dim=-1), parts[2]
        v = normalize(v, dim=-1) if self.unit_values else v
        logits = dict(zip(GATES, (part.squeeze(-1) for part in parts[3:]), strict=True))
        gates = {}
        for index, name in enumerate(self.gates):
            assert self.bias is not None
            gates[name] = (logits[name] + self.bias[index]).sigmoid()
        start = {"start": DeepWeights(self.W1, self.W2)} if hasattr(self, "W1") else {}
        y, state = self.function(q, k, v, **gates, **start, **self.settings, state=state, lengths=lengths)
        return y.transpose(1, 2).flatten(2), state


class Pairs(nn.Module):
    """A continuum memory as a module that reads tokens (x, target)."""

    def __init__(self, dtype: torch.dtype, **settings: Any) -> None:
        super().__init__()
        self.memory = ContinuumMemory(DIM, (1, 4, 16), hidden=6, dtype=dtype, lrs=0.02, **settings)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return self.memory(x[..., :DIM], x[..., DIM:], state)


def packed(function: Callable[..., Any], **settings: Any) -> Callable[[torch.dtype], nn.Module]:
    return lambda dtype: Packed(function, dtype, **settings)


def pair(lr: float, momentum: float = 0.0) -> Callable[[int, torch.dtype], tuple[Tensor, Tensor]]:
    """Return what makes n equal tokens whose query is their key, with these gates and nothing forgotten."""

    def tokens(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        torch.manual_seed(5)
        k, v = (normalize(torch.randn(1, HEADS, 1, DIM, dtype=dtype), dim=-1) for _ in range(2))
        gates = [
            torch.full((1, HEADS, 1, 1), gate, dtype=dtype).clamp(1e-9, 1 - 1e-9).logit()
            for gate in (lr, momentum, 1.0)
        ]
        x = torch.cat([k, k, v, *gates], -1).transpose(1, 2).flatten(2)
        return x.expand(1, n, -1), v.transpose(1, 2).flatten(2)[:, 0]

    return tokens


def cms_pair(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    x, target = (normalize(torch.randn(1, 1, DIM, dtype=dtype), dim=-1) for _ in range(2))
    return torch.cat([x, target], -1).expand(1, n, -1), target[:, 0]


def function(name: str, of: Callable[..., Any], **more: Any) -> list[Subject]:
    """Return the subjects of one function: its chunk form and its plain loop."""
    settings = more.pop("settings", {})
    forms: dict[str, dict[str, Any]] = {"": {}, ", loop": {"chunk_size": None}}
    return [Subject(name + form, packed(of, **settings, **chunk), WIDTH, **more) for form, chunk in forms.items()]


def of_state(*names: str) -> Callable[[Any], dict[str, Tensor]]:
    return lambda state: {name: getattr(state, name) for name in names}


ROUNDING = {1: 1e-6, 4: 1e-6, 16: 1e-6, 64: 1e-6}
M = {"watch": of_state("M"), "periods": {"M": 1}}
DEEP = {
    "watch": lambda state: {"memory": state.weights.W1, "anchor": state.anchor.W1, "momentum": state.momentum.W2},
}
CMS_LIMITS = {
    "huge": "not finite",  # gradient descent with a step size that nothing bounds
    "vectorised": "does not have vmap support",  # nor does torch.autograd.grad see through vmap
    "compiled": "is_inference_mode_enabled",  # nor does torch.compile see through torch.autograd.grad
}


GRU_LIMITS = {"vectorised": "Batching rule not implemented", "compiled": "Dynamo does not support RNN, GRU"}  # torch's


def layer(name: str, watch: dict[str, Callable[[Any], Tensor]], tag: str = "", **settings: Any) -> Subject:
    """Return the subject of a layer by its name in `nlcore.sequence.layers.named`."""
    return Subject(
        f"{name} layer{tag}",
        lambda dtype: mixer(name, 2 * DIM, HEADS, dtype=dtype, **settings),
        2 * DIM,
        watch=(lambda state: {part: see(state) for part, see in watch.items()}) if watch else None,
        periods=dict.fromkeys(watch, 1),
        horizon=settings.get("window"),
        limits=GRU_LIMITS if name == "gru" else {},
    )


MATRIX = {"memory": lambda state: state.memory.M}
WATCHED: dict[str, dict[str, Callable[[Any], Tensor]]] = {
    **dict.fromkeys(("linear", "retnet", "gated_linear", "delta", "delta2", "gated_delta"), MATRIX),
    "titans": {**MATRIX, "momentum": lambda state: state.memory.Z},
    "titans_mlp": {
        "memory": lambda state: state.memory.weights.W1,
        "momentum": lambda state: state.memory.momentum.W2,
    },
    "gru": {"hidden state": lambda state: state.h},
}


def self_modifying(name: str, memory: int, projections: int, **settings: Any) -> Subject:
    """Return the subject of a self-modifying layer: its anchors move once a chunk, the others as long as they are."""
    chunks = {"memory_chunk": memory, "projection_chunk": projections}

    def watch(state: Any) -> dict[str, Tensor]:
        if hasattr(state.memory, "W1"):
            return {"memory": state.memory.anchor1[:, :, -1], "lr retain k v": state.memory.anchor1[:, :, :-1]}
        return {"memory": state.memory.anchor[..., -DIM:, :], "lr retain k v": state.memory.anchor[..., :-DIM, :]}

    return Subject(
        f"SelfModifyingTitans, {name}",
        lambda dtype: SelfModifyingTitans(2 * DIM, HEADS, dtype=dtype, **chunks, **settings),
        2 * DIM,
        padding_counts=max(memory, projections) > 1,
        watch=watch if not settings.get("adaptive_q") else None,
        periods={"memory": memory, "lr retain k v": projections} if not settings.get("adaptive_q") else {},
        limits={"huge": "not finite"} if settings.get("rule") == "dgd_l2" else {},  # as printed: nothing is bounded
    )


def hope(name: str, **settings: Any) -> Subject:
    """Return the subject of a HOPE model; its levels move at their periods, one token late: when the next has come."""
    config = HopeConfig(11, 2 * DIM, heads=HEADS, chunk=4, **{"periods": (2, 4, 8), **settings})
    learns = config.cms and config.learns != "never"
    periods = {f"block 1: cms {i}": period for i, period in enumerate(config.periods, 1) if learns}

    def watch(state: Any) -> dict[str, Tensor]:
        levels = state.blocks[0].cms.levels
        pairs = zip(periods, levels, strict=True)
        return {part: torch.zeros(1) if level.learned is None else level.learned.W1 for part, level in pairs}

    return Subject(
        f"HopeLM{name}",
        lambda dtype: HopeLM(config, dtype=dtype),
        0,
        vocabulary=11,
        padding_counts=True,
        watch=watch if periods else None,
        periods=periods,
        limits={"vectorised": "calling .item"},  # it looks whether the tokens are in the vocabulary
    )


BLOCKS = {2: WATCHED["delta"]["memory"], 3: WATCHED["titans"]["memory"], 4: WATCHED["titans_mlp"]["memory"]}
SUBJECTS: list[Subject] = [
    *function("linear_attention", linear_attention, pair=pair(1.0), recall={1: 1e-6}, **M),
    *function("delta_rule", delta_rule, pair=pair(1.0), recall=ROUNDING, **M),
    *function("oja_rule", oja_rule, settings={"unit_values": True}, pair=pair(1.0), recall=ROUNDING, **M),
    Subject("softmax_attention", packed(softmax_attention), WIDTH, pair=pair(1.0), recall=ROUNDING),
    Subject(
        "softmax_attention, window",
        packed(softmax_attention, window=5),
        WIDTH,
        pair=pair(1.0),
        recall=ROUNDING,
        horizon=5,
    ),
    Subject("softmax_attention, plain", packed(softmax_attention, fused=False), WIDTH, pair=pair(1.0), recall=ROUNDING),
    *(layer(name, WATCHED.get(name, {})) for name in MIXERS),
    layer("window", {}, ", 5 tokens", window=5),
    layer("delta", MATRIX, ", token by token, with an output gate", chunk_size=None, gate=True),
    self_modifying("token by token", 1, 1),
    self_modifying("token by token, loop", 1, 1, token_by_token=True),
    self_modifying("chunks of 4", 4, 4),
    self_modifying("chunks of 8 and 2, slow", 8, 2, rate=0.05),
    self_modifying("chunks of 8 and 2, loop", 8, 2, token_by_token=True),
    self_modifying("momentum and own queries", 4, 4, momentum=0.5, adaptive_q=True),
    self_modifying("literal", 4, 4, **LITERAL),
    self_modifying("networks", 4, 4, boxes="mlp"),
    self_modifying("networks, loop", 4, 2, boxes="mlp", token_by_token=True),
    Subject(
        "model of four layers",
        lambda dtype: named_model(("softmax", "delta", "titans", "titans_mlp"), 11, 2 * DIM, HEADS, dtype=dtype),
        0,
        vocabulary=11,
        watch=lambda state: {f"block {i}: memory": find(state.blocks[i - 1]) for i, find in BLOCKS.items()},
        periods={"block 2: memory": 1, "block 3: memory": 1, "block 4: memory": 1},
        limits={"vectorised": "calling .item"},  # it looks whether the tokens are in the vocabulary
    ),
    hope(""),
    hope(", second order", learns="second_order"),
    hope(", attention", mixer="attention"),
    hope(", levels never learn", learns="never"),
    hope(", no DGD, momentum", write="hebbian", momentum=0.5),
    *function(
        "titans_memory",
        titans_memory,
        pair=pair(0.5, 0.3),
        recall={4: 0.2, 16: 0.01, 64: 1e-6},
        watch=of_state("M", "Z"),
        periods={"M": 1, "Z": 1},
    ),
    *function(
        "titans_memory, gradients of 4",
        titans_memory,
        settings={"gradient_period": 4},
        pair=pair(1.0, 0.3),
        recall={4: 0.5, 16: 0.1, 64: 1e-3},
        padding_counts=True,
        watch=of_state("M", "Z"),
        periods={"M": 1, "Z": 1},
    ),
    *function(
        "deep_titans_memory, exact",
        deep_titans_memory,
        settings={"gradient_period": 1},
        pair=pair(1.0),
        recall={4: 0.01, 16: 1e-3, 64: 1e-6},
        periods={"memory": 1, "anchor": 1, "momentum": 1},
        **DEEP,
    ),
    *function(
        "deep_titans_memory, gradients of 4",
        deep_titans_memory,
        settings={"gradient_period": 4},
        pair=pair(1.0),
        recall={4: 0.5, 16: 0.1, 64: 0.01},
        periods={"memory": 1, "anchor": 4, "momentum": 1},
        **DEEP,
    ),
    *(
        Subject(
            f"ContinuumMemory, {variant}",
            lambda dtype, variant=variant: Pairs(dtype, variant=variant),
            2 * DIM,
            lengths=False,
            watch=lambda state: {f"block {i + 1}": level.learned for i, level in enumerate(state.levels)},
            periods={"block 1": 1, "block 2": 4, "block 3": 16},
            pair=cms_pair,
            recall={64: 0.7, 256: 0.01},
            limits=CMS_LIMITS,
        )
        for variant in ("sequential", "nested", "independent")
    ),
]
