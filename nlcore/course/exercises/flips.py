"""Exercises of notebook 11 on the one eigenvalue of a self-modifying step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage


def step_eigenvalue(k: Tensor, v: Tensor, lr: float, retain: float) -> Tensor:
    """Return the eigenvalue of retain I - lr (k - v) k^T that differs from retain."""
    return retain - lr * torch.dot(k, k - v)


def flip_rate(k_dot_v: float) -> float:
    """Return the learning rate above which the eigenvalue 1 - lr (1 - k.v) is negative; math.inf if there is none."""
    return math.inf if k_dot_v >= 1 else 1 / (1 - k_dot_v)


def _from_trace(k: Tensor, v: Tensor, lr: float, retain: float) -> Tensor:
    step = retain * torch.eye(len(k), dtype=k.dtype) - lr * torch.outer(k - v, k)
    return torch.linalg.eigvals(step).real.sum() - (len(k) - 1) * retain


def _zero_crossing(k_dot_v: float) -> float:
    if k_dot_v == 1:
        return math.inf
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - middle * (1 - k_dot_v) > 0 else (low, middle)
    return high


def _unit(seed: int, length: float = 1.0) -> Tensor:
    x = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return length * x / x.norm()


STEP_EIGENVALUE = Exercise(
    name="step_eigenvalue",
    notebook="11",
    solution=step_eigenvalue,
    oracle=_from_trace,
    stages=(
        Stage("a value that is minus the key", lambda: (_unit(1), -_unit(1), 0.9, 1.0)),
        Stage("any value", lambda: (_unit(1), _unit(2), 0.9, 1.0)),
        Stage("retain 0.8", lambda: (_unit(1), _unit(2), 0.9, 0.8)),
        Stage("a key of length 0.5", lambda: (_unit(1, 0.5), _unit(2), 0.9, 0.8)),
    ),
    mistakes=(
        Mistake(
            lambda k, v, lr, retain: retain - lr * torch.dot(k, k),
            "That is the eigenvalue of the plain delta rule. Here the value is made by the memory: k . v counts too.",
        ),
        Mistake(
            lambda k, v, lr, retain: retain - lr * torch.dot(k, k + v),
            "The sign of k . v is wrong: what is written adds lr v k^T.",
        ),
        Mistake(
            lambda k, v, lr, retain: 1 - lr * torch.dot(k, k - v),
            "What fades is missing: with lr = 0 the eigenvalue is retain.",
        ),
        Mistake(
            lambda k, v, lr, retain: retain * (1 - lr * torch.dot(k, k - v)),
            "The retention scales the old memory alone, not the correction: retain I - lr (k - v) k^T.",
        ),
        Mistake(
            lambda k, v, lr, retain: retain - lr * (1 - torch.dot(k, v)),
            "That holds for keys of length one. In general k . k stands where you have 1.",
        ),
        Mistake(
            lambda k, v, lr, retain: retain - lr * k * (k - v),
            "You return a vector. The eigenvalue is one number: sum over the product of k and k - v.",
        ),
    ),
    hints=(
        "A matrix u k^T has one eigenvalue that is not 0: k . u. What is u here?",
        "The step is retain I - lr (k - v) k^T. Adding retain I adds retain to every eigenvalue.",
        "return retain - lr * (k * (k - v)).sum()",
    ),
)

FLIP_RATE = Exercise(
    name="flip_rate",
    notebook="11",
    solution=flip_rate,
    oracle=_zero_crossing,
    stages=(
        Stage("k.v = 0, the plain delta rule", lambda: (0.0,)),
        Stage("k.v = -1", lambda: (-1.0,)),
        Stage("k.v = 0.6", lambda: (0.6,)),
        Stage("k.v = 1, where nothing flips", lambda: (1.0,)),
    ),
    mistakes=(
        Mistake(
            lambda k_dot_v: 1 / (1 - k_dot_v),
            "For k.v = 1 the eigenvalue is 1 at every rate: return math.inf there.",
        ),
        Mistake(
            lambda k_dot_v: math.inf if k_dot_v == 1 else 2 / (1 - k_dot_v),
            "There the eigenvalue is -1. It becomes negative at half of that rate.",
        ),
        Mistake(
            lambda k_dot_v: math.inf if k_dot_v == -1 else 1 / (1 + k_dot_v),
            "The sign of k.v is wrong: a value that points against the key makes flipping easier.",
        ),
        Mistake(lambda k_dot_v: 1.0, "That is the rate of the plain delta rule. The value moves it."),
        Mistake(
            lambda k_dot_v: math.inf if k_dot_v == 1 else 1 - k_dot_v,
            "You have the inverse: a value against the key makes the needed rate smaller.",
        ),
    ),
    hints=(
        "Set 1 - lr (1 - k.v) to zero and solve for lr.",
        "lr = 1 / (1 - k.v). What happens for k.v = 1?",
        "return math.inf if k_dot_v == 1 else 1 / (1 - k_dot_v)",
    ),
)
