"""The build step, tried on a tiny course: what it writes, what it refuses, and that a failure leaves the old files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.notebook_tools import (
    COURSE,
    ROOT,
    BuildError,
    Project,
    build,
    check,
    copy_of_built_course,
    every_file,
    execute,
    notebook_of,
    pairs,
    replace,
    source_of,
    sources,
    stored,
    write,
)

FIGURE, WIDGET = 4, 5  # cells of the tiny notebook
FAILING = "# %% tags={tags}\nprint('so far so good')\n{code}\n"


@pytest.fixture
def course(tmp_path: Path) -> Project:
    return copy_of_built_course(tmp_path)


# ---- what a build writes


def test_a_built_course_has_no_problems(course: Project) -> None:
    assert check.problems(course) == []


def test_a_notebook_stores_what_can_be_shown_and_nothing_of_the_run(course: Project) -> None:
    notebook = stored(course)
    assert notebook["metadata"] == sources.METADATA
    assert [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"] == list(range(1, 9))
    (shown,) = notebook["cells"][WIDGET]["outputs"]
    assert set(shown["data"]) == {"text/html", "image/png", "text/plain"}
    assert set().union(*(cell["metadata"] for cell in notebook["cells"])) == {"tags"}


def test_pictures_lie_in_figures(course: Project) -> None:
    made = {str(path.relative_to(course.figures)) for path in course.figures.rglob("*") if path.is_file()}
    assert made == {"gradient.png", "interactive/slider.html"}


def test_the_readme_gets_its_table(course: Project) -> None:
    text = course.readme.read_text()
    assert "| 00 | [Count to three](notebooks/00_count.ipynb) | Count things and look at a picture. | 10 |" in text
    assert "[![Open notebook 00 in Colab](" in text
    assert text.endswith("Text after the table.\n")


def test_building_again_changes_no_byte(course: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = every_file(course.root)
    assert build.main(["build", "0"], course.root) == 0
    assert every_file(course.root) == before
    assert "00_count: " in capsys.readouterr().out


def test_an_id_stays_when_other_cells_change(course: Project) -> None:
    before = [cell["id"] for cell in stored(course)["cells"]]
    heading = "# %% [markdown]\n# ## How many"
    replace(source_of(course), heading, f"# %% [markdown]\n# New words.\n\n{heading}")
    after = [cell.id for cell in sources.expand(sources.load(course)[0], course).cells]
    assert len(after) == len(before) + 1
    assert after[:2] + after[3:] == before
    assert len(set(after)) == len(after)


def test_two_equal_cells_get_two_ids(course: Project) -> None:
    with source_of(course).open("a") as file:
        file.write("\n# %%\ntotal\n\n# %%\ntotal\n")
    ids = [cell.id for cell in sources.expand(sources.load(course)[0], course).cells]
    assert len(set(ids)) == len(ids)


# ---- a failure leaves the old files


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('too many')", "ValueError: too many\n    raise ValueError('too many')"),
        ("import sys; print('careful', file=sys.stderr)", "writes to stderr: careful"),
    ],
)
def test_a_failing_cell_is_named_and_the_old_notebook_stays(
    course: Project, capsys: pytest.CaptureFixture[str], code: str, said: str
) -> None:
    lines = source_of(course).read_text().splitlines()
    with source_of(course).open("a") as file:
        file.write("\n" + FAILING.format(tags="[]", code=code))
    before = every_file(course.root)
    assert build.main(["build"], course.root) == 1
    assert every_file(course.root) == before
    error = capsys.readouterr().err
    assert said in error
    place = len(lines) + (4 if "raise" in code else 2)  # the failing line, or else the first line of the cell
    assert f"notebooks/src/00_count.py:{place} (cell {len(stored(course)['cells']) + 1})" in error


def test_a_cell_that_must_fail_may_fail(course: Project) -> None:
    code = FAILING.format(tags='["raises-exception"]', code="raise ValueError('as it should')")
    replace(source_of(course), '# %% tags=["figure"]', f'{code}\n# %% tags=["figure"]')
    assert build.main(["build"], course.root) == 0
    assert check.problems(course) == []
    outputs = stored(course)["cells"][FIGURE]["outputs"]
    assert outputs[-1]["traceback"] == ["ValueError: as it should"]


def test_an_interrupted_build_leaves_the_old_notebook(course: Project, tmp_path: Path) -> None:
    started = tmp_path / "started"
    code = f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)"
    with source_of(course).open("a") as file:
        file.write("\n" + FAILING.format(tags="[]", code=code))
    before = every_file(course.root)
    command = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.notebook_tools import Path, build\n"
    command += f"sys.exit(build.main(['build'], Path({str(course.root)!r})))"
    running = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not started.exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=60)
    finally:
        running.kill()
    assert started.exists(), error
    assert running.returncode in {1, 130}, error
    assert "the old notebook stays" in error or "interrupted" in error
    assert every_file(course.root) == before


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "00_count.ipynb"
    path.write_text("old")

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kernel_finds_the_checkout_first_and_saves_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = execute.environment(Path("here"), Path("pictures"), Path("empty"))
    assert found["PYTHONPATH"] == os.pathsep.join(["here", "elsewhere"])
    assert found["NLCORE_FIGURES"] == "pictures"
    assert (found["NLCORE_PROGRESS"], found["OMP_NUM_THREADS"], found["PYTHONHASHSEED"]) == ("0", "1", "0")
    assert "MPLBACKEND" not in found


# ---- the address


def test_a_new_address_reaches_set_up_cell_badge_and_readme_only(course: Project) -> None:
    before, old = every_file(course.root), stored(course)["cells"]
    replace(course.root / "pyproject.toml", "someone/lessons", "else/where")
    assert build.main(["badges"], course.root) == 0
    assert check.problems(Project(course.root)) == []
    changed = {name for name, data in every_file(course.root).items() if data != before[name]}
    assert changed == {"pyproject.toml", "README.md", "notebooks/00_count.ipynb"}
    new = stored(course)["cells"]
    assert [index for index in range(len(old)) if new[index] != old[index]] == [0, 1]
    for cell in (0, 1):
        was, now = json.dumps(old[cell]), json.dumps(new[cell])
        assert was != now == was.replace("someone/lessons", "else/where")
    assert b"someone" not in b"".join(every_file(course.root).values())


def test_badges_write_new_prose_and_keep_outputs(course: Project) -> None:
    before = stored(course)["cells"]
    replace(source_of(course), "# You counted.", "# You counted to three.")
    assert build.main(["badges"], course.root) == 0
    assert check.problems(course) == []
    after = stored(course)["cells"]
    assert [cell.get("outputs") for cell in after] == [cell.get("outputs") for cell in before]


def test_badges_refuse_when_code_has_changed(course: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = notebook_of(course).read_bytes()
    replace(source_of(course), 'return "The slider', 'return "A slider')
    assert build.main(["badges"], course.root) == 1
    assert "its code has changed since it was last run" in capsys.readouterr().err
    assert notebook_of(course).read_bytes() == before


@pytest.mark.parametrize("address", ["", "https://example.org/a/b", "github.com/a/b", "https://github.com/a"])
def test_an_address_that_colab_cannot_open_is_refused(course: Project, address: str) -> None:
    replace(course.root / "pyproject.toml", "https://github.com/someone/lessons", address)
    with pytest.raises(BuildError, match="Colab opens notebooks from GitHub only"):
        _ = Project(course.root).address


@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_the_ending_of_the_address_does_not_matter(course: Project, ending: str) -> None:
    replace(course.root / "pyproject.toml", "someone/lessons", f"someone/lessons{ending}")
    assert Project(course.root).address == "https://github.com/someone/lessons"


def test_the_placeholder_and_a_missing_tag_are_noted_in_one_line(course: Project) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=course.root, check=True)
    (missing,) = course.notes()
    assert "there is no git tag v7.8.9 yet" in missing
    replace(course.root / "pyproject.toml", "someone", "OWNER")
    (placeholder,) = Project(course.root).notes()
    assert "still holds the placeholder OWNER" in placeholder


def test_the_notebook_and_the_package_come_from_the_same_tag() -> None:
    code, opener = sources.setup_code(COURSE), sources.colab_address("00_start_here", COURSE)
    assert f"@{COURSE.tag}" in code
    assert f"/blob/{COURSE.tag}/notebooks/00_start_here.ipynb" in opener


def test_a_notebook_that_cannot_be_read_is_told(course: Project) -> None:
    notebook_of(course).write_text("{")
    with pytest.raises(BuildError, match="is not a notebook that can be read"):
        pairs.read(sources.load(course)[0], course)
