"""Show the very source that the tests run, so that notebook and library cannot drift apart."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any


def show(*things: Any) -> None:
    """Print the source of functions or classes of nlcore, each under the name it is imported by.

    Args     things: functions, methods or classes written in Python.
    Raises   TypeError if a thing has no Python source (an instance, a number, a built-in).
    """
    if not things:
        raise TypeError("show(...) expects at least one function or class, for example show(nlcore.memory.hebbian)")
    print("\n\n".join(_listing(thing) for thing in things))


def _listing(thing: Any) -> str:
    if not callable(thing) or not hasattr(thing, "__module__") or not hasattr(thing, "__qualname__"):
        raise TypeError(f"show expects a function or a class, got {type(thing).__name__}: {thing!r}")
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        raise TypeError(f"{thing.__qualname__} has no Python source to show (is it built in?)") from None
    return f"# {thing.__module__}.{thing.__qualname__}\n{textwrap.dedent(source).rstrip()}"
