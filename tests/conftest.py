"""What holds in every test: fixed seeds, one thread, no progress bars, no network."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from typing import Any

os.environ["NLCORE_PROGRESS"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy
import pytest
import torch

from tests.offline import sitecustomize as offline

# `make test` has blocked the network before Python started; a plain `pytest` does it here.
guard: Any = sys.modules.get("sitecustomize")
if not hasattr(guard, "attempts"):
    offline.block()
    guard = offline
elif os.environ.get("NLCORE_OFFLINE") != "1":
    guard.block()

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_seeds() -> None:
    """Start every test from the same random state."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[list[str]]:
    """Fail a test that tried to reach the network, also when something swallowed the error."""
    guard.attempts.clear()
    yield guard.attempts
    if guard.attempts:
        pytest.fail(f"this test tried to leave the machine: {'; '.join(guard.attempts)}")
