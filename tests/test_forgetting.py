"""What is kept of a sequence of tasks: measures that equal cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nlcore.metrics import (
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    confidence_interval,
    forgetting,
    forward_transfer,
    plasticity,
)

R = [[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.5, 0.7, 1.0]]
UNTRAINED = [0.1, 0.15, 0.05]
BY_HAND = {
    average_accuracy: (0.5 + 0.7 + 1.0) / 3,
    plasticity: (0.9 + 0.8 + 1.0) / 3,
    forgetting: ((0.9 - 0.5) + (0.8 - 0.7)) / 2,
    backward_transfer: ((0.5 - 0.9) + (0.7 - 0.8)) / 2,
}
MEASURES = list(BY_HAND)


def name(measure) -> str:
    return measure.__name__


def random_matrices(*leading: int, tasks: int = 4) -> Tensor:
    return torch.rand(*leading, tasks, tasks, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("measure", MEASURES, ids=name)
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_case_computed_by_hand(measure, kind) -> None:
    value = measure(kind(R))
    assert value.shape == () and value.item() == pytest.approx(BY_HAND[measure], abs=1e-7)


def test_forward_transfer_by_hand() -> None:
    by_hand = ((0.2 - 0.15) + (0.3 - 0.05)) / 2
    assert forward_transfer(R, UNTRAINED).item() == pytest.approx(by_hand)
    stack = forward_transfer(torch.tensor([R, R]), torch.tensor([UNTRAINED, [0.0, 0.0, 0.0]]))
    assert stack.tolist() == pytest.approx([by_hand, (0.2 + 0.3) / 2])


@pytest.mark.parametrize("measure", MEASURES, ids=name)
def test_a_stack_gives_one_value_a_seed_the_same_as_each_matrix_alone(measure) -> None:
    stack = random_matrices(2, 5)
    values = measure(stack)
    assert values.shape == (2, 5) and values.dtype == torch.float64
    alone = [[measure(matrix) for matrix in row] for row in stack]
    torch.testing.assert_close(values, torch.tensor(alone, dtype=torch.float64))
    assert confidence_interval(values[0]).low < values[0].mean() < confidence_interval(values[0]).high


def test_forgetting_counts_from_the_best_and_backward_transfer_from_the_start() -> None:
    better_later = [[0.5, 0.0, 0.0], [0.9, 0.8, 0.0], [0.6, 0.8, 0.7]]  # task 1 gains while task 2 is learned
    assert forgetting(better_later).item() == pytest.approx((0.9 - 0.6) / 2)
    assert backward_transfer(better_later).item() == pytest.approx((0.6 - 0.5) / 2)
    assert forgetting([[0.4, 0.0], [0.6, 0.9]]).item() == pytest.approx(-0.2)  # what improves is forgotten negatively


def test_the_best_may_lie_before_a_task_was_learned_as_in_the_definition() -> None:
    known_before = [[0.9, 0.7, 0.0], [0.9, 0.6, 0.0], [0.9, 0.5, 0.8]]
    assert forgetting(known_before).item() == pytest.approx((0.0 + (0.7 - 0.5)) / 2)


def test_backward_transfer_is_accuracy_at_the_end_against_plasticity() -> None:
    stack, T = random_matrices(20), 4
    expected = (average_accuracy(stack) - plasticity(stack)) * T / (T - 1)
    torch.testing.assert_close(backward_transfer(stack), expected)


def test_a_model_that_keeps_all_forgets_nothing() -> None:
    kept = [[1.0, 0.1, 0.1], [1.0, 1.0, 0.1], [1.0, 1.0, 1.0]]
    assert forgetting(kept) == backward_transfer(kept) == 0.0
    assert average_accuracy(kept) == plasticity(kept) == 1.0


def test_the_matrix_is_built_from_a_list_or_by_training() -> None:
    done: list[int] = []

    def train_and_test(i: int) -> list[float]:
        done.append(i)
        return R[i]

    assert torch.equal(accuracy_matrix(R), torch.tensor(R, dtype=torch.float64))
    assert torch.equal(accuracy_matrix(train_and_test, tasks=3), accuracy_matrix(R)) and done == [0, 1, 2]


def test_rows_with_seeds_first_give_a_stack() -> None:
    stack = random_matrices(5, tasks=3)
    rows = [stack[:, i] for i in range(3)]  # each (seeds, tasks)
    assert torch.equal(accuracy_matrix(rows), stack)


@pytest.mark.parametrize(
    "measure", [*MEASURES, lambda R: forward_transfer(R, [0.1])], ids=[*map(name, MEASURES), "fwt"]
)
def test_what_is_no_accuracy_matrix_is_refused(measure) -> None:
    for wrong in ([0.5, 0.5], [[0.5, 0.5]], [[[0.5], [0.5]]]):
        with pytest.raises(ValueError, match=r"shape \(..., T, T\); got"):
            measure(wrong)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got 93; divide percentages by 100"):
        measure([[0.9, 0.1], [93.0, 0.8]])
    with pytest.raises(ValueError, match="got nan.*test every task after every task"):
        measure([[0.9, float("nan")], [0.9, 0.8]])


@pytest.mark.parametrize("measure", [forgetting, backward_transfer, lambda R: forward_transfer(R, [0.1])])
def test_one_task_has_no_old_one(measure) -> None:
    with pytest.raises(ValueError, match="at least 2 tasks, so that one is an old one; got 1"):
        measure([[0.9]])


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="one row of accuracies after each of the 3 tasks, got 2"):
        accuracy_matrix(R[:2], tasks=3)
    with pytest.raises(ValueError, match="after each of the 0 tasks"):
        accuracy_matrix([])
    with pytest.raises(ValueError, match=r"3 rows needs 3 accuracies.*got shapes \(1,\), \(2,\), \(3,\)"):
        accuracy_matrix([[0.9], [0.6, 0.8], [0.5, 0.7, 1.0]])
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got 1.5"):
        accuracy_matrix([[0.9, 0.2], [1.5, 0.8]])
    for tasks in (None, 0):
        with pytest.raises(ValueError, match="how often to call it"):
            accuracy_matrix(lambda i: R[i], tasks=tasks)


def test_the_untrained_model_needs_one_accuracy_a_task() -> None:
    with pytest.raises(ValueError, match=r"each of the 3 tasks before training, got shape \(2,\) beside R \(3, 3\)"):
        forward_transfer(R, [0.1, 0.1])
    with pytest.raises(ValueError, match="divide percentages by 100"):
        forward_transfer(R, [10.0, 10.0, 10.0])
