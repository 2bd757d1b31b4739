"""The shape that every notebook of the course has, so that learners always know what is asked of them.

Header card, set-up cell, sections, and at the end `## What you did`, `## What this does not show`, `## Recall` and
`## Further reading`. Two to four exercises: a cell tagged `exercise`, the next code cell tagged `check`, then, before
the next section, a hint (`course.hint.NAME(1)`) and a folded solution (`<details>` with `Solution` in its summary).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

from builder.sources import SETUP_MARK, Cell, Source

TAGS = frozenset({"setup", "claim", "figure", "widget", "exercise", "check", "solution", "slow", "raises-exception"})
SHOWN_BY = {"claim": "claim", "figure": "figure", "widget": "explore"}  # tag: the function of nlcore.course
ENDING = ("What you did", "What this does not show", "Recall", "Further reading")
LONGEST_CODE = 25  # lines that are not blank, in every cell: what fits a screen
LONGEST_PROSE = 140  # words between two code cells
EXERCISES = range(2, 5)
NAMED = {"figure": 1, "explore": None}  # where the name of a picture stands among the arguments


def problems(source: Source) -> list[str]:
    """Return where `source` leaves the common shape, one line each."""
    rules = (_opening, _tags, _plain_python, _announced, _exercises, _ending, _folded, _lengths, _prose)
    return [problem for rule in rules for problem in rule(source)]


def repeated_names(sources: list[Source]) -> list[str]:
    """Return the names of pictures and widgets that are used more than once: one would overwrite the other."""
    places: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        for index, cell in enumerate(source.cells):
            for function, name in picture_names(cell):
                places.setdefault((function, name), []).append(source.at(index))
    return [
        f"{found[1]}: the name {name!r} is already used in {found[0]}; its file would be overwritten"
        for (_, name), found in places.items()
        if len(found) > 1
    ]


def picture_names(cell: Cell) -> Iterator[tuple[str, str]]:
    """Yield ("figure" or "explore", name) for every picture and widget that `cell` makes."""
    for function, place in NAMED.items():
        for call in _calls(cell, function):
            given = [keyword.value for keyword in call.keywords if keyword.arg == "name"]
            given += call.args[place : place + 1] if place is not None else []
            for value in given:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield function, value.value


def _opening(source: Source) -> Iterator[str]:
    second = source.cells[1] if len(source.cells) > 1 else None
    if second is None or second.tags != ("setup",) or second.text.strip() != SETUP_MARK:
        yield f'{source.label}: the second cell must be: # %% tags=["setup"], and below it only {SETUP_MARK}'
    for index, cell in enumerate(source.cells):
        if index != 1 and ("setup" in cell.tags or SETUP_MARK in cell.text):
            yield f"{source.at(index)}: there is one set-up cell, the second"
        if index > 0 and "{{" in cell.text and "}}" in cell.text and cell.kind == "markdown" and "$" not in cell.text:
            yield f"{source.at(index)}: {{{{...}}}} is filled in only in the header card"


def _tags(source: Source) -> Iterator[str]:
    for index, cell in enumerate(source.cells):
        unknown = sorted(set(cell.tags) - TAGS)
        if unknown:
            yield f"{source.at(index)}: unknown tag {', '.join(unknown)}; the tags are {', '.join(sorted(TAGS))}"
        if cell.extras:
            yield f"{source.at(index)}: cells have tags and nothing else, not {', '.join(cell.extras)}"
        if cell.kind not in {"code", "markdown"}:
            yield f"{source.at(index)}: a {cell.kind} cell; there are only code and markdown cells"
        if not cell.text.strip():
            yield f"{source.at(index)}: the cell is empty"
        if cell.kind == "markdown" and set(cell.tags) - {"solution"}:
            yield f"{source.at(index)}: a markdown cell has no tag but solution"


def _plain_python(source: Source) -> Iterator[str]:
    for index, cell in enumerate(source.cells):
        if cell.kind == "code" and _tree(cell.text) is None:
            yield f"{source.at(index)}: is not plain Python (magics like %time are not, and cannot be linted)"


def _announced(source: Source) -> Iterator[str]:
    """A tag and what the cell does agree, both ways, so that a misspelt or forgotten tag is found."""
    for index, cell in enumerate(source.cells):
        for tag, function in SHOWN_BY.items():
            calls = cell.kind == "code" and any(_calls(cell, function))
            if calls and tag not in cell.tags:
                yield f"{source.at(index)}: calls {function}(...), so it needs the tag {tag}"
            if tag in cell.tags and not calls:
                yield f"{source.at(index)}: has the tag {tag} but does not call {function}(...)"
    used = Counter(tag for cell in source.cells for tag in cell.tags)
    for tag in SHOWN_BY:
        if not used[tag]:
            yield f"{source.label}: has no cell with the tag {tag}; every notebook has at least one"
    if used["exercise"] not in EXERCISES:
        yield f"{source.label}: has {used['exercise']} exercises; two to four are wanted"


def _exercises(source: Source) -> Iterator[str]:
    starts = [index for index, cell in enumerate(source.cells) if "exercise" in cell.tags]
    for start in starts:
        after = source.cells[start + 1 :]
        code = [cell for cell in after if cell.kind == "code"]
        if not code or "check" not in code[0].tags or "course.check." not in code[0].text:
            yield f"{source.at(start)}: the next code cell must have the tag check and call course.check.NAME(...)"
        span = _until_next(after)
        if not any("course.hint." in cell.text for cell in span):
            yield f"{source.at(start)}: no hint before the next section; name course.hint.NAME(1) or call it"
        if not any(_folded_solution(cell) for cell in span):
            yield f"{source.at(start)}: no <details><summary>Solution</summary> before the next section"


def _until_next(cells: list[Cell]) -> list[Cell]:
    """Return the cells up to the next exercise or section."""
    for index, cell in enumerate(cells):
        if "exercise" in cell.tags or (cell.kind == "markdown" and re.search(r"^## ", cell.text, re.MULTILINE)):
            return cells[:index]
    return cells


def _folded_solution(cell: Cell) -> bool:
    summaries = re.findall(r"<details>\s*<summary>(.*?)</summary>", cell.text, re.DOTALL)
    return cell.kind == "markdown" and any("solution" in summary.lower() for summary in summaries)


def _headings(source: Source) -> list[tuple[int, int, str]]:
    """Return (cell, level, title) of every heading."""
    return [
        (index, len(match[1]), match[2].strip())
        for index, cell in enumerate(source.cells)
        if cell.kind == "markdown"
        for match in re.finditer(r"^(#{1,6}) (.+)$", _without_code(cell.text), re.MULTILINE)
    ]


def _ending(source: Source) -> Iterator[str]:
    headings = _headings(source)
    sections = [title for _, level, title in headings if level == 2]
    if tuple(sections[-len(ENDING) :]) != ENDING:
        wanted = ", ".join(f"'## {title}'" for title in ENDING)
        yield f"{source.label}: the last sections must be {wanted}, in this order; found {sections[-len(ENDING) :]}"
    if len(sections) <= len(ENDING):
        yield f"{source.label}: has no section ('## ...') before '## {ENDING[0]}'"
    before = 1
    for index, level, title in headings:
        if level == 1 and index > 0:
            yield f"{source.at(index)}: only the header card has a heading with one #, not {title!r}"
        if level > before + 1:
            yield f"{source.at(index)}: the heading {title!r} skips a level"
        before = level


def _folded(source: Source) -> Iterator[str]:
    for index, cell in enumerate(source.cells):
        if cell.kind != "markdown":
            continue
        if cell.text.count("<details>") != cell.text.count("</details>"):
            yield f"{source.at(index)}: <details> and </details> do not match"
        if re.search(r"</summary>(?!\n\n)", cell.text) or re.search(r"(?<!\n\n)</details>", cell.text):
            yield f"{source.at(index)}: leave a blank line after </summary> and before </details>"
    recall = [cell for cell in source.cells if re.search(r"^## Recall$", cell.text, re.MULTILINE)]
    if recall and "<details>" not in recall[-1].text:
        yield f"{source.label}: the answers of '## Recall' belong folded (<details>) into the cell of that heading"


def _lengths(source: Source) -> Iterator[str]:
    for index, cell in enumerate(source.cells):
        lines = [line for line in cell.text.splitlines() if line.strip()]
        if cell.kind == "code" and len(lines) > LONGEST_CODE:
            yield f"{source.at(index)}: {len(lines)} lines of code, {LONGEST_CODE} are the most; split it"


def _prose(source: Source) -> Iterator[str]:
    """Count words between code cells; the header card and the closing sections are read on their own."""
    count, first = 0, 1
    for index, cell in enumerate(source.cells[1:], 1):
        text, closing, _ = cell.text.partition(f"## {ENDING[0]}\n")
        count += word_count(text) if cell.kind == "markdown" else 0
        last = bool(closing) or index + 1 == len(source.cells)
        if (cell.kind == "code" or last) and count > LONGEST_PROSE:
            yield f"{source.at(first)}: {count} words before the next code cell ({LONGEST_PROSE} are the most)"
        if closing:
            return
        if cell.kind == "code":
            count, first = 0, index + 1


def word_count(text: str) -> int:
    """Count the words a learner has to read: no headings, tables, displayed formulas, code or folded parts."""
    for skipped in (r"<details>.*?</details>", r"```.*?```", r"\$\$.*?\$\$"):
        text = re.sub(skipped, " ", text, flags=re.DOTALL)
    text = re.sub(r"^(#|\|).*$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\$[^$\n]+\$|`[^`\n]+`", " formula ", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return len(re.findall(r"\w+(?:[-'’]\w+)*", text))


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@cache
def _tree(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except SyntaxError:
        return None


def _calls(cell: Cell, function: str) -> Iterator[ast.Call]:
    """Yield the calls of `function(...)` or `course.function(...)` in `cell`."""
    tree = _tree(cell.text) if cell.kind == "code" else None
    for node in ast.walk(tree) if tree and function in cell.text else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {function, f"course.{function}"}:
            yield node
