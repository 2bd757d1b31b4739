"""Explorers: one figure, a few sliders, and words for every state.

An explorer is one ordinary object that carries four views of itself side by side: live sliders where there is a
kernel, pictures drawn ahead with native sliders where there is none, a picture of the start state, and its words.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nlcore.course.figures import check_name, check_words
from nlcore.course.files import figures_folder
from nlcore.course.widgets import page
from nlcore.course.widgets.controls import Slider, check_controls, check_presets
from nlcore.course.widgets.draw import Painter, Pixels, quick_png
from nlcore.course.widgets.frames import ColourCount, base64_text, encode
from nlcore.course.widgets.live import LiveView, has_front_end
from nlcore.files import write_atomic

__all__ = ["Explorer", "Slider", "explore", "export"]


class Explorer:
    """A figure that a learner sets with sliders; make one with `explore`."""

    def __init__(
        self,
        figure: Figure,
        update: Callable[..., str],
        sliders: tuple[Slider, ...],
        presets: dict[str, dict[str, int]],
        *,
        name: str,
        title: str,
        goal: str,
    ) -> None:
        self.figure, self.update, self.sliders, self.presets = figure, update, sliders, presets
        self.name, self.title, self.goal = name, title, goal
        self.start = {slider.name: slider.start for slider in sliders}
        self._live: LiveView | None = None
        self._say(self.start)
        self._painter = Painter(figure)
        self.html, self.png, self.words = self._draw_ahead()

    @property
    def states(self) -> list[dict[str, Any]]:
        """The value of each slider in every state, in the order in which the pictures are kept."""
        names = [slider.name for slider in self.sliders]
        return [dict(zip(names, values, strict=True)) for values in product(*(s.values for s in self.sliders))]

    def draw(self, **values: Any) -> tuple[bytes, str]:
        """Draw the state with these slider values; return its picture as a PNG file and its words."""
        pixels, words = self._state(values)
        return quick_png(pixels), words

    def live(self) -> LiveView:
        """Return the view with live sliders (one for each explorer)."""
        if self._live is None:
            self._live = LiveView(
                self.draw, self.sliders, self.presets, title=self.title, goal=self.goal, size=self._painter.size
            )
        return self._live

    def _say(self, values: Mapping[str, Any]) -> str:
        """Move the artists to a state and return its words."""
        return check_words(self.update(**values), "what update returns")

    def _state(self, values: Mapping[str, Any]) -> tuple[Pixels, str]:
        words = self._say(values)
        return self._painter.paint(), words

    def _draw_ahead(self) -> tuple[str, bytes, str]:
        """Draw every state; return the HTML, the picture of the start state and its words."""
        states, counted = self.states, ColourCount()
        start = states.index(self.start)
        first = self._state(self.start)
        pictures, words = [], []
        for values in states:
            pixels, text = self._try_state(values)
            pictures.append(counted.add(pixels))
            words.append(text)
        self._check_pure(first)
        self._painter.learning = False
        frames = encode(pictures, counted, start)
        html = page.fragment(
            name=self.name, title=self.title, goal=self.goal, size=self._painter.size, sliders=self.sliders,
            presets=self.presets, frames=frames, words=words, start=start,
        )  # fmt: skip
        page.check_bytes(html, len(states))
        return html, frames.start, words[start]

    def _try_state(self, values: Mapping[str, Any]) -> tuple[Pixels, str]:
        try:
            return self._state(values)
        except Exception as error:
            setting = ", ".join(f"{name}={value!r}" for name, value in values.items())
            raise ValueError(f"update({setting}) failed: {type(error).__name__}: {error}") from error

    def _check_pure(self, first: tuple[Pixels, str]) -> None:
        """Go back to the start state and see that it looks and reads as it did at first."""
        pixels, words = self._state(self.start)
        if words != first[1] or not np.array_equal(pixels, first[0]):
            part = "words" if words != first[1] else "picture"
            raise ValueError(
                f"update gives another {part} when it comes back to the start state; let it set everything it "
                "ever changes from its parameters alone (fixed seeds, no artists added, no counters)"
            )

    def __repr__(self) -> str:
        return f"{self.title}\nGoal: {self.goal}\n{self.words}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        data: dict[str, Any] = {"text/plain": repr(self)}
        if has_front_end():
            data["application/vnd.jupyter.widget-view+json"] = self.live().bundle()
            if "google.colab" in sys.modules:  # it may prefer the page to the live view, so it gets the live view only
                return data, {}
        data |= {"image/png": base64_text(self.png), "text/html": self.html}
        return data, {"image/png": {"alt": self.words}}


def explore(
    fig: Figure,
    update: Callable[..., str],
    controls: Iterable[Slider],
    *,
    name: str,
    title: str,
    goal: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Explorer:
    """Turn a figure into one that a learner sets with sliders.

    Every state is drawn once here, so a state that fails is an error here. The file interactive/NAME.html is written
    as well when the environment variable NLCORE_FIGURES names a folder.

    Args     fig: a figure whose artists exist already. update: takes one value per slider by name, moves the artists
             (never adds any) and returns the words for that state. controls: one Slider per parameter of update, at
             most MAX_FRAMES states together. name: lower-case words joined by hyphens. title: one line. goal: one line
             that says what to find out or reach. presets: {label: {slider name: value}}; sliders that a preset
             does not name stay where they are.
    Returns  Explorer, shown by a notebook as live sliders.
    Raises   ValueError or TypeError that says what was expected, what came and what to try.
    """
    if not isinstance(fig, Figure):
        raise TypeError(f"explore(fig, ...) expects a matplotlib Figure, got {type(fig).__name__}; try course.canvas()")
    sliders = check_controls(controls, update)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(fig)  # or the notebook would show the figure a second time
    explorer = Explorer(
        fig, update, sliders, check_presets(presets, sliders),
        name=check_name(name), title=check_words(title, "title"), goal=check_words(goal, "goal"),
    )  # fmt: skip
    folder = figures_folder()
    if folder is not None:
        export(explorer, folder / "interactive")
    return explorer


def export(explorer: Explorer, folder: str | Path) -> Path:
    """Write NAME.html, a web page that works without kernel and network, into `folder`; return its path."""
    if not isinstance(explorer, Explorer):
        raise TypeError(f"export(explorer, folder) expects what explore(...) returns, got {type(explorer).__name__}")
    width = explorer.figure.canvas.get_width_height()[0]
    return write_atomic(Path(folder) / f"{explorer.name}.html", page.page(explorer.title, width, explorer.html))
