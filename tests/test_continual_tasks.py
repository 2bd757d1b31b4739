"""Streams of tasks: complete, deterministic, turned and moved exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from nlcore.tasks import TaskStream, digits, fashion, permuted_pixels, rotated_images, split_classes
from nlcore.tasks.continual import SCENARIOS, _turn, rotate

IMAGES = digits(dtype=torch.float64)
MAKERS = [
    lambda images, **k: split_classes(images, seed=4, **k),
    lambda images, **k: permuted_pixels(images, tasks=3, seed=4, **k),
    lambda images, **k: rotated_images(images, degrees=(0, 45, 90), **k),
]


def same(one: TaskStream, other: TaskStream) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        a.name == b.name and a.classes == b.classes and torch.equal(a.x_train, b.x_train)
        and torch.equal(a.y_train, b.y_train) and torch.equal(a.x_test, b.x_test) and torch.equal(a.y_test, b.y_test)
        for a, b in pairs
    )  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("load", [digits, fashion])
def test_every_task_is_well_formed_and_the_same_in_each_run(make, load) -> None:
    images = load()
    stream = make(images)
    assert same(stream, make(load()))
    for task in stream:
        assert task.allowed.shape == (stream.outputs,)
        for (x, y), whole in ((task.train, images.x_train), (task.test, images.x_test)):
            assert x.shape == (len(y), images.side**2) and x.dtype == whole.dtype and y.dtype == torch.int64
            assert x.min() >= 0.0 and x.max() <= 1.0 + 1e-6
            assert len(y.unique()) == len(task.classes) and task.allowed[y].all()


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("per_task", [1, 2, 5, 10])
def test_a_split_loses_and_repeats_no_image(scenario: str, per_task: int) -> None:
    stream = split_classes(IMAGES, per_task, scenario, seed=1)
    assert len(stream) == 10 // per_task and sorted(c for task in stream for c in task.classes) == list(range(10))
    for part, whole in (("train", IMAGES.x_train), ("test", IMAGES.x_test)):
        rows = torch.cat([getattr(task, part)[0] for task in stream])
        assert sorted(rows.tolist()) == sorted(whole.tolist())


def test_the_labels_of_a_split_say_which_output_is_right() -> None:
    by_class, by_task, by_domain = (split_classes(IMAGES, 2, scenario) for scenario in SCENARIOS)
    assert [task.classes for task in by_class] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert [stream.outputs for stream in (by_class, by_task, by_domain)] == [10, 10, 2]
    assert by_class[1].name == "2 and 3" and by_class[1].y_test.unique().tolist() == [2, 3]
    assert by_class[1].allowed.all() and by_task[1].allowed.nonzero().flatten().tolist() == [2, 3]
    assert torch.equal(by_task[1].y_test, by_class[1].y_test)
    assert torch.equal(by_domain[1].y_test, by_class[1].y_test - 2) and by_domain[1].allowed.all()
    mixed = split_classes(IMAGES, 2, "domain", seed=0)[0]  # output 0 is the class that is named first
    first = mixed.x_test[mixed.y_test == 0]
    assert torch.equal(first, IMAGES.x_test[IMAGES.y_test == mixed.classes[0]])


def test_only_the_allowed_outputs_answer() -> None:
    task = split_classes(IMAGES, 2, "task")[1]
    outputs = torch.randn(7, 10, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([2, 3, 2, 2, 3, 3, 2])
    answers = task.answers(outputs)
    assert set(answers.argmax(-1).tolist()) <= {2, 3}
    torch.testing.assert_close(task.loss(outputs, y), cross_entropy(outputs[:, 2:4], y - 2))
    task.loss(outputs, y).backward()
    assert outputs.grad is not None and outputs.grad.isfinite().all()
    assert (outputs.grad[:, [0, 1, 4, 5, 6, 7, 8, 9]] == 0).all() and (outputs.grad[:, 2:4] != 0).all()
    with pytest.raises(ValueError, match="needs a model with 10 outputs, got outputs of shape"):
        task.answers(outputs[:, :2])


def test_pixels_are_moved_and_none_is_lost() -> None:
    stream = permuted_pixels(IMAGES, tasks=4, seed=2)
    assert torch.equal(stream[0].x_train, IMAGES.x_train)
    for task in stream.tasks[1:]:
        assert torch.equal(task.y_train, IMAGES.y_train) and not torch.equal(task.x_train, IMAGES.x_train)
        torch.testing.assert_close(task.x_test.sort(-1).values, IMAGES.x_test.sort(-1).values, rtol=0, atol=0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))  # one order for training and test
    assert torch.equal(stream[1].x_train, IMAGES.x_train[:, order])
    assert torch.equal(stream[1].x_test, IMAGES.x_test[:, order])


def test_another_seed_gives_other_tasks() -> None:
    assert not same(permuted_pixels(IMAGES, 3, seed=0), permuted_pixels(IMAGES, 3, seed=1))
    assert split_classes(IMAGES, seed=0)[0].classes != split_classes(IMAGES, seed=1)[0].classes


@pytest.mark.parametrize("quarters", range(-2, 6))
def test_quarter_turns_are_exact(quarters: int) -> None:
    turned = rotate(IMAGES.x_test, 8, 90 * quarters).reshape(-1, 8, 8)
    assert torch.equal(turned, IMAGES.x_test.reshape(-1, 8, 8).rot90(quarters, dims=(-2, -1)))


@pytest.mark.parametrize("side", [7, 8])
def test_the_grid_turns_the_same_way_as_quarter_turns(side: int) -> None:
    image = torch.rand(3, 1, side, side, dtype=torch.float64)
    torch.testing.assert_close(_turn(image, 0.0), image)
    torch.testing.assert_close(_turn(image, 90.0), image.rot90(1, dims=(-2, -1)))
    torch.testing.assert_close(_turn(image, -90.0), image.rot90(-1, dims=(-2, -1)))
    by_both_ways = rotate(image.reshape(3, -1), side, 60.0).reshape(image.shape)  # a quarter turn, then 30 back
    torch.testing.assert_close(by_both_ways, _turn(image, 60.0))


def test_a_bright_pixel_moves_on_a_circle_against_the_clock() -> None:
    image = torch.zeros(9, 9, dtype=torch.float64)
    image[4, 8] = 1.0  # right of the middle, at distance 4
    turned = rotate(image.reshape(1, -1), 9, 30.0).reshape(9, 9)
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    weights = turned / turned.sum()
    up, right = 4 - (weights * rows).sum().item(), (weights * columns).sum().item() - 4
    assert (right, up) == pytest.approx((4 * 3**0.5 / 2, 4 / 2), abs=0.2)


def test_turned_images_keep_their_labels() -> None:
    stream = rotated_images(IMAGES, degrees=(0, 90))
    assert torch.equal(stream[0].x_train, IMAGES.x_train) and torch.equal(stream[1].y_test, IMAGES.y_test)
    assert torch.equal(stream[1].x_test, rotate(IMAGES.x_test, 8, 90))


@pytest.mark.parametrize("make", MAKERS)
def test_tasks_are_made_where_they_are_wanted(make) -> None:
    stream = make(IMAGES, device="meta")
    assert all(t.device.type == "meta" for task in stream for t in (*task.train, *task.test, task.allowed))


def test_bad_input_is_refused_with_words() -> None:
    with pytest.raises(ValueError, match="scenario must be one of 'class', 'task', 'domain'; got 'classes'"):
        split_classes(IMAGES, scenario="classes")
    for per_task in (0, 3):
        with pytest.raises(ValueError, match="must divide the 10 classes"):
            split_classes(IMAGES, per_task)
    with pytest.raises(ValueError, match="at least 1 task, got 0"):
        permuted_pixels(IMAGES, tasks=0)
    with pytest.raises(ValueError, match="at least 1 angle"):
        rotated_images(IMAGES, degrees=())
    with pytest.raises(ValueError, match="a different angle for each task"):
        rotated_images(IMAGES, degrees=(30, 30))
    with pytest.raises(ValueError, match="a finite angle, got .* nan degrees"):
        rotated_images(IMAGES, degrees=(0, float("nan")))
    with pytest.raises(ValueError, match=r"images \(N, side \* side\)"):
        rotate(IMAGES.x_test, 7, 30.0)
