"""An explorer with a kernel behind it: core ipywidgets that draw each state when it is asked for."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from nlcore.course.widgets.controls import Slider

_TEXT = "line-height:1.5;white-space:normal"
Draw = Callable[..., tuple[bytes, str]]


def has_front_end() -> bool:
    """Tell whether this process is the kernel of a notebook and can show widgets."""
    if "ipykernel" not in sys.modules or importlib.util.find_spec("ipywidgets") is None:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class LiveView:
    """Sliders, buttons, picture and words of one explorer.

    Args     draw: takes the value of each slider by name and returns a PNG file and words. sliders, presets: as
             checked. title, goal: one line each. size: width and height of the picture in pixels.
    """

    def __init__(
        self,
        draw: Draw,
        sliders: Sequence[Slider],
        presets: Mapping[str, Mapping[str, int]],
        *,
        title: str,
        goal: str,
        size: tuple[int, int],
    ) -> None:
        import ipywidgets as widgets

        self._draw, self._sliders, self._held = draw, sliders, False
        width = f"{size[0]}px"
        self.handles = {slider.name: _handle(widgets, slider, sliders, width) for slider in sliders}
        for handle in self.handles.values():
            handle.observe(self._moved, names="value")
        starts = {slider.name: slider.position(slider.start) for slider in sliders}
        self.buttons = [self._button(widgets, label, goal) for label, goal in {**presets, "Reset": starts}.items()]
        self.image = _image(widgets, size)
        self.words = widgets.HTML(layout=widgets.Layout(width=width, max_width="100%", margin="0"))
        self.redraw()
        heading = widgets.HTML(_heading(title, goal), layout=widgets.Layout(width=width, max_width="100%", margin="0"))
        row = widgets.HBox(self.buttons, layout=widgets.Layout(flex_flow="row wrap", max_width=width))
        parts = [heading, *self.handles.values(), row, self.image, self.words]
        self.box = widgets.VBox(parts, layout=widgets.Layout(width="100%", align_items="flex-start", padding="4px 0"))

    @property
    def values(self) -> dict[str, Any]:
        """The value that each slider stands at."""
        return {slider.name: slider.values[self.handles[slider.name].value] for slider in self._sliders}

    def place(self, goal: Mapping[str, int]) -> None:
        """Move several sliders to new positions and draw once."""
        self._held = True
        try:
            for name, position in goal.items():
                self.handles[name].value = position
        finally:
            self._held = False
        self.redraw()

    def redraw(self) -> None:
        """Draw the state that the sliders stand at; if that fails, say so in the words and keep the picture."""
        try:
            self.image.value, words = self._draw(**self.values)
        except Exception as error:
            words = (
                f"This state could not be drawn ({type(error).__name__}: {error}). "
                "The picture is that of the state before. Move a slider or press Reset."
            )
        self.words.value = f'<div role="status" aria-live="polite" style="{_TEXT};min-height:3em">{escape(words)}</div>'

    def _moved(self, change: Any) -> None:
        if not self._held:
            self.redraw()

    def _button(self, widgets: Any, label: str, goal: Mapping[str, int]) -> Any:
        button = widgets.Button(description=label, layout=widgets.Layout(width="auto", margin="2px 6px 2px 0"))
        button.on_click(lambda _: self.place(goal))
        return button

    def bundle(self) -> dict[str, Any]:
        """Return what tells a front end to show this view."""
        return {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}


def _heading(title: str, goal: str) -> str:
    return (
        f'<div style="{_TEXT}"><div style="font-weight:600;font-size:1.1em">{escape(title)}</div>'
        f'<div><span style="font-weight:600">Goal:</span> {escape(goal)}</div></div>'
    )


def _handle(widgets: Any, slider: Slider, sliders: Sequence[Slider], width: str) -> Any:
    """Return the live slider, as wide as the picture, with labels as wide as the longest of them."""
    longest = max(len(each.label) for each in sliders)
    return widgets.SelectionSlider(
        options=[(shown, position) for position, shown in enumerate(slider.shown)],
        value=slider.position(slider.start),
        description=slider.label,
        style={"description_width": f"{longest + 1}ch"},
        layout=widgets.Layout(width=width, max_width="100%", margin="2px 0"),
    )


def _image(widgets: Any, size: tuple[int, int]) -> Any:
    """Return a picture that keeps its size and place whatever it shows."""
    width, height = size
    layout = widgets.Layout(align_self="flex-start", flex="0 0 auto", max_width="100%", margin="6px 0")
    return widgets.Image(format="png", width=width, height=height, layout=layout)
