"""The look of every figure: one palette, one set of line styles, one canvas.

Colours are those of Okabe and Ito (2008), which stay apart under the common forms of colour blindness. No line is
told from another by colour alone: each entry of `STYLES` has its own dash pattern and marker too.
"""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

COLOURS = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}

STYLES: list[dict[str, Any]] = [
    {"color": COLOURS["blue"], "linestyle": "-", "marker": "o"},
    {"color": COLOURS["vermillion"], "linestyle": "--", "marker": "s"},
    {"color": COLOURS["green"], "linestyle": "-.", "marker": "^"},
    {"color": COLOURS["purple"], "linestyle": ":", "marker": "D"},
    {"color": COLOURS["orange"], "linestyle": (0, (5, 1, 1, 1)), "marker": "v"},
    {"color": COLOURS["black"], "linestyle": (0, (1, 1)), "marker": "x"},
]

HOUSE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "legend.frameon": False,
    "image.cmap": "cividis",
    "text.parse_math": True,
    "axes.unicode_minus": True,
}


def use() -> None:
    """Make the house style the default of matplotlib in this process."""
    matplotlib.rcParams.update(HOUSE)
    matplotlib.rcParams["axes.prop_cycle"] = cycler(
        color=[style["color"] for style in STYLES], linestyle=[style["linestyle"] for style in STYLES]
    )


def canvas(
    width: float = 6.4, height: float = 3.2, rows: int = 1, cols: int = 1, **subplots: Any
) -> tuple[Figure, Any]:
    """Return a figure in the house style and its axes, like `matplotlib.pyplot.subplots`.

    The figure is not registered with pyplot, so a notebook does not show it a second time.

    Args     width, height: inches (100 pixels each). rows, cols: grid of axes. subplots: passed to `Figure.subplots`.
    Returns  (figure, axes); axes is one Axes, or an array of them when rows * cols > 1.
    """
    use()
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, cols, **subplots)
