"""Draw `pair.svg`: two halves, two pipes that cross, and the holders of a half.

Run it with `python docs/draw_pair.py` after a change.
"""

from pathlib import Path
from typing import Final

TARGET: Final = Path(__file__).with_name("pair.svg")
WIDTH: Final = 960
HEIGHT: Final = 384

STYLE: Final = """
  .card { fill: #fbfcfe; stroke: #d3dae4; }
  .pair { fill: none; stroke: #9aa7b8; stroke-dasharray: 6 6; }
  .half { fill: #ffffff; stroke: #33415c; stroke-width: 2; }
  .taker { fill: #ffffff; stroke: #9aa7b8; }
  .taken { fill: #e6f4ec; stroke: #1c7c4a; stroke-width: 2; }
  .link { fill: none; stroke: #9aa7b8; stroke-dasharray: 2 5; }
  .link-taken { fill: none; stroke: #1c7c4a; stroke-width: 3; }
  .wall { fill: none; stroke-width: 26; }
  .bore { fill: none; stroke-width: 21; }
  .one .wall { stroke: #2563c9; } .one .bore { stroke: #dfeafc; }
  .two .wall { stroke: #b4540a; } .two .bore { stroke: #fdeedd; }
  .one .message, .one .tip { fill: #2563c9; }
  .two .message, .two .tip { fill: #b4540a; }
  text { fill: #1b2536; font: 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
         text-anchor: middle; }
  .name { font-size: 19px; font-weight: 600; }
  .code { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
  .dim { fill: #566479; }
"""
DARK: Final = """
    .card { fill: #151a22; stroke: #333e4f; }
    .pair { stroke: #66758b; }
    .half { fill: #1f2733; stroke: #c3cede; }
    .taker { fill: #1a212b; stroke: #66758b; }
    .taken { fill: #173527; stroke: #5fcf94; }
    .link { stroke: #66758b; }
    .link-taken { stroke: #5fcf94; }
    .one .wall { stroke: #6fa5f7; } .one .bore { stroke: #1b2d4b; }
    .two .wall { stroke: #eda25b; } .two .bore { stroke: #432c17; }
    .one .message, .one .tip { fill: #6fa5f7; }
    .two .message, .two .tip { fill: #eda25b; }
    text { fill: #e7ecf4; }
    .dim { fill: #a4b1c4; }
"""

HALF_WIDTH: Final = 116
HALF_TOP, HALF_BOTTOM = 92, 300
SEND, RECEIVE = 134, 258
"""Where the pipes leave a half, and where they end."""
LEFT, RIGHT = 280, WIDTH - 280
"""The outer edges of the two halves."""
TAKER_WIDTH, TAKER_HEIGHT = 204, 56
TAKERS: Final = (
    ("the application", "events or receive()", 92),
    ("a connection", "serve() or connect()", 168),
    ("a Durable Object", "accept_web_socket()", 244),
)


def text(x: float, y: float, words: str, css: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{css}">{words}</text>'


def box(corner: tuple[float, float], size: tuple[float, float], css: str) -> str:
    (x, y), (width, height) = corner, size
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" '
        f'rx="{min(16, height / 2)}" class="{css}"/>'
    )


def pipe(css: str, start: int, end: int) -> str:
    """Draw a pipe from the `send()` of one half to where the other receives."""
    way = 1 if end > start else -1
    mouth = end - 22 * way
    bend = (mouth - start) * 0.52
    path = (
        f"M{start} {SEND} C{start + bend:g} {SEND} {mouth - bend:g} {RECEIVE} "
        f"{mouth} {RECEIVE}"
    )
    parts = [f'<g class="{css}">']
    parts += [f'<path d="{path}" class="{layer}"/>' for layer in ("wall", "bore")]
    for share in (0.1, 0.2, 0.3, 0.76, 0.88):
        x, y = on_curve(share, start, start + bend, mouth - bend, mouth)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="message"/>')
    tip = f"M{mouth} {RECEIVE - 17} L{end - way} {RECEIVE} L{mouth} {RECEIVE + 17} Z"
    parts += [f'<path d="{tip}" class="tip"/>', "</g>"]
    return "\n".join(parts)


def on_curve(share: float, *xs: float) -> tuple[float, float]:
    """Return a point of the curve that `pipe()` draws."""
    rest = 1 - share
    weights = rest**3, 3 * rest**2 * share, 3 * rest * share**2, share**3
    ys = SEND, SEND, RECEIVE, RECEIVE
    return (
        sum(weight * x for weight, x in zip(weights, xs, strict=True)),
        sum(weight * y for weight, y in zip(weights, ys, strict=True)),
    )


def half(x: float, name: str, index: int) -> str:
    middle = x + HALF_WIDTH / 2
    return "\n".join(
        [
            box((x, HALF_TOP), (HALF_WIDTH, HALF_BOTTOM - HALF_TOP), "half"),
            text(middle, SEND + 5, "send()", "code"),
            text(middle, 194, name, "name"),
            text(middle, 216, f"pair[{index}]", "code dim"),
            text(middle, RECEIVE + 5, "what arrives"),
        ]
    )


def takers(x: float, edge: float, half_edge: float, taken: int) -> str:
    """Draw the holders that may take a half, one of them holding it."""
    parts = []
    for number, (name, how, top) in enumerate(TAKERS):
        middle = x + TAKER_WIDTH / 2
        is_taken = number == taken
        css = "taken" if is_taken else "taker"
        y = top + TAKER_HEIGHT / 2
        bend = (edge + half_edge) / 2
        link = f"M{edge} {y} C{bend} {y} {bend} 196 {half_edge} 196"
        parts.append(f'<path d="{link}" class="link{"-taken" if is_taken else ""}"/>')
        parts.append(box((x, top), (TAKER_WIDTH, TAKER_HEIGHT), css))
        parts.append(text(middle, top + 24, name))
        parts.append(text(middle, top + 43, how, "code"))
    return "\n".join(parts)


def draw() -> str:
    margin = 24
    inner_left, inner_right = LEFT + HALF_WIDTH, RIGHT - HALF_WIDTH
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>A pair: two halves, two pipes that cross, and its holders</title>",
        f"<style>{STYLE}  @media (prefers-color-scheme: dark) {{{DARK}  }}\n</style>",
        box((0.5, 0.5), (WIDTH - 1, HEIGHT - 1), "card"),
        box((LEFT - 20, 56), (RIGHT - LEFT + 40, 264), "pair"),
        text(WIDTH / 2, 40, "WebSocketPair", "name"),
        text(WIDTH / 2, 82, "two one-way pipes", "dim"),
        takers(margin, margin + TAKER_WIDTH, LEFT, taken=1),
        takers(WIDTH - margin - TAKER_WIDTH, WIDTH - margin - TAKER_WIDTH, RIGHT, 0),
        pipe("two", inner_right, inner_left),
        pipe("one", inner_left, inner_right),
        half(LEFT, "client", 0),
        half(RIGHT - HALF_WIDTH, "server", 1),
        text(margin + TAKER_WIDTH / 2, 72, "one of these takes it", "dim"),
        text(WIDTH - margin - TAKER_WIDTH / 2, 72, "one of these takes it", "dim"),
        text(WIDTH / 2, 350, "What one half sends waits until the other is taken."),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
