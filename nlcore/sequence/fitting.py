"""Train a model of tokens on sequences that a task draws, and measure how often it answers right.

The recipe is the same for every model: AdamW with betas (0.9, 0.98) and a little weight decay; the learning rate rises
over the first tenth of the steps and falls along a cosine to a twentieth; gradients longer than one are cut.

Symbols   B sequences of T tokens, S symbols to answer with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nlcore.tasks.tokens import NOT_ASKED, TokenBatch
from nlcore.training import with_bar

BETAS, WEIGHT_DECAY, WARM_UP, FLOOR, CLIP = (0.9, 0.98), 0.01, 0.1, 0.05, 1.0
Draw = Callable[[torch.Generator], TokenBatch]


class ReadsTokens(Protocol):
    """What a model does: (tokens (B, T), state, lengths) -> (logits (B, T, S), state)."""

    def __call__(self, tokens: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Read the tokens."""


def fit_tokens(
    model: nn.Module,
    draw: Draw,
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    weight_decay: float = WEIGHT_DECAY,
    clip: float = CLIP,
    on_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Train `model` on a fresh batch at each step and return the loss of each batch, before its update.

    A progress bar is shown; set the environment variable NLCORE_PROGRESS=0 to hide it. The same model, seed and machine
    give the same weights.

    Args     model: as in `ReadsTokens`; the batches follow it to its device. Its `parameter_groups`, if there are any,
             say what learns faster. draw: generator -> a batch. steps: number of updates. lr: the highest learning
             rate. seed: of the generator that `draw` gets. weight_decay: of all weights. clip: longest gradient.
             on_step: called with the step number after each update.
    Returns  the losses in nats, `steps` numbers.
    Raises   ValueError for negative steps or a rate that is not positive; FloatingPointError if the loss is no longer
             finite.
    """
    if steps < 0 or not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"expected steps >= 0 and a learning rate above 0, got {steps} and {lr}")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(weight_groups(model, lr), lr=lr, betas=BETAS, weight_decay=weight_decay)
    losses = []
    model.train()
    for step in with_bar(range(steps), steps):
        batch = draw(generator).to(device)
        losses.append(take_step(model, optimizer, batch, lr * rate_at(step, steps), step, clip))
        if on_step is not None:
            on_step(step)
    return losses


def weight_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Return the weights in groups, each with its part of the learning rate, as `take_step` wants them.

    Args     model: any module; its `parameter_groups(lr)`, if it has that, says what learns faster. lr: of the others.
    """
    grouped: Any = getattr(model, "parameter_groups", None)
    whole: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    groups = whole if grouped is None else grouped(lr)
    return [group | {"lr_factor": group.get("lr", lr) / lr} for group in groups]


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: TokenBatch, lr: float, step: int, clip: float = CLIP
) -> float:
    """Take one step on a batch and return its loss in nats, before the update.

    Args     model: as in `ReadsTokens`. optimizer: of its weights; a group may have its "lr_factor". batch: on the
             device of the model. lr: of this step. step: its number, for the error. clip: longest gradient.
    Raises   FloatingPointError, before anything is changed, if the loss is not finite.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
    loss = token_loss(model, batch)
    nats = loss.item()
    if not math.isfinite(nats):
        raise FloatingPointError(f"the loss is {nats} at step {step}: try a smaller learning rate")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return nats


def rate_at(step: int, steps: int) -> float:
    """Return the part of the highest learning rate that is used at a step: a rise, then a cosine down to 1/20.

    Args     step: 0 to steps - 1. steps: how many there are.
    """
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    gone = (step - warm) / max(1, steps - 1 - warm)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * gone))


def token_loss(model: ReadsTokens, batch: TokenBatch) -> Tensor:
    """Return the mean cross-entropy over the asked positions, in nats, a scalar.

    Raises   ValueError if nothing is asked.
    """
    _check_asked(batch)
    logits, _ = model(batch.tokens, lengths=batch.padding)
    return cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=NOT_ASKED)


@torch.no_grad()
def token_accuracy(model: nn.Module, batch: TokenBatch, rows: int = 64) -> float:
    """Return the part of the asked positions, in [0, 1], that the model answers right.

    Args     model: as in `ReadsTokens`, on the device of the batch. rows: how many are read at once.
    Raises   ValueError if nothing is asked.
    """
    _check_asked(batch)
    model.eval()
    answers = torch.cat([model(part.tokens, lengths=part.padding)[0].argmax(-1) for part in batch.split(rows)])
    return float((answers == batch.targets)[batch.asked].double().mean())


@torch.no_grad()
def nats_by_position(model: nn.Module, batch: TokenBatch) -> Tensor:
    """Return the mean cross-entropy at each position, (T,) in nats, float64; NaN where no row is asked."""
    model.eval()
    logits, _ = model(batch.tokens, lengths=batch.padding)
    nats = cross_entropy(logits.double().mT, batch.targets, ignore_index=NOT_ASKED, reduction="none")
    return nats.sum(0) / batch.asked.sum(0)


def _check_asked(batch: TokenBatch) -> None:
    if not bool(batch.asked.any()):
        raise ValueError("no position is asked: every target is -100, so there is nothing to measure")
