"""The notebooks as they are stored: in step with their sources, in the common form, readable by everyone.

Nothing runs here; the notebooks are run by nbval (see tests/nbval_plugin.py).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

from tests.notebook_tools import COURSE, ROOT, card, check, names, outputs, pairs, readme, sources, structure

FOUND = [sources.Source(path, COURSE.label(path)) for path in COURSE.sources]
CHECK_LIMIT_S, LONGEST_RUN_S = 3.0, 60
each = pytest.mark.parametrize("source", FOUND, ids=lambda source: source.name)


def said(problems: list[str]) -> str:
    return "\n" + "\n".join(problems)


def test_there_are_notebooks() -> None:
    assert sources.load(COURSE)
    assert [source.name[:2] for source in FOUND] == [f"{number:02}" for number in range(len(FOUND))], (
        "the numbers of the notebooks must run from 00 without a gap"
    )


@each
def test_the_source_has_the_common_form(source: sources.Source) -> None:
    problems = check.of_source(source)
    assert not problems, said(problems)


@each
def test_the_notebook_belongs_to_its_source(source: sources.Source) -> None:
    problems = check.of_notebook(source, COURSE)
    assert not problems, said(problems)


def test_no_notebook_without_a_source_and_no_name_used_twice() -> None:
    problems = pairs.orphans(FOUND, COURSE) + structure.repeated_names(FOUND)
    assert not problems, said(problems)


@each
def test_no_widget_state_and_no_load_from_the_network(source: sources.Source) -> None:
    stored = pairs.read(source, COURSE)
    assert "widgets" not in stored.metadata
    assert not outputs.unwanted(stored, source)


@each
def test_every_name_of_nlcore_exists(source: sources.Source) -> None:
    problems = names.problems(source)
    assert not problems, said(problems)


@each
def test_no_later_cell_takes_a_name_from_a_live_widget(source: sources.Source) -> None:
    problems = names.spoiled_widgets(source)
    assert not problems, said(problems)


@each
def test_nothing_is_shown_twice(source: sources.Source) -> None:
    problems = names.shown_twice(source)
    assert not problems, said(problems)


def test_the_table_in_the_readme_is_current() -> None:
    problems = check.of_readme(FOUND, COURSE)
    assert not problems, said(problems)


def test_the_check_is_quick() -> None:
    """Processor time of the whole command, start of Python included."""
    command = [
        "import resource, subprocess, sys",
        "subprocess.run([sys.executable, 'notebooks/build.py', 'check'], capture_output=True)",
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)",
        "print(used.ru_utime + used.ru_stime)",
    ]

    measured = [sys.executable, "-c", "\n".join(command)]
    seconds = subprocess.run(measured, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert float(seconds) < CHECK_LIMIT_S


@each
def test_the_notebook_fits_a_class_and_a_laptop(source: sources.Source) -> None:
    said_so = card.read(source)
    assert 10 <= said_so.minutes <= 90
    assert 1 <= said_so.seconds <= LONGEST_RUN_S


# ---- the public address


def project_files() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def own_text(name: str) -> str:
    """Return the text of a file without what is generated from the address."""
    text = (ROOT / name).read_bytes().decode("utf-8", "replace")
    if name == "pyproject.toml":
        return "".join(line for line in text.splitlines() if not line.startswith("Repository = "))
    if name == "README.md":
        return readme.without_region(text)
    stem = name.removeprefix("notebooks/").removesuffix(".ipynb")
    if stem in {source.name for source in FOUND}:
        return text.replace(sources.badge(stem, COURSE), "").replace(f"git+{COURSE.address}@{COURSE.tag}", "")
    return text


def test_the_address_stands_in_one_place() -> None:
    copies = [name for name in project_files() if COURSE.slug in own_text(name)]
    assert not copies, f"write the address only into pyproject.toml; there are copies in {', '.join(copies)}"


def test_the_set_up_cell_is_short_and_the_same_everywhere() -> None:
    code = sources.setup_code(COURSE)
    assert len(code.splitlines()) <= 8
    assert f"git+{COURSE.address}@{COURSE.tag}" in code
    stored = [pairs.read(source, COURSE).cells[1].source for source in FOUND]
    assert stored == [code] * len(FOUND)


def test_the_set_up_cell_passes_the_linter() -> None:

    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "notebooks/src/00_start.py", "-"]
    result = subprocess.run(command, cwd=ROOT, input=sources.setup_code(COURSE) + "\n", capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


DATA = {"digits", "fashion"}  # they only read a file


def test_every_function_of_the_library_is_shown_before_it_is_used() -> None:
    shown: set[str] = set()
    for source in FOUND:
        trees = [ast.parse(cell.text) for cell in source.cells if cell.kind == "code"]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "course.show"]
        shown |= {ast.unparse(argument).split(".")[0] for call in calls for argument in call.args}
        used = {
            alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nlcore.")
            for alias in node.names
            if inspect.isfunction(getattr(importlib.import_module(node.module or ""), alias.name))
        }
        missing = used - shown - DATA
        assert not missing, f"{source.label} never shows {sorted(missing)}; add course.show(...)"
