"""Brain waves: the frequency bands that the paper names, as printed, and where its two lists disagree.

The paper motivates levels with brain waves: fast waves go with sensing, slow ones with keeping. It lists the bands
twice, with different limits. Both lists are kept as printed; neither is a result of this course, and nothing in the
library depends on them.

Source   TEXT: Behrouz et al. 2025, Nested Learning, arXiv 2512.24695, section 1.1. FIGURE: Fig. 1 of the NeurIPS 2025
         camera-ready version, to which the arXiv text refers as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """A range of frequencies, in cycles a second (Hz).

    Args     name: in lower case; two names with "+" for one range. low, high: its limits in Hz, 0 < low < high.
             role: what the source says these waves go with, "" if it says nothing.
    Raises   ValueError for other limits.
    """

    name: str
    low: float
    high: float
    role: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"band {self.name!r}: expected 0 < low < high in Hz, got {self.low} and {self.high}")

    @property
    def centre(self) -> float:
        """The middle on a logarithmic axis, in Hz: sqrt(low high)."""
        return math.sqrt(self.low * self.high)

    def __str__(self) -> str:
        return f"{self.name} {self.low:g}-{self.high:g} Hz"


TEXT = (
    Band("gamma", 30, 150, "sensory input"),
    Band("beta", 13, 30, "active thinking"),
    Band("delta+theta", 0.5, 8, "consolidation of memories, learning"),
)
FIGURE = (
    Band("gamma", 30, 100),
    Band("beta", 12, 30),
    Band("alpha", 8, 12),
    Band("theta", 4, 8),
    Band("delta", 0.5, 4),
)
SOURCES = {"text": TEXT, "figure": FIGURE}


def find(source: str, name: str) -> Band | None:
    """Return a band of one source, the range of several together if `name` joins them with "+", or None.

    Args     source: "text" or "figure". name: such as "beta", or "delta+theta".
    Raises   ValueError for another source.
    """
    if source not in SOURCES:
        raise ValueError(f"expected one of the sources {sorted(SOURCES)}, got {source!r}")
    bands = {band.name: band for band in SOURCES[source]}
    parts = [bands[part] for part in name.split("+") if part in bands]
    if name in bands or len(parts) < len(name.split("+")):
        return bands.get(name)
    return Band(name, min(part.low for part in parts), max(part.high for part in parts))


def comparison() -> list[tuple[str, Band | None, Band | None, str]]:
    """Return the two lists side by side, the fastest band first, and how they differ.

    Returns  a row for each band: its name, the band in the text, in the figure, and words; "" where both agree.
    """
    names = ("gamma", "beta", "alpha", "delta+theta")
    return [(name, *(pair := (find("text", name), find("figure", name))), _difference(*pair)) for name in names]


def _difference(text: Band | None, figure: Band | None) -> str:
    if text is None or figure is None:
        return "only in the figure" if text is None else "only in the text"
    ends = [("begins", text.low, figure.low), ("ends", text.high, figure.high)]
    return "; ".join(f"{verb} at {a:g} Hz in the text, {b:g} Hz in the figure" for verb, a, b in ends if a != b)
