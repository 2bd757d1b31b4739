r"""Learning while reading (Eq. 71): each level sums the gradients of its chunk and then takes one step.

    y_t = read(theta; x_t)                                                   before anything is written
    S_l <- S_l + d loss(y_t, target_t) / d theta_l                           at every token
    theta_l <- start_l + (1 - d_l)^C_l (theta_l - start_l) - eta_l S_l       after every C_l-th token; S_l <- 0
    theta_l <- start_l                                                       at the end of its context, if it has one

`token_loop` is this, line by line. `chunk_loop` gives the same numbers faster: between two updates no weight changes,
so all tokens up to the next update of any level are read at once. A level with period 1 leaves nothing to gain.

Symbols   theta_l weights of level l; C_l = periods[l] tokens; eta_l = lrs[l]; d_l = decays[l], the part of what was
          learned that is lost at each token; S_l the sum of gradients, exactly C_l terms (the sum printed in the paper
          counts the token at the border twice).
Source    Behrouz et al. 2025, Nested Learning, section 7.1, Eq. 71; the decay is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nlcore.cms.state import LevelState, StreamState, zeros_like_row
from nlcore.memory import hebbian

TokenLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rules:
    """How a stream is read, and how its levels learn from it.

    Args     read: (weights of each level (B, P_l), x (B, n, dim)) -> y (B, n, dim). starts: (P_l,) for each level.
             lrs, decays: one scalar tensor a level. periods: tokens a chunk, `math.inf` for a frozen level.
             contexts: updates after which a level returns to its start, None for never. second_order: whether the
             gradients S_l are differentiated too (else they are constants).
    """

    read: Callable[[Sequence[Tensor], Tensor], Tensor]
    starts: tuple[Tensor, ...]
    lrs: tuple[Tensor, ...]
    decays: tuple[Tensor, ...]
    periods: tuple[float, ...]
    contexts: tuple[int | None, ...]
    second_order: bool = True


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return half the squared distance of each output to its target: (B, n, dim), (B, n, dim) -> (B, n)."""
    return 0.5 * (output - target).square().sum(-1)


def token_loop(
    rules: Rules, x: Tensor, target: Tensor, state: StreamState, loss: TokenLoss
) -> tuple[Tensor, StreamState]:
    """Read and learn token by token: the reference.

    Args     rules: see `Rules`. x: (B, T, dim). target: (B, T, ...). state: the stream so far.
             loss: (output (B, n, dim), target (B, n, ...)) -> one number a token, (B, n).
    Returns  y: (B, T, dim), each token read before it was learned; the state after the last token.
    Raises   ValueError if the loss has another shape or does not depend on the output.
    Source   Eq. 71.
    """
    outputs = []
    for t in range(x.shape[1]):
        weights = [start + level.learned for start, level in zip(rules.starts, state.levels, strict=True)]
        y, gradients = _read_and_grade(rules, weights, x[:, t : t + 1], target[:, t : t + 1], loss)
        state = _after(rules, state, gradients, tokens=1)
        outputs.append(y)
    return _joined(outputs, x), state


def chunk_loop(
    rules: Rules, x: Tensor, target: Tensor, state: StreamState, loss: TokenLoss, chunk_size: int
) -> tuple[Tensor, StreamState]:
    """Read and learn like `token_loop`, all tokens up to the next update at once, at most `chunk_size` of them.

    Args     as in `token_loop`. chunk_size: bounds the memory needed, at least 1.
    Returns  as in `token_loop`, the same up to rounding.
    """
    outputs: list[Tensor] = []
    weights = [start + level.learned for start, level in zip(rules.starts, state.levels, strict=True)]
    done = 0
    while done < x.shape[1]:
        chunk = slice(done, done + min(chunk_size, x.shape[1] - done, tokens_to_next_update(rules, state)))
        y, gradients = _read_and_grade(rules, weights, x[:, chunk], target[:, chunk], loss)
        before, state = state, _after(rules, state, gradients, tokens=chunk.stop - done)
        for index, (old, new) in enumerate(zip(before.levels, state.levels, strict=True)):
            if new.learned is not old.learned:
                weights[index] = rules.starts[index] + new.learned
        outputs.append(y)
        done = chunk.stop
    return _joined(outputs, x), state


def flush(rules: Rules, state: StreamState) -> StreamState:
    """Apply the open chunk of every level, however short, and let a new chunk begin with the next token.

    It counts as an update, so a nested level may reach the end of its context by it.
    """
    levels = enumerate(state.levels)
    return StreamState(tuple(_end_chunk(rules, index, level) if level.tokens else level for index, level in levels))


def tokens_to_next_update(rules: Rules, state: StreamState) -> int:
    """Return how many tokens can be read before the weights of some level change; a huge number if none ever does."""
    left = min(period - level.tokens for period, level in zip(rules.periods, state.levels, strict=True))
    return int(left) if math.isfinite(left) else 2**62


def _read_and_grade(
    rules: Rules, weights: Sequence[Tensor], x: Tensor, target: Tensor, loss: TokenLoss
) -> tuple[Tensor, list[Tensor | None]]:
    """Read tokens; return the answers and, for each level that learns, the gradient summed over these tokens."""
    wanted = torch.is_grad_enabled()  # does the caller differentiate? then the graph of the answers must live on
    learns = [math.isfinite(period) for period in rules.periods]
    with torch.enable_grad():
        if not wanted:
            weights, x, target = [row.detach() for row in weights], x.detach(), target.detach()
        pairs = zip(weights, learns, strict=True)
        weights = [row.requires_grad_() if learn and not row.requires_grad else row for row, learn in pairs]
        *weights, x, target = _as_one_node(*weights, x, target)
        learning = [row for row, learn in zip(weights, learns, strict=True) if learn]
        y = rules.read(weights, x)
        losses = loss(y, target)
        _check_losses(losses, y, any(learns))
        second = wanted and rules.second_order
        found: tuple[Tensor, ...] = ()
        if learning:
            found = torch.autograd.grad(losses.sum(), learning, create_graph=second, retain_graph=wanted)
    left = iter(found)
    gradients = [next(left) if learn else None for learn in learns]
    return y if wanted else y.detach(), gradients


class _Same(torch.autograd.Function):
    """The identity on several tensors at once; in two methods, so that `torch.func.grad` can see through it."""

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients


def _as_one_node(*tensors: Tensor) -> list[Tensor]:
    """Return the same tensors, all that have a history behind one node of the graph, which is new.

    The gradient is taken with respect to these. So it does not reach the weights by way of earlier updates, as it must
    not; and the search for what it needs ends at the node. With the tensors themselves that search would go on into the
    history of the whole stream, at every update, and the time would grow with the square of T.
    """
    known = list(tensors)
    places = [place for place, tensor in enumerate(known) if tensor.requires_grad]
    if places:
        for place, same in zip(places, _Same.apply(*(known[place] for place in places)), strict=True):
            known[place] = same
    return known


def _after(rules: Rules, state: StreamState, gradients: Sequence[Tensor | None], tokens: int) -> StreamState:
    """Return the state after `tokens` more tokens: gradients collected, and a step taken where a chunk is full."""
    levels = []
    for index, (level, gradient) in enumerate(zip(state.levels, gradients, strict=True)):
        if gradient is not None:
            level = replace(level, summed=level.summed + gradient, tokens=level.tokens + tokens)
        if level.tokens == rules.periods[index]:
            level = _end_chunk(rules, index, level)
        levels.append(level)
    return StreamState(tuple(levels))


def _end_chunk(rules: Rules, index: int, level: LevelState) -> LevelState:
    """Take one step with the gradients of the chunk (Eq. 71), or go back to the start if the context ends here."""
    nothing, context, updates = zeros_like_row(level.learned), rules.contexts[index], level.updates + 1
    if context is not None and updates % context == 0:
        return LevelState(nothing, nothing, 0, updates)
    kept = (1 - rules.decays[index]) ** level.tokens
    learned = hebbian(level.learned, None, level.summed, lr=-rules.lrs[index], retain=kept)
    return LevelState(learned, nothing, 0, updates)


def _joined(outputs: Sequence[Tensor], x: Tensor) -> Tensor:
    return torch.cat(list(outputs), dim=1) if outputs else x


def _check_losses(losses: Tensor, y: Tensor, learned_from: bool) -> None:
    if not isinstance(losses, Tensor) or losses.shape != y.shape[:2]:
        got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(
            f"the loss must give one number a token, shape {tuple(y.shape[:2])}; got {got}. Try .sum(-1) over the "
            'features, or reduction="none"'
        )
    if learned_from and not losses.requires_grad:
        raise ValueError("the loss does not depend on the output (was it detached?), so no level can learn from it")
