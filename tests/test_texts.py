"""The vendored texts, a learner's own files, vocabularies, windows."""

import hashlib
import math
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from nlcore.tasks.characters import Bytes, Characters, bits_per_character, vocabulary_from, windows
from nlcore.tasks.eras import ERAS, era
from nlcore.tasks.languages import LANGUAGES, language
from nlcore.tasks.texts import open_text, split_text

HASHES = {
    "shakespeare": "8a967c66",
    "austen": "54a2a976",
    "lincoln": "22b35c6d",
    "roosevelt": "6d237e09",
    "obama": "8c302714",
}
MIXED = "Straße, ελληνικά, Ёж, 日本 🙂\n"


# ---- the texts that travel with the package


@pytest.mark.parametrize("name", ERAS)
def test_an_era_is_whole_plain_and_cut_by_position(name: str) -> None:
    text = era(name)
    assert (len(text.train), len(text.test)) == (85_500, 9_500) and text.name == name
    assert text.whole.isascii() and "Gutenberg" not in text.whole and "\r" not in text.whole
    assert era(name, test_part=0.0).train == text.whole and era(name, test_part=0.0).test == ""


def test_the_eras_never_change() -> None:
    found = {name: hashlib.sha256(era(name).whole.encode()).hexdigest()[:8] for name in ERAS}
    assert found == HASHES
    assert "fairest creatures" in era("shakespeare").train and "Kellynch" in era("austen").train


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_is_there(code: str) -> None:
    text = language(code)
    assert 10_000 < len(text.whole) < 13_000 and text.title.startswith(LANGUAGES[code])
    assert len(text.test) == round(len(text.whole) / 10) and text.whole.count("\n") > 80
    greek, russian = (sum(low <= c <= high for c in text.whole) for low, high in (("α", "ω"), ("а", "я")))
    assert (greek > 5000) == (code == "el") and (russian > 5000) == (code == "ru")


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="one of shakespeare, austen, lincoln, roosevelt, obama; got 'milton'"):
        era("milton")
    with pytest.raises(ValueError, match=r"en \(English\), .*ru \(Russian\); got 'English'"):
        language("English")
    for part in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="test_part is the part kept for testing"):
            era("austen", test_part=part)


def test_every_file_of_data_is_named_in_its_provenance() -> None:
    data = Path(str(files("nlcore.data")))
    words = (data / "PROVENANCE.md").read_text(encoding="utf-8")
    held = [file.relative_to(data).as_posix() for file in data.rglob("*") if file.is_file()]
    held = [name for name in held if not name.endswith((".py", ".pyc", "PROVENANCE.md"))]
    assert len([name for name in held if name.endswith(".txt")]) >= 5 + 12
    assert [name for name in held if name not in words] == []


# ---- a file of the learner


def test_a_file_is_read_whatever_wrote_it(tmp_path: Path) -> None:
    for data in (MIXED.encode(), b"\xef\xbb\xbf" + MIXED.encode(), MIXED.encode("utf-16")):
        (tmp_path / "a.txt").write_bytes(data.replace(b"\n", b"\r\n") if b"\x00" not in data else data)
        assert open_text(tmp_path / "a.txt") == MIXED
    (tmp_path / "old.txt").write_bytes("é\rè".encode("cp1252"))
    assert open_text(str(tmp_path / "old.txt"), encoding="cp1252") == "é\nè"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty: expected some pages of plain text, got 0 bytes"),
        (b" \n\n", "is empty"),
        (b"%PDF-1.7 ...", "got a PDF: .*saving it as plain text"),
        (b"PK\x03\x04abc", "Word, EPUB"),
        (bytes(range(256)) * 8, "got a binary file"),
        (b"a\x00b\x01" * 99, "got a binary file"),
        (b"\x01\x02\x03 abc" * 99, "got a binary file"),
        (
            "caf\u00e9 au lait".encode("cp1252"),
            "is not stored as utf-8: byte 0xe9 at position 3; try encoding='cp1252'",
        ),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "book.txt").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        open_text(tmp_path / "book.txt")


def test_a_missing_file_is_named_with_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nor any other .txt file"):
        open_text(tmp_path / "bok.txt")
    with pytest.raises(FileNotFoundError, match="nor a folder"):
        open_text(tmp_path / "nowhere" / "bok.txt")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "book.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match="text files in .*: book.txt, notes.txt"):
        open_text(tmp_path / "bok.txt")
    with pytest.raises(ValueError, match="expected a text file, got the folder"):
        open_text(tmp_path)
    with pytest.raises(ValueError, match="no encoding 'utf-9'"):
        open_text(tmp_path / "book.txt", encoding="utf-9")


# ---- tokens


@pytest.mark.parametrize("words", [Bytes(), Characters(MIXED)])
def test_a_vocabulary_gives_back_what_it_was_given(words) -> None:
    tokens = words.encode(MIXED)
    assert tokens.dtype == torch.int64 and tokens.min() >= 0 and tokens.max() < words.size
    assert words.decode(tokens) == MIXED and words.begins(tokens).sum() == len(MIXED)
    assert len(words.encode("")) == 0 and words.decode(words.encode("")) == ""
    again = vocabulary_from(words.as_plain())
    assert again.size == words.size and again.encode(MIXED).equal(tokens)
    assert repr(words).endswith("any text") or f"{words.size} tokens" in repr(words)


def test_bytes_are_those_of_utf8_and_broken_ones_stay_visible() -> None:
    assert Bytes().encode("aé").tolist() == [97, 0xC3, 0xA9]
    assert Bytes().begins(torch.tensor([97, 0xC3, 0xA9])).tolist() == [True, True, False]
    assert Bytes().decode(torch.tensor([97, 0xC3, 98])) == "a\ufffdb"
    with pytest.raises(ValueError, match="256"):
        Bytes().decode(torch.tensor([256]))


def test_characters_name_what_they_lack() -> None:
    words = Characters("banana")
    assert words.symbols == "abn" and words.encode("nab").tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match=r"has 3 characters and lacks 'k', 'z', 'A'; try Bytes\(\)"):
        words.encode("bankzkA")
    with pytest.raises(ValueError, match=r"tokens lie in 0 .. 2; got 0 .. 3"):
        words.decode(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="got an empty one"):
        Characters("")
    with pytest.raises(ValueError, match="'bytes' or 'characters', got 'words'"):
        vocabulary_from({"kind": "words"})


def test_windows_are_pieces_of_the_text_and_ask_for_the_next_token() -> None:
    text, random = torch.arange(10), torch.Generator().manual_seed(0)
    batch = windows(text, 4, 500, random)
    assert batch.tokens.shape == (500, 4) and batch.targets.equal(batch.tokens + 1) and batch.padding is None
    assert (batch.tokens[:, 1:] - batch.tokens[:, :-1] == 1).all()
    counts = torch.bincount(batch.tokens[:, 0], minlength=10)
    assert (counts[:6] > 50).all() and not counts[6:].any()  # every place where target 9 is the last
    assert windows(text, 4, 500, torch.Generator().manual_seed(0)).tokens.equal(batch.tokens)
    assert windows(text, 9, 1, random).targets.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]


def test_windows_refuse_what_does_not_fit() -> None:
    random = torch.Generator()
    for tokens, length in ((torch.arange(4), 4), (torch.zeros(3, 9, dtype=torch.int64), 2), (torch.arange(4), 0)):
        with pytest.raises(ValueError, match="needs a text of at least"):
            windows(tokens, length, 2, random)
    with pytest.raises(ValueError, match="at least one sequence"):
        windows(torch.arange(9), 4, 0, random)


def test_bits_per_character() -> None:
    assert bits_per_character(math.log(256)) == pytest.approx(8)
    tokens = len(Bytes().encode("éé")) / len("éé")
    assert bits_per_character(math.log(2), tokens) == pytest.approx(2)


def test_a_text_is_cut_without_loss() -> None:
    for size in range(12):
        text = split_text("n", "t", "abcdefghijkl"[:size], 0.25)
        assert text.whole == "abcdefghijkl"[:size] and len(text.test) == round(size / 4)
