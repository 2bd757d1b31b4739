"""Small faults put into the library on purpose: each must make a named equation test or claim fail.

If a fault here goes unnoticed, the course could teach something wrong and still be green. Each mutant names the
equation tests, or the notebook whose claims, a learner would see fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `right` becomes `wrong`; `caught_by` is an equation or a notebook ("claims 03")."""

    says: str
    file: str
    right: str
    wrong: str
    caught_by: str


MUTANTS = (
    Mutant(
        "the write has the wrong sign",
        "memory.py",
        "return (M if retain == 1.0 else M.mul_(retain)).add_(write, alpha=lr)",
        "return (M if retain == 1.0 else M.mul_(retain)).add_(write, alpha=-lr)",
        "NL 8",
    ),
    Mutant(
        "a level takes the mean of its errors, not their sum",
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
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the library, its tests and the notebook sources."""
    for name in ("nlcore", "tests", "notebooks/src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.says.replace(" ", "-"))
def test_a_fault_is_noticed(mutant: Mutant, copy: Path) -> None:
    file = copy / "nlcore" / mutant.file
    source = file.read_text(encoding="utf-8")
    assert source.count(mutant.right) >= 1, f"the mutant no longer fits {mutant.file}: {mutant.right!r}"
    sound = run(mutant.caught_by, copy)
    assert sound.returncode == 0, f"fails without the fault too: {(sound.stdout + sound.stderr)[-2000:]}"
    file.write_text(source.replace(mutant.right, mutant.wrong), encoding="utf-8")
    faulty = run(mutant.caught_by, copy)
    said = faulty.stdout + faulty.stderr
    assert faulty.returncode == 1 and ("AssertionError" in said or "ClaimError" in said), said[-2000:]


def run(caught_by: str, copy: Path) -> subprocess.CompletedProcess[str]:
    """Run the equation test or the claims named, in the folder `copy` and with its library."""
    kind, _, number = caught_by.partition(" ")
    if kind == "claims":
        command = [sys.executable, "tests/mutants/run_claims.py", number]
    else:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *equation_test(caught_by, copy)]
    paths = [str(copy), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=300)


def equation_test(tag: str, copy: Path) -> list[str]:
    """Return the pytest arguments that select the test of one equation."""
    marked = re.compile(rf'@pytest\.mark\.equation\("{re.escape(tag)}"\)\n(?:@.*\n(?:[ )].*\n)*)*def (\w+)')
    for path in sorted((copy / "tests" / "equations").glob("test_*.py")):
        found = marked.search(path.read_text(encoding="utf-8"))
        if found:
            return [f"{path}::{found[1]}"]
    raise LookupError(f"no test is marked with equation {tag!r}")
