"""Where the course saves its figures."""

from __future__ import annotations

import os
from pathlib import Path

FIGURES_VARIABLE = "NLCORE_FIGURES"


def figures_folder() -> Path | None:
    """Return the folder that figures are saved to, or None when nothing is to be saved.

    Notebooks that a learner runs save nothing. The build step names a folder in the environment
    variable NLCORE_FIGURES.
    """
    name = os.environ.get(FIGURES_VARIABLE, "").strip()
    return Path(name) if name else None
