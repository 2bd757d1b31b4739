"""Formulas that look the same in Colab, JupyterLab, on GitHub and in exported pages.

Only `$...$` within a line and `$$...$$` alone on its lines, surrounded by blank lines; only commands that both MathJax
and KaTeX know. The other rules keep markdown from reading a formula as something else: see the messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt

from builder.sources import Source

ENVIRONMENTS = frozenset(
    ("aligned", "cases", "matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "smallmatrix")
)
_COMMANDS = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma tau
upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar nabla partial infty
emptyset varnothing aleph Re Im top bot prime forall exists neg
sum prod int iint oint bigcup bigcap bigoplus bigotimes lim limsup liminf max min sup inf arg argmax argmin det dim exp
log ln lg sin cos tan sinh cosh tanh arcsin arccos arctan ker gcd Pr deg operatorname limits nolimits
frac dfrac tfrac binom sqrt cdot cdots ldots dots vdots ddots times div pm mp ast star circ bullet oplus ominus otimes
odot cup cap setminus wedge vee land lor
le leq ge geq ne neq lt gt ll gg approx sim simeq cong equiv propto in ni notin not subset subseteq supset supseteq
mid nmid parallel perp leqslant geqslant triangleq doteq
to gets mapsto rightarrow leftarrow leftrightarrow Rightarrow Leftarrow Leftrightarrow longrightarrow longleftarrow
longmapsto Longrightarrow iff implies uparrow downarrow nearrow searrow hookrightarrow xrightarrow xleftarrow
left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr
langle rangle lfloor rfloor lceil rceil lvert rvert lVert rVert vert Vert lbrace rbrace lbrack rbrack backslash
hat widehat tilde widetilde bar overline underline vec dot ddot check breve acute grave overbrace underbrace overset
underset stackrel boxed phantom hphantom vphantom substack
mathbf mathrm mathit mathcal mathbb mathsf mathtt mathfrak mathscr boldsymbol text textbf textit textrm texttt
displaystyle textstyle scriptstyle textcolor
quad qquad enspace thinspace tag begin end
"""
COMMANDS = frozenset(_COMMANDS.split())
TAG = re.compile(r"(?:NL \d+[a-z]?|\d\d\.\d+)")
BLOCK = re.compile(r"\$\$(.*?)\$\$", re.DOTALL)
INLINE = re.compile(r"(?<![\\$])\$(?!\$)((?:[^$\\]|\\.)+?)(?<!\\)\$(?!\$)", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
LIST_START = re.compile(r"^\s*(?:[-+*#>=]|\d+[.)])(?:\s|$)", re.MULTILINE)


def problems(source: Source) -> list[str]:
    """Return what in the formulas of `source` would not render everywhere, one line each."""
    return [
        f"{source.at(index)}: {problem}"
        for index, cell in enumerate(source.cells)
        if cell.kind == "markdown"
        for problem in lint(cell.text)
    ]


def tags(text: str) -> list[str]:
    """Return the ids of the displayed equations in a markdown text, in order: what stands in \\tag{...}."""
    return [tag for block in BLOCK.findall(CODE.sub("", text)) for tag in re.findall(r"\\tag\{([^}]*)\}", block)]


def lint(text: str) -> Iterator[str]:
    """Yield what in one markdown text would not render everywhere."""
    text = CODE.sub(lambda match: re.sub(r"[^\n]", "c", match[0]), text)
    if text.count("$$") % 2:
        yield "an odd number of $$"
        return
    yield from _blocks(text)
    rest = BLOCK.sub("", text)
    yield from _inline(rest)
    outside = INLINE.sub("", rest)
    if re.search(r"(?<!\\)\$", outside):
        yield "a $ without its partner (a dollar sign in text is written \\$)"
    if re.search(r"\\[\[\]()]", outside):
        yield r"\( \) \[ \] do not work on GitHub; write $...$ or $$...$$"
    if re.search(r"\\(?:begin|end|tag|frac|mathbf)\b", outside):
        yield "a formula stands outside $...$ and $$...$$"


def _blocks(text: str) -> Iterator[str]:
    for match in BLOCK.finditer(text):
        shown = _short(match[1])
        if not re.search(r"(?:^|\n[ \t]*\n)[ \t]*$", text[: match.start()]):
            yield f"leave a blank line before $$ {shown}"
        if not re.match(r"[ \t]*(?:$|\n[ \t]*(?:\n|$))", text[match.end() :]):
            yield f"leave a blank line after $$ {shown} $$, and nothing else on its last line"
        if re.search(r"\n[ \t]*\n", match[1]):
            yield f"a blank line inside $$ {shown} $$ ends the formula on GitHub"
        if LIST_START.search(match[1].partition("\n")[2]):
            yield f"a line of $$ {shown} $$ starts like a list or heading; end the line before it with that sign"
        yield from _formula(match[1])
        yield from _tagged(match[1])


def _tagged(formula: str) -> Iterator[str]:
    found = re.findall(r"\\tag\{([^}]*)\}", formula)
    if len(found) > 1:
        yield f"two \\tag in one formula: {', '.join(found)}; give each equation its own $$"
    for tag in found:
        if not TAG.fullmatch(tag):
            yield f"\\tag{{{tag}}} is not of the form \\tag{{NL 10}} (the paper's) or \\tag{{03.1}} (our own)"
    if re.search(r"\\begin(?:(?!\\end).)*\\tag", formula, re.DOTALL):
        yield "\\tag stands inside an environment; put it behind its \\end{...}"


def _inline(text: str) -> Iterator[str]:
    for match in INLINE.finditer(text):
        formula, shown = match[1], _short(match[1])
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        if formula != formula.strip():
            yield f"no space just inside the dollars of ${shown}$"
        if "\n" in formula:
            yield f"${shown}$ runs over a line break"
        if before.isalnum() or after.isalnum():
            yield f"${shown}$ touches a letter or digit, which GitHub does not read as a formula"
        if r"\tag" in formula:
            yield f"\\tag belongs into $$...$$, not ${shown}$"
        if r"\\" in formula:
            yield f"${shown}$ has a line break (\\\\); display it with $$"
        yield from _formula(formula)
    for line in text.splitlines():
        if line.lstrip().startswith("|") and any("|" in match[1] for match in INLINE.finditer(line)):
            yield "a | inside a formula splits the cell of a table; write \\lvert, \\mid or \\Vert"
    yield from _eaten(text)


def _formula(formula: str) -> Iterator[str]:
    shown = _short(formula)
    names = re.sub(r"\\\\", " ", formula)
    unknown = sorted(set(re.findall(r"\\([A-Za-z]+)", names)) - COMMANDS)
    if unknown:
        yield f"\\{unknown[0]} in {shown!r} is not in the list of commands that render everywhere (builder/maths.py)"
    begun, ended = re.findall(r"\\begin\{(.*?)\}", formula), re.findall(r"\\end\{(.*?)\}", formula)
    strange = sorted((set(begun) | set(ended)) - ENVIRONMENTS)
    if strange:
        yield f"the environment {strange[0]} does not render everywhere; there are {', '.join(sorted(ENVIRONMENTS))}"
    if sorted(begun) != sorted(ended):
        yield f"\\begin and \\end do not match in {shown!r}"
    bare = re.sub(r"\\[{}]", "", names)
    if bare.count("{") != bare.count("}"):
        yield f"the braces do not match in {shown!r}"
    if len(re.findall(r"\\left\b", formula)) != len(re.findall(r"\\right\b", formula)):
        yield f"\\left and \\right do not match in {shown!r}"
    if re.search(r"<[A-Za-z/!]", formula):
        yield f"a < before a letter in {shown!r} may be read as html; leave a space behind it"
    if re.search(r"(?<!\\)[%#]", formula):
        yield f"% or # in {shown!r} must be written \\% or \\#"


def _eaten(text: str) -> Iterator[str]:
    """Find formulas that a markdown reader without formulas changes: _..._ or *...* as emphasis, [a](b) as a link."""
    for block in _READER.parse(text):
        for match in INLINE.finditer(block.content) if block.type == "inline" else ():
            plain = "".join(_plain(token) for token in block.children or [])
            if match[0] not in plain:
                yield (
                    f"markdown may read a part of {match[0]} as emphasis or a link "
                    f"(write \\hat m_t instead of \\hat{{m}}_t, \\ast instead of *, or display it with $$)"
                )


def _plain(token: object) -> str:
    kind, content = getattr(token, "type", ""), getattr(token, "content", "")
    return "\n" if kind in {"softbreak", "hardbreak"} else str(content)


_READER = MarkdownIt("commonmark").disable(["escape", "entity", "backticks"])


def _short(formula: str) -> str:
    text = " ".join(formula.split())
    return text if len(text) <= 40 else text[:37] + "..."
