"""Every exercise: the solution passes, every typical mistake gets its own hint, the stub stops nothing."""

import math
import re
from pathlib import Path

import pytest
import torch

from nlcore import course
from nlcore.course.exercises import EXERCISES, Exercise, judge
from nlcore.course.exercises.framework import agree

SOURCES = sorted((Path(__file__).parents[1] / "notebooks" / "src").glob("*.py"))
MISTAKES = [(exercise, index) for exercise in EXERCISES.values() for index in range(len(exercise.mistakes))]
FOLDED = re.compile(r"<details><summary>Solution.*?```python\n(.*?)```", re.DOTALL)


def markdown(path: Path) -> str:
    return re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes(name: str) -> None:
    verdict = judge(EXERCISES[name], EXERCISES[name].solution)
    assert verdict.state == "right", verdict.words


@pytest.mark.parametrize(("exercise", "index"), MISTAKES, ids=[f"{e.name}-{i}" for e, i in MISTAKES])
def test_every_mistake_is_caught_and_answered_by_its_own_hint(exercise: Exercise, index: int) -> None:
    mistake = exercise.mistakes[index]
    verdict = judge(exercise, mistake.function)
    assert verdict.state == "wrong"
    flat = " ".join(verdict.words.split())
    assert " ".join(mistake.hint.split()) in flat, verdict.words
    others = [other.hint for other in exercise.mistakes if other is not mistake]
    assert not any(" ".join(other.split()) in flat for other in others)


@pytest.mark.parametrize("name", EXERCISES)
def test_stub_dots_and_errors_stop_nothing(name: str, capsys: pytest.CaptureFixture) -> None:
    def stub(*_: object) -> None: ...

    def raises(*_: object) -> None:
        raise NotImplementedError

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    check = getattr(course.check, name)
    assert check(stub).state == check(raises).state == "not written yet"
    assert not check(broken) and "ZeroDivisionError: by accident" in capsys.readouterr().out
    assert check(lambda *_: "nonsense").state == "wrong"
    assert "expected" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXERCISES)
def test_three_hints_that_differ(name: str, capsys: pytest.CaptureFixture) -> None:
    for number in (1, 2, 3):
        getattr(course.hint, name)(number)
    assert capsys.readouterr().out.count("Hint") == 3 and len(set(EXERCISES[name].hints)) == 3
    with pytest.raises(ValueError, match="hints 1, 2 and 3"):
        getattr(course.hint, name)(4)


@pytest.mark.parametrize("thing", [3, None, "moves_now", [1]])
def test_a_check_on_something_that_is_not_a_function(thing: object) -> None:
    with pytest.raises(TypeError, match="expects your function itself"):
        course.check.moves_now(thing)


def test_unknown_exercises_are_answered_with_the_known_ones() -> None:
    for desk in (course.check, course.hint):
        with pytest.raises(AttributeError, match="there is no exercise 'nothing'; there are .*moves_now"):
            desk.nothing  # noqa: B018
        assert "moves_now" in dir(desk)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_folded_solutions_in_the_notebook_pass_their_checks(path: Path) -> None:
    text = markdown(path)
    named = set(re.findall(r"course\.check\.(\w+)\(", text))
    assert 2 <= len(named) <= 4 and named == {e.name for e in EXERCISES.values() if e.notebook == path.stem[:2]}
    solved = set()
    for code in FOLDED.findall(text):
        space: dict = {"torch": torch, "math": math}
        exec(code, space)  # the course's own text
        for name in named & set(space):
            assert judge(EXERCISES[name], space[name]), (name, judge(EXERCISES[name], space[name]).words)
            solved.add(name)
    assert solved == named, f"without a folded solution: {named - solved}"


def test_an_exercise_without_mistakes_or_hints_is_refused() -> None:
    one = next(iter(EXERCISES.values()))
    for change in ({"mistakes": ()}, {"stages": ()}, {"hints": ("one",)}):
        with pytest.raises(ValueError, match="three hints"):
            Exercise(**{**one.__dict__, **change})


def test_plain_numbers_are_held_to_nine_digits() -> None:
    assert agree(0.1, 0.1) and agree([0.1, 2.0], [0.1, 2.0]) and agree(torch.tensor(1.0), 1)
    assert not agree(0.1 + 1e-8, 0.1) and not agree([0.1, 2.0], [0.1, 2.0 + 1e-7])
    assert not agree(torch.ones(2), torch.ones(1, 2)) and not agree("1", 1.0)
