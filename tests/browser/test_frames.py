"""The kernel-free pages in a real browser, opened from a file, with the network cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nlcore import course
from tests.browser.demo import momentum_explorer
from tests.browser.lab import PATIENCE_MS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "figures" / "interactive").glob("*.html"))
LOCAL = ("file:", "data:", "about:")

pytestmark = pytest.mark.browser


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Yield a function that opens a file; at the end nothing may have failed or asked for the network."""
    contexts, problems = [], []

    def refuse(route: Any) -> None:
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            problems.append(f"asked for {route.request.url}")
            route.abort()

    def open_file(path: Path, **traits: Any) -> Any:
        context = chromium.new_context(offline=True, **traits)
        contexts.append(context)
        context.route("**/*", refuse)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of an explorer that is made here, so that there is always one to test."""
    return course.export(momentum_explorer(), tmp_path_factory.mktemp("pages"))


@pytest.fixture(params=[None, *PAGES], ids=["demo", *(page.stem for page in PAGES)])
def page_file(request: pytest.FixtureRequest, demo: Path) -> Path:
    """Return the demonstration page and, one after the other, every page in figures/interactive."""
    return request.param or demo


def pixels(page: Any) -> str:
    """Return the picture that is shown, as text."""
    return str(page.locator(".nl-picture canvas").evaluate("canvas => canvas.toDataURL()"))


def words(page: Any) -> str:
    return str(page.locator(".nl-words [role=status]").inner_text())


def state(page: Any) -> int:
    """Return the number of the state whose picture is shown, once there is one."""
    return int(page.locator(".nl-picture canvas").get_attribute("data-state"))


def press(page: Any, key: str) -> None:
    """Press a key and wait until the picture is that of the sliders."""
    page.keyboard.press(key)
    settled(page)


def settled(page: Any) -> None:
    """Wait until the picture shown is the one that the sliders ask for."""
    page.wait_for_function(
        """() => {
          const number = (each) => Number(each), inputs = [...document.querySelectorAll(".nl-row input")];
          const asked = inputs.reduce((at, input) => at * (number(input.max) + 1) + number(input.value), 0);
          return number(document.querySelector(".nl-picture canvas")?.dataset.state ?? -1) === asked;
        }"""
    )


def test_every_slider_moves_picture_and_words(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(page_file)
    settled(page)
    sliders = page.locator(".nl-row input")
    assert sliders.count() > 0
    for number in range(sliders.count()):
        slider = sliders.nth(number)
        slider.focus()
        press(page, "Home")
        picture, said, shown = pixels(page), words(page), slider.get_attribute("aria-valuetext")
        for _ in range(int(slider.get_attribute("max"))):
            press(page, "ArrowRight")
            if pixels(page) != picture and words(page) != said:
                break
        assert pixels(page) != picture, f"slider {number} never changes the picture"
        assert words(page) != said, f"slider {number} never changes the words"
        assert slider.get_attribute("aria-valuetext") != shown
        page.locator(".nl-buttons button").last.click()
        settled(page)


def test_presets_and_reset(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(page_file)
    settled(page)
    start, picture, said = state(page), pixels(page), words(page)
    buttons = page.locator(".nl-buttons button")
    reset = buttons.last
    assert reset.inner_text() == "Reset"
    moved = 0
    for number in range(buttons.count() - 1):
        buttons.nth(number).focus()
        press(page, "Enter")
        moved += state(page) != start
        reset.focus()
        press(page, "Enter")
        assert (state(page), pixels(page), words(page)) == (start, picture, said)
    assert moved or buttons.count() == 1, "no preset goes anywhere"


def test_every_slider_and_picture_has_a_name(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(page_file)
    settled(page)
    assert page.get_by_role("img", name=words(page)).count() == 1
    sliders = page.locator(".nl-row")
    for number in range(sliders.count()):
        label = sliders.nth(number).locator("span").first.inner_text()
        assert page.get_by_role("slider", name=label, exact=True).count() == 1


def test_all_states_agree_with_the_words_and_a_reload_starts_afresh(demo: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(demo)
    settled(page)
    page.locator(".nl-row input").first.focus()
    for key in ("End", "ArrowLeft", "PageUp", "Home"):
        press(page, key)
        shown = page.locator(".nl-row .nl-value").first.inner_text()
        assert f"memory β = {shown} " in words(page)
    assert page.locator(".nl-row input").first.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_without_scripts_there_is_the_start_picture_with_its_words(
    page_file: Path, open_page: Callable[..., Any]
) -> None:
    page = open_page(page_file, java_script_enabled=False)
    image = page.locator(".nl-picture img")
    assert image.get_attribute("alt") == words(page)
    assert image.bounding_box()["width"] > 100
    assert page.locator("input, button").count() == 0


def test_several_explorers_share_a_page(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    one, other = momentum_explorer("one"), momentum_explorer("other")
    file = tmp_path / "both.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{one.html}{other.html}{one.html}", encoding="utf-8")
    page = open_page(file)
    page.wait_for_function("() => document.querySelectorAll('canvas[data-state]').length === 3")
    before = page.locator("canvas").evaluate_all("all => all.map((canvas) => canvas.dataset.state)")
    page.locator(".nl-explorer").nth(1).locator("input").first.focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"() => document.querySelectorAll('canvas')[1].dataset.state !== '{before[1]}'")
    after = page.locator("canvas").evaluate_all("all => all.map((canvas) => canvas.dataset.state)")
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_nothing_is_cut_off_on_a_phone_or_on_a_dark_page(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(page_file)
    settled(page)
    for width, scheme, colour in ((400, "light", "rgb(0, 0, 0)"), (1200, "dark", "rgb(255, 255, 255)")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        text, back = page.evaluate(
            "() => [getComputedStyle(document.querySelector('.nl-goal')).color, "
            "getComputedStyle(document.querySelector('.nl-picture')).backgroundColor]"
        )
        assert (text, back) == (colour, "rgb(255, 255, 255)")
