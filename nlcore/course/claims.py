"""Claims: sentences of the course that are checked each time the notebook runs."""

from __future__ import annotations

import textwrap
from typing import Any

WIDTH = 92  # characters that fit a notebook's output without a break in the middle of a word


class ClaimError(AssertionError):
    """A sentence of the course turned out false."""


def claim(sentence: str, holds: Any, /, **numbers: Any) -> None:
    """Print `sentence` with its numbers behind a tick if it holds; raise ClaimError if it does not.

    Args     sentence: plain words with {name} or {name:.2f} where a number belongs. holds: the condition, one truth
             value. numbers: the values for the sentence; each must be used, so that no number is passed in vain.
    Raises   ClaimError with the finished sentence if `holds` is false; ValueError if sentence and numbers do not fit;
             TypeError if `holds` is not a single truth value.
    Example
        >>> claim("two gradients weigh {both:.2f} of the whole", 0.19 > 0.1, both=0.19)
        ✓ two gradients weigh 0.19 of the whole
    """
    text = _finished(sentence, numbers)
    if not _truth(holds):
        raise ClaimError(f"This sentence of the course does not hold here: {text}")
    print(wrapped(f"✓ {text}"))


def wrapped(text: str) -> str:
    """Return `text` broken between words into lines of at most WIDTH characters, the later ones indented."""
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _finished(sentence: str, numbers: dict[str, Any]) -> str:
    if not isinstance(sentence, str) or not sentence.strip():
        raise ValueError("claim(sentence, holds): the sentence is empty; say in plain words what holds")
    unused = [name for name in numbers if f"{{{name}" not in sentence]
    if unused:
        raise ValueError(f"the sentence never uses {', '.join(unused)}; write {{{unused[0]}}} where it belongs")
    try:
        return sentence.format(**{name: _plain(value) for name, value in numbers.items()})
    except (KeyError, IndexError) as missing:
        raise ValueError(f"the sentence uses {missing} but no such number was given to claim(...)") from None


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "numel", lambda: 1)() == 1 else value


def _truth(holds: Any) -> bool:
    if not isinstance(holds, bool) and not hasattr(holds, "item"):
        raise TypeError(f"claim(sentence, holds): holds must be one truth value, got {type(holds).__name__}: {holds!r}")
    try:
        return bool(holds)
    except (RuntimeError, ValueError):
        raise TypeError("claim(sentence, holds): holds has many truth values; use .all() or .any()") from None
