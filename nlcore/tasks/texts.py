"""A text: read from a file with errors that help, and cut by position into a part to train on and a part to test on."""

from __future__ import annotations

import codecs
import difflib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

TEST_PART = 0.1
# Files that people take for texts, by their first bytes.
KINDS = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a Word, EPUB or other zipped file",
    b"\xd0\xcf\x11\xe0": "an old Word file",
    b"\x1f\x8b": "a compressed file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"{\\rtf": "an RTF file",
}


@dataclass(frozen=True)
class Text:
    """A text in two parts: `train`, the beginning, and `test`, the end, which is kept for measuring.

    `name` is short, `title` says what it is.
    """

    name: str
    title: str
    train: str
    test: str

    @property
    def whole(self) -> str:
        """Both parts, as they stand in the source."""
        return self.train + self.test


def split_text(name: str, title: str, text: str, test_part: float = TEST_PART) -> Text:
    """Cut a text by position: the end is for testing.

    Args     name, title: of the text. text: all of it. test_part: how much of it is for testing, 0 <= test_part < 1.
    Raises   ValueError for another part.
    """
    if not 0.0 <= test_part < 1.0:
        raise ValueError(f"test_part is the part kept for testing, in [0, 1); got {test_part}; try {TEST_PART}")
    cut = len(text) - round(len(text) * test_part)
    return Text(name, title, text[:cut], text[cut:])


def packaged_text(folder: str, file: str) -> str:
    """Return a text of `nlcore.data`."""
    return (files("nlcore.data") / folder / file).read_text(encoding="utf-8")


def open_text(path: str | Path, encoding: str = "utf-8") -> str:
    r"""Return the text of a file, every end of line as "\n", without a byte order mark.

    Args     path: a file of plain text. encoding: how its characters are stored.
    Raises   FileNotFoundError that names texts nearby; ValueError if it is a folder, empty, no text, or stored in
             another encoding.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}: {_nearby(path)}")
    if path.is_dir():
        raise ValueError(f"expected a text file, got the folder {path}: {_nearby(path / 'text.txt')}")
    data = path.read_bytes()
    for start, kind in KINDS.items():
        if data.startswith(start):
            raise ValueError(f"expected plain text, got {kind}: {path}; try saving it as plain text (.txt) first")
    text = _decoded(data, encoding, path).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise ValueError(f"the file {path} is empty: expected some pages of plain text, got {len(data)} bytes")
    strange = sum(not (c.isprintable() or c.isspace()) for c in text[:10_000])
    if "\x00" in text or strange > len(text[:10_000]) / 20:
        raise ValueError(f"expected plain text, got a binary file: {path}; try saving it as plain text (.txt) first")
    return text


def _decoded(data: bytes, encoding: str, path: Path) -> str:
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        codecs.lookup(encoding)
        return data.decode("utf-16" if marked else encoding).removeprefix("\ufeff")
    except LookupError:
        raise ValueError(f"there is no encoding {encoding!r}; try 'utf-8', 'cp1252' or 'utf-16'") from None
    except UnicodeDecodeError as error:
        if b"\x00" in data:
            found = f"got a binary file: {path}; try saving it as plain text (.txt) first"
            raise ValueError(f"expected plain text, {found}") from None
        raise ValueError(
            f"{path} is not stored as {encoding}: byte {data[error.start]:#04x} at position {error.start}; try "
            "encoding='cp1252' (older Windows texts), or save it as UTF-8"
        ) from None


def _nearby(path: Path) -> str:
    """Return what may have been meant: the text files in the folder, the most alike first."""
    if not path.parent.is_dir():
        return f"nor a folder {path.parent}"
    texts = sorted(file.name for file in path.parent.glob("*.txt"))
    if not texts:
        return "nor any other .txt file in its folder; in Colab, upload it with the folder sign on the left"
    alike = difflib.get_close_matches(path.name, texts, n=5, cutoff=0.0)
    return f"text files in {path.parent.resolve()}: {', '.join(alike)}"
