"""Parses the head of an HTTP/1 request; pure.

It is stricter than the standard. An application behind a proxy must never see another request
than the proxy did, so what two parsers may read differently is refused.
"""

import re
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import unquote

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST: Final = re.compile(
    rb"(?P<method>%b) (?P<target>/[\x21-\x7e]*) HTTP/(?P<major>\d)\.(?P<minor>\d)" % _TOKEN
)
_FIELD: Final = re.compile(rb"(%b):[ \t]*([\x20-\x7e\x80-\xff\t]*)" % _TOKEN)
_LENGTH: Final = re.compile(rb"\d{1,18}")
_HOST: Final = re.compile(rb"(?:[\w.~-]*|\[[\w.:%~-]+\])(?::\d*)?")


class Refused(Exception):
    """A request that is answered with this status and closed."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class RequestHead(NamedTuple):
    """The first line and the headers. `path` is decoded, `raw_path` is as it was sent."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int
    """Bytes of the body."""


def request_head(head: bytes) -> RequestHead:
    """Parse a head, which ends with an empty line.

    Raises `Refused` for a head that is malformed, another version than HTTP/1, another number of
    hosts than one (HTTP/1.0 may have none), and a body without a length.
    """
    first, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    if request is None:
        raise Refused(HTTPStatus.BAD_REQUEST)
    if request["major"] != b"1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    headers = [_header(field) for field in fields]
    _check_host(headers, may_lack=request["minor"] == b"0")
    raw_path, _, query = request["target"].partition(b"?")
    path = unquote(raw_path.decode("ascii"))
    version = f"1.{request['minor'].decode()}"
    return RequestHead(
        request["method"].decode(), path, raw_path, query, version, headers, _length(headers)
    )


def _header(field: bytes) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(field)
    if found is None:
        raise Refused(HTTPStatus.BAD_REQUEST)
    return found[1].lower(), found[2].rstrip(b" \t")


def _check_host(headers: list[tuple[bytes, bytes]], *, may_lack: bool) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or not may_lack):
        raise Refused(HTTPStatus.BAD_REQUEST)
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Refused(HTTPStatus.BAD_REQUEST)


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    if any(name == b"transfer-encoding" for name, _ in headers):
        raise Refused(HTTPStatus.LENGTH_REQUIRED)
    lengths = {value for name, value in headers if name == b"content-length"} or {b"0"}
    if len(lengths) > 1 or not _LENGTH.fullmatch(length := lengths.pop()):
        raise Refused(HTTPStatus.BAD_REQUEST)
    return int(length)
