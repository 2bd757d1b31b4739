r"""Two-dimensional surfaces to walk down, and the optimizers as rules on a pair of plain floats.

A picture that follows a slider needs hundreds of steps in about a millisecond; PyTorch needs a hundred times longer for
such tiny tensors. Each rule here is the one of `nlcore.optimizers`, written out for one pair (x, y); a test walks both
in float64 and finds the same steps.

    sgd           move = -eta g
    momentum      m <- beta m + g                                   move = -eta m
    adam          m, v: fading means of g and g^2                   move = -eta m^ / (sqrt(v^) + epsilon)
    normalised    m <- beta m + g                                   move = -eta m / |m|
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlcore.optimizers.checks import check_beta, check_not_negative

Pair = tuple[float, float]
Memory = tuple[float, ...]

TOO_FAR = 1e6
"""A path that leaves this distance from the origin has diverged and is held where it was."""


@dataclass(frozen=True)
class Surface:
    """A function of two numbers, with all that is needed to walk down it and to draw it.

    Args     name: plain words. value: (x, y) -> height; arithmetic only, so arrays may be passed too. gradient:
             (x, y) -> (slope along x, slope along y). start: where a path begins. box: (left, right, bottom, top), the
             part to draw. lowest: the point with the smallest value.
    """

    name: str
    value: Callable[[float, float], float]
    gradient: Callable[[float, float], Pair]
    start: Pair
    box: tuple[float, float, float, float]
    lowest: Pair = (0.0, 0.0)


@dataclass(frozen=True)
class Rule:
    """An optimizer for one pair of numbers.

    Args     name: plain words. empty: what its memory holds before the first step. step: (memory, gradient along x,
             gradient along y) -> (memory after, (move along x, move along y)); a pure function.
    """

    name: str
    empty: Memory
    step: Callable[[Memory, float, float], tuple[Memory, Pair]]


def ravine(condition: float = 50.0, angle: float = 0.5) -> Surface:
    """Return a valley with one steep and one flat axis: 1/2 (u^2 + condition v^2), turned by `angle`.

    u runs along the floor of the valley, v across it.

    Args     condition: curvature across over curvature along, > 0. angle: of the floor against the x axis, in radians.
    Raises   ValueError for a condition that is not positive and finite, or an angle that is not finite.
    """
    if not (condition > 0 and math.isfinite(condition) and math.isfinite(angle)):
        raise ValueError(f"ravine expects a positive condition and a finite angle, got {condition} and {angle}")
    c, s = math.cos(angle), math.sin(angle)

    def value(x: float, y: float) -> float:
        u, v = c * x + s * y, c * y - s * x
        return 0.5 * (u * u + condition * (v * v))

    def gradient(x: float, y: float) -> Pair:
        u, v = c * x + s * y, condition * (c * y - s * x)
        return c * u - s * v, s * u + c * v

    return Surface(f"ravine, condition {condition:g}", value, gradient, (-2.0, 1.5), (-3.2, 3.2, -2.4, 2.4))


def rosenbrock(b: float = 20.0) -> Surface:
    """Return the bent valley of Rosenbrock: (1 - x)^2 + b (y - x^2)^2, lowest at (1, 1).

    Args     b: steepness of the walls, > 0.
    Raises   ValueError for a b that is not positive and finite.
    """
    if not (b > 0 and math.isfinite(b)):
        raise ValueError(f"rosenbrock expects a positive b, got {b}")

    def value(x: float, y: float) -> float:
        wall = y - x * x
        return (1.0 - x) * (1.0 - x) + b * (wall * wall)

    def gradient(x: float, y: float) -> Pair:
        wall = y - x * x
        return -2.0 * (1.0 - x) - 4.0 * b * x * wall, 2.0 * b * wall

    return Surface(f"Rosenbrock, b = {b:g}", value, gradient, (-1.2, 1.0), (-1.8, 1.8, -0.7, 2.0), lowest=(1.0, 1.0))


def bent_valley(wall: float = 8.0, bend: float = 0.6, bends: float = 6.0) -> Surface:
    """Return x^2 + wall (x - y + bend sin(bends x))^2: a valley that winds down to the origin.

    The function of the paper's Figure 4; it gives no constants, so those here are ours.

    Args     wall: steepness of the walls, > 0. bend: how far the valley swings to the sides. bends: how often.
    Raises   ValueError for a wall that is not positive and finite, or other numbers that are not finite.
    Source   Behrouz et al. 2025, Eq. 53, with r = x and theta = y; start (-3.5, 2).
    """
    if not (wall > 0 and math.isfinite(wall) and math.isfinite(bend) and math.isfinite(bends)):
        raise ValueError(f"bent_valley expects wall > 0 and finite numbers, got {wall}, {bend} and {bends}")

    def off(x: Any, y: Any) -> Any:
        return x - y + bend * np.sin(bends * x)

    def gradient(x: Any, y: Any) -> Any:
        up = 2 * wall * off(x, y)
        return 2 * x + up * (1 + bend * bends * np.cos(bends * x)), -up

    box = (-4.5, 1.5, -5.0, 3.0)
    return Surface("bent valley", lambda x, y: x**2 + wall * off(x, y) ** 2, gradient, (-3.5, 2.0), box)


def sgd(lr: float) -> Rule:
    """Return gradient descent: move = -eta g; no memory.

    Raises   ValueError for a negative or non-finite lr.
    """
    lr = check_not_negative("lr", lr)

    def step(memory: Memory, gx: float, gy: float) -> tuple[Memory, Pair]:
        return memory, (-lr * gx, -lr * gy)

    return Rule("SGD", (), step)


def momentum(lr: float, beta: float = 0.9) -> Rule:
    """Return gradient descent with a memory: m <- beta m + g, move = -eta m, as `nlcore.optimizers.Momentum`.

    Raises   ValueError for a negative or non-finite lr, or a beta outside [0, 1).
    """
    lr, beta = check_not_negative("lr", lr), check_beta("beta", beta)

    def step(memory: Memory, gx: float, gy: float) -> tuple[Memory, Pair]:
        mx, my = beta * memory[0] + gx, beta * memory[1] + gy
        return (mx, my), (-lr * mx, -lr * my)

    return Rule("momentum", (0.0, 0.0), step)


def normalised(lr: float, beta: float = 0.9) -> Rule:
    """Return momentum whose every step has the length eta: m <- beta m + g, move = -eta m / |m|.

    Muon makes all singular values of a momentum matrix equal. A vector is a matrix with one singular value, its length,
    so Muon of a vector is only this; what Muon does to a matrix cannot be seen in two dimensions.

    Raises   ValueError for a negative or non-finite lr, or a beta outside [0, 1).
    """
    lr, beta = check_not_negative("lr", lr), check_beta("beta", beta)

    def step(memory: Memory, gx: float, gy: float) -> tuple[Memory, Pair]:
        mx, my = beta * memory[0] + gx, beta * memory[1] + gy
        scale = -lr / (math.hypot(mx, my) or 1.0)  # an empty memory points nowhere: no move
        return (mx, my), (scale * mx, scale * my)

    return Rule("normalised momentum", (0.0, 0.0), step)


def adam(lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Rule:
    """Return Adam: fading means of g and of g^2, bias corrected, as `nlcore.optimizers.Adam`.

    Raises   ValueError for a negative or non-finite lr, a beta outside [0, 1), or an eps that is not positive.
    """
    lr, eps = check_not_negative("lr", lr), check_not_negative("eps", eps)
    beta1, beta2 = check_beta("beta1", beta1), check_beta("beta2", beta2)
    if eps == 0.0:
        raise ValueError("eps must be > 0 here: at the lowest point Adam would divide 0 by 0; try 1e-8")

    def step(memory: Memory, gx: float, gy: float) -> tuple[Memory, Pair]:
        mx, my, vx, vy, left1, left2 = memory
        mx, my = beta1 * mx + (1 - beta1) * gx, beta1 * my + (1 - beta1) * gy
        vx, vy = beta2 * vx + (1 - beta2) * gx * gx, beta2 * vy + (1 - beta2) * gy * gy
        left1, left2 = beta1 * left1, beta2 * left2  # beta^t, so that 1 - left is the weight given out so far
        scale, spread = -lr / (1 - left1), 1 - left2
        move = scale * mx / (math.sqrt(vx / spread) + eps), scale * my / (math.sqrt(vy / spread) + eps)
        return (mx, my, vx, vy, left1, left2), move

    return Rule("Adam", (0.0, 0.0, 0.0, 0.0, 1.0, 1.0), step)


def descend(surface: Surface, rule: Rule, steps: int, start: Pair | None = None) -> list[Pair]:
    """Walk down a surface.

    Args     surface: where. rule: how, see `sgd`, `momentum`, `adam`, `normalised`. steps: how many, >= 0. start: the
             first point; None for the start of the surface.
    Returns  steps + 1 points (x, y), all finite: a path that leaves `TOO_FAR` is held at its last point before that.
    Raises   ValueError for a negative number of steps.
    """
    if steps < 0:
        raise ValueError(f"steps must be >= 0, got {steps}")
    x, y = surface.start if start is None else start
    path, memory, gradient, step = [(x, y)], rule.empty, surface.gradient, rule.step
    for _ in range(steps):
        memory, (dx, dy) = step(memory, *gradient(x, y))
        x, y = x + dx, y + dy
        if not (abs(x) <= TOO_FAR and abs(y) <= TOO_FAR):  # also true for NaN
            break
        path.append((x, y))
    return path + [path[-1]] * (steps + 1 - len(path))


def settles_at(path: Sequence[Pair], goal: Pair, distance: float, stays: int = 20) -> int | None:
    """Return the step from which a path stays closer than `distance` to `goal` until its end.

    Args     path: points (x, y). goal: a point. distance: how close is close enough. stays: how many points at the end
             have to be that close, so that a path that only happens to fly past at its end does not count.
    Returns  the step, or None if the path has not settled.
    """
    step = len(path)
    while step > 0 and math.dist(path[step - 1], goal) < distance:
        step -= 1
    return step if len(path) - step >= stays else None


def leaves_box(path: Sequence[Pair], box: tuple[float, float, float, float]) -> int | None:
    """Return the first step after which a path is outside the box (left, right, bottom, top), or None if it stays."""
    left, right, bottom, top = box
    outside = (step for step, (x, y) in enumerate(path) if not (left <= x <= right and bottom <= y <= top))
    return next(outside, None)
