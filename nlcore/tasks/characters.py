"""Text as tokens: a vocabulary of bytes or of characters, windows to train on, and bits per character.

    Bytes        256 tokens; any text in any language; a character outside ASCII is two to four tokens
    Characters   one token a character; only the characters it was made from

Symbols   N tokens of a text; B windows of T tokens.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nlcore.tasks.tokens import TokenBatch, check_rows, whole_rows


class Vocabulary(Protocol):
    """What both vocabularies do: text to token numbers and back."""

    @property
    def size(self) -> int:
        """How many tokens there are."""

    def encode(self, text: str) -> Tensor:
        """Return the tokens of a text, (N,) int64."""

    def decode(self, tokens: Tensor) -> str:
        """Return the text of tokens, (N,)."""

    def begins(self, tokens: Tensor) -> Tensor:
        """Return where a character begins, booleans in the shape of the tokens."""

    def as_plain(self) -> dict[str, Any]:
        """Return words and numbers from which `vocabulary_from` makes it again."""


class Bytes:
    """The 256 bytes of UTF-8: no text is outside this vocabulary."""

    size = 256

    def encode(self, text: str) -> Tensor:
        """Return the bytes of a text, (N,) int64."""
        return torch.from_numpy(np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """Return the text of bytes, (N,); what is no UTF-8 becomes the sign U+FFFD.

        Raises   ValueError for a number outside 0 .. 255.
        """
        return bytes(tokens.tolist()).decode("utf-8", errors="replace")

    def begins(self, tokens: Tensor) -> Tensor:
        """Return where a character begins: every byte but 10xxxxxx, booleans in the shape of the tokens."""
        return (tokens & 0xC0) != 0x80

    def as_plain(self) -> dict[str, Any]:
        """Return words from which `vocabulary_from` makes it again."""
        return {"kind": "bytes"}

    def __repr__(self) -> str:
        return "Bytes(): 256 tokens, any text"


class Characters:
    """The characters of a text, in the order of Unicode.

    Args     text: any text that holds every character that will be met; each counts once.
    Raises   ValueError for an empty text.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("expected a text whose characters make the vocabulary, got an empty one; try Bytes()")
        self.symbols = "".join(sorted(set(text)))
        self._codes = _codes(self.symbols)

    @property
    def size(self) -> int:
        """How many characters there are."""
        return len(self.symbols)

    def encode(self, text: str) -> Tensor:
        """Return the numbers of the characters of a text, (N,) int64.

        Raises   ValueError that names characters which are not in the vocabulary.
        """
        codes = _codes(text)
        tokens = np.searchsorted(self._codes, codes).clip(max=self.size - 1)
        unknown = codes[self._codes[tokens] != codes]
        if unknown.size:
            named = ", ".join(repr(chr(code)) for code in dict.fromkeys(unknown.tolist()[:1000]))
            raise ValueError(
                f"the vocabulary has {self.size} characters and lacks {named[:100]}; try Bytes(), which has all, or "
                "make it from all the texts together"
            )
        return torch.from_numpy(tokens.astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """Return the text of tokens, (N,).

        Raises   ValueError for a number outside the vocabulary.
        """
        numbers = tokens.tolist()
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.size:
            raise ValueError(f"tokens lie in 0 .. {self.size - 1}; got {min(numbers)} .. {max(numbers)}")
        return "".join(self.symbols[number] for number in numbers)

    def begins(self, tokens: Tensor) -> Tensor:
        """Return True everywhere: each token is a character."""
        return torch.ones_like(tokens, dtype=torch.bool)

    def as_plain(self) -> dict[str, Any]:
        """Return words from which `vocabulary_from` makes it again."""
        return {"kind": "characters", "symbols": self.symbols}

    def __repr__(self) -> str:
        return f"Characters({self.symbols!r}): {self.size} tokens"


def vocabulary_from(plain: dict[str, Any]) -> Vocabulary:
    """Return the vocabulary whose `as_plain` this is.

    Raises   ValueError for another kind.
    """
    if plain.get("kind") == "bytes":
        return Bytes()
    if plain.get("kind") == "characters":
        return Characters(plain.get("symbols", ""))
    raise ValueError(f"a vocabulary is of kind 'bytes' or 'characters', got {plain.get('kind')!r}")


def windows(tokens: Tensor, length: int, batch_size: int, generator: torch.Generator) -> TokenBatch:
    """Draw windows of a text, each place as likely as the others; at every position the next token is asked.

    Args     tokens: (N,), the text. length: T. batch_size: B. generator: draws the places, on the CPU.
    Returns  a batch (B, T) on the device of the tokens.
    Raises   ValueError if the text is shorter than T + 1.
    """
    check_rows(batch_size, generator)
    if tokens.ndim != 1 or length < 1 or len(tokens) <= length:
        raise ValueError(
            f"a window of length={length} needs a text of at least {max(length, 1) + 1} tokens, (N,); "
            f"got {tuple(tokens.shape)}; try a longer text or a smaller length"
        )
    starts = torch.randint(len(tokens) - length, (batch_size, 1), generator=generator).to(tokens.device)
    places = starts + torch.arange(length, device=tokens.device)  # (B, T)
    return whole_rows(tokens[places], tokens[places + 1], tokens.device)


def bits_per_character(nats: float, tokens_per_character: float = 1.0) -> float:
    """Return a mean loss in nats per token as bits per character.

    Args     nats: natural logarithm, as cross-entropy gives it. tokens_per_character: 1 for `Characters`; for `Bytes`,
             N bytes of the text over its characters.
    """
    return nats / math.log(2.0) * tokens_per_character


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
