"""The rules for notebook sources, each on a tiny source that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebook_tools import NOTEBOOK, BuildError, card, maths, names, sources, structure


def source(tmp_path: Path, text: str, name: str = "00_count") -> sources.Source:
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    return sources.Source(path, f"src/{name}.py")


def spoilt(old: str, new: str, times: int = -1) -> str:
    assert old in NOTEBOOK
    return NOTEBOOK.replace(old, new, times)


# ---- header card


def test_a_card_is_read(tmp_path: Path) -> None:
    assert card.read(source(tmp_path, NOTEBOOK)) == card.Card(
        name="00_count",
        number="00",
        title="Count to three",
        promise="Count things and look at a picture.",
        outcomes=("count to three", "say what a picture shows"),
        needs="nothing.",
        minutes=10,
        seconds=5,
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# # 00 · Count", "# # 00 Count", "paragraph 1 of the header card must be '# NN · Title'"),
        ("# # 00 · Count", "# # 01 · Count", "the title says 01, the file name says 00"),
        ("*What you will do.*", "*What you do.*", "must be '*What you will do.* One sentence.'"),
        ("**Afterwards you can**", "**Then you can**", "must be '**Afterwards you can**'"),
        ("# - count to three;\n# - say what a picture shows.\n", "# count\n", "must be a list"),
        ("# - say what a picture shows.\n", "", "name 2 to 5 things the learner can do, not 1"),
        ("**You need**", "**Needs**", "must be '**You need** ...'"),
        ("10 minutes", "ten minutes", "must be '**Time** 50 minutes"),
        ("# {{badge}}\n", "", "must be '{{badge}}'; the card ends before it"),
        ("# {{badge}}\n", "# {{badge}}\n#\n# More.\n", "ends with the badge, but goes on: 'More.'"),
        ("# %% [markdown]\n# # 00", "# %%\n# # 00", "the first cell must be the header card, a markdown cell"),
    ],
)
def test_a_bad_card_is_told_with_file_and_what_is_missing(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(BuildError) as error:
        card.read(source(tmp_path, spoilt(old, new, 1)))
    assert said in str(error.value)
    assert "src/00_count.py" in str(error.value)


# ---- structure


def test_the_tiny_notebook_has_the_common_shape(tmp_path: Path) -> None:
    assert structure.problems(source(tmp_path, NOTEBOOK)) == []
    assert maths.problems(source(tmp_path, NOTEBOOK)) == []


MANY_LINES = "\n".join(f"a{number} = {number}" for number in range(26))
MANY_WORDS = "\n".join("# one two three four five six seven" for _ in range(21))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('# %% tags=["setup"]\n# {{setup}}', "# %%\nimport nlcore", "the second cell must be"),
        ("# {{setup}}", "# {{setup}}\n\n# %%\n# {{setup}}", "there is one set-up cell, the second"),
        ('tags=["claim"]', 'tags=["claims"]', "unknown tag claims"),
        ('# %% tags=["claim"]', "# %%", "calls claim(...), so it needs the tag claim"),
        ('tags=["figure"]', 'tags=["claim", "figure"]', "has the tag claim but does not call claim(...)"),
        ('# %% tags=["claim"]', '# %% tags=["claim"] hidden=true', "cells have tags and nothing else, not hidden"),
        ("# %% [markdown]\n# ## How", "# %% [raw]\n# ## How", "a raw cell"),
        ('# %% tags=["claim"]', '# %%\n\n# %% tags=["claim"]', "the cell is empty"),
        ("total = sum", "# %time\n%pwd\ntotal = sum", "is not plain Python"),
        ('tags=["exercise"]\ndef three', "\ndef three", "has 1 exercises; two to four"),
        ('tags=["check"]\ncourse.check.three', "\nthree", "the next code cell must have the tag check"),
        ("course.hint.three(1)", "your head", "no hint before the next section"),
        ("<summary>Solution</summary>", "<summary>More</summary>", "no <details><summary>Solution</summary>"),
        ("## Recall", "## Questions", "the last sections must be"),
        ("## How many are there?", "### How many are there?", "skips a level"),
        ("## How many are there?", "# How many are there?", "only the header card has a heading with one #"),
        ("# `return 2`\n#\n# </details>", "# `return 2`", "do not match"),
        ("# <summary>Answer</summary>\n#\n", "# <summary>Answer</summary>\n", "leave a blank line after </summary>"),
        ("# Three.\n#\n# </details>", "# Three.\n# </details>", "before </details>"),
        ("total = sum", f"{MANY_LINES}\ntotal = sum", "lines of code, 25 are the most"),
        ("# A sum has", f"{MANY_WORDS}\n# A sum has", "words before the next code cell (140 are the most)"),
        ('tags=["widget"]\ndef update', "\ndef update", "has no cell with the tag widget"),
    ],
)
def test_a_notebook_that_leaves_the_shape_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    problems = structure.problems(source(tmp_path, spoilt(old, new)))
    assert any(said in problem for problem in problems), problems
    assert all("src/00_count.py" in problem for problem in problems)


def test_words_are_counted_as_a_learner_reads_them() -> None:
    text = "## Not this\n\nOne *two* three-fold $a_i = b$ `code here`, [six](https://x.org).\n\n$$\na b c\n$$\n"
    assert structure.word_count(f"{text}\n| not | this |\n\n<details>\n\nnot this\n\n</details>\n") == 6


def test_a_place_is_told_by_file_line_and_cell(tmp_path: Path) -> None:
    tiny = source(tmp_path, NOTEBOOK)
    line = NOTEBOOK.splitlines().index('# %% tags=["claim"]') + 1
    assert tiny.at(3) == f"src/00_count.py:{line} (cell 4)"


def test_text_before_the_first_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="every cell must start with"):
        _ = source(tmp_path, f"import os\n\n{NOTEBOOK}").cells


# ---- formulas


@pytest.mark.parametrize(
    "text",
    [
        r"The weights $W_{t+1} = W_t - \eta\, \nabla L(W_t)$ and $\hat m_t$, $C, 2C, \dots$ and $50\%$.",
        "Text.\n\n$$\n\\begin{aligned}\na &= b \\\\\n  &= c\n\\end{aligned} \\tag{NL 10}\n$$\n\nMore.",
        "$$ a = \\begin{pmatrix} 1 & 0 \\\\ 0 & 1 \\end{pmatrix} \\tag{03.1} $$",
        "It costs \\$5 and `$x` is code.\n\n```\n$$ x\n```",
        "| a | b |\n|---|---|\n| $x_1$ | $\\lvert y \\rvert$ |",
        r"A norm $\lVert k_t \rVert^2 < 2$ and a set $\{a, b\}$.",
    ],
)
def test_a_good_formula_passes(text: str) -> None:
    assert list(maths.lint(text)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r"a \(x\) b", r"\( \) \[ \] do not work on GitHub"),
        ("\\begin{equation}\nx\n\\end{equation}", "stands outside"),
        ("$$\n\\begin{align}\nx\n\\end{align}\n$$", "the environment align does not render everywhere"),
        ("$$\n\\begin{aligned}\nx\n\\end{cases}\n$$", "\\begin and \\end do not match"),
        ("$$ x \\label{a} $$", "\\label in"),
        ("$\\aplha$", "\\aplha in"),
        ("text $$ x $$", "leave a blank line before"),
        ("text\n$$\nx\n$$", "leave a blank line before"),
        ("$$ x $$ text", "leave a blank line after"),
        ("$$\nx\n$$\ntext", "leave a blank line after"),
        ("$$\nx\n\ny\n$$", "a blank line inside"),
        ("$$\nx\n- y\n$$", "starts like a list or heading"),
        ("$$\nx\n= y\n$$", "starts like a list or heading"),
        ("$$ x", "an odd number of $$"),
        ("$x", "a $ without its partner"),
        ("$ x $", "no space just inside"),
        ("$a +\nb$", "runs over a line break"),
        ("the $n$th", "touches a letter or digit"),
        ("$x \\tag{NL 1}$", "\\tag belongs into $$"),
        ("$$ x \\tag{1} $$", "is not of the form"),
        ("$$ x \\tag{NL 1} \\tag{NL 2} $$", "two \\tag in one formula"),
        ("$$ \\begin{aligned} x \\tag{NL 1} \\end{aligned} $$", "\\tag stands inside an environment"),
        ("${x$", "the braces do not match"),
        ("$\\left( x$", "\\left and \\right do not match"),
        ("$a <b$", "may be read as html"),
        ("$50%$", "must be written"),
        ("| $|x|$ | b |", "splits the cell of a table"),
        ("$\\hat{m}_t$ and $m_{t-1}$", "as emphasis or a link"),
        ("$a*b$ and $c*d$", "as emphasis or a link"),
        ("$[a](b)$", "as emphasis or a link"),
    ],
)
def test_a_formula_that_would_not_render_is_told(text: str, said: str) -> None:
    problems = list(maths.lint(text))
    assert any(said in problem for problem in problems), problems


# ---- names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from nlcore.memory import hebian", "imports nlcore.memory.hebian, but nlcore.memory has no hebian"),
        ("import nlcore.memry", "nlcore has no memry"),
        ("import nlcore.memory as m\nm.delta_rule", "uses m.delta_rule, but m has no delta_rule"),
        ("import nlcore\nnlcore.optimizers.Momentun", "nlcore.optimizers has no Momentun"),
        ("from nlcore import course\ncourse.figre", "course has no figre"),
        ("from nlcore import course\ncourse.check.no_such_exercise(1)", "has no no_such_exercise"),
        ("# %% [markdown]\n# See `nlcore.memory.hebian`.", "but nlcore.memory has no hebian"),
        ("# %% [markdown]\n# See `course.shw(...)`.", "nlcore.course has no shw"),
    ],
)
def test_a_name_that_does_not_exist_is_told(tmp_path: Path, text: str, said: str) -> None:
    text = text if text.startswith("# %%") else f"# %%\n{text}"
    problems = names.problems(source(tmp_path, text))
    assert any(said in problem for problem in problems), problems


def test_names_that_exist_pass(tmp_path: Path) -> None:
    code = "from nlcore import course, memory\nfrom nlcore.memory import hebbian as write\nmemory.delta\ncourse.claim\n"
    code += "\n# %%\nmemory = {}\nmemory.anything\n\n# %% [markdown]\n# See `nlcore.memory.hebbian(M)`.\n"
    assert names.problems(source(tmp_path, f"# %%\n{code}")) == []


def test_what_is_shown_twice_is_told(tmp_path: Path) -> None:
    text = "# %%\ncourse.show(memory.delta)\n\n# %%\ncourse.show(delta)\n"
    assert names.shown_twice(source(tmp_path, text)) == ["src/00_count.py:4 (cell 2): delta was already shown"]


WIDGET = """# %%
lines, far = {}, 3

def far_of(x):
    return far * x

def draw(k, own=1):
    own = far_of(k)
    return lines[own]

# %%
course.explore(fig, draw, [])

# %%
"""


def test_later_cells_may_use_what_a_widget_does_not_need(tmp_path: Path) -> None:
    later = "own = 2\nk = [lines for lines in ()]\ndef other():\n    far = 1\n"
    assert names.spoiled_widgets(source(tmp_path, WIDGET + later)) == []


@pytest.mark.parametrize(
    ("spoiler", "name"),
    [("for i, far in ():\n    pass", "far"), ("lines = 1", "lines"), ("import numpy as lines", "lines")],
)
def test_a_name_that_a_widget_still_needs_is_guarded(tmp_path: Path, spoiler: str, name: str) -> None:
    (problem,) = names.spoiled_widgets(source(tmp_path, WIDGET + spoiler))
    assert f"{name} changes its meaning, but the widget draw needs it as it was" in problem


def test_methods_of_two_classes_are_two_things(tmp_path: Path) -> None:
    text = "# %%\ncourse.show(SGD.update, Adam.update)\n\n# %%\ncourse.show(optimizers.Adam.update)\n"
    assert names.shown_twice(source(tmp_path, text)) == ["src/00_count.py:4 (cell 2): Adam.update was already shown"]
