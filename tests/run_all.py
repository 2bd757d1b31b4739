"""Runs all tests, some parts side by side, and ends with one summary. `make test` calls it.

Nothing here may reach the network: see tests/offline/sitecustomize.py. The full output of each part is kept in
test-results/; what failed is printed whole.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "test-results"
ATTEMPTS = RESULTS / "network-attempts.log"
OWN_FOLDERS = ("browser", "mutants", "colab")  # each file a part of its own: they take long and mostly wait
TOKENS = ("probes", "sequence", "self_modifying", "deep_memory", "attention", "token", "hope", "text")  # test_NAME*.py
LIMIT_S = 1800
LONGEST_LINE = 400


@dataclass(frozen=True)
class Part:
    """A named command."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a part ended: its output, its seconds, and how many tests did what."""

    part: Part
    good: bool
    seconds: float
    output: str
    passed: int
    failed: int
    skipped: int


def parts() -> list[Part]:
    """Return all parts, roughly those that take longest first."""
    nbval = ("--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg")
    others = [f"--ignore=tests/{folder}" for folder in OWN_FOLDERS]
    of_tokens = sorted(str(file.relative_to(ROOT)) for name in TOKENS for file in ROOT.glob(f"tests/test_{name}*.py"))
    return [
        _pytest("notebooks", "-p", "tests.nbval_plugin", *nbval, "--nbval-cell-timeout", "120", "notebooks"),
        *_files("browser"),
        _pytest("units and equations", "tests", *others, *(f"--ignore={file}" for file in of_tokens)),
        _pytest("memories of tokens", *of_tokens),
        *_files("mutants"),
        *_files("colab"),
        Part("types", (sys.executable, "-m", "mypy")),
        _pytest("examples in docs", "--doctest-modules", "--doctest-glob=README.md", "nlcore", "README.md"),
        Part("style", (sys.executable, "-m", "ruff", "check", ".")),
    ]


def _files(folder: str) -> list[Part]:
    """Return one part for each test file of a folder of tests."""
    files = sorted((ROOT / "tests" / folder).glob("test_*.py"), reverse=True)
    names = [folder if len(files) == 1 else f"{folder} {file.stem.removeprefix('test_')}" for file in files]
    return [_pytest(name, str(file.relative_to(ROOT))) for name, file in zip(names, files, strict=True)]


def _pytest(name: str, *arguments: str) -> Part:
    return Part(name, (sys.executable, "-m", "pytest", f"--junitxml={_junit(name)}", *arguments))


def _junit(name: str) -> Path:
    return RESULTS / f"{name.replace(' ', '-')}.xml"


def environment(colab_python: str | None) -> dict[str, str]:
    """Return the variables that all parts run under: one thread, no bars, no network."""
    settings = {
        "OMP_NUM_THREADS": "1",
        "NLCORE_PROGRESS": "0",
        "NLCORE_OFFLINE": "1",
        "NLCORE_OFFLINE_LOG": str(ATTEMPTS),
        "PYTHONPATH": str(ROOT / "tests" / "offline"),
        "PYTHONUNBUFFERED": "1",
        # Parts that run side by side slow each other down; a quiet machine keeps the limits as they are.
        "NLCORE_TIME_FACTOR": os.environ.get("NLCORE_TIME_FACTOR", "2.5"),
    }
    if colab_python:
        settings["NLCORE_COLAB_PYTHON"] = os.path.abspath(colab_python)
    return {**os.environ, **settings}


def run(part: Part, env: dict[str, str]) -> Outcome:
    """Run one part to its end."""
    began = time.monotonic()
    try:
        result = subprocess.run(
            part.command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=LIMIT_S, check=False,
        )  # fmt: skip
        good, output = result.returncode == 0, result.stdout
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout
        good, output = False, f"{said or ''}\nstopped after {LIMIT_S} s"
    (RESULTS / f"{_junit(part.name).stem}.log").write_text(output, encoding="utf-8")
    return Outcome(part, good, time.monotonic() - began, output, *_counts(part, good))


def _counts(part: Part, good: bool) -> tuple[int, int, int]:
    """Return how many tests passed, failed and were skipped; a part without tests counts as one."""
    report = _junit(part.name)
    if not report.exists():
        return int(good), int(not good), 0
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(key, "0")) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    failed = max(failures + errors, int(not good))
    return max(total - failures - errors - skipped, 0), failed, skipped


def attempts() -> Outcome:
    """Return whether any Python process of this run tried to leave the machine."""
    tried = ATTEMPTS.read_text(encoding="utf-8") if ATTEMPTS.exists() else ""
    return Outcome(Part("no network", ()), not tried, 0.0, tried, int(not tried), int(bool(tried)), 0)


def show(outcome: Outcome) -> None:
    """Print what a part said: all of it when it failed, its closing lines when it passed; very long lines are cut."""
    verdict = "passed" if outcome.good else "FAILED"
    print(f"\n===== {outcome.part.name}: {verdict} in {outcome.seconds:.0f} s =====", flush=True)
    lines = [line[:LONGEST_LINE] for line in outcome.output.strip().splitlines()]
    print("\n".join(lines[-3:] if outcome.good else lines), flush=True)


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """Return the table of all parts and, as the last line, the sum over all tests."""
    rows = [f"{'part':22} verdict  passed  failed  skipped  seconds"]
    for o in outcomes:
        verdict = "passed" if o.good else "FAILED"
        rows.append(f"{o.part.name:22} {verdict:7} {o.passed:7} {o.failed:7} {o.skipped:8} {o.seconds:8.0f}")
    passed, failed, skipped = (sum(getattr(o, key) for o in outcomes) for key in ("passed", "failed", "skipped"))
    total = f"{passed} passed, {failed} failed, {skipped} skipped"
    return "\n".join([*rows, f"all parts together: {seconds:.0f} s", "", total])


def main() -> int:
    """Run every part and return the exit code: 0 when all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    jobs = (os.cpu_count() or 1) + 1  # one more than there are cores, since the browser tests mostly wait
    parser.add_argument("--jobs", type=int, default=jobs, help="parts to run side by side")
    parser.add_argument("--colab-python", help="interpreter of the stand-in for Colab")
    options = parser.parse_args()
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir()
    env, began, outcomes = environment(options.colab_python), time.monotonic(), []
    with ThreadPoolExecutor(max_workers=max(options.jobs, 1)) as pool:
        for done in as_completed([pool.submit(run, part, env) for part in parts()]):
            outcomes.append(done.result())
            show(outcomes[-1])
    outcomes.append(attempts())
    if not outcomes[-1].good:
        show(outcomes[-1])
    print(f"\n{summary(outcomes, time.monotonic() - began)}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
