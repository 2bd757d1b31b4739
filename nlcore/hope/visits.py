"""Visits A | B | A, read with every choice of the levels that may learn: what each level is worth, and what it keeps.

The stream leads from one rule or text to another and back. Read once with nothing held and once with everything held,
the difference is what was learned on the way; with a single level left open, what that level learns alone. On the way
back a level that has kept A saves more in the first tokens than it did when A was new.

Source    the experiment is ours; which parts of a model learn while it reads, and how often, is the subject of Nested
          Learning (Behrouz et al. 2025), sections 3 and 7.
"""

from __future__ import annotations

import math
import os
import unicodedata
from itertools import product

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nlcore.hope.model import HopeLM
from nlcore.hope.watching import Watched, watch, written
from nlcore.optimizers.checks import check_count
from nlcore.tasks.characters import Vocabulary
from nlcore.tasks.switching import switching
from nlcore.training import PROGRESS_VARIABLE

MOST_LOST = 0.05  # part of a text that may lie outside a vocabulary
SPELLINGS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "’": "'", "‘": "'", "–": "-", "—": "-"})
Choice = tuple[bool, ...]


def rule_visits(length: int, count: int, generator: torch.Generator) -> Tensor:
    """Return streams A | B | A of two rules, drawn anew for each stream; `there_and_back` does the same with texts.

    Args     length: of each part. count: B, how many. generator: draws the rules and the symbols.
    Returns  tokens (B, 3 length + 1); the last token is only predicted.
    Raises   ValueError if one of the numbers is below 1.
    """
    check_count("length", length)
    batch = switching(count, generator, segments=(("A", length), ("B", length), ("A", length)))
    return torch.cat([batch.tokens, batch.targets[:, -1:]], 1)


def spelled(text: str, vocabulary: Vocabulary) -> Tensor:
    """Return a text as tokens of a vocabulary made for others: accents come off, what is unknown then is left out.

    Args     text: in any language. vocabulary: of a trained model.
    Returns  the tokens, (N,); the text as it is if the vocabulary has all of it.
    Raises   ValueError if more than a twentieth of the text would be left out.
    """
    try:
        return vocabulary.encode(text)
    except ValueError:
        plain = [one for one in unicodedata.normalize("NFKD", text.translate(SPELLINGS)) if not _is_accent(one)]
    known = _known(set(plain), vocabulary)
    kept = [one for one in plain if one in known]
    if len(kept) < (1 - MOST_LOST) * len(plain):
        raise ValueError(
            f"the vocabulary lacks {len(plain) - len(kept)} of the {len(plain)} characters of the text, which begins "
            f"{text[:30]!r}; try a text in an alphabet that the model was trained on, or a model on Bytes()"
        )
    return vocabulary.encode("".join(kept))


def switches(model: HopeLM) -> dict[str, tuple[str, ...]]:
    """Return which levels can be held together: "titans", the "fast" level of the CMS, its "slow" ones.

    Args     model: as in `HopeLM`.
    Returns  names as `frozen` takes them; a model without such levels has no such switch.
    """
    names = dict.fromkeys(name.split(": ")[1] for name in written(model, None, 1))
    titans, cms = ([name for name in names if name.startswith("cms") is part] for part in (False, True))
    found = {"titans": tuple(titans), "fast": tuple(cms[:1]), "slow": tuple(cms[1:])}
    return {words: levels for words, levels in found.items() if levels}


def every_way(model: HopeLM, tokens: Tensor, piece: int = 16) -> dict[Choice, Watched]:
    """Read streams again and again, with every choice of the levels that may learn.

    Args     model: as in `HopeLM`. tokens: (B, T + 1). piece: as for `watch`.
    Returns  for each choice what `watch` saw; a choice is one truth value for each of `switches(model)`: may it learn?
    Raises   ValueError as `watch`.
    """
    groups = list(switches(model).values())
    choices = list(product((False, True), repeat=len(groups)))
    found = {}
    for choice in tqdm(choices, disable=os.environ.get(PROGRESS_VARIABLE) == "0", leave=False, desc="reading"):
        held = [name for levels, on in zip(groups, choice, strict=True) if not on for name in levels]
        found[choice] = watch(model, tokens, piece, frozen=held)
    return found


def by_level(watched: Watched) -> dict[str, Tensor]:
    """Return how far each level moved, (pieces,), the mean over the blocks; "memory", "boxes", "cms 1", ...

    Args     watched: from `watch`. The boxes are those that generate keys, values, rates and retention.
    """
    found: dict[str, list[Tensor]] = {}
    for name, moved in watched.moved.items():
        level = name.split(": ")[1]
        found.setdefault(level if level == "memory" or level.startswith("cms") else "boxes", []).append(moved)
    return {level: torch.stack(parts).mean(0) for level, parts in found.items()}


def bits(watched: Watched, stretches: int = 16) -> Tensor:
    """Return the mean price of a token in bits, (3, stretches): one row for A, one for B, one for A again.

    Args     watched: a visit, its three parts of equal length. stretches: equal pieces of each part.
    Raises   ValueError if the parts cannot be cut so.
    """
    T, wanted = len(watched.nats), check_count("stretches", stretches)
    if T % (3 * wanted):
        raise ValueError(
            f"a visit of {T} tokens has no 3 parts of {wanted} equal stretches: expected a multiple of {3 * wanted}; "
            "try another number of stretches"
        )
    return watched.nats.view(3, wanted, -1).mean(-1) / math.log(2.0)


def _is_accent(character: str) -> bool:
    return unicodedata.combining(character) != 0


def _known(characters: set[str], vocabulary: Vocabulary) -> set[str]:
    """Return the characters that a vocabulary has."""
    found = set()
    for one in characters:
        try:
            vocabulary.encode(one)
        except ValueError:
            continue
        found.add(one)
    return found
