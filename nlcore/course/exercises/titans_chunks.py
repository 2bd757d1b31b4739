"""Exercises of notebook 10 on a chunk: all its errors at once, and the largest rate that is stable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.sequence import MemoryState, titans_memory
from nlcore.sequence.gates import Gates, kept


def carried_errors(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Return the errors of all tokens of a chunk that began with an empty memory."""
    L = torch.zeros_like(W)
    L[1:] = W[:-1] * (K @ K.T)[1:]
    return torch.linalg.solve_triangular(torch.eye(len(K), dtype=W.dtype) + L, V, upper=False)


def largest_rate(C: int, length: float, retain: float) -> float:
    """Return the rate above which a key that fills chunk after chunk diverges, without momentum."""
    steps = sum(retain**i for i in range(C))
    return (1 + retain**C) / (length**2 * steps)


def _carried_errors_oracle(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Token by token: the error against the memory that the errors so far have made."""
    errors: list[Tensor] = []
    empty = torch.zeros(V.shape[1], K.shape[1], dtype=W.dtype)
    for t, (k, v) in enumerate(zip(K, V, strict=True)):
        M = sum((W[t - 1, j] * torch.outer(errors[j], K[j]) for j in range(t)), empty)
        errors.append(v - M @ k)
    return torch.stack(errors)


def _largest_rate_oracle(C: int, length: float, retain: float) -> float:
    """What a chunk makes of a memory is linear in the rate: two chunks tell where it becomes -1."""
    key = torch.full((1, 1, C, 1), length, dtype=torch.float64)
    one = MemoryState(torch.ones(1, 1, 1, 1, dtype=torch.float64))

    def after(lr: float) -> float:
        form: dict[str, Any] = {"gradient_period": max(C, 2), "lr_bound": None, "state": one}
        return titans_memory(key, key, 0 * key, lr, 0.0, retain, **form)[1].M.item()

    silent, loud = after(0.0), after(1.0)
    return (1 + silent) / (silent - loud)


def chunk(seed: int, C: int, lr: float, momentum: float, retain: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights W of the gates, and random keys and values."""
    generator = torch.Generator().manual_seed(seed)
    K, V = (torch.randn(C, d, generator=generator, dtype=torch.float64) for d in (4, 3))
    gates = Gates(*(torch.tensor([gate], dtype=torch.float64) for gate in (lr, retain, momentum)))
    return kept(gates, C).W, K / K.norm(dim=-1, keepdim=True), V


def _system(W: Tensor, K: Tensor, L: Tensor, V: Tensor) -> Tensor:
    return torch.linalg.solve(torch.eye(len(K), dtype=W.dtype) + L, V)


def _same_row(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return _system(W, K, (W * (K @ K.T)).tril(-1), V)


def _with_diagonal(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return _system(W, K, W * (K @ K.T), V)


def _no_weights(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return _system(W, K, (K @ K.T).tril(-1), V)


def _no_keys(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    L = torch.zeros_like(W)
    L[1:] = W[:-1]
    return _system(W, K, L, V)


def _shifted(W: Tensor, K: Tensor) -> Tensor:
    L = torch.zeros_like(W)
    L[1:] = W[:-1] * (K @ K.T)[1:]
    return L


def _wrong_sign(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return _system(W, K, -_shifted(W, K), V)


def _not_solved(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return V - _shifted(W, K) @ V


def _transposed(W: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return _system(W, K, _shifted(W, K).T, V)


CHUNK_ERRORS = Exercise(
    name="carried_errors",
    notebook="10",
    solution=carried_errors,
    oracle=_carried_errors_oracle,
    stages=(
        Stage("two tokens", lambda: chunk(0, 2, 0.5, 0.0, 1.0)),
        Stage("five tokens of the delta rule", lambda: chunk(1, 5, 0.5, 0.0, 1.0)),
        Stage("eight tokens with momentum and decay", lambda: chunk(2, 8, 0.3, 0.8, 0.9)),
    ),
    mistakes=(
        Mistake(
            _same_row,
            "You took row t of W. The error of token t is measured before its write, at the memory after token t - 1: "
            "row t - 1, so move W down by one row.",
        ),
        Mistake(
            _with_diagonal,
            "Your L has a diagonal, so that a token corrects itself. Only earlier tokens are known: row t - 1 of W.",
        ),
        Mistake(_no_weights, "W is missing. What is left of write j before token t is W[t - 1, j]."),
        Mistake(_no_keys, "The keys are missing: a write of key k_j disturbs k_t only by k_t . k_j."),
        Mistake(_wrong_sign, "The sign of L is wrong: what earlier writes answer is subtracted, so U + L U = V."),
        Mistake(
            _not_solved,
            "V - L @ V takes the values for the errors. Errors correct each other: solve (I + L) U = V.",
        ),
        Mistake(_transposed, "Your L is transposed: row t holds the earlier tokens j < t, so L is lower triangular."),
        Mistake(lambda W, K, V: V, "These are the errors at the start of the chunk. Earlier tokens have been written."),
    ),
    hints=(
        "Build L first: zeros, and from the second row on W one row earlier, times the products of the keys.",
        "L[1:] = W[:-1] * (K @ K.T)[1:]. Then solve the system (I + L) U = V.",
        "return torch.linalg.solve_triangular(torch.eye(len(K), dtype=W.dtype) + L, V, upper=False).",
    ),
)

LARGEST_RATE = Exercise(
    name="largest_rate",
    notebook="10",
    solution=largest_rate,
    oracle=_largest_rate_oracle,
    stages=(
        Stage("one token a chunk", lambda: (1, 1.0, 1.0)),
        Stage("a chunk of 16, keys of length one", lambda: (16, 1.0, 1.0)),
        Stage("longer keys", lambda: (16, 3.0, 1.0)),
        Stage("decay", lambda: (16, 2.0, 0.9)),
    ),
    mistakes=(
        Mistake(lambda C, length, retain: 2 / length**2, "C is missing: a chunk of C tokens takes C steps at once."),
        Mistake(
            lambda C, length, retain: 2 / (C * length),
            "The length is missing a square: the key is met when you write and again when you read.",
        ),
        Mistake(lambda C, length, retain: 2 / C, "The length of the key is missing: |k|^2 multiplies every step."),
        Mistake(
            lambda C, length, retain: 1 / (C * length**2),
            "At this rate the chunk lands on v exactly. It may overshoot, as long as the factor stays above -1.",
        ),
        Mistake(
            lambda C, length, retain: 2 / (C * length**2),
            "Right without decay. With decay a chunk keeps retain**C of the memory, and the step that is followed by "
            "i tokens keeps retain**i.",
        ),
        Mistake(
            lambda C, length, retain: (1 + retain**C) / (C * length**2),
            "The memory fades in your formula, the steps do not: the last one is whole, the one before it retain, ...",
        ),
        Mistake(
            lambda C, length, retain: 2 / (length**2 * sum(retain**i for i in range(C))),
            "The steps fade in your formula, the memory does not: after the chunk retain**C of it is left.",
        ),
    ),
    hints=(
        "Let the memory answer x for the key, and let v be 0. By which factor has a chunk multiplied x?",
        "The factor is retain**C - lr * length**2 * (1 + retain + ... + retain**(C - 1)). It must not fall below -1.",
        "return (1 + retain**C) / (length**2 * sum(retain**i for i in range(C))).",
    ),
)
