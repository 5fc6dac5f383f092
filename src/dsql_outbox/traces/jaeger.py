"""Spans from Jaeger, by the HTTP query API of version 2 (``/api/v3``, OTLP in JSON).

A search needs a service and a period, so this searches each service in turn.
Jaeger returns each trace whole, with the spans of all services.
https://www.jaegertracing.io/docs/latest/architecture/apis/
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec

from dsql_outbox.observability import attributes as names
from dsql_outbox.outbox import OutboxError, SettingsError, redacted

from .otlp_json import TraceData, views
from .span_tree import SpanView

_BASE: Final = re.compile(r"https?://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[^?#@\s]*)?")
_SECONDS: Final = 10.0  # that one request may take
_AHEAD: Final = timedelta(hours=1)  # a span may come from a machine whose clock is ahead
_MOST: Final = 20  # traces per answer

_Answer = TypeVar("_Answer")


class JaegerUnreachable(OutboxError):  # noqa: N818 - said as it is
    """Jaeger does not answer."""


class NotJaeger(OutboxError):  # noqa: N818 - said as it is
    """The server is not the query API of Jaeger 2, or refuses the request."""


class _Services(msgspec.Struct):
    services: list[str] = []


class _FoundTraces(msgspec.Struct):
    result: TraceData


def spans_of_jaeger(url: str, event_id: str, since: datetime) -> Iterator[SpanView]:
    """The spans of every trace since `since` that names the event; spans may repeat.

    Raises `JaegerUnreachable` if Jaeger is out of reach, `SettingsError` for an invalid
    URL, and `NotJaeger` for an answer that is not Jaeger's.
    """
    check_url(url)
    period = {
        "query.startTimeMin": _rfc3339(since),
        "query.startTimeMax": _rfc3339(datetime.now(UTC) + _AHEAD),
        "query.searchDepth": str(_MOST),
    }
    services = _get(f"{url}/api/v3/services", _Services)
    for service in services.services if services else ():
        for name in (names.EVENT_ID, names.MESSAGING_MESSAGE_ID):
            wanted = {
                "query.serviceName": service,
                "query.attributes": json.dumps({name: event_id}),
            }
            found = _get(f"{url}/api/v3/traces?{urlencode(wanted | period)}", _FoundTraces)
            if found:
                yield from views(found.result)


def page_of(url: str, trace_id: str) -> str:
    """The URL of Jaeger's page for a trace."""
    return f"{url}/trace/{trace_id}"


def check_url(url: str) -> None:
    """Raise `SettingsError` unless `url` is an HTTP base URL without a login."""
    if not _BASE.fullmatch(url):
        raise SettingsError(
            f"--jaeger {redacted(url)}: give a base URL without a login, "
            "such as http://localhost:16686"
        )


def _get(url: str, kind: type[_Answer]) -> _Answer | None:
    """Jaeger's answer; None for its 404, which means that it found no trace."""
    place = url.partition("?")[0]
    try:
        with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - checked to be HTTP
            body: bytes = answer.read()
    except HTTPError as error:
        with error:
            if error.code == HTTPStatus.NOT_FOUND and _is_jaegers(error.read()):
                return None
        raise NotJaeger(
            f"{place} answered {error.code}: it must be the query API of Jaeger 2"
        ) from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise JaegerUnreachable(f"Jaeger cannot be reached at {place}: {reason}") from error
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except (ValueError, msgspec.MsgspecError) as error:
        raise NotJaeger(
            f"{place} did not answer as the query API of Jaeger 2 does: {error}"
        ) from error


def _is_jaegers(body: bytes) -> bool:
    """Whether a 404 comes from Jaeger's search, and not from a wrong path."""
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and "error" in answer


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
