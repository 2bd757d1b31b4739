"""Exercises of notebook 06: which part is faster, a level that collects, and a gradient through an inner step."""

from __future__ import annotations

import math

import torch

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.levels import Level, order_levels


def faster(a: Level, b: Level) -> bool:
    """Say whether part a is faster than part b by Definition 2."""
    if a.frequency != b.frequency:
        return a.frequency > b.frequency
    return a.name in b.needs


def collect(w: float, collected: float, gradient: float, step: int, period: int, lr: float) -> tuple[float, float]:
    """Return the weight and what it has collected after one more step of a level with this period."""
    collected = collected + gradient
    if step % period == 0:
        return w - lr * collected, 0.0
    return w, collected


def start_gradient(start: float, target: float, curvature: float, lr: float) -> float:
    """Return the slope, with respect to the start, of the loss after one inner step."""
    w = start - lr * curvature * (start - target)
    return curvature * (w - target) * (1 - lr * curvature)


def _faster_oracle(a: Level, b: Level) -> bool:
    place = {part.name: k for k, level in enumerate(order_levels([a, b])) for part in level}
    return place[a.name] < place[b.name]


def _collect_oracle(
    w: float, collected: float, gradient: float, step: int, period: int, lr: float
) -> tuple[float, float]:
    """PyTorch adds gradients up until they are set to zero."""
    weight = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    weight.grad = torch.tensor(collected, dtype=torch.float64)
    (gradient * weight).backward()
    if step % period == 0:
        optimizer = torch.optim.SGD([weight], lr=lr)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return weight.item(), weight.grad.item()


def _start_gradient_oracle(start: float, target: float, curvature: float, lr: float) -> float:
    begin = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    loss = curvature / 2 * (begin - target) ** 2
    (slope,) = torch.autograd.grad(loss, begin, create_graph=True)
    adapted = begin - lr * slope
    return torch.autograd.grad(curvature / 2 * (adapted - target) ** 2, begin)[0].item()


_M, _V = Level("m", 1), Level("v", 1)
_W = Level("W", 1, needs=("m",))
_SLOW = Level("s", 10)
_FROZEN, _ATTENTION = Level("frozen", math.inf), Level("attention", 0)
_WAITING = Level("fast reader", 1, needs=("s",))

FASTER = Exercise(
    name="faster",
    notebook="06",
    solution=faster,
    oracle=_faster_oracle,
    stages=(
        Stage("momentum (every step) against a memory with period 10", lambda: (_M, _SLOW)),
        Stage("the same two the other way round", lambda: (_SLOW, _M)),
        Stage("attention against a frozen part", lambda: (_ATTENTION, _FROZEN)),
        Stage("momentum against weights that need it", lambda: (_M, _W)),
        Stage("the weights against the momentum they need", lambda: (_W, _M)),
        Stage("two moments that do not need each other", lambda: (_M, _V)),
        Stage("a slow memory that a faster part reads", lambda: (_SLOW, _WAITING)),
    ),
    mistakes=(
        Mistake(
            lambda a, b: a.period > b.period if a.period != b.period else a.name in b.needs,
            "You compare the periods. A long period is a low frequency: compare `frequency`, or turn the sign round.",
        ),
        Mistake(
            lambda a, b: a.frequency > b.frequency,
            "You use rule 1 only. If both frequencies are equal, a is faster when b needs a: `a.name in b.needs`.",
        ),
        Mistake(
            lambda a, b: a.frequency > b.frequency if a.frequency != b.frequency else b.name in a.needs,
            "Rule 2 is the wrong way round. The part that must be computed first is the faster one: b needs a.",
        ),
        Mistake(
            lambda a, b: a.frequency > b.frequency or a.name in b.needs,
            "Rule 2 counts only if the frequencies are equal. A slow memory stays slow, even if a fast part reads it.",
        ),
        Mistake(
            lambda a, b: a.frequency >= b.frequency,
            "Equal frequency alone does not make a part faster: two parts that do not need each other share a level.",
        ),
        Mistake(
            lambda a, b: a.frequency > b.frequency if a.frequency != b.frequency else a.name not in b.needs,
            "With equal frequencies you return True when b does NOT need a. It is the other way round.",
        ),
    ),
    hints=(
        "Two questions, in this order: are the frequencies different? If they are equal, does b need a?",
        "The frequency of a part is a.frequency. The names of the parts that b needs are in b.needs.",
        "If a.frequency != b.frequency return a.frequency > b.frequency, otherwise return a.name in b.needs.",
    ),
)

COLLECT = Exercise(
    name="collect",
    notebook="06",
    solution=collect,
    oracle=_collect_oracle,
    stages=(
        Stage("a level that moves at every step", lambda: (1.0, 0.0, 0.5, 1, 1, 0.1)),
        Stage("a step in the middle of a period", lambda: (1.0, 0.5, 0.25, 2, 4, 0.1)),
        Stage("the last step of a period", lambda: (1.0, 0.75, -0.25, 4, 4, 0.1)),
        Stage("the first step of the second period", lambda: (0.9, 0.0, 0.5, 5, 4, 0.1)),
    ),
    mistakes=(
        Mistake(
            lambda w, c, g, step, period, lr: (w - lr * (c + g), c + g) if step % period == 0 else (w, c + g),
            "After a move your level keeps what it collected, so the next move counts it again. Return 0 for it.",
        ),
        Mistake(
            lambda w, c, g, step, period, lr: (w - lr * g, 0.0) if step % period == 0 else (w, c + g),
            "You move by the last gradient alone. Move by the sum of all gradients of the period.",
        ),
        Mistake(
            lambda w, c, g, step, period, lr: (w - lr * (c + g) / period, 0.0) if step % period == 0 else (w, c + g),
            "You move by the mean. Equation (06.2) takes the sum; the mean would be a learning rate of lr / period.",
        ),
        Mistake(
            lambda w, c, g, step, period, lr: (w - lr * c, 0.0) if step % period == 0 else (w, c + g),
            "You move before you add the gradient of this step, so it is lost. First collect, then move.",
        ),
        Mistake(
            lambda w, c, g, step, period, lr: (w + lr * (c + g), 0.0) if step % period == 0 else (w, c + g),
            "The sign is wrong: gradients point uphill, so subtract.",
        ),
        Mistake(
            lambda w, c, g, step, period, lr: (w - lr * g, 0.0),
            "Your level moves at every step. It should move only when the step is a multiple of the period.",
        ),
        Mistake(
            lambda w, c, g, step, period, lr: (w, 0.0) if step % period else (w - lr * (c + g), 0.0),
            "Between two moves you throw away what was collected. Return collected + gradient there.",
        ),
    ),
    hints=(
        "At every step the gradient is added to what is collected. Only at some steps does the weight move.",
        "Steps count from 1: the weight moves when step % period == 0. After a move the collection starts again at 0.",
        "First collected = collected + gradient. At a move return w - lr * collected, 0.0, otherwise w, collected.",
    ),
)

START_GRADIENT = Exercise(
    name="start_gradient",
    notebook="06",
    solution=start_gradient,
    oracle=_start_gradient_oracle,
    stages=(
        Stage("no inner step (lr = 0)", lambda: (1.0, 3.0, 1.0, 0.0)),
        Stage("curvature 1 and lr = 0.1", lambda: (1.0, 3.0, 1.0, 0.1)),
        Stage("curvature 4 and lr = 0.1", lambda: (1.0, -0.5, 4.0, 0.1)),
        Stage("an inner step that arrives at the target", lambda: (1.0, 3.0, 2.0, 0.5)),
        Stage("an inner step that jumps over the target", lambda: (1.0, 3.0, 2.0, 0.75)),
    ),
    mistakes=(
        Mistake(
            lambda s, t, c, lr: c * (s - lr * c * (s - t) - t),
            "You forget that the adapted weight depends on the start: multiply by dw/dstart = 1 - lr * curvature. "
            "What you wrote is known as the first-order shortcut.",
        ),
        Mistake(
            lambda s, t, c, lr: c * (s - t),
            "This is the slope at the start, without an inner step. First adapt: w = start - lr * slope.",
        ),
        Mistake(
            lambda s, t, c, lr: (s - lr * c * (s - t) - t) * (1 - lr * c),
            "The slope of curvature / 2 * (w - target)^2 at the adapted w is curvature * (w - target): curvature is "
            "missing in your last step.",
        ),
        Mistake(
            lambda s, t, c, lr: c * (s + lr * c * (s - t) - t) * (1 + lr * c),
            "Your inner step goes uphill: w = start - lr * slope.",
        ),
        Mistake(
            lambda s, t, c, lr: c * (s - lr * (s - t) - t) * (1 - lr),
            "The slope of curvature / 2 * (w - target)^2 is curvature * (w - target): the curvature is missing in the "
            "inner step.",
        ),
    ),
    hints=(
        "Two steps: where does one inner step lead (w), and how does the loss at w change when the start changes?",
        "w = start - lr * curvature * (start - target). The chain rule needs dw/dstart = 1 - lr * curvature.",
        "Return curvature * (w - target) * (1 - lr * curvature), with w from the inner step.",
    ),
)

EXERCISES = (FASTER, COLLECT, START_GRADIENT)
