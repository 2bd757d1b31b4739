"""Small trained models that travel with the package, so that a notebook can show what takes minutes to learn.

A checkpoint is a state dict alone, without any code: it is read with `weights_only=True` and fits only a model that is
built as the one that was stored. Weights are kept as float16 or float32, whatever they were trained in.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from nlcore.files import write_atomic

NAME_RULE = "lower-case words joined by underscores"


def save_checkpoint(
    name: str, model: nn.Module, dtype: torch.dtype = torch.float16, folder: Path | None = None
) -> Path:
    """Store the weights of a model.

    Args     name: lower-case words joined by underscores. model: any module. dtype: of the stored floating-point
             weights. folder: where to; None is the folder that `load_checkpoint` reads. An old file stays until the new
             one is whole.
    Returns  the file.
    Raises   ValueError for another kind of name, or if a weight is not finite in `dtype`.
    """
    if not name or not all(part.isalnum() and part == part.lower() for part in name.split("_")):
        raise ValueError(f"a checkpoint has a name of {NAME_RULE}, got {name!r}")
    weights = {key: _stored(key, value, dtype) for key, value in model.state_dict().items()}
    written = io.BytesIO()
    torch.save(weights, written)
    return write_atomic((_folder() if folder is None else folder) / f"{name}.pt", written.getvalue())


def load_checkpoint(name: str, dtype: torch.dtype = torch.float32, folder: Path | None = None) -> dict[str, Tensor]:
    """Return the stored weights, on the CPU, for `model.load_state_dict`.

    Args     name: as it was stored. dtype: of the floating-point weights that are returned. folder: where it lies; None
             is the folder of the package.
    Raises   ValueError that names the stored checkpoints, if this is none of them.
    """
    stored = stored_checkpoints(folder)
    if name not in stored:
        raise ValueError(f"no stored checkpoint {name!r}; there are: {', '.join(stored)}")
    file = (_folder() if folder is None else folder) / f"{name}.pt"
    weights: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}


def stored_checkpoints(folder: Path | None = None) -> list[str]:
    """Return the names of all stored checkpoints."""
    place = _folder() if folder is None else folder
    return sorted(file.stem for file in place.glob("*.pt")) if place.is_dir() else []


def _folder() -> Path:
    return Path(str(files("nlcore.data"))) / "checkpoints"


def _stored(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    kept = value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()
    if not bool(torch.isfinite(kept).all()):
        raise ValueError(f"the weight {key} is not finite in {dtype}: keep this model in another dtype")
    return kept.clone()
