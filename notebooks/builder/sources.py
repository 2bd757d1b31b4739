"""What people edit: notebooks/src/NN_name.py, read into cells and expanded into the notebook that learners open."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from builder.project import BuildError, Project

NAME = re.compile(r"\d\d_[a-z0-9]+(_[a-z0-9]+)*")
SETUP_MARK = "# {{setup}}"
BADGE_MARK = "{{badge}}"
BADGE_PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
METADATA: dict[str, Any] = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

# The same first lines in every notebook. Plain `pip install` without --upgrade or --no-deps: the ranges in
# pyproject.toml are wide, so pip keeps every package that Colab already has (torch, numpy, matplotlib, ipywidgets,
# tqdm), and a bare machine still gets what it lacks. check=True makes a failed installation stop the notebook here,
# with pip's own message, instead of at a puzzling import further down.
SETUP = """\
import importlib.util
import subprocess
import sys
if importlib.util.find_spec("nlcore") is None:  # Colab: install the course, keep every package that is there
    course_source = "nlcore @ git+{address}@{tag}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", course_source], check=True)
from nlcore import course
device = course.start()"""


@dataclass(frozen=True)
class Cell:
    """One cell of a source: its kind ("code" or "markdown"), text, tags, other metadata and first line number."""

    kind: str
    text: str
    tags: tuple[str, ...]
    extras: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Source:
    """One notebook source as people wrote it, nothing expanded.

    Args  path: the file. label: its name in messages, as seen from the root of the project.
    """

    path: Path
    label: str

    @property
    def name(self) -> str:
        """The name without ending: NN_name."""
        return self.path.stem

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells in order."""
        read = jupytext.read(self.path, fmt="py:percent").cells
        lines = _first_lines(self.path.read_text(encoding="utf-8"))
        if len(lines) != len(read):
            raise BuildError(f"{self.label}: every cell must start with a line '# %%' or '# %% [markdown]'")
        return [_cell(node, line) for node, line in zip(read, lines, strict=True)]

    def at(self, index: int) -> str:
        """Return where cell `index` is, for messages: file, line and the number of the cell, counted from 1."""
        return f"{self.label}:{self.cells[index].line} (cell {index + 1})"


def load(project: Project) -> list[Source]:
    """Return every source of the course; raise BuildError when there is none or a file name has the wrong form."""
    found = [Source(path, project.label(path)) for path in project.sources]
    if not found:
        raise BuildError("notebooks/src holds no notebook source (NN_name.py): nothing to build, nothing to check")
    for source in found:
        if not NAME.fullmatch(source.name):
            raise BuildError(f"{source.label}: a source is called NN_name.py, lower case with underscores")
    repeated = [number for number, times in Counter(source.name[:2] for source in found).items() if times > 1]
    if repeated:
        raise BuildError(f"notebooks/src: two sources have the number {repeated[0]}")
    return found


def choose(sources: list[Source], numbers: list[str]) -> list[Source]:
    """Return the sources with these numbers ("03" or "3"), or all when none is given."""
    wanted = {number.zfill(2) for number in numbers}
    unknown = wanted - {source.name[:2] for source in sources}
    if unknown:
        known = ", ".join(source.name[:2] for source in sources)
        raise BuildError(f"there is no notebook {', '.join(sorted(unknown))}; there are {known}")
    return [source for source in sources if not wanted or source.name[:2] in wanted]


def expand(source: Source, project: Project) -> NotebookNode:
    """Return the notebook of `source` with set-up cell and badge filled in, without outputs.

    The id of a cell is a hash of its text in the source, so it stays when other cells, or the address, change.
    """
    seen: Counter[str] = Counter()
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    for cell in source.cells:
        key = f"{cell.kind}\n{cell.text}"
        seen[key] += 1
        notebook.cells.append(_node(cell, _filled(cell, source, project), f"{key}\n{seen[key]}"))
    return notebook


def setup_code(project: Project) -> str:
    """Return the set-up cell, the same in every notebook."""
    return SETUP.format(address=project.address, tag=project.tag)


def colab_address(name: str, project: Project) -> str:
    """Return the address that opens notebook `name` in Colab."""
    return f"https://colab.research.google.com/github/{project.slug}/blob/{project.tag}/notebooks/{name}.ipynb"


def badge(name: str, project: Project, words: str = "Open in Colab") -> str:
    """Return the Colab badge of notebook `name` in markdown; `words` are its alt text."""
    return f"[![{words}]({BADGE_PICTURE})]({colab_address(name, project)})"


def as_text(notebook: NotebookNode) -> str:
    """Return the notebook as the text of its file: sorted keys, one line break at the end."""
    return str(nbformat.writes(notebook, version=4)).rstrip("\n") + "\n"


def _first_lines(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"# %%(\s|$)", line)]


def _cell(node: NotebookNode, line: int) -> Cell:
    metadata = dict(node.metadata)
    tags = tuple(metadata.pop("tags", ()))
    metadata.pop("lines_to_next_cell", None)  # jupytext's own note on blank lines
    return Cell(node.cell_type, node.source, tags, tuple(sorted(metadata)), line)


def _filled(cell: Cell, source: Source, project: Project) -> str:
    if cell.text.strip() == SETUP_MARK:
        return setup_code(project)
    if cell.kind == "markdown":
        return cell.text.replace(BADGE_MARK, badge(source.name, project))
    return cell.text


def _node(cell: Cell, text: str, key: str) -> NotebookNode:
    make = nbformat.v4.new_code_cell if cell.kind == "code" else nbformat.v4.new_markdown_cell
    metadata = {"tags": list(cell.tags)} if cell.tags else {}
    return make(text, id=hashlib.sha1(key.encode()).hexdigest()[:12], metadata=metadata)
