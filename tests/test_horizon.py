"""The weights of past items and exact horizons, against exact fractions and against momentum itself."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from nlcore.horizon import horizon, past_weights, share_of_last
from nlcore.optimizers import Momentum

BETAS = ["0", "0.1", "0.5", "0.8", "0.9", "0.95", "0.99", "0.999"]
SHARES = ["0.01", "0.19", "0.5", "0.75", "0.9", "0.99", "0.999"]


def exact_horizon(beta: str, share: str) -> int:
    """Count in exact fractions, so that no rounding can decide."""
    kept, n = Fraction(1), 0
    while 1 - kept < Fraction(share):
        kept, n = kept * Fraction(beta), n + 1
    return n


@pytest.mark.parametrize("beta", BETAS[:-1])
@pytest.mark.parametrize("share", SHARES)
def test_horizon_is_the_smallest_count(beta: str, share: str) -> None:
    assert horizon(float(beta), float(share)) == exact_horizon(beta, share)


def test_a_share_that_is_reached_exactly_costs_no_extra_step() -> None:
    assert horizon(0.9, 0.19) == 2  # 1 - 0.9^2 = 0.19; floating point alone would say 3
    assert horizon(0.5, 0.75) == 2


@pytest.mark.parametrize(("beta", "half", "nearly_all"), [(0.9, 7, 44), (0.99, 69, 459), (0.999, 693, 4603)])
def test_horizons_that_the_course_names(beta: float, half: int, nearly_all: int) -> None:
    assert (horizon(beta, 0.5), horizon(beta, 0.99)) == (half, nearly_all)


def test_the_numbers_of_the_paper_count_from_zero() -> None:
    assert share_of_last(0.9, 7) == pytest.approx(0.5217031)
    assert share_of_last(0.9, 44) == pytest.approx(0.99030226)
    assert share_of_last(0.9, 6) == pytest.approx(0.468559)
    assert share_of_last(0.9, 43) == pytest.approx(0.98922474)


@pytest.mark.parametrize("beta", [float(beta) for beta in BETAS])
@pytest.mark.parametrize("n", [0, 1, 2, 44, 459])
def test_shares_are_the_sum_of_the_weights(beta: float, n: int) -> None:
    weights = past_weights(beta, n)
    assert weights.shape == (n,) and weights.dtype == torch.float64
    assert weights.sum().item() == pytest.approx(share_of_last(beta, n), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_momentum_gives_each_gradient_its_weight(beta: float) -> None:
    """Feed one unit gradient per direction: the buffer then lists the weights of all ages."""
    steps = 30
    W = torch.zeros(steps, dtype=torch.float64, requires_grad=True)
    optimizer = Momentum([W], lr=0.0, beta=beta)
    for gradient in torch.eye(steps, dtype=torch.float64):
        W.grad = gradient
        optimizer.step()
    buffer = optimizer.state[W]["m"].flip(0)
    torch.testing.assert_close((1 - beta) * buffer, past_weights(beta, steps), rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan"), float("inf")])
def test_beta_outside_its_range(beta: float) -> None:
    for call in (lambda: past_weights(beta, 3), lambda: share_of_last(beta, 3), lambda: horizon(beta, 0.5)):
        with pytest.raises(ValueError, match="beta must lie in"):
            call()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 99.0, float("nan")])
def test_share_outside_its_range(share: float) -> None:
    with pytest.raises(ValueError, match="share must lie in"):
        horizon(0.9, share)


def test_counts_are_whole_and_not_negative() -> None:
    with pytest.raises(ValueError, match=">= 0"):
        past_weights(0.9, -1)
    with pytest.raises(TypeError, match="whole number"):
        share_of_last(0.9, 2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole number"):
        past_weights(0.9, True)
