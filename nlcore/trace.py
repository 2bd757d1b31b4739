"""Who moved when, and how far: a record of the parts of a system while it learns.

After each step t, for each watched part with the numbers w:

    moves_t = |w_t - w_{t-1}|        how far it moved at this step; greater than 0 in an update raster
    drift_t = |w_t - w_0|            how far it is from where it started; a staircase for a part that moves rarely

Measuring reads all numbers of a part, so a large part is not measured at each of its moves; see `UpdateTrace`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

Watched = Tensor | Sequence[Tensor] | nn.Module | Callable[[], Tensor | Sequence[Tensor]]
Entry = tuple[bool, float, float]
UNKNOWN = math.nan


class UpdateTrace:
    """Watch the parts of a system: when did each move, how far, and how far is it from where it started?

    Args     parts: name -> what to watch: a tensor, tensors, a module (its parameters), or a function that returns the
             tensors as they are now, for fast weights that are replaced. For optimizers see `parts_of`. Parts are
             read, never changed. every: after a move of a part was measured, its moves in the next `every` - 1 steps
             are only noted. None chooses by size: 1 below 2,000 numbers, 10 at 10,000, 100 from 100,000 on.
    Raises   ValueError if there is nothing to watch or `every` < 1; TypeError for what is no tensor of real numbers.
    Example  trace = UpdateTrace({"slow": [w0], "fast": [w1]}); after each step call trace.record().
    Note     What is measured is exact, the rest is NaN. A part that moves once in `every` steps or more rarely is
             measured at each move; one that comes to rest, within 2 `every` steps. A move that is only noted is a
             write that PyTorch counted, even if it changed nothing. Fused optimizers and writes through `.data` are
             not counted: after `every` steps without a write the numbers are compared, and if they have changed all
             the same, then from there on at every step.
    """

    def __init__(self, parts: Mapping[str, Watched], every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every is a number of steps >= 1, or None for a choice by size; got {every}")
        if not parts:
            raise ValueError("UpdateTrace needs at least one part, for example {'weights': model}")
        self.names = list(parts)
        self._parts = [_Part(name, watched, every) for name, watched in parts.items()]
        self._rows: list[list[Entry]] = []

    def record(self) -> None:
        """Note the state after one more step."""
        self._rows.append([part.look() for part in self._parts])

    @property
    def steps(self) -> Tensor:
        """The steps that were recorded: 1, 2, 3, ..., shape (steps,)."""
        return torch.arange(1, len(self._rows) + 1)

    @property
    def moved(self) -> Tensor:
        """Whether each part moved at each step, booleans of shape (steps, parts): the update raster."""
        return self._column(0) > 0

    @property
    def moves(self) -> Tensor:
        """Euclidean length of each part's move at each step, shape (steps, parts); 0: no move, NaN: not measured."""
        return self._column(1)

    @property
    def drift(self) -> Tensor:
        """Euclidean distance of each part from its start after each step, shape (steps, parts); NaN: not measured."""
        return self._column(2)

    moved_by = moves
    from_start = drift

    def updates(self) -> dict[str, int]:
        """Return how many steps moved each part."""
        return dict(zip(self.names, self.moved.sum(0).tolist(), strict=True))

    def staircase(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the steps after which the distance of one part from its start is known, and these distances.

        Args     name: of the part.
        Returns  steps, int64, and distances, float64, both of shape (known steps + 1,); the first is step 0, at 0.
        Raises   ValueError for a name that is not watched.
        """
        if name not in self.names:
            raise ValueError(f"no part {name!r} is watched, only {self.names}")
        drift = self.drift[:, self.names.index(name)]
        known = ~drift.isnan()
        return torch.cat([torch.tensor([0]), self.steps[known]]), torch.cat([drift.new_zeros(1), drift[known]])

    def _column(self, index: int) -> Tensor:
        numbers = [[entry[index] for entry in row] for row in self._rows]
        return torch.tensor(numbers, dtype=torch.float64).reshape(-1, len(self.names))


def parts_of(optimizer: torch.optim.Optimizer, *memories: str) -> dict[str, Watched]:
    """Return what an `UpdateTrace` can watch of an optimizer, ours or torch's: its weights and its memories.

    Args     optimizer: each of its groups is a part: "weights", or "weights 0", "weights 1", ... if there are several.
             memories: keys of its state, for example "s" of MultiscaleMomentum or "exp_avg" of `torch.optim.Adam`. A
             memory that the optimizer has not made yet counts as zeros.
    Returns  name -> what to watch.
    """
    groups = [list(group["params"]) for group in optimizer.param_groups]
    names = ["weights"] if len(groups) == 1 else [f"weights {index}" for index in range(len(groups))]
    parts: dict[str, Watched] = dict(zip(names, groups, strict=True))
    return parts | {key: _memory(optimizer, key) for key in memories}


def _memory(optimizer: torch.optim.Optimizer, key: str) -> Callable[[], list[Tensor]]:
    """Return a function that finds one memory of all weights in the state of the optimizer."""
    weights = [W for group in optimizer.param_groups for W in group["params"]]
    empty = [W.detach().new_zeros(1).expand(W.shape) for W in weights]

    def now() -> list[Tensor]:
        table = optimizer.state
        if len(table) >= len(weights):  # the usual case, and the fast one
            try:
                return [table[W][key] for W in weights]
            except KeyError:
                pass
        states = [table.get(W, {}) for W in weights]  # get: the state must not be made here
        if any(states) and not any(key in state for state in states):
            known = sorted({name for state in states for name in state})
            raise ValueError(f"{type(optimizer).__name__} keeps no memory {key!r}; its state has {known}")
        return [state.get(key, zeros) for state, zeros in zip(states, empty, strict=True)]

    return now


class _Part:
    """One watched part.

    `before` is its state when last copied, `fresh` says that it has not moved since; `age` counts the steps since a
    move was measured, `quiet` since anything was; `counted` says that PyTorch seems to count its writes.
    """

    def __init__(self, name: str, watched: Watched, every: int | None) -> None:
        self.name = name
        self.watched = list(watched.parameters()) if isinstance(watched, nn.Module) else watched
        tensors = self.now()
        _check_tensors(name, tensors)
        dtype = functools.reduce(torch.promote_types, [tensor.dtype for tensor in tensors], torch.float32)
        self.start = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors])
        self.before, self.spare = self.start.clone(), torch.empty_like(self.start)
        self.every = every or min(100, max(1, self.start.numel() // 1000))
        self.age, self.quiet, self.distance = self.every, self.every, 0.0
        self.fresh = self.counted = True
        self.seen: list[Tensor] = []
        self.mark: tuple[list[int], list[int]] = ([], [])
        self.written(tensors)

    def now(self) -> list[Tensor]:
        """Return the tensors of this part as they are now."""
        found = self.watched
        if callable(found) and not isinstance(found, Tensor):
            found = found()
        return [found] if isinstance(found, Tensor) else list(found)

    def written(self, tensors: list[Tensor]) -> bool:
        """Return whether PyTorch counted a write since the last call, or other tensors have taken their place."""
        places = self.mark[0]
        if len(tensors) != len(self.seen) or not all(map(operator.is_, tensors, self.seen)):
            places = [tensor.data_ptr() for tensor in tensors]
            # Without its graph, but alive, so that no new tensor can lie in the same place.
            self.seen = [tensor if tensor.grad_fn is None else tensor.detach() for tensor in tensors]
            self.countable = [tensor for tensor in self.seen if not tensor.is_inference()]
        before, self.mark = self.mark, (places, [tensor._version for tensor in self.countable])
        return self.mark != before

    def look(self) -> Entry:
        """Return whether the part moved in this step, how far, and how far it is from its start."""
        tensors = self.now()
        written = self.written(tensors)
        self.age, self.quiet = self.age + 1, self.quiet + 1
        due = (self.age if written else self.quiet) >= self.every  # then it is fresh
        if due or not self.counted:
            move = self.measure(tensors)
            self.counted &= written or move == 0
            entry = move != 0, move, self.distance
        elif written:
            self.fresh, self.distance = False, UNKNOWN
            entry = True, UNKNOWN, UNKNOWN
        else:
            entry = False, 0.0, self.distance
        if not self.fresh and self.age >= self.every - 1:  # so that the next move can be measured
            self.before, self.spare, self.fresh = self.copy(tensors), self.before, True
        return entry

    def measure(self, tensors: list[Tensor]) -> float:
        """Return how far the part is from `before`, take its state as the new `before`, and update the distance."""
        now, difference = self.copy(tensors), self.before.sub_(self.spare)
        move = float(torch.linalg.vector_norm(difference))
        due = self.age >= self.every
        if due and (move != 0 or math.isnan(self.distance)):
            self.distance = float(torch.linalg.vector_norm(torch.sub(now, self.start, out=difference)))
        elif move != 0:
            self.distance = UNKNOWN
        self.age = 0 if due and move != 0 else self.age
        self.before, self.spare, self.quiet, self.fresh = now, difference, 0, True
        return move

    def copy(self, tensors: list[Tensor]) -> Tensor:
        """Write all numbers of the part, one after the other, into `spare` and return it."""
        numbers, expected = sum(tensor.numel() for tensor in tensors), self.start.numel()
        if numbers != expected:
            raise ValueError(f"the part {self.name!r} had {expected} numbers at the start and has {numbers} now")
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors], out=self.spare)


def _check_tensors(name: str, tensors: list[Tensor]) -> None:
    if not tensors:
        raise ValueError(f"UpdateTrace needs at least one tensor for each part; {name!r} has none")
    wrong = [thing for thing in tensors if not isinstance(thing, Tensor) or thing.is_complex()]
    if wrong:
        given = f"{wrong[0].dtype}" if isinstance(wrong[0], Tensor) else type(wrong[0]).__name__
        raise TypeError(f"the part {name!r} must be made of tensors of real numbers, got {given}")
