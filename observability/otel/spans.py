"""The hook that turns facts into OpenTelemetry spans, with only OpenTelemetry's API.

One write and its delivery make one trace::

    outbox.write                the call of `write`
      outbox.write.attempt      one run of the transaction; the gap before it is the wait
      outbox.wait               from the commit until a publisher read the row
      publish <topic>           one try to publish; a consumer continues the trace from here

Without an SDK nothing is recorded. The caller's own trace context, if any, is
still stored in the row and sent to the broker.
"""

import re
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    ProxyTracerProvider,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dsql_outbox.observability import attributes as names
from dsql_outbox.observability.facts import (
    AttemptEnded,
    BatchedWrite,
    BatchEnded,
    DatabaseServer,
    Fact,
    PublishEnded,
    PublishStarted,
    WriteEnded,
    WriteExhausted,
    WriteStarted,
)
from dsql_outbox.observability.hooks import Scope
from dsql_outbox.observability.recording import Recording

_NUMBERED: Final = range(2, 10)
"""The attempts whose number is in the name of the span: few enough for a list of names."""

_FAILED: Final = frozenset(
    {"conflict", "in_doubt", "failed", "unknown", "retry", "rejected", "unavailable", "deferred"}
)


_UNSAMPLED: Final = re.compile(
    r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]"
).fullmatch
"""A valid ``traceparent`` of a trace that is not sampled: bit 0 of its flags is not set."""

_W3C: Final = TraceContextTextMapPropagator()


def _is_traced() -> bool:
    return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


class TraceFacts:
    """The hook that turns facts into spans.

    Without `tracer_provider` it uses the global provider, even if that is set
    after the first fact.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._provider = tracer_provider
        self._is_live = Recording(_is_traced, is_live=tracer_provider is not None)

    @cached_property
    def _tracer(self) -> Tracer:
        return trace.get_tracer("dsql_outbox", version("dsql-outbox"), self._provider)

    def __call__(self, fact: Fact, /) -> Scope | None:
        """Start a span for a write or a publish and return its scope; ignore other facts.

        `BatchEnded` makes a finished span of its own.
        """
        start = _STARTS.get(type(fact))
        if start is None or (start is _start_publish and not self._is_live()):
            return None  # the message keeps the trace context that is stored in its row
        return start(self._tracer, fact)

    def skips_successes(self) -> bool:
        """Whether no provider records, and no trace context of the caller is to be passed on."""
        return not self._is_live() and not trace.get_current_span().get_span_context().is_valid

    def skips_publish(self, carrier: Mapping[str, str]) -> bool:
        """Whether a message of this trace context has no span, and keeps the context of its row.

        So it is if no provider records, or the write was not sampled and the sampler follows that.
        """
        if not self._is_live():
            return True
        return self._follows_parents and bool(_UNSAMPLED(carrier.get("traceparent", "")))

    @cached_property
    def _follows_parents(self) -> bool:
        """Whether the sampler drops each span whose parent was not sampled, as the default does.

        Its description says so. Any other one is asked for each message.
        """
        provider = self._provider or trace.get_tracer_provider()
        sampler = getattr(provider, "sampler", None)
        text = "" if sampler is None else str(sampler.get_description())
        return text.startswith("ParentBased{") and "remoteParentNotSampled:AlwaysOff" in text


trace_facts: Final = TraceFacts()
"""The hook for the global tracer provider; on by default."""


def trace_ids() -> dict[str, object]:
    """``trace_id`` and ``span_id`` as hex, empty outside of a span."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(span.trace_id),
        "span_id": trace.format_span_id(span.span_id),
    }


class _SpanScope:
    """The scope of one span."""

    __slots__ = ("_carrier", "_server", "_span", "_token", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, server: DatabaseServer | None = None) -> None:
        self._tracer = tracer
        self._span = span
        self._server = server
        self._carrier: dict[str, str] | None = None

    @property
    def carrier(self) -> dict[str, str]:
        """The span's trace context. It is built in an empty context, so that no baggage is sent."""
        if self._carrier is None:  # a batch of several callers asks twice
            from opentelemetry import propagate  # noqa: PLC0415 - slow, and for spans only

            self._carrier = {}
            propagate.inject(self._carrier, trace.set_span_in_context(self._span, Context()))
        return self._carrier

    def __call__(self, fact: Fact, /) -> None:
        if not self._span.is_recording():
            return
        match fact:
            case AttemptEnded():
                parent = trace.set_span_in_context(self._span)
                _record_attempt(self._tracer, parent, fact, self._server)
            case WriteExhausted():
                self._span.set_attribute(names.WRITE_EXHAUSTED, value=True)
            case WriteEnded():
                _end_write(self._span, fact)
            case PublishEnded():
                _end_publish(self._span, fact)
            case _:
                pass

    def __enter__(self) -> Self:
        self._token = attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        detach(self._token)
        if self._span.is_recording():  # no fact has ended the span
            _finish(self._span, failed=kind is not None, error=kind.__name__ if kind else None)


def _start_write(tracer: Tracer, fact: WriteStarted) -> _SpanScope | None:
    span = tracer.start_span(
        "outbox.write", attributes={names.EVENT_TYPE: fact.event_type, names.TOPIC: fact.topic}
    )
    if span is trace.INVALID_SPAN:  # no SDK records, and the caller has no trace context
        return None
    if span.is_recording():
        span.set_attributes(
            {
                names.EVENT_ID: str(fact.event_id),
                names.EVENT_NAME: fact.event_name,
                names.EVENT_ENTITIES: fact.entities,
            }
        )
    return _SpanScope(tracer, span, fact.server)


@lru_cache(maxsize=64)  # a process has few databases
def database_attributes(server: DatabaseServer | None) -> dict[str, str | int]:
    """The attributes of every span of a database. Do not change the result."""
    found: dict[str, str | int] = {names.DB_SYSTEM: "postgresql"}
    if server is None:
        return found
    found[names.DB_NAMESPACE] = server.namespace
    if server.address is not None:
        found[names.SERVER_ADDRESS] = server.address
    if server.port is not None:
        found[names.SERVER_PORT] = server.port
    return found


def _record_attempt(
    tracer: Tracer, parent: Context, fact: AttemptEnded, server: DatabaseServer | None
) -> None:
    attributes: dict[str, str | float] = {
        **database_attributes(server),
        names.EVENT_ID: str(fact.event_id),
        names.ATTEMPT_NUMBER: fact.number,
        names.ATTEMPT_OUTCOME: fact.outcome,
    }
    if fact.waited_s:
        attributes[names.ATTEMPT_WAITED] = fact.waited_s
    if fact.oc_class is not None:
        attributes[names.ATTEMPT_OC_CLASS] = fact.oc_class
    if fact.entities:
        attributes[names.ATTEMPT_ENTITIES] = ", ".join(fact.entities)
    if fact.sqlstate is not None:
        attributes[names.DB_STATUS_CODE] = fact.sqlstate
    number = f" {fact.number}" if fact.number in _NUMBERED else ""
    span = tracer.start_span(
        f"outbox.write.attempt{number}",
        parent,
        SpanKind.CLIENT,
        attributes,
        start_time=fact.started_ns,
    )
    _finish(
        span,
        failed=fact.outcome in _FAILED,
        error=fact.error,
        end_ns=max(fact.started_ns, fact.ended_ns),
    )


def _record_batch(tracer: Tracer, fact: BatchEnded) -> Scope | None:
    """Make a separate trace with links to all writes, because it belongs to several."""
    span = tracer.start_span(
        "outbox.batch",
        Context(),
        attributes={**database_attributes(fact.server), names.BATCH_EVENTS: fact.events},
        start_time=fact.started_ns,
    )
    if span.is_recording():
        for write in fact.writes:
            _link(span, write)
        span.set_attribute(names.BATCH_OUTCOME, fact.outcome)
        if fact.sqlstate is not None:
            span.set_attribute(names.DB_STATUS_CODE, fact.sqlstate)
    _finish(
        span,
        failed=fact.outcome in _FAILED,
        error=fact.error,
        end_ns=max(fact.started_ns, fact.ended_ns),
    )
    return None


def _link(span: Span, write: BatchedWrite) -> None:
    from opentelemetry import propagate  # noqa: PLC0415 - slow, and for spans only

    parent = propagate.extract(write.carrier, Context())
    if (found := trace.get_current_span(parent).get_span_context()).is_valid:
        span.add_link(found, {names.EVENT_ID: str(write.event_id)})


def _end_write(span: Span, fact: WriteEnded) -> None:
    span.set_attributes(
        {
            names.WRITE_STATUS: fact.status,
            names.WRITE_ATTEMPTS: fact.attempts,
            names.WRITE_CONFLICTS: fact.conflicts,
        }
    )
    _finish(span, failed=fact.status in _FAILED, error=fact.error)


def _start_publish(tracer: Tracer, fact: PublishStarted) -> _SpanScope | None:

    # The parent is the trace of the row, never the current span of the publisher's process.
    parent = _W3C.extract(fact.carrier, Context())
    destination = fact.destination or fact.topic
    event_id = str(fact.event_id)
    span = tracer.start_span(
        f"publish {destination}",
        parent,
        SpanKind.PRODUCER,
        {
            **_broker_attributes(fact.system, destination, fact.server_address, fact.server_port),
            names.TOPIC: fact.topic,
            names.EVENT_ID: event_id,
            names.MESSAGING_MESSAGE_ID: event_id,
            names.MESSAGING_BODY_SIZE: fact.payload_bytes,
            names.PUBLISH_ATTEMPT: fact.attempt,
        },
    )
    if span.get_span_context() is trace.get_current_span(parent).get_span_context():
        return None  # no SDK records, so the message keeps the trace context of its row
    if span.is_recording():
        _record_wait(tracer, parent, fact, event_id)
    return _SpanScope(tracer, span)


@lru_cache(maxsize=256)
def _broker_attributes(
    system: str, destination: str, address: str | None, port: int | None
) -> dict[str, str | int]:
    """The attributes of every span of a destination. Do not change the result."""
    found: dict[str, str | int | None] = {
        names.MESSAGING_SYSTEM: system,
        names.MESSAGING_DESTINATION: destination,
        names.MESSAGING_OPERATION_NAME: "publish",
        names.MESSAGING_OPERATION_TYPE: "send",
        names.SERVER_ADDRESS: address,
        names.SERVER_PORT: port,
    }
    return {name: value for name, value in found.items() if value is not None}


def _record_wait(tracer: Tracer, parent: Context, fact: PublishStarted, event_id: str) -> None:
    if fact.attempt > 1 or not trace.get_current_span(parent).get_span_context().is_valid:
        return  # if the write was not traced, the wait would be a trace of its own
    span = tracer.start_span(
        "outbox.wait",
        parent,
        attributes={names.EVENT_ID: event_id},
        start_time=fact.committed_ns,
    )
    # These are two clocks, and the database's may be ahead of this machine's.
    span.end(max(fact.committed_ns, fact.picked_up_ns))


def _end_publish(span: Span, fact: PublishEnded) -> None:
    span.set_attribute(names.PUBLISH_RESULT, fact.result)
    if fact.leads_to is not None:
        span.set_attribute(names.PUBLISH_LEADS_TO, fact.leads_to)
    failed = fact.result in _FAILED
    _finish(span, failed=failed, error=fact.result if failed else None, why=fact.leads_to)


def _finish(
    span: Span,
    *,
    failed: bool,
    error: str | None,
    why: str | None = None,
    end_ns: int | None = None,
) -> None:
    if error is not None:
        span.set_attribute(names.ERROR_TYPE, error)
    if failed:
        span.set_status(StatusCode.ERROR, why)
    span.end(end_ns)


_STARTS: Final[dict[type[Fact], Callable[[Tracer, Any], Scope | None]]] = {
    WriteStarted: _start_write,
    BatchEnded: _record_batch,
    PublishStarted: _start_publish,
}
