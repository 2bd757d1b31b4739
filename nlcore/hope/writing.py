"""A prompt as tokens, and drawn tokens as text."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nlcore.tasks.characters import Vocabulary

LONGEST = 4  # tokens in a character: four bytes of UTF-8


def encode_prompt(prompt: str, vocabulary: Vocabulary) -> Tensor:
    """Return the tokens of a prompt, (N,); an empty one stands for a line end.

    Raises   ValueError for characters that the vocabulary lacks.
    """
    try:
        return vocabulary.encode(prompt or "\n")
    except ValueError:
        if prompt.strip("\n"):
            raise
        raise ValueError("the text has no line end to begin with: give a prompt of its own characters") from None


def write_text(tokens: Iterable[int], vocabulary: Vocabulary, characters: int) -> str:
    """Return the first so many characters of tokens; a character may take several tokens.

    Args     tokens: drawn one after the other, for example by `nlcore.hope.stream`; no more are drawn than needed, and
             one more. vocabulary: of the model. characters: how many; drawn bytes that are no text give U+FFFD.
    """
    text = ""
    open_ones: list[int] = []
    for token in tokens:
        if open_ones and (bool(vocabulary.begins(torch.tensor(token))) or len(open_ones) == LONGEST):
            text, open_ones = text + vocabulary.decode(torch.tensor(open_ones)), []
            if len(text) >= characters:
                break
        open_ones.append(token)
    return (text + (vocabulary.decode(torch.tensor(open_ones)) if open_ones else ""))[:characters]
