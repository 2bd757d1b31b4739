"""The header card: the first cell of every notebook, in one fixed form, from which the README table is made.

The card is a markdown cell of these paragraphs, in this order, each set apart by a blank line (long lines may wrap):

    # 03 · Momentum remembers gradients

    *What you will do.* Build momentum as a memory of gradients and measure how far back it remembers.

    **Afterwards you can**

    - say how many gradients momentum remembers;
    - explain why it forgets.

    **You need** notebook 02 and a little Python.

    **Time** 50 minutes · runs in about 20 s on a CPU

    {{badge}}

The number is that of the file. Two to five things the learner can do afterwards. The seconds are a promise: the
notebook test fails when a run takes longer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.project import BuildError
from builder.sources import BADGE_MARK, Source

FEWEST, MOST = 2, 5
TITLE = re.compile(r"# (\d\d) · (\S.*)")
PROMISE = re.compile(r"\*What you will do\.\* (\S.*)")
AFTERWARDS = re.compile(r"\*\*Afterwards you can\*\*")
BULLETS = re.compile(r"[-*] \S.*")
NEED = re.compile(r"\*\*You need\*\* (\S.*)")
TIME = re.compile(r"\*\*Time\*\* (\d+) minutes · runs in about (\d+) s on a CPU")
BADGE = re.compile(re.escape(BADGE_MARK))

FORM = (
    (TITLE, "'# NN · Title'"),
    (PROMISE, "'*What you will do.* One sentence.'"),
    (AFTERWARDS, "'**Afterwards you can**'"),
    (BULLETS, "a list of what the learner can do, each line starting with '- ' or '* '"),
    (NEED, "'**You need** ...'"),
    (TIME, "'**Time** 50 minutes · runs in about 20 s on a CPU'"),
    (BADGE, f"'{BADGE_MARK}'"),
)


@dataclass(frozen=True)
class Card:
    """What a header card says: `minutes` of class time, `seconds` of computing on a CPU."""

    name: str
    number: str
    title: str
    promise: str
    outcomes: tuple[str, ...]
    needs: str
    minutes: int
    seconds: int


def read(source: Source) -> Card:
    """Return the header card of `source`; raise BuildError that names the file and what is missing."""
    cells = source.cells
    if not cells or cells[0].kind != "markdown":
        raise BuildError(f"{source.label}: the first cell must be the header card, a markdown cell")
    paragraphs = _paragraphs(cells[0].text)
    found = [_expect(form, words, paragraphs, index, source) for index, (form, words) in enumerate(FORM)]
    if len(paragraphs) > len(FORM):
        raise BuildError(f"{source.at(0)}: the header card ends with the badge, but goes on: {paragraphs[-1][:60]!r}")
    card = Card(
        name=source.name,
        number=found[0][1],
        title=found[0][2],
        promise=found[1][1],
        outcomes=_outcomes(paragraphs[3]),
        needs=found[4][1],
        minutes=int(found[5][1]),
        seconds=int(found[5][2]),
    )
    _agrees(card, source)
    return card


def _paragraphs(text: str) -> list[str]:
    """Split at blank lines; a list may follow its heading at once; join wrapped lines, but keep list items apart."""
    text = re.sub(r"(\*\*Afterwards you can\*\*)\n(?=[-*] )", r"\1\n\n", text.strip())
    return [re.sub(r"\n(?![-*] )\s*", " ", part.strip()) for part in re.split(r"\n\s*\n", text)]


def _expect(form: re.Pattern[str], words: str, paragraphs: list[str], index: int, source: Source) -> re.Match[str]:
    given = paragraphs[index] if index < len(paragraphs) else ""
    match = form.fullmatch(given) or (form.match(given) if form is BULLETS else None)
    if match is None:
        seen = f"found {given[:60]!r}" if given else "the card ends before it"
        raise BuildError(f"{source.at(0)}: paragraph {index + 1} of the header card must be {words}; {seen}")
    return match


def _outcomes(paragraph: str) -> tuple[str, ...]:
    return tuple(line[2:].strip(" .;,") for line in paragraph.split("\n"))


def _agrees(card: Card, source: Source) -> None:
    if card.number != source.name[:2]:
        raise BuildError(f"{source.at(0)}: the title says {card.number}, the file name says {source.name[:2]}")
    if not FEWEST <= len(card.outcomes) <= MOST:
        raise BuildError(f"{source.at(0)}: name {FEWEST} to {MOST} things the learner can do, not {len(card.outcomes)}")
