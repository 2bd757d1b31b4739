"""The live widget in the output of one notebook cell, as a learner with a keyboard meets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CHANGE_MS = 60_000
HANDLE = ".noUi-handle, .ui-slider-handle"  # ipywidgets 8, ipywidgets 7


class Widget:
    """The live widget in the output of one cell."""

    def __init__(self, page: Any, cell: int) -> None:
        self.page = page
        self.area = page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".widget-vbox").first
        self.area.wait_for()
        self.image = self.area.locator("img.widget-image")
        self.handles = self.area.locator(HANDLE)

    def source(self) -> str:
        return str(self.image.get_attribute("src"))

    def words(self) -> str:
        return str(self.area.locator("[role=status]").inner_text())

    def button(self, label: str) -> Any:
        return self.area.get_by_role("button", name=label)

    def wait_for_change(self, source: str, words: str) -> None:
        """Wait until a new picture has been decoded and new words are there."""
        self.page.wait_for_function(
            """([area, source, words]) => {
              const image = area.querySelector("img.widget-image"), said = area.querySelector("[role=status]");
              return said && image.src !== source && said.innerText !== words;
            }""",
            arg=[self.area.element_handle(), source, words],
            timeout=CHANGE_MS,
        )
        self.image.evaluate("image => image.decode()")

    def change(self, act: Callable[[], None]) -> None:
        """Do something and wait until picture and words have followed."""
        source, words = self.source(), self.words()
        act()
        self.wait_for_change(source, words)


def at_right_end(handle: Any) -> bool:
    """Tell whether the handle of a slider cannot go further right."""
    box, track = (
        handle.bounding_box(),
        handle.locator("xpath=ancestor::*[contains(@class, 'slider')][1]").bounding_box(),
    )
    return bool(box["x"] + box["width"] / 2 > track["x"] + track["width"] - 4)
