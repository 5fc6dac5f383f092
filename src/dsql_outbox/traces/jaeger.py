"""Reads spans of an event from Jaeger, and knows the URLs of its pages."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler

import msgspec

from dsql_outbox.observability import attributes as names
from dsql_outbox.observability import visible
from dsql_outbox.outbox import OutboxError, SettingsError, redacted

from .otlp_json import TraceData, views
from .span_tree import SpanView

_PORT: Final = 16686

DEFAULT_JAEGER: Final = f"http://localhost:{_PORT}"
"""The base URL of a Jaeger on this machine."""

OLDEST_JAEGER: Final = "2.19"
"""The first release of Jaeger that searches by attribute in ``/api/v3``."""

_SECONDS: Final = 10.0  # that one request may take
_ALL_SECONDS: Final = 60.0  # that all requests of a search may take
_ALL_BYTES: Final = 16 << 20  # of all answers of a search
_PART: Final = 1 << 16
_SHOWN: Final = 40  # characters of a version
_QUOTED: Final = 200  # characters of an error
_VERSION: Final = re.compile(rb'JAEGER_VERSION *= *\{[^}]*"gitVersion": *"([^"]*)"')

_Answer = TypeVar("_Answer")

_BASE: Final = re.compile(r"https?://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[^?#@\s]*)?")
_AHEAD: Final = timedelta(hours=1)  # a span may come from a machine whose clock is ahead
_MOST: Final = "20"  # traces per answer
_TRACES: Final = "/api/v3/traces"


def jaeger_beside(otlp_url: str) -> str:
    """The base URL of a Jaeger that takes spans at `otlp_url`, at its usual port."""
    host = urlsplit(otlp_url).hostname or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{_PORT}"


def page_of(url: str, trace_id: str) -> str:
    """The URL of Jaeger's page for a trace."""
    return f"{url}/trace/{quote(trace_id, safe='')}"


class JaegerUnreachable(OutboxError):
    """Jaeger does not answer."""


class NotJaeger(OutboxError):
    """The server is not a Jaeger that can be searched, or it refuses the request."""


class JaegerAnswers:
    """The answers of one search, within limits of size and time. `url` is the base URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._ends_at = monotonic() + _ALL_SECONDS
        self._bytes_left = _ALL_BYTES
        # urllib's usual opener follows redirections, and reads their bodies whole.
        self._opener = OpenerDirector()
        for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
            self._opener.add_handler(handler)

    def get(self, path: str, query: dict[str, str], kind: type[_Answer]) -> _Answer | None:
        """The answer to a request; None for Jaeger's 404, which means that it found no trace.

        Raises `JaegerUnreachable` if Jaeger is out of reach or the search takes too long, and
        `NotJaeger` for an answer that is not Jaeger's, or not of a Jaeger that is new enough.
        """
        try:
            status, body = self._read(f"{path}?{urlencode(query)}")
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise JaegerUnreachable(
                f"Jaeger cannot be reached at {self.url}{path}: {reason}"
            ) from error
        except (HTTPException, ValueError) as error:  # no HTTP
            raise self.refused(path, f"did not answer as Jaeger does ({_told(error)})") from error
        if body is None:
            raise self.refused(path, f"answered with more than {_ALL_BYTES >> 20} MiB")
        if status == HTTPStatus.OK:
            return self._decoded(path, body, kind)
        if status == HTTPStatus.NOT_FOUND and _is_jaegers(body):
            return None
        raise self.refused(path, f"answered {status}")

    def refused(self, path: str, what: str) -> NotJaeger:
        """The error for an answer that is not Jaeger's."""
        return NotJaeger(
            f"{self.url}{path} {what}: --jaeger must be the base URL of Jaeger {OLDEST_JAEGER} or "
            f"newer; at {self.url} is {self._found()}"
        )

    def _decoded(self, path: str, body: bytes, kind: type[_Answer]) -> _Answer:
        try:
            return msgspec.json.decode(body, type=kind, strict=False)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise self.refused(path, f"did not answer as Jaeger does ({_told(error)})") from error

    def _read(self, path: str) -> tuple[int, bytes | None]:
        """The status and the body of an answer; None for a body that exceeds the limit."""
        now = monotonic()
        ends_at = min(self._ends_at, now + _SECONDS)
        if ends_at <= now:
            raise TimeoutError("the search timed out")
        with self._opener.open(self.url + path, timeout=ends_at - now) as answer:
            body = bytearray()
            while part := answer.read1(_PART):
                body += part
                self._bytes_left -= len(part)
                if self._bytes_left < 0:
                    return answer.status, None
                if monotonic() > ends_at:
                    raise TimeoutError("the answer timed out")
            return answer.status, bytes(body)

    def _found(self) -> str:
        """The product that the page of a server names."""
        try:
            found = _VERSION.search(self._read("/")[1] or b"")
        except (HTTPException, OSError, ValueError):
            found = None
        if found is None:
            return "no page of Jaeger"
        version = visible(found[1].decode(errors="replace"))[:_SHOWN]
        return (
            f"Jaeger {version.removeprefix('v')}" if version else "a Jaeger of an unknown version"
        )


def _is_jaegers(body: bytes) -> bool:
    """Whether an error comes from Jaeger's search, and not from a wrong path."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and "error" in answer


def _told(error: Exception) -> str:
    """The text of an error on one short line; it may quote the answer."""
    text = visible(" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


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
