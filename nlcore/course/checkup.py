"""The set-up of a notebook, and the doctor that looks whether everything is there."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

import nlcore

NEEDED = {"torch": "2.4", "numpy": "1.26", "matplotlib": "3.8", "ipywidgets": "7.7", "tqdm": "4.60"}


def best_device() -> torch.device:
    """Return the GPU when torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start(seed: int = 0) -> torch.device:
    """Begin a notebook: house style, fixed seed, one line that says what it runs on.

    Args     seed: for torch's global generator; notebooks pass their own generators where randomness matters.
    Returns  the device to pass on as `device=...`.
    """
    from nlcore.course import style

    style.use()
    torch.manual_seed(seed)
    device = best_device()
    print(f"nlcore {nlcore.__version__} | torch {torch.__version__} | device: {device.type}")
    return device


def doctor() -> bool:
    """Print one line for each thing the course needs, and whether it is there; return True when all is well."""
    findings = list(_findings())
    for good, words in findings:
        print(f"{'✓' if good else '✗'} {words}")
    healthy = all(good for good, _ in findings)
    print("All is well." if healthy else "Something is missing: see the lines with ✗.")
    return healthy


def _findings() -> Iterator[tuple[bool, str]]:
    yield sys.version_info >= (3, 11), f"Python {platform.python_version()} (3.11 or newer)"
    for name, least in NEEDED.items():
        yield _package(name, least)
    yield True, f"device: {_device_words()}"
    yield _one_step()
    yield _front_end()


def _package(name: str, least: str) -> tuple[bool, str]:
    try:
        found = version(name)
    except PackageNotFoundError:
        return False, f"{name} is not installed; run: pip install '{name}>={least}'"
    return _numbers(found) >= _numbers(least), f"{name} {found} ({least} or newer)"


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading release numbers of a version: '2.13.0+cpu' gives (2, 13, 0)."""
    parts = text.split("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _device_words() -> str:
    device = best_device()
    return f"GPU ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "CPU (the course needs no GPU)"


def _one_step() -> tuple[bool, str]:
    from nlcore.optimizers import SGD

    weight = torch.nn.Parameter(torch.tensor([1.0], device=best_device()))
    (weight * weight).sum().backward()
    SGD([weight], lr=0.25).step()
    return abs(
        weight.item() - 0.5
    ) < 1e-6, f"one step of gradient descent: 1.0 became {weight.item():.1f} (expected 0.5)"


def _front_end() -> tuple[bool, str]:
    if "google.colab" in sys.modules:
        return True, "front end: Colab (sliders are live)"
    if "ipykernel" not in sys.modules:
        return True, "front end: none (this is a terminal; open a notebook to see live sliders)"
    ready = importlib.util.find_spec("ipywidgets") is not None
    return ready, "front end: Jupyter (sliders are live)" if ready else "front end: Jupyter, but ipywidgets is missing"
