"""Run a notebook in a kernel of its own and keep only what does not differ from run to run."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from builder.outputs import WIDGET_VIEW, unwanted
from builder.project import BuildError, Project
from builder.sources import METADATA, Source

CELL_LIMIT_S = 120
COLOUR_CODE = re.compile(r"\x1b\[[0-9;]*m")
CELL_LINE = re.compile(r"Cell In\s?\[(\d+)\], line (\d+)")


class Stopped(BuildError):
    """The kernel went away: it crashed, or somebody interrupted the build."""


class _ThisPython(KernelSpecManager):
    """Knows one kernel: the Python that runs the build, whatever kernels the user has registered."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        from ipykernel.kernelspec import RESOURCES, get_kernel_dict

        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class _Manager(AsyncKernelManager):
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return _ThisPython(parent=self)


def environment(root: Path, figures: Path, ipython: Path) -> dict[str, str]:
    """Return what the kernel of a notebook finds in its environment, in the build and in the tests alike.

    Args  root: the checkout, whose nlcore comes before any installed one. figures: where pictures are saved.
          ipython: an empty folder, so that the user's own IPython start-up files play no part.
    """
    search = [str(root), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "NLCORE_PROGRESS": "0",
        "NLCORE_FIGURES": str(figures),
        "IPYTHONDIR": str(ipython),
    }


def run(notebook: NotebookNode, source: Source, project: Project, figures: Path) -> float:
    """Execute `notebook` in place, clean its outputs and return the seconds its cells took.

    Pictures are saved to the folder `figures`. Raises BuildError, naming notebook, cell and line, when a cell fails,
    takes too long or leaves something that must not be stored; Stopped when the kernel goes away.
    """
    started = [0, time.perf_counter()]

    def note_start(cell: NotebookNode, cell_index: int) -> None:
        started[0] = cell_index
        if cell_index == 0:
            started[1] = time.perf_counter()

    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT_S,
        kernel_manager_class=_Manager,
        resources={"metadata": {"path": str(project.notebooks)}},
        record_timing=False,
        coalesce_streams=True,
        shutdown_kernel="immediate",  # nothing in the kernel is worth waiting for
        on_cell_start=note_start,
    )
    with tempfile.TemporaryDirectory() as ipython, tempfile.TemporaryFile() as log:
        variables = os.environ | environment(project.root, figures, Path(ipython))
        try:
            client.execute(env=variables, stderr=log)
        except CellExecutionError as error:
            raise BuildError(_failure(error, notebook, source, int(started[0]))) from None
        except CellTimeoutError:
            where = source.at(int(started[0]))
            raise BuildError(f"{where}: did not finish within {CELL_LIMIT_S} s") from None
        except (DeadKernelError, AssertionError):  # nbclient ends an interruption with an assertion of its own
            raise Stopped(f"{source.at(int(started[0]))}: the kernel was stopped or died here{_tail(log)}") from None
    seconds = time.perf_counter() - started[1]
    clean(notebook)
    problems = unwanted(notebook, source, machine_folders(project.root))
    if problems:
        raise BuildError("\n".join(problems))
    return seconds


def clean(notebook: NotebookNode) -> None:
    """Drop from an executed notebook what only that one run knew: versions, widget models, paths in tracebacks."""
    notebook.metadata = NotebookNode(METADATA)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata = NotebookNode({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
            cell.outputs = list(_kept(cell.outputs))


def machine_folders(root: Path) -> list[str]:
    """Return the folders of this machine that must not be named in an output."""
    folders = {str(root), str(Path.home()), tempfile.gettempdir()}
    return sorted(folder for folder in folders if len(folder) > 1)


def _kept(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    for output in outputs:
        if output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
        data: dict[str, Any] | None = output.get("data")
        if data is not None:
            data.pop(WIDGET_VIEW, None)
        if data is None or data:
            yield output


def _failure(error: CellExecutionError, notebook: NotebookNode, source: Source, index: int) -> str:
    """Say where and why a cell failed: the line of the source file, the error, the failing line."""
    cell = notebook.cells[index]
    plain = COLOUR_CODE.sub("", str(error.traceback))
    inside = [int(line) for count, line in CELL_LINE.findall(plain) if int(count) == cell.execution_count]
    lines = cell.source.splitlines()
    if not inside or not 1 <= inside[-1] <= len(lines):
        return f"{source.at(index)}: {error.ename}: {error.evalue}"
    number = inside[-1]
    # The lines of an expanded set-up cell are not lines of the source file: point at its first line.
    line = source.cells[index].line + (number if source.cells[index].text == cell.source else 0)
    failing = lines[number - 1].strip()
    return f"{source.label}:{line} (cell {index + 1}): {error.ename}: {error.evalue}\n    {failing}"


def _tail(log: IO[bytes], size: int = 2000) -> str:
    log.seek(0)
    text = log.read().decode("utf-8", "replace")[-size:].strip()
    lines = [line for line in text.splitlines() if "without encryption" not in line]  # noise of every start
    return "\n" + "\n".join(lines) if lines else ""
