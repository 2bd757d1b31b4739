"""Formal languages: tasks that need a state which each token changes, asked at every position.

    language   symbols                    answer at t                                                   chance
    parity     0, 1                       the number of ones so far, mod 2                                 1/2
    mod3       0, 1, 2                    the sum so far, mod 3                                            1/3
    abab       a = 0, b = 1               1 if the prefix is abab repeated (length 4, 8, ...), else 0      below
    s3         the 6 permutations of 3    their product so far, the newest applied last                    1/6

All symbols are drawn alike, except in (abab)*, where a random word is almost never a member: there a word follows the
pattern, and in every second one a single symbol, anywhere, is the wrong one. After it no prefix is a member any more,
so the mistake must be remembered, and the place mod 4 be counted. The answer "no" alone is right at about 4 of 5
positions (at all after a mistake, at 3 of 4 before); `usual_answer_share` measures it.

Source    parity, (abab)*: Nested Learning, Table 5, after Irie et al. 2023; mod3 and the word problem of S3: Merrill et
          al. 2024, Grazzi et al. 2025. How words are drawn is ours.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from nlcore.tasks.tokens import NOT_ASKED, TokenBatch, check_rows

SYMBOLS = {"parity": 2, "mod3": 3, "abab": 2, "s3": 6}  # and as many answers
LENGTHS = (3, 40)
BROKEN = 0.5  # part of the (abab)* words with a mistake
S3 = tuple(permutations(range(3)))  # element number -> where it sends 0, 1, 2; number 0 changes nothing


def formal_language(
    name: str,
    batch_size: int,
    generator: torch.Generator,
    *,
    lengths: tuple[int, int] = LENGTHS,
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Return words of a language with the answer at each position.

    Args     name: parity, mod3, abab or s3. batch_size: B. generator: draws everything, on the CPU. lengths: shortest
             and longest word; each length between is equally likely. (40, 40) makes all words 40 long.
             device: of the batch.
    Returns  tokens (B, T), T the longest length drawn; padded with 0, and nothing is asked there.
    Raises   ValueError for another language or if not 1 <= shortest <= longest.
    """
    check_rows(batch_size, generator)
    shortest, longest = lengths
    if _symbols(name) and not 1 <= shortest <= longest:
        raise ValueError(f"expected lengths (shortest, longest) with 1 <= shortest <= longest, got {lengths}")
    ends = torch.randint(shortest, longest + 1, (batch_size,), generator=generator)
    T = int(ends.max())
    tokens = _words(name, batch_size, T, ends, generator)
    padding = torch.arange(T) >= ends[:, None]
    targets = right_answers(name, tokens).masked_fill(padding, NOT_ASKED)
    return TokenBatch(tokens.masked_fill(padding, 0), targets, ends).to(device)


def right_answers(name: str, tokens: Tensor) -> Tensor:
    """Return the answer at each position of words without padding: the rule itself.

    Args     name: of the language. tokens: (B, T).
    Returns  answers (B, T).
    Raises   ValueError for another language or a symbol it does not have.
    """
    count = _symbols(name)
    if tokens.ndim != 2 or (tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < count):
        raise ValueError(
            f"the words of {name} are (B, T) and have the symbols 0 to {count - 1}, got {tuple(tokens.shape)}"
        )
    if name in ("parity", "mod3"):
        return tokens.cumsum(1) % count
    if name == "abab":
        place = torch.arange(tokens.shape[1], device=tokens.device)
        clean = (tokens == place % 2).cummin(1).values
        return (clean & (place % 4 == 3)).long()
    return _products(tokens)


def usual_answer_share(batch: TokenBatch) -> float:
    """Return the part of the asked positions that the most frequent answer gets right: what no memory is needed for."""
    asked = batch.targets[batch.asked]
    return float(asked.bincount().max() / len(asked))


def _words(name: str, rows: int, T: int, ends: Tensor, generator: torch.Generator) -> Tensor:
    if name != "abab":
        return torch.randint(SYMBOLS[name], (rows, T), generator=generator)
    words = (torch.arange(T) % 2).repeat(rows, 1)
    wrong = (torch.rand(rows, generator=generator, dtype=torch.float64) * ends).long()  # 0 .. length - 1
    broken = torch.rand(rows, generator=generator, dtype=torch.float64) < BROKEN
    words[broken.nonzero().flatten(), wrong[broken]] ^= 1
    return words


def _products(tokens: Tensor) -> Tensor:
    """Return the number of x_t ... x_2 x_1 at each t; x_1 is applied first."""
    table = torch.tensor([[S3.index(tuple(x[y[i]] for i in range(3))) for y in S3] for x in S3], device=tokens.device)
    state, states = torch.zeros_like(tokens[:, 0]) if tokens.shape[1] else tokens, []
    for x in tokens.unbind(1):
        state = table[x, state]
        states.append(state)
    return torch.stack(states, 1) if states else tokens


def _symbols(name: str) -> int:
    if name not in SYMBOLS:
        raise ValueError(f"expected one of the languages {', '.join(SYMBOLS)}; got {name!r}")
    return SYMBOLS[name]
