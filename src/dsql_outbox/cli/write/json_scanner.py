"""Finds the begin and the end of each event in a stream of JSON, byte for byte: pure.

The stream holds values one after the other: events as JSON Lines, or arrays of
events. The scanner looks at brackets and strings only, and leaves the rest to
the reader of the event. So a bad event in JSON Lines spoils no other, as long
as its brackets and quotes are balanced.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

_BLANKS: Final = re.compile(rb"[ \t\n\r]*")
# Unrolled, so that nothing can match in two ways; possessive quantifiers have bugs before 3.11.5.
_NO_BRACKET: Final = re.compile(rb'[^"{}\[\]]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"{}\[\]]*)*', re.DOTALL)
_IN_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_IN_SCALAR: Final = re.compile(rb'[^ \t\n\r,{}\[\]"]*')
_BACKSLASH: Final = ord("\\")
_QUOTE: Final = ord('"')
_VALUE: Final = b'{["-0123456789tfn'

_array: Final = msgspec.json.Decoder(list[msgspec.Raw])


class MalformedInput(Exception):
    """The stream is broken at byte `offset`, so that the values after it cannot be separated."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"byte {offset}: {problem}")
        self.offset = offset


class Extent(NamedTuple):
    """One value: its first byte in the stream, and its bytes."""

    offset: int
    data: bytes


class Scanner:
    """Cuts a stream into values, however its bytes arrive.

    It keeps at most `limit` bytes and one chunk.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()  # from the current value on
        self._base = 0  # of the buffer in the stream
        self._seen = 0  # bytes of the buffer that need no second look
        self._depth = 0  # of the brackets among them
        self._in_string = False

    def feed(self, chunk: bytes) -> Iterator[Extent]:
        """The values that `chunk` completes. Raises `MalformedInput` after those before it."""
        self._buffer += chunk
        while self._is_complete():
            yield self._take()
        self._refuse_over_limit(len(self._buffer))

    def close(self) -> Iterator[Extent]:
        """The value that only the end of the stream completes, such as a number.

        Raises `MalformedInput` when the stream ends within a value.
        """
        yield from self.feed(b"\n")
        if self._buffer:
            raise MalformedInput(self._base, "the event or array that begins here does not end")

    def _is_complete(self) -> bool:
        """Continue; return whether the current value is complete."""
        if self._seen == 0:
            self._begin()
        if self._buffer[:1] in b'{["':
            return self._is_closed()
        self._seen = _end(_IN_SCALAR, self._buffer, self._seen)
        return self._seen < len(self._buffer)

    def _begin(self) -> None:
        self._drop(_end(_BLANKS, self._buffer, 0))
        first = bytes(self._buffer[:1])
        if first not in _VALUE:
            raise MalformedInput(self._base, f"expected an event, found {_shown(first)}")
        self._in_string = first == b'"'
        self._seen = int(self._in_string)

    def _is_closed(self) -> bool:
        """Look for quotes and brackets; whether one ends the outermost string, array or object."""
        buffer, size = self._buffer, len(self._buffer)
        while True:
            inside = _IN_STRING if self._in_string else _NO_BRACKET
            self._seen = at = _end(inside, buffer, self._seen)
            if at == size or buffer[at] == _BACKSLASH:  # the rest is in a later chunk
                return False
            self._seen += 1
            if buffer[at] == _QUOTE:
                self._in_string = not self._in_string
            else:
                self._depth += 1 if buffer[at] in b"{[" else -1
            if self._depth == 0 and not self._in_string:
                return True

    def _take(self) -> Extent:
        self._refuse_over_limit(self._seen)
        extent = Extent(self._base, bytes(self._buffer[: self._seen]))
        self._drop(self._seen)
        self._seen = 0
        return extent

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._base += size

    def _refuse_over_limit(self, size: int) -> None:
        if size > self._limit:
            over = f"{size} bytes or more is over the limit of {self._limit} bytes"
            problem = f"an array or event of {over}; JSON Lines, one event per line, have no limit"
            raise MalformedInput(self._base, problem)


def events(value: Extent) -> Iterator[Extent]:
    """The elements of an array, byte for byte; any other value is its only event.

    Raises `MalformedInput` for an array that is not valid JSON.
    """
    if not value.data.startswith(b"["):
        yield value
        return
    try:
        value.data.decode()  # msgspec reports invalid UTF-8 as cut off
        elements = _array.decode(value.data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        problem = f"the array that begins here is not valid JSON: {error}"
        raise MalformedInput(value.offset, problem) from None
    end = 0
    for element in map(bytes, elements):
        start = value.data.index(element, end)  # before it are only blanks and a comma
        end = start + len(element)
        yield Extent(value.offset + start, element)


def _end(pattern: re.Pattern[bytes], data: bytearray, at: int) -> int:
    """Where the match of a pattern that always matches ends."""
    found = pattern.match(data, at)
    return at if found is None else found.end()


def _shown(byte: bytes) -> str:
    return byte.decode() if b" " < byte <= b"~" else f"0x{byte.hex()}"
