"""The rules for traces in a real Jaeger, which adjusts the clocks of different hosts."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urlencode
from uuid import UUID

import msgspec
import psycopg
from tests.support.commands import Finished, run
from tests.support.waiting import wait_until
from tests.support.writer.written_events import event, receipts

from dsql_outbox.cli.demo.span_tree import SpanView
from dsql_outbox.observability import attributes as names
from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres, NatsServer, OutboxProxy

from .jaeger import Jaeger
from .otlp_json import TraceData, views

_CONFLICTS: Final = 3
_BAD_TOPIC: Final = "no topic"  # NATS takes no blank
_ARRIVAL: Final = 20.0  # seconds until Jaeger has a trace
_MOST: Final = 1_000  # traces per answer

Result = tuple[str, bool, str]


class DrawnSpan(msgspec.Struct, rename="camel"):
    """A span as Jaeger's own page draws it; times are microseconds."""

    span_id: str = msgspec.field(name="spanID")
    operation_name: str
    start_time: int
    duration: int
    warnings: list[str] | None = None


class _DrawnTrace(msgspec.Struct):
    spans: list[DrawnSpan]


class _Services(msgspec.Struct):
    services: list[str] = []


class _Found(msgspec.Struct):
    """Jaeger's answer with traces, in a wrapper of its gateway."""

    result: TraceData


class _Page(msgspec.Struct):
    """The answer of ``/api/traces/ID``, which the page asks."""

    data: list[_DrawnTrace]


class JaegerTrace(NamedTuple):
    """A trace of an event as it was sent (`raw`), and as Jaeger shows it.

    `adjusted` is the answer of ``/api/v3``, and `drawn` that of the API of Jaeger's own page.
    """

    name: str
    event_id: UUID
    raw: Sequence[SpanView]
    adjusted: Sequence[SpanView]
    drawn: Sequence[DrawnSpan]


def check_traces(jaeger: Jaeger) -> list[Result]:
    """Make traces of several kinds, and check each; a result is a name, whether it holds, and why.

    The kinds: the demo, a storm of conflicts, a publisher on another host, and a dead letter.
    """
    with EmbeddedPostgres() as database, NatsServer() as broker:
        apply(Database(database.url), shards=1)
        outbox = _Outbox(jaeger, database.url, f"{broker.url}?stream=EVENTS")
        demo = _demo(jaeger)
        storm = outbox.trace("conflicts", event(), conflicts=_CONFLICTS)
        apart = outbox.trace("two hosts", event(), publisher_host="elsewhere")
        dead = outbox.trace("dead letter", event(), topic=_BAD_TOPIC)
    same_host = (demo, storm, dead)
    return [
        *(result for each in (*same_host, apart) for result in _common(each)),
        *(moved_spans(each, wanted=False) for each in same_host),
        *(drawn_in_order(each) for each in same_host if jaeger.draws_by_host),
        moved_spans(apart, wanted=True),
        _attempts(storm),
        _dead_letter(dead),
    ]


class _Outbox(NamedTuple):
    jaeger: Jaeger
    database: str
    sink: str

    def trace(
        self,
        name: str,
        text: bytes,
        *,
        conflicts: int = 0,
        publisher_host: str = "",
        topic: str = "",
    ) -> JaegerTrace:
        """Write an event after so many conflicts, and publish it; both by a command.

        With `topic` the row gets this topic before it is published.
        """
        with OutboxProxy(self.database) as proxy:
            proxy.conflicts(conflicts)
            written = self._run("write", "--database", proxy.url, stdin=text)
        (receipt,) = receipts(written.out)
        if topic:
            with psycopg.connect(self.database) as connection:
                connection.execute("UPDATE outbox.outbox SET topic = %s", [topic])
        host = f"host.name={publisher_host}" if publisher_host else ""
        words = ("--database", self.database, "--sink", self.sink, "--until-empty")
        self._run("publish", *words, resource=host)
        return _arrived(self.jaeger, name, receipt.event_id)

    def _run(self, *words: str, stdin: bytes = b"", resource: str = "") -> Finished:
        env = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{self.jaeger.otlp_url}/v1/traces",
            "OTEL_RESOURCE_ATTRIBUTES": resource,
        }
        return run(*words, stdin=stdin, env=env)


def _demo(jaeger: Jaeger) -> JaegerTrace:
    shown = run("demo", "--otlp", jaeger.otlp_url).out.decode()
    found = re.search(r"The most retried event, (\S+):", shown)
    assert found is not None, shown
    return _arrived(jaeger, "demo", UUID(found[1]))


def _arrived(jaeger: Jaeger, name: str, event_id: UUID) -> JaegerTrace:
    """Wait until Jaeger has the trace with its publish, which is sent last."""
    found: list[SpanView] = []

    def is_whole() -> bool:
        spans = list(_recent_spans(jaeger))
        traces = {s.trace_id for s in spans if s.attributes.get(names.EVENT_ID) == str(event_id)}
        found[:] = {s.span_id: s for s in spans if s.trace_id in traces}.values()
        return any(span.kind == "PRODUCER" for span in found)

    wait_until(is_whole, timeout=_ARRIVAL)
    trace_id = found[0].trace_id
    shown = jaeger.get(f"/api/v3/traces/{trace_id}", _Found)
    page = jaeger.get(f"/api/traces/{trace_id}", _Page)
    drawn = [span for each in page.data for span in each.spans]
    return JaegerTrace(name, event_id, found, [*views(shown.result)], drawn)


def _recent_spans(jaeger: Jaeger) -> Iterator[SpanView]:
    """Yield the spans of the last hour as they were sent; spans may repeat."""
    now = datetime.now(UTC)
    search = {
        "start_time_min": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
        "start_time_max": f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
        "search_depth": str(_MOST),
        "num_traces": str(_MOST),
        "raw_traces": "true",
    }
    for service in jaeger.get("/api/v3/services", _Services).services:
        wanted = urlencode(_parameters(search | {"service_name": service}))
        yield from views(jaeger.get(f"/api/v3/traces?{wanted}", _Found).result)


def _parameters(search: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a search, as older and as newer versions of Jaeger 2 name them."""
    found: dict[str, str] = {}
    for name, value in search.items():
        first, *others = name.split("_")
        found[f"query.{name}"] = found[f"query.{first}{''.join(map(str.title, others))}"] = value
    return found


def _common(trace: JaegerTrace) -> Iterator[Result]:
    """The checks of every trace."""
    for what, check in COMMON.items():
        wrong = check(trace)
        yield f"{trace.name}: {what}", not wrong, ", ".join(wrong)


def _unnamed(trace: JaegerTrace) -> list[str]:
    event_id = str(trace.event_id)
    return [span.name for span in trace.raw if span.attributes.get(names.EVENT_ID) != event_id]


def _astray(trace: JaegerTrace) -> list[str]:
    """The spans that are no child of the only write."""
    (write,) = (span for span in trace.raw if span.name == "outbox.write")
    others = (span for span in trace.raw if span is not write)
    return [span.name for span in others if span.parent_id != write.span_id]


def _early(trace: JaegerTrace) -> list[str]:
    """The publishes that were sent before the commit began."""
    commit = max(_attempts_of(trace.raw), key=lambda span: span.start_ns)
    sent = (span for span in trace.raw if span.kind == "PRODUCER")
    return [span.name for span in sent if span.start_ns < commit.start_ns]


def _without_server(trace: JaegerTrace) -> list[str]:
    wanted = (names.DB_NAMESPACE, names.SERVER_ADDRESS, names.SERVER_PORT)
    return [
        f"{span.name} without {name}"
        for span in _attempts_of(trace.raw)
        for name in wanted
        if name not in span.attributes
    ]


COMMON: Final[dict[str, Callable[[JaegerTrace], list[str]]]] = {
    "every span names the event": _unnamed,
    "every span is a child of the write": _astray,
    "no publish begins before the commit": _early,
    "each attempt names its server": _without_server,
}
"""The rules for every trace. Each check returns the fault."""


def moved_spans(trace: JaegerTrace, *, wanted: bool) -> Result:
    """Whether Jaeger moved a span; it moves those of two hosts, which shows that it adjusts."""
    before = {span.span_id: span.start_ns for span in trace.raw}
    moved = [span.name for span in trace.adjusted if span.start_ns != before[span.span_id]]
    text = f"{trace.name}: Jaeger {'moves' if wanted else 'leaves'} the spans"
    return text, bool(moved) is wanted and bool(trace.adjusted), ", ".join(moved)


def drawn_in_order(trace: JaegerTrace) -> Result:
    """Whether Jaeger's page draws each publish after the last attempt, and blames no clock."""
    kinds = {span.span_id: span.kind for span in trace.raw}
    attempts = {span.span_id for span in _attempts_of(trace.raw)}
    ends = [each.start_time + each.duration for each in trace.drawn if each.span_id in attempts]
    sent = [each for each in trace.drawn if kinds.get(each.span_id) == "PRODUCER"]
    early = [each.operation_name for each in sent if each.start_time < max(ends, default=0)]
    blamed = [text for each in trace.drawn for text in each.warnings or ()]
    text = f"{trace.name}: Jaeger's page draws publish after the last attempt"
    return text, bool(ends and sent) and not early + blamed, ", ".join(early + blamed)


def _attempts_of(spans: Sequence[SpanView]) -> list[SpanView]:
    found = (span for span in spans if names.ATTEMPT_NUMBER in span.attributes)
    return sorted(found, key=lambda span: span.start_ns)


def _attempts(trace: JaegerTrace) -> Result:
    found = _attempts_of(trace.raw)
    told = [f"{span.name} {span.attributes[names.ATTEMPT_OUTCOME]}" for span in found]
    wanted = ["outbox.write.attempt conflict"]
    wanted += [f"outbox.write.attempt {n} conflict" for n in range(2, _CONFLICTS + 1)]
    wanted += [f"outbox.write.attempt {_CONFLICTS + 1} committed"]
    return f"{trace.name}: each attempt has its name and outcome", told == wanted, ", ".join(told)


def _dead_letter(trace: JaegerTrace) -> Result:
    (sent,) = (span for span in trace.raw if span.kind == "PRODUCER")
    told = str(sent.attributes.get(names.PUBLISH_LEADS_TO))
    return f"{trace.name}: the publish says so", sent.failed and told == "dead_letter", told
