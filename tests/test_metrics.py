"""Confidence intervals, held against tables and against what they promise."""

import numpy as np
import pytest
import torch

from nlcore.metrics import confidence_interval, student_quantile


@pytest.mark.parametrize(
    ("probability", "degrees", "table"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 9, 2.2622), (0.95, 4, 2.1318), (0.995, 29, 2.7564)],
)
def test_quantiles_of_student_equal_the_tables(probability: float, degrees: int, table: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(table, abs=1e-4)
    assert student_quantile(1 - probability, degrees) == pytest.approx(-table, abs=1e-4)


def test_a_case_computed_by_hand() -> None:
    mean, low, high = confidence_interval([1.0, 2.0, 3.0])
    reach = 4.302653 * 1.0 / np.sqrt(3)
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - reach, 2.0 + reach), abs=1e-5)
    assert str(confidence_interval(torch.tensor([0.5, 0.5]))) == "0.500 [0.500, 0.500]"


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.RandomState(0)
    hits = 0
    for _ in range(500):
        _, low, high = confidence_interval(random.randn(6), level=0.9)
        hits += low <= 0 <= high
    assert 0.86 < hits / 500 < 0.94


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")]])
def test_too_little_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2 finite values"):
        confidence_interval(values)


def test_bad_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="level must lie in"):
        confidence_interval([1.0, 2.0], level=95)
    with pytest.raises(ValueError, match="degrees >= 1"):
        student_quantile(0.5, 0)
