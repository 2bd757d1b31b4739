"""The vendored data: complete, in range, always split the same way."""

import hashlib
from importlib.resources import files

import pytest
import torch

from nlcore.tasks import digits, fashion
from nlcore.tasks.images import DIGIT_NAMES, FASHION_NAMES


@pytest.mark.parametrize(
    ("load", "train", "test", "side", "names"),
    [(digits, 1400, 397, 8, DIGIT_NAMES), (fashion, 3000, 1000, 14, FASHION_NAMES)],
)
def test_sizes_ranges_and_classes(load, train: int, test: int, side: int, names) -> None:
    images = load()
    assert images.x_train.shape == (train, side * side) and images.x_test.shape == (test, side * side)
    assert images.y_train.shape == (train,) and images.y_test.shape == (test,)
    assert images.side == side and images.names == names and len(names) == 10
    for x, y in ((images.x_train, images.y_train), (images.x_test, images.y_test)):
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.min() == 0.0 and 0.99 <= x.max() <= 1.0
        assert y.unique().tolist() == list(range(10))


def test_the_split_never_changes() -> None:
    images = digits()
    labels = bytes(images.y_test.tolist())
    assert hashlib.sha256(labels).hexdigest()[:16] == "e5cbefc038103ce2"
    stored = {tuple(row) for row in images.x_train.tolist()} & {tuple(row) for row in images.x_test.tolist()}
    assert not stored, "no test image may also be a training image"


def test_a_digit_can_be_read() -> None:
    images = digits()
    zeros, ones = images.x_train[images.y_train == 0].mean(0), images.x_train[images.y_train == 1].mean(0)
    middle = 8 * 3 + 4  # a pixel inside the ring of the zero
    assert zeros[middle] < 0.2 < ones[middle]


def test_dtype_and_device_are_respected() -> None:
    images = digits(device="cpu", dtype=torch.float64)
    assert images.x_train.dtype == torch.float64 and images.y_train.device.type == "cpu"
    with pytest.raises(TypeError, match="floating-point"):
        digits(dtype=torch.int64)


def test_provenance_and_licences_travel_with_the_data() -> None:
    words = (files("nlcore.data") / "PROVENANCE.md").read_text()
    for name in ("digits8.npz", "fashion14.npz", "CC BY 4.0", "MIT"):
        assert name in words
    assert "Zalando" in (files("nlcore.data") / "LICENSES" / "fashion-mnist.MIT.txt").read_text()
