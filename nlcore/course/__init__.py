"""What teaches: claims, figures, widgets, exercises. The only place that imports matplotlib and ipywidgets.

Everything is loaded when it is first used, so `import nlcore` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlcore.course.checkup import doctor, start
    from nlcore.course.claims import ClaimError, claim
    from nlcore.course.exercises import check, hint
    from nlcore.course.figures import Picture, figure
    from nlcore.course.source import show
    from nlcore.course.style import canvas
    from nlcore.course.widgets.explorer import Explorer, Slider, explore, export

_HOMES = {
    "claim": "claims",
    "ClaimError": "claims",
    "canvas": "style",
    "figure": "figures",
    "Picture": "figures",
    "Explorer": "widgets.explorer",
    "Slider": "widgets.explorer",
    "explore": "widgets.explorer",
    "export": "widgets.explorer",
    "check": "exercises",
    "hint": "exercises",
    "show": "source",
    "doctor": "checkup",
    "start": "checkup",
}

__all__ = [
    "ClaimError", "Explorer", "Picture", "Slider", "canvas", "check", "claim", "doctor", "explore", "export",
    "figure", "hint", "show", "start",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"nlcore.course has no {name!r}; it has {', '.join(__all__)}")
    home = import_module(f"nlcore.course.{_HOMES[name]}")
    globals().update({public: getattr(home, public) for public, at in _HOMES.items() if at == _HOMES[name]})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
