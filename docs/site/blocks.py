"""A block diagram as SVG: boxes with lines of text, and arrows from box to box."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

from sequence import STYLE, XMLNS

_LINE: Final = 20


class Box(NamedTuple):
    """A box: its corner, its size in pixels, its name, and what is in it."""

    x: int
    y: int
    width: int
    height: int
    name: str
    lines: Sequence[str] = ()

    def draw(self) -> str:
        """Return the box as SVG."""
        middle = self.x + self.width // 2
        frame = (
            f'<rect class="head" x="{self.x}" y="{self.y}" width="{self.width}" '
            f'height="{self.height}" rx="8"/>'
        )
        texts = [_text(self.name, middle, self.y + 26, "head")]
        texts += [
            _text(line, middle, self.y + 26 + _LINE * n, "note")
            for n, line in enumerate(self.lines, 1)
        ]
        return frame + "".join(texts)


class Arrow(NamedTuple):
    """An arrow from a box to the one below it, or to the one beside it."""

    start: str
    end: str
    text: str

    def draw(self, boxes: Mapping[str, Box]) -> str:
        """Return the arrow as SVG."""
        start, end = boxes[self.start], boxes[self.end]
        if end.y >= start.y + start.height:
            left, right = max(start.x, end.x), min(start.x + start.width, end.x + end.width)
            x, y1, y2 = (left + right) // 2, start.y + start.height, end.y
            line = f'<line class="arrow" x1="{x}" y1="{y1}" x2="{x}" y2="{y2 - 2}"/>'
            tip = f'<path class="arrow" d="M{x},{y2} l-5,-9 h10 z"/>'
            return line + tip + _text(self.text, x + 10, (y1 + y2) // 2 + 3, "", anchor="start")
        sign = 1 if end.x > start.x else -1
        x1, x2 = (start.x + start.width, end.x) if sign > 0 else (start.x, end.x + end.width)
        y = max(start.y, end.y) + 60
        line = f'<line class="arrow" x1="{x1}" y1="{y}" x2="{x2 - 2 * sign}" y2="{y}"/>'
        tip = f'<path class="arrow" d="M{x2},{y} l{-9 * sign},-5 v10 z"/>'
        return line + tip + _text(self.text, (x1 + x2) // 2, y - 10, "")


class Blocks(NamedTuple):
    """A diagram: its title for those who cannot see it, its boxes and its arrows."""

    title: str
    boxes: Sequence[Box]
    arrows: Sequence[Arrow]

    def svg(self) -> str:
        """Return the picture as a standalone SVG file."""
        width = max(box.x + box.width for box in self.boxes) + 8
        height = max(box.y + box.height for box in self.boxes) + 8
        named = {box.name: box for box in self.boxes}
        return "\n".join(
            [
                f'<svg xmlns="{XMLNS}" viewBox="0 0 {width} {height}" width="{width}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<style>{STYLE}</style>",
                *(box.draw() for box in self.boxes),
                *(arrow.draw(named) for arrow in self.arrows),
                "</svg>\n",
            ]
        )


def _text(text: str, x: int, y: int, style: str, *, anchor: str = "middle") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
