"""nbval with our plugin, on a tiny course that is good, spoilt or slow."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import nbval_plugin
from tests.notebook_tools import NOTEBOOK, ROOT, Project, copy_of_built_course, notebook_of, write


@pytest.fixture
def course(tmp_path: Path) -> Project:
    return copy_of_built_course(tmp_path)


def nbval(project: Project, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "pytest", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "-p", "tests.nbval_plugin"]
    command += ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg")]
    command += ["--color", "no", "-rf", "--tb", "short", "notebooks"]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}
    return subprocess.run(
        [sys.executable, *command], cwd=project.root, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def failed_cells(result: subprocess.CompletedProcess[str]) -> set[int]:
    return {int(number) for number in re.findall(r"^FAILED \S+::Cell (\d+)", result.stdout, re.MULTILINE)}


def test_a_good_course_passes(course: Project) -> None:
    result = nbval(course)
    assert result.returncode == 0, result.stdout
    assert "8 passed" in result.stdout
    assert re.search(r"00_count +8 cells", result.stdout)
    assert "PROBLEM" not in result.stdout


def test_every_way_to_spoil_a_notebook_fails_its_cell(course: Project) -> None:
    path = notebook_of(course)
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code[0]["outputs"][0]["text"] = ["nlcore 1.1.1 | torch 9.9.9+cu1 | device: cuda\n"]  # another machine: fine
    code[1]["outputs"][0]["text"] = ["✓ one and two make 3\n", "a third is 0.433\n"]
    code[2]["outputs"][0]["data"]["image/png"] = base64.b64encode(b"garbage").decode()
    code[3]["outputs"] = []
    code[5]["outputs"], code[5]["execution_count"] = [], None
    code[7]["source"] = ["import sys\n", "print('careful', file=sys.stderr)\n", "course.check.three(three)"]
    path.write_text(json.dumps(notebook))
    write(course.notebooks / "src" / "01_new.py", NOTEBOOK.replace("# # 00 ·", "# # 01 ·"))
    (course.figures / "gradient.png").rename(course.figures / "old.png")
    Image.new("L", (80, 60), "white").save(course.figures / "gradient.png")
    result = nbval(course)
    assert result.returncode != 0
    assert failed_cells(result) == {1, 2, 3, 5, 7}, result.stdout
    for said in (
        "a third is 0.433", "not a picture", "is only in the new notebook", "stored without having been run",
        "PROBLEM notebooks/01_new.ipynb was not tested", "PROBLEM figures/old.png is stored, but no notebook makes it",
        "PROBLEM figures/gradient.png: ",
    ):  # fmt: skip
        assert said in result.stdout, said


def test_what_is_too_slow_fails(course: Project) -> None:
    result = nbval(course, NLCORE_TIME_FACTOR="0.000001")
    assert result.returncode != 0
    assert "Cell 0: the cell took" in result.stdout
    assert "PROBLEM 00_count: its cells took" in result.stdout


@pytest.mark.parametrize("factor", ["0", "-1", "fast"])
def test_a_bad_time_factor_is_told(monkeypatch: pytest.MonkeyPatch, factor: str) -> None:
    monkeypatch.setenv("NLCORE_TIME_FACTOR", factor)
    with pytest.raises(pytest.UsageError, match="must be a positive number"):
        nbval_plugin.time_factor()
