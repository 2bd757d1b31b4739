"""All probes on all memories; and each probe on memories broken on purpose, which it must catch."""

from __future__ import annotations

import inspect
import os

import pytest
import torch
from torch import Tensor

from nlcore import sequence
from tests.broken_memories import WIDTH, D, Toy
from tests.probe_subjects import SUBJECTS, Packed
from tests.probes import PROBES, Subject

BY_NAME = {subject.name: subject for subject in SUBJECTS}
# Tracing takes seconds a memory: one of each kind; all of them with NLCORE_ALL_PROBES=1.
COMPILED = set(BY_NAME) if os.environ.get("NLCORE_ALL_PROBES") else {
    "oja_rule",
    "titans_memory",
    "titans_memory, gradients of 4",
    "softmax_attention",
    "deep_titans_memory, gradients of 4",
    "retnet layer",
    "titans layer",
    "gru layer",
    "SelfModifyingTitans, chunks of 8 and 2, slow",
    "SelfModifyingTitans, networks",
    "model of four layers",
    "HopeLM",
    "ContinuumMemory, sequential",
}  # fmt: skip
CASES = [(probe, name) for probe in PROBES for name in BY_NAME if probe != "compiled" or name in COMPILED]


@pytest.mark.parametrize(("probe", "name"), CASES, ids=[f"{probe}-{name}" for probe, name in CASES])
def test_probe(probe: str, name: str) -> None:
    subject = BY_NAME[name]
    if probe in subject.limits:  # what is known not to work fails, and says why
        with pytest.raises(Exception, match=subject.limits[probe]):
            PROBES[probe](subject)
        return
    PROBES[probe](subject)


# Each probe is able to fail


def toy_pair(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return n + 1 equal tokens of the toy, and the value it makes of one that has the same before it."""
    torch.manual_seed(6)
    token = torch.randn(1, 1, WIDTH, dtype=dtype)
    token[..., :D] = token[..., D : 2 * D]
    return token.expand(1, n + 1, -1), token[:, 0, 2 * D :]


class Even(Toy):
    """The toy with weights of one that look at one token only, so that its value is what the token says."""

    def __init__(self, dtype: torch.dtype, fault: str = "") -> None:
        super().__init__(dtype, fault)
        self.mix.data = torch.tensor([[1.0], [0.0]], dtype=dtype).expand(2, WIDTH).clone()


def toy(fault: str = "", kind: type[Toy] = Toy) -> Subject:
    return Subject(
        f"toy that {fault}",
        lambda dtype: kind(dtype, fault),
        WIDTH,
        watch=lambda state: {"memory": state[0], "slow": state[2]},
        periods={"memory": 1, "slow": 4},
        pair=toy_pair if kind is Even else None,
        recall={4: 0.05, 16: 0.05, 64: 0.05} if kind is Even else {},
    )


FAULTS = [
    ("causality", "centres the convolution", "outputs before"),
    ("causality", "normalises by the whole stream", "outputs before"),
    ("isolation", "shares one memory in the batch", "another item of the batch"),
    ("padding", "writes padding", "depends on what stands in the padding"),
    ("gradients", "leaves out a parameter", "spare gets no gradient"),
    ("gradients", "cuts the history", "gradient"),
    ("streams", "forgets the last token of a call", "cut aligned is answered otherwise"),
    ("recall", "adds without looking", "written 4 times"),
    ("recall", "steps too far", "written 4 times"),
    ("periods", "is too fast", "slow moved"),
    ("extremes", "divides by zero", "zero input"),
    ("huge", "overflows", "huge input"),
    ("dtypes", "answers in float32", "the outputs of torch.bfloat16"),
    ("functional", "hides in a function of the old kind", "setup_context"),
    ("vectorised", "asks python for a number", "vmap"),
    ("compiled", "asks python for a number", "item"),
]


@pytest.mark.parametrize(("probe", "fault", "words"), FAULTS)
def test_a_probe_catches_what_it_is_there_for(probe: str, fault: str, words: str) -> None:
    with pytest.raises(Exception, match=words):
        PROBES[probe](toy(fault, Even if probe == "recall" else Toy))


def test_every_probe_has_been_seen_to_fail() -> None:
    assert {probe for probe, _, _ in FAULTS} == set(PROBES)


@pytest.mark.parametrize("probe", PROBES)
def test_the_toy_without_a_fault_passes(probe: str) -> None:
    PROBES[probe](toy(kind=Even if probe == "recall" else Toy))


RUN_BY_A_LAYER = {"self_modifying_memory", "self_modifying_networks"}  # in the subjects called SelfModifyingTitans
NO_MEMORY = {"as_plain"}  # takes a state, but to save it


def test_every_public_memory_is_probed() -> None:
    """Whatever `nlcore.sequence` exports that reads a stream, is part of a subject."""
    parts = [part for subject in SUBJECTS for part in subject.module().modules()]
    probed = {type(part) for part in parts} | {part.function for part in parts if isinstance(part, Packed)}
    exported = [getattr(sequence, name) for name in sequence.__all__]
    readers = [item for item in exported if inspect.isfunction(item) and "state" in inspect.signature(item).parameters]
    readers += [item for item in exported if inspect.isclass(item) and hasattr(item, "forward")]
    assert readers and not [
        item for item in readers if item not in probed and item.__name__ not in RUN_BY_A_LAYER | NO_MEMORY
    ], "add a line to tests/probe_subjects.py"
