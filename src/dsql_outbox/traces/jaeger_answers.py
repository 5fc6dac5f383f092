"""Requests to Jaeger's HTTP API, and the meaning of each wrong answer."""

import json
import re
from http import HTTPStatus
from http.client import HTTPException
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import urlencode
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler

import msgspec

from dsql_outbox.observability import visible
from dsql_outbox.outbox import OutboxError

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
        ends_at = min(self._ends_at, monotonic() + _SECONDS)
        if ends_at <= monotonic():
            raise TimeoutError("the search timed out")
        with self._opener.open(self.url + path, timeout=ends_at - monotonic()) as answer:
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
