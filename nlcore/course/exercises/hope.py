"""Exercises of notebook 12: the error of a level inside a model, its write, and the baseline that learns everything."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nlcore.course.exercises.framework import Exercise, Mistake, Stage

F64 = torch.float64
Piece = tuple[Tensor, Tensor]


def readout_gradient(H: Tensor, y: Tensor, token: int) -> Tensor:
    """Return the gradient of -log p(token) in y, with p = softmax(H y)."""
    p = torch.softmax(H @ y, 0)
    return H.T @ p - H[token]


def write_level(start: Tensor, W: Tensor, errors: Tensor, h: Tensor, lr: float, keep: float, bound: float) -> Tensor:
    """Return the weights of a level after a full period."""
    G = errors.T @ h
    return start + keep * (W - start) - lr * G / bound


def read_and_learn(W: Tensor, pieces: list[Piece], lr: float) -> list[float]:
    """Return the loss of each piece, predicted before it is learned."""
    losses = []
    for x, token in pieces:
        W = W.detach().requires_grad_()
        loss = cross_entropy(x @ W.T, token)
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, W)
        W = W - lr * gradient
    return losses


def _gradient_oracle(H: Tensor, y: Tensor, token: int) -> Tensor:
    y = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy((H @ y)[None], torch.tensor([token])), y)
    return gradient


def _level_oracle(start: Tensor, W: Tensor, errors: Tensor, h: Tensor, lr: float, keep: float, bound: float) -> Tensor:
    """One token after the other."""
    for error, inside in zip(errors, h, strict=True):
        W = W - lr / (keep * bound) * torch.outer(error, inside)
    return keep * W + (1 - keep) * start


def _reading_oracle(W: Tensor, pieces: list[Piece], lr: float) -> list[float]:
    """The same with torch's own layer and optimizer."""
    layer = torch.nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
    layer.load_state_dict({"weight": W})
    optimizer, losses = torch.optim.SGD(layer.parameters(), lr=lr), []
    for x, token in pieces:
        loss = cross_entropy(layer(x), token)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def _learns_first(W: Tensor, pieces: list[Piece], lr: float) -> list[float]:
    losses = []
    for x, token in pieces:
        W = W.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(x @ W.T, token), W)
        W = (W - lr * gradient).detach()
        losses.append(cross_entropy(x @ W.T, token).item())
    return losses


def _always_from_the_start(W: Tensor, pieces: list[Piece], lr: float) -> list[float]:
    return [_reading_oracle(W, [piece], lr)[0] for piece in pieces]


def _keeps_old_gradients(W: Tensor, pieces: list[Piece], lr: float) -> list[float]:
    losses, total = [], torch.zeros_like(W)
    for x, token in pieces:
        W = W.detach().requires_grad_()
        loss = cross_entropy(x @ W.T, token)
        losses.append(loss.item())
        total = total + torch.autograd.grad(loss, W)[0]
        W = W - lr * total
    return losses


def _sums(W: Tensor, pieces: list[Piece], lr: float) -> list[float]:
    return _reading_oracle(W, pieces, lr * len(pieces[0][1]))


def _normal(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=F64) for shape in shapes]


def _readout(seed: int, tokens: int = 5, width: int = 3) -> tuple[Tensor, Tensor, int]:
    H, y = _normal(seed, (tokens, width), (width,))
    return H, y, 2


def _level(seed: int, n: int, at_start: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    start, learned, errors, h = _normal(seed, (3, 4), (3, 4), (n, 3), (n, 4))
    return start, start if at_start else start + learned, errors, h


def _pieces(seed: int, count: int) -> tuple[Tensor, list[Piece]]:
    (W,) = _normal(seed, (4, 3))
    tokens = torch.randint(4, (count, 6), generator=torch.Generator().manual_seed(seed))
    return W, [(*_normal(seed + 10 + i, (6, 3)), row) for i, row in enumerate(tokens)]


READOUT_GRADIENT = Exercise(
    name="readout_gradient",
    notebook="12",
    solution=readout_gradient,
    oracle=_gradient_oracle,
    stages=(
        Stage("two tokens, a hidden state of width one", lambda: _readout(0, 3, 1)),
        Stage("five tokens", lambda: _readout(1)),
        Stage("a hidden state so long that one token is almost certain", lambda: (*_long(2), 2)),
    ),
    mistakes=(
        Mistake(
            lambda H, y, token: H[token] - H.T @ torch.softmax(H @ y, 0),
            "The sign is wrong: this points to where the token becomes likelier. The gradient of the loss points away.",
        ),
        Mistake(
            lambda H, y, token: H.T @ torch.softmax(H @ y, 0),
            "You only add what the model expected. Subtract the row of the token that came.",
        ),
        Mistake(
            lambda H, y, token: torch.softmax(H @ y, 0) - torch.nn.functional.one_hot(torch.tensor(token), len(H)),
            "This is the error in the logits. Bring it back to the hidden state: multiply by H.T.",
        ),
        Mistake(
            lambda H, y, token: H.T @ (H @ y) - H[token],
            "You weigh the rows by the logits themselves. The model expects with softmax(H @ y).",
        ),
    ),
    hints=(
        "In the logits the error is p minus a vector that is 1 at the token that came.",
        "logits = H @ y, so what an error in the logits says about y is H.T @ error.",
        "p = torch.softmax(H @ y, 0); return H.T @ p - H[token].",
    ),
)

WRITE_LEVEL = Exercise(
    name="write_level",
    notebook="12",
    solution=write_level,
    oracle=_level_oracle,
    stages=(
        Stage("one token, nothing learned before", lambda: (*_level(0, 1, True), 0.5, 1.0, 1.0)),
        Stage("a period of four tokens", lambda: (*_level(1, 4, True), 0.5, 1.0, 2.0)),
        Stage("something learned before, of which a part fades", lambda: (*_level(2, 4), 0.5, 0.9, 2.0)),
    ),
    mistakes=(
        Mistake(
            lambda start, W, errors, h, lr, keep, bound: start + keep * (W - start) + lr * errors.T @ h / bound,
            "The sign is wrong: the level climbs. Descent subtracts the gradient.",
        ),
        Mistake(
            lambda start, W, errors, h, lr, keep, bound: keep * W - lr * errors.T @ h / bound,
            "Your level fades to zero. It should fade to its start: only W - start is what the stream has taught.",
        ),
        Mistake(
            lambda start, W, errors, h, lr, keep, bound: W - lr * errors.T @ h / bound,
            "Nothing fades. Keep the part `keep` of what was learned before, W - start.",
        ),
        Mistake(
            lambda start, W, errors, h, lr, keep, bound: write_level(start, W, errors, h, lr / len(h), keep, bound),
            "You take the mean over the period. The step is a sum; the bound already keeps it short.",
        ),
        Mistake(
            lambda start, W, errors, h, lr, keep, bound: start + keep * (W - start) - lr * errors.T @ h,
            "The step is not divided by the bound, so that a period of equal tokens can overshoot.",
        ),
        Mistake(
            lambda start, W, errors, h, lr, keep, bound: start + keep * (W - start - lr * errors.T @ h / bound),
            "Your new step fades at once. Only what was there before fades; then the step is subtracted, whole.",
        ),
    ),
    hints=(
        "What did the stream teach so far? W - start. That part fades, the start does not.",
        "The gradient is a sum of outer products of error and h, which is one product: errors.T @ h.",
        "return start + keep * (W - start) - lr * errors.T @ h / bound.",
    ),
)

READ_AND_LEARN = Exercise(
    name="read_and_learn",
    notebook="12",
    solution=read_and_learn,
    oracle=_reading_oracle,
    stages=(
        Stage("one piece: a prediction, nothing learned yet", lambda: (*_pieces(0, 1), 0.5)),
        Stage("two pieces: the second after one step", lambda: (*_pieces(1, 2), 0.5)),
        Stage("five pieces", lambda: (*_pieces(2, 5), 0.5)),
    ),
    mistakes=(
        Mistake(
            _learns_first,
            "You learn a piece before you predict it: then it is no prediction. Note the loss first, then step.",
        ),
        Mistake(
            _always_from_the_start,
            "Each piece is read with the first W. Carry the W after the step to the next piece.",
        ),
        Mistake(
            _keeps_old_gradients,
            "You step with the gradients of all pieces so far. Each piece has its own step.",
        ),
        Mistake(
            _sums,
            "You step down the sum over the tokens of a piece; the loss is their mean.",
        ),
        Mistake(
            lambda W, pieces, lr: _reading_oracle(W, pieces, -lr),
            "The sign is wrong: W climbs.",
        ),
    ),
    hints=(
        "For each piece: loss, note it, gradient, step. In this order.",
        "W = W.detach().requires_grad_(); loss = cross_entropy(x @ W.T, token); then torch.autograd.grad(loss, W).",
        "losses.append(loss.item()); (gradient,) = torch.autograd.grad(loss, W); W = W - lr * gradient.",
    ),
)


def _long(seed: int) -> tuple[Tensor, Tensor]:
    H, y, _ = _readout(seed)
    return H, 10 * y


EXERCISES = (READOUT_GRADIENT, WRITE_LEVEL, READ_AND_LEARN)
