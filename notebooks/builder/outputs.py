"""What may stand in the stored outputs of a notebook, and what may not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser

from nbformat import NotebookNode

from builder.sources import Source

MAY_FAIL = "raises-exception"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SHORTEST_ALT = 40
PNG_START = "iVBORw0KGgo"  # how every PNG file begins, in base64
MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
SOMEBODYS_FOLDER = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp)/\w|\b[A-Z]:\\Users\\")
LOADS = re.compile(
    r"""<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*?\b(?:src|href|data)\s*=\s*["']?\s*(?:https?:)?//"""
    r"""|url\(\s*["']?\s*(?:https?:)?//|@import\b|\b(?:fetch|import|require)\(\s*\[?\s*["'](?:https?:)?//""",
    re.IGNORECASE,
)


def unwanted(notebook: NotebookNode, source: Source, folders: list[str] | None = None) -> list[str]:
    """Return what must not be stored: errors, stderr, live widgets, memory addresses, paths, loads from the network.

    Args  folders: folders of this machine that no output may name; without them, a general pattern decides.
    """
    return [
        f"{source.at(index)}: {problem}"
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
        for output in cell.outputs
        for problem in _faults(output, MAY_FAIL in cell.metadata.get("tags", []), folders)
    ]


def missing(notebook: NotebookNode, source: Source) -> list[str]:
    """Return what must be stored but is not: runs, what a tag announces, alt text."""
    found: list[str] = []
    count = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        count += 1
        silent = [fault for output in cell.outputs for fault in _without_words(output, cell.source)]
        found += [f"{source.at(index)}: {fault}" for fault in [*_absent(cell, count), *silent]]
    return found


def _faults(output: NotebookNode, may_fail: bool, folders: list[str] | None) -> Iterator[str]:
    if output.output_type == "error" and not may_fail:
        yield f"a stored error: {output.ename}: {output.evalue} (a cell that must fail has the tag {MAY_FAIL})"
    if output.output_type == "stream" and output.name == "stderr" and not may_fail:
        yield f"writes to stderr: {output.text.strip()[:300]}"
    if WIDGET_VIEW in output.get("data", {}):
        yield "a live widget is stored; only its picture, words and frames may be"
    text = words(output)
    if MEMORY_ADDRESS.search(text):
        yield f"shows a memory address, which differs in each run: {MEMORY_ADDRESS.search(text)!r}"
    named = [folder for folder in folders or () if folder in text] or SOMEBODYS_FOLDER.findall(text)
    if named:
        yield f"names a folder of this machine: {named[0]}"
    load = LOADS.search(output.get("data", {}).get("text/html", ""))
    if load:
        yield f"loads something from the network: {load[0][:80]}"


def words(output: NotebookNode) -> str:
    """Return the plain text of an output."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    return str(output.get("data", {}).get("text/plain", ""))


def _absent(cell: NotebookNode, count: int) -> Iterator[str]:
    if cell.execution_count != count:
        yield f"execution count is {cell.execution_count}, not {count}: the notebook was not run from top to bottom"
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    tags = cell.metadata.get("tags", [])
    if "figure" in tags and "image/png" not in kinds:
        yield "has the tag figure but shows no picture"
    if "widget" in tags and not {"text/html", "image/png"} <= kinds:
        yield "has the tag widget but shows no frames (text/html) or no picture (image/png)"
    if "claim" in tags and "✓" not in "".join(words(output) for output in cell.outputs):
        yield "has the tag claim but prints no ✓"
    if MAY_FAIL in tags and not any(output.output_type == "error" for output in cell.outputs):
        yield f"has the tag {MAY_FAIL} but did not fail"


def _without_words(output: NotebookNode, code: str) -> Iterator[str]:
    data = output.get("data", {})
    if not data.get("image/png", PNG_START).startswith(PNG_START):
        yield "its picture is not a PNG file"
    for kind in (kind for kind in data if kind.startswith("image/")):
        alt = str(output.metadata.get(kind, {}).get("alt", "")).strip()
        if len(alt) < SHORTEST_ALT:
            yield f"its alt text has {len(alt)} characters; say in {SHORTEST_ALT} or more what the data shows"
        elif alt in _titles(code):
            yield "the alt text of its picture only repeats the title; say what the data shows"
    finder = _ImagesWithoutAlt()
    finder.feed(data.get("text/html", ""))
    if finder.found:
        yield f"its html has {finder.found} <img> without alt text"


def _titles(code: str) -> set[str]:
    """Return the titles that a cell writes out: the text of set_title(...), suptitle(...) and title=..."""
    titles = set()
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        given = [keyword.value for keyword in call.keywords if keyword.arg == "title"]
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"set_title", "suptitle"}:
            given += call.args[:1]
        titles |= {value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)}
    return titles


class _ImagesWithoutAlt(HTMLParser):
    found = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img" and not (dict(attrs).get("alt") or "").strip():
            self.found += 1
