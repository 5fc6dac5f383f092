"""One trace as a tree of lines: spans with their start and duration, and the waits between."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dsql_outbox.observability import attributes as names
from dsql_outbox.observability.shown_text import visible

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from rich.text import Text

_LABEL: Final = 46
_NUMBERS: Final = 20
_BAR: Final = 4  # columns at least
_NARROWEST: Final = 40  # columns of a terminal that shows the tree
_OUTCOMES: Final = (names.ATTEMPT_OUTCOME, names.WRITE_STATUS, names.PUBLISH_RESULT)
_DONE: Final = frozenset({"committed", "resolved", "delivered"})


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


def render_tree(spans: Sequence[SpanView], *, width: int = 80) -> "Text":
    """Draw the spans of one trace, one line per span, in at most `width` columns (40 or more).

    A line holds the name and outcome, the start relative to the first span and the duration
    (both in milliseconds), and a bar to scale. Each wait between attempts has its own line.
    The first line names the columns. Colours show only on a terminal.
    """
    from rich.text import Text  # noqa: PLC0415 - 60 ms, only for drawing

    return Text("\n").join(_Tree(spans, max(_NARROWEST, width)).lines())


class _Tree:
    """The lines of one trace, and the scale of its bars."""

    def __init__(self, spans: Sequence[SpanView], width: int) -> None:
        self._label = min(_LABEL, width - _NUMBERS - _BAR)
        self._columns = width - _NUMBERS - self._label
        self._start_ns = min((span.start_ns for span in spans), default=0)
        end_ns = max((span.end_ns for span in spans), default=0)
        self._length_ns = max(1, end_ns - self._start_ns)
        known = {span.span_id for span in spans}
        # A span without a known parent is a root.
        self._children: dict[str | None, list[SpanView]] = defaultdict(list)
        for span in sorted(spans, key=lambda span: (span.start_ns, span.span_id)):
            self._children[span.parent_id if span.parent_id in known else None].append(span)

    def lines(self) -> Iterator["Text"]:
        """All lines, depth first, in order of start."""
        yield self._line("", "span", f"{'start ms':>9}{'took ms':>9}", "", ("dim", "dim", ""))
        for root in self._children[None]:
            yield from self._below(root, "", "")

    def _below(self, span: SpanView, branch: str, indent: str) -> Iterator["Text"]:
        if branch and (waited := span.attributes.get(names.ATTEMPT_WAITED)):
            label = f"waited {waited * 1e3:.0f} ms"
            bar = self._bar(span.start_ns - round(waited * 1e9), span.start_ns, "·")
            yield self._line(f"{branch[:-3]}│  ", label, " " * 18, bar, ("dim", "", "dim"))
        started, took = span.start_ns - self._start_ns, span.end_ns - span.start_ns
        numbers = f"{started / 1e6:>9.1f}{took / 1e6:>9.1f}"
        bar, style = self._bar(span.start_ns, span.end_ns, "━"), _style(span)
        yield self._line(branch, _label(span), numbers, bar, (style, "", style or "cyan"))
        children = self._children[span.span_id]
        for left, child in enumerate(children, 1 - len(children)):
            yield from self._below(
                child, indent + ("├─ " if left else "└─ "), indent + ("│  " if left else "   ")
            )

    def _line(
        self, branch: str, label: str, numbers: str, bar: str, styles: tuple[str, str, str]
    ) -> "Text":
        from rich.text import Text  # noqa: PLC0415 - 60 ms, only for drawing

        name = Text.assemble((branch, "dim"), (label, styles[0]))
        name.truncate(self._label, overflow="ellipsis", pad=True)
        return Text.assemble(name, (numbers, styles[1]), (bar, styles[2]))

    def _bar(self, start_ns: int, end_ns: int, mark: str) -> str:
        """A bar of `mark` between two times; at least one mark, so that it can be seen."""
        first, last = (
            round((at_ns - self._start_ns) * self._columns / self._length_ns)
            for at_ns in (start_ns, end_ns)
        )
        first = min(max(0, first), self._columns - 1)
        return "  " + " " * first + mark * max(1, last - first)


def _style(span: SpanView) -> str:
    if span.failed:
        return "red"
    return "green" if _outcome(span) in _DONE else ""


def _outcome(span: SpanView) -> str:
    return next((str(span.attributes[name]) for name in _OUTCOMES if name in span.attributes), "")


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
