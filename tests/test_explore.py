"""Explorers without a browser: what they refuse, what they draw and say, and what a front end is handed."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import types
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nlcore import course, files
from nlcore.course.widgets import controls as slider_rules
from nlcore.course.widgets import draw as painting
from nlcore.course.widgets import frames, page
from tests.browser.demo import momentum_explorer, write_notebook

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
BETAS = course.Slider("beta", "memory β", [0.5, 0.9, 0.99], start=0.9)


def line(update: Any = None, controls: Any = (BETAS,), **settings: Any) -> course.Explorer:
    """Return an explorer of one decaying line; any part of it can be replaced."""
    figure, axes = course.canvas(3.2, 2.0)
    curve = axes.plot(range(20), [1.0] * 20)[0]
    axes.set(ylim=(0, 1.1))

    def decay(beta: float) -> str:
        curve.set_ydata(beta ** np.arange(20))
        return f"With β = {beta:g} the oldest of 20 gradients weighs {beta**19:.2g}."

    traits = {"name": "decay", "title": "A decay", "goal": "reach 0.1", **settings}
    return course.explore(figure, update or decay, controls, **traits)


@pytest.fixture(scope="module")
def demo() -> course.Explorer:
    return momentum_explorer()


def array(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


# Sliders


def test_a_slider_shows_its_values() -> None:
    assert course.Slider("beta", "β", [0.5, 1e-3, 2.0]).shown == ("0.5", "0.001", "2")
    assert course.Slider("beta", "β", [0.5, 0.25], format="{:.0%} kept").shown == ("50% kept", "25% kept")
    assert course.Slider("rule", "rule", ["SGD", "Adam"], format=str.lower).shown == ("sgd", "adam")
    assert course.Slider("nesterov", "look ahead", [False, True]).shown == ("off", "on")


def test_a_slider_takes_arrays_and_near_values() -> None:
    slider = course.Slider("beta", "β", np.linspace(0, 1, 11), start=0.3)
    assert slider.values[3] == np.linspace(0, 1, 11)[3]
    assert slider.position(0.1 + 0.2) == slider.position(slider.start) == 3
    assert course.Slider("steps", "n", range(1, 4)).start == 1
    with pytest.raises(AttributeError):
        slider.start = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("traits", "error", "words"),
    [
        ({"name": "two words"}, ValueError, "keyword of update, like 'beta'; got 'two words'"),
        ({"label": " "}, ValueError, "the label of slider 'beta' is empty"),
        ({"values": [0.5]}, ValueError, "at least 2 values .* got 1"),
        ({"values": [0.5, 0.5]}, ValueError, "a value twice"),
        ({"values": [0.5, float("nan")]}, ValueError, "must be finite"),
        ({"values": [0.5, None]}, TypeError, "a number, a word or a truth value, got None"),
        ({"values": "abc"}, TypeError, "expects a list of values, got 'abc'"),
        ({"values": 3}, TypeError, "expects a list of values, got 3"),
        ({"start": 0.7}, ValueError, "has no value 0.7; choose one of 0.5, 0.9"),
        ({"start": "0.5"}, ValueError, "has no value '0.5'"),
        ({"format": "{:.0f}", "values": [0.6, 0.9]}, ValueError, "shows two values alike: 1, 1"),
        ({"format": ".2f"}, ValueError, "keep braces"),
        ({"format": "{:.2q}"}, ValueError, "format does not fit"),
    ],
)
def test_a_wrong_slider_says_what_is_wrong(traits: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        course.Slider(**{"name": "beta", "label": "β", "values": [0.5, 0.9], **traits})


# What explore refuses


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"controls": []}, TypeError, "controls must be a list of course.Slider.* got none"),
        ({"controls": [0.5]}, TypeError, "got float 0.5"),
        ({"controls": BETAS, "update": lambda gamma: "a"}, ValueError, r"update\(gamma\) expects .* gamma, got beta"),
        ({"controls": [BETAS, BETAS]}, ValueError, "expects sliders named beta, got beta, beta"),
        ({"update": lambda beta, n: "a"}, ValueError, "named beta, n, got beta; give one slider for each"),
        ({"update": "no function"}, TypeError, "update must be a function"),
        ({"controls": [course.Slider("beta", "β", range(121))]}, ValueError, "121 pictures.* at most 120"),
        ({"name": "Not A Name"}, ValueError, "lower-case words joined by hyphens"),
        ({"title": ""}, ValueError, "title is empty"),
        ({"goal": " "}, ValueError, "goal is empty"),
        ({"presets": {"long": {"gamma": 1}}}, ValueError, "preset 'long' sets 'gamma'; the sliders are named beta"),
        ({"presets": {"long": {"beta": 0.7}}}, ValueError, "preset 'long': slider 'beta' has no value 0.7"),
        ({"presets": {"long": {}}}, ValueError, "preset 'long' sets nothing"),
        ({"presets": {"": {"beta": 0.5}}}, ValueError, "label of a preset is empty"),
        ({"update": lambda beta: ""}, ValueError, "what update returns is empty"),
        ({"update": lambda beta: None}, TypeError, "what update returns must be text"),
        ({"update": lambda beta: f"{1 / (beta - 0.99):g}"}, ValueError, r"update\(beta=0.99\) failed: ZeroDiv"),
    ],
)  # fmt: skip
def test_explore_says_what_is_wrong(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        line(**settings)


def test_explore_needs_a_figure() -> None:
    with pytest.raises(TypeError, match="expects a matplotlib Figure, got str; try course.canvas"):
        course.explore("no figure", lambda beta: "a", [BETAS], name="a", title="a", goal="a")


def test_export_needs_an_explorer(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expects what explore.* got str"):
        course.export("no explorer", tmp_path)


def test_an_update_that_remembers_is_found_out() -> None:
    calls: list[float] = []
    with pytest.raises(ValueError, match="another words when it comes back to the start state"):
        line(lambda beta: calls.append(beta) or f"call {len(calls)}")
    figure, axes = course.canvas(3.2, 2.0)

    def adds(beta: float) -> str:
        axes.plot([0, 1], [0, beta])
        return "one line more"

    with pytest.raises(ValueError, match="another picture when it comes back"):
        course.explore(figure, adds, [BETAS], name="adds", title="a", goal="a")


def test_too_many_bytes_are_refused() -> None:
    figure, axes = course.canvas(6.4, 3.2)
    snow = axes.imshow(np.zeros((160, 320)), cmap="gray", vmin=0, vmax=1)

    def fall(seed: int) -> str:
        snow.set_data(np.random.default_rng(seed).random((160, 320)))
        return f"Snow number {seed}."

    with pytest.raises(
        ValueError, match=r"20 pictures take [\d,]+ bytes, at most 250,000 .* about \d+ such pictures would fit"
    ):
        course.explore(figure, fall, [course.Slider("seed", "seed", range(20))], name="snow", title="a", goal="a")


def test_a_figure_of_pyplot_is_not_shown_a_second_time() -> None:
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(2, 1))
    course.explore(figure, lambda beta: f"β is {beta}", [BETAS], name="a", title="a", goal="a")
    assert not pyplot.fignum_exists(figure.number)


# What is drawn and said


def test_every_state_is_drawn_without_a_warning_and_twice_alike() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explorer = momentum_explorer()
        assert len(explorer.states) == 8 * 4
        for values in explorer.states:
            first = explorer.draw(**values)
            explorer.draw(**explorer.start)
            assert explorer.draw(**values) == first
    said = {explorer.draw(**values)[1] for values in explorer.states}
    assert len(said) == len(explorer.states)


def test_pictures_are_opaque_and_of_the_size_of_the_figure() -> None:
    figure = Figure(figsize=(3.0, 2.0), dpi=100, facecolor="none")
    dot = figure.subplots().plot([0, 1], [0, 1])[0]

    def move(beta: float) -> str:
        dot.set_ydata([0, beta])
        return f"β is {beta}"

    explorer = course.explore(figure, move, [BETAS], name="a", title="a", goal="a")
    for png in (explorer.png, explorer.draw(beta=0.5)[0]):
        image = Image.open(io.BytesIO(png))
        assert image.size == (300, 200)
        assert "transparency" not in image.info
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def busy_figure() -> tuple[Figure, Any]:
    """Return a figure with most things that a course draws, and what moves it."""
    figure, ((one, two), (three, four)) = course.canvas(6.4, 4.8, rows=2, cols=2)
    curve = one.plot([0, 1], [0, 1], label="a line")[0]
    one.legend(loc="upper left")
    heat = two.imshow(np.zeros((6, 6)), vmin=0, vmax=1)
    figure.colorbar(heat, ax=two)
    bars = three.bar(range(4), [1.0] * 4)
    note = three.text(1, 0.5, "")
    cloud = four.scatter([0.0], [0.0])
    two.grid(False)

    def move(beta: float) -> str:
        curve.set_ydata([0, beta])
        heat.set_data(np.full((6, 6), beta))
        for bar in bars:
            bar.set_height(beta)
        note.set_text(f"β {beta}")
        cloud.set_offsets([[beta, 2 * beta]])
        one.set(ylim=(0, 1 if beta < 0.95 else 2))
        four.set(xlim=(-1, 1), ylim=(0, 2), xlabel=f"x near {beta:.0f}", title=f"{beta:.0%}")
        return f"β is {beta}"

    return figure, move


def hard_figure() -> tuple[Figure, Any]:
    """Return a figure whose grid lies over an area that moves, and whose ticks change although their limits do not."""
    figure, (one, two) = course.canvas(6.4, 2.4, cols=2)
    area = one.fill([0, 1, 1, 0], [0, 0, 1, 1], zorder=0)[0]
    line = two.plot([0, 1], [0, 1])[0]
    two.set(xlim=(0, 1))

    def move(beta: float) -> str:
        area.set_xy([[0, 0], [1, 0], [1, beta], [0, beta]])
        line.set_ydata([0, beta])
        two.set_xticks([0, 1] if beta > 0.6 else [0, 0.5, 1])
        return f"β is {beta}"

    return figure, move


@pytest.mark.parametrize(("make", "daring"), [(busy_figure, True), (hard_figure, False)])
def test_quick_drawing_gives_the_very_picture_of_slow_drawing(make: Any, daring: bool) -> None:
    figure, move = make()
    explorer = course.explore(figure, move, [BETAS], name="hard", title="a", goal="a")
    assert explorer._painter._daring == daring
    for beta in (0.5, 0.99, 0.9, 0.5, 0.5, 0.9, 0.99, 0.99, 0.5):
        quick = array(explorer.draw(beta=beta)[0])
        explorer.figure.canvas.draw()
        assert np.array_equal(quick, np.asarray(explorer.figure.canvas.buffer_rgba())[..., :3])


def test_drawing_again_is_quicker_than_drawing_all(demo: course.Explorer) -> None:
    import timeit

    quick = min(timeit.repeat(demo._painter.paint, number=1, repeat=15))
    slow = min(timeit.repeat(demo.figure.canvas.draw, number=1, repeat=15))
    assert quick < 0.7 * slow


def test_quick_png_is_a_png_of_those_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    assert np.array_equal(array(painting.quick_png(pixels)), pixels)


# Pictures drawn ahead


def unpacked(explorer: course.Explorer) -> tuple[dict[str, Any], np.ndarray]:
    """Return what the page knows, and the pictures of all states as its script would show them."""
    data = json.loads(re.search(r"const data = (\{.*\});\n", explorer.html).group(1))  # type: ignore[union-attr]
    width, height = data["size"]
    packed = np.frombuffer(zlib.decompress(base64.b64decode(data["pixels"])), np.uint8).reshape(height, -1, width)
    colours = np.frombuffer(base64.b64decode(data["palette"]), np.uint8).reshape(-1, 3)
    assert packed.shape[1] == max(data["order"]) + 1
    shown = [np.where(packed[:, number] == 0, packed[:, 0], packed[:, number]) for number in data["order"]]
    return data, colours[np.array(shown)]


def test_the_page_shows_every_state_as_it_is(demo: course.Explorer) -> None:
    data, pictures = unpacked(demo)
    assert len(pictures) == len(demo.states) == len(data["spoken"])
    for picture, said, values in zip(pictures, data["spoken"], demo.states, strict=True):
        png, words = demo.draw(**values)
        difference = np.abs(picture.astype(int) - array(png))
        assert difference.max() <= 60, "a colour of the palette is far off"
        assert difference.mean() < 0.3
        assert data["words"][said] == words
    assert np.array_equal(pictures[demo.states.index(demo.start)], array(demo.png))


def test_the_same_inputs_give_the_same_bytes() -> None:
    one, other = line(), line()
    assert one.html == other.html
    assert one.png == other.png


def test_pictures_that_look_alike_are_kept_once() -> None:
    figure, axes = course.canvas(3.2, 2.0)
    dot = axes.plot([0], [0], "o")[0]
    axes.set(xlim=(0, 3), ylim=(-1, 1))

    def move(n: int) -> str:
        dot.set_xdata([min(n, 1)])
        return f"n is {n}"

    explorer = course.explore(figure, move, [course.Slider("n", "n", range(4))], name="a", title="a", goal="a")
    data, _ = unpacked(explorer)
    assert data["order"] == [1, 2, 2, 2]
    assert len(data["words"]) == 4


def test_a_palette_keeps_pure_colours() -> None:
    counted = frames.ColourCount()
    picture = np.full((40, 40, 3), 255, np.uint8)
    picture[3, :20] = (0, 114, 178)
    picture[5, :6] = (213, 94, 0)
    picture[20:] = np.random.default_rng(0).integers(0, 256, (20, 40, 3))
    counted.add(picture)
    palette, _ = counted.palette()
    assert palette.shape == (frames.COLOURS, 3)
    assert (palette[1:] == (255, 255, 255)).all(1).any()
    assert (palette[1:] == (0, 114, 178)).all(1).any()


def test_fifty_frames_stay_small(demo: course.Explorer) -> None:
    assert len(demo.html) / len(demo.states) * 50 < page.MAX_BYTES


# What a front end is handed


def test_the_bundle_has_all_views(demo: course.Explorer) -> None:
    data, metadata = demo._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "image/png"}
    title, goal, words = data["text/plain"].split("\n")
    assert (title, goal, words) == (demo.title, f"Goal: {demo.goal}", demo.draw(**demo.start)[1])
    assert metadata == {"image/png": {"alt": words}}
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert (image.mode, image.size) == ("P", (640, 320))
    assert repr(demo) == data["text/plain"]


def test_a_front_end_gets_the_live_view_as_well(demo: course.Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[course.Explorer.__module__], "has_front_end", lambda: True)
    view = demo._repr_mimebundle_()[0][WIDGET_VIEW]
    assert view == {"version_major": 2, "version_minor": 0, "model_id": demo.live().box.model_id}


def test_colab_gets_the_live_view_only(demo: course.Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[course.Explorer.__module__], "has_front_end", lambda: True)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert set(demo._repr_mimebundle_()[0]) == {"text/plain", WIDGET_VIEW}


def test_the_html_asks_for_nothing_and_names_everything(demo: course.Explorer) -> None:
    still = demo.html.split("<script>")[0]
    assert not re.search(r"https?://|//cdn|@import|url\(", demo.html)
    assert "<input" not in still
    assert "<button" not in still
    assert re.search(r'<img width="640" height="320" alt="With memory β = 0.9 and damping 0,', still)
    assert 'role="status" aria-live="polite">With memory β = 0.9' in still
    assert demo.title in still
    assert demo.goal in still
    assert 'lmSuppressShortcuts = "true"' in demo.html
    assert "color:inherit" in still


def test_words_cannot_break_out_of_the_page() -> None:
    evil = "</script><script>alert(1)</script> & <b>\"'"
    explorer = line(lambda beta: f"{evil} {beta}", title=evil, goal=evil, presets={evil: {"beta": 0.5}})
    assert explorer.html.count("<script>") == 1
    assert explorer.html.count("</script>") == 1
    assert "<b>" not in explorer.html
    data, _ = unpacked(explorer)
    assert data["words"][0] == f"{evil} 0.5"
    live = explorer.live()
    assert "<b>" not in live.words.value
    assert "&lt;b&gt;" in live.words.value


# The live view


def test_a_slider_moves_picture_and_words() -> None:
    live = line().live()
    picture, words = live.image.value, live.words.value
    live.handles["beta"].value = 2
    assert live.values == {"beta": 0.99}
    assert live.image.value != picture
    assert "β = 0.99" in live.words.value
    assert live.words.value != words
    assert live.handles["beta"].description == "memory β"


def test_a_preset_draws_once_and_reset_goes_home(demo: course.Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    live = momentum_explorer().live()
    start, calls = live.words.value, []
    draw = live._draw
    monkeypatch.setattr(live, "_draw", lambda **values: calls.append(values) or draw(**values))
    buttons = {button.description: button for button in live.buttons}
    assert list(buttons) == ["short memory", "long memory", "Reset"]
    buttons["long memory"].click()
    assert calls == [{"beta": 0.99, "damping": 0.5}]
    buttons["Reset"].click()
    assert calls[1:] == [{"beta": 0.9, "damping": 0.0}]
    assert live.words.value == start


def test_a_preset_leaves_other_sliders_where_they_are() -> None:
    two = [BETAS, course.Slider("gain", "gain", [1, 2, 3])]
    explorer = line(lambda beta, gain: f"{beta} {gain}", two, presets={"long": {"beta": 0.99}})
    live = explorer.live()
    live.handles["gain"].value = 2
    live.buttons[0].click()
    assert live.values == {"beta": 0.99, "gain": 3}


def test_an_error_is_said_and_the_picture_stays() -> None:
    broken: list[float] = []

    def update(beta: float) -> str:
        if beta in broken:
            raise ArithmeticError("the <loss> overflows")
        return f"β is {beta}"

    live = line(update).live()
    picture = live.image.value
    broken.append(0.99)
    live.handles["beta"].value = 2
    assert "could not be drawn (ArithmeticError: the &lt;loss&gt; overflows)" in live.words.value
    assert live.image.value == picture
    live.buttons[-1].click()
    assert "β is 0.9" in live.words.value


def test_a_real_kernel_hands_out_the_live_view(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(write_notebook(tmp_path / "demo.ipynb"), as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/plain", "text/html", "image/png", WIDGET_VIEW}
    assert output.metadata["image/png"]["alt"] in output.data["text/plain"]


# Files


def test_export_writes_a_whole_page(tmp_path: Path) -> None:
    explorer = line()
    path = course.export(explorer, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "decay.html"
    page = path.read_text(encoding="utf-8")
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert '<meta name="viewport"' in page
    assert "<title>A decay</title>" in page
    assert explorer.html in page
    assert "http" not in page
    before = path.read_bytes()
    course.export(line(), tmp_path / "new" / "folder")
    assert path.read_bytes() == before


def test_an_interrupted_export_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = course.export(line(), tmp_path)
    before = path.read_bytes()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        course.export(line(title="Another title"), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_build_exports_what_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NLCORE_FIGURES", raising=False)
    monkeypatch.chdir(tmp_path)
    line()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("NLCORE_FIGURES", str(tmp_path / "figures"))
    explorer = line()
    assert explorer.html in (tmp_path / "figures" / "interactive" / "decay.html").read_text(encoding="utf-8")


def test_the_bound_on_states_is_what_the_error_says() -> None:
    many = course.Slider("n", "n", range(slider_rules.MAX_FRAMES))
    assert len(slider_rules.check_controls([many], lambda n: "a")[0].values) == slider_rules.MAX_FRAMES
