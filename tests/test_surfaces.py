"""The rules on pairs of floats take the very steps of nlcore.optimizers, and nothing makes them fail."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nlcore.optimizers import SGD, Adam, Momentum
from nlcore.tasks import surfaces
from nlcore.tasks.surfaces import (
    TOO_FAR,
    Pair,
    Rule,
    Surface,
    adam,
    descend,
    leaves_box,
    momentum,
    normalised,
    ravine,
    rosenbrock,
    settles_at,
    sgd,
)

SURFACES = [ravine(), ravine(200.0, angle=-1.1), rosenbrock(), rosenbrock(5.0)]
RULES = [sgd(0.002), momentum(0.001, 0.9), adam(0.05), normalised(0.05, 0.9)]


Make = Callable[[torch.Tensor], torch.optim.Optimizer]


def torch_steps(surface: Surface, make: Make, path: list[Pair]) -> list[Pair]:
    """From each point of `path` take one step with an optimizer of nlcore; autograd computes the gradient.

    The memories of the optimizer live on from step to step, but each step starts where `path` is, so that a
    difference in the last bit cannot grow along a chaotic path.
    """
    point = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer, after = make(point), []
    for before in path:
        point.data = torch.tensor(before, dtype=torch.float64)
        point.grad = slope(surface, point)
        optimizer.step()
        after.append((point[0].item(), point[1].item()))
    return after


def _float64(path: list[Pair]) -> torch.Tensor:
    return torch.tensor(path, dtype=torch.float64)


def slope(surface: Surface, point: torch.Tensor) -> torch.Tensor:
    height: Any = surface.value(point[0], point[1])  # type: ignore[arg-type]
    return torch.autograd.grad(height, point)[0]


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
@pytest.mark.parametrize(
    ("rule", "make"),
    [
        (sgd(0.002), lambda point: SGD([point], lr=0.002)),
        (momentum(0.001, 0.9), lambda point: Momentum([point], lr=0.001, beta=0.9)),
        (momentum(0.0004, 0.99), lambda point: Momentum([point], lr=0.0004, beta=0.99)),
        (adam(0.05), lambda point: Adam([point], lr=0.05)),
        (adam(0.3, 0.5, 0.9, 1e-4), lambda point: Adam([point], lr=0.3, betas=(0.5, 0.9), eps=1e-4)),
    ],
    ids=["sgd", "momentum", "momentum-slow", "adam", "adam-other"],
)
def test_rules_take_the_steps_of_the_optimizers(surface: Surface, rule: Rule, make: Make) -> None:
    ours = descend(surface, rule, 300)
    theirs = torch_steps(surface, make, ours[:-1])
    torch.testing.assert_close(_float64(ours[1:]), _float64(theirs), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_normalised_moves_along_momentum_by_one_length(surface: Surface) -> None:
    path = descend(surface, normalised(0.05, 0.9), 40)
    m = torch.zeros(2, dtype=torch.float64)
    for before, after in zip(path, path[1:], strict=False):
        m = 0.9 * m + torch.tensor(surface.gradient(*before), dtype=torch.float64)
        move = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
        torch.testing.assert_close(move, -0.05 * m / m.norm(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_one_singular_value_of_a_vector_is_its_length(seed: int) -> None:
    m = torch.randn(2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    U, S, Vh = torch.linalg.svd(m, full_matrices=False)
    torch.testing.assert_close(U @ Vh, m / m.norm())  # what Muon turns m into: all singular values set to 1
    torch.testing.assert_close(S[0], m.norm())


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_gradient_is_the_slope_of_the_value(surface: Surface) -> None:
    for x, y in [surface.start, (0.3, -0.7), (1.5, 1.0)]:
        found = slope(surface, torch.tensor([x, y], dtype=torch.float64, requires_grad=True))
        torch.testing.assert_close(torch.tensor(surface.gradient(x, y), dtype=torch.float64), found, rtol=1e-12, atol=0)


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_lowest_point_is_flat_and_inside_the_box(surface: Surface) -> None:
    assert surface.value(*surface.lowest) == 0.0
    assert surface.gradient(*surface.lowest) == (0.0, 0.0)
    assert leaves_box([surface.start, surface.lowest], surface.box) is None


def test_values_take_arrays() -> None:
    x, y = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.linspace(0, 2, 5, dtype=torch.float64)
    for surface in SURFACES:
        heights = surface.value(x, y)  # type: ignore[arg-type]
        assert heights.tolist() == [surface.value(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]  # type: ignore[attr-defined]


def test_a_steeper_ravine_is_steeper_only_across() -> None:
    along, across = (math.cos(0.5), math.sin(0.5)), (-math.sin(0.5), math.cos(0.5))
    for condition in (1.0, 50.0, 200.0):
        valley = ravine(condition)
        assert valley.value(*along) == pytest.approx(0.5)
        assert valley.value(*across) == pytest.approx(0.5 * condition)


@pytest.mark.parametrize("rule", [sgd(1e3), momentum(1e3, 0.99), adam(1e5), normalised(1e5), sgd(1e300)])
@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_a_diverging_path_is_held_and_stays_finite(surface: Surface, rule: Rule) -> None:
    path = descend(surface, rule, 200)
    assert len(path) == 201
    assert all(math.isfinite(x) and math.isfinite(y) for x, y in path)
    assert max(max(abs(x), abs(y)) for x, y in path) <= TOO_FAR


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_lowest_point_is_never_left(rule: Rule) -> None:
    assert set(descend(ravine(), rule, 50, start=(0.0, 0.0))) == {(0.0, 0.0)}


def test_rules_are_pure() -> None:
    for rule in RULES:
        assert descend(ravine(), rule, 50) == descend(ravine(), rule, 50)


def test_when_a_path_arrives_and_stays() -> None:
    path = [(3.0, 0.0), (0.05, 0.0), (-1.0, 0.0), (0.05, 0.0), (0.01, 0.0)]
    assert settles_at(path, (0.0, 0.0), 0.1, stays=2) == 3
    assert settles_at(path, (0.0, 0.0), 0.1, stays=3) is None  # only flew past at the end
    assert settles_at(path, (9.0, 9.0), 0.1) is None
    assert settles_at(path[:3], (0.0, 0.0), 0.1, stays=1) is None
    assert settles_at([(0.0, 0.0)] * 20, (0.0, 0.0), 0.1) == 0
    assert leaves_box(path, (-0.5, 3.5, -1.0, 1.0)) == 2
    assert leaves_box(path, (-5.0, 5.0, -1.0, 1.0)) is None


def test_zero_steps_stay_at_the_start() -> None:
    assert descend(ravine(), sgd(0.01), 0) == [(-2.0, 1.5)]
    assert descend(ravine(), sgd(0.01), 0, start=(1.0, 2.0)) == [(1.0, 2.0)]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ravine(0.0), "positive condition"),
        (lambda: ravine(math.nan), "positive condition"),
        (lambda: ravine(50.0, math.inf), "finite angle"),
        (lambda: rosenbrock(-1.0), "positive b"),
        (lambda: sgd(-0.1), "lr must be"),
        (lambda: momentum(0.1, 1.0), "beta must lie"),
        (lambda: normalised(math.nan), "lr must be"),
        (lambda: adam(0.1, 0.9, 1.0), "beta2 must lie"),
        (lambda: adam(0.1, eps=0.0), "eps must be > 0"),
        (lambda: descend(ravine(), sgd(0.1), -1), "steps must be >= 0"),
    ],
)
def test_bad_input_is_told_in_words(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_four_walks_of_300_steps_are_fast_enough_for_a_slider() -> None:
    def once() -> float:
        begin = time.perf_counter()
        for rule in RULES:
            descend(ravine(), rule, 300)
        return time.perf_counter() - begin

    assert min(once() for _ in range(10)) < 0.015  # about 1 ms on a quiet core


def test_every_public_name_says_what_it_is() -> None:
    for name in ("Surface", "Rule", "ravine", "rosenbrock", "sgd", "momentum", "adam", "normalised", "descend"):
        assert getattr(surfaces, name).__doc__
