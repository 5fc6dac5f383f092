"""The PostgreSQL wire protocol, version 3: bytes to messages and back, without I/O.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import re
from functools import lru_cache
from struct import pack
from typing import Final, NamedTuple

PARSE: Final = b"P"
BIND: Final = b"B"
DESCRIBE_OR_ROW: Final = b"D"  # Describe from a client, DataRow from a server
EXECUTE_OR_ERROR: Final = b"E"  # Execute from a client, ErrorResponse from a server
CLOSE_OR_COMPLETE: Final = b"C"  # Close from a client, CommandComplete from a server
FLUSH: Final = b"H"
SYNC: Final = b"S"
QUERY: Final = b"Q"
READY: Final = b"Z"

CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104
_REQUESTS: Final = {CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST}

_LENGTH: Final = 4  # bytes of the length field, which counts itself


class WireMessage(NamedTuple):
    """One message: its type, and the bytes after the length.

    The type is one letter; a client's first messages have none.
    """

    kind: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        """The message as it is sent over the wire."""
        return self.kind + pack("!I", len(self.body) + _LENGTH) + self.body


class Splitter:
    """Splits one direction of a connection into messages, in whatever pieces its bytes arrive.

    With `untyped`, the stream begins with messages that have no letter. A client
    sends such messages up to and including its StartupMessage.
    """

    def __init__(self, *, untyped: bool) -> None:
        self._buffer = bytearray()
        self._untyped = untyped

    def feed(self, data: bytes) -> list[WireMessage]:
        """The messages that `data` completes. Raises `ValueError` for an impossible length."""
        self._buffer += data
        messages: list[WireMessage] = []
        while (message := self._take()) is not None:
            messages.append(message)
        return messages

    def _take(self) -> WireMessage | None:
        start = 0 if self._untyped else 1
        head = start + _LENGTH
        if len(self._buffer) < head:
            return None
        length = int.from_bytes(self._buffer[start:head])
        if length < _LENGTH:
            raise ValueError(f"message length {length} is below {_LENGTH}: not PostgreSQL's wire")
        if len(self._buffer) < start + length:
            return None
        message = WireMessage(
            bytes(self._buffer[:start]), bytes(self._buffer[head : start + length])
        )
        del self._buffer[: start + length]
        self._untyped = self._untyped and request_code(message) in _REQUESTS
        return message


def request_code(message: WireMessage) -> int:
    """The code of a message without a letter: one of the requests above, or a protocol version."""
    return int.from_bytes(message.body[:4])


def query(sql: str) -> WireMessage:
    """A Query message for `sql`."""
    return WireMessage(QUERY, _text(sql))


def parse(sql: str) -> WireMessage:
    """A Parse message that prepares `sql` as the unnamed statement."""
    return WireMessage(PARSE, _text("") + _text(sql) + pack("!H", 0))


def error_response(sqlstate: str | None, text: str) -> WireMessage:
    """An ErrorResponse of a server; without a SQLSTATE if `sqlstate` is None."""
    fields = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": text}
    body = b"".join(
        name.encode() + _text(value) for name, value in fields.items() if value is not None
    )
    return WireMessage(EXECUTE_OR_ERROR, body + b"\0")


def query_text(message: WireMessage) -> str:
    """The SQL of a Query."""
    return _strings(message.body)[0]


def parsed_statement(message: WireMessage) -> tuple[str, str]:
    """The name and the SQL of a Parse."""
    name, sql = _strings(message.body)[:2]
    return name, sql


def bound_statement(message: WireMessage) -> str:
    """The name of the statement that a Bind uses."""
    return _strings(message.body)[1]


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _strings(body: bytes) -> list[str]:
    return [part.decode(errors="replace") for part in body.split(b"\0", 2)]


# Texts come first, because a text may contain what looks like a comment.
_PART: Final = re.compile(
    r"""
    [eE]'(?:[^'\\]|\\.|'')*'   # E'it\'s'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    | (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_EDGE: Final = re.compile(r"/\*|\*/")


@lru_cache(maxsize=512)  # a client runs the same statements again and again
def without_comments(sql: str) -> str:
    """Return SQL with a blank in place of each comment."""
    kept: list[str] = []
    start = 0
    while (part := _PART.search(sql, start)) is not None:
        end = _end_of_block(sql, part.end()) if part["block"] else part.end()
        is_comment = part["block"] or part["line"]
        kept += [sql[start : part.start()], " " if is_comment else part[0]]
        start = end
    return "".join([*kept, sql[start:]])


@lru_cache(maxsize=512)
def statements(sql: str) -> tuple[str, ...]:
    """Return the statements of a text. One alone is the whole text."""
    pieces: list[str] = []
    start = at = 0
    while (part := _PART.search(sql, at)) is not None:
        at = _end_of_block(sql, part.end()) if part["block"] else part.end()
        if part["end"]:
            pieces.append(sql[start : part.start()])
            start = at
    found = [each for each in (*pieces, sql[start:]) if without_comments(each).strip()]
    return tuple(found) if len(found) > 1 else (sql,)


def _end_of_block(sql: str, start: int) -> int:
    """Return where a comment ends that began before `start`. Comments may be nested."""
    depth = 1
    while depth and (edge := _EDGE.search(sql, start)) is not None:
        depth += 1 if edge[0] == "/*" else -1
        start = edge.end()
    return len(sql) if depth else start
