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


def spoiled_widgets(source: Source) -> list[str]:
    """Return the names that a live widget reads when it is moved and that a later cell gives another meaning."""
    trees = {index: ast.parse(cell.text) for index, cell in enumerate(source.cells) if cell.kind == "code"}
    functions: dict[str, ast.FunctionDef] = {}
    needed: dict[str, str] = {}
    found = []
    for index, tree in trees.items():
        written = _written_outside_functions(tree)
        found += [
            f"{source.at(index)}: {name} changes its meaning, but the widget {needed[name]} needs it as it was"
            for name in sorted(written & needed.keys())
        ]
        functions |= {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "course.explore":
                drawing = ast.unparse(call.args[1])
                needed |= dict.fromkeys(_read_by(drawing, functions), drawing)
    return found


def _read_by(name: str, functions: dict[str, ast.FunctionDef]) -> set[str]:
    """Return the function `name` and the names from outside that it reads, itself or through other functions."""
    seen: set[str] = set()
    waiting = {name}
    while waiting:
        seen.add(one := waiting.pop())
        if one in functions:
            inside = [node for node in ast.walk(functions[one]) if isinstance(node, ast.Name)]
            own = {node.id for node in inside if isinstance(node.ctx, ast.Store)}
            own |= {argument.arg for argument in ast.walk(functions[one]) if isinstance(argument, ast.arg)}
            waiting |= {node.id for node in inside} - own - seen
    return seen


def _written_outside_functions(tree: ast.Module) -> set[str]:
    """Return the names that the top level of a cell gives a meaning, by any statement."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names |= {node.id} if isinstance(node.ctx, ast.Store) else set()
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            names |= {node.asname or node.name} if isinstance(node, ast.alias) else set()
            waiting += ast.iter_child_nodes(node)
    return names


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
