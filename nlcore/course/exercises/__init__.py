"""Exercises: `check.NAME(your_function)` and `hint.NAME(1)`. One file holds the exercises of one notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nlcore.course.claims import wrapped
from nlcore.course.exercises import (
    adam,
    amnesia,
    attention,
    continuum,
    descent,
    gradients,
    hope,
    keeping,
    levels,
    momentum,
    nests,
    self_modifying,
    titans,
)
from nlcore.course.exercises.framework import Exercise, Mistake, Stage, Verdict, judge

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for module in (
        levels,
        amnesia,
        descent,
        momentum,
        adam,
        gradients,
        nests,
        keeping,
        continuum,
        attention,
        titans,
        self_modifying,
        hope,
    )
    for exercise in module.EXERCISES
}


class _Check:
    """`check.NAME(function)` holds your function against the right one and says what it found."""

    def __getattr__(self, name: str) -> Callable[[Any], Verdict]:
        exercise = _find(name)

        def check_one(function: Any) -> Verdict:
            verdict = judge(exercise, function)
            print(verdict.words)
            return verdict

        return check_one

    def __dir__(self) -> list[str]:
        return sorted(EXERCISES)


class _Hint:
    """`hint.NAME(1)`, `hint.NAME(2)`, `hint.NAME(3)` say more and more."""

    def __getattr__(self, name: str) -> Callable[[int], None]:
        exercise = _find(name)

        def hint_one(number: int = 1) -> None:
            if number not in (1, 2, 3):
                raise ValueError(f"there are hints 1, 2 and 3 for {name}, got {number!r}")
            print(wrapped(f"Hint {number} of 3: {exercise.hints[number - 1]}"))

        return hint_one

    def __dir__(self) -> list[str]:
        return sorted(EXERCISES)


def _find(name: str) -> Exercise:
    if name not in EXERCISES:
        raise AttributeError(f"there is no exercise {name!r}; there are {', '.join(sorted(EXERCISES))}")
    return EXERCISES[name]


check = _Check()
hint = _Hint()

__all__ = ["EXERCISES", "Exercise", "Mistake", "Stage", "Verdict", "check", "hint", "judge"]
