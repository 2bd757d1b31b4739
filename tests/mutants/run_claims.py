"""Run the cells of one notebook source as a script, without widgets and pictures: python run_claims.py 03

Exit status 1 with the ClaimError when a sentence of the notebook does not hold.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "src"


def main(number: str) -> None:
    """Run the notebook whose file name starts with `number`."""
    from nlcore import course

    def nothing(*_: Any, **__: Any) -> None:
        """Stand in for pictures and widgets: only the claims matter here."""

    course.__dict__.update(explore=nothing, figure=nothing, show=nothing)
    (source,) = SOURCES.glob(f"{number}_*.py")
    text = source.read_text(encoding="utf-8").replace(
        "# {{setup}}", "from nlcore import course\ndevice = course.start()"
    )
    exec(compile(text, str(source), "exec"), {"__name__": "__main__"})  # the course's own text


if __name__ == "__main__":
    main(sys.argv[1])
