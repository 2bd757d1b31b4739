"""JupyterLab in a real browser: run a notebook, move the sliders of its widgets with the keyboard, look and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.browser.demo import write_notebook
from tests.browser.lab import Lab, close, open_and_run
from tests.browser.widget import Widget, at_right_end

ROOT = Path(__file__).resolve().parents[2]
VIEW = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.browser


def has_widgets(notebook: Path) -> bool:
    """Tell whether a notebook has cells tagged "widget"."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return any("widget" in cell["metadata"].get("tags", []) for cell in cells)


NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if has_widgets(path)]


@pytest.fixture
def run(chromium: Any, lab: Lab) -> Iterator[Callable[[Path], tuple[Any, list[int]]]]:
    """Yield a function that runs a notebook and returns the browser page and the places of its live widgets."""
    pages = []

    def run_notebook(notebook: Path) -> tuple[Any, list[int]]:
        page = chromium.new_page(viewport={"width": 1200, "height": 1000})
        pages.append(page)
        cells = open_and_run(page, lab, lab.add(notebook))
        for number, cell in enumerate((cell for cell in cells if cell["outputs"]), start=1):
            failed = [output for output in cell["outputs"] if output["output_type"] == "error"]
            assert not failed, f"cell {number} of {notebook.name}: {failed[0]['ename']}: {failed[0]['evalue']}"
        return page, [cell["place"] for cell in cells if any(VIEW in out.get("data", {}) for out in cell["outputs"])]

    yield run_notebook
    for page in pages:
        close(page)


@pytest.fixture(params=[None, *NOTEBOOKS], ids=["demo", *(path.stem for path in NOTEBOOKS)])
def notebook(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a notebook made here and, one after the other, every notebook with a widget, up to its last one."""
    return up_to_its_last_widget(request.param, tmp_path) if request.param else write_notebook(tmp_path / "demo.ipynb")


def up_to_its_last_widget(notebook: Path, folder: Path) -> Path:
    """Write a copy without what follows the last widget, which needs no browser: nbval runs all cells."""
    whole = json.loads(notebook.read_text(encoding="utf-8"))
    last = max(place for place, cell in enumerate(whole["cells"]) if "widget" in cell["metadata"].get("tags", []))
    short = folder / notebook.name
    short.write_text(json.dumps(whole | {"cells": whole["cells"][: last + 1]}), encoding="utf-8")
    return short


def test_sliders_move_picture_and_words(notebook: Path, run: Callable[[Path], tuple[Any, list[int]]]) -> None:
    page, places = run(notebook)
    assert places, f"{notebook.name} has cells tagged widget but shows no live widget"
    for place in places:
        widget = Widget(page, place)
        assert widget.handles.count() > 0
        before = widget.image.bounding_box()
        for number in range(widget.handles.count()):
            handle = widget.handles.nth(number)
            handle.focus()
            key = "ArrowLeft" if at_right_end(handle) else "ArrowRight"
            widget.change(partial(page.keyboard.press, key))
        widget.change(partial(widget.button("Reset").press, "Enter"))
        after = widget.image.bounding_box()
        assert (after["width"], after["height"]) == (before["width"], before["height"]), "the picture changed its size"


def test_presets_by_keyboard(tmp_path: Path, run: Callable[[Path], tuple[Any, list[int]]]) -> None:
    page, places = run(write_notebook(tmp_path / "presets.ipynb"))
    widget = Widget(page, places[0])
    for label, key in (("long memory", "Enter"), ("short memory", " "), ("Reset", "Enter")):
        widget.change(partial(widget.button(label).press, key))
    assert "memory β = 0.9 and damping 0," in widget.words()


def test_arrow_keys_move_the_kernel_free_sliders_in_a_notebook(
    tmp_path: Path, run: Callable[[Path], tuple[Any, list[int]]]
) -> None:
    last = "from IPython.display import HTML\nHTML(momentum_explorer().html)"
    page, _ = run(write_notebook(tmp_path / "frames.ipynb", last))
    page.locator(".nl-explorer canvas[data-state]").wait_for()
    page.locator(".nl-explorer input").first.focus()
    page.keyboard.press("ArrowRight")
    page.locator(".nl-words [role=status]").get_by_text("memory β = 0.95").wait_for()
    page.get_by_role("button", name="Reset").press("Enter")
    page.locator(".nl-words [role=status]").get_by_text("memory β = 0.9 ").wait_for()
