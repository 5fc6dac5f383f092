"""Spans from Jaeger, by its HTTP query API (``/api/v3``, OTLP in JSON).

A search needs a service and a period, so this searches each service in turn.
Jaeger returns each trace whole, with the spans of all services. Traces are raw:
Jaeger would move spans whose clocks seem to differ.
https://www.jaegertracing.io/docs/latest/architecture/apis/

Releases before 2.19 cannot search by attribute there. They find the ids of
traces by ``/api/traces``, the API of their own pages.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from dsql_outbox.observability import attributes as names
from dsql_outbox.outbox import SettingsError, redacted

from .jaeger_answers import JaegerAnswers, OtherParameters
from .jaeger_pages import DEFAULT_JAEGER
from .otlp_json import TraceData, views
from .span_tree import SpanView

_BASE: Final = re.compile(r"https?://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[^?#@\s]*)?")
_AHEAD: Final = timedelta(hours=1)  # a span may come from a machine whose clock is ahead
_MOST: Final = "20"  # traces per answer


class _Services(msgspec.Struct):
    services: list[str] = []


class FoundTraces(msgspec.Struct):
    """Jaeger's answer with traces, in a wrapper of its gateway."""

    result: TraceData


class _FoundId(msgspec.Struct, rename={"trace_id": "traceID"}):
    trace_id: str


class _FoundIds(msgspec.Struct):
    data: list[_FoundId] | None = None


class _Search(NamedTuple):
    """A search for the traces of an event; `since` and `until` are aware times."""

    answers: JaegerAnswers
    event_id: str
    since: datetime
    until: datetime

    @property
    def attributes(self) -> str:
        return json.dumps({names.EVENT_ID: self.event_id})


def spans_of_jaeger(url: str, event_id: str, since: datetime) -> Iterator[SpanView]:
    """The spans of every trace since `since` that names the event; spans may repeat.

    Raises `JaegerUnreachable` if Jaeger is out of reach, `SettingsError` for an invalid
    URL, and `NotJaeger` for an answer that is not Jaeger's.
    """
    check_url(url)
    search = _Search(JaegerAnswers(url), event_id, since, datetime.now(UTC) + _AHEAD)
    found = search.answers.get("/api/v3/services", {}, _Services)
    for service in found.services if found else ():
        try:
            yield from _spans_of(search, service)
        except OtherParameters:
            yield from _spans_of_older(search, service)


def check_url(url: str) -> None:
    """Raise `SettingsError` unless `url` is an HTTP base URL without a login."""
    if not _BASE.fullmatch(url):
        raise SettingsError(
            f"--jaeger {redacted(url)}: give a base URL without a login, such as {DEFAULT_JAEGER}"
        )


def _spans_of(search: _Search, service: str) -> Iterator[SpanView]:
    wanted = {
        "query.serviceName": service,
        "query.attributes": search.attributes,
        "query.startTimeMin": _rfc3339(search.since),
        "query.startTimeMax": _rfc3339(search.until),
        "query.searchDepth": _MOST,
        "query.rawTraces": "true",
    }
    yield from _found(search.answers, "/api/v3/traces", wanted)


def _spans_of_older(search: _Search, service: str) -> Iterator[SpanView]:
    wanted = {
        "service": service,
        "tags": search.attributes,
        "start": _microseconds(search.since),
        "end": _microseconds(search.until),
        "limit": _MOST,
    }
    ids = search.answers.get("/api/traces", wanted, _FoundIds)
    for found_id in (ids and ids.data) or ():
        path = f"/api/v3/traces/{quote(found_id.trace_id, safe='')}"
        yield from _found(search.answers, path, {"raw_traces": "true"})


def _found(answers: JaegerAnswers, path: str, query: dict[str, str]) -> list[SpanView]:
    found = answers.get(path, query, FoundTraces)
    try:
        return list(views(found.result)) if found else []
    except ValueError as error:
        raise answers.refused(path, f"did not answer as Jaeger does ({error})") from error


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _microseconds(at: datetime) -> str:
    return str(round(at.timestamp() * 1e6))
