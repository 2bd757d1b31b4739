"""Exercises of notebook 07 that move weights: one step with two rates, and the pull of EWC."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nlcore.continual import EWC, TwoRates
from nlcore.course.exercises.framework import Exercise, Mistake, Stage

Pair = tuple[Tensor, Tensor]


def two_rates_step(S: Tensor, F: Tensor, g: Tensor, lr: float, slow_lr: float, decay: float) -> Pair:
    """Return the slow and the fast weights after one step."""
    F = (1 - decay) * F - lr * g
    S = S - slow_lr * g
    return S, F


def ewc_pull(W: Tensor, W_old: Tensor, importance: Tensor, lr: float, strength: float) -> Tensor:
    """Return the weights pulled back to the old ones, each as firmly as it mattered."""
    hold = lr * strength * importance
    return (W + hold * W_old) / (1 + hold)


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


def numbers(*rows: tuple[float, float]) -> tuple[Tensor, ...]:
    """Return each row as a vector."""
    return tuple(torch.tensor(rows, dtype=torch.float64))


def random(seed: int, count: int) -> tuple[Tensor, ...]:
    """Return `count` random matrices."""
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
        Stage("the first step, nothing fast yet", lambda: (*numbers((1, 2), (0, 0), (0.5, -1)), 0.4, 0.1, 0.1)),
        Stage("rest, no gradient", lambda: (*numbers((1, 2), (3, -1), (0, 0)), 0.4, 0.1, 0.1)),
        Stage("a step with all", lambda: (*numbers((1, 2), (3, -1), (0.5, -1)), 0.4, 0.06, 0.02)),
        Stage("a matrix of weights", lambda: (*random(2, 3), 0.3, 0.05, 0.5)),
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
        Stage("a weight that did not matter", lambda: (*numbers((2, 3), (1, 1), (0, 0)), 0.1, 10.0)),
        Stage("a weight that mattered", lambda: (*numbers((2, 3), (1, 1), (1, 0.5)), 0.1, 10.0)),
        Stage("a very firm hold", lambda: (*numbers((2, 3), (1, 1), (1, 0.5)), 0.1, 10_000.0)),
        Stage("a matrix of weights", lambda: (*random(3, 3), 0.3, 7.0)),
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
