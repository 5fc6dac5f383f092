"""Frames of a terminal as one SVG picture that moves by CSS, without a script.

Each row of each frame is drawn once, for the time that it was on the screen. Every piece
of text has its width in the file, so that columns are straight in any font.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import accumulate, groupby, pairwise
from operator import itemgetter
from typing import NamedTuple

from benchmarks.recording.terminal import Frame, Run

_CELL, _LINE, _MARGIN, _BAR = 7.8, 17, 16, 28
_LONGEST = 1.2  # seconds: longer pauses are cut to this
_HOLD = 6.0  # seconds for which the last frame stays
_COLORS = {
    "default": "#d6deeb",
    "red": "#ff7a85",
    "green": "#7bd88f",
    "brown": "#f2c97d",
    "yellow": "#f2c97d",
    "blue": "#82aaff",
    "magenta": "#d9a5f5",
    "cyan": "#6fd6e5",
    "brightblack": "#8a98ad",
}
_STYLE = """text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre}
.b{font-weight:600}g{animation-duration:%ss;animation-iteration-count:infinite;\
animation-timing-function:step-end}
@media(prefers-reduced-motion:reduce){g{animation:none!important}.gone{display:none}}"""


class Span(NamedTuple):
    """The content of one row, and its start and end in seconds."""

    row: int
    runs: tuple[Run, ...]
    since: float
    until: float


def animated(frames: Sequence[Frame], title: str) -> str:
    """The picture of a recording; `title` is shown above it and read to the blind."""
    starts = _shortened([frame.at for frame in frames])
    length = starts[-1] + _HOLD
    columns = max(
        run.column + len(run.text) for frame in frames for row in frame.rows for run in row
    )
    height = max(n for frame in frames for n, row in enumerate(frame.rows) if row) + 1
    spans = [span for n in range(height) for span in _spans(n, frames, starts, length)]
    body = "\n".join(_drawn(n, span, length) for n, span in enumerate(spans))
    rules = "\n".join(_keyframes(n, span, length) for n, span in enumerate(spans))
    wide, high = round(columns * _CELL + 2 * _MARGIN), height * _LINE + _MARGIN + _BAR
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" \
width="{wide}" role="img" aria-label="{escape(title)}">
<style>{_STYLE % round(length, 2)}
{rules}</style>
<rect width="{wide}" height="{high}" rx="8" fill="#10161f"/>
<text x="{wide / 2}" y="19" text-anchor="middle" fill="#8a98ad">{escape(title)}</text>
{body}
</svg>
"""


def _shortened(times: Sequence[float]) -> list[float]:
    pauses = (min(now - before, _LONGEST) for before, now in pairwise(times))
    return list(accumulate(pauses, initial=0.0))


def _spans(
    row: int, frames: Sequence[Frame], starts: Sequence[float], length: float
) -> Iterator[Span]:
    shown = zip((frame.rows[row] for frame in frames), starts, strict=True)
    changes = [next(found) for _, found in groupby(shown, key=itemgetter(0))]
    ends = [start for _, start in changes[1:]] + [length]
    for (runs, since), until in zip(changes, ends, strict=True):
        if runs:
            yield Span(row, runs, since, until)


def _keyframes(number: int, span: Span, length: float) -> str:
    begin, end = (round(100 * at / length, 2) for at in (span.since, span.until))
    steps = [] if span.since == 0 else ["0%{visibility:hidden}"]
    steps.append(f"{begin}%{{visibility:visible}}")
    steps += [] if span.until == length else [f"{end}%{{visibility:hidden}}"]
    return f"@keyframes k{number}{{{''.join(steps)}}}"


def _drawn(number: int, span: Span, length: float) -> str:
    y = span.row * _LINE + _MARGIN + _BAR
    texts = "".join(_text(run, y) for run in span.runs)
    gone = "" if span.until == length else ' class="gone"'
    return f'<g style="animation-name:k{number}"{gone}>{texts}</g>'


def _text(run: Run, y: int) -> str:
    lead = len(run.text) - len(run.text.lstrip())
    text = run.text.lstrip()
    x, width = (run.column + lead) * _CELL + _MARGIN, len(text) * _CELL
    bold = ' class="b"' if run.bold else ""
    color = _COLORS.get(run.color, f"#{run.color}")
    return (
        f'<text x="{x:.1f}" y="{y}" textLength="{width:.1f}" '
        f'lengthAdjust="spacingAndGlyphs" fill="{color}"{bold}>{escape(text)}</text>'
    )
