"""What the state of every stream can do: stop its gradients, move to another device, be saved and come back.

A state is a `NamedTuple` of tensors, whole numbers and other states, so torch's own tools see into it. These functions
work on all of them; the states have `detach` and `to` as methods.

A file holds only tensors, numbers, words, lists and dictionaries, so that a safe `torch.load` reads it:
`torch.save(as_plain(state), path)`, and back with `from_plain(torch.load(path, weights_only=True))`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

S = TypeVar("S")
_KINDS: dict[str, type] = {}


def keeps_stream(kind: type[S]) -> type[S]:
    """Make a class of states known to `from_plain`; a decorator for a `NamedTuple`."""
    _KINDS[kind.__name__] = kind
    return kind


def map_tensors(state: S, change: Callable[[Tensor], Tensor]) -> S:
    """Return the same state with every tensor in it changed.

    Args     state: a tensor, a state, or tuples and lists of them; anything else is kept. change: tensor -> tensor.
    """
    if isinstance(state, Tensor):
        return change(state)  # type: ignore[return-value]
    if not isinstance(state, tuple | list):
        return state
    parts = [map_tensors(part, change) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)


def detach(state: S) -> S:
    """Return the same state without its history: gradients stop here (truncated backpropagation)."""
    return map_tensors(state, Tensor.detach)


def move(state: S, *args: Any, **settings: Any) -> S:
    """Return the state on another device or in another dtype; arguments as for `torch.Tensor.to`.

    Counts stay whole numbers.
    """

    def moved(tensor: Tensor) -> Tensor:
        there = tensor.to(*args, **settings)
        return there if tensor.is_floating_point() else tensor.to(there.device)

    return map_tensors(state, moved)


def as_plain(state: Any) -> Any:
    """Return nested dictionaries and lists of tensors and numbers, which `torch.save` and a safe `torch.load` accept.

    Args     state: what a function, layer or model of `nlcore.sequence` returned as its state.
    """
    if hasattr(state, "_fields"):
        return {"kind": type(state).__name__} | {name: as_plain(getattr(state, name)) for name in state._fields}
    if isinstance(state, tuple | list):
        return [as_plain(part) for part in state]
    return state.detach().clone() if isinstance(state, Tensor) else state


def from_plain(saved: Any) -> Any:
    """Return the state that `as_plain` wrote.

    Raises   ValueError if it holds a kind of state that is not known here, or lacks a part.
    """
    if isinstance(saved, list):
        return tuple(from_plain(part) for part in saved)
    if not isinstance(saved, dict):
        return saved
    kind: Any = _KINDS.get(saved.get("kind", ""))
    if kind is None:
        raise ValueError(f"expected a saved state, one of {', '.join(sorted(_KINDS))}; got {saved.get('kind')!r}")
    parts = {name: from_plain(part) for name, part in saved.items() if name != "kind"}
    if set(parts) != set(kind._fields):
        raise ValueError(f"a saved {kind.__name__} has {', '.join(kind._fields)}; got {', '.join(parts)}")
    return kind(**parts)
