r"""HOPE as a language model, and the Transformer beside it: the same embedding, blocks, last norm and tied head.

    logits, state = model(tokens, state)      reading is learning: the state holds what the stream has taught so far

The memory needed is the same however long the stream is. Which levels may be written is said at each call.

Source    Behrouz et al. 2025, Nested Learning, section 8.3. Each level of the CMS reads its loss out through the last
          norm and the head of the model (`readout`), which the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from nlcore.hope.block import ContinuumBlock, HopeAttentionBlock, HopeBlock, titans_layer
from nlcore.hope.config import HopeConfig
from nlcore.hope.continuum import Reading
from nlcore.hope.levels import held_in_block
from nlcore.hope.readout import new_readout
from nlcore.sequence.layers.memories import SoftmaxAttention
from nlcore.sequence.model import Block, ModelState, TokenModel, next_state
from nlcore.sequence.states import precise

INNER = ("log_lrs", "keep_logits")
INNER_FACTOR = 5.0


class HopeLM(TokenModel):
    """HOPE: blocks that rewrite themselves while they read.

    Args     config: see `HopeConfig`. dtype, device: of the weights.
    """

    def __init__(
        self,
        config: HopeConfig,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        _check_config(config)
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        blocks = [_new_block(config, made) for _ in range(config.blocks)]
        super().__init__(config.vocabulary, config.dim, blocks, tied=config.tied, **made)
        self.config = config

    def forward(
        self,
        tokens: Tensor,
        state: ModelState | None = None,
        lengths: Tensor | None = None,
        *,
        frozen: Collection[str] = (),
    ) -> tuple[Tensor, ModelState]:
        """Read a stretch of B streams and learn from it.

        A level learns that token t follows what it saw at t - 1 when token t is read: no logit knows later tokens.

        Args     tokens: (B, T), whole numbers below `vocabulary`. state: from the call before; None begins new streams.
                 lengths: (B,), real tokens of each item; the rest is padding of any valid token, and teaches nothing.
                 frozen: names of levels that are only read now, as `levels()` has them ("block 1: cms 2"), or without
                 the block for all blocks ("cms 2", "memory"); "cms" and "titans" for all levels of that part; "all".
        Returns  logits (B, T, vocabulary), 0 at padding; the state, to continue the streams.
        Raises   ValueError or TypeError for tokens, a state or names that do not fit.
        """
        x, states = self.embed(tokens, state, lengths)
        held = held_in_block(self, frozen)
        readout = new_readout(self.head.weight, self.norm.scale, self.norm.eps, precise(x.dtype))
        after = []
        for block, before, closed in zip(self.blocks, states, held, strict=True):
            more = (Reading(tokens, readout, closed),) if isinstance(block, ContinuumBlock) else ()
            x, now = block(x, before, lengths, *more)
            after.append(now)
        return self.answer(x, lengths), next_state(after, tokens, state)

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Compile what a stream calls again and again, once for all of it; torch.compile of the model would unroll it.

        The first step then takes a minute or two on a CPU, the others about two thirds of the time of before. Numbers
        change by rounding only.

        Args     backend: of torch.compile; "inductor" needs a C++ compiler on a CPU.
        """
        for part in (*self.blocks, self.norm):
            part.compile(backend=backend)

    def parameter_groups(self, lr: float, inner_factor: float = INNER_FACTOR) -> list[dict[str, Any]]:
        """Return the weights for an optimizer: step sizes and decays of the CMS learn faster, and have no weight decay.

        Args     lr: of all other weights. inner_factor: how much faster.
        """
        inner = [weight for name, weight in self.named_parameters() if name.endswith(INNER)]
        others = [weight for name, weight in self.named_parameters() if not name.endswith(INNER)]
        groups = [{"params": others, "lr": lr}]
        return [*groups, {"params": inner, "lr": inner_factor * lr, "weight_decay": 0.0}] if inner else groups


class TransformerLM(TokenModel):
    """The baseline: softmax attention with rotary positions, norms before each part, a GELU MLP, a tied head.

    Args     config: the sizes are taken from it, so that one record describes both sides of a comparison: vocabulary,
             dim, blocks, heads, ffn, tied. conv_width: tokens that a convolution after queries, keys and values sees; 1
             for none. window: tokens that are seen; None for all, then the cache grows with the stream. dtype, device:
             of the weights.
    """

    def __init__(
        self,
        config: HopeConfig,
        *,
        conv_width: int = 1,
        window: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        _check_config(config)
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        mixers = [
            SoftmaxAttention(config.dim, config.heads, window=window, conv_width=conv_width, **made)
            for _ in range(config.blocks)
        ]
        super().__init__(config.vocabulary, config.dim, mixers, config.static_ffn, tied=config.tied, **made)
        self.config = config


def _new_block(config: HopeConfig, made: dict[str, Any]) -> nn.Module:
    """Return one block as the settings say."""
    attention, dim, heads = config.mixer == "attention", config.dim, config.heads
    if not config.cms:
        attend = SoftmaxAttention(dim, heads, conv_width=config.conv_width, **made)
        mixer = attend if attention else titans_layer(config.form, dim, heads, **config.titans, **made)
        return Block(mixer, dim, config.static_ffn, **made)
    if attention:
        return HopeAttentionBlock(dim, heads, attention={"conv_width": config.conv_width}, **config.continuum, **made)
    return HopeBlock(dim, heads, form=config.form, titans=config.titans, **config.continuum, **made)


def _check_config(config: HopeConfig) -> None:
    if not isinstance(config, HopeConfig):
        raise TypeError(f"expected a HopeConfig, such as HopeConfig.tiny(vocabulary=96); got {config!r}")
