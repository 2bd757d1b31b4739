"""Exercises of notebook 11: a step that makes its own values, and the end of a chunk; the others are in `flips`."""

from __future__ import annotations

import torch
from torch import Tensor

from nlcore.course.exercises.flips import FLIP_RATE, STEP_EIGENVALUE
from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.memory import delta


def rewrite_boxes(S: Tensor, k: Tensor, v: Tensor, lr: float, retain: float) -> Tensor:
    """Return all boxes after one step: each learns to answer the key with its own answer to v."""
    target = S @ v
    return retain * S + lr * torch.outer(target - S @ k, k)


def anchor_token(t: int, chunk: int) -> int:
    """Return after how many tokens the boxes were in the state that token t (from 1) is generated from."""
    return chunk * ((t - 1) // chunk)


def _row_by_row(S: Tensor, k: Tensor, v: Tensor, lr: float, retain: float) -> Tensor:
    return torch.cat([delta(row[None], k, row[None] @ v, lr, retain) for row in S])


def _count(t: int, chunk: int) -> int:
    return max(n for n in range(t) if n % chunk == 0)


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _boxes(rows: int, retain: float) -> tuple[Tensor, Tensor, Tensor, float, float]:
    k = _random(2, 3)
    return _random(1, rows, 3), k / k.norm(), _random(3, 3), 0.4, retain


def _erase_first(S: Tensor, k: Tensor, v: Tensor, lr: float, retain: float) -> Tensor:
    erased = retain * S - lr * torch.outer(S @ k, k)
    return erased + lr * torch.outer(erased @ v, k)


REWRITE_BOXES = Exercise(
    name="rewrite_boxes",
    notebook="11",
    solution=rewrite_boxes,
    oracle=_row_by_row,
    stages=(
        Stage("one box, nothing fades", lambda: _boxes(3, 1.0)),
        Stage("two boxes in one matrix", lambda: _boxes(6, 1.0)),
        Stage("boxes that answer with a number, and retain 0.9", lambda: _boxes(8, 0.9)),
    ),
    mistakes=(
        Mistake(
            lambda S, k, v, lr, retain: retain * S + lr * torch.outer(v - S @ k, k),
            "You write v itself. Each box writes what it answers to v: S @ v.",
        ),
        Mistake(
            lambda S, k, v, lr, retain: retain * S + lr * torch.outer(S @ v, k),
            "Nothing is erased. Take away what the boxes answer to the key now, S @ k.",
        ),
        Mistake(
            lambda S, k, v, lr, retain: retain * S - lr * torch.outer(S @ v + S @ k, k),
            "The sign of the target is wrong: this is (NL 92) as printed. Its memories go towards minus the target.",
        ),
        Mistake(
            lambda S, k, v, lr, retain: retain * S + lr * torch.outer(S @ v - 2 * (S @ k), k),
            "You erase the old answer twice. That is the literal (NL 93); here it is erased once.",
        ),
        Mistake(
            lambda S, k, v, lr, retain: retain * (S + lr * torch.outer(S @ v - S @ k, k)),
            "The retention also scales what you write. It scales the old boxes alone.",
        ),
        Mistake(
            _erase_first,
            "You make the target with boxes that are half written. All answers come from the boxes before the step.",
        ),
        Mistake(
            lambda S, k, v, lr, retain: retain * S + lr * torch.outer(S @ k - S @ v, v),
            "Key and value are exchanged: the boxes learn to answer k, with what they now answer to v.",
        ),
    ),
    hints=(
        "It is the delta rule: retain * S + lr * (target - answer) k^T. Target and answer have one number a row of S.",
        "The answer is S @ k. The target is S @ v, with the same S.",
        "return retain * S + lr * torch.outer(S @ v - S @ k, k)",
    ),
)

ANCHOR_TOKEN = Exercise(
    name="anchor_token",
    notebook="11",
    solution=anchor_token,
    oracle=_count,
    stages=(
        Stage("the first token", lambda: (1, 4)),
        Stage("the last token of a chunk", lambda: (8, 4)),
        Stage("the first token of the third chunk", lambda: (9, 4)),
        Stage("chunks of one token", lambda: (7, 1)),
    ),
    mistakes=(
        Mistake(
            lambda t, chunk: chunk * -(-t // chunk),
            "This is the printed index, the end of the token's own chunk. That state does not exist yet.",
        ),
        Mistake(
            lambda t, chunk: chunk * (t // chunk),
            "The last token of a chunk would need the state after itself. Its chunk began chunk - 1 tokens earlier.",
        ),
        Mistake(lambda t, chunk: t - 1, "That is the state before the token, right only for chunks of one token."),
        Mistake(
            lambda t, chunk: (t - 1) // chunk,
            "That is the number of whole chunks before this one. How many tokens are in them?",
        ),
        Mistake(
            lambda t, chunk: chunk * ((t - 1) // chunk) + 1,
            "That is the first token of the chunk. The state before it was there after one token less.",
        ),
    ),
    hints=(
        "The tokens 1 to C are generated from the start, after 0 tokens. And the tokens C + 1 to 2 C?",
        "(t - 1) // chunk whole chunks lie before token t.",
        "return chunk * ((t - 1) // chunk)",
    ),
)

EXERCISES = (REWRITE_BOXES, ANCHOR_TOKEN, STEP_EIGENVALUE, FLIP_RATE)
