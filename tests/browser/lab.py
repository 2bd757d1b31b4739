"""A JupyterLab server of its own, and how a test works in it: open a notebook, run it, find its widgets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_MS = 180_000  # for a loaded machine; nothing waits this long on a quiet one
# Another interpreter with JupyterLab may stand in, for example one with ipywidgets 7 as in Colab.
PYTHON = os.environ.get("NLCORE_LAB_PYTHON", sys.executable)
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}


@dataclass(frozen=True)
class Lab:
    """A running server: its address and the folder that it serves."""

    address: str
    folder: Path

    def add(self, notebook: Path) -> str:
        """Copy a notebook into the served folder, without its outputs; return its name."""
        content = json.loads(notebook.read_text(encoding="utf-8"))
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content["metadata"] = {**content["metadata"], "kernelspec": kernel}
        (self.folder / notebook.name).write_text(json.dumps(content), encoding="utf-8")
        return notebook.name


@contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """Start a server on a free port, yield it when it answers, stop it with all its kernels."""
    served, home = folder / "notebooks", folder / "home"
    served.mkdir(parents=True)
    for name, settings in SETTINGS.items():
        file = home / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    exposed = home / "config" / "labconfig" / "page_config.json"
    exposed.parent.mkdir(parents=True)
    exposed.write_text(json.dumps({"exposeAppInBrowser": "true"}))
    port = _free_port()
    log = folder / "lab.log"
    with log.open("wb") as said:
        server = subprocess.Popen(_command(served, port), env=_environment(home), stdout=said, stderr=said)
        try:
            lab = Lab(f"http://127.0.0.1:{port}", served)
            _wait_for(lab, server, log)
            yield lab
        finally:
            _stop(server)
    shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _command(served: Path, port: int) -> list[str]:
    return [
        PYTHON, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.root_dir={served}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
        "--MappingKernelManager.shutdown_wait_time=1",
    ]  # fmt: skip


def _environment(home: Path) -> dict[str, str]:
    """Return the variables of the server: its own settings and runtime folders, and this checkout to import from."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    own = {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "NLCORE_PROGRESS": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    inherited = {name: value for name, value in os.environ.items() if name != "NLCORE_FIGURES"}
    return {**inherited, **own}


def _wait_for(lab: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(f"{lab.address}/api/status", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


OPEN = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
}"""

RUN = """async () => {
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
  const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
  return Array.from({length: cells.length}, (_, place) => ({place, cell: cells.get(place)}))
    .filter(({cell}) => cell.type === "code")
    .map(({place, cell}) => ({place, count: cell.executionCount, outputs: cell.outputs.toJSON()}));
}"""


def open_and_run(page: Any, lab: Lab, name: str) -> list[dict[str, Any]]:
    """Open a notebook in `page` and run all its cells; return place, count and outputs of each code cell."""
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{lab.address}/lab/tree/{name}?reset", timeout=PATIENCE_MS)
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.sessionContext")
    page.evaluate(OPEN)
    return list(page.evaluate(RUN))


def close(page: Any) -> None:
    """Stop the kernel of the notebook that is open in `page` and close the page."""
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()
