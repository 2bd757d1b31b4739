"""The project as something to install: one list of dependencies, agreeing copies of it, a complete package."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import nlcore

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
PROMISED = {"torch", "jupyterlab", "matplotlib", "ipywidgets", "numpy", "nbval", "jupytext"}
GPU_PACKAGES = ("nvidia-", "cuda-", "triton")  # only the GPU build of torch asks for them
CHECKOUT_MB, NOTEBOOK_KB = 25, 500


def requirements(*groups: str) -> dict[str, Requirement]:
    """Return the requirements of the package and of these extras by name."""
    project = PROJECT["project"]
    lines = project["dependencies"] + [line for group in groups for line in project["optional-dependencies"][group]]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def pins(file: str) -> dict[str, Requirement]:
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def pinned_version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    return specifier.version


def conda() -> tuple[dict[str, Requirement], list[str]]:
    """Return the conda packages of environment.yml under their pip names, and its pip lines."""
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    packages = [Requirement(re.sub(r"(?<![=<>!])=(?!=)", "==", line)) for line in lines if isinstance(line, str)]
    by_pip_name = {CONDA_NAMES.get(package.name, package.name): package for package in packages}
    return by_pip_name, [line for entry in lines if isinstance(entry, dict) for line in entry["pip"]]


def project_files() -> list[Path]:
    """Return what git tracks or would track, so neither environments nor caches."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def package_files() -> set[str]:
    return {str(f.relative_to(ROOT)) for f in project_files() if f.is_relative_to(ROOT / "nlcore")}


# ---- one list of dependencies


@pytest.mark.parametrize("name", sorted(requirements("lab")))
def test_environment_yml_has_the_same_range(name: str) -> None:
    packages, _ = conda()
    assert packages[name].specifier == requirements("lab")[name].specifier


def test_environment_yml_has_what_was_promised_and_nothing_unknown() -> None:
    packages, pip_lines = conda()
    known = requirements("lab", "test")
    assert set(packages) >= PROMISED
    assert set(packages) - {"python", "pip"} <= set(known)
    assert all(packages[name].specifier == known[name].specifier for name in PROMISED)
    # Binder reads the version of Python from an exact minor version and from nothing else.
    supported = Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    assert supported.contains(pinned_version(packages["python"]))
    assert pip_lines == ["-e .[lab]"]


@pytest.mark.parametrize("name", sorted(requirements("lab", "test")))
def test_the_pin_is_in_the_range(name: str) -> None:
    required = requirements("lab", "test")[name]
    assert required.specifier.contains(pinned_version(pins("constraints.txt")[name]))


@pytest.mark.parametrize("name", sorted(requirements()))
def test_the_package_accepts_what_colab_has(name: str) -> None:
    colab = pins("constraints-colab.txt")
    assert requirements()[name].specifier.contains(pinned_version(colab[name]))


def test_the_stand_in_for_colab_takes_torch_from_the_same_download() -> None:
    assert pins("constraints-colab.txt")["torch"] == pins("constraints.txt")["torch"]


def test_pins_are_exact_sorted_and_name_no_host() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines), key=str.upper)
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line


def closure(roots: dict[str, Requirement]) -> set[str]:
    """Return the names of everything that these requirements bring along here."""
    found: set[str] = set()
    waiting = [(requirement, extra) for requirement in roots.values() for extra in [*requirement.extras, ""]]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name.startswith(GPU_PACKAGES) or f"{name}[{extra}]" in found:
            continue
        found.add(f"{name}[{extra}]")
        for needed in map(Requirement, distribution(name).requires or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed, further) for further in [*needed.extras, ""]]
    return {name.split("[")[0] for name in found}


def test_everything_that_gets_installed_is_pinned() -> None:
    try:
        needed = closure(requirements("lab", "test"))
    except PackageNotFoundError as missing:
        pytest.skip(f"not the environment of `make test`: {missing} is not installed")
    assert needed <= set(pins("constraints.txt"))


def imports(file: Path) -> set[str]:
    """Return the top-level modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    partial = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in plain | partial}


@pytest.mark.parametrize("file", sorted((ROOT / "nlcore").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_module_imports_only_declared_packages(file: Path) -> None:
    third_party = imports(file) - set(sys.stdlib_module_names) - {"nlcore", "google"}
    owners = packages_distributions()
    undeclared = {m for m in third_party if not set(map(canonicalize_name, owners.get(m, [m]))) & set(requirements())}
    assert not undeclared, f"add to dependencies in pyproject.toml: {undeclared}"


# ---- one version


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert nlcore.__version__ == version
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == version


def test_the_citation_names_the_paper_and_no_address() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Behrouz", "Razaviyayn", "Zhong", "Mirrokni"]
    assert paper["identifiers"][0]["value"] == "arXiv:2512.24695"
    assert not {"repository-code", "url", "repository"} & set(citation)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_python_version_is_supported(python: str) -> None:
    assert Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(Version(python))
    assert f"Programming Language :: Python :: {python}" in PROJECT["project"]["classifiers"]


# ---- a complete package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build a wheel from a copy of the tree and open it."""
    source, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for file in project_files():
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (built,) = target.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_carries_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == package_files()
    assert "nlcore/py.typed" in inside
    assert {"nlcore/data/PROVENANCE.md", "nlcore/data/digits8.npz", "nlcore/data/fashion14.npz"} <= inside


def test_the_wheel_carries_its_licences(wheel: zipfile.ZipFile) -> None:
    names = {Path(name).name for name in wheel.namelist() if ".dist-info/licenses/" in name}
    assert names == {"LICENSE", "LICENSE-TEXT"}


def test_the_provenance_names_every_data_file_and_licence(wheel: zipfile.ZipFile) -> None:
    provenance = wheel.read("nlcore/data/PROVENANCE.md").decode()
    data = [name for name in wheel.namelist() if name.startswith("nlcore/data/") and not name.endswith((".py", ".md"))]
    assert any("/LICENSES/" in name for name in data)
    assert [name for name in data if name.removeprefix("nlcore/data/") not in provenance] == []


def test_the_licences_are_whole() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    legal_code = (ROOT / "LICENSE-TEXT").read_text()
    assert "Creative Commons Attribution 4.0 International Public License" in legal_code
    assert "Section 8 -- Interpretation." in legal_code


# ---- a small checkout, and the commands of the README


def test_the_checkout_stays_small() -> None:
    sizes = {file: file.stat().st_size for file in project_files()}
    assert sum(sizes.values()) <= CHECKOUT_MB * 1e6
    large = [file.name for file, size in sizes.items() if file.suffix == ".ipynb" and size > NOTEBOOK_KB * 1e3]
    assert not large


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_lab_installs_then_trusts_then_opens(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "lab", f"PYTHON={sys.executable}", f"VENV={tmp_path}/venv"]
    steps = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = ["-m venv", '-c constraints.txt -e ".[lab]"', "jupyter trust notebooks/", "jupyter lab notebooks/00_"]
    places = [steps.index(step) for step in wanted]
    assert places == sorted(places)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_says_when_python_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = (3, 9); $2"\n')
    old.chmod(0o755)
    result = subprocess.run(["make", "check-python", f"PYTHON={old}"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
