"""The data the course works on. Nothing is downloaded."""

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
    "amnesia",
    "best_memory",
    "descend",
    "digits",
    "exam",
    "fashion",
    "fast_weights",
    "linked_pairs",
    "random_facts",
    "ravine",
    "recalled",
    "relative_error",
    "rosenbrock",
]
