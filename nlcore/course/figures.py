"""Figures that say in words what they show, and that are the same bytes each time they are made."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from nlcore.course.files import figures_folder
from nlcore.course.style import HOUSE
from nlcore.files import write_atomic

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def png_bytes(figure: Figure, colours: int = 64) -> bytes:
    """Draw `figure` as a small PNG with a palette of `colours` colours; same figure, same bytes.

    Args     figure: any matplotlib figure. colours: size of the palette, 2 to 256.
    Returns  the PNG file as bytes: opaque white background, no time stamp, no version.
    """
    if not 2 <= colours <= 256:
        raise ValueError(f"colours must be between 2 and 256, got {colours}")
    with matplotlib.rc_context(HOUSE):
        drawn = FigureCanvasAgg(figure)
        drawn.draw()
        picture = Image.fromarray(_opaque(drawn))
    palette = picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    palette.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _opaque(drawn: FigureCanvasAgg) -> Any:
    rgba = np.asarray(drawn.buffer_rgba()).astype(np.float64)
    alpha = rgba[..., 3:] / 255.0
    return (rgba[..., :3] * alpha + 255.0 * (1.0 - alpha)).round().astype(np.uint8)


@dataclass(frozen=True)
class Picture:
    """A finished figure: shown as an image, read aloud as its alt text."""

    name: str
    alt: str
    png: bytes

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"image/png": base64.b64encode(self.png).decode("ascii"), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}

    def save(self, folder: str | Path) -> Path:
        """Write NAME.png into `folder`, whole or not at all, and return its path."""
        return write_atomic(Path(folder) / f"{self.name}.png", self.png)


def check_name(name: str) -> str:
    """Return `name` if it can be a file name: lower-case words joined by hyphens; else raise ValueError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"a name is lower-case words joined by hyphens, like 'past-gradients'; got {name!r}")
    return name


def check_words(words: str, what: str = "alt") -> str:
    """Return `words` stripped; raise ValueError when there are none, TypeError when it is not text."""
    if not isinstance(words, str):
        raise TypeError(f"{what} must be text that says what the data shows, got {type(words).__name__}")
    if not words.strip():
        raise ValueError(f"{what} is empty: say in one or two sentences, with its numbers, what the data shows")
    return " ".join(words.split())


def figure(drawing: Figure, name: str, *, alt: str) -> Picture:
    """Finish `drawing`: give it a name and words, and return it ready to be shown.

    The file NAME.png is written as well when the environment variable NLCORE_FIGURES names a folder.

    Args     drawing: a matplotlib figure, for example from `canvas`. name: lower-case words joined by hyphens.
             alt: what the data shows, made from the data (an f-string with its numbers).
    Returns  Picture, whose rich output is the image and whose plain text is `alt`.
    Raises   ValueError for an empty alt or an unusable name; TypeError if `drawing` is not a matplotlib figure.
    """
    if not isinstance(drawing, Figure):
        raise TypeError(f"figure(drawing, ...) expects a matplotlib Figure, got {type(drawing).__name__}; try canvas()")
    picture = Picture(check_name(name), check_words(alt), png_bytes(drawing))
    folder = figures_folder()
    if folder is not None:
        picture.save(folder)
    return picture
