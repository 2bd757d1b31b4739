"""The data the course works on. Nothing is downloaded."""

from nlcore.tasks.characters import Bytes, Characters, windows
from nlcore.tasks.continual import Task, TaskStream, permuted_pixels, rotated_images, split_classes
from nlcore.tasks.eras import ERAS, era
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
from nlcore.tasks.languages import LANGUAGES, language
from nlcore.tasks.surfaces import Surface, descend, ravine, rosenbrock
from nlcore.tasks.texts import Text, open_text

__all__ = [
    "ERAS",
    "LANGUAGES",
    "Bytes",
    "Characters",
    "Facts",
    "Images",
    "Surface",
    "Task",
    "TaskStream",
    "Text",
    "amnesia",
    "best_memory",
    "descend",
    "digits",
    "era",
    "exam",
    "fashion",
    "fast_weights",
    "language",
    "linked_pairs",
    "open_text",
    "permuted_pixels",
    "random_facts",
    "ravine",
    "recalled",
    "relative_error",
    "rosenbrock",
    "rotated_images",
    "split_classes",
    "windows",
]
