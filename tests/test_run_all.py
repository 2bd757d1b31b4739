"""The runner of `make test` tells the truth: no failure gets lost, and no test file is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import run_all

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = run_all.environment(None)


@pytest.fixture(autouse=True)
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(run_all, "RESULTS", tmp_path)
    monkeypatch.setattr(run_all, "ATTEMPTS", tmp_path / "attempts.log")
    return tmp_path


def python(name: str, code: str) -> run_all.Part:
    return run_all.Part(name, (sys.executable, "-c", code))


def outcome_of(folder: Path, code: str) -> run_all.Outcome:
    file = folder / "test_some.py"
    file.write_text(code)
    arguments = ("-p", "no:cacheprovider", "-c", str(folder / "none.ini"), f"--rootdir={folder}", str(file))
    (folder / "none.ini").write_text("")
    return run_all.run(run_all._pytest("some", *arguments), ENVIRONMENT)


def test_a_command_counts_as_one_test(results: Path) -> None:
    good = run_all.run(python("good", "print('fine')"), ENVIRONMENT)
    bad = run_all.run(python("bad", "print('oh'); raise SystemExit(3)"), ENVIRONMENT)
    assert (good.good, good.passed, good.failed) == (True, 1, 0)
    assert (bad.good, bad.passed, bad.failed) == (False, 0, 1)
    assert (results / "bad.log").read_text() == "oh\n"


def test_tests_are_counted_one_by_one(results: Path) -> None:
    code = "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('no')\n"
    outcome = outcome_of(results, code)
    assert (outcome.good, outcome.passed, outcome.failed, outcome.skipped) == (False, 1, 1, 1)


def test_a_part_without_a_test_has_failed(results: Path) -> None:
    outcome = outcome_of(results, "")
    assert (outcome.good, outcome.passed, outcome.failed) == (False, 0, 1)


def test_a_failure_outside_of_tests_is_counted(results: Path) -> None:
    outcome = outcome_of(results, "import atexit, os\natexit.register(os._exit, 1)\ndef test_a(): pass\n")
    assert (outcome.good, outcome.passed, outcome.failed) == (False, 1, 1)


def test_an_attempt_to_reach_the_network_fails_the_run(results: Path) -> None:
    assert run_all.attempts().good
    (results / "attempts.log").write_text("socket.connect to '192.0.2.1'\n")
    assert (run_all.attempts().good, run_all.attempts().failed) == (False, 1)


def test_the_last_line_is_the_sum(results: Path) -> None:
    outcomes = [run_all.run(python(name, "pass"), ENVIRONMENT) for name in ("one", "two")]
    assert run_all.summary(outcomes, 1.0).splitlines()[-1] == "2 passed, 0 failed, 0 skipped"


def test_every_test_file_belongs_to_one_part() -> None:
    commands = [part.command for part in run_all.parts()]
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        path = file.relative_to(ROOT).as_posix()
        left_out = {f"--ignore={path}", f"--ignore=tests/{path.split('/')[1]}"}
        own = [command for command in commands if path in command]
        rest = [command for command in commands if "tests" in command and not left_out & set(command)]
        assert len(own) + len(rest) == 1, path
