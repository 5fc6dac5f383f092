"""One request to Jaeger's HTTP API, and the meaning of each wrong answer."""

import json
import re
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec

from dsql_outbox.observability import visible
from dsql_outbox.outbox import OutboxError

OLDEST_JAEGER: Final = "2.13"
"""The oldest release of Jaeger that `trace` was tried with."""

_SECONDS: Final = 10.0  # that one request may take
_SHOWN: Final = 40  # characters of a version
_VERSION: Final = re.compile(rb'JAEGER_VERSION *= *\{[^}]*"gitVersion": *"([^"]*)"')

_Answer = TypeVar("_Answer")


class JaegerUnreachable(OutboxError):
    """Jaeger does not answer."""


class NotJaeger(OutboxError):
    """The server is not a Jaeger that can be searched, or it refuses the request."""


class OtherParameters(Exception):
    """Jaeger has refused the names of the parameters, as releases before 2.19 do."""


def get(url: str, path: str, query: dict[str, str], kind: type[_Answer]) -> _Answer | None:
    """The answer to a request; None for Jaeger's 404, which means that it found no trace.

    Raises `OtherParameters` for Jaeger's 400, `JaegerUnreachable` if Jaeger is out of reach,
    and `NotJaeger` for an answer that is not Jaeger's.
    """
    try:
        body = _read(f"{url}{path}?{urlencode(query)}")
    except HTTPError as error:
        with error:
            if _is_jaegers(error.read()):
                if error.code == HTTPStatus.NOT_FOUND:
                    return None
                if error.code == HTTPStatus.BAD_REQUEST:
                    raise OtherParameters from error
        raise _refused(url, path, f"answered {error.code}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise JaegerUnreachable(f"Jaeger cannot be reached at {url}{path}: {reason}") from error
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except (ValueError, msgspec.MsgspecError) as error:
        raise _refused(url, path, f"did not answer as Jaeger does ({error})") from error


def _read(url: str) -> bytes:
    with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - `check_url` has seen it
        body: bytes = answer.read()
        return body


def _is_jaegers(body: bytes) -> bool:
    """Whether an error comes from Jaeger's search, and not from a wrong path."""
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and "error" in answer


def _refused(url: str, path: str, what: str) -> NotJaeger:
    return NotJaeger(
        f"{url}{path} {what}: --jaeger must be the base URL of Jaeger {OLDEST_JAEGER} or newer; "
        f"at {url} is {_found_at(url)}"
    )


def _found_at(url: str) -> str:
    """The product that the page of a server names."""
    try:
        found = _VERSION.search(_read(f"{url}/"))
    except (URLError, OSError, ValueError):
        found = None
    if found is None:
        return "no page of Jaeger"
    version = visible(found[1].decode(errors="replace"))[:_SHOWN]
    return f"Jaeger {version.removeprefix('v')}" if version else "a Jaeger of an unknown version"
