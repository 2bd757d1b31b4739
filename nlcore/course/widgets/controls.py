"""Sliders and presets: what a learner can set, checked before anything is drawn."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlcore.course.figures import check_words

Value = bool | int | float | str
Positions = tuple[int, ...]
MAX_FRAMES = 120


@dataclass(frozen=True)
class Slider:
    """One slider with a few values to choose from.

    Args     name: keyword of `update` that it sets. label: words and symbol, like "memory β". values: at least two
             different numbers, words or truth values, in the order of the slider. start: one of them; the first
             unless given. format: how a value is shown, a pattern like "{:.2f}" or a function from value to text.
    Raises   ValueError or TypeError that says what was expected.
    Example
        >>> Slider("beta", "memory β", [0.5, 0.9, 0.99], start=0.9).shown
        ('0.5', '0.9', '0.99')
    """

    name: str
    label: str
    values: Sequence[Value]
    start: Value | None = None
    format: Callable[[Any], str] | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(f"a slider's name is a keyword of update, like 'beta'; got {self.name!r}")
        object.__setattr__(self, "label", check_words(self.label, f"the label of slider {self.name!r}"))
        object.__setattr__(self, "values", _clean_values(self.name, self.values))
        _check_shown(self)
        first = self.values[0] if self.start is None else self.start
        object.__setattr__(self, "start", self.values[self.position(first)])

    @property
    def shown(self) -> tuple[str, ...]:
        """The text beside the slider for each of its values."""
        return tuple(_show(value, self.format) for value in self.values)

    def position(self, value: Any) -> int:
        """Return the place of `value` in `values`; raise ValueError that names the choices if it has none."""
        for place, known in enumerate(self.values):
            if _same(known, value):
                return place
        choices = ", ".join(map(repr, self.values))
        raise ValueError(f"slider {self.name!r} has no value {value!r}; choose one of {choices}")


def _clean_values(name: str, values: Iterable[Any]) -> tuple[Value, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"slider {name!r} expects a list of values, got {values!r}; try [0.1, 0.5, 0.9]")
    clean = tuple(value.item() if hasattr(value, "item") else value for value in values)
    for value in clean:
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"slider {name!r}: a value is a number, a word or a truth value, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"slider {name!r}: a number must be finite, got {value!r}; use a word instead")
    if len(clean) < 2:
        raise ValueError(f"slider {name!r} needs at least 2 values to slide between, got {len(clean)}")
    if len(set(clean)) < len(clean):
        raise ValueError(f"slider {name!r} has a value twice in {list(clean)}; name each value once")
    return clean


def _check_shown(slider: Slider) -> None:
    try:
        shown = slider.shown
    except Exception as error:
        raise ValueError(f"slider {slider.name!r}: its format does not fit its values: {error!r}") from error
    if len(set(shown)) < len(shown):
        raise ValueError(
            f"slider {slider.name!r} shows two values alike: {', '.join(shown)}; "
            'keep braces and enough digits in format, like "{:.3f}"'
        )


def _show(value: Value, form: Callable[[Any], str] | str | None) -> str:
    if callable(form):
        return str(form(value))
    if form is not None:
        return form.format(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return format(value, "g") if isinstance(value, float) else str(value)


def _same(known: Value, value: Any) -> bool:
    """Tell whether two values are meant to be the same: 0.3 and 0.1 + 0.2 are, 1 and True or "1" are not."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(known, bool | str) or isinstance(value, bool | str):
        return type(known) is type(value) and known == value
    return isinstance(value, int | float) and math.isclose(known, value, rel_tol=1e-9, abs_tol=1e-12)


def check_controls(controls: Iterable[Slider], update: Callable[..., str]) -> tuple[Slider, ...]:
    """Return the sliders as a tuple if they fit `update` and are few enough to draw; else raise a clear error."""
    sliders = tuple(controls) if isinstance(controls, Iterable) else (controls,)
    strangers = [control for control in sliders if not isinstance(control, Slider)]
    if strangers or not sliders:
        got = f"{type(strangers[0]).__name__} {strangers[0]!r}" if strangers else "none"
        raise TypeError(f"controls must be a list of course.Slider(name, label, values), got {got}")
    _check_names([slider.name for slider in sliders], update)
    count = math.prod(len(slider.values) for slider in sliders)
    if count > MAX_FRAMES:
        sizes = " x ".join(str(len(slider.values)) for slider in sliders)
        raise ValueError(f"{sizes} = {count} pictures, but at most {MAX_FRAMES} are drawn ahead; give fewer values")
    return sliders


def _check_names(names: list[str], update: Callable[..., str]) -> None:
    if not callable(update):
        raise TypeError(f"update must be a function that draws one state and returns words, got {update!r}")
    wanted = list(inspect.signature(update).parameters)
    if sorted(names) != sorted(wanted):
        expected, got = ", ".join(wanted) or "(none)", ", ".join(names)
        raise ValueError(
            f"update({expected}) expects sliders named {expected}, got {got}; "
            "give one slider for each parameter of update, under the same name"
        )


def check_presets(
    presets: Mapping[str, Mapping[str, Any]] | None, sliders: Sequence[Slider]
) -> dict[str, dict[str, int]]:
    """Return the presets as {label: {slider name: position}}; raise a clear error for unknown sliders and values."""
    by_name = {slider.name: slider for slider in sliders}
    checked: dict[str, dict[str, int]] = {}
    for label, settings in (presets or {}).items():
        label = check_words(label, "the label of a preset")
        unknown = [name for name in settings if name not in by_name]
        if unknown or not settings:
            got = ", ".join(map(repr, unknown)) or "nothing"
            raise ValueError(f"preset {label!r} sets {got}; the sliders are named {', '.join(by_name)}")
        try:
            checked[label] = {name: by_name[name].position(value) for name, value in settings.items()}
        except ValueError as error:
            raise ValueError(f"preset {label!r}: {error}") from None
    return checked
