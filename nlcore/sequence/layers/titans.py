r"""Titans as a layer: a memory that learns at test time, by gradient descent with momentum and decay.

    Z_t = beta Z_{t-1} - eta grad 1/2 |M(k_t) - v_t|^2        momentum: past surprise
    M_t = alpha M_{t-1} + Z_t                                 memory; eta, beta, alpha are gates of the token

The memory of a head is a matrix, or a residual network of two layers whose start is trained with the other weights.

Source    Titans (arXiv 2501.00663), Eq. 8-14; Nested Learning, section 5 and Eq. 89.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nlcore.levels import Level
from nlcore.optimizers.checks import check_choice, check_count
from nlcore.sequence import saving
from nlcore.sequence.deep.memory import deep_titans_memory
from nlcore.sequence.deep.weights import DeepState, DeepWeights, new_deep_weights
from nlcore.sequence.layers.memories import RETAIN_START, check_rate
from nlcore.sequence.layers.mixer import TokenMixer
from nlcore.sequence.layers.projections import Gate
from nlcore.sequence.titans import titans_memory

MOMENTUM_START = 0.9
for _kind in (DeepState, DeepWeights):
    saving.keeps_stream(_kind)


class Titans(TokenMixer):
    """The memory with momentum and decay, a matrix or a network.

    Args     dim, heads: see `TokenMixer`. lr_max: eta is learned in (0, lr_max). memory: "matrix", or "mlp", a residual
             network of two layers a head; then values have length 1 too, without which it diverges in training.
             momentum, retain: "learned", a gate for each token, or a number, or None for no momentum (0), no decay (1).
             gradient_period: tokens that take their gradients at the same memory; 1 is exact. None is 1 for a matrix
             and 16 for a network. lr_bound: for a period above 1, eta is cut so that a period cannot overshoot; None
             leaves it. hidden: width inside the network, 4 dim / heads if None. chunk_size: tokens at once; None is
             the token loop. momentum_start, retain_start: where learned gates begin. shared: as for `TokenMixer`.
    Raises   ValueError or TypeError for settings that do not fit.
    Source   Titans, Eq. 8-14. Gates a head in place of gates a channel, and their starts, are chosen here.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        lr_max: float = 1.0,
        memory: str = "matrix",
        *,
        momentum: str | float | None = "learned",
        retain: str | float | None = "learned",
        gradient_period: int | None = None,
        lr_bound: float | None = 1.0,
        hidden: int | None = None,
        chunk_size: int | None = 32,
        momentum_start: float = MOMENTUM_START,
        retain_start: float = RETAIN_START,
        **shared: Any,
    ) -> None:
        check_choice("memory", memory, ("matrix", "mlp"))
        super().__init__(dim, heads, **{"unit_values": memory == "mlp", **shared})
        made: dict[str, Any] = {name: shared.get(name) for name in ("dtype", "device")}
        usual = 1 if memory == "matrix" else 16
        self.memory, self.lr_bound = memory, lr_bound
        self.gradient_period = check_count("gradient_period", usual if gradient_period is None else gradient_period)
        self.chunk_size = None if chunk_size is None else check_count("chunk_size", chunk_size)
        start = _start(check_rate(lr_max), self.gradient_period, lr_bound, memory == "mlp")
        self.lr_gate = Gate(dim, heads, high=lr_max, start=start, **made)
        self.momentum, self.momentum_gate = _gate_or_number("momentum", momentum, 0.0, momentum_start, dim, heads, made)
        self.retain, self.retain_gate = _gate_or_number("retain", retain, 1.0, retain_start, dim, heads, made)
        if memory == "mlp":
            weights = new_deep_weights(heads, self.width, hidden, dtype=made["dtype"])
            self.W1, self.W2 = (nn.Parameter(W.to(made["device"])) for W in weights)

    def remember(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, memory: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Learn the pairs and answer."""
        momentum = self.momentum if self.momentum_gate is None else self.momentum_gate(x)
        retain = self.retain if self.retain_gate is None else self.retain_gate(x)
        gates = self.lr_gate(x), momentum, retain
        how: dict[str, Any] = {
            "gradient_period": self.gradient_period,
            "lr_bound": self.lr_bound,
            "state": memory,
            "chunk_size": self.chunk_size,
            "lengths": lengths,
        }
        if self.memory == "matrix":
            return titans_memory(q, k, v, *gates, **how)
        return deep_titans_memory(q, k, v, *gates, start=DeepWeights(self.W1, self.W2), **how)

    def levels(self) -> list[Level]:
        """Return momentum and memory, both written at every token; the memory needs the momentum of its token."""
        size = self.heads * self.width**2 if self.memory == "matrix" else self.W1.numel() + self.W2.numel()
        error = "now" if self.gradient_period == 1 else f"{self.gradient_period} tokens at a time"
        memory = Level("memory", 1, f"pairs, learned by their error ({error})", ("momentum",), size)
        if self.momentum_gate is None and self.momentum == 0:
            return [Level("memory", 1, memory.stores, numbers=size)]
        return [Level("momentum", 1, "past surprise", numbers=size), memory]


def _start(lr_max: float, period: int, lr_bound: float | None, deep: bool) -> float:
    """Return where eta begins: half of what it may be. Above the bound a gate gets no gradient and never learns."""
    if period == 1 or lr_bound is None:
        return lr_max / 2
    reach = 2 * max(period, (period - 1) / (1 - MOMENTUM_START)) if deep else period  # of a new network: 1 to 2
    return min(lr_max, lr_bound / reach) / 2


def _gate_or_number(
    name: str, value: str | float | None, nothing: float, start: float, dim: int, heads: int, made: dict[str, Any]
) -> tuple[float, Gate | None]:
    """Return a number, or `nothing` and a learned gate."""
    if value == "learned":
        return nothing, Gate(dim, heads, start=start, **made)
    if value is None:
        return nothing, None
    if isinstance(value, str) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be 'learned', a number in [0, 1] or None; got {value!r}")
    return float(value), None
