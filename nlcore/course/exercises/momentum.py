"""Exercises of notebook 03: one step of momentum, its learning rates, and (in `horizons`) how far back it remembers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlcore.course.exercises.framework import Exercise, Mistake, Stage
from nlcore.course.exercises.horizons import HORIZON, WEIGHTS_OF_THE_PAST

Step = tuple[Tensor, Tensor]


def momentum_step(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    """Return the weights and the memory after one step of momentum."""
    m = beta * m + g
    W = W - lr * m
    return W, m


def lr_for_average(lr: float, beta: float) -> float:
    """Return the learning rate that makes an averaging momentum move the weights as torch's momentum does with `lr`."""
    return lr / (1 - beta)


def _momentum_step_oracle(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    weight = W.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=beta)
    optimizer.state[weight]["momentum_buffer"] = m.clone()
    weight.grad = g.clone()
    optimizer.step()
    buffer = m if beta == 0 else optimizer.state[weight]["momentum_buffer"]
    return weight.detach(), g.clone() if beta == 0 else buffer


def _lr_for_average_oracle(lr: float, beta: float) -> float:
    """Walk with torch's momentum, and with its `dampening` as an average at lr = 1; compare how far they came."""
    return _torch_walk(lr, beta, dampening=0.0) / _torch_walk(1.0, beta, dampening=beta)


def _torch_walk(lr: float, beta: float, dampening: float) -> float:
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=beta, dampening=dampening)
    optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)  # torch does not dampen into an empty buffer
    for gradient in (1.0, -0.5, 2.0):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
    return weight.item()


def _case(memory: tuple[float, float], beta: float) -> tuple[Tensor, Tensor, Tensor, float, float]:
    W, m, g = torch.tensor([(1.0, -2.0), memory, (0.5, 1.0)], dtype=torch.float64)
    return W, m, g, 0.1, beta


def _matrix(seed: int) -> Tensor:
    return torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _moves_by_old_memory(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    return W - lr * m, beta * m + g


def _average(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    m = beta * m + (1 - beta) * g
    return W - lr * m, m


def _uphill(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    m = beta * m + g
    return W + lr * m, m


def _rate_in_memory(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    m = beta * m + lr * g
    return W - m, m


def _never_forgets(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    m = m + g
    return W - lr * m, m


def _nesterov(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    m = beta * m + g
    return W - lr * (g + beta * m), m


def _moves_by_gradient(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    return W - lr * g, beta * m + g


def _wrong_order(W: Tensor, m: Tensor, g: Tensor, lr: float, beta: float) -> Step:
    W, m = momentum_step(W, m, g, lr, beta)
    return m, W


MOMENTUM_STEP = Exercise(
    name="momentum_step",
    notebook="03",
    solution=momentum_step,
    oracle=_momentum_step_oracle,
    stages=(
        Stage("the first step, with an empty memory", lambda: _case(memory=(0, 0), beta=0.9)),
        Stage("a step with a memory", lambda: _case(memory=(2, -3), beta=0.9)),
        Stage("beta = 0, plain gradient descent", lambda: _case(memory=(2, -3), beta=0.0)),
        Stage("a matrix of weights", lambda: (_matrix(0), _matrix(1), _matrix(2), 0.03, 0.8)),
    ),
    mistakes=(
        Mistake(
            _average,
            "You write (1 - beta) * g into the memory. That is a moving average, as in Adam. Here all of g is written.",
        ),
        Mistake(_uphill, "The sign is wrong: the weights move against the memory, W - lr * m, or the loss grows."),
        Mistake(
            _moves_by_old_memory,
            "You move the weights by the old memory. First write g into m, then move W by the new m.",
        ),
        Mistake(
            _rate_in_memory,
            "You put lr into the memory: that is the paper's first form, Eq. 10-11. Here m holds plain gradients, and "
            "lr stands where W moves.",
        ),
        Mistake(_never_forgets, "Your memory never forgets: the old m must be multiplied by beta before g is added."),
        Mistake(_nesterov, "You wrote Nesterov's form, which looks one step ahead. Here W moves by lr * m only."),
        Mistake(
            _moves_by_gradient,
            "Your memory is right, but the weights do not use it: they move by lr * g. Move them by lr * m.",
        ),
        Mistake(_wrong_order, "Both results are right, but in the wrong order: return W first, then m."),
    ),
    hints=(
        "There are two memories, so there are two writes: first the gradient into m, then m into W.",
        "The memory first fades by the factor beta, then the gradient is added: beta * m + g.",
        "m = beta * m + g; then W = W - lr * m; return W, m.",
    ),
)

LR_FOR_AVERAGE = Exercise(
    name="lr_for_average",
    notebook="03",
    solution=lr_for_average,
    oracle=_lr_for_average_oracle,
    stages=(
        Stage("beta = 0, where both forms are the same", lambda: (0.5, 0.0)),
        Stage("lr = 0.1 and beta = 0.9", lambda: (0.1, 0.9)),
        Stage("lr = 0.02 and beta = 0.99", lambda: (0.02, 0.99)),
        Stage("lr = 0.3 and beta = 0.5", lambda: (0.3, 0.5)),
    ),
    mistakes=(
        Mistake(
            lambda lr, beta: lr * (1 - beta),
            "This is the other way round. The average is smaller than the sum, so its learning rate must be larger.",
        ),
        Mistake(
            lambda lr, beta: lr,
            "The same learning rate would make the averaging form move 1 / (1 - beta) times less far.",
        ),
        Mistake(
            lambda lr, beta: lr / beta if beta else math.inf,
            "You divide by beta. What is different is the strength of the write: 1 - beta instead of 1.",
        ),
        Mistake(
            lambda lr, beta: lr / (1 - beta**2),
            "1 - beta^2 belongs to the noise (the variance) of the memory. Here compare the two memories themselves.",
        ),
        Mistake(
            lambda lr, beta: lr * (1 + beta),
            "1 + beta is only the start of 1 + beta + beta^2 + ... Sum all of it.",
        ),
    ),
    hints=(
        "Feed both memories the same gradients, starting from 0. By which factor do they differ at every step?",
        "The averaging memory is (1 - beta) times torch's memory. The two steps, lr * m, have to be equal.",
        "lr_average * (1 - beta) * m must be lr * m, so return lr / (1 - beta).",
    ),
)

EXERCISES = (MOMENTUM_STEP, LR_FOR_AVERAGE, WEIGHTS_OF_THE_PAST, HORIZON)
