"""The benchmark of memories of tokens runs, names the published memories that are missing, and loads each by itself."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return {name: importlib.import_module(f"sequence_{name}") for name in ("peers", "race")}


def test_it_runs_without_published_memories() -> None:
    short = ["--lengths", "64", "--heads", "4", "--rounds", "1", "--seconds", "0.01", "--no-peers", "--no-compiled"]
    done = subprocess.run([sys.executable, BENCHMARKS / "bench_sequence.py", *short], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in (
        "published memories: SKIPPED",
        "delta rule loop / delta rule",
        "memory of a step at T=64",
        "every bar is met",
    ):
        assert line in done.stdout


def test_a_missing_peer_is_named_with_its_command(benchmark: dict[str, ModuleType]) -> None:
    peers = benchmark["peers"]
    absent = peers.Peer("nobody", "no_such_package/memory.py", "pip install nobody", lambda module: [])
    modules, racers, missing = peers.find([absent], [])
    assert not modules and not racers
    assert missing == ["nobody is not here: SKIPPED. To race it: pip install nobody"]


def test_a_peer_that_does_not_load_is_skipped(benchmark: dict[str, ModuleType], tmp_path: Path) -> None:
    peers = benchmark["peers"]
    (tmp_path / "broken_peer.py").write_text("import a_module_that_is_not_there")
    _, _, missing = peers.find(
        [peers.Peer("broken", "broken_peer.py", "pip install it", lambda module: [])], [tmp_path]
    )
    assert len(missing) == 1 and "does not load" in missing[0] and "a_module_that_is_not_there" in missing[0]


def test_peers_of_one_name_are_kept_apart(benchmark: dict[str, ModuleType], tmp_path: Path) -> None:
    peers, found = benchmark["peers"], []
    for folder in ("first", "second"):
        package = tmp_path / folder / "same_named_peer"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("from same_named_peer.shared import WHO")
        (package / "shared.py").write_text(f"WHO = {folder!r}")
        (package / f"{folder}.py").write_text("from same_named_peer import WHO")
    for folder in ("first", "second"):
        peer = peers.Peer(folder, f"same_named_peer/{folder}.py", "", lambda module: found.append(module.WHO) or [])
        peers.find([peer], [tmp_path])
    assert found == ["first", "second"]


def test_what_autograd_keeps_is_counted_once(benchmark: dict[str, ModuleType]) -> None:
    race = benchmark["race"]
    x = torch.randn(2**18, requires_grad=True)  # 1 MB, a leaf: not counted
    assert race.saved_megabytes(race.Work(lambda: x.exp(), [x])) == 1.0  # its answer
    assert race.saved_megabytes(race.Work(lambda: (y := x.exp()) * y, [x])) == 1.0  # the same answer, kept three times
    assert race.saved_megabytes(race.Work(lambda: x + 1, [x])) == 0.0


def test_who_is_slow_sits_out(benchmark: dict[str, ModuleType]) -> None:
    race, steps = benchmark["race"], {"quick": 0, "slow": 0}

    def work(name: str, size: int) -> object:
        def forward() -> torch.Tensor:
            steps[name] += 1
            return torch.randn(size).sort()[0]

        return race.Work(forward, [])

    times = race.race({"quick": work("quick", 10), "slow": work("slow", 400_000)}, 6, 0.02, "cpu")
    assert steps["quick"] == 7 and steps["slow"] < 6  # once to warm up
    assert times["slow"].cpu > times["quick"].cpu
