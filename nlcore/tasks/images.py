"""Two small sets of real images: handwritten digits (8x8) and Fashion-MNIST (14x14)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

DIGITS_TRAIN = 1400
DIGIT_NAMES = tuple(str(digit) for digit in range(10))
FASHION_NAMES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip


@dataclass(frozen=True)
class Images:
    """A labelled set of images, flattened to vectors with pixels in [0, 1].

    `x_train` (N, pixels) and `x_test` (M, pixels) floating point; `y_train` (N,) and `y_test` (M,) class numbers,
    int64; `names` one word a class; `side` height and width of an image in pixels.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    names: tuple[str, ...]
    side: int


def digits(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Images:
    """Return 1,797 handwritten digits of 8x8 pixels: 1,400 to train on, 397 to test on; the split is always the same.

    Args     device, dtype: of the images; labels are int64.
    Returns  Images with 64 pixels and 10 classes.
    Source   Alpaydin and Kaynak 1998, UCI repository, CC BY 4.0; see nlcore/data/PROVENANCE.md.
    """
    raw = _load("digits8.npz")
    order = np.random.RandomState(0).permutation(len(raw["y"]))  # this stream is frozen: the same in every numpy
    x, y = raw["x"][order], raw["y"][order]
    n = DIGITS_TRAIN
    return _images((x[:n], y[:n], x[n:], y[n:]), 16.0, DIGIT_NAMES, device, dtype)


def fashion(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Images:
    """Return 4,000 pieces of clothing of 14x14 pixels: 3,000 to train on, 1,000 to test on.

    Args     device, dtype: of the images; labels are int64.
    Returns  Images with 196 pixels and 10 classes.
    Source   Fashion-MNIST, Xiao, Rasul, Vollgraf 2017, MIT licence; see nlcore/data/PROVENANCE.md.
    """
    raw = _load("fashion14.npz")
    parts = (raw["x_train"], raw["y_train"], raw["x_test"], raw["y_test"])
    return _images(parts, 255.0, FASHION_NAMES, device, dtype)


def _load(name: str) -> dict[str, np.ndarray]:
    with (files("nlcore.data") / name).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _images(
    parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    brightest: float,
    names: tuple[str, ...],
    device: torch.device | str,
    dtype: torch.dtype,
) -> Images:
    if not dtype.is_floating_point:
        raise TypeError(
            f"images are returned as floating-point numbers in [0, 1], got dtype {dtype}; try torch.float32"
        )

    def pixels(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x.reshape(len(x), -1)).to(device=device, dtype=dtype) / brightest

    def labels(y: np.ndarray) -> Tensor:
        return torch.from_numpy(y.astype(np.int64)).to(device)

    x_train, y_train, x_test, y_test = parts
    side = x_train.shape[-1]
    return Images(pixels(x_train), labels(y_train), pixels(x_test), labels(y_test), names, side)
