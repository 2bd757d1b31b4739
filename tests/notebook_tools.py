"""A tiny course to try the notebook tools on, and the tools themselves, which live in notebooks/."""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

import build  # noqa: E402
from builder import card, check, execute, maths, names, outputs, pairs, readme, sources, structure  # noqa: E402
from builder.project import BuildError, Project, write  # noqa: E402

__all__ = [
    "COURSE", "NOTEBOOK", "ROOT", "BuildError", "Project", "build", "card", "check", "copy_of_built_course",
    "every_file", "execute", "make_course", "maths", "names", "notebook_of", "outputs", "pairs", "readme",
    "replace", "source_of", "sources", "stored", "structure", "write",
]  # fmt: skip

COURSE = Project(ROOT)

PYPROJECT = """\
[project]
name = "nlcore"
version = "7.8.9"
[project.urls]
Repository = "https://github.com/someone/lessons"
"""

README = """\
# A course

<!-- generated: notebooks -->
<!-- /generated -->

Text after the table.
"""

# A stand-in for nlcore that starts at once: the kernel finds it first because it lies in the root of the tiny course.
FAKE_COURSE = """\
import base64, io, os, pathlib
from PIL import Image

class Shown:
    def __init__(self, name, alt, html=None):
        picture = io.BytesIO()
        Image.linear_gradient("L").resize((80, 60)).save(picture, format="PNG")
        self.png, self.alt, self.html = picture.getvalue(), alt, html
        folder = os.environ.get("NLCORE_FIGURES")
        if folder:
            path = pathlib.Path(folder) / (f"interactive/{name}.html" if html else f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(html.encode() if html else self.png)
    def __repr__(self):
        return self.alt
    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        if self.html:
            data |= {"text/html": self.html, "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
        return data, {"image/png": {"alt": self.alt}}

class Anything:
    def __getattr__(self, name):
        return lambda *given: print(name, "was asked for")

def start():
    print("nlcore 7.8.9 | torch 1.2.3 | device: cpu")
    return "cpu"

def claim(sentence, holds, **numbers):
    assert holds
    print("✓", sentence.format(**numbers))

def figure(drawing, name, alt):
    return Shown(name, alt)

def explore(drawing, update, controls, *, name, title, goal):
    return Shown(name, update(), f'<div id="{name}"><img alt="{update()}" src="data:image/png;base64,AA=="></div>')

check = hint = Anything()
"""

NOTEBOOK = """\
# %% [markdown]
# # 00 · Count to three
#
# *What you will do.* Count things and
# look at a picture.
#
# **Afterwards you can**
#
# - count to three;
# - say what a picture shows.
#
# **You need** nothing.
#
# **Time** 10 minutes · runs in about 5 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## How many are there?
#
# A sum has an inline formula $s_t = \\hat m_t$ and a displayed one:
#
# $$
# s = \\sum_{i=1}^{n} x_i \\tag{00.1}
# $$

# %% tags=["claim"]
total = sum([1, 2])
course.claim("one and two make {total}", total == 3, total=total)
print(f"a third is {1 / 3:.3f}")

# %% tags=["figure"]
alt = "A grey gradient that runs from black at the top to white at the bottom."
course.figure(None, "gradient", alt=alt)

# %% tags=["widget"]
def update():
    return "The slider stands at 1 and the picture is a grey gradient."

course.explore(None, update, [], name="slider", title="A slider", goal="Move it")

# %% tags=["exercise"]
def two():
    raise NotImplementedError

# %% tags=["check"]
course.check.two(two)

# %% [markdown]
# Stuck? Run `course.hint.two(1)`.
#
# <details>
# <summary>Solution</summary>
#
# `return 2`
#
# </details>

# %% tags=["exercise"]
def three():
    raise NotImplementedError

# %% tags=["check"]
course.check.three(three)

# %% [markdown]
# Stuck? Run `course.hint.three(1)`.
#
# <details>
# <summary>Solution</summary>
#
# `return 3`
#
# </details>

# %% [markdown]
# ## What you did
#
# You counted.

# %% [markdown]
# ## What this does not show
#
# Four.

# %% [markdown]
# ## Recall
#
# What comes after two?
#
# <details>
# <summary>Answer</summary>
#
# Three.
#
# </details>

# %% [markdown]
# ## Further reading
#
# Any book on counting.
"""


def make_course(root: Path, notebook: str = NOTEBOOK) -> Project:
    """Write a course of one notebook into `root`, not built yet."""
    (root / "nlcore").mkdir(parents=True)
    (root / "notebooks" / "src").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "README.md").write_text(README)
    (root / "nlcore" / "__init__.py").write_text("")
    (root / "nlcore" / "course.py").write_text(FAKE_COURSE)
    (root / "notebooks" / "src" / "00_count.py").write_text(notebook)
    return Project(root)


@cache
def _built_course() -> Path:
    """Build the tiny course once for all tests of a process; return its root."""
    folder = Path(tempfile.mkdtemp(prefix="course-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    project = make_course(folder / "built")
    assert build.main(["build"], project.root) == 0
    return project.root


def copy_of_built_course(folder: Path) -> Project:
    """Return a copy of the built tiny course, in `folder`, that a test may spoil."""
    shutil.copytree(_built_course(), folder / "course")
    return Project(folder / "course")


def source_of(project: Project) -> Path:
    return project.notebooks / "src" / "00_count.py"


def notebook_of(project: Project) -> Path:
    return project.notebooks / "00_count.ipynb"


def stored(project: Project) -> Any:
    """Return the stored notebook as plain data."""
    return json.loads(notebook_of(project).read_text())


def replace(path: Path, old: str, new: str) -> None:
    """Replace a piece of a file that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def every_file(root: Path) -> dict[str, bytes]:
    """Return name and bytes of every file below `root`."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}
