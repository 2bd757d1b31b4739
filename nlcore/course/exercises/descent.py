"""Exercises of notebook 02: the surprise of an answer, and one write. The other two are in `descent_recall`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nlcore.course.exercises.descent_recall import LAYER_SURPRISE, RECALL, gradient, numbers, random, sgd_step
from nlcore.course.exercises.framework import Exercise, Mistake, Stage


def surprise(logits: Tensor, label: int) -> Tensor:
    """Return the local surprise signal of one answer under the cross-entropy."""
    u = torch.softmax(logits, 0)
    u[label] = u[label] - 1
    return u


def gd_step_as_write(W: Tensor, x: Tensor, u: Tensor, lr: float) -> Tensor:
    """Return the memory W after one step of gradient descent: the value -u written under the key x."""
    return W - lr * torch.outer(u, x)


def _surprise_oracle(logits: Tensor, label: int) -> Tensor:
    answer = logits.clone().requires_grad_()
    cross_entropy(answer, torch.tensor(label)).backward()
    return gradient(answer)


def _write_oracle(W: Tensor, x: Tensor, u: Tensor, lr: float) -> Tensor:
    return sgd_step(W, x.unsqueeze(0), u.unsqueeze(0), lr)


def _onehot(logits: Tensor, label: int) -> Tensor:
    return torch.eye(len(logits), dtype=logits.dtype)[label]


def _write_case(d_out: int, d_in: int, lr: float, seed: int) -> tuple[Any, ...]:
    return random(d_out, d_in, seed=seed), random(d_in, seed=seed + 1), random(d_out, seed=seed + 2), lr


SURPRISE = Exercise(
    name="surprise",
    notebook="02",
    solution=surprise,
    oracle=_surprise_oracle,
    stages=(
        Stage("two classes that look equally likely", lambda: (numbers(0, 0), 0)),
        Stage("three classes, the last one right", lambda: (numbers(0.5, -1, 2), 2)),
        Stage("ten classes", lambda: (random(10, seed=1), 3)),
        Stage("very large logits", lambda: (numbers(1000, 999, -1000), 1)),
    ),
    mistakes=(
        Mistake(
            lambda logits, label: _onehot(logits, label) - torch.softmax(logits, 0),
            "The sign is turned round. The surprise is the gradient of the loss: predicted minus right, p - onehot. "
            "(What you have is -u, the value that is written.)",
        ),
        Mistake(
            lambda logits, label: torch.softmax(logits, 0),
            "These are the probabilities. Now take 1 away at the right class.",
        ),
        Mistake(
            lambda logits, label: logits - _onehot(logits, label),
            "You take the onehot from the logits. First turn the logits into probabilities with a softmax.",
        ),
        Mistake(
            lambda logits, label: torch.sigmoid(logits) - _onehot(logits, label),
            "You use a sigmoid for each class alone. The classes share one softmax: together they add up to 1.",
        ),
        Mistake(
            lambda logits, label: torch.log_softmax(logits, 0) - _onehot(logits, label),
            "You use the logarithm of the probabilities. The surprise needs the probabilities themselves: softmax.",
        ),
        Mistake(
            lambda logits, label: -torch.log_softmax(logits, 0)[label],
            "This is the loss, one number. The surprise is its gradient: one number for each class.",
        ),
        Mistake(
            lambda logits, label: torch.softmax(logits, 0)[label] - 1,
            "This is the entry of the right class. The surprise has an entry for every class; the others are p itself.",
        ),
        Mistake(
            lambda logits, label: torch.exp(logits) / torch.exp(logits).sum() - _onehot(logits, label),
            "The formula is right, but exp(1000) is too large for a computer. torch.softmax(logits, 0) avoids that.",
        ),
    ),
    hints=(
        "What should the network have answered? Probability 1 at the label and 0 elsewhere. Compare with what it did.",
        "torch.softmax(logits, 0) gives the probabilities p. Only the entry of the right class needs a change.",
        "u = torch.softmax(logits, 0); then u[label] = u[label] - 1; return u.",
    ),
)

GD_STEP_AS_WRITE = Exercise(
    name="gd_step_as_write",
    notebook="02",
    solution=gd_step_as_write,
    oracle=_write_oracle,
    stages=(
        Stage("one weight", lambda: (numbers(1.0).reshape(1, 1), numbers(2.0), numbers(-4.0), 0.25)),
        Stage("a square memory", lambda: _write_case(2, 2, 0.5, seed=10)),
        Stage("ten answers from 64 pixels", lambda: _write_case(10, 64, 0.1, seed=20)),
    ),
    mistakes=(
        Mistake(
            lambda W, x, u, lr: W + lr * torch.outer(u, x),
            "The sign is turned round, so the loss climbs. The value that is written is -u.",
        ),
        Mistake(
            lambda W, x, u, lr: W - lr * torch.outer(x, u),
            "The outer product is the other way round. W has one row for each answer: torch.outer(u, x).",
        ),
        Mistake(
            lambda W, x, u, lr: W - torch.outer(u, x),
            "You forgot the step size: the write has the strength lr.",
        ),
        Mistake(
            lambda W, x, u, lr: -lr * torch.outer(u, x),
            "This is what is written. The memory keeps what it held before: add W.",
        ),
        Mistake(
            lambda W, x, u, lr: W - lr * (u * x),
            "u * x multiplies entry by entry. The write needs every entry of u times every entry of x: torch.outer.",
        ),
        Mistake(
            lambda W, x, u, lr: W - lr * torch.outer(u, x) / (x @ x),
            "You divide by |x|^2. That is a choice of the step size; here lr is already given, so leave it out.",
        ),
    ),
    hints=(
        "A write adds the outer product of a value and a key. Which is the value, which is the key?",
        "The key is x. The value is -u: the surprise, turned round. The strength is lr.",
        "Return W - lr * torch.outer(u, x).",
    ),
)

EXERCISES = (SURPRISE, GD_STEP_AS_WRITE, RECALL, LAYER_SURPRISE)
