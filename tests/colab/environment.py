"""A throw-away computer like Colab's: its packages, no nlcore, no network, and the public address led to this tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TAG = f"v{PROJECT['version']}"
ADDRESS: str = PROJECT["urls"]["Repository"]
STAND_IN = Path(__file__).parent / "stand_in"
OFFLINE = ROOT / "tests" / "offline"
CELL_LIMIT_S = 300

KERNEL = """{"argv": ["%s", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
"display_name": "Colab", "language": "python"}"""


@dataclass(frozen=True)
class Computer:
    """An interpreter with Colab's packages, and the variables that it runs under."""

    home: Path
    python: Path
    variables: dict[str, str]

    def freeze(self) -> set[str]:
        """Return the installed packages with their versions, nlcore left out."""
        command = [str(self.python), "-m", "pip", "freeze", "--all"]
        lines = subprocess.run(command, env=self.variables, capture_output=True, text=True, check=True).stdout
        return {line for line in lines.splitlines() if not line.lower().startswith("nlcore")}

    def execute(self, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
        """Run all cells, in a folder that has nothing to do with the project."""
        content = self.home / "content"
        content.mkdir(exist_ok=True)
        resources = {"metadata": {"path": str(content)}}
        specs = KernelSpecManager(kernel_dirs=[str(self.home / "kernels")])
        manager = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=specs)
        client = NotebookClient(notebook, km=manager, timeout=CELL_LIMIT_S, resources=resources)
        return client.execute(env=self.variables)


def computer(colab_python: Path, home: Path) -> Computer:
    """Make a fresh computer below `home` on top of the environment that `colab_python` belongs to."""
    venv = home / "venv"
    subprocess.run([str(colab_python), "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    (_site(python) / "preinstalled.pth").write_text(f"{_site(colab_python)}\n{STAND_IN}\nimport google.colab\n")
    kernel = home / "kernels" / "colab"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(KERNEL % python)
    wheels = colab_python.parents[1] / "wheels"
    return Computer(home, python, _variables(home, publish(home / "repository"), wheels))


def _site(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip())


def publish(target: Path) -> Path:
    """Make a git repository of the tree as it is now, with the tag that the set-up cells ask for."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    who = ["-c", "user.name=nlcore", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"]
    for step in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "tree"], ["tag", TAG]):
        subprocess.run(["git", *step], cwd=target, check=True)
    return target


def _variables(home: Path, repository: Path, wheels: Path) -> dict[str, str]:
    """Return an environment without this project, where git finds the public address in `repository`."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "PYTHONPATH": str(OFFLINE),
        "NLCORE_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "COLAB_RELEASE_TAG": "stand-in",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
