"""Source and notebook belong together: nothing here runs a kernel."""

from __future__ import annotations

import nbformat
from nbformat import NotebookNode

from builder.project import BuildError, Project
from builder.sources import METADATA, Source, expand

LARGEST_KB = 500
MOST_TOLD = 3  # differing cells per notebook: the first ones say enough
REBUILD = "run: python notebooks/build.py build"


def read(source: Source, project: Project) -> NotebookNode:
    """Return the stored notebook of `source`; raise BuildError when it is not there or cannot be read."""
    path = project.notebook(source.path)
    if not path.is_file():
        raise BuildError(f"{source.label}: its notebook {project.label(path)} is missing; {REBUILD} {source.name[:2]}")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds for a file that is not a notebook
        raise BuildError(f"{project.label(path)} is not a notebook that can be read: {error}") from error


def orphans(sources: list[Source], project: Project) -> list[str]:
    """Return the notebooks that have no source."""
    known = {source.name for source in sources}
    found = [path for path in sorted(project.notebooks.glob("*.ipynb")) if path.stem not in known]
    return [f"{project.label(path)} has no source notebooks/src/{path.stem}.py" for path in found]


def drift(source: Source, stored: NotebookNode, project: Project) -> list[str]:
    """Return where the stored notebook differs from what its source says."""
    path = project.notebook(source.path)
    fresh = expand(source, project)
    rebuild = f"{REBUILD} {source.name[:2]}"
    if len(fresh.cells) != len(stored.cells):
        return [f"{source.label} has {len(fresh.cells)} cells, {path.name} has {len(stored.cells)}; {rebuild}"]
    found = []
    for index, (new, old) in enumerate(zip(fresh.cells, stored.cells, strict=True)):
        changed = [what for what in ("cell_type", "source", "metadata", "id") if new[what] != old.get(what)]
        if changed:
            found.append(f"{source.at(index)}: {changed[0]} differs from {path.name}; {rebuild}")
    more = [f"{source.label}: {len(found) - MOST_TOLD} more cells differ from {path.name}"] if found[MOST_TOLD:] else []
    return found[:MOST_TOLD] + more


def form(source: Source, stored: NotebookNode, project: Project) -> list[str]:
    """Return what is wrong with the file itself: widget state, noise in its metadata, repeated ids, size."""
    path = project.notebook(source.path)
    found = []
    if "widgets" in stored.metadata:
        found.append("stores widget state (metadata.widgets)")
    elif stored.metadata != METADATA:
        found.append("has other metadata than a built notebook")
    ids = [cell.get("id") for cell in stored.cells]
    if len(set(ids)) != len(ids):
        found.append("has two cells with the same id")
    size = path.stat().st_size / 1000
    if size > LARGEST_KB:
        found.append(f"has {size:.0f} kB, more than {LARGEST_KB}")
    return [f"{project.label(path)} {fault}" for fault in found]


def transplanted(source: Source, stored: NotebookNode, project: Project) -> NotebookNode:
    """Return the notebook of `source` with the outputs of `stored`: text is made anew, nothing is run.

    Raises BuildError when code other than the set-up cell has changed: its outputs would no longer be true.
    """
    fresh = expand(source, project)
    new = [cell for cell in fresh.cells if cell.cell_type == "code"]
    old = [cell for cell in stored.cells if cell.cell_type == "code"]
    same = len(new) == len(old) and all(
        one.source == other.source or "setup" in one.metadata.get("tags", [])
        for one, other in zip(new, old, strict=True)
    )
    if not same:
        raise BuildError(f"{source.label}: its code has changed since it was last run; {REBUILD} {source.name[:2]}")
    for one, other in zip(new, old, strict=True):
        one.outputs, one.execution_count = other.outputs, other.execution_count
    return fresh
