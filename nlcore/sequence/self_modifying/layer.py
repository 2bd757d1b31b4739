r"""Self-modifying Titans as a layer: boxes that rewrite themselves between a convolution and an output.

    q, x = conv(W_q x), conv(W_x x)         q: silu and unit length; the only static projection that the paper has
    k, v, eta, alpha                        from boxes that are rewritten while the stream is read
    y = W_o norm(M_memory q)

Source    Behrouz et al. 2025, Nested Learning, section 8, Eq. 83-93, and section 9 for the convolution and unit length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from nlcore.levels import Level, describe
from nlcore.optimizers.checks import check_choice, check_count
from nlcore.sequence.checks import head_width
from nlcore.sequence.compiling import compiled
from nlcore.sequence.layers.convolution import CausalConvolution
from nlcore.sequence.layers.frame import MemoryLayer
from nlcore.sequence.layers.norms import unit
from nlcore.sequence.layers.projections import Output
from nlcore.sequence.self_modifying.memory import self_modifying_memory
from nlcore.sequence.self_modifying.network_memory import self_modifying_networks
from nlcore.sequence.self_modifying.networks import NetworkBoxes
from nlcore.sequence.self_modifying.rules import Boxes, Rules

LITERAL: dict[str, Any] = {
    "decay_to": "zero",
    "unit_values": False,
    "own_value": False,
    "silu": False,
    "rule": "dgd_l2",
    "lr_max": 0.5,
}
STABLE: dict[str, Any] = {"decay_to": "start", "rule": "delta", "target_bound": 4.0}


class SelfModifyingTitans(MemoryLayer):
    """The layer (B, T, dim) -> (B, T, dim); its learned weights are the starts of the boxes and what is around them.

    Args     dim: width of a token. heads: H, divides dim. boxes: "matrix", or "mlp", x + W1 gelu(W2 x); then by default
             the rule is "dgd_l2" with targets of length 1 at most. rate: None, all boxes are written with the same lr;
             a number in (0, 1) is where a learned factor on the lr of all boxes but the memory starts (0.05: slow
             self-modification). conv_width: tokens the convolution sees; 1 looks at the token alone. mix_heads: a
             static map W_x before the boxes, so that each head sees the whole token; None adds it for several
             heads.
             norm, gate: of the output, see `Output`. hidden: width inside a network box, d if None. lr_start: where lr
             begins, as a part of lr_max; retain_start: where retain begins. token_by_token: the plain loop. dtype,
             device: of the weights. rules: every choice of `Rules` by its name: memory_chunk, projection_chunk, rule,
             decay_to, rewrite, ...
    Raises   ValueError or TypeError for settings that do not fit.
    Source   Section 8. Starts chosen here: key and value boxes like fresh linear maps (standard deviation d^-1/2), the
             others near zero, so that lr and retain begin at their biases and the memory empty; without `own_value` the
             memory begins near the identity, for else its own targets would be nothing.
    """

    retain_bias: Tensor
    backend: str | Callable | None

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        boxes: str = "matrix",
        *,
        rate: float | None = None,
        conv_width: int = 4,
        mix_heads: bool | None = None,
        norm: bool = True,
        gate: bool = False,
        hidden: int | None = None,
        lr_start: float = 0.5,
        retain_start: float = 0.99,
        token_by_token: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **rules: Any,
    ) -> None:
        super().__init__()
        check_choice("boxes", boxes, ("matrix", "mlp"))
        for name, value in (("rate", rate), ("lr_start", lr_start), ("retain_start", retain_start)):
            if value is not None and not 0.0 < value < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}")
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.dim, self.heads, self.boxes = check_count("dim", dim), check_count("heads", heads), boxes
        self.width, self.token_by_token = head_width(dim, heads), token_by_token
        usual: dict[str, Any] = {"rule": "dgd_l2", "target_bound": 1.0} if boxes == "mlp" else {}
        self.rules, self.backend = Rules(**usual | rules), None
        self.W_x = nn.Linear(dim, dim, bias=False, **made) if (heads > 1 if mix_heads is None else mix_heads) else None
        self.W_q = None if self.rules.adaptive_q else nn.Linear(dim, dim, bias=False, **made)
        lines = dim if self.W_q is None else 2 * dim
        self.convolution = CausalConvolution(lines, conv_width, **made)
        self.tail_shape = (self.convolution.width - 1, lines)
        self.output = Output(dim, heads, norm=norm, gate=gate, **made)
        if boxes == "mlp":
            starts = _network_starts(heads, self.width, self.width if hidden is None else hidden, self.rules)
            self.W1, self.W2 = (nn.Parameter(W.to(**made)) for W in starts)
        else:
            self.start = nn.Parameter(_matrix_starts(heads, self.width, self.rules).to(**made))
        self.lr_bias = nn.Parameter(torch.full((heads,), _logit(lr_start), **made))
        bias = torch.full((heads,), _logit(retain_start), **made)
        if self.rules.retain is None:
            self.retain_bias = nn.Parameter(bias)
        else:  # one number for all tokens: nothing to learn
            self.register_buffer("retain_bias", bias)
        self.rate_logit = None if rate is None else nn.Parameter(torch.tensor(_logit(rate), **made))

    @classmethod
    def literal(cls, dim: int, heads: int = 1, **settings: Any) -> SelfModifyingTitans:
        """Build the layer as the equations print it: L2 objective (Eq. 93), all fades to zero, nothing is bounded.

        Args     as for the class; what is given replaces what is printed.
        """
        return cls(dim, heads, **LITERAL | settings)

    @classmethod
    def stable(cls, dim: int, heads: int = 1, **settings: Any) -> SelfModifyingTitans:
        """Build the layer in its steadiest form: delta rule, fading to the start, slow projections, bounded targets.

        Args     as for the class; what is given replaces what is chosen here.
        """
        return cls(dim, heads, **{"rate": 0.05} | STABLE | settings)

    def read_tokens(
        self, x: Tensor, tail: Tensor | None, memory: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, Any]:
        """Make queries, let each box read its tokens; every token is answered first, then rewrites the boxes."""
        lines = [x if self.W_x is None else self.W_x(x)] + ([] if self.W_q is None else [self.W_q(x)])
        mixed, tail = self.convolution(torch.cat(lines, -1), tail, lengths)
        split = compiled(split_lines, self.backend)
        boxes_read, q = split(mixed, len(lines), self.heads, self.rules.silu)
        answers, memory = self._remember(boxes_read, q, memory, lengths)
        return answers, tail, memory

    def _remember(self, x: Tensor, q: Tensor | None, memory: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        rate = None if self.rate_logit is None else self.rate_logit.sigmoid()
        how: dict[str, Any] = {"state": memory, "lengths": lengths}
        how |= {"token_by_token": self.token_by_token, "backend": self.backend}
        if self.boxes == "mlp":
            networks = NetworkBoxes(self.W1, self.W2, self.lr_bias, self.retain_bias, rate)
            return self_modifying_networks(x, q, networks, self.rules, **how)
        return self_modifying_memory(x, q, Boxes(self.start, self.lr_bias, self.retain_bias, rate), self.rules, **how)

    def with_chunks(self, memory_chunk: int, projection_chunk: int | None = None) -> SelfModifyingTitans:
        """Change the chunk sizes of this layer, as an experiment: they are part of what was learned."""
        self.rules = replace(self.rules, memory_chunk=memory_chunk, projection_chunk=projection_chunk)
        return self

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Compile what one chunk does, once for all chunks, and the convolution and the output.

        torch.compile of the whole layer would unroll the stream instead. The first step then takes about a minute on a
        CPU, the others two thirds of the time (networks: half). Numbers change by rounding only. The end of a stream
        that is no whole chunk is read as before.

        Args     backend: of torch.compile; "inductor" needs a C++ compiler on a CPU.
        """
        self.backend = backend
        self.convolution.compile(backend=backend)
        self.output.compile(backend=backend)

    def levels(self) -> list[Level]:
        """Return the memory and the boxes that generate, those that are rewritten and those that stay."""
        rules, width = self.rules, self.width
        size = {name: self.heads * rules.height(name, width) * width for name in rules.boxes}
        if self.boxes == "mlp":
            size = dict.fromkeys(rules.boxes, self.heads * (self.W1[0, 0].numel() + self.W2[0, 0].numel()))
        found = []
        if "memory" in rules.written:
            found.append(Level("memory", rules.chunks[0], "pairs of keys and self-made values", numbers=size["memory"]))
        for period, written in ((rules.chunks[1], True), (math.inf, False)):
            names = [name for name in rules.boxes if (name in rules.written) is written]
            names = [name for name in names if name != "memory" or not written]
            if names:
                what = "how to make " + ", ".join(names) if written else "as trained"
                found.append(Level(" ".join(names), period, what, numbers=sum(size[name] for name in names)))
        return found

    def extra_repr(self) -> str:
        """Return the sizes and the nest of levels, for `print`."""
        return f"{self.dim}, heads={self.heads}, boxes={self.boxes}, {describe(self.levels())}"


def split_lines(mixed: Tensor, count: int, heads: int, bend: bool) -> tuple[Tensor, Tensor | None]:
    """Return what the boxes read and the queries, (B, H, T, d) each; no queries if there is only one line.

    Args     mixed: (B, T, count dim), the lines side by side. bend: silu on the queries.
    """
    x, *queries = mixed.unflatten(-1, (count, heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return x, unit(silu(queries[0]) if bend else queries[0]) if queries else None


def _matrix_starts(heads: int, width: int, rules: Rules) -> Tensor:
    """Return new states of all boxes, (H, R, d)."""
    scale = {"k": width**-0.5, "v": width**-0.5, "q": width**-0.5}
    parts = [scale.get(name, 0.02) * torch.randn(heads, rules.height(name, width), width) for name in rules.boxes]
    if not rules.own_value:
        parts[-1] = parts[-1] + torch.eye(width)
    return torch.cat(parts, 1)


def _network_starts(heads: int, width: int, hidden: int, rules: Rules) -> tuple[Tensor, Tensor]:
    """Return new W1 (H, N, d, h) and W2 (H, N, h, d); answers are the token itself and a small part of a network."""
    N = len(rules.boxes)
    return (
        0.5 * hidden**-0.5 * torch.randn(heads, N, width, hidden),
        width**-0.5 * torch.randn(heads, N, hidden, width),
    )


def _logit(part: float) -> float:
    return math.log(part / (1.0 - part))
