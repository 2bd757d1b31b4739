"""Exercises of notebook 10 on one token: a step of Titans, and what is left of a write later."""

from __future__ import annotations

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.course.exercises.titans_chunks import CHUNK_ERRORS, LARGEST_RATE
from nlcore.sequence import MemoryState, titans_memory

Pair = tuple[Tensor, Tensor]


def titans_step(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    """Return the memory and its momentum after one token."""
    surprise = v - M @ k
    Z = momentum * Z + lr * torch.outer(surprise, k)
    M = retain * M + Z
    return M, Z


def carried_weight(lr: float, momentum: float, retain: float, steps: int) -> float:
    """Return what is left in the memory of one write, `steps` tokens after it."""
    return lr * sum(momentum**i * retain ** (steps - i) for i in range(steps + 1))


def _titans_step_oracle(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    key, value = k.view(1, 1, 1, -1), v.view(1, 1, 1, -1)
    begun = MemoryState(M[None, None], Z[None, None])
    _, state = titans_memory(key, key, value, lr, momentum, retain, state=begun)
    assert state.Z is not None
    return state.M[0, 0], state.Z[0, 0]


def _carried_weight_oracle(lr: float, momentum: float, retain: float, steps: int) -> float:
    """Write 1 for the key 1, then read tokens with the key 0, which write nothing."""
    key = torch.zeros(1, 1, steps + 1, 1, dtype=torch.float64)
    key[:, :, 0] = 1.0
    _, state = titans_memory(key, key, torch.ones_like(key), lr, momentum, retain)
    return state.M.item()


def tokens(seed: int, d_v: int = 3, d_k: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a memory, a momentum, a key and a value, all random."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (d_v, d_k), (d_v, d_k), (d_k,), (d_v,)
    M, Z, k, v = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return M, Z, k, v


def _empty(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    M, Z, k, v = tokens(seed)
    return torch.zeros_like(M), torch.zeros_like(Z), k, v


def _adds_the_value(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    Z = momentum * Z + lr * torch.outer(v, k)
    return retain * M + Z, Z


def _uphill(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    Z = momentum * Z + lr * torch.outer(M @ k - v, k)
    return retain * M + Z, Z


def _decay_first(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    return titans_step(retain * M, Z, k, v, lr, momentum, 1.0)


def _decays_the_write(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    Z = momentum * Z + lr * torch.outer(v - M @ k, k)
    return retain * (M + Z), Z


def _old_momentum(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    return retain * M + Z, momentum * Z + lr * torch.outer(v - M @ k, k)


def _mean(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    Z = momentum * Z + (1 - momentum) * lr * torch.outer(v - M @ k, k)
    return retain * M + Z, Z


def _titans_alpha(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    return titans_step(M, Z, k, v, lr, momentum, 1 - retain)


def _lr_on_momentum(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    Z = momentum * Z + torch.outer(v - M @ k, k)
    return retain * M + lr * Z, Z


def _swapped(M: Tensor, Z: Tensor, k: Tensor, v: Tensor, lr: float, momentum: float, retain: float) -> Pair:
    M, Z = titans_step(M, Z, k, v, lr, momentum, retain)
    return Z, M


TITANS_STEP = Exercise(
    name="titans_step",
    notebook="10",
    solution=titans_step,
    oracle=_titans_step_oracle,
    stages=(
        Stage("the first token of a stream", lambda: (*_empty(0), 0.5, 0.0, 1.0)),
        Stage("a memory that knows something, no momentum", lambda: (*tokens(1), 0.5, 0.0, 1.0)),
        Stage("momentum", lambda: (*tokens(2), 0.3, 0.9, 1.0)),
        Stage("momentum and decay", lambda: (*tokens(3), 0.3, 0.9, 0.95)),
    ),
    mistakes=(
        Mistake(
            _adds_the_value,
            "You write the value itself, as linear attention does. Titans writes the surprise, v - M @ k.",
        ),
        Mistake(_uphill, "The sign is wrong: the memory moves away from v. The surprise is v - M @ k."),
        Mistake(
            _decay_first,
            "You let M fade before you ask it. The surprise is measured at the memory as it was, M_{t-1}.",
        ),
        Mistake(
            _decays_the_write,
            "Your new write fades at once. Only the old memory fades: retain * M, then + Z, whole.",
        ),
        Mistake(_old_momentum, "You add the old Z. First renew Z with this token, then add it to the memory."),
        Mistake(
            _mean,
            "You take a moving mean, with 1 - momentum before the new part. Titans adds the surprise in full.",
        ),
        Mistake(
            _titans_alpha,
            "In the Titans paper alpha is the part that is lost. Here retain is the part that is kept.",
        ),
        Mistake(
            _lr_on_momentum,
            "You multiply all of Z by lr. Here lr belongs to the new surprise, so that a token keeps its own rate.",
        ),
        Mistake(
            lambda M, Z, k, v, lr, momentum, retain: titans_step(M, Z, k, v, lr, momentum, 1.0),
            "Nothing fades in your memory: M keeps only the part retain of itself.",
        ),
        Mistake(_swapped, "Both are right, but in the wrong order: return M first, then Z."),
    ),
    hints=(
        "Three lines: the surprise, the momentum, the memory. Each uses the one before.",
        "The surprise is v - M @ k. torch.outer(surprise, k) is the write; Z takes lr times it.",
        "Z = momentum * Z + lr * torch.outer(v - M @ k, k); M = retain * M + Z; return M, Z.",
    ),
)

CARRIED_WEIGHT = Exercise(
    name="carried_weight",
    notebook="10",
    solution=carried_weight,
    oracle=_carried_weight_oracle,
    stages=(
        Stage("the token itself", lambda: (0.5, 0.9, 0.95, 0)),
        Stage("momentum, no decay", lambda: (0.5, 0.9, 1.0, 3)),
        Stage("decay, no momentum", lambda: (0.5, 0.0, 0.9, 3)),
        Stage("both", lambda: (0.5, 0.9, 0.8, 5)),
        Stage("both alike", lambda: (0.5, 0.9, 0.9, 5)),
    ),
    mistakes=(
        Mistake(
            lambda lr, momentum, retain, steps: lr * momentum**steps,
            "This is what is left in Z. In M stands the sum of all that Z has brought, faded by retain.",
        ),
        Mistake(
            lambda lr, momentum, retain, steps: lr * retain**steps,
            "This is a write without momentum. Z goes on writing for `steps` tokens more: add these writes too.",
        ),
        Mistake(
            lambda lr, momentum, retain, steps: lr * sum(momentum**i for i in range(steps + 1)),
            "You add up all that Z brings, but nothing fades. What came i tokens late has faded steps - i times.",
        ),
        Mistake(
            lambda lr, momentum, retain, steps: lr * sum(momentum**i * retain ** (steps - i) for i in range(steps)),
            "One term is missing: after `steps` tokens Z has written steps + 1 times, the first one included.",
        ),
        Mistake(
            lambda lr, momentum, retain, steps: lr * sum((momentum * retain) ** i for i in range(steps + 1)),
            "Your late additions fade longest. What Z adds after i tokens has only steps - i tokens left to fade.",
        ),
        Mistake(
            lambda lr, momentum, retain, steps: sum(momentum**i * retain ** (steps - i) for i in range(steps + 1)),
            "The sum is right. Multiply it by lr.",
        ),
        Mistake(
            lambda lr, momentum, retain, steps: (
                lr * (retain ** (steps + 1) - momentum ** (steps + 1)) / (retain - momentum)
            ),
            "The closed form of the sum is right, except where momentum and retain are equal: then it divides by zero.",
        ),
    ),
    hints=(
        "After i tokens Z holds momentum**i of the write and adds it to M. How long does each addition then fade?",
        "What is added after i tokens has steps - i tokens left, so it is multiplied by retain ** (steps - i).",
        "return lr * sum(momentum**i * retain ** (steps - i) for i in range(steps + 1)).",
    ),
)

EXERCISES = (TITANS_STEP, CARRIED_WEIGHT, CHUNK_ERRORS, LARGEST_RATE)
