"""Exercises of notebook 07: how much was forgotten, two rates, the pull of EWC, a mean that is written one by one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nlcore import metrics
from nlcore.continual import EWC, TwoRates
from nlcore.course.exercises.framework import Exercise, Mistake, Stage

Rows = list[list[float]]
Pair = tuple[Tensor, Tensor]


def forgetting(R: Rows) -> float:
    """Return how far the old tasks are below their best, on average."""
    T = len(R)
    drops = [max(R[i][j] for i in range(T - 1)) - R[T - 1][j] for j in range(T - 1)]
    return sum(drops) / len(drops)


def two_rates_step(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    """Return the slow and the fast weights after one step."""
    F = (1 - decay) * F - lr * g
    S = S - slow_lr * g
    return S, F


def ewc_pull(W: Tensor, W_old: Tensor, importance: Tensor, lr: float, strength: float) -> Tensor:
    """Return the weights pulled back to the old ones, each as firmly as it mattered."""
    hold = lr * strength * importance
    return (W + hold * W_old) / (1 + hold)


def mean_write(mean: Tensor, n: int, x: Tensor) -> Tensor:
    """Return the mean of n + 1 examples from the mean of n and one more."""
    return mean + (x - mean) / (n + 1)


def _forgetting_oracle(R: Rows) -> float:
    return float(metrics.forgetting(R))


def _two_rates_oracle(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    W = S.clone().requires_grad_()
    optimizer = TwoRates([W], lr=lr, slow_lr=slow_lr, decay=decay, period=1)
    optimizer.parts()["fast"][0].copy_(F)
    W.grad = g.clone()
    optimizer.step()
    return optimizer.parts()["slow"][0], optimizer.parts()["fast"][0]


def _ewc_pull_oracle(W: Tensor, W_old: Tensor, importance: Tensor, lr: float, strength: float) -> Tensor:
    model = nn.ParameterDict({"W": nn.Parameter(W.clone())})
    ewc = EWC(model, strength)
    ewc.load_state_dict({"importance": [{"W": importance}], "anchor": [{"W": W_old}]})
    ewc.pull(lr)
    return model["W"].detach()


def _mean_oracle(mean: Tensor, n: int, x: Tensor) -> Tensor:
    return torch.stack([*[mean] * n, x]).mean(0)


def _from_the_diagonal(R: Rows) -> float:
    T = len(R)
    return sum(R[j][j] - R[T - 1][j] for j in range(T - 1)) / (T - 1)


def _best_of_all_rows(R: Rows) -> float:
    T = len(R)
    return sum(max(row[j] for row in R) - R[T - 1][j] for j in range(T - 1)) / (T - 1)


def _over_all_tasks(R: Rows) -> float:
    return sum(max(row[j] for row in R[:-1]) - R[-1][j] for j in range(len(R))) / len(R)


def _old_over_all(R: Rows) -> float:
    return forgetting(R) * (len(R) - 1) / len(R)


def _transposed(R: Rows) -> float:
    return forgetting([list(column) for column in zip(*R, strict=True)])


def _four(seed: int) -> Rows:
    rows: Rows = torch.rand(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    return rows


_LATE: Rows = [[0.5, 0.0, 0.0], [0.9, 0.8, 0.0], [0.6, 0.75, 0.7]]

FORGETTING = Exercise(
    name="forgetting",
    notebook="07",
    solution=forgetting,
    oracle=_forgetting_oracle,
    stages=(
        Stage("two tasks", lambda: ([[0.9, 0.1], [0.3, 0.8]],)),
        Stage("a task that is best a while after it was learned", lambda: (_LATE,)),
        Stage("a task that gets better to the end", lambda: ([[0.5, 0.2, 0.1], [0.6, 0.7, 0.1], [0.8, 0.4, 0.9]],)),
        Stage("four tasks", lambda: (_four(1),)),
    ),
    mistakes=(
        Mistake(
            _from_the_diagonal,
            "You start from R[j][j], right after the task was learned. A task may get better later: start from the "
            "best it ever was, in all rows but the last.",
        ),
        Mistake(lambda R: -forgetting(R), "The sign is the other way round: what was lost counts as positive."),
        Mistake(
            _best_of_all_rows,
            "Your best includes the last row. Then a task that improves to the end counts as 0 and not as negative.",
        ),
        Mistake(_over_all_tasks, "The newest task is no old task: leave its column out, and divide by T - 1."),
        Mistake(_old_over_all, "You divide by T. There are only T - 1 old tasks."),
        Mistake(_transposed, "Rows and columns are swapped: R[i][j] is task j after training on task i."),
        Mistake(lambda R: forgetting(R) * (len(R) - 1), "You return the sum over the old tasks. Divide it by T - 1."),
    ),
    hints=(
        "One column of R is the life of one task. The last column has no old task.",
        "For each old task j: the largest R[i][j] over all rows but the last, minus the entry of the last row.",
        "T = len(R); sum max(R[i][j] for i in range(T - 1)) - R[T - 1][j] over j in range(T - 1), divide by T - 1.",
    ),
)


def _numbers(*rows: tuple[float, float]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(rows, dtype=torch.float64))


def _random(seed: int, count: int) -> tuple[Tensor, ...]:
    return tuple(torch.rand(count, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def _fades_the_new(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    return S - slow_lr * g, (1 - decay) * (F - lr * g)


def _both_fade(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    return (1 - decay) * S - slow_lr * g, (1 - decay) * F - lr * g


def _nothing_fades(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    return S - slow_lr * g, F - lr * g


def _keeps_only_decay(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    return S - slow_lr * g, decay * F - lr * g


def _uphill(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    return S + slow_lr * g, (1 - decay) * F + lr * g


def _slow_reads_fast(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    F = (1 - decay) * F - lr * g
    return S + slow_lr * F, F


def _swapped(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    S, F = two_rates_step(S, F, g, lr, slow_lr, decay)
    return F, S


TWO_RATES_STEP = Exercise(
    name="two_rates_step",
    notebook="07",
    solution=two_rates_step,
    oracle=_two_rates_oracle,
    stages=(
        Stage("the first step, nothing fast yet", lambda: (*_numbers((1, 2), (0, 0), (0.5, -1)), 0.4, 0.1, 0.1)),
        Stage("rest, no gradient", lambda: (*_numbers((1, 2), (3, -1), (0, 0)), 0.4, 0.1, 0.1)),
        Stage("a step with all", lambda: (*_numbers((1, 2), (3, -1), (0.5, -1)), 0.4, 0.06, 0.02)),
        Stage("a matrix of weights", lambda: (*_random(2, 3), 0.3, 0.05, 0.5)),
    ),
    mistakes=(
        Mistake(
            _fades_the_new,
            "You let the new gradient fade at once. First the old F fades, then lr * g is written, whole.",
        ),
        Mistake(_both_fade, "Your slow weights fade too. Then nothing is left after a long rest: only F fades."),
        Mistake(_nothing_fades, "Nothing fades. Without decay F keeps B for ever, and A cannot come back."),
        Mistake(_keeps_only_decay, "decay is the part that is lost, so 1 - decay is what F keeps."),
        Mistake(_uphill, "The sign is wrong: both levels go down the gradient, minus lr * g and minus slow_lr * g."),
        Mistake(
            _slow_reads_fast,
            "Your slow weights learn from the fast ones. Here both learn from the same gradient, each at its own rate.",
        ),
        Mistake(_swapped, "Both levels are right, but in the wrong order: return S first, then F."),
    ),
    hints=(
        "Two memories read the same gradient. Only one of them fades.",
        "F keeps the part 1 - decay of itself and then takes minus lr * g. S takes minus slow_lr * g.",
        "F = (1 - decay) * F - lr * g; S = S - slow_lr * g; return S, F.",
    ),
)


def _gradient_step(W: Tensor, W_old: Tensor, importance: Tensor, lr: float, strength: float) -> Tensor:
    return W - lr * strength * importance * (W - W_old)


def _no_division(W: Tensor, W_old: Tensor, importance: Tensor, lr: float, strength: float) -> Tensor:
    return W + lr * strength * importance * W_old


def _other_way(W: Tensor, W_old: Tensor, importance: Tensor, lr: float, strength: float) -> Tensor:
    return ewc_pull(W_old, W, importance, lr, strength)


EWC_PULL = Exercise(
    name="ewc_pull",
    notebook="07",
    solution=ewc_pull,
    oracle=_ewc_pull_oracle,
    stages=(
        Stage("a weight that did not matter", lambda: (*_numbers((2, 3), (1, 1), (0, 0)), 0.1, 10.0)),
        Stage("a weight that mattered", lambda: (*_numbers((2, 3), (1, 1), (1, 0.5)), 0.1, 10.0)),
        Stage("a very firm hold", lambda: (*_numbers((2, 3), (1, 1), (1, 0.5)), 0.1, 10_000.0)),
        Stage("a matrix of weights", lambda: (*_random(3, 3), 0.3, 7.0)),
    ),
    mistakes=(
        Mistake(
            _gradient_step,
            "This is a gradient step on the penalty. It runs away once lr * strength * importance is above 2. Set "
            "the slope of the whole question to zero, and solve for W'.",
        ),
        Mistake(_no_division, "The sum is right. Divide it by its weights, 1 + lr * strength * importance."),
        Mistake(_other_way, "You pull the old weights to the new ones. It is the new W that is pulled."),
        Mistake(
            lambda W, W_old, importance, lr, strength: ewc_pull(W, W_old, importance, 1.0, strength),
            "You left out lr. Multiply the slope of the question by lr before you collect the terms with W'.",
        ),
        Mistake(
            lambda W, W_old, importance, lr, strength: ewc_pull(W, W_old, importance / 2, lr, strength),
            "You kept the factor 1/2 of the penalty. It cancels: the slope of a square is twice the distance.",
        ),
        Mistake(
            lambda W, W_old, importance, lr, strength: ewc_pull(W, W_old, torch.ones_like(importance), lr, strength),
            "You hold every weight alike. Multiply by importance, how much each one mattered.",
        ),
    ),
    hints=(
        "For one weight the question is a parabola in W'. Where is its slope zero?",
        "The slope is (W' - W) / lr + strength * importance * (W' - W_old). Multiply by lr and collect what has W'.",
        "hold = lr * strength * importance; return (W + hold * W_old) / (1 + hold).",
    ),
)

MEAN_WRITE = Exercise(
    name="mean_write",
    notebook="07",
    solution=mean_write,
    oracle=_mean_oracle,
    stages=(
        Stage("the second example", lambda: (*_numbers((2, 4)), 1, *_numbers((4, 0)))),
        Stage("the tenth example", lambda: (*_numbers((2, 4)), 9, *_numbers((4, 0)))),
        Stage("the first example", lambda: (*_numbers((0, 0)), 0, *_numbers((4, 0)))),
        Stage("an image", lambda: (*_random(4, 1), 41, *_random(5, 1))),
    ),
    mistakes=(
        Mistake(
            lambda mean, n, x: (mean + x) / 2,
            "Half and half is right for the second example only. Later the mean stands for n examples, and x for one.",
        ),
        Mistake(
            lambda mean, n, x: mean + (x - mean) / n,
            "You divide by n, the number seen before. With x there are n + 1 examples.",
        ),
        Mistake(
            lambda mean, n, x: (mean + x) / (n + 1),
            "The old mean counts n times, not once: n * mean + x, divided by n + 1.",
        ),
        Mistake(lambda mean, n, x: n * mean + x, "This is the sum of all examples. Divide it by n + 1."),
        Mistake(
            lambda mean, n, x: mean + (mean - x) / (n + 1),
            "The sign is wrong: the mean moves towards x, by (x - mean) / (n + 1).",
        ),
    ),
    hints=(
        "What is the sum of the n examples, if you know their mean? And of n + 1?",
        "The new mean is (n * mean + x) / (n + 1). Write it as the old mean and a correction.",
        "return mean + (x - mean) / (n + 1).",
    ),
)

EXERCISES = (FORGETTING, TWO_RATES_STEP, EWC_PULL, MEAN_WRITE)
