"""What `build.py check` finds without running anything, each on a tiny course that was spoilt in one place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.notebook_tools import (
    NOTEBOOK,
    Project,
    build,
    check,
    copy_of_built_course,
    make_course,
    notebook_of,
    replace,
    source_of,
    stored,
    write,
)

CLAIM, FIGURE, WIDGET = 3, 4, 5  # cells of the tiny notebook


@pytest.fixture
def course(tmp_path: Path) -> Project:
    return copy_of_built_course(tmp_path)


def edit(project: Project, change: Callable[[Any], object]) -> None:
    """Change the stored notebook in place."""
    notebook = stored(project)
    change(notebook)
    notebook_of(project).write_text(json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def strip(notebook: Any) -> None:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


def add_output(**output: Any) -> Callable[[Any], object]:
    return lambda notebook: notebook["cells"][CLAIM]["outputs"].append(output)


def add_data(kind: str, data: Any) -> Callable[[Any], object]:
    return add_output(output_type="display_data", data={kind: data}, metadata={})


def set_in(cell: int, key: str, value: Any) -> Callable[[Any], object]:
    return lambda notebook: notebook["cells"][cell].update({key: value})


def drop_alt(notebook: Any) -> None:
    notebook["cells"][FIGURE]["outputs"][0]["metadata"] = {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_in(CLAIM, "source", "total = 4"), "source differs"),
        (set_in(CLAIM, "id", "abcdefgh"), "id differs"),
        (set_in(CLAIM, "metadata", {"tags": ["claim"], "collapsed": True}), "metadata differs"),
        (set_in(CLAIM, "execution_count", 7), "execution count is 7, not 2"),
        (set_in(CLAIM, "outputs", []), "has the tag claim but prints no ✓"),
        (set_in(FIGURE, "outputs", []), "has the tag figure but shows no picture"),
        (set_in(WIDGET, "outputs", []), "has the tag widget but shows no frames"),
        (strip, "execution count is None, not 1"),
        (drop_alt, "its alt text has 0 characters"),
        (lambda notebook: notebook["cells"].pop(), "00_count.ipynb has 15"),
        (lambda notebook: notebook["metadata"].update(widgets={}), "stores widget state"),
        (lambda notebook: notebook["metadata"]["language_info"].update(version="3"), "other metadata"),
        (add_output(output_type="stream", name="stderr", text="careful"), "writes to stderr: careful"),
        (add_output(output_type="error", ename="E", evalue="bad", traceback=[]), "a stored error: E: bad"),
        (add_output(output_type="stream", name="stdout", text="x" * 600_000), "more than 500"),
        (add_output(output_type="stream", name="stdout", text="<A at 0x7f0011223344>"), "shows a memory address"),
        (add_output(output_type="stream", name="stdout", text="in /home/me/x"), "names a folder of this machine"),
        (add_data("image/png", "Z2FyYmFnZQ=="), "its picture is not a PNG file"),
        (add_data("text/html", '<script src="https://x.org/y.js"></script>'), "loads something from the network"),
        (add_data("text/html", "<link rel=stylesheet href=//x.org/y.css>"), "loads something from the network"),
        (add_data("text/html", "<style>a{background:url(http://x.org/y)}</style>"), "loads something from the network"),
        (add_data("text/html", '<img src="data:,">'), "1 <img> without alt text"),
        (add_data("application/vnd.jupyter.widget-view+json", {"model_id": "1"}), "a live widget is stored"),
    ],
)
def test_a_spoilt_notebook_is_found(course: Project, change: Callable[[Any], object], said: str) -> None:
    edit(course, change)
    problems = check.problems(course)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("total == 3", "total == 3.0", "00_count.py:30 (cell 4): source differs from 00_count.ipynb"),
        ('tags=["claim"]', 'tags=["clam"]', "unknown tag clam"),
        ("# # 00 · Count to three\n", "", "paragraph 1 of the header card must be '# NN · Title'"),
        ("Count to three", "Count to two", "its table is out of date"),
        ("\\tag{00.1}", "\\label{a}", "\\label"),
    ],
)
def test_a_spoilt_source_is_found(course: Project, old: str, new: str, said: str) -> None:
    replace(source_of(course), old, new)
    problems = check.problems(course)
    assert any(said in problem for problem in problems), problems


def test_files_without_a_partner_are_found(course: Project) -> None:
    shutil.copy(notebook_of(course), course.notebooks / "01_alone.ipynb")
    notebook_of(course).rename(course.notebooks / "02_renamed.ipynb")
    problems = "\n".join(check.problems(course))
    assert "notebooks/01_alone.ipynb has no source notebooks/src/01_alone.py" in problems
    assert "its notebook notebooks/00_count.ipynb is missing" in problems


def test_an_empty_course_is_a_problem_and_not_a_success(tmp_path: Path) -> None:
    project = make_course(tmp_path / "course")
    source_of(project).unlink()
    assert "holds no notebook source" in "".join(check.problems(project))
    assert build.main(["check"], project.root) == 1
    assert build.main(["build"], project.root) == 1


def test_a_name_used_twice_is_found(course: Project) -> None:
    write(course.notebooks / "src" / "01_again.py", NOTEBOOK.replace("# # 00 ·", "# # 01 ·"))
    problems = check.problems(course)
    assert any("01_again.py" in problem and "'gradient' is already used in" in problem for problem in problems)


@pytest.mark.parametrize(("text", "said"), [("no markers", "found 0"), (None, "there is no README.md")])
def test_a_readme_without_a_place_for_the_table_is_told_before_anything_runs(
    course: Project, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    course.readme.unlink()
    if text is not None:
        course.readme.write_text(text)
    for command in (["build"], ["check"], ["badges"]):
        assert build.main(command, course.root) == 1
        assert said in "".join(capsys.readouterr())


def test_an_unknown_number_is_told(course: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["build", "7"], course.root) == 1
    assert "there is no notebook 07; there are 00" in capsys.readouterr().err
