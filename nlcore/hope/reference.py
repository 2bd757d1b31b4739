r"""A continuum that learns from the next token, token by token and by autograd: the form to trace with a finger.

    for every token t:
        for every level:   add the gradient of -log p(token t) at what the level gave at t - 1, read out there
        for every level whose period is full:   W <- start + keep (W - start) - eta G / (lambda + sum c)
        read token t with the weights as they are now

`TokenContinuum` does the same with gradients derived by hand and many tokens at once; both give the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu

from nlcore.hope.continuum import TokenContinuum
from nlcore.hope.readout import Readout
from nlcore.hope.stretch import Level
from nlcore.sequence.layers.norms import rms


class Open(NamedTuple):
    """The open period of one level.

    Args     G: the summed gradients of W1 and W2, (B, h, d) and (B, d, h). features: (c, a, h) of each token, one entry
             a token: (B,), (B, d), (B, h).
    """

    G: tuple[Tensor, Tensor]
    features: list[tuple[Tensor, Tensor, Tensor]]


def token_loop(chain: TokenContinuum, x: Tensor, tokens: Tensor, readout: Readout) -> tuple[Tensor, list[Tensor]]:
    """Read a stream from its beginning and learn from it.

    Args     chain: its settings and starts; `learns` says whether gradients are differentiated too. x: (B, T, dim).
             tokens: (B, T). readout: the end of the model.
    Returns  y (B, T, dim); what each level has learned, W1 and W2 in turn, (B, h, d) and (B, d, h).
    """
    B, second = len(x), chain.learns == "second_order"
    parts = chain.levels_now(x.dtype)
    weights = [tuple(W.expand(B, -1, -1) for W in part.start) for part in parts]
    opened: list[Open | None] = [None] * len(parts)
    inputs: list[Tensor] = []
    answers = []
    for t, x_t in enumerate(x.unbind(1)):
        for i, part in enumerate(parts):
            if t:
                opened[i] = _learn(opened[i], weights[i], inputs[i], tokens[:, t], part, readout, second)
            if t and t % part.period == 0:
                weights[i], opened[i] = _update(weights[i], opened[i], part), None
        inputs = []
        for part, W in zip(parts, weights, strict=True):
            inputs.append(x_t)
            x_t = _read(W, x_t, part)[2]
        answers.append(x_t)
    pairs = [pair for part, both in zip(parts, weights, strict=True) for pair in zip(both, part.start, strict=True)]
    learned = [W - start for W, start in pairs]
    return torch.stack(answers, 1), learned


def _read(W: tuple[Tensor, ...], x: Tensor, part: Level) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, h and y for one token x (B, d)."""
    a = rms(x, part.eps) * part.scale
    h = gelu((W[0] @ a.unsqueeze(-1)).squeeze(-1), approximate="tanh")
    return a, h, x + (W[1] @ h.unsqueeze(-1)).squeeze(-1)


def _learn(
    now: Open | None, W: tuple[Tensor, ...], x: Tensor, token: Tensor, part: Level, readout: Readout, second: bool
) -> Open:
    """Add the gradient of one pair (x, next token)."""
    with torch.enable_grad():
        own = tuple(each if each.requires_grad else each.detach().requires_grad_() for each in W)
        a, h, y = _read(own, x, part)
        logits = rms(y, readout.eps) @ readout.H.mT
        loss = cross_entropy(logits, token, reduction="sum")
        G1, G2 = torch.autograd.grad(loss, own, create_graph=second, retain_graph=True)
    c = readout.bend / (y.square().mean(-1) + readout.eps**2)
    features = [(c, a, h)] if second else [(c.detach(), a.detach(), h.detach())]
    if now is None:
        return Open((G1, G2), features)
    return Open((now.G[0] + G1, now.G[1] + G2), now.features + features)


def _update(W: tuple[Tensor, ...], now: Open | None, part: Level) -> tuple[Tensor, ...]:
    """Return the weights after a full period."""
    assert now is not None
    c = torch.stack([c for c, _, _ in now.features], 1)
    after = []
    for i, (old, start) in enumerate(zip(W, part.start, strict=True)):
        rows = torch.stack([each[1 + i] for each in now.features], 1)  # (B, C, d) or (B, C, h)
        bound = _bound(rows, c) + c.sum(1)
        step = now.G[i] / bound[:, None, None]
        after.append(start + part.keep * (old - start) - part.log_lr.exp() * step)
    return tuple(after)


def _bound(rows: Tensor, c: Tensor) -> Tensor:
    """Return the largest row sum of |c_s x_t . x_s|, or of |sum_t c_t x_t x_t^T| if that is smaller, (B,)."""
    if rows.shape[1] <= rows.shape[2]:
        products = torch.einsum("btd,bsd,bs->bts", rows, rows, c)
    else:
        products = torch.einsum("bti,btj,bt->bij", rows, rows, c)
    return products.abs().sum(-1).max(-1).values
