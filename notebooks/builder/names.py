"""Every name of nlcore that a notebook uses or mentions exists: text and package cannot drift apart."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from builder.sources import Source

PACKAGE = "nlcore"
MENTION = re.compile(r"`((?:nlcore|course)(?:\.[A-Za-z_]\w*)+)[`(\[]")


def problems(source: Source) -> list[str]:
    """Return the names of nlcore in code and prose of `source` that do not exist, one line each."""
    known: dict[str, Any] = {}
    found = []
    for index, cell in enumerate(source.cells):
        faults = _code(ast.parse(cell.text), known) if cell.kind == "code" else _mentions(cell.text)
        found += [f"{source.at(index)}: {fault}" for fault in dict.fromkeys(faults)]
    return found


def _own_name(path: str) -> str:
    """Return the last part of a dotted name, with the class before it for a method: "memory.delta" -> "delta"."""
    *_, owner, name = ["", *path.split(".")]
    return f"{owner}.{name}" if owner[:1].isupper() else name


def shown_twice(source: Source) -> list[str]:
    """Return what a notebook shows more than once with course.show."""
    seen: set[str] = set()
    found = []
    for index, cell in enumerate(source.cells):
        for call in _shows(cell.text) if cell.kind == "code" else ():
            names = [_own_name(ast.unparse(argument)) for argument in call.args]
            found += [f"{source.at(index)}: {name} was already shown" for name in names if name in seen]
            seen.update(names)
    return found


def _shows(code: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "course.show":
            yield node


def _mentions(text: str) -> Iterator[str]:
    for dotted in MENTION.findall(text):
        full = dotted if dotted.startswith(PACKAGE) else f"{PACKAGE}.{dotted}"
        try:
            resolve(full)
        except LookupError as error:
            yield f"mentions `{dotted}`, but {error}"


def _code(tree: ast.Module, known: dict[str, Any]) -> Iterator[str]:
    """Follow imports, then attributes; `known` maps the names of this notebook to objects of nlcore."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node, known)
    for name in _written(tree):
        known.pop(name, None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from _attribute(node, known)


def _imports(node: ast.Import | ast.ImportFrom, known: dict[str, Any]) -> Iterator[str]:
    for alias in node.names:
        dotted = alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
        if dotted.partition(".")[0] != PACKAGE:
            known.pop(alias.asname or alias.name, None)
            continue
        try:
            target = resolve(dotted)
        except LookupError as error:
            yield f"imports {dotted}, but {error}"
            continue
        if isinstance(node, ast.Import) and alias.asname is None:
            known[PACKAGE] = resolve(PACKAGE)
        else:
            known[alias.asname or alias.name] = target


def _written(tree: ast.Module) -> set[str]:
    """Return the names that a cell gives a meaning of its own: what it defines or assigns."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _attribute(node: ast.Attribute, known: dict[str, Any]) -> Iterator[str]:
    first, *rest = ast.unparse(node).split(".")
    if first not in known or not all(part.isidentifier() for part in rest):
        return
    try:
        _follow(known[first], first, rest)
    except LookupError as error:
        yield f"uses {'.'.join([first, *rest])}, but {error}"


def resolve(dotted: str) -> Any:
    """Return the object that a dotted name stands for; raise LookupError that says which part does not exist."""
    first, *rest = dotted.split(".")
    return _follow(importlib.import_module(first), first, rest)


def _follow(thing: Any, path: str, parts: list[str]) -> Any:
    for part in parts:
        try:
            thing = _part(thing, part)
        except (AttributeError, ImportError):
            raise LookupError(f"{path} has no {part}") from None
        path = f"{path}.{part}"
    return thing


def _part(thing: Any, part: str) -> Any:
    if isinstance(thing, ModuleType) and not hasattr(thing, part):
        return importlib.import_module(f"{thing.__name__}.{part}")
    return getattr(thing, part)
