r"""A small language model around any memory of tokens: the skeleton that a comparison holds fixed.

    x   = E[token]
    x   = x + mixer(norm(x));  x = x + ffn(norm(x))          a block, once for each mixer
    out = head(norm(x))                                      logits of the next token

A mixer is any layer of `nlcore.sequence`; in the words of Nested Learning the mixers learn at every token, and all
other weights, the FFN among them, are frozen once training ends.

Source    Pre-norm residual blocks as in Nested Learning's baselines; placement of norms is left open there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nlcore.levels import Level, Slower, describe, nest
from nlcore.optimizers.checks import check_count
from nlcore.sequence import saving
from nlcore.sequence.checks import check_lengths, is_padding
from nlcore.sequence.layers.norms import RMSNorm


@saving.keeps_stream
class ModelState(NamedTuple):
    """A model in the middle of a stream.

    Args     blocks: the state of the mixer of each block. tokens: how many the batch has read, padding included.
    """

    blocks: tuple[Any, ...]
    tokens: int = 0

    def detach(self) -> ModelState:
        """Return the same state without its history: gradients stop here (truncated backpropagation)."""
        return saving.detach(self)

    def to(self, *args: Any, **settings: Any) -> ModelState:
        """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return saving.move(self, *args, **settings)


class FeedForward(nn.Module):
    """Two linear maps with a GELU between: the memory of a Transformer that is frozen after training.

    Args     dim: width of a token. factor: the inside is factor dim wide. dtype, device: of the weights.
    Raises   ValueError if nothing is left inside.
    """

    def __init__(
        self,
        dim: int,
        factor: float = 2,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        hidden = check_count("the width inside an FFN", round(factor * dim))
        self.up = nn.Linear(dim, hidden, dtype=dtype, device=device)
        self.down = nn.Linear(hidden, dim, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., dim) for x (..., dim)."""
        return self.down(nn.functional.gelu(self.up(x)))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x)).

    Args     mixer: a layer with forward(x, state, lengths) -> (y, state). dim: width of a token. ffn: width of the FFN
             in units of dim, 0 for none, or a module (B, T, dim) -> (B, T, dim). dtype, device: of new weights.
    """

    def __init__(
        self,
        mixer: nn.Module,
        dim: int,
        ffn: float | nn.Module = 2,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.dim = dim
        self.mixer_norm, self.mixer = RMSNorm(dim, **made), mixer
        self.ffn_norm: nn.Module | None = None
        self.ffn: nn.Module | None = None
        if isinstance(ffn, nn.Module) or ffn:
            self.ffn_norm = RMSNorm(dim, **made)
            self.ffn = ffn if isinstance(ffn, nn.Module) else FeedForward(dim, ffn, **made)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Return (B, T, dim) and the state of the mixer.

        Args     x: (B, T, dim). state: from the call before, or None. lengths: (B,), real tokens of each item.
        """
        y, state = self.mixer(self.mixer_norm(x), state, lengths)
        x = x + y
        if self.ffn is not None and self.ffn_norm is not None:
            x = x + self.ffn(self.ffn_norm(x))
        return x, state

    def levels(self) -> list[Level]:
        """Return what the stream writes into this block."""
        find: Any = getattr(self.mixer, "levels", list)
        return list(find())


class TokenModel(nn.Module):
    """Token numbers in, logits of the next token out, with a state that goes on for ever.

    Args     vocabulary: how many tokens there are. dim: width of a token. mixers: one layer a block, at least one; each
             is a module with forward(x, state, lengths) -> (y, state), or a whole `Block`. ffn: see `Block`. tied: the
             head reads with the embedding. dtype, device: of the weights, those of the mixers too.
    Raises   ValueError or TypeError for settings that do not fit.
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        mixers: Sequence[nn.Module],
        ffn: float = 2,
        *,
        tied: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        if not mixers or isinstance(mixers, nn.Module) and not isinstance(mixers, nn.ModuleList):
            raise ValueError("mixers is a list of layers, one a block; for one block pass [layer]")
        for mixer in mixers:
            if getattr(mixer, "dim", dim) != dim:
                raise ValueError(f"every mixer must have the dim of the model, {dim}; got {mixer.dim}")
        self.vocabulary, self.dim = check_count("vocabulary", vocabulary), check_count("dim", dim)
        self.embedding = nn.Embedding(vocabulary, dim, **made)
        parts = (mixer.to(**made) for mixer in mixers)
        self.blocks = nn.ModuleList(p if isinstance(p, Block) else Block(p, dim, ffn, **made) for p in parts)
        self.norm = RMSNorm(dim, **made)
        self.head = nn.Linear(dim, vocabulary, bias=False, **made)
        if tied:
            nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(dim))  # logits then begin near size 1
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens: Tensor, state: ModelState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, ModelState]:
        """Read a stretch of B streams.

        Args     tokens: (B, T), whole numbers below `vocabulary`. state: from the call before; None begins new streams.
                 lengths: (B,), real tokens of each item; the rest is padding of any valid token.
        Returns  logits (B, T, vocabulary), 0 at padding; the state, to continue the streams.
        Raises   ValueError or TypeError for tokens or a state that do not fit.
        """
        x, states = self.embed(tokens, state, lengths)
        after = []
        for block, before in zip(self.blocks, states, strict=True):
            x, now = block(x, before, lengths)
            after.append(now)
        return self.answer(x, lengths), next_state(after, tokens, state)

    def answer(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the logits (B, T, vocabulary) for what the last block gave, (B, T, dim); 0 at padding."""
        logits = self.head(self.norm(x))
        if lengths is None:
            return logits
        return logits.masked_fill(is_padding(lengths.to(x.device), x.shape[1]).unsqueeze(-1), 0.0)

    def embed(self, tokens: Tensor, state: ModelState | None, lengths: Tensor | None) -> tuple[Tensor, Sequence[Any]]:
        """Check the input; return the embedded tokens (B, T, dim) and the state of each block."""
        if not isinstance(tokens, Tensor):
            raise TypeError(f"tokens must be a tensor (B, T) of whole numbers, got {type(tokens).__name__}")
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool:
            found = f"{tuple(tokens.shape)} of {tokens.dtype}"
            raise ValueError(f"expected tokens (B, T) of whole numbers, batch first; got {found}; try tokens.long()")
        check_lengths(lengths, tokens.unsqueeze(-1))
        if not torch.compiler.is_compiling() and tokens.device.type == "cpu" and tokens.numel():
            low, high = (int(number) for number in tokens.aminmax())
            if low < 0 or high >= self.vocabulary:
                raise ValueError(f"tokens lie in 0 .. {self.vocabulary - 1}, the vocabulary; got {low} .. {high}")
        return self.embedding(tokens), [None] * len(self.blocks) if state is None else self.checked(state).blocks

    def checked(self, state: ModelState) -> ModelState:
        """Return the state.

        Raises   TypeError if it is no state of a model, ValueError for another number of blocks.
        """
        if not isinstance(state, ModelState):
            raise TypeError(f"state must be a ModelState, what the call before returned; got {type(state).__name__}")
        if len(state.blocks) != len(self.blocks):
            found = f"expected {len(self.blocks)} blocks, got {len(state.blocks)}"
            raise ValueError(f"the state is of another model: {found}")
        return state

    def levels(self, optimizer: torch.optim.Optimizer | None = None, tokens_per_step: float = 1) -> list[Level]:
        """Return the levels that a stream writes into, "block 1: memory" ...; with an optimizer, the whole system.

        Args     optimizer: what trains the weights; its own memories, and the weights it leaves alone, then belong to
                 the system. tokens_per_step: how many tokens of a stream the optimizer reads before each of its steps.
        Returns  the levels block by block; with an optimizer in the order of Def. 2, for `nlcore.levels.describe`.
        """
        found = [level for index, block in enumerate(self.blocks, 1) for level in _named(block, f"block {index}: ")]
        if optimizer is None:
            return found
        trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        rest = sum(weight.numel() for weight in self.parameters() if id(weight) not in trained)
        given = [Level("other weights", math.inf, "what training left", numbers=rest)] if rest else []
        return nest(found, Slower(optimizer, tokens_per_step), given)

    def extra_repr(self) -> str:
        """Return the nest of levels, for `print`: what the stream writes, and the weights that training leaves."""
        size = sum(weight.numel() for weight in self.parameters())
        return describe([*self.levels(), Level("weights", math.inf, "what training left", numbers=size)])


def next_state(blocks: Sequence[Any], tokens: Tensor, state: ModelState | None) -> ModelState:
    """Return the state after a stretch.

    Args     blocks: the states of the blocks. tokens: (B, T), what was read. state: of the call before, or None.
    """
    return ModelState(tuple(blocks), tokens.shape[1] + (0 if state is None else state.tokens))


def _named(block: Any, name: str) -> list[Level]:
    """Return the levels of a block, with its name before theirs."""
    return [
        replace(part, name=name + part.name, needs=tuple(name + need for need in part.needs)) for part in block.levels()
    ]
