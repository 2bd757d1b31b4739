"""Needles in a haystack, in miniature: a few pairs hidden in filler, asked at the very end.

    f f K3 p f f f f K1 p f K7 p f ... f K2 p f   K7 K2 K3 K1          asked at the last four

A needle is a marker K_i and a symbol p after it. Markers, needle symbols and filler are three alphabets, so the filler
is easy to tell apart; what is hard is to keep the needles while 2000 tokens pass by. Chance: 1/16 for a guess among the
needle symbols; 0.30 for who knows the four that occur, and not whose they are (1/4, and some are equal).

Symbols   B sequences of T tokens. Filler 0 to 15, markers 16 to 23, needle symbols 24 to 39.
Source    after Mohtashami and Jaggi 2023 (passkey) and RULER, Hsieh et al. 2024 (several needles; Nested
          Learning, Table 1); this miniature is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nlcore.tasks.tokens import NOT_ASKED, TokenBatch, check_rows, one_of, shuffles, whole_rows

LENGTHS = (32, 64, 128)
FILLERS, MARKERS, VALUES = 16, 8, 16
NEEDLES = 4
SYMBOLS = FILLERS + MARKERS + VALUES


def passkey(
    batch_size: int,
    generator: torch.Generator,
    *,
    lengths: Sequence[int] = LENGTHS,
    needles: int = NEEDLES,
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Return sequences with hidden needles, asked in another order at the end.

    Args     batch_size: B. generator: draws everything, on the CPU. lengths: the T to choose from, one for the
             whole batch; the questions are included.
             needles: how many, 1 to 8; no marker occurs in two. device: of the batch.
    Returns  tokens (B, T), asked at the last `needles` positions.
    Raises   ValueError if there are more needles than markers, or a T is too short to hold them and the questions.
    """
    check_rows(batch_size, generator)
    if not 1 <= needles <= MARKERS or not lengths or min(lengths) < 3 * needles:
        raise ValueError(
            f"expected 1 to {MARKERS} needles and lengths of at least 3 tokens a needle, "
            f"got {needles} and {tuple(lengths)}"
        )
    body = one_of(lengths, generator) - needles
    tokens = torch.randint(FILLERS, (batch_size, body + needles), generator=generator)
    markers = FILLERS + shuffles(batch_size, MARKERS, generator)[:, :needles]
    values = FILLERS + MARKERS + torch.randint(VALUES, (batch_size, needles), generator=generator)
    # a needle covers two places: draw distinct places among those left when each needle is one wide, then widen
    places = shuffles(batch_size, body - needles, generator)[:, :needles].sort(1).values + torch.arange(needles)
    tokens.scatter_(1, places, markers).scatter_(1, places + 1, values)
    order = shuffles(batch_size, needles, generator)
    tokens[:, body:] = markers.gather(1, order)
    targets = torch.full_like(tokens, NOT_ASKED)
    targets[:, body:] = values.gather(1, order)
    return whole_rows(tokens, targets, device)
