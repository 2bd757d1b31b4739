"""The comparison of stored and new outputs: what may differ between two machines, and what may not."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests import notebook_compare
from tests.notebook_tools import ROOT, write


def picture(line_at: int = 200, size: tuple[int, int] = (640, 400), colour: str = "black") -> bytes:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).line([(0, line_at), (size[0], line_at)], fill=colour, width=3)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def printed(text: str) -> list[Any]:
    return [{"output_type": "stream", "name": "stdout", "text": text}]


def shown(**data: Any) -> list[Any]:
    return [{"output_type": "display_data", "data": data, "metadata": {}}]


# ---- texts and numbers


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("accuracy 0.970", "accuracy 0.974"),
        ("loss 1.0000e-09", "loss 3.1e-12"),
        ("loss 12.345", "loss 12.4"),
        ("[-0.004, 2.]", "[ 0.000, 2.01]"),
        ("1 of 0.999", "1 of 1"),
        ("a line that\nis wrapped", "a line\nthat is wrapped"),
        ("−0.5 and 3", "-0.5 and 3"),
    ],
)
def test_numbers_may_differ_a_little(stored: str, fresh: str) -> None:
    assert notebook_compare.differences(printed(stored), printed(fresh)) == []


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("accuracy 0.970", "accuracy 0.920"),
        ("34 steps", "35 steps"),
        ("after 34.", "after 35."),
        ("0.5 a", "0.5 b"),
        ("0.5", "nan"),
        ("0.5", "-0.5"),
        ("x2 = 1", "x3 = 1"),
        ("1 2", "1 2 3"),
        ("yes", ""),
        ("1e-3", "1e+3"),
    ],
)
def test_words_whole_numbers_and_large_changes_are_found(stored: str, fresh: str) -> None:
    assert len(notebook_compare.differences(printed(stored), printed(fresh))) == 1


def test_a_difference_is_shown_with_its_surroundings() -> None:
    (said,) = notebook_compare.differences(printed("a long text with 12 steps"), printed("a long text with 13 steps"))
    assert "was:    a long text with 12 steps" in said
    assert "is now: a long text with 13 steps" in said


@pytest.mark.parametrize(
    ("stored", "fresh", "said"),
    [
        (printed("a"), [], "is only in the stored notebook: stream stdout"),
        ([], printed("a"), "is only in the new notebook: stream stdout"),
        (printed("a"), shown(**{"text/plain": "a"}), "was stream stdout, is now display_data"),
        (shown(**{"text/plain": "a"}), shown(**{"text/plain": "a", "image/png": ""}), "holds image/png, text/plain"),
    ],
)
def test_another_kind_of_output_is_found(stored: list[Any], fresh: list[Any], said: str) -> None:
    assert said in "".join(notebook_compare.differences(stored, fresh))


def test_a_live_widget_is_not_stored_and_not_missed() -> None:
    live = {"text/plain": "a", notebook_compare.LIVE: {"model_id": "1"}}
    assert notebook_compare.differences(shown(**{"text/plain": "a"}), shown(**live)) == []


def test_versions_and_device_do_not_matter_and_other_words_do() -> None:
    config = (ROOT / "tests" / "nbval_sanitize.cfg").read_text()
    patterns = re.findall(r"^regex: (.*)$\n^replace: (.*)$", config, flags=re.MULTILINE)
    assert len(patterns) == 3

    def sanitized(text: str) -> str:
        for regex, replacement in patterns:
            text = re.sub(regex, replacement, text)
        return text

    here = "nlcore 0.1.0 | torch 2.13.0+cpu | device: cpu"
    there = "nlcore 0.2.0rc1 | torch 2.4.1.post2+cu121 | device: cuda"
    assert sanitized(here) == sanitized(there) == "nlcore VERSION | torch VERSION | device: DEVICE"
    assert sanitized("0.25 of 3.14") == "0.25 of 3.14"


# ---- pictures and html


def test_the_same_picture_passes_and_another_one_does_not() -> None:
    assert list(notebook_compare.picture(picture(200), picture(200))) == []
    assert list(notebook_compare.picture(picture(200), picture(200, colour="#303030"))) == []
    assert "looks different" in "".join(notebook_compare.picture(picture(200), picture(240)))
    assert "has the size" in "".join(notebook_compare.picture(picture(), picture(size=(100, 120))))
    assert "not a picture" in "".join(notebook_compare.picture(b"garbage", picture()))
    assert "not a picture" in "".join(notebook_compare.picture(picture()[:100], picture()))


def explorer(words: list[str], order: list[int], key: str = "12345678", extra: str = "") -> str:
    data = {
        "sliders": [{"label": "beta", "shown": ["0.5", "0.9"], "start": 0}], "presets": [], "background": "AAAA",
        "layers": ["AAAA", "BBBB"], "order": order, "words": words, "spoken": list(range(len(words))),
    }  # fmt: skip
    script = f"<script>const data = {json.dumps(data)};\nbegin('waves-{key}')</script>"
    return f'<div id="waves"><img alt="{words[0]}" src="data:image/png;base64,{key}">{extra}</div>{script}'


def test_explorers_are_compared_by_structure_and_words() -> None:
    old = explorer(["beta 0.50 forgets", "beta 0.90 remembers"], [0, 1])
    near = explorer(["beta 0.501 forgets", "beta 0.90 remembers"], [1, 0], key="87654321")
    assert list(notebook_compare.html(old, near)) == []
    for new, said in [
        (explorer(["beta 0.50 forgets", "beta 0.90 forgets"], [0, 1]), "the text differs"),
        (explorer(["beta 0.50 forgets"], [0]), "parts and states"),
        (explorer(["beta 0.50 forgets", "beta 0.90 remembers"], [0, 1], extra="<p>more</p>"), "elements and texts"),
        (old.replace('"beta"', '"gamma"'), "the text differs"),
        (old.replace('id="waves"', 'id="waves" hidden'), "the text differs"),
    ]:
        assert said in "".join(notebook_compare.html(old, new)), said


def test_an_explorer_of_the_course_equals_itself(tmp_path: Path) -> None:
    from nlcore import course

    fig, ax = course.canvas(3.0, 2.0)
    (line,) = ax.plot([0, 1], [0, 0])
    ax.set_ylim(-1, 1)

    def update(slope: float) -> str:
        line.set_ydata([0, slope])
        return f"The line rises by {slope:.2f} from left to right."

    slider = course.Slider("slope", "slope", [0.0, 0.5, 1.0], start=0.5)
    html = course.explore(fig, update, [slider], name="rise", title="A line", goal="Make it flat").html
    assert list(notebook_compare.html(html, html)) == []
    assert "the text differs" in "".join(notebook_compare.html(html, html.replace("rises by 1.00", "rises by 2.00")))


def test_folders_of_figures_are_compared(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        write(tmp_path / folder / "same.png", picture())
        write(tmp_path / folder / "interactive" / "page.html", f"<p>{folder}</p>")
    write(tmp_path / "old" / "gone.png", picture())
    write(tmp_path / "new" / "added.png", picture())
    found = "\n".join(notebook_compare.files(tmp_path / "old", tmp_path / "new"))
    assert "figures/gone.png is stored, but no notebook makes it" in found
    assert "figures/added.png is made by a notebook, but not stored" in found
    assert "figures/interactive/page.html: the text differs" in found
    assert "same.png" not in found
