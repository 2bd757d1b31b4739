"""An explorer as a piece of HTML that needs no kernel, no network and no library.

Without scripts (GitHub, print, an untrusted notebook) it is the start picture with its words. With them, a few lines
of JavaScript add native sliders and buttons and show the pictures that were drawn ahead.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from html import escape

from nlcore.course.widgets.controls import Slider
from nlcore.course.widgets.frames import Frames, base64_text

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

MAX_BYTES = 250_000  # of the HTML: half of what a whole notebook may take
_FRAME = 6  # pixels of white around the picture, so that nothing touches a dark page

_STYLE = """
.nl-explorer{max-width:var(--nl-width);color:inherit;line-height:1.5;margin:.5em 0}
.nl-explorer .nl-title{font-weight:600;font-size:1.1em}
.nl-explorer .nl-controls{margin:.6em 0}
.nl-explorer .nl-row{display:grid;grid-template-columns:var(--nl-label) minmax(6em,1fr) var(--nl-value);
 column-gap:.8em;align-items:center;min-height:2em;margin:0}
.nl-explorer .nl-row input{width:100%;margin:0;accent-color:#0072B2;cursor:pointer}
.nl-explorer .nl-row .nl-value{font-variant-numeric:tabular-nums;text-align:right}
.nl-explorer .nl-buttons{display:flex;flex-wrap:wrap;gap:.5em;margin-top:.4em}
.nl-explorer button{font:inherit;color:inherit;background:transparent;border:1px solid;
 border-color:color-mix(in srgb,currentColor 45%,transparent);border-radius:4px;padding:.15em .8em;cursor:pointer}
.nl-explorer button:hover{background:color-mix(in srgb,currentColor 12%,transparent)}
.nl-explorer button:focus-visible,.nl-explorer input:focus-visible{outline:2px solid #56B4E9;outline-offset:2px}
.nl-explorer .nl-picture{background:#fff;border-radius:4px;padding:@FRAME@px;margin:.6em 0}
.nl-explorer .nl-picture>*{display:block;width:100%;max-width:none;height:auto;margin:0}
.nl-explorer .nl-words{display:grid}
.nl-explorer .nl-words>*{grid-area:1/1}
.nl-explorer .nl-longest{visibility:hidden}
@media(max-width:480px){.nl-explorer .nl-row{grid-template:"label value" "input input"/1fr auto;row-gap:.2em;
 margin-bottom:.5em}.nl-explorer .nl-row input{grid-area:input}}
"""


_SCRIPT = """
(() => {
if (!("DecompressionStream" in window)) return;
const data = @DATA@;
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const unpack = async (text) => {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};
const [width, height] = data.size, count = Math.max(...data.order) + 1;
const colours = bytes(data.palette), pixels = unpack(data.pixels);
const copy = (store, number, target) => {
  for (let y = 0, to = 0; y < height; y++) {
    let back = y * count * width, layer = back + number * width;
    for (let x = 0; x < width; x++, back++, layer++) {
      const entry = 3 * (store[layer] || store[back]);
      target[to++] = colours[entry];
      target[to++] = colours[entry + 1];
      target[to++] = colours[entry + 2];
      target[to++] = 255;
    }
  }
};
const make = (tag, traits, ...inside) => {
  const node = Object.assign(document.createElement(tag), traits);
  node.append(...inside);
  return node;
};
const begin = (root) => {
  root.dataset.ready = "yes";
  const places = data.sliders.map((slider) => slider.start);
  const [picture, words] = [".nl-picture", ".nl-words"].map((name) => root.querySelector(name));
  const still = picture.querySelector("img"), status = words.querySelector("[role=status]");
  const canvas = make("canvas", {width, height});
  const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  canvas.setAttribute("role", "img");
  const rows = data.sliders.map((slider, i) => {
    const input = make("input", {type: "range", min: 0, max: slider.shown.length - 1, step: 1});
    input.dataset.lmSuppressShortcuts = "true";
    input.addEventListener("input", () => { places[i] = Number(input.value); show(); });
    const value = make("span", {className: "nl-value"});
    value.setAttribute("aria-hidden", "true");
    return {input, value, row: make("label", {className: "nl-row"}, make("span", {}, slider.label), input, value)};
  });
  let at = -1;
  const paint = async () => {
    const asked = at, store = await pixels;
    if (asked !== at) return;
    copy(store, data.order[at], image.data);
    pen.putImageData(image, 0, 0);
    canvas.dataset.state = at;
    still.replaceWith(canvas);
  };
  const show = () => {
    at = 0;
    data.sliders.forEach((slider, i) => {
      at = at * slider.shown.length + places[i];
      const shown = slider.shown[places[i]];
      rows[i].input.value = places[i];
      rows[i].input.setAttribute("aria-valuetext", shown);
      rows[i].value.textContent = shown;
    });
    status.textContent = data.words[data.spoken[at]];
    canvas.setAttribute("aria-label", status.textContent);
    paint();
  };
  const button = (label, goal) => {
    const node = make("button", {type: "button"}, label);
    node.dataset.lmSuppressShortcuts = "true";
    node.addEventListener("click", () => {
      goal.forEach((place, i) => { places[i] = place ?? places[i]; });
      show();
    });
    return node;
  };
  const all = [...data.presets, ["Reset", [...places]]];
  const buttons = make("div", {className: "nl-buttons"}, ...all.map(([label, goal]) => button(label, goal)));
  picture.before(make("div", {className: "nl-controls"}, ...rows.map((each) => each.row), buttons));
  const longest = make("span", {className: "nl-longest"}, data.words.reduce((a, b) => a.length < b.length ? b : a));
  longest.setAttribute("aria-hidden", "true");
  words.append(longest);
  show();
};
document.querySelectorAll('[data-nl-explorer="@KEY@"]:not([data-ready])').forEach(begin);
})();
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root{{color-scheme:light dark}}
body{{font:16px/1.5 {fonts};max-width:{width}px;margin:1.5rem auto;padding:0 1rem}}
</style>
</head>
<body>
<main>
{fragment}
</main>
</body>
</html>
"""


def fragment(
    *,
    name: str,
    title: str,
    goal: str,
    size: tuple[int, int],
    sliders: Sequence[Slider],
    presets: Mapping[str, Mapping[str, int]],
    frames: Frames,
    words: Sequence[str],
    start: int,
) -> str:
    """Return the HTML of one explorer, to be put into any page, once or several times.

    Args     name: of the explorer. size: width and height of the picture. sliders, presets: as checked. frames: the
             pictures. words: the words of each state, in the order of the frames. start: number of the start state.
    """
    data = _data(size, sliders, presets, frames, words)
    key = f"{name}-{hashlib.sha256(data.encode()).hexdigest()[:8]}"
    label_width = max(len(slider.label) for slider in sliders)
    value_width = max(len(shown) for slider in sliders for shown in slider.shown)
    width, height = size
    return (
        f'<div class="nl-explorer" data-nl-explorer="{key}" role="group" aria-label="{escape(title)}" '
        f'style="--nl-width:{width + 2 * _FRAME}px;--nl-label:{label_width}ch;--nl-value:{value_width}ch">\n'
        f"<style>{_STYLE.replace('@FRAME@', str(_FRAME))}</style>\n"
        f'<div class="nl-title">{escape(title)}</div>\n'
        f'<div class="nl-goal"><strong>Goal:</strong> {escape(goal)}</div>\n'
        f'<div class="nl-picture"><img width="{width}" height="{height}" alt="{escape(words[start])}" '
        f'src="data:image/png;base64,{base64_text(frames.start)}"></div>\n'
        f'<div class="nl-words"><span role="status" aria-live="polite">{escape(words[start])}</span></div>\n'
        f"</div>\n<script>{_SCRIPT.replace('@KEY@', key).replace('@DATA@', data)}</script>"
    )


def _data(
    size: tuple[int, int],
    sliders: Sequence[Slider],
    presets: Mapping[str, Mapping[str, int]],
    frames: Frames,
    words: Sequence[str],
) -> str:
    """Return what the script shows, as JSON that cannot end the script element."""
    spoken = list(dict.fromkeys(words))
    place = {text: number for number, text in enumerate(spoken)}
    data = {
        "size": size,
        "sliders": [
            {"label": slider.label, "shown": slider.shown, "start": slider.position(slider.start)} for slider in sliders
        ],
        "presets": [[label, [goal.get(slider.name) for slider in sliders]] for label, goal in presets.items()],
        "palette": base64_text(frames.palette),
        "pixels": base64_text(frames.pixels),
        "order": frames.order,
        "words": spoken,
        "spoken": [place[text] for text in words],
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def check_bytes(html: str, count: int) -> None:
    """Raise ValueError if the HTML of `count` pictures is too large to travel inside a notebook."""
    size = len(html.encode())
    if size > MAX_BYTES:
        fits = math.floor(count * MAX_BYTES / size)
        raise ValueError(
            f"{count} pictures take {size:,} bytes, at most {MAX_BYTES:,} are allowed; about {fits} such pictures "
            "would fit: give fewer values, a smaller figure, or move less from state to state"
        )


def page(title: str, width: int, content: str) -> str:
    """Return a complete web page around one explorer."""
    return _PAGE.format(title=escape(title), fonts=FONTS, width=width + 2 * _FRAME, fragment=content)
