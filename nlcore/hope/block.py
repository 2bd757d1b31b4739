r"""The blocks of HOPE: a memory that is written at every token, then memories that are written more and more slowly.

    x = x + mixer(norm(x))                       self-modifying Titans with their convolution, or softmax attention
    x = x + MLP_l(norm(x))    l = 1 .. k         the CMS, each level with a period and a norm of its own     Eq. 97

The paper leaves norms and residuals out of its equations. Chosen here: norms before each part (as its baselines have
them), one residual path, and the convolution inside the mixer, on what its boxes and queries read.

Source    Behrouz et al. 2025, Nested Learning, section 8.3, Eq. 94-97; section 9: the convolution, Hope-Attention.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nlcore.hope.continuum import ContinuumState, Reading, TokenContinuum
from nlcore.levels import Level
from nlcore.optimizers.checks import check_choice
from nlcore.sequence import saving
from nlcore.sequence.layers.memories import SoftmaxAttention
from nlcore.sequence.model import Block
from nlcore.sequence.self_modifying import SelfModifyingTitans


@saving.keeps_stream
class HopeBlockState(NamedTuple):
    """A block in the middle of a stream.

    Args     mixer, cms: the states of its two parts; None for a part that keeps nothing.
    """

    mixer: Any
    cms: ContinuumState | None = None


class ContinuumBlock(Block):
    """A mixer, then a Continuum Memory System that learns from the next token.

    Args     mixer: a layer with forward(x, state, lengths) -> (y, state). dim: width of a token. dtype, device: of new
             weights. cms: settings of `TokenContinuum`: periods, hidden, learns, lr_start, keep_start, order.
    """

    def __init__(
        self,
        mixer: nn.Module,
        dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **cms: Any,
    ) -> None:
        super().__init__(mixer, dim, 0, dtype=dtype, device=device)
        self.cms = TokenContinuum(dim, dtype=dtype, device=device, **cms)

    def forward(
        self,
        x: Tensor,
        state: HopeBlockState | None = None,
        lengths: Tensor | None = None,
        reading: Reading | None = None,
    ) -> tuple[Tensor, HopeBlockState]:
        """Read a stretch of B streams.

        Args     x: (B, T, dim). state: from the call before; None begins new streams. lengths: (B,), real tokens of
                 each item. reading: what the CMS learns from, and which levels are held; None writes no level of it.
        Returns  y (B, T, dim) and the state.
        """
        before, cms = HopeBlockState(None) if state is None else self.checked(state)
        with holding(self.mixer, () if reading is None else reading.held):
            x, mixed = super().forward(x, before, lengths)
        if x.shape[1] == 0:
            return x, HopeBlockState(mixed, cms)
        x, cms = self.cms(x, cms, lengths, reading)
        return x, HopeBlockState(mixed, cms)

    def checked(self, state: HopeBlockState) -> HopeBlockState:
        """Return the state.

        Raises   TypeError if it is that of another kind of block, ValueError if its levels never learned.
        """
        if not isinstance(state, HopeBlockState):
            found = type(state).__name__
            raise TypeError(f"state must be a HopeBlockState, what the call before returned; got {found}")
        if state.cms is None and state.mixer is not None and self.cms.learns != "never":
            raise ValueError('the state is of a model with learns="never", but this one learns while it reads')
        return state

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Compile what is called again and again in a stream: chunks of the mixer, pieces of the CMS, the norm.

        Args     backend: of torch.compile; "inductor" needs a C++ compiler on a CPU.
        """
        for part in (self.mixer_norm, self.mixer, self.cms):
            part.compile(backend=backend)

    def levels(self) -> list[Level]:
        """Return what the stream writes: the levels of the mixer and those of the CMS."""
        return super().levels() + self.cms.levels()


class HopeBlock(ContinuumBlock):
    """Local convolution and self-modifying Titans, then the CMS.

    Args     dim: width of a token. heads: of the self-modifying part. periods: tokens between two updates, one a level
             of the CMS. form: "stable", "plain" or "literal", see `HopeConfig`. titans: other settings of
             `SelfModifyingTitans`. dtype, device: of the weights. cms: other settings of `TokenContinuum`.
    Raises   ValueError or TypeError for settings that do not fit.
    Source   Eq. 94-97.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        periods: Sequence[int] = (16, 64, 256),
        form: str = "stable",
        titans: dict[str, Any] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **cms: Any,
    ) -> None:
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        super().__init__(titans_layer(form, dim, heads, **made, **(titans or {})), dim, periods=periods, **made, **cms)


class HopeAttentionBlock(ContinuumBlock):
    """Softmax attention with rotary positions, then the CMS.

    Args     dim: width of a token. heads: divides dim. periods: as for `HopeBlock`. attention: other settings of
             `SoftmaxAttention`. dtype, device: of the weights. cms: other settings of `TokenContinuum`.
    Raises   ValueError or TypeError for settings that do not fit.
    Source   Section 9, Hope-Attention.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        periods: Sequence[int] = (16, 64, 256),
        attention: dict[str, Any] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **cms: Any,
    ) -> None:
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        super().__init__(SoftmaxAttention(dim, heads, **made, **(attention or {})), dim, periods=periods, **made, **cms)


def titans_layer(form: str, dim: int, heads: int, **settings: Any) -> SelfModifyingTitans:
    """Return the self-modifying layer in one of its forms, "stable", "plain" or "literal"."""
    forms = {
        "stable": SelfModifyingTitans.stable,
        "plain": SelfModifyingTitans,
        "literal": SelfModifyingTitans.literal,
    }
    check_choice("form", form, tuple(forms))
    return forms[form](dim, heads, **settings)


@contextmanager
def holding(mixer: nn.Module, held: Collection[str]) -> Iterator[None]:
    """Write some levels of a self-modifying layer not for a while; names as its `levels` has them.

    Args     mixer: any layer. held: names of levels; those of other parts are passed over.
    """
    if not held or not isinstance(mixer, SelfModifyingTitans):
        yield
        return
    rules = mixer.rules
    closed = {word for name in held for word in name.split()}
    try:
        mixer.rules = replace(rules, rewrite=tuple(box for box in rules.rewrite if box not in closed))
        yield
    finally:
        mixer.rules = rules
