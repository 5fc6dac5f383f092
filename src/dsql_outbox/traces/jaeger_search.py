"""Spans from Jaeger, by its HTTP query API (``/api/v3``, OTLP in JSON).

A search needs a service and a period, so this searches each service in turn.
Jaeger returns each trace whole, with the spans of all services. Traces are raw:
Jaeger would move spans whose clocks seem to differ.
https://www.jaegertracing.io/docs/latest/architecture/apis/
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from dsql_outbox.observability import attributes as names
from dsql_outbox.outbox import SettingsError, redacted

from .jaeger_answers import JaegerAnswers
from .jaeger_pages import DEFAULT_JAEGER
from .otlp_json import TraceData, views
from .span_tree import SpanView

_BASE: Final = re.compile(r"https?://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[^?#@\s]*)?")
_AHEAD: Final = timedelta(hours=1)  # a span may come from a machine whose clock is ahead
_MOST: Final = "20"  # traces per answer
_TRACES: Final = "/api/v3/traces"


class _Services(msgspec.Struct):
    services: list[str] = []


class FoundTraces(msgspec.Struct):
    """Jaeger's answer with traces, in a wrapper of its gateway."""

    result: TraceData


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
        yield from _spans_of(search, service)


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
    found = search.answers.get(_TRACES, wanted, FoundTraces)
    try:
        yield from list(views(found.result)) if found else ()
    except ValueError as error:
        raise search.answers.refused(_TRACES, f"did not answer as Jaeger does ({error})") from error


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
