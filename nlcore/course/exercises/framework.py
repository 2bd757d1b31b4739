"""How an exercise is checked: staged cases, an oracle, and a bank of typical mistakes each with its own answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlcore.course.claims import wrapped


@dataclass(frozen=True)
class Stage:
    """One case of a check. `says` finishes the sentence "your function is right for ..."; `args` makes fresh inputs."""

    says: str
    args: Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer, as a function, and what to tell the learner who gives it."""

    function: Callable[..., Any]
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise: its solution, the oracle it is held against, its stages, its typical mistakes, three hints.

    Args     name: what the learner's function is called. notebook: "03". solution: the worked answer.
             oracle: computes the right result independently (where there is one, from torch.optim).
             stages: from the simplest case to the full one. mistakes: the bank. hints: three, each saying more.
    Raises   ValueError if there is no stage, no mistake, or not exactly three hints.
    """

    name: str
    notebook: str
    solution: Callable[..., Any]
    oracle: Callable[..., Any]
    stages: tuple[Stage, ...]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.stages or not self.mistakes or len(self.hints) != 3:
            raise ValueError(f"exercise {self.name!r} needs stages, typical mistakes and exactly three hints")


@dataclass(frozen=True)
class Verdict:
    """What a check found. `state` is "right", "wrong" or "not written yet"; `words` is what was printed."""

    state: str
    words: str

    def __bool__(self) -> bool:
        return self.state == "right"

    def _ipython_display_(self) -> None:
        """Show nothing: the words were printed already."""


def judge(exercise: Exercise, function: Any) -> Verdict:
    """Hold `function` against every stage of `exercise`; stop at the first that fails and say what went wrong.

    Raises   TypeError if `function` cannot be called. A mistake inside the function does not raise.
    """
    if not callable(function):
        raise TypeError(
            f"check.{exercise.name} expects your function itself, got {type(function).__name__}: {function!r}. "
            f"Write check.{exercise.name}({exercise.name}), without calling it."
        )
    lines: list[str] = []
    for stage in exercise.stages:
        outcome = _try(function, stage)
        if isinstance(outcome, _Unwritten):
            return Verdict(
                "not written yet", f"○ {exercise.name} is not written yet. Replace the dots, then run again."
            )
        if isinstance(outcome, _Failed) or not agree(outcome, exercise.oracle(*stage.args())):
            lines += [f"✗ not yet right for {stage.says}", *_explain(exercise, function, stage, outcome)]
            return Verdict("wrong", "\n".join(lines))
        lines.append(f"✓ right for {stage.says}")
    return Verdict("right", "\n".join([*lines, f"✓ {exercise.name} is done."]))


def agree(got: Any, expected: Any) -> bool:
    """Say whether two results are the same: structure, shape, and numbers to 1e-9 relative."""
    if isinstance(expected, (tuple, list)):
        same = isinstance(got, (tuple, list)) and len(got) == len(expected)
        return same and all(agree(a, b) for a, b in zip(got, expected, strict=True))
    if isinstance(expected, (bool, str)) or expected is None:
        return bool(got == expected)
    got_tensor, expected_tensor = _tensor(got), _tensor(expected)
    if got_tensor is None or expected_tensor is None or got_tensor.shape != expected_tensor.shape:
        return False
    return torch.allclose(got_tensor, expected_tensor, rtol=1e-9, atol=1e-12, equal_nan=True)


class _Unwritten:
    """The stub: it returned nothing, or the dots."""


@dataclass(frozen=True)
class _Failed:
    error: Exception


def _try(function: Callable[..., Any], stage: Stage) -> Any:
    try:
        result = function(*stage.args())
    except NotImplementedError:
        return _Unwritten()
    except Exception as error:  # the learner's own code: any error is theirs to read, none may stop the notebook
        return _Failed(error)
    return _Unwritten() if result is None or result is Ellipsis else result


def _explain(exercise: Exercise, function: Callable[..., Any], stage: Stage, outcome: Any) -> list[str]:
    known = _known_mistake(exercise, function)
    if known is not None:
        return [wrapped(f"  {known.hint}")]
    if isinstance(outcome, _Failed):
        return [f"  Your function raised {type(outcome.error).__name__}: {outcome.error}"]
    names = list(inspect.signature(exercise.solution).parameters)
    given = ", ".join(f"{name} = {_words(value)}" for name, value in zip(names, stage.args(), strict=True))
    return [
        f"  given     {given}",
        f"  expected  {_words(exercise.oracle(*stage.args()))}",
        f"  got       {_words(outcome)}",
        f"  For help: hint.{exercise.name}(1)",
    ]


def _known_mistake(exercise: Exercise, function: Callable[..., Any]) -> Mistake | None:
    """Return the mistake of the bank that behaves as `function` does at every stage, if there is one."""
    outcomes = [_try(function, stage) for stage in exercise.stages]
    for mistake in exercise.mistakes:
        if all(
            _same(outcome, _try(mistake.function, stage))
            for outcome, stage in zip(outcomes, exercise.stages, strict=True)
        ):
            return mistake
    return None


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, _Failed) or isinstance(theirs, _Failed):
        return isinstance(ours, _Failed) and isinstance(theirs, _Failed) and type(ours.error) is type(theirs.error)
    return not isinstance(ours, _Unwritten) and agree(ours, theirs)


def _tensor(value: Any) -> Tensor | None:
    try:
        exact = None if isinstance(value, Tensor) else torch.float64  # a plain 0.1 would become single precision
        return torch.as_tensor(value, dtype=exact).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None


def _words(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(_words(part) for part in value) + ")"
    if isinstance(value, Tensor):
        shape = f" of shape {tuple(value.shape)}" if value.ndim > 1 else ""
        return f"{[round(number, 6) for number in value.detach().double().flatten()[:6].tolist()]}{shape}"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
