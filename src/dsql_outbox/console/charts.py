"""Charts of the overview, as coordinates for SVG. Pure."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import floor, log10
from typing import Final, NamedTuple

import msgspec

from dsql_outbox.observability.shown_text import duration

from .samples import Sample

WIDTH: Final = 1000
HEIGHT: Final = 100
_ROWS: Final = 12
_STEPS: Final = (1, 2, 5, 10)

_DAY: Final = 86_400
_TIMES: Final = (
    *(1, 2, 4, 10, 20, 30, 60, 120, 240, 600, 1_200, 1_800),
    *(3_600, 7_200, 14_400, 21_600, 43_200, _DAY),
)

Value = Callable[[Sample], float | None]
Format = Callable[[float], str]


class Axis(NamedTuple):
    """The end of an axis for the highest value, and the form of its labels."""

    end: Callable[[float], float]
    label: Format


class Line(msgspec.Struct, frozen=True):
    """One line of a chart. `path` is data of an SVG path, `style` the name of its colour."""

    name: str
    style: str
    path: str
    area: str
    latest: str


class Chart(msgspec.Struct, frozen=True):
    """A chart. `ticks` are labels from the top to the bottom; `table` is the text alternative."""

    key: str
    title: str
    note: str
    lines: Sequence[Line]
    ticks: Sequence[str]
    span: str
    summary: str
    table: Sequence[Sequence[str]]

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns of `table`, without the time."""
        return [line.name for line in self.lines]


def charts_of(samples: Sequence[Sample]) -> list[Chart]:
    """The charts of the overview."""
    more = any(sample.more for sample in samples)
    note = "Counted up to 500 per shard." if more else ""
    numbers, times = Axis(nice, axis_number), Axis(nice_time, brief)
    waiting: list[tuple[str, str, Value]] = [("waiting", "a", lambda sample: sample.waiting)]
    oldest: list[tuple[str, str, Value]] = [("oldest", "b", lambda sample: sample.oldest_seconds)]
    rates: list[tuple[str, str, Value]] = [
        ("written", "a", lambda sample: sample.written),
        ("delivered", "c", lambda sample: sample.delivered),
    ]
    return [
        _chart("backlog", "Waiting messages", note, waiting, samples, count, numbers),
        _chart("age", "Age of the oldest message", "", oldest, samples, duration, times),
        _chart("rates", "Messages per second", _rates_note(samples), rates, samples, rate, numbers),
    ]


def count(value: float) -> str:
    """A whole number, such as ``1,200``."""
    return f"{value:,.0f}"


def axis_number(value: float) -> str:
    """A label of an axis, such as ``0.5``, ``500`` or ``1 k``."""
    for size, unit in ((1_000_000, " M"), (1_000, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def rate(value: float) -> str:
    """A rate, such as ``12.5/s``."""
    return f"{value:,.1f}/s"


def _rates_note(samples: Sequence[Sample]) -> str:
    known = any(sample.written is not None for sample in samples)
    return "" if known or len(samples) < len(_STEPS) else "Unknown here: no counters."


def _chart(  # noqa: PLR0913, PLR0917 - one argument per part of a chart
    key: str,
    title: str,
    note: str,
    lines: Sequence[tuple[str, str, Value]],
    samples: Sequence[Sample],
    form: Format,
    axis: Axis,
) -> Chart:
    values = [[value(sample) for sample in samples] for _, _, value in lines]
    top = axis.end(_highest(values))
    times = [sample.at for sample in samples]
    drawn = [
        Line(name, style, path, _area(path), _latest(row, form))
        for (name, style, _), row in zip(lines, values, strict=True)
        for path in [line_path(times, row, top)]
    ]
    since = brief(round(times[-1] - times[0])) if times else "0 s"
    summary = ", ".join(f"{line.name} now {line.latest}" for line in drawn)
    return Chart(
        key=key,
        title=title,
        note=note,
        lines=drawn,
        ticks=[axis.label(top), axis.label(top / 2), axis.label(0)],
        span=since,
        summary=f"{title} over {since}: {summary}, at most {form(_highest(values))}",
        table=_table(samples, values, form),
    )


def _highest(values: Sequence[Sequence[float | None]]) -> float:
    return max((each for row in values for each in row if each is not None), default=0)


def _latest(row: Sequence[float | None], form: Format) -> str:
    return _text(row[-1] if row else None, form)


def _text(value: float | None, form: Format) -> str:
    return "unknown" if value is None else form(value)


def nice(highest: float) -> float:
    """The smallest of 1, 2, 5, 10, 20 and so on that is not below `highest`."""
    if highest <= 1:
        return 1
    power: int = 10 ** floor(log10(highest))
    return next(step * power for step in _STEPS if step * power >= highest)


def nice_time(highest: float) -> float:
    """As `nice`, in steps that people use for seconds, minutes, hours and days."""
    return next((step for step in _TIMES if step >= highest), nice(highest / _DAY) * _DAY)


def brief(seconds: float) -> str:
    """A duration without zeros at its end, such as ``2 h``."""
    text = duration(seconds).replace(".0 s", " s")
    return re.sub(r" 0 (s|min|h)$", "", text) if seconds else text


def line_path(times: Sequence[float], values: Sequence[float | None], top: float) -> str:
    """An SVG path through the known values; it is interrupted where a value is unknown."""
    if len(times) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    scale = WIDTH / max(times[-1] - times[0], 1e-9)
    parts: list[str] = []
    pen = "M"
    for at, value in zip(times, values, strict=True):
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{(at - times[0]) * scale:.1f} {HEIGHT * (1 - value / top):.1f}")
        pen = "L"
    return "".join(parts)


def _area(path: str) -> str:
    """The area below a path; none for a path in pieces."""
    if path.count("M") != 1 or "L" not in path:
        return ""
    first = path[1:].split(" ", maxsplit=1)[0]
    last = path.rpartition("L")[2].split(" ")[0]
    return f"{path}L{last} {HEIGHT}L{first} {HEIGHT}Z"


def _table(
    samples: Sequence[Sample], values: Sequence[Sequence[float | None]], form: Format
) -> list[list[str]]:
    """About a dozen of the samples, the latest first."""
    step = max(1, len(samples) // _ROWS)
    return [
        [_clock(samples[n].at), *(_text(row[n], form) for row in values)]
        for n in range(len(samples) - 1, -1, -step)
    ]


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
