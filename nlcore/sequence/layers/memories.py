r"""Memories of tokens as layers: softmax attention, linear attention, the delta rule, Titans.

    layer              memory                       a write                             levels
    SoftmaxAttention   all pairs, or a window       the pair is kept                    computed anew for every token
    LinearAttention    a matrix a head              alpha M + eta v k^T                 every token
    DeltaRule          a matrix a head              alpha M + eta (v - M k) k^T         every token
    Titans             a matrix or an MLP a head    the same, with momentum             every token, two memories

All read (B, T, dim) and return (B, T, dim) and a state; a stream may be cut anywhere. Every layer takes the settings of
`TokenMixer` too (convolution, SiLU, unit keys, output norm and gate), so that a comparison changes the memory alone.

Source    Behrouz et al. 2025, Nested Learning, section 5, Eq. 62-65; Titans (arXiv 2501.00663), Eq. 8-14.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlcore.levels import Level
from nlcore.optimizers.checks import check_choice, check_count
from nlcore.sequence import saving
from nlcore.sequence.attention import CacheState, softmax_attention
from nlcore.sequence.layers.mixer import TokenMixer
from nlcore.sequence.layers.projections import Gate
from nlcore.sequence.layers.rotary import rotate
from nlcore.sequence.memories import delta_rule, linear_attention
from nlcore.sequence.states import MemoryState

saving.keeps_stream(MemoryState)
RETAIN_START = 0.99  # a learned decay begins near "keep everything": half of it is left after 69 tokens


class SoftmaxAttention(TokenMixer):
    """The memory that keeps every pair: causal softmax attention, with a cache as its state.

    Args     dim, heads: see `TokenMixer`. positions: "rope" turns queries and keys by their place in the stream;
             "none" leaves order to the convolution. window: tokens seen, the present one included; None for all.
             fused: torch's kernels; False can be differentiated twice. shared: as for `TokenMixer`; by default here no
             SiLU, no unit keys and no output norm.
    Raises   ValueError or TypeError for settings that do not fit.
    Source   Eq. 62-63.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        positions: str = "rope",
        window: int | None = None,
        *,
        fused: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(dim, heads, **{"activation": False, "unit_keys": False, "norm": False, **shared})
        check_choice("positions", positions, ("rope", "none"))
        if positions == "rope" and self.width % 2:
            raise ValueError(f"rotary positions need heads of even width, got dim / heads = {self.width}")
        self.positions, self.fused = positions, fused
        self.window = None if window is None else check_count("window", window)

    def remember(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, memory: CacheState | None, lengths: Tensor | None
    ) -> tuple[Tensor, CacheState]:
        """Turn queries and keys by their place, then attend."""
        if self.positions == "rope":
            seen = 0 if memory is None else memory.seen
            q, k = rotate(q, seen), rotate(k, seen)
        return softmax_attention(q, k, v, window=self.window, state=memory, lengths=lengths, fused=self.fused)

    def levels(self) -> list[Level]:
        """Return one level: attention is computed anew for every token."""
        span = "every pair (k, v) so far" if self.window is None else f"the last {self.window} pairs (k, v)"
        size = 0 if self.window is None else 2 * self.dim * (self.window - 1)
        return [Level("attention", 0, span, numbers=size)]


class _MatrixMemory(TokenMixer):
    """What linear attention and the delta rule share: a gate for the strength of a write, one for the decay."""

    def __init__(
        self,
        dim: int,
        heads: int,
        lr_max: float | None,
        retain: str | None,
        retain_choices: tuple[str | None, ...],
        chunk_size: int | None,
        retain_start: float = RETAIN_START,
        **shared: Any,
    ) -> None:
        super().__init__(dim, heads, **shared)
        made: dict[str, Any] = {name: shared.get(name) for name in ("dtype", "device")}
        check_choice("retain", retain, retain_choices)
        self.retain, self.chunk_size = retain, None if chunk_size is None else check_count("chunk_size", chunk_size)
        self.lr_gate = None if lr_max is None else Gate(dim, heads, high=lr_max, start=lr_max / 2, **made)
        self.retain_gate = Gate(dim, heads, start=retain_start, **made) if retain == "learned" else None

    def gates(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return lr and retain of each head and token, (B, H, T), or 1."""
        lr = 1.0 if self.lr_gate is None else self.lr_gate(x)
        return lr, 1.0 if self.retain_gate is None else self.retain_gate(x)

    def levels(self) -> list[Level]:
        """Return one level: the memory, written at every token."""
        decay = {None: "nothing fades", "fixed": "each head fades at its own rate", "learned": "learned decay"}
        size = self.heads * self.width**2
        return [Level("memory", 1, f"{self._stores}; {decay[self.retain]}", numbers=size)]

    _stores = ""


class LinearAttention(_MatrixMemory):
    """The Hebbian memory: every pair is added, nothing is corrected.

    The feature map of keys and queries is SiLU and unit length.

    Args     dim, heads: see `TokenMixer`. retain: None keeps everything; "fixed" gives head h of H the decay
             1 - 2^(-5-h) (RetNet); "learned" one for each token (gated linear attention). lr_max: the strength of a
             write is learned in (0, lr_max); None writes each with 1. chunk_size: tokens at once; None is the token
             loop. retain_start: where a learned decay begins, 0.99 if left out. shared: as for `TokenMixer`.
    Raises   ValueError or TypeError for settings that do not fit.
    Source   Eq. 64; RetNet: Sun et al. 2023.
    """

    _stores = "the sum of all pairs"

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        retain: str | None = None,
        lr_max: float | None = 1.0,
        *,
        chunk_size: int | None = 64,
        retain_start: float = RETAIN_START,
        **shared: Any,
    ) -> None:
        choices = (None, "fixed", "learned")
        super().__init__(dim, heads, lr_max, retain, choices, chunk_size, retain_start=retain_start, **shared)

    def remember(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, memory: MemoryState | None, lengths: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        """Add the pairs to the memory and read it."""
        lr, retain = self.gates(x)
        if self.retain == "fixed":
            retain = (1.0 - 2.0 ** (-5.0 - torch.arange(self.heads, device=q.device))).unsqueeze(-1).expand(q.shape[:3])
        return linear_attention(q, k, v, lr, retain, state=memory, chunk_size=self.chunk_size, lengths=lengths)


class DeltaRule(_MatrixMemory):
    """The memory that corrects what it would answer now: DeltaNet.

    Args     dim, heads: see `TokenMixer`. lr_max: the strength of a write is learned in (0, lr_max); at 2 a write can
             turn an old answer round (a negative eigenvalue), which counting needs; above 2 a memory diverges.
             retain: None keeps everything; "learned" is a decay for each token (gated DeltaNet). chunk_size: tokens at
             once; None is the token loop. retain_start: where a learned decay begins, 0.99 if left out. shared: as for
             `TokenMixer`.
    Raises   ValueError or TypeError for settings that do not fit.
    Source   Eq. 65.
    """

    _stores = "pairs, the last value of each key"

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        lr_max: float = 1.0,
        retain: str | None = None,
        *,
        chunk_size: int | None = 32,
        retain_start: float = RETAIN_START,
        **shared: Any,
    ) -> None:
        rate, choices = check_rate(lr_max), (None, "learned")
        super().__init__(dim, heads, rate, retain, choices, chunk_size, retain_start=retain_start, **shared)

    def remember(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, memory: MemoryState | None, lengths: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        """Correct the memory by the pairs and read it."""
        lr, retain = self.gates(x)
        return delta_rule(q, k, v, lr, retain, state=memory, chunk_size=self.chunk_size, lengths=lengths)


def check_rate(lr_max: float) -> float:
    """Return `lr_max` if a memory with keys of length 1 cannot diverge with it.

    Raises   ValueError unless 0 < lr_max <= 2.
    """
    if not 0 < lr_max <= 2:
        raise ValueError(f"lr_max must lie in (0, 2], above 2 a memory diverges; got {lr_max}; try 1.0")
    return lr_max
