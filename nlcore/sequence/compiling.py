"""torch.compile for functions that are called again and again: compiled once, whoever calls them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch


@cache
def compiled(function: Callable, backend: str | Callable | None, dynamic: bool | None = None) -> Callable:
    """Return the function compiled; all layers share it.

    Args     function: without side effects. backend: of torch.compile; "inductor" needs a C++ compiler on a CPU; None
             returns the function as it is. dynamic: False compiles anew for every size; None takes a size that changes
             as any size, from the second one on.
    """
    return function if backend is None else torch.compile(function, backend=backend, dynamic=dynamic)
