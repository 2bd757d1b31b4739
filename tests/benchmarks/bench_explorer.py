"""How long a learner waits between a slider key and the new picture, live in JupyterLab and without a kernel.

Run it with `python tests/benchmarks/bench_explorer.py`. It drives headless Chromium: the clock starts with the key
event and stops when the new picture has been decoded (live) or drawn (without a kernel). It prints n, median and 90th
percentile in milliseconds, and its exit code is 1 when a median is above its bar.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nlcore import course  # noqa: E402
from tests.browser.demo import momentum_explorer, write_notebook  # noqa: E402
from tests.browser.lab import close, open_and_run, running_lab  # noqa: E402
from tests.browser.machines import ARGUMENTS, chromium_path, missing  # noqa: E402
from tests.browser.widget import Widget, at_right_end  # noqa: E402

LIVE_BAR_MS, FRAMES_BAR_MS = 100, 30
WARM_UP, PAUSE_MS = 4, 40
VIEW = "application/vnd.jupyter.widget-view+json"

# Starts to watch `target` for a change of `name`; the promise gives the milliseconds since the key event.
WATCH = """([target, name]) => {
  let began;
  document.addEventListener("keydown", (event) => { began = event.timeStamp; }, {capture: true, once: true});
  window.waited = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("the picture did not change within 30 s")), 30000);
    new MutationObserver(async (_, observer) => {
      observer.disconnect();
      if (target.decode) await target.decode();
      resolve(performance.now() - began);
    }).observe(target, {attributes: true, attributeFilter: [name]});
  });
}"""


def measure(page: Any, picture: Any, name: str, keys: Iterator[str], count: int) -> list[float]:
    """Press keys and return how many milliseconds each picture took, without those of the warm-up."""
    waited = []
    for _ in range(WARM_UP + count):
        page.evaluate(WATCH, [picture.element_handle(), name])
        page.keyboard.press(next(keys))
        waited.append(float(page.evaluate("() => window.waited")))
        page.wait_for_timeout(PAUSE_MS)  # a learner who looks before pressing again
    return waited[WARM_UP:]


def there_and_back(first: str = "ArrowRight") -> Iterator[str]:
    """Yield keys that move a slider by one and back."""
    other = "ArrowLeft" if first == "ArrowRight" else "ArrowRight"
    while True:
        yield from (first, other)


def live(browser: Any, notebooks: list[Path], count: int) -> Iterator[tuple[str, list[float]]]:
    """Yield the waiting times of the first slider of every live widget of the notebooks."""
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder) / "lab") as lab:
        demo = write_notebook(Path(folder) / "demo.ipynb")
        for notebook in notebooks or [demo]:
            page = browser.new_page(viewport={"width": 1200, "height": 1000})
            cells = open_and_run(page, lab, lab.add(notebook))
            for cell in cells:
                if any(VIEW in output.get("data", {}) for output in cell["outputs"]):
                    widget = Widget(page, cell["place"])
                    handle = widget.handles.first
                    handle.focus()
                    keys = there_and_back("ArrowLeft" if at_right_end(handle) else "ArrowRight")
                    yield f"{notebook.stem}, cell {cell['place']}", measure(page, widget.image, "src", keys, count)
            close(page)


def kernel_free(browser: Any, pages: list[Path], count: int) -> Iterator[tuple[str, list[float]]]:
    """Yield the waiting times of the first slider of every page."""
    with tempfile.TemporaryDirectory() as folder:
        for path in pages or [course.export(momentum_explorer("demo"), folder)]:
            page = browser.new_page()
            page.goto(path.resolve().as_uri())
            canvas = page.locator(".nl-picture canvas[data-state]").first
            canvas.wait_for()
            page.locator(".nl-row input").first.focus()
            page.keyboard.press("Home")
            yield path.stem, measure(page, canvas, "data-state", there_and_back(), count)
            page.close()


def report(kind: str, bar: int, results: Iterator[tuple[str, list[float]]]) -> bool:
    """Print one line for each widget; return whether every median is below the bar."""
    good = True
    for name, waited in results:
        median, p90 = statistics.median(waited), statistics.quantiles(waited, n=10)[-1]
        good = good and median < bar
        verdict = "below" if median < bar else "ABOVE"
        print(f"{kind:11} {name:44} n {len(waited):3}  median {median:6.1f} ms  p90 {p90:6.1f} ms  "
              f"{verdict} {bar} ms", flush=True)  # fmt: skip
    return good


def everything(arguments: argparse.Namespace) -> tuple[list[list[Path]], list[list[Path]]]:
    """Return the groups of notebooks and pages to measure; an empty group stands for the built-in explorer."""
    if arguments.notebook or arguments.pages:
        return [arguments.notebook] if arguments.notebook else [], [arguments.pages] if arguments.pages else []
    notebooks = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if '"widget"' in path.read_text("utf-8")]
    pages = sorted((ROOT / "figures" / "interactive").glob("*.html"))
    return [[], *([notebooks] if notebooks else [])], [[], *([pages] if pages else [])]


def main() -> int:
    """Measure, print, and return 0 when all medians are below their bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="HTML pages made by course.export")
    parser.add_argument("--notebook", action="append", type=Path, default=[], help="a notebook with live widgets")
    parser.add_argument("--count", type=int, default=30, help="keys for each widget")
    arguments = parser.parse_args()
    reason = missing()
    if reason:
        print(reason)
        return 2
    from playwright.sync_api import sync_playwright

    notebooks, pages = everything(arguments)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        runs: list[tuple[str, int, Callable[..., Any], list[Path]]] = [
            *(("live", LIVE_BAR_MS, live, group) for group in notebooks),
            *(("kernel-free", FRAMES_BAR_MS, kernel_free, group) for group in pages),
        ]
        verdicts = [report(kind, bar, run(browser, group, arguments.count)) for kind, bar, run, group in runs]
        browser.close()
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
