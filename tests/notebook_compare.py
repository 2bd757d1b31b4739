"""Is a new output of a notebook cell the same as the stored one, as far as it has to be?

Words and whole numbers must be equal. Numbers with a decimal point may differ a little: trained weights depend on the
order in which a processor adds, and that differs between CPUs, BLAS libraries and torch versions. The relative
tolerance of 2 % is about what ten such pairs of machines differ by after a few hundred training steps; the absolute one
lets accuracies differ by half a percentage point and rounding errors near zero by anything. What must hold more exactly
is asserted in the cell itself, by a claim. Pictures are compared as small grey thumbnails: fonts and antialiasing
disappear, a moved curve does not.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

RELATIVE, ABSOLUTE = 2e-2, 5e-3
THUMBNAIL = (64, 64)
GREY_LEVELS = 30  # a pixel has changed when it differs by more
CHANGED_SHARE = 0.02  # a picture has changed when a larger share of its pixels has
LIVE = "application/vnd.jupyter.widget-view+json"
NUMBER = re.compile(r"(?<![\w.])([-+−]?(?:\d+\.\d+|\d+\.(?=[\],])|\.\d+|\d+)(?:[eE][-+]?\d+)?)")
HASH = re.compile(r"-[0-9a-f]{8}\b")  # names an explorer after the bytes of its pictures

Output = Any
Sanitize = Callable[[str], str]


def differences(stored: list[Output], fresh: list[Output], sanitize: Sanitize = str) -> list[str]:
    """Return how the outputs of one cell differ, one entry each; an empty list means they are the same."""
    found = []
    for number, (old, new) in enumerate(zip_longest(stored, fresh), 1):
        if old is None or new is None:
            found.append(f"output {number} is only in the {'stored' if old else 'new'} notebook: {_kind(old or new)}")
        else:
            found += [f"output {number}: {fault}" for fault in _output(old, new, sanitize)]
    return found


def _kind(output: Output) -> str:
    return f"{output['output_type']} {output.get('name', '')} {', '.join(sorted(output.get('data', {})))}".strip()


def _output(old: Output, new: Output, sanitize: Sanitize) -> Iterator[str]:
    same_kind = (old["output_type"], old.get("name")) == (new["output_type"], new.get("name"))
    if not same_kind:
        yield f"was {_kind(old)}, is now {_kind(new)}"
        return
    for key in ("text", "ename", "evalue"):
        yield from text(sanitize(old.get(key, "")), sanitize(new.get(key, "")))
    before, after = old.get("data", {}), {key: data for key, data in new.get("data", {}).items() if key != LIVE}
    if before.keys() != after.keys():
        yield f"holds {', '.join(sorted(after))}, the stored one {', '.join(sorted(before))}"
    for key in sorted(before.keys() & after.keys()):
        yield from (f"{key}: {fault}" for fault in _data(key, before[key], after[key], sanitize))
    yield from text(sanitize(_alt(old)), sanitize(_alt(new)))


def _alt(output: Output) -> str:
    return str(output.get("metadata", {}).get("image/png", {}).get("alt", ""))


def _data(key: str, old: Any, new: Any, sanitize: Sanitize) -> Iterator[str]:
    if key.startswith("image/") and key != "image/svg+xml":
        yield from picture(_decoded(old), _decoded(new))
    elif key == "text/html":
        yield from html(sanitize(old), sanitize(new))
    elif isinstance(old, str) and isinstance(new, str):
        yield from text(sanitize(old), sanitize(new))
    elif old != new:
        yield "differs"


def text(old: str, new: str) -> Iterator[str]:
    """Yield the first difference between two texts: words and whole numbers exactly, other numbers nearly."""
    first, second = NUMBER.split(_spaced(old)), NUMBER.split(_spaced(new))
    for place, (one, other) in enumerate(zip_longest(first, second, fillvalue="")):
        same = near(one, other) if place % 2 and one and other else one.split() == other.split()
        if not same:
            was, now = (_around(parts, place, at=_first_difference(one, other)) for parts in (first, second))
            yield f"the text differs\n    was:    {was}\n    is now: {now}"
            return


def _first_difference(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _around(parts: list[str], place: int, at: int, size: int = 70) -> str:
    """Return the text around character `at` of one part, on one line."""
    before = "".join(parts[:place]) + "".join(parts[place : place + 1])[:at]
    after = "".join(parts[place : place + 1])[at:] + "".join(parts[place + 1 :])
    return f"{'...' if len(before) > size else ''}{before[-size:]}{after[:size]}{'...' if len(after) > size else ''}"


def near(one: str, other: str) -> bool:
    """Return whether two written numbers are the same: exactly if both are whole, else within the tolerance."""
    if one.lstrip("-+−").isdigit() and other.lstrip("-+−").isdigit():
        return _value(one) == _value(other)
    return abs(_value(one) - _value(other)) <= ABSOLUTE + RELATIVE * abs(_value(one))


def _value(number: str) -> float:
    return float(number.replace("−", "-"))


def _spaced(words: str) -> str:
    """Make columns and wrapped lines comparable: where they break changes with a sign or a digit."""
    return " ".join(words.split())


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        return b""


def picture(old: bytes, new: bytes) -> Iterator[str]:
    """Yield how two pictures differ, given as the bytes of their files."""
    try:
        before, after = (Image.open(io.BytesIO(data)).convert("RGBA") for data in (old, new))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        yield f"is not a picture that can be read: {error}"
        return
    if before.size != after.size:
        yield f"the stored picture has the size {before.size}, the new one {after.size}"
        return
    share = float(np.mean(np.abs(_thumbnail(before) - _thumbnail(after)) > GREY_LEVELS))
    if share > CHANGED_SHARE:
        yield f"the picture looks different: {share:.1%} of it has changed, at most {CHANGED_SHARE:.0%} may"


def _thumbnail(image: Image.Image) -> np.ndarray[Any, np.dtype[np.int16]]:
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return np.asarray(white.convert("L").resize(THUMBNAIL, Image.Resampling.BOX), dtype=np.int16)


def html(old: str, new: str) -> Iterator[str]:
    """Yield how two pieces of HTML differ: elements, words and, in an explorer, sliders and words of every state."""
    (shell, states), (new_shell, new_states) = _apart(old), _apart(new)
    if len(states) != len(new_states):
        yield f"the stored explorer has {len(states)} parts and states, the new one {len(new_states)}"
        return
    for state, new_state in zip(states, new_states, strict=True):
        yield from text(state, new_state)
    before, after = _Outline(shell).parts, _Outline(new_shell).parts
    if len(before) != len(after):
        yield f"the stored html has {len(before)} elements and texts, the new one {len(after)}"
        return
    for one, other in zip(before, after, strict=True):
        yield from text(one, other)


def _apart(code: str) -> tuple[str, list[str]]:
    """Split the HTML of an explorer from its data: what its sliders and presets are, and the words of each state."""
    marker = "const data = "
    if marker not in code:
        return code, []
    start = code.index(marker) + len(marker)
    data, length = json.JSONDecoder().raw_decode(code[start:])
    if len(data["order"]) != len(data["spoken"]):
        raise ValueError("an explorer must have words for each of its states")
    settings = json.dumps([data["sliders"], data["presets"]], sort_keys=True)
    return code[:start] + code[start + length :], [settings, *(data["words"][place] for place in data["spoken"])]


class _Outline(HTMLParser):
    """The elements of a piece of HTML with their attributes and texts, without the bytes of pictures."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.feed(code)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        shown = sorted(f"{name}={_shortened(value or '')}" for name, value in attrs)
        self.parts.append(f"<{tag} {' '.join(shown)}>")

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.parts.append(HASH.sub("", data.strip()))


def _shortened(value: str) -> str:
    return "picture" if value.startswith("data:image") else HASH.sub("", value)


def files(stored: Path, fresh: Path) -> list[str]:
    """Return how two folders of figures differ: names, pictures (*.png) and explorers (*.html)."""
    old, new = (_by_name(folder) for folder in (stored, fresh))
    found = [f"figures/{name} is stored, but no notebook makes it; delete it" for name in sorted(old.keys() - new)]
    found += [f"figures/{name} is made by a notebook, but not stored; build it" for name in sorted(new.keys() - old)]
    for name in sorted(old.keys() & new.keys()):
        found += [f"figures/{name}: {fault}" for fault in _file(old[name].read_bytes(), new[name].read_bytes(), name)]
    return found


def _file(old: bytes, new: bytes, name: str) -> Iterator[str]:
    return picture(old, new) if name.endswith(".png") else html(old.decode(), new.decode())


def _by_name(folder: Path) -> dict[str, Path]:
    paths = [*folder.glob("*.png"), *folder.glob("interactive/*.html")]
    return {path.relative_to(folder).as_posix(): path for path in paths}
