"""Sequence diagrams as SVG: participants are columns, steps are rows, time runs down.

The picture follows the reader's light or dark mode and needs neither script nor font.
"""

from collections.abc import Sequence
from html import escape
from typing import Final, Literal

import msgspec

XMLNS: Final = "http://www.w3.org/2000/svg"

COLUMN: Final = 250
"""Distance of two participants, in pixels."""

MARGIN: Final = 120
HEAD: Final = 44
LINE: Final = 18
GAP: Final = 16

STYLE: Final = """
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
text.head { font-weight: 600; }
text.note { font-size: 13px; fill: #59636e; }
text.bad { fill: #b42318; }
text.good { fill: #116b3c; }
rect.head { fill: #eef2ff; stroke: #4f46e5; }
rect.note { fill: #fff8e6; stroke: #d4a72c; }
rect.wait { fill: none; stroke: #9aa4b2; stroke-dasharray: 3 4; }
rect.bad { fill: #fdecea; stroke: #b42318; }
line.life { stroke: #c5cbd3; stroke-dasharray: 4 5; }
line.arrow { stroke: #4f46e5; stroke-width: 1.6; }
line.bad { stroke: #b42318; }
line.good { stroke: #116b3c; }
path.arrow { fill: #4f46e5; }
path.bad { fill: #b42318; }
path.good { fill: #116b3c; }
path.lost { fill: none; stroke: #b42318; stroke-width: 2.2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  text.note { fill: #b8c0ca; }
  text.bad { fill: #ff9a8f; }
  text.good { fill: #6fdd9b; }
  rect.head { fill: #1e2140; stroke: #8f8cff; }
  rect.note { fill: #2b2610; stroke: #b08d2a; }
  rect.bad { fill: #3a1714; stroke: #ff9a8f; }
  line.life { stroke: #4a5260; }
  line.arrow { stroke: #8f8cff; }
  line.bad { stroke: #ff9a8f; }
  line.good { stroke: #6fdd9b; }
  path.arrow { fill: #8f8cff; }
  path.bad { fill: #ff9a8f; }
  path.good { fill: #6fdd9b; }
  path.lost { stroke: #ff9a8f; }
}
"""

Tone = Literal["", "good", "bad"]


class Message(msgspec.Struct, frozen=True):
    """An arrow between two columns. A `lost` one ends halfway, with a cross."""

    start: int
    end: int
    text: str
    tone: Tone = ""
    lost: bool = False

    @property
    def height(self) -> int:
        """Pixels."""
        return _lines_height(self.text) + GAP

    def draw(self, top: int) -> str:
        """Return the step as SVG, from the pixel `top` on."""
        y = top + _lines_height(self.text) + 4
        x1, x2 = _x(self.start), _x(self.end)
        sign = 1 if x2 > x1 else -1
        if self.lost:
            x2 = (x1 + x2) // 2
        middle = (_x(self.start) + _x(self.end)) // 2
        line = f'<line class="arrow {self.tone}" x1="{x1}" y1="{y}" x2="{x2 - 2 * sign}" y2="{y}"/>'
        tip = _cross(x2, y) if self.lost else _arrow_head(x2, y, sign, self.tone)
        return _text(self.text, middle, top + 12, self.tone) + line + tip


class Note(msgspec.Struct, frozen=True):
    """A box over the columns `start` to `end`: what is true there now."""

    start: int
    end: int
    text: str
    kind: Literal["note", "wait", "bad"] = "note"

    @property
    def height(self) -> int:
        """Pixels."""
        return _lines_height(self.text) + 14 + GAP

    def draw(self, top: int) -> str:
        """Return the step as SVG, from the pixel `top` on."""
        left, right = _x(self.start) - 112, _x(self.end) + 112
        box = (
            f'<rect class="{self.kind}" x="{left}" y="{top}" width="{right - left}" '
            f'height="{_lines_height(self.text) + 14}" rx="6"/>'
        )
        style = "bad" if self.kind == "bad" else "note"
        return box + _text(self.text, (left + right) // 2, top + 19, style)


class Diagram(msgspec.Struct, frozen=True):
    """A diagram: its title for those who cannot see it, its columns and its steps."""

    title: str
    columns: Sequence[str]
    steps: Sequence[Message | Note]

    def svg(self) -> str:
        """Return the picture as a standalone SVG file."""
        width = 2 * MARGIN + COLUMN * (len(self.columns) - 1)
        height = HEAD + 40 + sum(step.height for step in self.steps)
        body, top = list[str](), HEAD + 24
        for step in self.steps:
            body.append(step.draw(top))
            top += step.height
        lives = [_life(n, height) for n, _ in enumerate(self.columns)]
        heads = [_head(n, name) for n, name in enumerate(self.columns)]
        return "\n".join(
            [
                f'<svg xmlns="{XMLNS}" viewBox="0 0 {width} {height}" width="{width}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<style>{STYLE}</style>",
                *lives,
                *heads,
                *body,
                "</svg>\n",
            ]
        )


def _x(column: int) -> int:
    return MARGIN + COLUMN * column


def _lines_height(text: str) -> int:
    return LINE * len(text.split("\n"))


def _text(text: str, x: int, y: int, style: str) -> str:
    place = f'class="{style}" x="{x}" text-anchor="middle"'
    lines = [
        f'<text {place} y="{y + LINE * n}">{escape(line)}</text>'
        for n, line in enumerate(text.split("\n"))
    ]
    return "".join(lines)


def _arrow_head(x: int, y: int, sign: int, tone: Tone) -> str:
    return f'<path class="arrow {tone}" d="M{x},{y} l{-9 * sign},-5 v10 z"/>'


def _cross(x: int, y: int) -> str:
    return f'<path class="lost" d="M{x - 6},{y - 6} l12,12 m0,-12 l-12,12"/>'


def _life(column: int, height: int) -> str:
    x = _x(column)
    return f'<line class="life" x1="{x}" y1="{HEAD}" x2="{x}" y2="{height - 8}"/>'


def _head(column: int, name: str) -> str:
    x = _x(column)
    box = f'<rect class="head" x="{x - 90}" y="8" width="180" height="{HEAD - 12}" rx="8"/>'
    return box + _text(name, x, 29, "head")
