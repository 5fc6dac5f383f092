"""Small SVG charts, readable on light and on dark pages. No I/O."""

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10
from typing import NamedTuple

WIDTH = 760
_LEFT, _RIGHT, _TOP = 230, 170, 56
_BAR, _GAP = 20, 8
_PLOT = (80, 64, 470, 240)  # left, top, width, height of a chart of lines

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.h{font-size:15px;font-weight:600}"
    ".q{fill:#59636e;font-size:12px}.r{stroke:#d1d9e0}.c0{fill:#0969da;stroke:#0969da}"
    ".c1{fill:#bc4c00;stroke:#bc4c00}.c2{fill:#1a7f37;stroke:#1a7f37}.o{fill:#8c959f}.s{stroke:#1f2328}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.q{fill:#9198a1}.r{stroke:#3d444d}"
    ".c0{fill:#4493f8;stroke:#4493f8}.c1{fill:#f0883e;stroke:#f0883e}"
    ".c2{fill:#3fb950;stroke:#3fb950}.o{fill:#656c76}.s{stroke:#f0f6fc}}"
    ".l{fill:none;stroke-width:2}"  # after the colours, which fill
)


class Bar(NamedTuple):
    """A bar: the median, the least and the most of the rounds; `own` ones have the colour."""

    name: str
    median: float
    least: float
    most: float
    own: bool = False


def bars(title: str, unit: str, values: Sequence[Bar]) -> str:
    """Horizontal bars from zero, in the given order, with a line over the range of the rounds."""
    most = max(each.most for each in values)
    width = WIDTH - _LEFT - _RIGHT
    parts = []
    for row, each in enumerate(values):
        y = _TOP + row * (_BAR + _GAP)
        middle = y + _BAR / 2
        ends = [_LEFT + width * value / most for value in (each.median, each.least, each.most)]
        parts += [
            _text(_LEFT - 8, middle + 4, each.name, anchor="end"),
            _box(y, ends[0] - _LEFT, "c0" if each.own else "o"),
            f'<path d="M{ends[1]:.1f} {middle}H{ends[2]:.1f}" class="s"/>',
            _text(ends[2] + 8, middle + 4, f"{number(each.median)}"),
        ]
    return _page(title, unit, _TOP + len(values) * (_BAR + _GAP) + 8, parts)


def lines(
    title: str, across: str, up: str, points: Sequence[float], series: Mapping[str, Sequence[float]]
) -> str:
    """Lines through the medians; equal steps between the points, the other axis from zero."""
    left, top, width, height = _PLOT
    most = max(max(values) for values in series.values())
    steps = _steps(most)
    parts = []
    for step in steps:
        y = top + height * (1 - step / steps[-1])
        parts += [
            f'<path d="M{left} {y:.1f}h{width}" class="r"/>',
            _text(left - 8, y + 4, number(step), anchor="end", kind="q"),
        ]
    places = [left + width * n / max(1, len(points) - 1) for n in range(len(points))]
    parts += [
        _text(x, top + height + 20, number(point), anchor="middle", kind="q")
        for x, point in zip(places, points, strict=True)
    ]
    parts.append(_text(left + width / 2, top + height + 40, across, anchor="middle", kind="q"))
    for color, values in enumerate(series.values()):
        heights = [top + height * (1 - value / steps[-1]) for value in values]
        dots = list(zip(places, heights, strict=True))
        track = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
        parts.append(f'<path d="M{track}" class="c{color} l"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="c{color}"/>' for x, y in dots]
    parts += _labels(series, left + width + 14, top, height, steps[-1])
    return _page(title, up, top + height + 56, parts)


def number(value: float) -> str:
    """A number with three digits that count, and commas: 12,300 or 0.45."""
    if value == 0:
        return "0"
    digits = 2 - floor(log10(abs(value)))
    rounded = round(value, digits)
    return (
        f"{rounded:,.{max(0, digits)}f}".rstrip("0").rstrip(".")
        if digits > 0
        else f"{rounded:,.0f}"
    )


def _labels(
    series: Mapping[str, Sequence[float]], x: float, top: float, height: float, most: float
) -> list[str]:
    """The names of the lines at their ends, apart from each other."""
    ends = sorted(
        (top + height * (1 - values[-1] / most), color, name, values[-1])
        for color, (name, values) in enumerate(series.items())
    )
    parts, free = [], 0.0
    for y, color, name, value in ends:
        free = max(free, y)
        parts += [
            f'<circle cx="{x - 4}" cy="{free:.1f}" r="4" class="c{color}"/>',
            _text(x + 6, free + 4, f"{name}: {number(value)}"),
        ]
        free += 18
    return parts


def _steps(most: float) -> list[float]:
    """Round numbers from zero to at least `most`."""
    unit = 10.0 ** floor(log10(most / 4))
    step = next(unit * each for each in (1, 2, 2.5, 5, 10) if unit * each * 4 >= most)
    return [step * n for n in range(5)]


def _box(y: float, width: float, kind: str) -> str:
    return f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    shape = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{shape}>{escape(text)}</text>'


def _page(title: str, unit: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">'
    named = f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    over = [_text(12, 24, title, kind="h"), _text(12, 42, unit, kind="q")]
    return "\n".join([head, named, *over, *parts, "</svg>", ""])
