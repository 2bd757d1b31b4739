"""Claims, figures, sources, the doctor: what teaches, tested."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import nlcore
from nlcore import course, files
from nlcore.course import figures, style
from nlcore.course.files import FIGURES_VARIABLE


def test_a_claim_prints_its_sentence_with_the_numbers(capsys: pytest.CaptureFixture) -> None:
    course.claim("{a:.2f} is less than {b}", torch.tensor(True), a=torch.tensor(0.123), b=3)
    assert capsys.readouterr().out == "✓ 0.12 is less than 3\n"


def test_a_false_claim_raises_with_its_sentence(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(course.ClaimError, match="does not hold here: 2 is less than 1"):
        course.claim("{a} is less than {b}", np.bool_(False), a=2, b=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("sentence", "holds", "numbers", "error", "words"),
    [
        ("", True, {}, ValueError, "sentence is empty"),
        ("no number", True, {"a": 1}, ValueError, "never uses a"),
        ("{a} and {b}", True, {"a": 1}, ValueError, "uses 'b'"),
        ("fine", [True], {}, TypeError, "one truth value, got list"),
        ("fine", 1, {}, TypeError, "one truth value, got int"),
        ("fine", torch.tensor([True, False]), {}, TypeError, "many truth values"),
    ],
)
def test_claims_that_cannot_be_judged(sentence, holds, numbers, error, words) -> None:
    with pytest.raises(error, match=words):
        course.claim(sentence, holds, **numbers)


def test_long_claims_break_between_words(capsys: pytest.CaptureFixture) -> None:
    course.claim("word " * 60 + "end", True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 92 and all(line.startswith("  ") for line in lines[1:])


def drawing() -> Figure:
    fig, ax = course.canvas(4, 2)
    ax.plot([0, 1, 2], [3, 1, 2], **style.STYLES[0])
    ax.set(title="It falls, then rises", xlabel="step", ylabel="loss")
    return fig


def test_a_figure_is_opaque_small_and_the_same_bytes_each_time() -> None:
    one, two = (
        course.figure(drawing(), "a-figure", alt="from 3 to 1"),
        course.figure(drawing(), "a-figure", alt="from 3 to 1"),
    )
    assert one.png == two.png and b"matplotlib" not in one.png.lower()
    picture = Image.open(io.BytesIO(one.png))
    assert picture.mode == "P" and picture.size == (400, 200) and "transparency" not in picture.info
    assert len(picture.getcolors()) <= 64 and len(one.png) < 8000


def test_a_figure_speaks() -> None:
    picture = course.figure(drawing(), "a-figure", alt="  the loss falls\n from 3 to 1 ")
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == repr(picture) == "the loss falls from 3 to 1"
    assert metadata["image/png"]["alt"] == picture.alt
    assert set(data) == {"image/png", "text/plain"}


@pytest.mark.parametrize("alt", ["", "   ", "\n"])
def test_an_empty_alt_is_refused(alt: str) -> None:
    with pytest.raises(ValueError, match="alt is empty"):
        course.figure(drawing(), "a-figure", alt=alt)


def test_other_bad_figures_are_refused() -> None:
    with pytest.raises(TypeError, match="alt must be text"):
        course.figure(drawing(), "a-figure", alt=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expects a matplotlib Figure, got list"):
        course.figure([1], "a-figure", alt="x")  # type: ignore[arg-type]
    for name in ("", "A Figure", "../up", "under_score", "-x"):
        with pytest.raises(ValueError, match="joined by hyphens"):
            course.figure(drawing(), name, alt="x")
    with pytest.raises(ValueError, match="colours"):
        figures.png_bytes(drawing(), colours=1)


def test_figures_are_saved_only_when_asked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FIGURES_VARIABLE, raising=False)
    course.figure(drawing(), "not-saved", alt="x y")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(FIGURES_VARIABLE, str(tmp_path / "out"))
    picture = course.figure(drawing(), "saved", alt="x y")
    assert (tmp_path / "out" / "saved.png").read_bytes() == picture.png


def test_an_interrupted_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch) -> None:
    path = files.write_atomic(tmp_path / "a.txt", "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def _srgb_to_lab(colour: str, matrix: np.ndarray) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(matrix @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


VISION = {  # Machado, Oliveira, Fernandes 2009, full severity
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("vision", VISION)
def test_line_colours_stay_apart_for_every_eye(vision: str) -> None:
    colours = [entry["color"] for entry in style.STYLES]
    seen = [_srgb_to_lab(colour, np.array(VISION[vision])) for colour in colours]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 10, "two colours look alike"


def test_no_line_is_told_by_colour_alone() -> None:
    assert len({str(entry["linestyle"]) for entry in style.STYLES}) == len(style.STYLES)
    assert len({entry["marker"] for entry in style.STYLES}) == len(style.STYLES)


def test_show_prints_the_source_under_test(capsys: pytest.CaptureFixture) -> None:
    course.show(nlcore.memory.read, nlcore.optimizers.Adam.update)
    shown = capsys.readouterr().out
    assert shown.startswith("# nlcore.memory.read\ndef read(")
    assert "# nlcore.optimizers.adam.Adam.update\ndef update(self" in shown


@pytest.mark.parametrize("thing", [3, "memory", nlcore.optimizers.SGD([torch.nn.Parameter(torch.ones(1))]), len])
def test_show_refuses_what_has_no_source(thing) -> None:
    with pytest.raises(TypeError, match="show|built in"):
        course.show(thing)
    with pytest.raises(TypeError, match="at least one"):
        course.show()


def test_doctor_from_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "nlcore.course.doctor"], capture_output=True, text=True, check=True)
    for word in ("Python", "torch", "ipywidgets", "device", "front end", "1.0 became 0.5", "All is well."):
        assert word in done.stdout


def test_doctor_names_what_is_missing_or_old(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    from nlcore.course import checkup

    monkeypatch.setattr(checkup, "NEEDED", {"torch": "99.0", "no-such-package": "1.0"})
    assert course.doctor() is False
    out = capsys.readouterr().out
    assert "✗ torch" in out and "✗ no-such-package is not installed; run: pip install" in out


def test_start_says_what_it_runs_on(capsys: pytest.CaptureFixture) -> None:
    device = course.start()
    assert device.type in ("cpu", "cuda")
    words = f"nlcore {nlcore.__version__} | torch {torch.__version__} | device: {device.type}\n"
    assert capsys.readouterr().out == words


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="claim"):
        course.no_such_thing  # noqa: B018
    assert set(course.__all__) <= set(dir(course))
    assert all(getattr(course, name) is not None for name in course.__all__)
