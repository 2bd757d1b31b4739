"""The generated region of README.md: the table of notebooks, made from their header cards."""

from __future__ import annotations

import re

from builder.card import Card
from builder.project import BuildError, Project
from builder.sources import badge

START = "<!-- generated: notebooks -->"
END = "<!-- /generated -->"
REGION = re.compile(re.escape(START) + r"\n(.*?)" + re.escape(END), re.DOTALL)


def table(cards: list[Card], project: Project) -> str:
    """Return the table of notebooks in markdown."""
    head = ["| # | Notebook | What you will do | Minutes | Open |", "|---|---|---|---|---|"]
    return "\n".join(head + [_row(card, project) for card in cards]) + "\n"


def refreshed(text: str, cards: list[Card], project: Project) -> str:
    """Return the README text with its table made anew; raise BuildError unless there is exactly one region."""
    regions = REGION.findall(text)
    if len(regions) != 1:
        raise BuildError(
            f"{project.readme.name} must hold the line '{START}' and, below it, the line '{END}', once; "
            f"the table of notebooks is written between them (found {len(regions)} such regions)"
        )
    made = f"{START}\n{table(cards, project)}{END}"
    return REGION.sub(lambda _: made, text)


def read(project: Project) -> str:
    """Return the text of README.md, or raise BuildError when there is none."""
    if not project.readme.is_file():
        raise BuildError(f"there is no {project.readme.name}; it must hold the lines '{START}' and '{END}'")
    return project.readme.read_text(encoding="utf-8")


def without_region(text: str) -> str:
    """Return the README text without the generated region."""
    return REGION.sub("", text)


def _row(card: Card, project: Project) -> str:
    link = f"[{card.title}](notebooks/{card.name}.ipynb)"
    opener = badge(card.name, project, words=f"Open notebook {card.number} in Colab")
    cells = [card.number, link, card.promise, str(card.minutes), opener]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
