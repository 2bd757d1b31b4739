"""The equation ledger: every displayed equation that has an id is computed, both sides, by exactly one test.

An id is what stands in \\tag{...}: "NL 10" is equation 10 of the paper, "03.1" the first of our own in notebook 03. Its
test is the function in tests/equations with the decorator @pytest.mark.equation("NL 10").
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.notebook_tools import COURSE, ROOT, maths, sources

EQUATIONS = ROOT / "tests" / "equations"
ASSERTIONS = {"assert", "assert_close", "assert_allclose", "assert_array_equal", "assert_equal", "assert_array_less"}
OWN = re.compile(r"\d\d\.\d+")
REFERENCE = re.compile(r"\bEqs?\. \((\d\d\.\d+)\)")


@dataclass(frozen=True)
class EquationTest:
    """One test function of the ledger, where it is, and whether it computes and compares in float64."""

    where: str
    in_float64: bool
    asserts: bool


def displayed(course: list[sources.Source]) -> dict[str, list[str]]:
    """Return for each id the places where its equation is displayed."""
    places = defaultdict(list)
    for source in course:
        for index, cell in enumerate(source.cells):
            for tag in maths.tags(cell.text) if cell.kind == "markdown" else ():
                places[tag].append(source.at(index))
    return dict(places)


def marked(folder: Path) -> dict[str, list[EquationTest]]:
    """Return for each id the tests that are marked with it."""
    found = defaultdict(list)
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        exact, judges = _standing_for(module, {"float64"}), _standing_for(module, ASSERTIONS)
        for function in (node for node in module.body if isinstance(node, ast.FunctionDef)):
            for identity in _marks(function):
                found[identity].append(_described(function, path, exact, judges))
    return dict(found)


def _marks(function: ast.FunctionDef) -> list[str]:
    """Return the ids in the decorators @pytest.mark.equation("...")."""
    calls = [decorator for decorator in function.decorator_list if isinstance(decorator, ast.Call)]
    marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.equation"]
    return [ast.literal_eval(argument) for mark in marks for argument in mark.args]


def _described(function: ast.FunctionDef, path: Path, exact: set[str], judges: set[str]) -> EquationTest:
    where = f"{path.name}:{function.lineno} {function.name}"
    return EquationTest(where, in_float64=bool(_names(function) & exact), asserts=bool(_names(function) & judges))


def _names(node: ast.AST) -> set[str]:
    """Return the names, arguments and attributes in a piece of code, and "assert" for a plain assertion."""
    parts = list(ast.walk(node))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    names |= {part.arg for part in parts if isinstance(part, ast.arg)}
    names |= {part.attr for part in parts if isinstance(part, ast.Attribute)}
    names |= {"assert"} if any(isinstance(part, ast.Assert) for part in parts) else set()
    return names


def _standing_for(module: ast.Module, wanted: set[str]) -> set[str]:
    """Return `wanted` and the constants, helpers and fixtures of a module that use one of them, however indirectly."""
    found = set(wanted)
    while True:
        more = {name for name, uses in _definitions(module) if uses & found} - found
        if not more:
            return found
        found |= more


def _definitions(module: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """Yield the name of each constant and helper of a module and the names that it uses."""
    for node in module.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, _names(node.value)) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("test"):
            yield node.name, _names(node)


def faults(shown: dict[str, list[str]], tests: dict[str, list[EquationTest]]) -> list[str]:
    """Return what is wrong between the equations of the course and their tests, one line each."""
    found = [f"\\tag{{{tag}}} in {shown[tag][0]} has no test" for tag in sorted(shown.keys() - tests.keys())]
    for tag in sorted(tests.keys() - shown.keys()):
        found.append(f'@pytest.mark.equation("{tag}") in {tests[tag][0].where}: no notebook displays this equation')
    for tag, places in sorted(shown.items()):
        if len(places) > 1:
            found.append(f"\\tag{{{tag}}} is displayed in {' and '.join(places)}; the second time write only ({tag})")
        if OWN.fullmatch(tag) and not Path(places[0]).name.startswith(tag[:2]):
            found.append(f"\\tag{{{tag}}} in {places[0]} has the number of another notebook")
    for tag, those in sorted(tests.items()):
        if len(those) > 1:
            found.append(f"({tag}) has {len(those)} tests: {', '.join(test.where for test in those)}; make it one")
        found += [f"({tag}) {test.where} does not compute in float64" for test in those if not test.in_float64]
        found += [f"({tag}) {test.where} asserts nothing" for test in those if not test.asserts]
    return found


def dangling(course: list[sources.Source], shown: dict[str, list[str]]) -> list[str]:
    """Return the references like Eq. (03.1) to equations of our own that no notebook displays."""
    return [
        f"{source.at(index)}: refers to ({tag}), which no notebook displays"
        for source in course
        for index, cell in enumerate(source.cells)
        for tag in REFERENCE.findall(cell.text)
        if tag not in shown
    ]


# ---- the course


def test_every_equation_has_one_test_and_every_test_an_equation() -> None:
    course = sources.load(COURSE)
    shown, tests = displayed(course), marked(EQUATIONS)
    assert shown, "no notebook displays an equation with an id"
    assert tests, "tests/equations holds no test with @pytest.mark.equation"
    found = faults(shown, tests) + dangling(course, shown)
    assert not found, "\n" + "\n".join(found)


# ---- the ledger itself, on small bad examples

GOOD = """
import pytest, torch
EXACT = torch.float64
def close(a, b):
    torch.testing.assert_close(a, b)
def numbers():
    return torch.ones(2, dtype=EXACT)
@pytest.mark.equation("NL 10")
def test_ten():
    close(numbers(), numbers())
"""


def ledger(tmp_path: Path, *tests: str) -> dict[str, list[EquationTest]]:
    for number, code in enumerate(tests):
        (tmp_path / f"test_{number:02}.py").write_text(code)
    return marked(tmp_path)


def test_a_full_ledger_has_no_faults(tmp_path: Path) -> None:
    assert faults({"NL 10": ["notebooks/src/03_x.py:1"]}, ledger(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("shown", "code", "fault"),
    [
        ({"NL 10": ["a"], "NL 11": ["b"]}, GOOD, r"\tag{NL 11} in b has no test"),
        ({}, GOOD, "no notebook displays this equation"),
        ({"NL 10": ["a", "b"]}, GOOD, "displayed in a and b"),
        ({"NL 10": ["a"]}, GOOD.replace("float64", "float32"), "does not compute in float64"),
        ({"NL 10": ["a"]}, GOOD.replace("torch.testing.assert_close", "print"), "asserts nothing"),
        ({"NL 10": ["a"], "04.1": ["notebooks/src/03_x.py:1"]}, GOOD, "the number of another notebook"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, shown: dict[str, list[str]], code: str, fault: str) -> None:
    assert any(fault in line for line in faults(shown, ledger(tmp_path, code)))


def test_two_tests_of_one_equation_are_one_too_many(tmp_path: Path) -> None:
    assert "has 2 tests" in "".join(faults({"NL 10": ["a"]}, ledger(tmp_path, GOOD, GOOD)))


def test_ids_are_read_from_formulas_only(tmp_path: Path) -> None:
    path = tmp_path / "03_x.py"
    path.write_text("# %% [markdown]\n# `$$ \\tag{NL 1} $$`\n#\n# $$ a = b \\tag{NL 2} $$\n#\n# By Eq. (03.7).\n")
    source = sources.Source(path, path.name)
    assert displayed([source]) == {"NL 2": ["03_x.py:1 (cell 1)"]}
    assert dangling([source], {}) == ["03_x.py:1 (cell 1): refers to (03.7), which no notebook displays"]
