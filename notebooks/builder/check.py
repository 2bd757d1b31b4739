"""All that can be checked without running anything, in about two seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from builder import card, maths, outputs, pairs, readme, structure
from builder.project import BuildError, Project
from builder.sources import Source, load


def problems(project: Project) -> list[str]:
    """Return everything that is wrong with the course as it is stored, one line each; an empty list is good."""
    try:
        sources = load(project)
    except BuildError as error:
        return [str(error)]
    found = pairs.orphans(sources, project) + structure.repeated_names(sources)
    for source in sources:
        found += _asked(partial(of_source, source)) + _asked(partial(of_notebook, source, project))
    return found + _asked(partial(of_readme, sources, project))


def of_source(source: Source) -> list[str]:
    """Return what is wrong with one source: its card, its shape, its formulas."""
    return _asked(partial(_readable, source)) + structure.problems(source) + maths.problems(source)


def of_notebook(source: Source, project: Project) -> list[str]:
    """Return what is wrong with the stored notebook of one source."""
    stored = pairs.read(source, project)
    drift = pairs.drift(source, stored, project)
    form = pairs.form(source, stored, project)
    # Cells are matched by position below, which only makes sense for a pair.
    return drift + form if drift else form + outputs.unwanted(stored, source) + outputs.missing(stored, source)


def of_readme(sources: list[Source], project: Project) -> list[str]:
    """Return what is wrong with the generated table in README.md."""
    text = readme.read(project)
    fresh = readme.refreshed(text, [card.read(source) for source in sources], project)
    return [] if fresh == text else ["README.md: its table is out of date; run: python notebooks/build.py badges"]


def _readable(source: Source) -> list[str]:
    card.read(source)
    return []


def _asked(question: Callable[[], list[str]]) -> list[str]:
    try:
        return question()
    except BuildError as error:
        return [str(error)]
