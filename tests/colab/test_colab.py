"""A notebook opened in Colab: its set-up cell installs nlcore, changes nothing else, and every cell runs.

`make test` makes the environment of Colab's packages. By itself, `make environments` does. With NLCORE_COLAB_ALL=1 all
notebooks run here, else the first.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from tests.colab.environment import ADDRESS, ROOT, TAG, Computer, computer

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHOSEN = NOTEBOOKS if os.environ.get("NLCORE_COLAB_ALL") == "1" else NOTEBOOKS[:1]
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
NOT_THERE_YET = """
import importlib.util, sys
assert "google.colab" in sys.modules
assert importlib.util.find_spec("nlcore") is None
"""
LOOK_BACK = """
def look_back():  # a function, so that no name of the notebook changes its meaning
    import json, pathlib
    import ipywidgets as widgets
    import nlcore
    home = pathlib.Path(nlcore.__file__).parent
    files = sorted(str(f.relative_to(home)) for f in home.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    made = list(widgets.Widget.widgets.values())
    pictures = [widget for widget in made if isinstance(widget, widgets.Image)]
    slider = next(widget for widget in made if isinstance(widget, widgets.SelectionSlider))
    before = [picture.value for picture in pictures]
    slider.index = 0 if slider.index else len(slider.options) - 1
    redrawn = sum(old != picture.value for old, picture in zip(before, pictures))
    print(json.dumps({"home": str(home), "files": files, "ipywidgets": widgets.__version__, "redrawn": redrawn}))

look_back()
"""


@dataclass(frozen=True)
class Visit:
    """What was seen when a notebook ran in Colab's stand-in."""

    computer: Computer
    notebook: nbformat.NotebookNode
    before: set[str]
    after: set[str]
    found: dict[str, object]


@pytest.fixture(scope="module", params=CHOSEN, ids=lambda path: path.stem)
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    here = computer(colab_python(), tmp_path_factory.mktemp("colab"))
    notebook = nbformat.read(request.param, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(NOT_THERE_YET))
    notebook.cells.append(nbformat.v4.new_code_cell(LOOK_BACK))
    before = here.freeze()
    here.execute(notebook)
    return Visit(here, notebook, before, here.freeze(), json.loads(notebook.cells[-1].outputs[0].text))


def colab_python() -> Path:
    """Return the interpreter of the environment with Colab's packages."""
    named = os.environ.get("NLCORE_COLAB_PYTHON")
    python = Path(named) if named else ROOT / ".venv-colab" / "bin" / "python"
    if named is None and not python.exists():
        pytest.skip("there is no environment with Colab's packages; run: make environments")
    return python


def test_there_is_a_notebook_to_open() -> None:
    assert CHOSEN


def test_all_notebooks_have_the_same_set_up_cell_with_the_address_of_the_project() -> None:
    cells = {cell.source for path in NOTEBOOKS for cell in set_up_cells(path)}
    assert len(cells) == 1
    (text,) = cells
    assert re.findall(r"git\+([^\s\"']+)", text) == [f"{ADDRESS}@{TAG}"]


def set_up_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    found = [cell for cell in cells if "setup" in cell.metadata.get("tags", [])]
    assert len(found) == 1, f"{path.name} has {len(found)} set-up cells"
    return found


def test_every_cell_ran(visit: Visit) -> None:
    code = [cell for cell in visit.notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)


def test_what_was_installed_before_is_unchanged(visit: Visit) -> None:
    assert visit.before, "pip listed nothing"
    assert visit.after == visit.before


def test_the_installed_package_is_whole(visit: Visit) -> None:
    published = visit.computer.home / "repository" / "nlcore"
    expected = sorted(str(file.relative_to(published)) for file in published.rglob("*") if file.is_file())
    assert Path(str(visit.found["home"])).is_relative_to(visit.computer.home / "venv")
    assert visit.found["files"] == expected
    assert "data/digits8.npz" in expected


def test_live_widgets_were_made_with_the_widgets_of_colab(visit: Visit) -> None:
    assert visit.found["ipywidgets"] == "7.7.1"
    outputs = [output for cell in visit.notebook.cells for output in cell.get("outputs", [])]
    views = [output.data[WIDGET]["model_id"] for output in outputs if WIDGET in output.get("data", {})]
    state = visit.notebook.metadata.widgets[STATE]["state"]
    made = {state[model]["model_module_version"] for model in views}
    kinds = {model["model_name"] for model in state.values()}
    assert views, "no cell showed a live widget"
    assert made == {"1.5.0"}, "widgets of ipywidgets 7"
    assert any(kind.endswith("SliderModel") for kind in kinds)
    assert "ImageModel" in kinds


def test_a_moved_slider_changes_its_picture_and_no_other(visit: Visit) -> None:
    assert visit.found["redrawn"] == 1
