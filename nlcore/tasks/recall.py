"""Recall: pairs of a key and a value pass by once, then the keys are asked. With tokens, and with vectors.

**Tokens** (multi-query associative recall). A sequence is written, then asked:

    k_1 v_1  k_2 v_2  ...  k_N v_N   q_1 q_2 ... q_N        the q are the same keys, in another order

and the answer at q is the value of that key. With overwriting all N keys are written a second time, in another order
and each with another value; the last value counts. A memory that only adds then holds both values and cannot tell
which is new. There are 32 keys (symbols 0 to 31) and 32 values (symbols 32 to 63). Chance: 1/32 for a guess among the
values, 1/64 among all symbols; knowing both values of an overwritten key, and not which is new, gives 1/2.

**Vectors**, without any training: how many pairs does one matrix hold? Keys are random directions, or are written
twice, or resemble each other (a common mean is added). This separates what a write rule can do from what a model has
learned.

Symbols   B sequences; N pairs; S seeds; d numbers in a key and in a value.
Source    MQAR: Arora et al. 2023, Zoology; overwriting and the correlated keys are ours. The rules: Nested
          Learning, Eq. 64-65.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from nlcore.memory import Scale, delta
from nlcore.tasks.facts import Facts, Write, fast_weights, random_facts, recalled
from nlcore.tasks.tokens import NOT_ASKED, TokenBatch, check_rows, one_of, shuffles, whole_rows

PAIRS = (4, 8, 16, 32)
KEYS = VALUES = 32
KINDS = ("random", "overwritten", "correlated")
Store = Callable[[Tensor, Tensor], Tensor]


def recall(
    batch_size: int,
    generator: torch.Generator,
    *,
    pairs: Sequence[int] = PAIRS,
    overwrite: bool = False,
    keys: int = KEYS,
    values: int = VALUES,
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Return sequences that write N pairs and ask for all of them; N is one of `pairs`, the same for the whole batch.

    Args     batch_size: B. generator: draws everything, on the CPU. pairs: the N to choose from. overwrite: whether
             each key is written twice. keys, values: how many of each there are; values follow the keys in the
             numbering, so there are keys + values symbols. device: of the batch.
    Returns  tokens (B, 3 N), with overwriting (B, 5 N); asked at the last N.
    Raises   ValueError if an N is not between 1 and `keys`, or there are too few values.
    """
    check_rows(batch_size, generator)
    if not pairs or min(pairs) < 1 or max(pairs) > keys or values < 1 + overwrite:
        raise ValueError(
            f"expected 1 to keys={keys} pairs and at least {1 + overwrite} values, "
            f"got pairs {tuple(pairs)} and {values}"
        )
    N = one_of(pairs, generator)
    names = shuffles(batch_size, keys, generator)[:, :N]
    answers = torch.randint(values, (batch_size, N), generator=generator)
    rounds = [_written(names, keys + answers)]
    if overwrite:
        answers = (answers + torch.randint(1, values, (batch_size, N), generator=generator)) % values
        order = shuffles(batch_size, N, generator)
        rounds.append(_written(names.gather(1, order), keys + answers.gather(1, order)))
    order = shuffles(batch_size, N, generator)
    tokens = torch.cat([*rounds, names.gather(1, order)], dim=1)
    targets = torch.full_like(tokens, NOT_ASKED)
    targets[:, -N:] = keys + answers.gather(1, order)
    return whole_rows(tokens, targets, device)


def _written(names: Tensor, answers: Tensor) -> Tensor:
    return torch.stack([names, answers], dim=-1).flatten(1)  # (B, N) and (B, N) -> (B, 2 N), k v k v ...


class Capacity(NamedTuple):
    """What a memory gives back, (S,): `accuracy`, the nearest code is the right one; `cosine` with the right value."""

    accuracy: Tensor
    cosine: Tensor


def store_with(write: Write = delta, lr: Scale = 1.0, retain: Scale = 1.0) -> Store:
    """Return a store that writes the pairs one by one, with a rule of `nlcore.memory`, into an empty matrix.

    Args     write: hebbian, delta, dgd, oja. lr, retain: passed to it at every write.
    Returns  a function (keys (S, n, d), values (S, n, d)) -> M (S, d, d), as `capacity` wants it.
    """

    def store(keys: Tensor, values: Tensor) -> Tensor:
        empty = keys.new_zeros(*keys.shape[:-2], values.shape[-1], keys.shape[-1])
        return fast_weights(empty, keys, values, write, lr, retain)  # type: ignore[arg-type]

    return store


def pairs_to_store(
    kind: str,
    count: int,
    dim: int = 32,
    codes: int = 64,
    common: float = 1.0,
    seeds: Iterable[int] = range(5),
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Facts]:
    """Return the pairs in the order in which they are written, and the facts that are asked at the end.

    Args     kind: "random", unit keys; "overwritten", each written first with another value; "correlated", unit keys
             around a common direction. count: N facts. dim: d. codes: how many different values there are.
             common: length of the common direction before the keys are made unit again, for "correlated".
             seeds: S worlds. dtype: of all.
    Returns  keys (S, n, d), values (S, n, d), n = N or 2 N; and the N facts.
    Raises   ValueError for another kind, for a single code with nothing to overwrite, or as in `random_facts`.
    """
    if kind not in KINDS:
        raise ValueError(f"expected one of {', '.join(KINDS)}; got {kind!r}")
    if kind == "overwritten" and codes < 2:
        raise ValueError(f"overwriting needs at least 2 codes, an older value and a newer one; got {codes}")
    numbers = list(seeds)
    facts = random_facts(count, dim, codes, numbers, dtype)
    if kind == "correlated":
        mean = random_facts(1, dim, 1, [one + 1_000_000 for one in numbers], dtype).keys
        keys = torch.nn.functional.normalize(facts.keys + common * mean, dim=-1)
        facts = Facts(keys, facts.labels, facts.codes)
    keys, values = facts.keys, facts.values
    if kind == "overwritten":
        older = (facts.labels + 1) % facts.codes.shape[1]
        keys, values = torch.cat([keys, keys], 1), torch.cat([_coded(facts, older), values], 1)
    return keys, values, facts


def _coded(facts: Facts, labels: Tensor) -> Tensor:
    return Facts(facts.keys, labels, facts.codes).values


def capacity(store: Store, kind: str, count: int, **settings: object) -> Capacity:
    """Store N pairs in one pass and ask for all of them.

    Args     store: (keys, values) -> M (S, d, d), for example `store_with(hebbian)`, or `facts.best_memory` for the
             best that any matrix can do. kind, count, settings: as in `pairs_to_store`.
    Returns  Capacity, a number a seed. Chance of `accuracy` is one in `codes`.
    Raises   ValueError as in `pairs_to_store`.
    """
    keys, values, facts = pairs_to_store(kind, count, **settings)  # type: ignore[arg-type]
    given = facts.keys @ store(keys, values).mT
    return Capacity(recalled(given, facts).double().mean(-1), cosine_similarity(given, facts.values, dim=-1).mean(-1))
