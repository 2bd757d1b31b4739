"""Levels of a HOPE model by name: hold them, or let them return to their start.

A name is one that `model.levels()` has, "block 1: cms 2"; without the block it means that level of every block. "cms"
and "titans" mean all levels of that part, "all" all that the stream writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nlcore.hope.block import ContinuumBlock, HopeBlockState
from nlcore.sequence.layers.frame import MixerState
from nlcore.sequence.model import Block, ModelState, TokenModel
from nlcore.sequence.self_modifying import SelfModifyingTitans
from nlcore.sequence.self_modifying.state import SelfModifyingState


def held_in_block(model: TokenModel, names: str | Iterable[str]) -> list[set[str]]:
    """Return for each block which of its levels are meant.

    Args     model: a HOPE model. names: one or more, see above.
    Raises   ValueError for a name that is none of its levels; TypeError for no names at all.
    """
    if not isinstance(names, Iterable):
        raise TypeError(f'expected names of levels, such as ("cms 1", "memory"), or () for none; got {names!r}')
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        return [set() for _ in model.blocks]
    found, used = [], set()
    for index, block in enumerate(model.blocks, 1):
        here = set()
        for level, part in _writable(block).items():
            words = {"all", part, level, f"block {index}", f"block {index}: {part}", f"block {index}: {level}"}
            if words & set(names):
                here.add(level)
                used |= words & set(names)
        found.append(here)
    unknown = [name for name in names if name not in used]
    if unknown:
        known = sorted({level for block in model.blocks for level in _writable(block)})
        raise ValueError(
            f"{', '.join(map(repr, unknown))} is no level that a stream writes here; there are {', '.join(known)}, "
            'each also with its block before it ("block 1: ..."), and "cms", "titans", "all"'
        )
    return found


def reset(model: TokenModel, state: ModelState, names: str | Iterable[str] = "all") -> ModelState:
    """Return the state with some levels as they were before the stream began; the others keep what they learned.

    For a new stream altogether pass None in place of a state.

    Args     model: a HOPE model. state: of this model. names: see above.
    Raises   ValueError for a name that is none of its levels, ValueError or TypeError for the state of another model.
    """
    wanted = held_in_block(model, names)
    blocks = zip(model.blocks, model.checked(state).blocks, wanted, strict=True)
    return state._replace(blocks=tuple(_reset_block(block, now, levels) for block, now, levels in blocks))


def _writable(block: Any) -> dict[str, str]:
    """Return the levels of a block that can be held, and which part of it each belongs to."""
    found = {}
    if isinstance(block, Block) and isinstance(block.mixer, SelfModifyingTitans):
        boxes = set(block.mixer.rules.written)
        found = {level.name: "titans" for level in block.mixer.levels() if set(level.name.split()) <= boxes}
    if isinstance(block, ContinuumBlock) and block.cms.learns != "never":
        found |= dict.fromkeys(block.cms.names, "cms")
    return found


def _reset_block(block: Any, state: Any, levels: set[str]) -> Any:
    if not levels:
        return state
    if not isinstance(block, ContinuumBlock):
        return _reset_titans(block.mixer, state, levels)
    cms = block.checked(state).cms
    if cms is not None:
        block.cms.checked(cms)
        pairs = zip(block.cms.names, cms.levels, strict=True)
        fresh = (now._replace(learned=None, heard=None) if name in levels else now for name, now in pairs)
        cms = cms._replace(levels=tuple(fresh))
    return HopeBlockState(_reset_titans(block.mixer, state.mixer, levels), cms)


def _reset_titans(mixer: Any, state: MixerState | None, levels: set[str]) -> MixerState | None:
    """Put the boxes of some levels back to their start."""
    if state is None or not isinstance(mixer, SelfModifyingTitans):
        return state
    if not isinstance(state, MixerState) or not isinstance(state.memory, SelfModifyingState):
        raise TypeError(f"the state is of another model: expected one of self-modifying Titans, got {state!r:.60}")
    S, anchor, Z, tokens = state.memory
    S, anchor, Z = S.clone(), anchor.clone(), None if Z is None else Z.clone()
    start = mixer.start.to(S.dtype)
    for name, rows in mixer.rules.rows(mixer.width).items():
        if any(name in level.split() for level in levels):
            S[..., rows, :] = anchor[..., rows, :] = start[..., rows, :]
            if Z is not None:
                Z[..., rows, :] = 0.0
    return state._replace(memory=type(state.memory)(S, anchor, Z, tokens))
