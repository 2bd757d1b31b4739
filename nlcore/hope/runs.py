"""A training run that can stop at any moment and goes on to the very same weights.

A run is more than its model: the optimizer's memories, the generator that draws the batches, torch's own random
numbers, the step and the place on the schedule of the learning rate all belong to it, and all are in its file. So a
run that was stopped and loaded again ends, on one machine, bit for bit where it would have ended. The recipe is that
of `nlcore.sequence.fitting`.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from nlcore.files import write_atomic
from nlcore.hope.interrupts import HeldInterrupt
from nlcore.sequence.fitting import BETAS, CLIP, WEIGHT_DECAY, Draw, rate_at, take_step, weight_groups
from nlcore.training import PROGRESS_VARIABLE

FORMAT, VERSION = "nlcore run", 1


class TokenRun:
    """A model in training, with everything that the next step depends on.

    Args     model: as in `nlcore.sequence.fitting.ReadsTokens`, on its device. draw: generator -> a batch of tokens.
             lr: the highest learning rate. seed: of everything drawn while training. weight_decay, clip: as in
             `fit_tokens`. path: the file of the run, from which it goes on if it is there; None keeps the run in
             memory only. fresh: begin anew, and replace the file once training begins. seconds_between_saves: while
             training; 0 saves after every step.
    Raises   ValueError for a rate that is not positive, or if the file is of another model or another recipe.

    `step` is how many steps were taken, `losses` their losses in nats; `extra` is a dictionary of plain values and
    tensors that is saved along.
    """

    def __init__(
        self,
        model: nn.Module,
        draw: Draw,
        *,
        lr: float,
        seed: int = 0,
        weight_decay: float = WEIGHT_DECAY,
        clip: float = CLIP,
        path: str | Path | None = None,
        fresh: bool = False,
        seconds_between_saves: float = 20.0,
    ) -> None:
        if not (lr > 0 and math.isfinite(lr)):
            raise ValueError(f"expected a learning rate above 0, a finite number; got {lr}; try 0.005")
        self.model, self.draw, self.lr, self.clip = model, draw, lr, clip
        self.recipe = {"lr": lr, "seed": seed, "weight_decay": weight_decay, "clip": clip}
        self.device = next(model.parameters()).device
        self.optimizer = torch.optim.AdamW(weight_groups(model, lr), lr=lr, betas=BETAS, weight_decay=weight_decay)
        self.generator = torch.Generator().manual_seed(seed)
        self.path = None if path is None else Path(path)
        self.seconds_between_saves = seconds_between_saves
        self.step = self.begin = self.end = 0
        self.losses: list[float] = []
        self.extra: dict[str, Any] = {}
        self._whole, self._stored = True, False  # not whole inside a step; stored once the file is of this run
        places = {self.device, torch.device("cpu")}
        self._random = {p.type: torch.Generator(p).manual_seed(seed).get_state() for p in places}
        if self.path is not None and self.path.exists() and not fresh:
            self.restore(read_run(self.path))
            self._stored = True

    def train(self, steps: int, on_step: Callable[[int], None] | None = None) -> list[float]:
        """Train until the run has taken `steps` steps in all; a progress bar counts them.

        A run that stopped on its way goes on; one that is there already does nothing. A larger number later begins a
        new rise and fall of the learning rate from where the run is. An interrupt lets the present step end, saves and
        raises KeyboardInterrupt with a word on how to go on; a second one breaks off and returns to the last save.

        Args     steps: in all. on_step: called with the number of steps taken, after each.
        Returns  the losses of all steps so far, in nats.
        Raises   ValueError if more steps were taken already; FloatingPointError if the loss is no longer finite.
        """
        self._plan(steps)
        if self.path is not None and not self._stored:
            self.save()  # there is always something to return to
        try:
            with HeldInterrupt() as interrupt, self._own_random_numbers():
                self._steps(interrupt, on_step)
        except BaseException as error:
            self._keep_what_is_whole()
            if isinstance(error, KeyboardInterrupt) and self._whole:
                raise KeyboardInterrupt(self._how_to_go_on()) from None
            raise
        if interrupt.asked:
            raise KeyboardInterrupt(self._how_to_go_on())
        return self.losses

    def save(self, path: str | Path | None = None) -> Path:
        """Write the run to its file, or to another one; an old file stays until the new one is whole.

        Raises   ValueError if the run has no file and none is given; OSError if it cannot be written;
                 RuntimeError in the middle of a step.
        """
        path = self.path if path is None else path
        if path is None:
            raise ValueError("this run has no file: expected a path, for example save('my_run.pt')")
        if not self._whole:
            raise RuntimeError("the run is in the middle of a step; load its last save instead")
        written = io.BytesIO()
        torch.save({"format": FORMAT, "version": VERSION} | self.as_plain(), written)
        try:
            write_atomic(path, written.getvalue())
        except OSError as error:
            raise OSError(
                f"the run cannot be saved to {path} ({error}); try another file, in a folder of yours"
            ) from None
        self._stored |= path == self.path
        return Path(path)

    def as_plain(self) -> dict[str, Any]:
        """Return all that the next step depends on, as plain values and tensors."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": {"batches": self.generator.get_state()} | self._random,
            "recipe": self.recipe,
            "step": self.step,
            "begin": self.begin,
            "end": self.end,
            "losses": self.losses,
            "extra": self.extra,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Become the run that `as_plain` or `read_run` returned.

        Raises   ValueError if the weights are those of another model, or the recipe is another one.
        """
        check_same("recipe", saved["recipe"], self.recipe)
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"the saved run is of another model: {str(error)[:300]}") from None
        random = {name: state.cpu() for name, state in saved["random"].items()}
        self.generator.set_state(random.pop("batches"))
        self._random |= {name: state for name, state in random.items() if name in self._random}
        self.step, self.begin, self.end = saved["step"], saved["begin"], saved["end"]
        self.losses, self.extra = list(saved["losses"]), dict(saved["extra"])
        self._whole = True

    def _plan(self, steps: int) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps is the number of steps in all, a whole number of at least 1; got {steps!r}")
        if steps < self.step:
            raise ValueError(f"the run has already taken {self.step} steps; expected that many or more, got {steps}")
        if not self._whole:
            raise RuntimeError("a step was broken off, and the run has no file to return to: begin it again")
        if steps != self.end:
            self.begin, self.end = self.step, steps

    def _steps(self, interrupt: HeldInterrupt, on_step: Callable[[int], None] | None) -> None:
        self.model.train()
        quiet, saved_at = os.environ.get(PROGRESS_VARIABLE) == "0", time.monotonic()
        with tqdm(total=self.end, initial=self.step, disable=quiet, leave=False, desc="training") as bar:
            while self.step < self.end and not interrupt.asked:
                self._take_step()
                bar.set_postfix_str(f"loss {self.losses[-1]:.2f} nats", refresh=False)
                bar.update()
                if on_step is not None:
                    on_step(self.step)
                if self.path is not None and time.monotonic() - saved_at >= self.seconds_between_saves:
                    self.save()
                    saved_at = time.monotonic()
        if self.path is not None:
            self.save()

    def _take_step(self) -> None:
        self._whole = False
        rate = self.lr * rate_at(self.step - self.begin, self.end - self.begin)
        batch = self.draw(self.generator).to(self.device)
        self.losses.append(take_step(self.model, self.optimizer, batch, rate, self.step, self.clip))
        self._random["cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            self._random["cuda"] = torch.cuda.get_rng_state(self.device)
        self.step += 1
        self._whole = True

    def _keep_what_is_whole(self) -> None:
        """Save; if a step was broken off, go back to the last save instead."""
        if self.path is not None and self._whole:
            self.save()
        elif self.path is not None:
            self.restore(read_run(self.path))

    def _how_to_go_on(self) -> str:
        where = "nothing is lost" if self.path is None else f"it is saved in {self.path}"
        return f"training stopped after step {self.step} of {self.end}; {where}. To go on, call train({self.end}) again"

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Give the run torch's global random numbers as it left them, and the caller its own back."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.set_rng_state(self._random["cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(self._random["cuda"], self.device)
            yield


def read_run(path: str | Path) -> dict[str, Any]:
    """Return what a file holds, on the CPU; nothing in it is executed.

    Raises   FileNotFoundError if there is none; ValueError if it is damaged, or not the file of a run.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no saved run {path}")
    data = io.BytesIO(Path(path).read_bytes())
    try:
        saved = torch.load(data, map_location="cpu", weights_only=True)
    except Exception:  # torch has many words for it, and some advise against safe loading
        raise ValueError(f"expected the file of a saved run, got {path}, which is damaged or of another kind") from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ValueError(f"expected the file of a saved run, got {path}, which holds something else")
    if saved["version"] != VERSION:
        raise ValueError(f"{path} was saved by another version of nlcore: expected {VERSION}, got {saved['version']}")
    return saved


def check_same(what: str, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError, which names every difference, unless a saved run has the settings that are wanted now."""
    different = [name for name in wanted if name in saved and saved[name] != wanted[name]]
    if different:
        pairs = "; ".join(f"{name} is {saved[name]!r} there, {wanted[name]!r} here" for name in different)
        raise ValueError(
            f"the saved run has another {what}: {pairs}; give the saved values, or fresh=True to begin anew"
        )
