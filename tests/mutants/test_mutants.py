"""Small faults put into the library on purpose: each must make a named equation test or claim fail.

If a fault here goes unnoticed, the course could teach something wrong and still be green. Each mutant names the
equation tests, or the notebook whose claims, a learner would see fail.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure  # noqa: F401  (loaded once, for all forks)
import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `right` becomes `wrong`.

    `caught_by` is an equation, a notebook ("claims 03"), or a test ("test test_hope.py::test_x").
    """

    says: str
    file: str
    right: str
    wrong: str
    caught_by: str


MUTANTS = (
    Mutant(
        "a write in place has the wrong sign",
        "memory.py",
        ".add_(write, alpha=lr)",
        ".add_(write, alpha=-lr)",
        "NL 1",
    ),
    Mutant(
        "a write has the wrong sign",
        "memory.py",
        "after = _over(retain, M) * M + _over",
        "after = _over(retain, M) * M - _over",
        "NL 5",
    ),
    Mutant(
        "the delta rule does not look at what is stored",
        "memory.py",
        "_outer(v - read(M, k), k), lr",
        "_outer(v, k), lr",
        "01.4",
    ),
    Mutant(
        "a level takes the mean of its errors and not their sum",
        "timescales.py",
        "lrs[level] * summed[level]",
        "lrs[level] * summed[level] / period",
        "00.3",
    ),
    Mutant(
        "a part is called faster than what it needs",
        "levels.py",
        "rank = {part.name: _depth(",
        "rank = {part.name: -_depth(",
        "claims 00",
    ),
    Mutant(
        "the surprise forgets the right class",
        "surprise.py",
        "full_like(u[..., :1], -1.0)",
        "full_like(u[..., :1], 0.0)",
        "02.1",
    ),
    Mutant(
        "fast weights do not see what the slow ones answer",
        "tasks/facts.py",
        "v - read(slow, k) if share_error else v",
        "v",
        "01.5",
    ),
    Mutant(
        "momentum fades twice at each step",
        "optimizers/momentum.py",
        'retain=group["beta"]',
        'retain=group["beta"] ** 2',
        "03.4",
    ),
    Mutant(
        "momentum moves the weights by the gradient alone",
        "optimizers/momentum.py",
        "hebbian(W, None, m, lr=move, out=W)",
        "hebbian(W, None, g, lr=move, out=W)",
        "claims 03",
    ),
    Mutant(
        "two conventions of momentum are mixed up",
        "optimizers/momentum.py",
        "return (-lr, 1.0) if",
        "return (lr, 1.0) if",
        "NL 33",
    ),
    Mutant(
        "the horizon counts one gradient too few",
        "horizon.py",
        "math.log(beta) - ROUNDING)",
        "math.log(beta) - 1)",
        "03.7",
    ),
    Mutant(
        "Adam does not correct its bias",
        "optimizers/adam.py",
        "return 1 - beta1**step, 1 - beta2**step",
        "return 1.0, 1.0",
        "04.5",
    ),
    Mutant(
        "Adam takes epsilon inside the root",
        "optimizers/adam.py",
        "v_hat.sqrt_().add_(eps)",
        "v_hat.add_(eps).sqrt_()",
        "04.5",
    ),
    Mutant(
        "Adam remembers sizes and not squares",
        "optimizers/adam.py",
        "square = g * g",
        "square = g.abs()",
        "04.4",
    ),
    Mutant(
        "AdamW lets the weights decay twice",
        "optimizers/adam.py",
        'return g, 1.0 - group["lr"] * group["weight_decay"]',
        'return g, (1.0 - group["lr"] * group["weight_decay"]) ** 2',
        "04.9",
    ),
    Mutant(
        "delta momentum writes what it should erase",
        "optimizers/delta_momentum.py",
        "written.reshape(rows.shape) - correction",
        "written.reshape(rows.shape) + correction",
        "NL 49",
    ),
    Mutant(
        "Newton-Schulz starts from singular values of any size",
        "optimizers/orthogonal.py",
        'X.norm(dim=(-2, -1), keepdim=True).clamp(min=check_not_negative("eps", eps))',
        'X.norm(dim=(-2, -1), keepdim=True).clamp(min=check_not_negative("eps", eps)) * 0 + 1',
        "05.3",
    ),
    Mutant(
        "Muon moves by the memory as it is",
        "optimizers/muon.py",
        "hebbian(W, None, even,",
        "hebbian(W, None, m,",
        "NL 42",
    ),
    Mutant(
        "the slow memory takes the sum of a chunk and not its mean",
        "optimizers/multiscale.py",
        "((1 - beta) / period, beta)",
        "(1 - beta, beta)",
        "05.4",
    ),
    Mutant(
        "the chunk is never emptied",
        "optimizers/multiscale.py",
        'state["chunk"].zero_()',
        "pass",
        "05.6",
    ),
    Mutant(
        "M3 forgets its slow memory",
        "optimizers/m3.py",
        '.add_(state["O2"], alpha=alpha)',
        ".clone()",
        "NL 75",
    ),
    Mutant(
        "deep momentum reads its memory and does not write it",
        "optimizers/deep_momentum.py",
        "A.mul_(retain).sub_(error.mT @ h, alpha=lr)",
        "A.mul_(retain)",
        "NL 50",
    ),
    Mutant(
        "DGD takes the rate for inputs of length one",
        "memory.py",
        "step = lr / (1.0 + lr * k.square().sum(-1))",
        "step = lr / (1.0 + lr)",
        "NL 57",
    ),
    Mutant(
        "DGD does not take out the old answer",
        "optimizers/dgd.py",
        "erase_(W, torch.cat(self._watched[id(W)]), group",
        "erase_(W, 0 * torch.cat(self._watched[id(W)]), group",
        "05.7",
    ),
    Mutant(
        "a slower clock makes a system faster",
        "levels.py",
        "period=part.period * system.by",
        "period=part.period / system.by",
        "claims 06",
    ),
    Mutant(
        "the drift is measured from the last place and not from the start",
        "trace.py",
        "torch.sub(now, self.start, out=difference)",
        "torch.sub(now, difference, out=difference)",
        "06.1",
    ),
    Mutant(
        "the fast memory of the direct kind teaches the slow weights that wrote it",
        "transfer.py",
        "(x @ W_k.T).detach(), (x @ W_v.T).detach()",
        "x @ W_k.T, x @ W_v.T",
        "claims 06",
    ),
    Mutant(
        "a surprise passes tanh as if it were another function",
        "transfer.py",
        "(1 - h.square())",
        "(1 - h)",
        "06.5",
    ),
    Mutant(
        "no gradient passes through the fast steps to the start",
        "transfer.py",
        "error = read(x, w) - y  #",
        "error = read(x, w.detach()) - y  #",
        "NL 28",
    ),
    Mutant(
        "the figure's beta band is copied from the text",
        "brainwaves.py",
        'Band("beta", 12, 30)',
        'Band("beta", 13, 30)',
        "claims 06",
    ),
    Mutant(
        "the fast level does not fade while it learns",
        "continual/two_rates.py",
        'lr=-group["lr"], retain=1 - group["decay"]',
        'lr=-group["lr"], retain=1.0',
        "07.3",
    ),
    Mutant(
        "rest is as long as one step",
        "continual/two_rates.py",
        'mul_((1 - group["decay"]) ** steps)',
        'mul_(1 - group["decay"])',
        "07.4",
    ),
    Mutant(
        "a slow average takes the weights in whole",
        "continual/averages.py",
        "lr=1 / horizon, retain",
        "lr=1.0, retain",
        "07.6",
    ),
    Mutant(
        "the pull of EWC can overshoot",
        "continual/ewc.py",
        ".div_(1.0 + reach * hold)",
        "",
        "07.9",
    ),
    Mutant(
        "forgetting is counted from the worst",
        "metrics.py",
        "R[..., :-1, :-1].amax(-2)",
        "R[..., :-1, :-1].amin(-2)",
        "07.2",
    ),
    Mutant(
        "a network that is told its task may answer with any class",
        "tasks/continual.py",
        "allowed = number >= 0",
        "allowed = number >= -1",
        "claims 07",
    ),
    Mutant(
        "a level writes at every token of its chunk",
        "cms/learning.py",
        "if level.tokens == rules.periods[index]:",
        "if level.tokens <= rules.periods[index]:",
        "NL 71",
    ),
    Mutant(
        "a nested level returns to its start one write late",
        "cms/learning.py",
        "updates % context == 0",
        "updates % context == 1 % context",
        "NL 72",
    ),
    Mutant(
        "the blocks side by side are added up without weights",
        "cms/continuum.py",
        "return torch.stack(answers, -1) @ self.mixture if",
        "return torch.stack(answers, -1).sum(-1) if",
        "NL 74",
    ),
    Mutant(
        "a period of the optimizer begins one step late",
        "optimizers/periodic.py",
        "if self.waiting[index] == period:",
        "if self.waiting[index] == period + 1:",
        "08.1",
    ),
    Mutant(
        "a reset of a meta-learned memory does not pass the gradient on to the start",
        "meta/adjoint.py",
        "self.start_bar += self.bar\n        self.bar.zero_()",
        "self.bar.zero_()",
        "NL 73",
    ),
    Mutant(
        "a block of a meta-learned memory is never put back to its start",
        "meta/reading.py",
        "if reset and step % reset == 0:",
        "if reset and step % reset == reset:",
        "claims 08",
    ),
    Mutant(
        "momentum fades a write before decay does, in the wrong order",
        "sequence/gates.py",
        "W = (D @ D_beta)",
        "W = (D_beta @ D)",
        "10.4",
    ),
    Mutant(
        "the momentum of the chunk before is not faded by the decay",
        "sequence/gates.py",
        "b = (D @ g_beta[..., None]).squeeze(-1)",
        "b = g_beta.cumsum(-1)",
        "10.5",
    ),
    Mutant(
        "the bound of the rate forgets that momentum goes on",
        "sequence/stream.py",
        "bound * slowing / (period * length)",
        "bound / (period * length)",
        "10.8",
    ),
    Mutant(
        "the gradient of a deep memory skips the slope of gelu",
        "sequence/deep/chunks.py",
        "s = (e @ A.W1) * gelu_slope(z)",
        "s = e @ A.W1",
        "10.10",
    ),
    Mutant(
        "the loop of Titans writes values and not surprises",
        "sequence/loops.py",
        "surprise = v_t - read(anchor, k_t)",
        "surprise = v_t",
        "claims 10",
    ),
    Mutant(
        "attention divides its scores by d and not by its root",
        "sequence/attention.py",
        "scale = q.shape[-1] ** -0.5 if scale is None else scale",
        "scale = q.shape[-1] ** -1.0 if scale is None else scale",
        "NL 62",
    ),
    Mutant(
        "a window does not see the present token",
        "sequence/attention.py",
        "(pair < token.unsqueeze(-1) + window)  # (c, 2c - 1)",
        "(pair < token.unsqueeze(-1) + window - 1)  # (c, 2c - 1)",
        "NL 63",
    ),
    Mutant(
        "a token of a stream is asked before it is written",
        "sequence/loops.py",
        "M = write(M, k_t, v_t, lr, retain)\n        answers.append(read(M, q_t))",
        "answers.append(read(M, q_t))\n        M = write(M, k_t, v_t, lr, retain)",
        "09.1",
    ),
    Mutant(
        "the errors of a chunk do not see the decay of what was written before",
        "sequence/chunks.py",
        "L = (k @ k.mT) * rows_before(left.W)",
        "L = (k @ k.mT) * left.W.tril(-1)",
        "claims 09",
    ),
    Mutant(
        "the errors of a chunk forget the memory before it",
        "sequence/chunks.py",
        "    A = A.expand(*B.shape[:3], -1, -1) if R is None else A - written.mT @ R",
        "    A = A.expand(*B.shape[:3], -1, -1)",
        "09.3",
    ),
    Mutant(
        "Oja's rule looks at the memory the wrong way round",
        "memory.py",
        "_outer(v, k - read(M.mT, v)), lr",
        "_outer(v, k), lr",
        "NL 67",
    ),
    Mutant(
        "the eigenvalue of a self-modifying step has the value with the wrong sign",
        "sequence/self_modifying/boxes.py",
        "return retain - lr * (k * (k - v)).sum(-1)",
        "return retain - lr * (k * (k + v)).sum(-1)",
        "11.4",
    ),
    Mutant(
        "a chunk of a self-modifying memory opens one token late",
        "sequence/self_modifying/loop.py",
        "if t % rules.chunk_of(name) == 0):",
        "if t % rules.chunk_of(name) == 1 % rules.chunk_of(name)):",
        "NL 90",
    ),
    Mutant(
        "the literal step does not look at what is stored",
        "sequence/self_modifying/loop.py",
        'value = target[name] - read(anchor[name], made.k) if rules.rule == "dgd_l2" else target[name]',
        "value = target[name]",
        "NL 90",
    ),
    Mutant(
        "every box gets the value itself as its target, and not its own answer",
        "sequence/self_modifying/boxes.py",
        "    found = v @ S.mT\n",
        "    found = torch.nn.functional.pad(v, (S.shape[-2] - v.shape[-1], 0))\n",
        "NL 84",
    ),
    Mutant(
        "the momentum of an eigenvalue forgets the retention",
        "sequence/counting.py",
        "under = half**2 - alpha * beta",
        "under = half**2 - beta",
        "11.5",
    ),
    Mutant(
        "what only changes the length of a hidden state counts as an error",
        "hope/readout.py",
        "return r * torch.addcmul(g, n, along, value=-1)",
        "return r * (g + 0 * along)",
        "12.2",
    ),
    Mutant(
        "an error goes back through an MLP as if it were linear",
        "hope/level.py",
        "dz = (error @ W.W2) * seen.slope",
        "dz = error @ W.W2",
        "12.3",
    ),
    Mutant(
        "what a level learned fades to zero, and its start with it",
        "hope/level.py",
        "base = torch.lerp(begin, old, left)",
        "base = (left * old)",
        "12.4",
    ),
    Mutant(
        "a level climbs",
        "hope/level.py",
        "(-rate * rows).mT",
        "(rate * rows).mT",
        "12.4",
    ),
    Mutant(
        "nearly silent units may take huge steps",
        "hope/level.py",
        "(largest(part, pairs.bend) + total)",
        "largest(part, pairs.bend)",
        "12.4",
    ),
    Mutant(
        "a level leaves out its first update",
        "hope/stretch.py",
        "% level.period == 0 and not (heard is None",
        "% level.period == 0 and done > level.period and not (heard is None",
        "12.4",
    ),
    Mutant(
        "the bound of a step is a mean over rows",
        "hope/level.py",
        "products.abs().sum(-1).amax(-1)",
        "products.abs().sum(-1).mean(-1)",
        "12.5",
    ),
    Mutant(
        "a block forgets its input",
        "sequence/model.py",
        "        x = x + y\n",
        "        x = y\n",
        "12.1",
    ),
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the library, its tests and the notebook sources."""
    for name in ("nlcore", "tests/equations", "tests/offline", "notebooks/src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.says.replace(" ", "-"))
def test_a_fault_is_noticed(mutant: Mutant, copy: Path) -> None:
    assert_noticed(mutant, copy)


def assert_noticed(mutant: Mutant, copy: Path) -> None:
    """Put the fault into the library in `copy` and see what should fail fail by an assertion."""
    file = copy / "nlcore" / mutant.file
    source = file.read_text(encoding="utf-8")
    assert source.count(mutant.right) == 1, f"the mutant no longer fits {mutant.file}: {mutant.right!r}"
    file.write_text(source.replace(mutant.right, mutant.wrong), encoding="utf-8")
    status, said = in_a_fork(copy, mutant.caught_by)
    assert status == 1, f"nothing noticed that {mutant.says}: {said[-2000:]}"
    assert "AssertionError" in said or "ClaimError" in said, said[-2000:]


@pytest.mark.parametrize("caught_by", ["NL 1", "04.9"])
def test_without_a_fault_nothing_fails(caught_by: str, copy: Path) -> None:
    """The other equation tests and the notebooks are run without a fault by their own part of `make test`."""
    status, said = in_a_fork(copy, caught_by)
    assert status == 0, said[-2000:]


def in_a_fork(copy: Path, caught_by: str) -> tuple[int, str]:
    """Run the equation test or the claims named with the library in `copy`; return exit status and output.

    A fork has torch and matplotlib loaded already, which makes it five times as fast as a new process.
    """
    log = copy / "log.txt"
    child = multiprocessing.get_context("fork").Process(target=run, args=(copy, caught_by, log))
    child.start()
    child.join(timeout=300)
    if child.is_alive():
        child.kill()
    assert child.exitcode is not None, "took more than 300 s"
    return child.exitcode, log.read_text(encoding="utf-8", errors="replace")


def run(copy: Path, caught_by: str, log: Path) -> None:
    """Take the library from `copy`, run what is named, and leave with its exit status."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("nlcore", "tests")]:
        del sys.modules[name]
    os.chdir(copy)
    sys.path[:] = [str(copy), *(path for path in sys.path if path not in ("", str(ROOT)))]
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    kind, _, number = caught_by.partition(" ")
    try:
        if kind == "test":
            status = int(pytest.main(["-q", "-p", "no:cacheprovider", f"{copy / 'tests' / number}"]))
        else:
            status = claims(number, copy) if kind == "claims" else equation(caught_by, copy)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def claims(number: str, copy: Path) -> int:
    """Run the cells of the notebook `number` as a script, without widgets and pictures; raise at the first error."""
    from nlcore import course

    def nothing(*_: object, **__: object) -> None:
        """Stand in for pictures and widgets: only the claims matter here."""

    course.__dict__.update(explore=nothing, figure=nothing, show=nothing)
    (source,) = (copy / "notebooks" / "src").glob(f"{number}_*.py")
    set_up = "from nlcore import course\ndevice = course.start()"
    text = source.read_text(encoding="utf-8").replace("# {{setup}}", set_up)
    exec(compile(text, str(source), "exec"), {"__name__": "__main__"})  # the course's own text
    return 0


def equation(tag: str, copy: Path) -> int:
    """Run the test that is marked with the equation `tag`."""
    marked = re.compile(rf'@pytest\.mark\.equation\("{re.escape(tag)}"\)\n(?:@.*\n(?:[ )].*\n)*)*def (\w+)')
    for path in sorted((copy / "tests" / "equations").glob("test_*.py")):
        found = marked.search(path.read_text(encoding="utf-8"))
        if found:
            return int(pytest.main(["-q", "-p", "no:cacheprovider", f"{path}::{found[1]}"]))
    raise LookupError(f"no test is marked with equation {tag!r}")
