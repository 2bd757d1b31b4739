r"""The chunk form under torch.compile: a few chunks are compiled, once, and serve the whole stream.

On a CPU most of the time goes into calling many small operations, which torch.compile fuses. All whole chunks are
alike, so that a group of them is compiled, and not the stream, which would be unrolled. Here each chunk is read when it
is written: what `chunks` gains by reading all of them together is gained by fusing.

Source    as for `chunks`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nlcore.sequence.compiling import compiled
from nlcore.sequence.saving import map_tensors
from nlcore.sequence.self_modifying.chunks import Flat, flattened, opened, origins_of, segment_sizes, write_segment
from nlcore.sequence.self_modifying.rules import Boxes, Rules
from nlcore.sequence.self_modifying.segments import read
from nlcore.sequence.self_modifying.state import SelfModifyingState

GROUP = 4  # chunks that are compiled together


def compiled_loop(
    x: Tensor,
    q: Tensor | None,
    boxes: Boxes,
    rules: Rules,
    state: SelfModifyingState,
    live: Tensor | None,
    backend: str | Callable,
) -> tuple[Tensor, SelfModifyingState]:
    """Do what `chunk_loop` does.

    Args     as there. backend: of torch.compile, for whole chunks; what is no whole chunk is read as it is.
    """
    flat, shape, tokens, chunks = flattened(x, q, boxes, rules, state, live), x.shape[:2], state.tokens, rules.chunks
    groups = grouped(segment_sizes(tokens, x.shape[2], chunks), chunks)
    now, answers = flat.state, []
    for sizes, (_, x_n, q_n, live_n) in zip(groups, flat.cut([sum(sizes) for sizes in groups]), strict=True):
        whole = sizes[0] == min(chunks)
        clock = (min(chunks) if any(tokens % size for size in chunks) else 0) if whole else tokens
        take = compiled(read_chunks, backend, False) if whole else read_chunks
        y, now = take(x_n, q_n, flat.boxes, rules, now._replace(tokens=clock), live_n, sizes)
        tokens += sum(sizes)
        answers.append(y)
    y = torch.cat(answers, 1).unflatten(0, shape)
    return y, map_tensors(now, lambda part: part.unflatten(0, shape))._replace(tokens=tokens)


def grouped(sizes: list[int], chunks: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the sizes of segments in the groups in which they are read.

    Args     sizes: of all segments. chunks: whole ones are put together if both sizes are the same.
    """
    together = GROUP if chunks[0] == chunks[1] else 1
    groups, at = [], 0
    while at < len(sizes):
        n = together if sizes[at : at + together] == [chunks[0]] * together else 1
        groups.append(tuple(sizes[at : at + n]))
        at += n
    return groups


def read_chunks(
    x: Tensor,
    q: Tensor | None,
    boxes: Boxes,
    rules: Rules,
    state: SelfModifyingState,
    live: Tensor | None,
    sizes: tuple[int, ...],
) -> tuple[Tensor, SelfModifyingState]:
    """Open, write and read some segments, (G, n, d), of these sizes; arguments as for `write_segment`."""
    origins, answers = origins_of(boxes, rules), []
    for size, x_n, q_n, live_n in Flat((x, q, live), boxes, origins, state).cut(list(sizes)):
        state = opened(state, boxes, rules, live_n)
        reading, state = write_segment(x_n, q_n, boxes, origins, rules, state, live_n)
        state = state._replace(tokens=state.tokens + size)
        answers.append(read(*reading))
    return torch.cat(answers, 1), state
