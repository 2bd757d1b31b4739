"""Nearest class mean: a case by hand, and nothing forgotten in any order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nlcore.continual import NearestClassMean
from nlcore.tasks import digits, split_classes
from nlcore.training import accuracy


def test_a_case_computed_by_hand() -> None:
    model = NearestClassMean(classes=3, features=2, dtype=torch.float64)
    model.add(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0, 2]))
    assert model.means.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 4.0]]
    outputs = model(torch.tensor([[1.0, 1.0], [0.0, 3.0]], dtype=torch.float64))
    never = float("-inf")  # class 1 was never seen, although its mean of 0 would be near
    assert outputs.tolist() == [[-1.0, never, -10.0], [-10.0, never, -1.0]]
    assert outputs.argmax(-1).tolist() == [0, 2]


def test_no_order_of_tasks_and_no_size_of_batches_changes_the_means() -> None:
    images = digits(dtype=torch.float64)
    at_once = NearestClassMean(10, 64, dtype=torch.float64)
    at_once.add(images.x_train, images.y_train)
    for seed in (0, 1):
        one_by_one = NearestClassMean(10, 64, dtype=torch.float64)
        for task in split_classes(images, seed=seed):
            for x, y in zip(task.x_train.split(7), task.y_train.split(7), strict=True):
                one_by_one.add(x, y)
        torch.testing.assert_close(one_by_one.means, at_once.means, rtol=1e-12, atol=1e-12)
    assert accuracy(at_once, images.x_test, images.y_test) > 0.85


def test_features_come_from_the_extractor_and_it_is_not_trained() -> None:
    extract = nn.Linear(5, 2).double()
    model = NearestClassMean(2, 2, extract, dtype=torch.float64)
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 0, 1])
    model.add(x, y)
    torch.testing.assert_close(model.means[1], extract(x[1::2]).mean(0).detach())
    assert not model.means.requires_grad


def test_saved_and_loaded_it_answers_the_same() -> None:
    one, other = NearestClassMean(3, 2), NearestClassMean(3, 2)
    one.add(torch.randn(9, 2), torch.arange(9) % 3)
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, 2)
    assert torch.equal(one(x), other(x)) and list(one.state_dict()) == ["sums", "counts"]


def test_bad_input_is_refused_with_words() -> None:
    with pytest.raises(ValueError, match="at least 1 class and 1 feature, got 0 and 2"):
        NearestClassMean(0, 2)
    model = NearestClassMean(3, 2)
    with pytest.raises(ValueError, match=r"expected features \(B, 2\), got \(4, 5\)"):
        model(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"one label an example, got \(2,\) for 4 examples"):
        model.add(torch.zeros(4, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels lie in 0 to 2, got 0 to 3"):
        model.add(torch.zeros(2, 2), torch.tensor([0, 3]))
