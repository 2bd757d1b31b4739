"""Tasks that come one after the other, made from one set of images: new classes, moved pixels, turned images.

What a model must know to answer makes the difference (the scenarios of van de Ven and Tolias):

    scenario    the model is told       it answers with                     a task brings
    task        which task it is        the classes of this task            new classes
    domain      nothing                 the place of a class in its task    new classes, or new pixels for all classes
    class       nothing                 any class of the stream             new classes

In all of them a label is the number of an output of the model. A task says which outputs may answer; the others are
set to -inf by `Task.answers`, so that one loss and one accuracy serve every scenario.

Source   van de Ven and Tolias 2019, Three scenarios for continual learning; Zenke et al. 2017 (split), Goodfellow et
         al. 2013 (permuted), Lopez-Paz and Ranzato 2017 (rotated).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from nlcore.tasks.images import Images

SCENARIOS = ("class", "task", "domain")
Device = torch.device | str | None


@dataclass(frozen=True)
class Task:
    """One task of a stream.

    `name` in words; `classes` the classes of the images that are in it; `x_train` (N, pixels), `y_train` (N,),
    `x_test` (M, pixels), `y_test` (M,), where a label is the number of an output; `allowed` (K,) booleans, the outputs
    that may answer.
    """

    name: str
    classes: tuple[int, ...]
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    allowed: Tensor

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """What is learned from: (x_train, y_train)."""
        return self.x_train, self.y_train

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """What is asked: (x_test, y_test)."""
        return self.x_test, self.y_test

    def answers(self, outputs: Tensor) -> Tensor:
        """Return the outputs with -inf wherever one may not answer this task.

        Args     outputs: (..., K), of the model.
        Raises   ValueError if there are not K outputs.
        """
        if outputs.shape[-1:] != self.allowed.shape:
            given = f"got outputs of shape {tuple(outputs.shape)}"
            raise ValueError(
                f"the stream of task {self.name!r} needs a model with {len(self.allowed)} outputs, {given}"
            )
        return outputs.masked_fill(~self.allowed, -math.inf)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy among the outputs that may answer; a loss for `nlcore.training.fit`.

        Args     outputs: (B, K). y: (B,).
        """
        return cross_entropy(self.answers(outputs), y)


@dataclass(frozen=True)
class TaskStream:
    """Tasks in the order in which they are learned; `name` in words, `outputs` how many a model needs (K)."""

    name: str
    tasks: tuple[Task, ...]
    outputs: int

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Task:
        """Return one task, counted from 0."""
        return self.tasks[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


def split_classes(
    images: Images, per_task: int = 2, scenario: str = "class", seed: int | None = None, device: Device = None
) -> TaskStream:
    """Return tasks that each bring new classes: 0 and 1, then 2 and 3, ...

    Args     images: for example `digits()`. per_task: classes in a task; it must divide the number of classes.
             scenario: "class" (all outputs may answer), "task" (those of the task) or "domain" (output 0 means the
             first class of any task). seed: of a random order of the classes; None keeps theirs.
             device: where the tasks are made; as a rule where the images are.
    Raises   ValueError for a per_task that does not divide the classes, or an unknown scenario.
    """
    K = len(images.names)
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario must be one of {', '.join(map(repr, SCENARIOS))}; got {scenario!r}")
    if per_task < 1 or K % per_task:
        raise ValueError(f"per_task must divide the {K} classes there are, got {per_task}; try 2")
    order = list(range(K)) if seed is None else torch.randperm(K, generator=_generator(seed)).tolist()
    outputs = per_task if scenario == "domain" else K
    tasks = tuple(_with_classes(images, order[i : i + per_task], scenario, device) for i in range(0, K, per_task))
    return TaskStream(f"split, {scenario}-incremental", tasks, outputs)


def _with_classes(images: Images, classes: list[int], scenario: str, device: Device) -> Task:
    K = len(images.names)
    number = torch.full((K,), -1)  # class -> output; -1: not in this task
    number[classes] = torch.arange(len(classes)) if scenario == "domain" else torch.tensor(classes)
    if scenario == "task":
        allowed = number >= 0
    else:
        allowed = torch.ones(len(classes) if scenario == "domain" else K, dtype=torch.bool)
    parts, number = [], number.to(images.y_train.device)
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        chosen = number[y] >= 0
        parts += [x[chosen], number[y[chosen]]]
    return _task(" and ".join(images.names[c] for c in classes), tuple(classes), parts, allowed, device)


def permuted_pixels(images: Images, tasks: int = 5, seed: int = 0, device: Device = None) -> TaskStream:
    """Return tasks with the same images and classes, the pixels of each task in another order.

    The first task keeps the order of the pixels. The same order serves all images of a task.

    Args     images: for example `digits()`. tasks: how many, >= 1. seed: of the orders.
             device: where the tasks are made; as a rule where the images are.
    Raises   ValueError if tasks < 1.
    """
    if tasks < 1:
        raise ValueError(f"expected at least 1 task, got {tasks}")
    generator, pixels = _generator(seed), images.side**2
    orders = [torch.arange(pixels), *(torch.randperm(pixels, generator=generator) for _ in range(tasks - 1))]
    names = ["pixels in their places", *(f"pixels in order {i}" for i in range(1, tasks))]
    changes = {name: _moved(order.to(images.x_train.device)) for name, order in zip(names, orders, strict=True)}
    return _changed("permuted", images, changes, device)


def _moved(order: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, order]


def rotated_images(
    images: Images, degrees: Sequence[float] = (0.0, 30.0, 60.0, 90.0, 120.0), device: Device = None
) -> TaskStream:
    """Return tasks with the same images and classes, the images of each task turned by another angle.

    Args     images: for example `digits()`. degrees: one angle a task, against the clock.
             device: where the tasks are made; as a rule where the images are.
    Raises   ValueError if there is no angle, or as in `rotate`.
    """
    if len(degrees) == 0:
        raise ValueError("expected at least 1 angle, one a task; try degrees=(0, 45, 90)")
    changes = {f"turned by {angle:g} degrees": _turned(images.side, angle) for angle in degrees}
    if len(changes) < len(degrees):
        raise ValueError(f"expected a different angle for each task, got {list(degrees)}")
    return _changed("rotated", images, changes, device)


def _turned(side: int, degrees: float) -> Callable[[Tensor], Tensor]:
    return lambda x: rotate(x, side, degrees)


def rotate(x: Tensor, side: int, degrees: float) -> Tensor:
    """Turn flattened square images against the clock around their middle.

    Quarter turns are exact (`torch.rot90`); the rest, at most 45 degrees, is read from the four nearest pixels
    (bilinear). What comes from outside the image is 0, and what is turned out of it is lost.

    Args     x: (N, side * side), floating point. side: height and width. degrees: any finite angle; negative is with
             the clock.
    Returns  the turned images, the shape of x.
    Raises   ValueError if x is not (N, side * side) or the angle is not finite.
    """
    if x.ndim != 2 or x.shape[1] != side * side or not math.isfinite(degrees):
        given = f"got {tuple(x.shape)}, side {side} and {degrees} degrees"
        raise ValueError(f"expected images (N, side * side) and a finite angle, {given}")
    quarters = round(degrees / 90.0)
    rest = degrees - 90.0 * quarters
    turned = x.reshape(-1, 1, side, side).rot90(quarters, dims=(-2, -1))
    return (turned if rest == 0.0 else _turn(turned, rest)).reshape(x.shape)


def _turn(x: Tensor, degrees: float) -> Tensor:
    """Turn images (N, 1, side, side) by any angle, bilinear: each pixel says from where it is read."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    back = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], dtype=x.dtype, device=x.device)  # y points down
    grid = affine_grid(back.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _changed(name: str, images: Images, changes: dict[str, Callable[[Tensor], Tensor]], device: Device) -> TaskStream:
    """Return one task for each change of the pixels; all classes are in each, and all outputs may answer."""
    K = len(images.names)
    tasks = []
    for words, change in changes.items():
        parts = [change(images.x_train), images.y_train, change(images.x_test), images.y_test]
        tasks.append(_task(words, tuple(range(K)), parts, torch.ones(K, dtype=torch.bool), device))
    return TaskStream(name, tuple(tasks), K)


def _task(name: str, classes: tuple[int, ...], parts: list[Tensor], allowed: Tensor, device: Device) -> Task:
    place = parts[0].device if device is None else device
    x_train, y_train, x_test, y_test = (part.to(place) for part in parts)
    return Task(name, classes, x_train, y_train, x_test, y_test, allowed.to(place))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
