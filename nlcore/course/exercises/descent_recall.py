"""Exercises of notebook 02, second part: the memory read back, and the surprise of a hidden layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nlcore.course.exercises.framework import Exercise, Mistake, Stage


def recall(W0: Tensor, keys: Tensor, surprises: Tensor, lr: float, query: Tensor) -> Tensor:
    """Return the answer of a trained linear layer to `query`, from what was written into it."""
    scores = keys @ query
    return W0 @ query - lr * scores @ surprises


def layer_surprise(z1: Tensor, W2: Tensor, delta2: Tensor) -> Tensor:
    """Return the surprise of a hidden layer z1, given that of the layer after it, W2 relu(z1)."""
    return (z1 > 0) * (W2.T @ delta2)


def _recall_oracle(W0: Tensor, keys: Tensor, surprises: Tensor, lr: float, query: Tensor) -> Tensor:
    return sgd_step(W0, keys, surprises, lr) @ query


def sgd_step(W: Tensor, keys: Tensor, surprises: Tensor, lr: float) -> Tensor:
    """Return W after a step of torch's SGD on a loss whose gradient with respect to each answer is its surprise."""
    weights = W.clone().requires_grad_()
    optimizer = torch.optim.SGD([weights], lr=lr)
    ((keys @ weights.T) * surprises).sum().backward()
    optimizer.step()
    return weights.detach()


def _layer_oracle(z1: Tensor, W2: Tensor, delta2: Tensor) -> Tensor:
    hidden = z1.clone().requires_grad_()
    ((W2 @ torch.relu(hidden)) * delta2).sum().backward()
    return gradient(hidden)


def gradient(tensor: Tensor) -> Tensor:
    """Return what backward() left in a tensor."""
    assert tensor.grad is not None
    return tensor.grad


def numbers(*values: float) -> Tensor:
    """Return these numbers as a float64 vector."""
    return torch.tensor(values, dtype=torch.float64)


def random(*shape: int, seed: int) -> Tensor:
    """Return normal random numbers, the same for each seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _recall_case(T: int, seed: int, start: float, lr: float = 0.3) -> tuple[Any, ...]:
    keys, surprises = random(T, 4, seed=seed), random(T, 3, seed=seed + 1)
    return start * random(3, 4, seed=seed + 2), keys, surprises, lr, random(4, seed=seed + 3)


def _unrelated_case() -> tuple[Any, ...]:
    W0, keys, surprises, lr, query = _recall_case(3, seed=40, start=1.0)
    return W0, keys * numbers(1, 1, 0, 0), surprises, lr, query * numbers(0, 0, 1, 1)


RECALL = Exercise(
    name="recall",
    notebook="02",
    solution=recall,
    oracle=_recall_oracle,
    stages=(
        Stage("one write into an empty memory", lambda: _recall_case(1, seed=10, start=0.0)),
        Stage("five writes into an empty memory", lambda: _recall_case(5, seed=20, start=0.0)),
        Stage("five writes into a memory that held something", lambda: _recall_case(5, seed=30, start=1.0)),
        Stage("a query that is like none of the keys", _unrelated_case),
    ),
    mistakes=(
        Mistake(
            lambda W0, keys, surprises, lr, query: -lr * (keys @ query) @ surprises,
            "You forgot what the memory held at the start: add W0 @ query.",
        ),
        Mistake(
            lambda W0, keys, surprises, lr, query: W0 @ query + lr * (keys @ query) @ surprises,
            "The sign is turned round: the values that were written are -u, not u.",
        ),
        Mistake(
            lambda W0, keys, surprises, lr, query: W0 @ query - lr * torch.softmax(keys @ query, 0) @ surprises,
            "You put a softmax on the scores. Softmax attention does that; gradient descent uses the plain x.q.",
        ),
        Mistake(
            lambda W0, keys, surprises, lr, query: W0 @ query - lr * (keys @ query) @ surprises / len(keys),
            "You divide by the number of writes. Each write counts in full: take the sum, not the mean.",
        ),
        Mistake(
            lambda W0, keys, surprises, lr, query: W0 @ query - (keys @ query) @ surprises,
            "You forgot the step size: every write had the strength lr.",
        ),
        Mistake(
            lambda W0, keys, surprises, lr, query: W0 @ query - lr * cosine_similarity(keys, query, dim=1) @ surprises,
            "You use the cosine. The score is the plain product x.q: a brighter image counts more.",
        ),
        Mistake(
            lambda W0, keys, surprises, lr, query: W0 @ query - lr * surprises.sum(0),
            "Every write answers equally strongly here. Weight each by how well its key fits the query: x.q.",
        ),
    ),
    hints=(
        "What does one write answer? Multiply -lr * outer(u, x) by the query: x and query meet in one number.",
        "keys @ query gives one score for each write. Add up the surprises, each times its score.",
        "Return W0 @ query - lr * (keys @ query) @ surprises.",
    ),
)

LAYER_SURPRISE = Exercise(
    name="layer_surprise",
    notebook="02",
    solution=layer_surprise,
    oracle=_layer_oracle,
    stages=(
        Stage(
            "two hidden units that are on",
            lambda: (numbers(1.0, 2.0), random(2, 2, seed=1), numbers(0.5, -1.0)),
        ),
        Stage(
            "one hidden unit that is off",
            lambda: (numbers(1.0, -2.0, 0.5), random(2, 3, seed=2), numbers(0.5, -1.0)),
        ),
        Stage("32 hidden units", lambda: (random(32, seed=3), random(10, 32, seed=4), random(10, seed=5))),
        Stage(
            "a hidden unit that is exactly zero",
            lambda: (numbers(0.0, 1.0), random(3, 2, seed=6), numbers(0.5, -1.0, 0.5)),
        ),
    ),
    mistakes=(
        Mistake(
            lambda z1, W2, delta2: W2.T @ delta2,
            "You forgot the ReLU. A unit that is off (z1 <= 0) cannot change the answer, so its surprise is 0.",
        ),
        Mistake(
            lambda z1, W2, delta2: (z1 > 0) * (W2 @ delta2),
            "You use W2 as it is. On the way back it is turned over: W2.T @ delta2.",
        ),
        Mistake(
            lambda z1, W2, delta2: torch.relu(W2.T @ delta2),
            "You put the surprise through the ReLU. What switches it off is z1: multiply by (z1 > 0).",
        ),
        Mistake(
            lambda z1, W2, delta2: torch.relu(z1) * (W2.T @ delta2),
            "You multiply by relu(z1). The derivative of the ReLU is wanted: 1 where z1 > 0, else 0.",
        ),
        Mistake(
            lambda z1, W2, delta2: -1.0 * (z1 > 0) * (W2.T @ delta2),
            "The sign is turned round. The surprise is the gradient; the minus comes when it is written.",
        ),
        Mistake(
            lambda z1, W2, delta2: (z1 >= 0) * (W2.T @ delta2),
            "At z1 = 0 the ReLU has no derivative; PyTorch takes 0 there. Use z1 > 0.",
        ),
        Mistake(
            lambda z1, W2, delta2: (z1 < 0) * (W2.T @ delta2),
            "You keep the units that are off. The surprise reaches those that are on: z1 > 0.",
        ),
    ),
    hints=(
        "Two things lie between z1 and the next answer: the ReLU and W2. Go back through both, the last one first.",
        "Back through W2 the surprise becomes W2.T @ delta2. The ReLU lets it pass only where z1 > 0.",
        "Return (z1 > 0) * (W2.T @ delta2).",
    ),
)
