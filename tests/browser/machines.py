"""Which browser there is on this machine, and how it is started."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


def chromium_path() -> str | None:
    """Return the path of a Chromium that is installed here, or None."""
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in found if path), None)


def missing() -> str | None:
    """Return what the browser tests lack on this machine in plain words, or None when all is there."""
    if importlib.util.find_spec("playwright") is None:
        return "NO BROWSER TESTS: the package playwright is not installed (pip install playwright)"
    if chromium_path() is None:
        return f"NO BROWSER TESTS: none of {', '.join(NAMES)} is on the PATH (install the package chromium)"
    return None


def unavailable(reason: str) -> NoReturn:
    """Skip the test with its reason; in continuous integration, where nobody reads skips, fail it."""
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
