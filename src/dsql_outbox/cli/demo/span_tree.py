"""One trace as a tree of lines: spans with their start and duration, and the waits between."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from dsql_outbox.observability import attributes as names
from dsql_outbox.observability import visible

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_LABEL: Final = 46
_NUMBERS: Final = 20
_BAR: Final = 4  # columns at least
_NARROWEST: Final = 40  # columns of a terminal that shows the tree
_DEEPEST: Final = 30  # columns of branches; spans deeper in the tree are drawn at this depth
_LONGEST: Final = 1e9  # seconds that an attempt can have waited
_DONE: Final = frozenset({"committed", "resolved", "delivered"})

Kind = Literal["head", "span", "wait", "done", "failed"]


class SpanView(msgspec.Struct, frozen=True):
    """The part of a span that the tree shows; ids are hexadecimal, times Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    failed: bool = False
    attributes: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])


def view_recorded(spans: "Iterable[ReadableSpan]") -> list[SpanView]:
    """Convert spans as the SDK hands them to an exporter; all have ended."""
    return [
        SpanView(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
            name=span.name,
            kind=span.kind.name,
            start_ns=span.start_time or 0,
            end_ns=span.end_time or 0,
            failed=span.status.status_code.name == "ERROR",
            attributes=dict(span.attributes or {}),
        )
        for span in spans
        if (context := span.context)
    ]


class TreeRow(msgspec.Struct, frozen=True):
    """A line of a drawn tree. Its parts follow each other."""

    prefix: str
    label: str
    numbers: str
    bar: str
    kind: Kind


def tree_rows(spans: Sequence[SpanView], *, width: int = 80) -> list[TreeRow]:
    """Lay out the spans of one trace, one line per span, in at most `width` columns (40 or more).

    A line holds the name and outcome, the start relative to the first span and the duration
    (both in milliseconds), and a bar to scale. Each wait between attempts has its own line.
    The first line names the columns.
    """
    scale = _Scale.over(spans, max(_NARROWEST, width))
    head = TreeRow("", f"{'span':<{scale.label}}", f"{'start ms':>9}{'took ms':>9}", "", "head")
    return [head, *(_row(line, scale) for line in _lines(spans))]


@dataclass(frozen=True, slots=True)
class _TreeLine:
    """A span, or with `waited_ns` the wait before it; `prefix` draws the branches to it."""

    span: SpanView
    prefix: str
    waited_ns: int = 0


@dataclass(frozen=True, slots=True)
class _Scale:
    """Converts Unix nanoseconds to columns; `label` is the width of the names on the left."""

    start_ns: int
    end_ns: int
    columns: int
    label: int

    @classmethod
    def over(cls, spans: Sequence[SpanView], width: int) -> "_Scale":
        label = min(_LABEL, width - _NUMBERS - _BAR)
        start = min((span.start_ns for span in spans), default=0)
        end = max((span.end_ns for span in spans), default=0)
        return cls(start, max(end, start + 1), width - _NUMBERS - label, label)

    def bar(self, start_ns: int, end_ns: int, mark: str) -> str:
        """A bar of `mark` between two times; at least one mark, so that it can be seen."""
        first = min(self._column(start_ns), self.columns - 1)
        return " " * first + mark * max(1, self._column(end_ns) - first)

    def _column(self, at_ns: int) -> int:
        column = round((at_ns - self.start_ns) * self.columns / (self.end_ns - self.start_ns))
        return min(max(0, column), self.columns)


def _lines(spans: Sequence[SpanView]) -> Iterator[_TreeLine]:
    """All lines, depth first, in order of start; a span without a known parent is a root."""
    known = {span.span_id for span in spans}
    children: dict[str | None, list[SpanView]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start_ns, span.span_id)):
        children[span.parent_id if span.parent_id in known else None].append(span)
    yield from _below(children)


def _below(children: Mapping[str | None, list[SpanView]]) -> Iterator[_TreeLine]:
    # A stack and no recursion: a trace may be deeper than Python's stack.
    stack = [(root, "", "") for root in reversed(children.get(None, []))]
    while stack:
        span, prefix, indent = stack.pop()
        waited_ns = _waited_ns(span) if prefix else 0
        if waited_ns:
            yield _TreeLine(span, f"{prefix[:-3]}│  ", waited_ns)
        yield _TreeLine(span, prefix)
        below = reversed(children.get(span.span_id, []))
        deeper = indent if len(indent) >= _DEEPEST else None
        for n, child in enumerate(below):
            branch, rest = ("├─ ", "│  ") if n else ("└─ ", "   ")
            stack.append((child, indent + branch, indent + rest if deeper is None else deeper))


def _waited_ns(span: SpanView) -> int:
    """How long an attempt waited; 0 for a value that is no time."""
    found = span.attributes.get(names.ATTEMPT_WAITED, 0)
    is_time = isinstance(found, int | float) and 0 < found < _LONGEST
    return round(found * 1e9) if is_time else 0


def _row(line: _TreeLine, scale: _Scale) -> TreeRow:
    span = line.span
    if line.waited_ns:
        label = f"waited {line.waited_ns / 1e6:.0f} ms"
        bar = scale.bar(span.start_ns - line.waited_ns, span.start_ns, "·")
        return _assembled(line.prefix, label, scale, (" " * 18, bar), "wait")
    start, took = span.start_ns - scale.start_ns, span.end_ns - span.start_ns
    numbers = f"{start / 1e6:>9.1f}{took / 1e6:>9.1f}"
    bar = scale.bar(span.start_ns, span.end_ns, "━")
    return _assembled(line.prefix, _label(span), scale, (numbers, bar), _kind(span))


def _assembled(
    prefix: str, label: str, scale: _Scale, right: tuple[str, str], kind: Kind
) -> TreeRow:
    prefix = prefix[: scale.label - 1]
    room = scale.label - len(prefix)
    short = label if len(label) <= room else f"{label[: room - 1]}…"
    numbers, bar = right
    return TreeRow(prefix, short.ljust(room), numbers, f"  {bar}", kind)


def _kind(span: SpanView) -> Kind:
    if span.failed:
        return "failed"
    return "done" if _outcome(span) in _DONE else "span"


def _outcome(span: SpanView) -> str:
    outcomes = (names.ATTEMPT_OUTCOME, names.WRITE_STATUS, names.PUBLISH_RESULT)
    return next((str(span.attributes[name]) for name in outcomes if name in span.attributes), "")


def _consequence(span: SpanView) -> str:
    """The consequence of a failed publish, unless its result says the same."""
    found = str(span.attributes.get(names.PUBLISH_LEADS_TO, ""))
    return f"→ {found}" if found not in {"", _outcome(span)} else ""


def _label(span: SpanView) -> str:
    """The text of a span's line, such as ``outbox.write.attempt 2 conflict 40001 OC000``."""
    number = span.attributes.get(names.ATTEMPT_NUMBER, "")
    codes = (span.attributes.get(name) for name in (names.DB_STATUS_CODE, names.ATTEMPT_OC_CLASS))
    name = span.name.removesuffix(f" {number}")
    words = (name, number, _outcome(span), _consequence(span), *codes)
    return visible(" ".join(str(word) for word in words if word))
