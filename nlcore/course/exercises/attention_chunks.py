"""Exercises of notebook 09: the delta rule as a transition, and all errors of a chunk by one triangular system."""

from __future__ import annotations

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.memory import delta, read

Pair = tuple[Tensor, Tensor]


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Return random tensors in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def as_transition(k: Tensor, v: Tensor, lr: float) -> Pair:
    """Return A and B of the delta rule M <- M A + B."""
    A = torch.eye(len(k), dtype=k.dtype) - lr * torch.outer(k, k)
    B = lr * torch.outer(v, k)
    return A, B


def chunk_errors(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    """Return the errors u_t = v_t - M_{t-1} k_t of all tokens of a chunk, without a loop over tokens."""
    L = lr * torch.tril(k @ k.T, -1)
    one = torch.eye(len(k), dtype=k.dtype)
    return torch.linalg.solve_triangular(one + L, v - k @ M.T, upper=False)


def _transition_oracle(k: Tensor, v: Tensor, lr: float) -> Pair:
    """Step down the gradient of half the squared error from an empty memory, and from one memory for each row of A."""

    def step(M: Tensor) -> Tensor:
        M = M.clone().requires_grad_()
        (slope,) = torch.autograd.grad(0.5 * (M @ k - v).square().sum(), M)
        return (M - lr * slope).detach()

    empty = k.new_zeros(len(v), len(k))
    B = step(empty)
    rows = []
    for i in range(len(k)):
        probe = empty.clone()
        probe[0, i] = 1.0
        rows.append((step(probe) - B)[0])
    return torch.stack(rows), B


def _parts(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.eye(len(k), dtype=k.dtype), torch.outer(k, k), torch.outer(v, k)


def _plus(k: Tensor, v: Tensor, lr: float) -> Pair:
    one, kk, vk = _parts(k, v)
    return one + lr * kk, lr * vk


def _rate_missing_in_A(k: Tensor, v: Tensor, lr: float) -> Pair:
    one, kk, vk = _parts(k, v)
    return one - kk, lr * vk


def _rate_missing_in_B(k: Tensor, v: Tensor, lr: float) -> Pair:
    one, kk, vk = _parts(k, v)
    return one - lr * kk, vk


def _no_rate(k: Tensor, v: Tensor, lr: float) -> Pair:
    one, kk, vk = _parts(k, v)
    return one - kk, vk


def _turned(k: Tensor, v: Tensor, lr: float) -> Pair:
    one, kk, vk = _parts(k, v)
    return one - lr * kk, lr * vk.T


def _a_number(k: Tensor, v: Tensor, lr: float) -> Pair:
    one, _, vk = _parts(k, v)
    return (1 - lr * k @ k) * one, lr * vk


def _without_one(k: Tensor, v: Tensor, lr: float) -> Pair:
    _, kk, vk = _parts(k, v)
    return -lr * kk, lr * vk


def _only_adds(k: Tensor, v: Tensor, lr: float) -> Pair:
    one, _, vk = _parts(k, v)
    return one, lr * vk


AS_TRANSITION = Exercise(
    name="as_transition",
    notebook="09",
    solution=as_transition,
    oracle=_transition_oracle,
    stages=(
        Stage("one key along an axis, lr 1", lambda: (torch.tensor([1.0, 0.0]).double(), *draw(1, (2,)), 1.0)),
        Stage("half a correction", lambda: (torch.tensor([0.6, 0.8]).double(), *draw(2, (2,)), 0.5)),
        Stage("a long key, and values of another length", lambda: (*draw(3, (4,), (3,)), 0.3)),
    ),
    mistakes=(
        Mistake(_plus, "The sign in A is wrong: the old answer M k is taken away, so A = I - lr k k^T."),
        Mistake(_rate_missing_in_A, "A lacks the strength: only the part lr of the old answer is erased."),
        Mistake(_rate_missing_in_B, "B lacks the strength: only the part lr of the new value is written."),
        Mistake(_no_rate, "The strength lr is missing in both: it multiplies the whole correction (v - M k) k^T."),
        Mistake(_turned, "B is turned over: a write adds torch.outer(v, k), one row for each number of v."),
        Mistake(
            _a_number,
            "You let the whole memory fade by one number. Only what is stored along the key k is erased: outer(k, k).",
        ),
        Mistake(_without_one, "A lacks the identity: what lies across the key stays as it is."),
        Mistake(_only_adds, "This is the Hebbian write: nothing is corrected. The term - lr M k k^T belongs to A."),
    ),
    hints=(
        "Multiply out M + lr (v - M k) k^T. Which parts contain M?",
        "It is M - lr M k k^T + lr v k^T. Take M out to the left of the first two.",
        "A = torch.eye(len(k), dtype=k.dtype) - lr * torch.outer(k, k), and B = lr * torch.outer(v, k).",
    ),
)


def _errors_oracle(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    errors = []
    for k_t, v_t in zip(k, v, strict=True):
        errors.append(v_t - read(M, k_t))
        M = delta(M, k_t, v_t, lr)
    return torch.stack(errors)


def _solved(L: Tensor, right: Tensor, upper: bool = False) -> Tensor:
    return torch.linalg.solve_triangular(torch.eye(len(L), dtype=L.dtype) + L, right, upper=upper)


def _at_the_start(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    return v - k @ M.T


def _with_diagonal(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    return _solved(lr * torch.tril(k @ k.T), v - k @ M.T)


def _future(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    return _solved(lr * torch.triu(k @ k.T, 1), v - k @ M.T, upper=True)


def _empty_memory(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    return _solved(lr * torch.tril(k @ k.T, -1), v)


def _no_strength(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    return _solved(torch.tril(k @ k.T, -1), v - k @ M.T)


def _minus(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    return _solved(-lr * torch.tril(k @ k.T, -1), v - k @ M.T)


def _multiplied(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    return v - k @ M.T - lr * torch.tril(k @ k.T, -1) @ (v - k @ M.T)


CHUNK_ERRORS = Exercise(
    name="chunk_errors",
    notebook="09",
    solution=chunk_errors,
    oracle=_errors_oracle,
    stages=(
        Stage("one token", lambda: (*draw(1, (2, 3), (1, 3), (1, 2)), 0.5)),
        Stage("two tokens and an empty memory", lambda: (torch.zeros(2, 3).double(), *draw(2, (2, 3), (2, 2)), 1.0)),
        Stage("three tokens", lambda: (*draw(3, (2, 3), (3, 3), (3, 2)), 0.5)),
        Stage("a chunk of twelve", lambda: (*draw(4, (4, 3), (12, 3), (12, 4)), 0.2)),
    ),
    mistakes=(
        Mistake(
            _at_the_start,
            "These are the errors of the memory the chunk began with. What the chunk has written before token t is "
            "missing: the system I + L.",
        ),
        Mistake(_with_diagonal, "L has its diagonal: a token would correct itself. torch.tril(..., -1) leaves it out."),
        Mistake(_future, "You let a token see the writes after it. L is lower triangular: torch.tril."),
        Mistake(_empty_memory, "The memory M from before the chunk is missing: the right side is v - k @ M.T."),
        Mistake(_no_strength, "L lacks lr: each earlier error was written with the strength lr."),
        Mistake(_minus, "The sign of L is wrong. Earlier writes stand on the left: u_t + sum of L u_j = v_t - M k_t."),
        Mistake(
            _multiplied,
            "You used the errors at the start of the chunk inside the sum. The sum needs the true errors, which are "
            "unknown: solve, do not multiply.",
        ),
    ),
    hints=(
        "Row t: u_t + lr * sum over j < t of (k_j . k_t) u_j = v_t - M k_t. Write all rows as one matrix equation.",
        "L = lr * torch.tril(k @ k.T, -1), and the right side is v - k @ M.T.",
        "return torch.linalg.solve_triangular(torch.eye(len(k), dtype=k.dtype) + L, v - k @ M.T, upper=False).",
    ),
)
