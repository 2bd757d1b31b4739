r"""The Continuum Memory System: several memories between "every token" and "never", in place of one frozen MLP.

    sequential, nested     y_t = MLP_k(... MLP_2(MLP_1(x_t)))             each x + f(x)      Eq. 70
    independent            y_t = sum_l a_l MLP_l(x_t),  a = softmax(c)                       Eq. 74

Each MLP is one level: it is written after every C_l-th token with the gradients of those tokens (`learning`, Eq. 71).
The levels start from weights that an outer optimizer may train through the stream (Eq. 73). With one level of period
`math.inf`, or with all learning rates 0, it is the frozen MLP of a Transformer.

Source    Behrouz et al. 2025, Nested Learning, sections 7.1 and 7.3, Eq. 70-74.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlcore.cms.blocks import mlp, read_block, row_of_weights
from nlcore.cms.learning import Rules, TokenLoss, chunk_loop, flush, squared_error, token_loop
from nlcore.cms.settings import arrange
from nlcore.cms.state import StreamState, new_stream
from nlcore.levels import Level, describe
from nlcore.optimizers.checks import check_count


class ContinuumMemory(nn.Module):
    """A chain of residual MLP blocks that learn from the task loss while they read, one period each.

    Args     dim: width of a token. periods: tokens between two updates, one for each level; `math.inf` is a frozen one.
             variant: "sequential" (all starts belong to the outer loop), "nested" (besides, a level returns to its
             start after ceil(C_slower / C) of its own updates, the end of its context) or "independent" (all blocks
             read x; their answers are mixed with learned positive weights that sum to 1).
             order: "fast_first" (Fig. 5), "slow_first" or "as_given", the order of the chain; the lists of settings
             follow their periods. lrs: step sizes >= 0 for the summed gradients, one or one a level. decays: part of
             what was learned that is lost at each token, in [0, 1). learn_lrs, learn_decays: let the outer optimizer
             train them (they stay in their ranges). contexts: tokens after which each level returns to its start, a
             multiple of its period, or None; replaces what `variant` says. second_order: whether outer gradients also
             flow through the inner gradients. chunk_size: at most so many tokens at once; None reads token by token.
             hidden: width inside a block, 4 dim if None. norm: normalise what enters a block. residual: x + f(x).
             blocks: the networks f, in the order of the chain, instead of new ones. dtype, device: of new weights.
    Raises   ValueError or TypeError for a setting outside its range.
    Source   Sections 7.1 and 7.3. Left open by the paper and chosen here: the order, the residual connection, the
             inside of a block, a softmax for the mixture, and that the start a nested level returns to is itself
             trained in the outer loop only (Eq. 72 leaves the optimizer of the starts open).
    """

    log_lrs: Tensor
    decay_logits: Tensor

    def __init__(
        self,
        dim: int,
        periods: Sequence[float] = (1, 4, 16),
        variant: str = "sequential",
        *,
        order: str = "fast_first",
        lrs: float | Sequence[float] = 0.01,
        decays: float | Sequence[float] = 0.0,
        learn_lrs: bool = False,
        learn_decays: bool = False,
        contexts: Sequence[int | None] | None = None,
        second_order: bool = True,
        chunk_size: int | None = 256,
        hidden: int | None = None,
        norm: bool = False,
        residual: bool = True,
        blocks: Sequence[nn.Module] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.dim, hidden = check_count("dim", dim), check_count("hidden", 4 * dim if hidden is None else hidden)
        settings = arrange(periods, variant, order, lrs, decays, contexts)
        self.variant, self.periods, self.contexts = variant, settings.periods, settings.contexts
        self.second_order, self.residual = second_order, residual
        self.chunk_size = None if chunk_size is None else check_count("chunk_size", chunk_size)
        if blocks is None:
            blocks = [mlp(dim, hidden, norm=norm, dtype=dtype, device=device) for _ in self.periods]
        if len(blocks) != len(self.periods):
            raise ValueError(f"expected one block a period, {len(self.periods)}; got {len(blocks)}")
        self.blocks = nn.ModuleList(blocks)
        like = [row_of_weights(block) for block in blocks][0].detach()
        self._keep("log_lrs", _like(like, settings.lrs).log(), learn_lrs)
        self._keep("decay_logits", _like(like, settings.decays).logit(), learn_decays)
        if variant == "independent":
            self.mixture_logits = nn.Parameter(_like(like, [0.0] * len(blocks)))

    def _keep(self, name: str, values: Tensor, learned: bool) -> None:
        if learned and not values.isfinite().all():
            raise ValueError(f"{_SETTING[name]} that are learned must start above 0; try 0.01")
        if learned:
            setattr(self, name, nn.Parameter(values))
        else:
            self.register_buffer(name, values)

    @classmethod
    def from_mlps(
        cls, mlps: Sequence[nn.Module], periods: Sequence[float], *, dim: int | None = None, **settings: Any
    ) -> ContinuumMemory:
        """Build the levels from trained networks: ad-hoc level stacking; the networks are copied.

        Block i of the chain is the i-th network and has the i-th period. With learning rate 0 the chain is exactly the
        trained one. One network read at several speeds: pass it once a level with variant="independent".

        Args     mlps: networks of the same width in and out, such as nn.Sequential(nn.Linear, nn.ReLU, nn.Linear); for
                 `residual=True` (the default) the trained model computed x + mlp(x). periods: one for each.
                 dim: width of a token; None takes it from the first linear layer. settings: as for the class.
        Raises   ValueError if the numbers differ, an order is asked for, or the width cannot be found.
        Source   Section 7.3. Which parts of a model go to which level is left open there; here whole networks do.
        """
        if settings.setdefault("order", "as_given") != "as_given":
            raise ValueError(f"trained networks keep their order: leave out order={settings['order']!r}")
        linears = [layer for block in mlps for layer in block.modules() if isinstance(layer, nn.Linear)]
        if dim is None and not linears:
            raise ValueError("no nn.Linear tells the width of a token: pass dim")
        width = linears[0].in_features if dim is None else dim
        return cls(width, periods, blocks=[copy.deepcopy(block) for block in mlps], **settings)

    @property
    def lrs(self) -> Tensor:
        """The step size of each level, >= 0, shape (levels,)."""
        return self.log_lrs.exp()

    @property
    def decays(self) -> Tensor:
        """The part of what each level has learned that it loses at each token, in [0, 1), shape (levels,)."""
        return self.decay_logits.sigmoid()

    @property
    def mixture(self) -> Tensor:
        """The weights of the blocks in the answer of the independent variant: positive, sum 1, shape (levels,)."""
        if self.variant != "independent":
            raise ValueError(f"only the independent variant mixes its blocks; this one is {self.variant}")
        return self.mixture_logits.softmax(0)

    def start_stream(self, batch_size: int) -> StreamState:
        """Return the state of `batch_size` streams that have not begun."""
        return new_stream(self.rules().starts, check_count("batch_size", batch_size))

    def rules(self) -> Rules:
        """Return how this system reads and learns, for the functions in `nlcore.cms.learning`."""
        starts = tuple(row_of_weights(block) for block in self.blocks)
        rates = tuple(self.lrs.unbind()), tuple(self.decays.unbind())
        return Rules(self._answer, starts, *rates, self.periods, self.contexts, self.second_order)

    def forward(
        self, x: Tensor, target: Tensor, state: StreamState | None = None, loss: TokenLoss = squared_error
    ) -> tuple[Tensor, StreamState]:
        """Read a stretch of B streams and learn from it; every token is answered before it is learned.

        Under `torch.no_grad()` the levels learn as well, only no graph is kept.

        Args     x: (B, T, dim). target: (B, T, ...), what the loss compares with. state: from the call before; None
                 begins new streams. loss: (output (B, n, dim), target (B, n, ...)) -> one number a token, (B, n).
        Returns  y: (B, T, dim); the state, in which chunks that are not full yet wait for their next tokens.
        Raises   ValueError for shapes that do not fit; TypeError for another dtype than that of the weights.
        """
        rules = self.rules()
        state = self._checked(x, state, rules)
        if target.shape[:2] != x.shape[:2]:
            raise ValueError(f"expected a target for each token, ({x.shape[0]}, {x.shape[1]}, ...); got {target.shape}")
        if torch.is_inference_mode_enabled():
            raise RuntimeError("to learn, gradients are needed: use torch.no_grad() in place of torch.inference_mode()")
        if self.chunk_size is None:
            return token_loop(rules, x, target, state, loss)
        return chunk_loop(rules, x, target, state, loss, self.chunk_size)

    def read(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """Answer tokens from what was learned so far, and learn nothing: (B, T, dim) -> (B, T, dim)."""
        rules = self.rules()
        levels = self._checked(x, state, rules).levels
        return self._answer([start + level.learned for start, level in zip(rules.starts, levels, strict=True)], x)

    def flush(self, state: StreamState) -> StreamState:
        """Let every level take its step now with the part of a chunk it has; new chunks begin with the next token."""
        return flush(self.rules(), state)

    def _answer(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Return y (B, n, dim) for weights (B, P_l) of each level."""
        answers = []
        for block, rows in zip(self.blocks, weights, strict=True):
            answer = read_block(block, rows, x)
            if answer.shape != x.shape:
                raise ValueError(f"a block must keep the shape of its input {tuple(x.shape)}, got {answer.shape}")
            answers.append(x + answer if self.residual else answer)
            x = x if self.variant == "independent" else answers[-1]
        return torch.stack(answers, -1) @ self.mixture if self.variant == "independent" else x

    def _checked(self, x: Tensor, state: StreamState | None, rules: Rules) -> StreamState:
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"expected x of shape (B, T, {self.dim}), batch first; got {tuple(x.shape)}")
        if x.dtype != self.log_lrs.dtype:
            raise TypeError(f"x is {x.dtype} but the weights are {self.log_lrs.dtype}: convert one with .to(dtype)")
        fresh = new_stream(rules.starts, len(x))
        if state is None:
            return fresh
        found, expected = ([tuple(o.learned.shape) for o in s.levels] for s in (state, fresh))
        if found != expected:
            raise ValueError(f"the state is of another stream: expected levels of shapes {expected}, got {found}")
        return state

    def levels(self) -> list[Level]:
        """Return one level a block, in the order of the chain."""
        return [self._level(index) for index in range(len(self.blocks))]

    def _level(self, index: int) -> Level:
        period, context = self.periods[index], self.contexts[index]
        stores = "what this stream taught it" if math.isfinite(period) else "what it was trained on"
        back = "" if context is None else f"; back to its start every {context * period:g} steps"
        size = sum(weight.numel() for weight in self.blocks[index].parameters())
        return Level(f"block {index + 1}", period, stores + back, numbers=size)

    def extra_repr(self) -> str:
        """Return the variant and the nest of levels, for `print`."""
        return f"{self.variant}, {describe(self.levels())}"


_SETTING = {"log_lrs": "lrs", "decay_logits": "decays"}


def _like(row: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=row.dtype, device=row.device)
