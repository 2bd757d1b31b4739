"""Drawing again quickly: what does not move between two states of a figure is kept.

Most of the time of a matplotlib drawing goes into ticks, tick labels and grid lines, which rarely move. A `Painter`
keeps a picture of them and draws everything else over it. While it learns it draws each state both ways; when one
state does not come out the very same, it keeps only what surely lies below all else.
"""

from __future__ import annotations

import struct
import zlib
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
KEPT = 12  # backgrounds of one figure; each takes about a megabyte


class Painter:
    """Draws one figure again and again.

    The layout is computed in the first drawing and kept, so that nothing jumps from state to state. `learning` is true
    at first; set it to false when every state has been painted once.

    Args     figure: the figure in its start state; its background is made opaque.
    """

    def __init__(self, figure: Figure) -> None:
        if to_rgba(figure.get_facecolor())[3] < 1:
            figure.set_facecolor("white")
        self.figure = figure
        self.canvas = FigureCanvasAgg(figure)
        self.learning = True
        self._daring = True  # keep ticks also where something lies below them, until that spoils a picture
        self._backgrounds: dict[str, Any] = {}
        self.canvas.draw()
        figure.set_layout_engine("none")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        return self.canvas.get_width_height()

    def paint(self) -> Pixels:
        """Return the figure as it is now: (height, width, 3) numbers from 0 to 255."""
        steady = _steady_axes(self.figure, self._daring)
        still: list[Artist] = [
            self.figure.patch,
            *(part for axes in steady for part in (axes.patch, axes.xaxis, axes.yaxis)),
        ]
        look = _look(steady)
        if self.learning:
            return self._learn(still, look)
        touched = any(artist.stale for artist in still)
        if look in self._backgrounds and (self._daring or not touched):
            return self._paint_quick(still, look)
        whole = self._paint_all()
        self._keep(still, look)
        return whole

    def _learn(self, still: list[Artist], look: str) -> Pixels:
        whole = self._paint_all()
        if self._daring and (look in self._backgrounds or self._keep(still, look)):
            self._daring = np.array_equal(self._paint_quick(still, look), whole)
            if not self._daring:
                self._backgrounds.clear()
        return whole

    def _paint_all(self) -> Pixels:
        self.canvas.draw()
        return self._pixels()

    def _keep(self, still: list[Artist], look: str) -> bool:
        """Keep a picture of what stands still, unless too many are kept already; tell whether it is kept."""
        if look not in self._backgrounds and len(self._backgrounds) >= KEPT:
            return False
        renderer = self.canvas.get_renderer()
        renderer.clear()
        for artist in still:
            artist.draw(renderer)
        self._backgrounds[look] = self.canvas.copy_from_bbox(self.figure.bbox)
        return True

    def _paint_quick(self, still: list[Artist], look: str) -> Pixels:
        self.canvas.restore_region(self._backgrounds[look])
        shown = [artist for artist in still if artist.get_visible()]
        try:
            for artist in shown:
                artist.set_visible(False)
            self.figure.draw(self.canvas.get_renderer())
        finally:
            for artist in shown:
                artist.set_visible(True)
                artist.stale = False
        return self._pixels()

    def _pixels(self) -> Pixels:
        return np.array(self.canvas.buffer_rgba())[..., :3]


def _steady_axes(figure: Figure, daring: bool) -> list[Axes]:
    """Return the axes whose ticks and grid can be drawn ahead of all the rest: surely, or probably if `daring`."""
    boxes = [axes.get_window_extent() for axes in figure.axes]
    if any(one.overlaps(other) for one, other in combinations(boxes, 2)) or figure.subfigs:
        return []
    plain = [axes for axes in figure.axes if axes.name == "rectilinear" and axes.axison and axes.get_visible()]
    return [axes for axes in plain if daring or _grid_is_lowest(axes)]


def _grid_is_lowest(axes: Axes) -> bool:
    level = max(axes.xaxis.get_zorder(), axes.yaxis.get_zorder())
    still = {axes.patch, axes.xaxis, axes.yaxis}
    others = (child for child in axes.get_children() if child not in still and child.get_visible())
    return all(child.get_zorder() > level for child in others)


def _look(steady: list[Axes]) -> str:
    """Return what is known of ticks and grids, so that equal looks can share a background."""
    looks = []
    for axes in steady:
        labels = [
            (axis.label.get_text(), axis.label.get_color(), axis.get_visible()) for axis in (axes.xaxis, axes.yaxis)
        ]
        scales = (axes.get_xscale(), axes.get_yscale())
        looks.append(
            (axes.get_xlim(), axes.get_ylim(), scales, axes.get_position().bounds, axes.get_facecolor(), labels)
        )
    return repr([(id(axes), *look) for axes, look in zip(steady, looks, strict=True)])


def quick_png(pixels: Pixels) -> bytes:
    """Return `pixels` (height, width, 3) as a PNG file, made for speed rather than size."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
