"""Pictures drawn ahead, small enough to travel inside a notebook or a web page.

All pictures of one explorer share a palette and a background, the pixels that most of them have in common. A picture
keeps only what differs from the background. The first rows of all pictures come first, then all second rows, and so
on: rows that look alike lie close together, which about halves the compressed size.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nlcore.course.widgets.draw import Pixels

COLOURS = 64
_SHADES = 32  # levels of red, green and blue that are told apart when colours are counted
_AS_BACKGROUND = 0  # the palette entry that stands for "as in the background"

Bins = NDArray[np.uint16]


@dataclass(frozen=True)
class Frames:
    """The pictures of all states.

    Args     start: PNG file of the start state, whole. pixels: compressed palette entries, one byte each, first by row,
             then by picture, then by column; picture 0 is the background, entry 0 means "as in the background".
             palette: red, green and blue of each entry. order: for each state the number of its picture.
    """

    start: bytes
    pixels: bytes
    palette: bytes
    order: tuple[int, ...]


class ColourCount:
    """Counts how often each colour occurs in the pictures seen so far."""

    def __init__(self) -> None:
        self.hits = np.zeros(_SHADES**3)
        self.sums = np.zeros((3, _SHADES**3))

    def add(self, pixels: Pixels) -> Bins:
        """Count the colours of one picture; return for each pixel the number of its colour."""
        coarse = (pixels // (256 // _SHADES)).astype(np.uint16)
        bins = (coarse[..., 0] * _SHADES + coarse[..., 1]) * _SHADES + coarse[..., 2]
        flat = bins.ravel()
        self.hits += np.bincount(flat, minlength=_SHADES**3)
        for channel in range(3):
            self.sums[channel] += np.bincount(flat, pixels[..., channel].ravel(), minlength=_SHADES**3)
        return bins

    def palette(self) -> tuple[Pixels, NDArray[np.uint8]]:
        """Return the palette (COLOURS, 3), entry 0 left free, and for each colour number its palette entry."""
        used = np.flatnonzero(self.hits)
        colours = (self.sums[:, used] / self.hits[used]).round().astype(np.uint8).T
        palette = _representatives(colours, self.hits[used], COLOURS - 1)
        entry = np.zeros(_SHADES**3, np.uint8)
        entry[used] = _nearest(colours, palette) + 1
        return np.concatenate([np.full((1, 3), 255, np.uint8), palette]), entry


def _representatives(colours: Pixels, hits: NDArray[np.float64], count: int) -> Pixels:
    """Cut the colours into `count` boxes and name each box by its most frequent colour, so that pure colours stay."""
    weight = np.ceil(np.sqrt(hits / hits.sum() * 10_000)).astype(int)
    sample = Image.fromarray(np.repeat(colours, weight, axis=0)[None])
    cut = sample.quantize(count, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    box = np.asarray(cut)[0][np.cumsum(weight) - 1]
    order = np.argsort(-hits, kind="stable")
    _, first = np.unique(box[order], return_index=True)
    return colours[order][first]


def _nearest(colours: Pixels, palette: Pixels) -> NDArray[np.intp]:
    gap = colours[:, None].astype(int) - palette[None].astype(int)
    return (gap**2).sum(-1).argmin(1)


def encode(pictures: Sequence[Bins], counted: ColourCount, start: int) -> Frames:
    """Pack pictures that `counted` has seen.

    Args     pictures: what `counted.add` returned, one for each state. start: place of the start state.
    """
    palette, entry = counted.palette()
    indexed = [entry[picture] for picture in pictures]
    background = _majority(indexed)
    kept, number, order = [background], {}, []
    for picture in indexed:
        layer = np.where(picture == background, np.uint8(_AS_BACKGROUND), picture)
        if layer.tobytes() not in number:
            number[layer.tobytes()] = len(kept)
            kept.append(layer)
        order.append(number[layer.tobytes()])
    pixels = zlib.compress(np.stack(kept, axis=1).tobytes(), 9)
    return Frames(_png(indexed[start], palette), pixels, palette.tobytes(), tuple(order))


def _majority(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return for each pixel the value that more than half of the pictures have (any value where there is none)."""
    favourite = pictures[0].copy()
    lead = np.zeros(favourite.shape, np.int16)
    for picture in pictures:
        same = picture == favourite
        lead += np.where(same, 1, -1).astype(np.int16)
        beaten = lead < 0
        favourite[beaten] = picture[beaten]
        lead[beaten] = 1
    return favourite


def _png(indexed: NDArray[np.uint8], palette: Pixels) -> bytes:
    image = Image.fromarray(indexed)
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=9)
    return file.getvalue()


def base64_text(data: bytes) -> str:
    """Return bytes as the text that data URIs and notebooks carry."""
    return base64.b64encode(data).decode("ascii")
