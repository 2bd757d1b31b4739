"""Exercises of notebook 03 on the past: the weight of each gradient, and how many gradients hold a share."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import torch

from nlcore.course.exercises.framework import Exercise, Mistake, Stage


def weights_of_the_past(beta: float, n: int) -> list[float]:
    """Return the shares of the last n gradients in the memory, the newest first."""
    return [(1 - beta) * beta**k for k in range(n)]


def horizon(beta: float, share: float) -> int:
    """Return the smallest number of last gradients that hold at least this share of the memory."""
    return math.ceil(math.log(1 - share) / math.log(beta))


def _weights_oracle(beta: float, n: int) -> list[float]:
    """Give torch's momentum one unit gradient in each direction; its buffer then lists the weights of all ages."""
    weight = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0, momentum=beta)
    optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    for gradient in torch.eye(n, dtype=torch.float64):
        weight.grad = gradient.clone()
        optimizer.step()
    last = torch.eye(n, dtype=torch.float64)[-1]
    buffer = optimizer.state[weight]["momentum_buffer"] if beta else last
    return ((1 - beta) * buffer.flip(0)).tolist()


def _horizon_oracle(beta: float, share: float) -> int:
    """Count, with fifty digits, until the last gradients hold enough."""
    with localcontext() as context:
        context.prec = 50
        kept, count = Decimal(1), 0
        while 1 - kept < Decimal(str(share)):
            kept, count = kept * Decimal(str(beta)), count + 1
    return count


def _normalised_weights(beta: float, n: int) -> list[float]:
    return [weight / (1 - beta**n) for weight in weights_of_the_past(beta, n)]


WEIGHTS_OF_THE_PAST = Exercise(
    name="weights_of_the_past",
    notebook="03",
    solution=weights_of_the_past,
    oracle=_weights_oracle,
    stages=(
        Stage("the newest gradient alone", lambda: (0.9, 1)),
        Stage("the last five gradients with beta = 0.9", lambda: (0.9, 5)),
        Stage("the last four gradients with beta = 0.5", lambda: (0.5, 4)),
        Stage("beta = 0, which remembers only the newest", lambda: (0.0, 3)),
    ),
    mistakes=(
        Mistake(
            lambda beta, n: [(1 - beta) * beta**k for k in reversed(range(n))],
            "Your list has the oldest gradient first. Put the newest, which weighs most, first.",
        ),
        Mistake(
            lambda beta, n: [(1 - beta) * beta ** (k + 1) for k in range(n)],
            "You start to count ages at 1. The newest gradient has the age 0: it has not faded yet.",
        ),
        Mistake(
            lambda beta, n: [beta**k for k in range(n)],
            "These are the weights inside m. Shares of the whole add up to 1 in the long run: multiply by 1 - beta.",
        ),
        Mistake(
            lambda beta, n: [beta * (1 - beta) ** k for k in range(n)],
            "beta and 1 - beta have changed places: what is kept at each step is beta.",
        ),
        Mistake(
            _normalised_weights,
            "Your n weights add up to 1. They should not: gradients older than these n hold the rest.",
        ),
        Mistake(
            lambda beta, n: [1 / n for _ in range(n)],
            "You give every gradient the same weight. Momentum fades: an older gradient weighs less.",
        ),
    ),
    hints=(
        "A gradient of age k has been multiplied by beta k times. The newest has the age 0.",
        "Without a factor the weights beta^0 + beta^1 + beta^2 + ... add up to 1 / (1 - beta).",
        "Return [(1 - beta) * beta**k for k in range(n)].",
    ),
)

HORIZON = Exercise(
    name="horizon",
    notebook="03",
    solution=horizon,
    oracle=_horizon_oracle,
    stages=(
        Stage("half of the memory, beta = 0.9", lambda: (0.9, 0.5)),
        Stage("99 % of the memory, beta = 0.9", lambda: (0.9, 0.99)),
        Stage("90 % of the memory, beta = 0.99", lambda: (0.99, 0.9)),
        Stage("99 % of the memory, beta = 0.999", lambda: (0.999, 0.99)),
        Stage("a share that is reached exactly", lambda: (0.5, 0.75)),
        Stage("a share that the newest gradient holds alone", lambda: (0.5, 0.3)),
    ),
    mistakes=(
        Mistake(
            lambda beta, share: int(math.log(1 - share) / math.log(beta)),
            "You round down. Then the share is not reached yet: 43 gradients do not hold 99 % at beta = 0.9. Round up.",
        ),
        Mistake(
            lambda beta, share: int(math.log(1 - share) / math.log(beta)) + 1,
            "You count one too many where the share is reached exactly: at beta = 0.5 two gradients hold exactly 75 %.",
        ),
        Mistake(
            lambda beta, share: round(math.log(1 - share) / math.log(beta)),
            "You round to the nearest number. When that is down, the share is not reached yet. Round up.",
        ),
        Mistake(
            lambda beta, share: math.ceil(math.log(1 - share) / math.log(beta)) - 1,
            "You return the age of the last gradient that counts. Ages begin at 0, so there is one gradient more.",
        ),
        Mistake(
            lambda beta, share: math.log(1 - share) / math.log(beta),
            "That is the exact crossing, but gradients come one at a time: return the next whole number.",
        ),
        Mistake(
            lambda beta, share: math.ceil(math.log(share) / math.log(beta)),
            "You used beta^n = share. What has faded is 1 - share: solve beta^n = 1 - share.",
        ),
        Mistake(
            lambda beta, share: round(1 / (1 - beta)),
            "1 / (1 - beta) is a rule of thumb for the length of the memory. It does not know the share.",
        ),
    ),
    hints=(
        "The last n gradients hold 1 - beta^n. Ask for the smallest n with 1 - beta^n >= share.",
        "Solve beta^n = 1 - share with logarithms, or count n up from 1 until the share is reached.",
        "Return math.ceil(math.log(1 - share) / math.log(beta)).",
    ),
)
