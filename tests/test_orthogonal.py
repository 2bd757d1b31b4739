"""Newton-Schulz: what it converges to, for which shapes, and what it refuses; the best polynomial for each step."""

import math

import pytest
import torch
from torch import Tensor

from nlcore.optimizers import newton_schulz
from nlcore.optimizers.minimax import TOLERANCE, best_quintic, descend, schedule

F64 = torch.float64
SHAPES = [(3, 5), (5, 3), (4, 4), (1, 6), (6, 1)]


def matrix(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cubic_goes_to_the_polar_factor(shape: tuple[int, int]) -> None:
    M = matrix(*shape)
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    torch.testing.assert_close(newton_schulz(M, 40, "cubic"), U @ Vh, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_quintic_keeps_directions_and_stays_in_its_band(shape: tuple[int, int]) -> None:
    M = matrix(*shape)
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    inner = U.T @ newton_schulz(M) @ Vh.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-10
    assert inner.diagonal().min() > 0.6 and inner.diagonal().max() < 1.3


def quintic(s: Tensor, a: float, b: float, c: float) -> Tensor:
    return a * s + b * s**3 + c * s**5


@pytest.mark.parametrize(("low", "high"), [(0.01, 1.0), (0.2, 1.0), (0.6, 1.4)])
def test_no_quintic_nearby_misses_one_by_less(low: float, high: float) -> None:
    (a, b, c), miss = best_quintic(low, high)
    s = torch.linspace(low, high, 20_001, dtype=F64)
    off = quintic(s, a, b, c) - 1
    assert off.abs().max().item() == pytest.approx(miss, rel=1e-6)
    turns = off[(off.abs() > (1 - 1e-6) * miss)].sign()
    assert turns.unique_consecutive().tolist() == [-1, 1, -1, 1]  # four turns with three unknowns: it is the best
    others = torch.tensor([a, b, c], dtype=F64) + 0.02 * matrix(200, 3)
    assert all((quintic(s, *other.tolist()) - 1).abs().max() > miss for other in others)


def test_the_flattest_quintic_takes_over_where_an_interval_is_narrow() -> None:
    (a, b, c), miss = best_quintic(0.996, 1.004)
    s = torch.linspace(0.996, 1.004, 1001, dtype=F64)
    off = (quintic(s, a, b, c) - 1).abs().max().item()
    assert off == pytest.approx(miss, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_schedule_brings_its_interval_within_the_tolerance_and_no_wider_one(steps: int) -> None:
    assert len(schedule(steps)) == steps
    low = 1.0
    while descend(low / 1.02, steps)[1] <= TOLERANCE:
        low /= 1.02
    s = torch.linspace(low, 1, 100_001, dtype=F64)
    below = torch.tensor([low / 1.2], dtype=F64)
    for polynomial in schedule(steps):
        s, below = quintic(s, *polynomial), quintic(below, *polynomial)
    assert 0.95 * TOLERANCE < (s - 1).abs().max() < 1.02 * TOLERANCE
    assert below.item() < 1 - TOLERANCE


def test_many_steps_settle_at_one() -> None:
    M = matrix(6, 9)
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    torch.testing.assert_close(newton_schulz(M, 20, "minimax"), U @ Vh, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (40, 120), (180, 256)])
def test_three_minimax_steps_come_as_near_as_five_of_muon(shape: tuple[int, int]) -> None:
    """On average over random matrices; where all singular values are alike already (8 x 200), Muon's are nearer."""
    off = {"minimax": 0.0, "quintic": 0.0}
    for seed in range(12):
        M = matrix(*shape, seed=seed)
        U, _, Vh = torch.linalg.svd(M, full_matrices=False)
        for method, steps in (("minimax", 3), ("quintic", 5)):
            off[method] += (newton_schulz(M, steps, method) - U @ Vh).norm().item()
    assert off["minimax"] < 1.02 * off["quintic"]


@pytest.mark.parametrize("method", ["quintic", "cubic", "minimax", (2.0, -1.5, 0.5)])
def test_a_tall_matrix_is_a_wide_one_transposed_and_a_stack_is_its_matrices(method) -> None:
    stack = matrix(2, 3, 5, 4)
    together = newton_schulz(stack, 5, method)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], newton_schulz(stack[i, j], 5, method), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(newton_schulz(stack.mT, 5, method), together.mT, rtol=1e-11, atol=1e-13)


def test_scale_plays_no_role_and_zero_stays_zero() -> None:
    M = matrix(3, 5)
    for scale in (1e-4, 1e6):
        torch.testing.assert_close(newton_schulz(scale * M), newton_schulz(M), rtol=1e-9, atol=1e-12)
    assert torch.equal(newton_schulz(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_the_input_is_not_changed_and_no_gradient_flows() -> None:
    M = matrix(4, 4).requires_grad_()
    before = M.detach().clone()
    assert not newton_schulz(M).requires_grad and torch.equal(M.detach(), before)


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        (torch.float32, None, torch.float32),
        (torch.bfloat16, None, torch.float32),
        (F64, None, F64),
        (torch.float32, torch.bfloat16, torch.bfloat16),
    ],
)
def test_the_dtype_of_the_computation(given: torch.dtype, asked: torch.dtype | None, expected: torch.dtype) -> None:
    assert newton_schulz(matrix(3, 4).to(given), dtype=asked).dtype == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"method": "septic"}, "quintic"),
        ({"method": (1.0, 2.0)}, "three"),
        ({"eps": -1.0}, "eps"),
        ({"eps": math.nan}, "eps"),
    ],
)
def test_bad_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        newton_schulz(matrix(3, 4), **settings)


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expects matrices .*got shape \(4,\)"):
        newton_schulz(torch.ones(4))
