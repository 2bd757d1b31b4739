"""Makes nbval strict about everything a learner would see.

    python -m pytest -p tests.nbval_plugin --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \\
        --nbval-cell-timeout 120 notebooks

nbval alone accepts a cell that was stored without having been run, and any picture at all; and it demands that numbers
are equal to the last digit, which training does not give on two different machines. Here a cell must have been run,
outputs are compared by `tests.notebook_compare`, every notebook source must have been tested, every stored figure must
be made again and look the same, and cells and notebooks must stay within their time.

The limits hold for a quiet machine; NLCORE_TIME_FACTOR (default 1.5) stretches them for a slower or busier one.
A cell with the tag `slow` may use the whole time of its notebook.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import nbval.plugin
import pytest

from tests import notebook_compare
from tests.notebook_tools import BuildError, Project, card, execute, sources

CELL_LIMIT_S, NOTEBOOK_LIMIT_S = 20.0, 60.0
ABOUT = 2.0  # "about 20 s" on a header card is broken at twice that (times the time factor), plus loading torch once
LOADING_S = 5.0


def time_factor() -> float:
    """Return by how much limits are stretched."""
    given = os.environ.get("NLCORE_TIME_FACTOR", "1.5")
    try:
        factor = float(given)
    except ValueError:
        factor = 0.0
    if factor <= 0:
        raise pytest.UsageError(f"NLCORE_TIME_FACTOR must be a positive number, got {given!r}")
    return factor


class CourseCell(nbval.plugin.IPyNbCell):
    """One code cell: run, compared and timed."""

    def runtest(self) -> None:
        if self.cell.execution_count is None:
            self.raise_cell_error("the cell was stored without having been run; run: python notebooks/build.py build")
        began = time.perf_counter()
        super().runtest()
        seconds, limit = time.perf_counter() - began, CELL_LIMIT_S * time_factor()
        if seconds > limit and "slow" not in self.cell.metadata.get("tags", []):
            self.raise_cell_error(f"the cell took {seconds:.0f} s; at most {limit:.0f} s are allowed")

    def compare_outputs(self, test: list[Any], ref: list[Any], skip_compare: Any = None) -> bool:
        # nbval runs cells outside the history, where IPython does not see the semicolon that silences a last value.
        silent = self.cell.source.rstrip().endswith(";")
        fresh = [output for output in test if not (silent and output["output_type"] == "execute_result")]
        self.comparison_traceback = notebook_compare.differences(ref, fresh, self.sanitize)
        return not self.comparison_traceback


class CourseRun:
    """The run as a whole: which notebooks were tested, how long they took, which figures they made."""

    def __init__(self, config: pytest.Config) -> None:
        self.project = _project(config)
        self.whole = _is_whole(config, self.project)
        self.cells: dict[str, list[float]] = defaultdict(list)
        self.problems: list[str] = []
        self.folder = tempfile.TemporaryDirectory()
        self.figures = Path(self.folder.name, "figures")
        self.before = dict(os.environ)
        os.environ.update(execute.environment(self.project.root, self.figures, Path(self.folder.name, "ipython")))
        time_factor()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[0]
        if report.when == "call" and name.endswith(".ipynb"):
            self.cells[Path(name).stem].append(report.duration)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.problems += _too_slow(self.cells)
        try:
            self.problems += self._broken_promises()
            if self.whole:
                self.problems += self._incomplete()
        except BuildError as error:
            self.problems.append(str(error))
        if self.problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("notebooks")
        for name, cells in sorted(self.cells.items()):
            line = f"{name:32} {len(cells):3} cells {sum(cells):6.1f} s, slowest cell {max(cells):5.1f} s"
            terminalreporter.write_line(line)
        for problem in self.problems:
            terminalreporter.write_line(f"PROBLEM {problem}", red=True)

    def pytest_unconfigure(self) -> None:
        os.environ.clear()
        os.environ.update(self.before)
        self.folder.cleanup()

    def _broken_promises(self) -> list[str]:
        """Return the notebooks that took longer than their header cards say."""
        found = []
        for source in sources.load(self.project):
            seconds, promised = sum(self.cells.get(source.name, [])), card.read(source).seconds
            if seconds > ABOUT * promised * time_factor() + LOADING_S:
                found.append(f"{source.label}: its card says about {promised} s on a CPU; it took {seconds:.0f} s")
        return found

    def _incomplete(self) -> list[str]:
        """Return the notebooks that were not tested, and what is wrong with the stored figures."""
        expected = {source.name for source in sources.load(self.project)}
        tested = set(self.cells)
        found = [f"notebooks/{name}.ipynb was not tested" for name in sorted(expected - tested)]
        found += [f"notebooks/{name}.ipynb has no source" for name in sorted(tested - expected)]
        return found + notebook_compare.files(self.project.figures, self.figures)


def _too_slow(cells: dict[str, list[float]]) -> list[str]:
    limit = NOTEBOOK_LIMIT_S * time_factor()
    return [
        f"{name}: its cells took {sum(seconds):.0f} s together; at most {limit:.0f} s are allowed"
        for name, seconds in sorted(cells.items())
        if sum(seconds) > limit
    ]


def _arguments(config: pytest.Config) -> list[Path]:
    return [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]


def _project(config: pytest.Config) -> Project:
    for path in _arguments(config):
        for folder in (path, *path.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
                return Project(folder)
    raise pytest.UsageError("name the folder notebooks of a course, or notebooks in it")


def _is_whole(config: pytest.Config, project: Project) -> bool:
    """Return whether the run is about all notebooks: a developer who asks for one gets no word about the others."""
    selected = config.getoption("keyword") or config.getoption("markexpr")
    return not selected and not {project.root, project.notebooks}.isdisjoint(_arguments(config))


def pytest_configure(config: pytest.Config) -> None:
    """Watch over the run; a worker of pytest-xdist takes its environment from the process that started it."""
    if config.getoption("nbval", False) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(CourseRun(config), "course-run")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Make nbval's cells ours. nbval names its own class where it makes and where it initialises a cell, so neither a
    subclass in its place nor a collector of our own would do."""
    if type(item) is nbval.plugin.IPyNbCell:
        item.__class__ = CourseCell
