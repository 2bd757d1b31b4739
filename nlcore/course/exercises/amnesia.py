"""Exercises of notebook 01: write a fact, correct a fact, find the nearest code, how long a fact lives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage


def write_fact(M: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the memory after a Hebbian write of the pair (k, v)."""
    return M + torch.outer(v, k)


def correct_fact(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    """Return the memory after a delta write of the pair (k, v)."""
    error = v - M @ k
    return M + lr * torch.outer(error, k)


def nearest_code(answers: Tensor, codes: Tensor) -> Tensor:
    """Return for each answer the number of the code that is nearest to it."""
    return (answers @ codes.T).argmax(-1)


def half_life(retain: float) -> int:
    """Return the smallest number of writes after which less than half of a fact is left."""
    writes, left = 0, 1.0
    while left >= 0.5:
        left, writes = left * retain, writes + 1
    return writes


def _write_fact_oracle(M: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return M + torch.einsum("i,j->ij", v, k)


def _correct_fact_oracle(M: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    weights = torch.nn.Parameter(M.clone())
    (0.5 * (weights @ k - v).square().sum()).backward()
    torch.optim.SGD([weights], lr=lr).step()
    return weights.detach()


def _nearest_code_oracle(answers: Tensor, codes: Tensor) -> Tensor:
    return torch.cdist(answers, codes).argmin(-1)


def _half_life_oracle(retain: float) -> int:
    return math.floor(math.log(0.5) / math.log(retain)) + 1


def _numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pair(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return _numbers(rows, columns, seed=seed), _numbers(columns, seed=seed + 1), _numbers(rows, seed=seed + 2)


def _codes(count: int, dim: int, seed: int) -> Tensor:
    drawn = _numbers(count, dim, seed=seed)
    return drawn / drawn.norm(dim=-1, keepdim=True)


def _pointing_away() -> tuple[Tensor, Tensor]:
    codes = _codes(4, 4, seed=8)
    return codes[1:2] - 3.0 * codes[2:3], codes


def _one_slot(M: float, k: float, v: float) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.tensor(x, dtype=torch.float64) for x in ([[M]], [k], [v]))  # type: ignore[return-value]


WRITE_FACT = Exercise(
    name="write_fact",
    notebook="01",
    solution=write_fact,
    oracle=_write_fact_oracle,
    stages=(
        Stage("a memory of one number", lambda: _one_slot(0.0, 1.0, 5.0)),
        Stage("an empty memory", lambda: (torch.zeros(2, 2, dtype=torch.float64), *_pair(2, 2, seed=1)[1:])),
        Stage("a memory that holds something already", lambda: _pair(2, 2, seed=2)),
        Stage("values that are longer than keys", lambda: _pair(4, 3, seed=3)),
    ),
    mistakes=(
        Mistake(
            lambda M, k, v: torch.outer(v, k),
            "You return the new pair alone, so all that was stored is gone. Add it to M.",
        ),
        Mistake(
            lambda M, k, v: M + torch.outer(k, v),
            "You wrote k v^T. The memory has one row for each number of the value: the value comes first, v k^T.",
        ),
        Mistake(
            lambda M, k, v: M - torch.outer(v, k),
            "The sign is wrong: you take the pair out of the memory. A write adds it.",
        ),
        Mistake(
            lambda M, k, v: M + v * k,
            "v * k multiplies number by number. Every number of v must meet every number of k: an outer product.",
        ),
        Mistake(
            lambda M, k, v: M + v @ k,
            "v @ k is a single number. The write is a matrix of the shape of M: an outer product.",
        ),
        Mistake(
            lambda M, k, v: M + torch.outer(v - M @ k, k),
            "You correct what the memory answers; that is the delta rule, the next exercise. Here add the plain pair.",
        ),
    ),
    hints=(
        "The memory has the shape (d_v, d_k). Which product of v and k has the same shape?",
        "torch.outer(a, b) has one row for each number of a and one column for each number of b.",
        "Return M + torch.outer(v, k).",
    ),
)

CORRECT_FACT = Exercise(
    name="correct_fact",
    notebook="01",
    solution=correct_fact,
    oracle=_correct_fact_oracle,
    stages=(
        Stage("a memory of one number that answers 3 where 5 is right", lambda: (*_one_slot(3.0, 1.0, 5.0), 1.0)),
        Stage("a full step", lambda: (*_pair(2, 2, seed=4), 1.0)),
        Stage("a small step", lambda: (*_pair(2, 2, seed=5), 0.1)),
        Stage("keys that are longer than values", lambda: (*_pair(3, 5, seed=6), 0.3)),
    ),
    mistakes=(
        Mistake(
            lambda M, k, v, lr: M - lr * torch.outer(v - M @ k, k),
            "The sign is wrong: the error v - M k points from the answer to the right value, so move along it.",
        ),
        Mistake(
            lambda M, k, v, lr: M + lr * torch.outer(v, k),
            "This is the Hebbian write. Take what the memory answers already, M k, away from the value first.",
        ),
        Mistake(lambda M, k, v, lr: M + torch.outer(v - M @ k, k), "You forgot lr: multiply the correction by it."),
        Mistake(lambda M, k, v, lr: lr * torch.outer(v - M @ k, k), "You return the correction alone. Add it to M."),
        Mistake(
            lambda M, k, v, lr: M + 2 * lr * torch.outer(v - M @ k, k),
            "Your correction is twice as large: that is the gradient of |M k - v|^2 without the factor 1/2.",
        ),
        Mistake(
            lambda M, k, v, lr: M + lr * torch.outer(v - M @ k, k) / k.square().sum(),
            "You divide by the squared length of the key. The gradient step does not.",
        ),
        Mistake(
            lambda M, k, v, lr: M + lr * torch.outer(k, v - M @ k),
            "You wrote k (v - M k)^T. As in exercise 1, what is stored comes first: (v - M k) k^T.",
        ),
    ),
    hints=(
        "Ask the memory first: what does it answer to k? Then write only what is missing.",
        "The error is v - M @ k. Write it as in exercise 1, with the error in the place of v, multiplied by lr.",
        "Return M + lr * torch.outer(v - M @ k, k).",
    ),
)

NEAREST_CODE = Exercise(
    name="nearest_code",
    notebook="01",
    solution=nearest_code,
    oracle=_nearest_code_oracle,
    stages=(
        Stage("one answer that is a code", lambda: (_codes(3, 2, seed=13)[2:], _codes(3, 2, seed=13))),
        Stage("an answer that points away from a code", _pointing_away),
        Stage("six noisy answers", lambda: (_numbers(6, 5, seed=9), _codes(4, 5, seed=10))),
        Stage("as many answers as codes", lambda: (_numbers(7, 3, seed=11), _codes(7, 3, seed=12))),
    ),
    mistakes=(
        Mistake(
            lambda answers, codes: (answers @ codes.T).argmin(-1),
            "You found the code that is farthest away: take the largest dot product (or the smallest distance).",
        ),
        Mistake(
            lambda answers, codes: (answers @ codes.T).argmax(0),
            "You look for the best answer of each code. Go along the codes instead: the last axis, argmax(-1).",
        ),
        Mistake(
            lambda answers, codes: (answers @ codes.T).amax(-1),
            "You return how large the best dot product is. Return where it is: argmax instead of max.",
        ),
        Mistake(
            lambda answers, codes: answers.argmax(-1),
            "You look for the largest number in the answer itself. Compare the answer with every code first.",
        ),
        Mistake(
            lambda answers, codes: (answers @ codes.T).abs().argmax(-1),
            "Without its sign, a code that points the opposite way looks near. Leave abs out.",
        ),
        Mistake(
            lambda answers, codes: answers @ codes.T,
            "You return all the dot products. Now say for each answer (each row) where the largest stands.",
        ),
    ),
    hints=(
        "All codes have length 1. Then the nearest code is the one with the largest dot product with the answer.",
        "answers @ codes.T holds the dot product of every answer (row) with every code (column).",
        "Return (answers @ codes.T).argmax(-1).",
    ),
)

HALF_LIFE = Exercise(
    name="half_life",
    notebook="01",
    solution=half_life,
    oracle=_half_life_oracle,
    stages=(
        Stage("a memory that keeps a quarter at each write", lambda: (0.25,)),
        Stage("a memory that keeps 0.6", lambda: (0.6,)),
        Stage("a memory that keeps 0.9", lambda: (0.9,)),
        Stage("the memory of the experiment, which keeps 0.98", lambda: (0.98,)),
        Stage("a memory that keeps 0.999", lambda: (0.999,)),
    ),
    mistakes=(
        Mistake(
            lambda retain: math.floor(math.log(0.5) / math.log(retain)),
            "One write too few: after that many writes a little more than half is still left.",
        ),
        Mistake(
            lambda retain: math.log(0.5) / math.log(retain),
            "This is the exact time, (01.7). The question is after which whole write less than half is left: round up.",
        ),
        Mistake(
            lambda retain: math.floor(0.5 / (1 - retain)) + 1,
            "You let the fact lose the same amount each time. It keeps the same part each time: retain ** n is left.",
        ),
        Mistake(
            lambda retain: math.floor(math.log(0.5) / math.log(1 - retain)) + 1,
            "You used 1 - retain, the part that is lost. After n writes the part retain ** n is left.",
        ),
        Mistake(
            lambda retain: 1 / (1 - retain),
            "This is how long a fact lives on average. The question is when less than half of it is left.",
        ),
    ),
    hints=(
        "After one write the part retain is left, after two retain ** 2, and so on. When is it below 0.5 first?",
        "Start with left = 1.0 and multiply by retain in a while loop; count how often.",
        "while left >= 0.5: left, writes = left * retain, writes + 1. Then return writes.",
    ),
)

EXERCISES = (WRITE_FACT, CORRECT_FACT, NEAREST_CODE, HALF_LIFE)
