"""After installation nothing needs the network: the block works wherever Python runs, and the course works under it."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ("192.0.2.1", 80)  # an address reserved for documentation: nobody answers there
CONNECT = f"import socket; socket.create_connection({ELSEWHERE!r}, timeout=5)"
IMPORT_LIMIT_S = 0.1
ONLY_FOR_NOTEBOOKS = ("matplotlib", "ipywidgets", "IPython", "PIL")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Block the network in every Python started from this test; return the log of attempts."""
    log = tmp_path / "attempts.log"
    paths = [str(ROOT / "tests" / "offline"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("NLCORE_OFFLINE", "1")
    monkeypatch.setenv("NLCORE_OFFLINE_LOG", str(log))
    return log


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_a_connection_out_is_refused(offline: Path, no_network: list[str]) -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1.*was refused"):
        socket.create_connection(ELSEWHERE, timeout=5)
    with pytest.raises(OSError, match="was refused"):
        socket.getaddrinfo("example.org", 443)
    assert len(no_network) == 2
    no_network.clear()


def test_a_datagram_out_is_refused(offline: Path, no_network: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(OSError, match="was refused"):
        datagrams.sendto(b"hello", ELSEWHERE)
    no_network.clear()


def test_this_machine_itself_may_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


def test_a_swallowed_attempt_is_still_recorded(offline: Path, no_network: list[str]) -> None:
    with socket.socket() as plain:
        assert plain.connect_ex(("127.0.0.1", 1)) != 0
    assert no_network == []
    with contextlib.suppress(OSError):
        socket.create_connection(ELSEWHERE, timeout=5)
    assert len(no_network) == 1
    assert "192.0.2.1" in offline.read_text()
    no_network.clear()


def test_a_subprocess_is_blocked_too(offline: Path) -> None:
    result = python(CONNECT)
    assert result.returncode != 0
    assert "OfflineError" in result.stderr
    assert "192.0.2.1" in offline.read_text()


def test_a_notebook_kernel_is_blocked_too(offline: Path) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CONNECT)])
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="OfflineError"):
        nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert "192.0.2.1" in offline.read_text()


LOAD_ALL = """
import inspect, nlcore
loaded = []
for name in nlcore.tasks.__all__:
    task = getattr(nlcore.tasks, name)
    if inspect.isfunction(task) and all(p.default is not p.empty for p in inspect.signature(task).parameters.values()):
        assert task() is not None
        loaded.append(name)
print(*loaded)
"""


def test_the_package_and_every_task_load_offline(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = python(LOAD_ALL)
    assert result.returncode == 0, result.stderr
    assert {"digits", "fashion"} <= set(result.stdout.split())
    assert not offline.exists(), offline.read_text()


COST = """
import time, torch
began = time.process_time()
import nlcore, sys
print(time.process_time() - began, *(name for name in {heavy!r} if name in sys.modules))
"""


def test_importing_nlcore_is_quick_and_leaves_out_what_only_notebooks_need(offline: Path) -> None:
    """Counted in processor time, which other programs on the machine do not change, and as a median of three."""
    seen = [python(COST.format(heavy=ONLY_FOR_NOTEBOOKS)).stdout.split() for _ in range(3)]
    assert statistics.median(float(seconds) for seconds, *_ in seen) < IMPORT_LIMIT_S
    assert [loaded for _, *loaded in seen] == [[], [], []]
