"""Where the course keeps its files, and the one public address they are generated from."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
PLACEHOLDER = "OWNER"


class BuildError(Exception):
    """Something in the course cannot be built; the message says where, what was expected and what to do."""


@dataclass(frozen=True)
class Project:
    """A checkout of the course.

    Args  root: the folder that holds pyproject.toml, README.md, notebooks/ and figures/.
    """

    root: Path

    @property
    def notebooks(self) -> Path:
        """The folder of the generated notebooks."""
        return self.root / "notebooks"

    @property
    def figures(self) -> Path:
        """The folder of the generated pictures."""
        return self.root / "figures"

    @property
    def readme(self) -> Path:
        """The file with the table of notebooks."""
        return self.root / "README.md"

    @property
    def sources(self) -> list[Path]:
        """The notebook sources, in the order of the course."""
        return sorted((self.notebooks / "src").glob("*.py"))

    def notebook(self, source: Path) -> Path:
        """Return the notebook that `source` is built into."""
        return self.notebooks / f"{source.stem}.ipynb"

    def label(self, path: Path) -> str:
        """Return `path` as seen from the root, for messages."""
        return path.relative_to(self.root).as_posix()

    @cached_property
    def _table(self) -> dict[str, Any]:
        path = self.root / "pyproject.toml"
        try:
            table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
            raise BuildError(f"{path.name} must have a [project] table that can be read: {error!r}") from error
        return table

    @property
    def address(self) -> str:
        """The public address of the repository, from [project.urls] Repository."""
        return "https://github.com/" + "/".join(self._owner_and_name)

    @property
    def slug(self) -> str:
        """The part of the address that names the owner and the repository."""
        return "/".join(self._owner_and_name)

    @property
    def _owner_and_name(self) -> tuple[str, str]:
        given = self._table.get("urls", {}).get("Repository", "")
        match = GITHUB.fullmatch(given)
        if match is None:
            raise BuildError(
                f"pyproject.toml [project.urls] Repository is {given!r}; Colab opens notebooks from GitHub only, "
                f"so write an address like https://github.com/someone/nlcore"
            )
        return match[1], match[2]

    @property
    def tag(self) -> str:
        """The git tag of this version: a notebook and the package that its set-up cell installs name the same one.

        A notebook that a learner saved a year ago must still install the package it was written for, so neither may
        follow a branch. The price is that a version has to be tagged when it is published; `notes` says so.
        """
        version = self._table.get("version")
        if not version:
            raise BuildError("pyproject.toml [project] has no version; set-up cells install the package by its tag")
        return f"v{version}"

    def notes(self) -> list[str]:
        """Return what still has to be done before Colab can open and install the course, one line each."""
        if PLACEHOLDER in self._owner_and_name:
            return [
                f"note: the address in pyproject.toml still holds the placeholder {PLACEHOLDER}: badges and set-up "
                f"cells work in Colab once it names the real repository (then run: python notebooks/build.py badges)"
            ]
        if not self._has_tag():
            return [
                f"note: there is no git tag {self.tag} yet: badges and set-up cells name it, so publish with "
                f"git tag {self.tag} && git push origin {self.tag}"
            ]
        return []

    def _has_tag(self) -> bool:
        command = ["git", "-C", str(self.root), "tag", "--list", self.tag]
        try:
            return bool(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        except (OSError, subprocess.CalledProcessError):
            return True  # no git, or not a checkout: nothing to say


def write(path: Path, text: str | bytes) -> bool:
    """Write `path` whole or not at all; leave an equal file alone. Return whether it changed."""
    from nlcore.files import write_atomic  # here, because nlcore loads torch and `check` has no need of it

    payload = text.encode("utf-8") if isinstance(text, str) else text
    if path.is_file() and path.read_bytes() == payload:
        return False
    write_atomic(path, payload)
    return True
