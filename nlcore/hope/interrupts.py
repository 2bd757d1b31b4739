"""Ctrl-C, or the stop button of a notebook, at a moment when nothing is half done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class HeldInterrupt:
    """While this context lasts, an interrupt only sets `asked`; the second one breaks off at once.

    Python delivers interrupts to the main thread. In another thread, or where interrupts are switched off, this does
    nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> HeldInterrupt:
        """Begin to hold interrupts back."""
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        """Let interrupts through again."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
