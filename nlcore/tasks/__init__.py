"""The data the course works on. Nothing is downloaded."""

from nlcore.tasks.continual import Task, TaskStream, permuted_pixels, rotated_images, split_classes
from nlcore.tasks.facts import (
    Facts,
    amnesia,
    best_memory,
    exam,
    fast_weights,
    linked_pairs,
    random_facts,
    recalled,
    relative_error,
)
from nlcore.tasks.images import Images, digits, fashion
from nlcore.tasks.surfaces import Surface, descend, ravine, rosenbrock

__all__ = [
    "Facts",
    "Images",
    "Surface",
    "Task",
    "TaskStream",
    "amnesia",
    "best_memory",
    "descend",
    "digits",
    "exam",
    "fashion",
    "fast_weights",
    "linked_pairs",
    "permuted_pixels",
    "random_facts",
    "ravine",
    "recalled",
    "relative_error",
    "rosenbrock",
    "rotated_images",
    "split_classes",
]
