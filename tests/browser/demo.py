"""A small explorer that the browser tests and the benchmark can always move: two lines of 100 points, two sliders."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np

from nlcore import course
from nlcore.course.style import STYLES

IMPORTS = "import numpy as np\nfrom nlcore import course\nfrom nlcore.course.style import STYLES\n\n"


def momentum_explorer(name: str = "momentum-memory") -> course.Explorer:
    """Return an explorer of how much past gradients weigh in momentum."""
    steps = np.arange(100)
    figure, axes = course.canvas(6.4, 3.2)
    one = axes.plot(steps, 0.0 * steps, label="one past gradient", **{**STYLES[0], "marker": None})[0]
    share = axes.plot(steps, 0.0 * steps, label="share of the whole so far", **{**STYLES[1], "marker": None})[0]
    axes.set(xlabel="steps ago", ylabel="weight", ylim=(-0.03, 1.05), title="What momentum remembers")
    axes.legend(loc="center right")

    def update(beta: float, damping: float) -> str:
        weights = (1 - damping) * beta**steps
        one.set_ydata(weights)
        share.set_ydata(np.cumsum(weights) / weights.sum())
        half = int(np.searchsorted(np.cumsum(weights), 0.5 * weights.sum())) + 1
        return (
            f"With memory β = {beta:g} and damping {damping:g}, the newest gradient weighs {weights[0]:.2f} and the "
            f"last {half} of 100 gradients make up half of the whole."
        )

    return course.explore(
        figure, update,
        [
            course.Slider("beta", "memory β", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99], start=0.9),
            course.Slider("damping", "damping τ", [0.0, 0.25, 0.5, 0.75], start=0.0, format="{:.2f}"),
        ],
        name=name, title="How far back does momentum look?",
        goal="find the smallest β whose last 14 gradients make up half of the whole.",
        presets={"short memory": {"beta": 0.5, "damping": 0.0}, "long memory": {"beta": 0.99, "damping": 0.5}},
    )  # fmt: skip


def write_notebook(path: Path, last: str = "momentum_explorer()") -> Path:
    """Write a notebook of one widget cell that makes the explorer and ends with the line `last`; it is not run yet."""
    code = f"{IMPORTS}{inspect.getsource(momentum_explorer)}\n{last}"
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "id": "demo", "outputs": [], "source": code,
            "metadata": {"tags": ["widget"]}}  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path
