r"""Memories of tokens that are one matrix: linear attention, the delta rule, Oja's rule.

    function            inner objective                            write                                       paper
    linear_attention    -<M k, v>                                  M = alpha M + eta v k^T                     Eq. 64
    delta_rule          1/2 |M k - v|^2                            M = alpha M + eta (v - M k) k^T             Eq. 65
    oja_rule            -<M k, v> + 1/2 |M^T v|^2                  M = alpha M + eta v (k - M^T v)^T           Eq. 66-67

Each writes a token, then answers it: y_t = M_t q_t. `chunk_size=None` is the plain loop (`loops`), which calls the
rules of `nlcore.memory`, the same functions that make momentum; a whole number is the chunk-parallel form (`chunks`),
equal to it but for rounding, and many times faster.

Symbols   q query and k key, (B, H, T, d_k); v value, (B, H, T, d_v); eta = lr, alpha = retain, each a number or
          (B, H, T); B streams, H heads, T tokens.
Source    Behrouz et al. 2025, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from nlcore.memory import delta, hebbian, oja
from nlcore.sequence.checks import Gate
from nlcore.sequence.chunks import Chunks, chunk_form, in_chunks, oja_form
from nlcore.sequence.loops import write_loop
from nlcore.sequence.states import MemoryState
from nlcore.sequence.stream import Stream, begin

Form = Callable[[Chunks, Tensor], tuple[Tensor, Tensor]]


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Gate = 1.0,
    retain: Gate = 1.0,
    *,
    state: MemoryState | None = None,
    chunk_size: int | None = 64,
    lengths: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """Read a stream with the Hebbian memory: every pair is added, nothing is corrected.

    With one number below 1 for `retain` in each head it is RetNet, with a gate for each token gated linear attention.

    Args     q, k: (B, H, T, d_k). v: (B, H, T, d_v). lr: strength of a write, >= 0; retain: the part of the old memory
             that survives it, 0 to 1; each a number or (B, H, T), whose values are trusted. state: from the call
             before; None begins new streams with an empty memory. chunk_size: tokens at once; None is the plain loop.
             lengths: (B,), real tokens of each stream; what follows is padding, which writes nothing and is answered 0.
    Returns  y: (B, H, T, d_v), in the dtype of q. The state, in float32 for half precision.
    Raises   ValueError for shapes or numbers that do not fit; TypeError for other dtypes.
    Source   Eq. 64; RetNet: Sun et al. 2023.
    """
    stream = begin(q, k, v, {"lr": lr, "retain": retain}, state, chunk_size, lengths)
    return _matrix_memory(stream, hebbian, partial(chunk_form, "hebbian"), chunk_size)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Gate = 1.0,
    retain: Gate = 1.0,
    *,
    state: MemoryState | None = None,
    chunk_size: int | None = 32,
    lengths: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """Read a stream with the memory that corrects what it would answer now: DeltaNet; with `retain` the gated one.

    For keys of length one, lr below 1 pulls the old answer towards the new value, lr in (1, 2) pushes it past: the
    transition I - lr k k^T then has a negative eigenvalue. Above 2 / |k|^2 a repeated key diverges.

    Args, Returns, Raises   as for `linear_attention`.
    Source   Eq. 65. As in the paper the decay does not multiply the correction; in Gated DeltaNet it does.
    """
    stream = begin(q, k, v, {"lr": lr, "retain": retain}, state, chunk_size, lengths)
    return _matrix_memory(stream, delta, partial(chunk_form, "delta"), chunk_size)


def oja_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lr: Gate = 1.0,
    retain: Gate = 1.0,
    *,
    state: MemoryState | None = None,
    chunk_size: int | None = 32,
    lengths: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """Read a stream with Oja's rule: a value that is there already takes the place of its old key.

    It is the delta rule on the transposed memory, keys and values exchanged. Above 2 / |v|^2 a repeated value diverges.

    Args, Returns, Raises   as for `linear_attention`.
    Source   Eq. 66-67, with the missing transpose of Eq. 66.
    """
    stream = begin(q, k, v, {"lr": lr, "retain": retain}, state, chunk_size, lengths)
    return _matrix_memory(stream, oja, oja_form, chunk_size, transposed=True)


def _matrix_memory(
    stream: Stream, write: Callable[..., Tensor], form: Form, chunk_size: int | None, transposed: bool = False
) -> tuple[Tensor, MemoryState]:
    if chunk_size is None:
        return stream.finish(*write_loop(write, *stream.tokens, stream.gates, stream.state))
    M, tokens = stream.state.M, stream.state.tokens
    y, S = in_chunks(form, *stream.tokens, stream.gates, M if transposed else M.mT, chunk_size)
    return stream.finish(y, MemoryState(S if transposed else S.mT, tokens=tokens + y.shape[2]))
