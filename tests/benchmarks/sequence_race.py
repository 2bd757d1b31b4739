"""How memories of tokens are raced: what a piece of work is, how it is timed, and how much it keeps for backward."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

MEGABYTE = 2**20


class Size(NamedTuple):
    """B streams of T tokens, H heads of width d: the layers have the width H d."""

    batch: int
    heads: int
    d: int
    tokens: int
    device: str = "cpu"

    @property
    def dim(self) -> int:
        return self.heads * self.d


class Work(NamedTuple):
    """One step: forward, the gradients of the answer for all leaves, and what else belongs to a step."""

    forward: Callable[[], Tensor]
    leaves: Sequence[Tensor]
    after: Callable[[], object] | None = None


class Times(NamedTuple):
    """Medians, in seconds: of all threads together, and by the clock on the wall."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Racer:
    """A memory that takes part. `ours` is raced at every length; the others as long as they are quick enough."""

    name: str
    build: Callable[[Size], Work]
    ours: bool = False
    note: str = ""


def op_inputs(size: Size, gates: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return q, k, v (B, H, T, d), keys of length one, and so many gates (B, H, T) between 0.5 and 1."""
    shape = (size.batch, size.heads, size.tokens)
    q, k, v = (torch.randn(*shape, size.d, device=size.device) for _ in range(3))
    k = torch.nn.functional.normalize(k, dim=-1)
    fades = [0.5 + 0.5 * torch.rand(shape, device=size.device) for _ in range(gates)]
    return [x.requires_grad_() for x in (q, k, v)], [x.requires_grad_() for x in fades]


def layer_work(module: torch.nn.Module, size: Size, answer: Callable[..., Tensor]) -> Work:
    """Return a step of a layer on random tokens (B, T, dim); `answer` calls it and picks the output."""
    module = module.to(size.device)
    x = torch.randn(size.batch, size.tokens, size.dim, device=size.device, requires_grad=True)
    return Work(lambda: answer(module, x), [x, *(p for p in module.parameters() if p.requires_grad)])


def step(work: Work) -> None:
    """Go forward and backward once. Without leaves nothing is trained, and forward is all."""
    y = work.forward()
    if work.leaves:
        torch.autograd.grad(y, list(work.leaves), torch.ones_like(y), allow_unused=True)
    if work.after is not None:
        work.after()


def timed(work: Work, device: str) -> Times:
    """Return the seconds of one step. On a GPU both are those on the wall: the processor only waits there."""
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step(work)
    wait(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Times(wall if device.startswith("cuda") else cpu, wall)


def keep_memory() -> None:
    """Let the process keep memory between steps, else the system clears it anew each time; only on Linux with glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no big piece is mapped for itself
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing is given back
    except (OSError, AttributeError):
        return


def wait(device: str) -> None:
    """Wait until a GPU has done what it was asked."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def race(works: dict[str, Work], rounds: int, seconds: float, device: str) -> dict[str, Times]:
    """Return the medians of each; all take turns in every round.

    Who has had two turns (in a race of one round: one) and has used up `seconds` sits the other rounds out.
    """
    turns: dict[str, list[Times]] = {name: [] for name in works}
    for name, work in works.items():
        warm = timed(work, device)
        if warm.cpu > seconds:
            turns[name].append(warm)  # what takes seconds is warm soon
    for _ in range(rounds):
        for name, work in works.items():
            had = turns[name]
            if len(had) < 2 or sum(times.cpu for times in had) < seconds:
                had.append(timed(work, device))
    return {
        name: Times(*(statistics.median(column) for column in zip(*had, strict=True))) for name, had in turns.items()
    }


def saved_megabytes(work: Work) -> float | None:
    """Return what forward keeps for backward, leaves not counted; None if torch.func inside refuses to be looked at."""
    known = {leaf.untyped_storage().data_ptr() for leaf in work.leaves}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            y = work.forward()
    except RuntimeError as error:
        if "saved tensor hooks" in str(error):
            return None
        raise
    del y
    return sum(kept.values()) / MEGABYTE


def peak_megabytes(build: Callable[[Size], Work], size: Size) -> float | None:
    """Return by how much one step raises the memory in use at its peak, of the GPU or of the process.

    Of the process only on Linux, which can be asked for a new peak; elsewhere None.
    """
    work = build(size)
    step(work)  # what libraries set aside the first time
    gc.collect()
    if size.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(work)
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what earlier racers left
        Path("/proc/self/clear_refs").write_text("5")  # a new peak
        before = _status("VmRSS")
        step(work)
        return _status("VmHWM") - before
    except (OSError, AttributeError):
        return None


def _status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024
