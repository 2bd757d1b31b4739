"""The settings of a HOPE model, or of the Transformer beside it, in one small record; each ablation is one of them.

Ablations: cms=False, learns="never", periods=(32,) or (32, 32, 32) for one period only, write="hebbian" for no DGD,
momentum=0.9, decay=False, rewrite=False.

Presets: `HopeConfig.tiny` trains in about a minute on a CPU, `HopeConfig.small` on a free GPU.

Source    Behrouz et al. 2025, Nested Learning, section 8 and Table 6 (what was left out, one part at a time). Sizes,
          periods and chunks are not given there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from nlcore.hope.continuum import KEEP_START, LEARNS, LR_START
from nlcore.optimizers.checks import check_choice, check_count
from nlcore.sequence.checks import head_width
from nlcore.sequence.self_modifying.rules import WRITE_RULES

MIXERS, FORMS = ("titans", "attention"), ("stable", "plain", "literal")
MULTIPLE = 8  # widths inside the levels are multiples of it, which matrix products like


@dataclass(frozen=True)
class HopeConfig:
    """What a model is made of.

    Args     vocabulary: how many tokens there are. dim: width of a token. blocks: how many. heads: divides dim.
             ffn: width inside the feed-forward part of a block, all levels together, in units of dim.
             mixer: "titans" (HOPE: self-modifying Titans) or "attention" (Hope-Attention: softmax attention).
             form: of the self-modifying part: "plain" (delta rule, fading to the start, values of length one), "stable"
             (besides, slow projections and bounded targets; a fifth slower) or "literal" (as the equations print it).
             chunk: tokens that are generated from one state of the boxes. conv_width: tokens the local convolution
             sees.
             periods: tokens between two updates, one for each level of the CMS; a level learns how to learn only if
             texts in training are longer than its period. order: of the levels in the chain, see `TokenContinuum`.
             learns: how the CMS learns in the forward pass: "first_order", "second_order" or "never". lr_start,
             keep_start: where its learned step size and decay begin.
             tied: the head reads with the embedding.
             cms: False has one static MLP of equal width in its place. write: None, as the form has it, or "delta",
             "dgd_l2", or "hebbian" (no DGD). momentum: of the writes, in [0, 1). decay: False lets nothing fade.
             rewrite: False leaves the inner projections as trained; only the memory is written.
    Raises   ValueError or TypeError that says which setting does not fit.
    """

    vocabulary: int
    dim: int = 64
    blocks: int = 2
    heads: int = 2
    ffn: float = 2.0
    mixer: str = "titans"
    form: str = "plain"
    chunk: int = 32
    conv_width: int = 4
    periods: tuple[int, ...] = (32, 64, 128)
    order: str = "fast_first"
    learns: str = "first_order"
    lr_start: float = LR_START
    keep_start: float = KEEP_START
    tied: bool = True
    cms: bool = True
    write: str | None = None
    momentum: float = 0.0
    decay: bool = True
    rewrite: bool = True

    def __post_init__(self) -> None:
        for name in ("vocabulary", "dim", "blocks", "heads", "chunk", "conv_width"):
            check_count(name, getattr(self, name))
        head_width(self.dim, self.heads)
        check_choice("mixer", self.mixer, MIXERS)
        check_choice("form", self.form, FORMS)
        check_choice("learns", self.learns, LEARNS)
        check_choice("write", self.write, (None, *WRITE_RULES))
        if not (math.isfinite(self.ffn) and self.ffn > 0):
            raise ValueError(f"ffn is a width in units of dim, above 0; got {self.ffn}; try 4")
        if isinstance(self.periods, int) or not self.periods:
            raise ValueError(f"periods is one number of tokens a level, such as (16, 64, 256); got {self.periods!r}")

    @classmethod
    def tiny(cls, vocabulary: int, **changes: Any) -> HopeConfig:
        """Return the preset for a CPU: 2 blocks of width 64, about a minute for 250 steps of 8 texts of 256 tokens.

        Every level is updated at least once in such a text. Chunks of 32 in place of 16 double the speed of the mixer.

        Args     vocabulary: how many tokens. changes: any other setting.
        """
        return cls(vocabulary, **changes)

    @classmethod
    def small(cls, vocabulary: int, **changes: Any) -> HopeConfig:
        """Return the preset for a free GPU: 6 blocks of width 256, 4 heads, slower levels.

        Args     vocabulary: how many tokens. changes: any other setting.
        """
        sizes: dict[str, Any] = {"dim": 256, "blocks": 6, "heads": 4, "ffn": 4.0, "periods": (32, 128, 512)}
        return cls(vocabulary, **sizes | changes)

    def with_(self, **changes: Any) -> HopeConfig:
        """Return the same settings with some changed."""
        return replace(self, **changes)

    @property
    def hidden(self) -> int:
        """Width inside the MLP of each level: an equal part of ffn * dim, rounded up to a multiple of 8."""
        return MULTIPLE * math.ceil(self.ffn * self.dim / len(self.periods) / MULTIPLE)

    @property
    def static_ffn(self) -> float:
        """Width, in units of dim, of one static MLP as wide as all levels together."""
        return self.hidden * len(self.periods) / self.dim

    @property
    def titans(self) -> dict[str, Any]:
        """The settings of the self-modifying part besides its form."""
        found: dict[str, Any] = {"memory_chunk": self.chunk, "conv_width": self.conv_width, "momentum": self.momentum}
        if self.write is not None:
            found["rule"] = self.write
        if not self.decay:
            found["retain"] = 1.0
        if not self.rewrite:
            found["rewrite"] = ("memory",)
        return found

    @property
    def continuum(self) -> dict[str, Any]:
        """The settings of the CMS."""
        keep = self.keep_start if self.decay else None
        return {
            "periods": self.periods,
            "hidden": self.hidden,
            "order": self.order,
            "learns": self.learns,
            "lr_start": self.lr_start,
            "keep_start": keep,
        }
