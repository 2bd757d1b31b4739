"""Replay: keep a few old examples in a memory of fixed size, and show them again.

The reservoir keeps, of all examples that ever passed by, a sample in which each is as likely as any other:

    the t-th example      is written while there is room (t <= m); later with probability m / t
    what it overwrites    a random place
    after t examples      each of them is still in the memory with probability min(1, m / t)

Source   Vitter 1985, Random sampling with a reservoir (Algorithm R); Chaudhry et al. 2019, On tiny episodic memories
         in continual learning (its use for replay).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlcore.optimizers.checks import check_count


class Reservoir:
    """A memory of fixed size that holds a uniform sample of all examples it has seen.

    An example is a row of one or more columns, such as an image and its label. The columns are stored as they come
    (dtype, device); the memory takes its room at the first `add`.

    Args     capacity: m, how many examples it holds, >= 1. seed: of what is kept and what is drawn.
    Raises   ValueError or TypeError for a capacity that is no whole number >= 1.
    Source   Vitter 1985.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.capacity = check_count("capacity", capacity)
        self.seen = 0
        self._columns: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def __repr__(self) -> str:
        return f"Reservoir: {len(self)} of {self.capacity} places taken, {self.seen} examples seen"

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """What is stored, one tensor a column, `len(self)` rows each."""
        return tuple(column[: len(self)] for column in self._columns)

    @torch.no_grad()
    def add(self, *columns: Tensor) -> None:
        """Let examples pass by, in the order of their rows.

        Args     columns: (n, ...), with the same n; for example x and y.
        Raises   ValueError if the numbers of rows differ, or the columns do not fit those stored.
        """
        n = self._check(columns)
        if not self._columns:
            self._columns = [column.new_empty(self.capacity, *column.shape[1:]) for column in columns]
        t = torch.arange(self.seen + 1, self.seen + n + 1, dtype=torch.float64)
        drawn = (torch.rand(n, generator=self._generator, dtype=torch.float64) * t).long()  # uniform in 0 to t - 1
        places = torch.where(t <= self.capacity, t.long() - 1, drawn)
        row_of = {
            place: row for row, place in enumerate(places.tolist()) if place < self.capacity
        }  # the last one stays
        to, rows = list(row_of.keys()), list(row_of.values())
        for stored, column in zip(self._columns, columns, strict=True):
            stored[to] = column[rows]
        self.seen += n

    def sample(self, n: int) -> tuple[Tensor, ...]:
        """Draw n stored examples, each as likely as any other; without repeats as far as there are enough.

        Args     n: how many, >= 1.
        Returns  one tensor a column, (n, ...).
        Raises   ValueError if nothing is stored yet, or n is no whole number >= 1.
        """
        check_count("n", n)
        if len(self) == 0:
            raise ValueError("the reservoir is empty: add examples before you draw some")
        rounds = -(-n // len(self))
        rows = torch.cat([torch.randperm(len(self), generator=self._generator) for _ in range(rounds)])[:n]
        return tuple(column[rows.to(column.device)] for column in self._columns)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on later: what is stored, how much was seen, the state of the draws."""
        columns = [column.clone() for column in self._columns]
        state = self._generator.get_state()
        return {"capacity": self.capacity, "seen": self.seen, "columns": columns, "generator": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises   ValueError if it was saved with another capacity.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(f"this reservoir holds {self.capacity} examples, the saved one {state['capacity']}")
        self.seen = state["seen"]
        self._columns = [column.clone() for column in state["columns"]]
        self._generator.set_state(state["generator"].cpu())

    def _check(self, columns: tuple[Tensor, ...]) -> int:
        shapes = [tuple(column.shape) for column in columns]
        if not shapes or any(len(shape) == 0 or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(f"expected columns with the same number of rows, such as x and y; got shapes {shapes}")
        stored = [tuple(column.shape[1:]) for column in self._columns]
        if stored and stored != [shape[1:] for shape in shapes]:
            raise ValueError(f"the reservoir stores rows of shapes {stored}, got {[shape[1:] for shape in shapes]}")
        return shapes[0][0]
