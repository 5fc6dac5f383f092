"""Where each event begins and ends in a stream of JSON, byte for byte: pure.

The stream holds values one after the other: a single event, or JSON Lines. The
elements of an outermost array count as values of their own. Only brackets,
strings and commas are looked at; whether a value is right is for those who
read it. So one bad event spoils no other, as long as its brackets and quotes
are balanced.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

_SPACES: Final = re.compile(rb"[ \t\n\r]*")
# Unrolled, so that nothing can match in two ways; possessive quantifiers have bugs before 3.11.5.
_NO_BRACKET: Final = re.compile(rb'[^"{}\[\]]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"{}\[\]]*)*', re.DOTALL)
_QUOTE_OR_ESCAPE: Final = re.compile(rb'["\\]')
_AFTER_SCALAR: Final = re.compile(rb'[ \t\n\r,{}\[\]"]')
_VALUE: Final = b'{["-0123456789tfn'


class _Expected(NamedTuple):
    """What may come between two values, in words and by its first byte."""

    words: str
    first: bytes


_TOP: Final = _Expected("an event", _VALUE)
_FIRST: Final = _Expected("an event or ]", _VALUE + b"]")
_NEXT: Final = _Expected("an event after the comma", _VALUE)
_AFTER: Final = _Expected("a comma or ]", b",]")


class MalformedInput(Exception):  # noqa: N818 - reads as what happened
    """The stream is broken at byte `offset`, so that nothing after it can be told apart."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"byte {offset}: {problem}")
        self.offset = offset


class Extent(NamedTuple):
    """One value: its first byte in the stream, its size in bytes, and the bytes.

    `data` is None for a value over the scanner's limit.
    """

    offset: int
    size: int
    data: bytes | None


class Scanner:
    """Cuts a stream into values, however its bytes arrive.

    It keeps at most `limit` bytes and one chunk.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._advance: Callable[[bytes, int], int] = self._between
        self._expected = _TOP
        self._base = 0  # of the chunk in the stream
        self._start: int | None = None  # of the value in hand
        self._kept = bytearray()
        self._depth = 0
        self._complete = False

    def feed(self, chunk: bytes) -> Iterator[Extent]:
        """The values that `chunk` completes; raises `MalformedInput` after those before it."""
        at = 0
        while at < len(chunk):
            at = self._advance(chunk, at)
            if self._complete and self._start is not None:
                yield self._take(self._start, chunk, at)
        self._keep(chunk, at)
        self._base += len(chunk)

    def close(self) -> Iterator[Extent]:
        """The value that only the end of the stream completes, such as a number.

        Raises `MalformedInput` when the stream ends within a value or an array.
        """
        if self._expected is not _TOP:
            raise MalformedInput(self._base, "the input ends within an array")
        if self._start is None:
            return
        if self._advance != self._scalar:
            raise MalformedInput(self._start, "the event that begins here does not end")
        yield self._take(self._start, b"", 0)

    def _between(self, chunk: bytes, at: int) -> int:
        at = _end(_SPACES, chunk, at)
        if at == len(chunk):
            return at
        byte = chunk[at : at + 1]
        if byte not in self._expected.first:
            raise MalformedInput(
                self._base + at, f"expected {self._expected.words}, found {_shown(byte)}"
            )
        if byte == b"[" and self._expected is _TOP:
            self._expected = _FIRST
        elif byte == b"]":
            self._expected = _TOP
        elif byte == b",":
            self._expected = _NEXT
        else:
            return self._begin(byte, at)
        return at + 1

    def _begin(self, byte: bytes, at: int) -> int:
        self._start = self._base + at
        if byte == b'"':
            self._advance = self._string
            return at + 1
        self._advance = self._nested if byte in b"{[" else self._scalar
        return at

    def _nested(self, chunk: bytes, at: int) -> int:
        at = _end(_NO_BRACKET, chunk, at)
        byte = chunk[at : at + 1]
        if byte == b'"':  # of a string that ends in a later chunk
            self._advance = self._string
        elif byte and byte in b"{[":
            self._depth += 1
        elif byte:
            self._depth -= 1
            self._complete = self._depth == 0
        return at + len(byte)

    def _string(self, chunk: bytes, at: int) -> int:
        found = _QUOTE_OR_ESCAPE.search(chunk, at)
        if found is None:
            return len(chunk)
        if found[0] == b"\\":
            self._advance = self._escaped
        elif self._depth:
            self._advance = self._nested
        else:
            self._complete = True
        return found.end()

    def _escaped(self, chunk: bytes, at: int) -> int:  # noqa: ARG002 - any one byte
        self._advance = self._string
        return at + 1

    def _scalar(self, chunk: bytes, at: int) -> int:
        found = _AFTER_SCALAR.search(chunk, at)
        if found is None:
            return len(chunk)
        self._complete = True
        return found.start()

    def _keep(self, chunk: bytes, end: int) -> None:
        if self._start is not None and len(self._kept) <= self._limit:
            self._kept += chunk[max(0, self._start - self._base) : end]

    def _take(self, start: int, chunk: bytes, end: int) -> Extent:
        self._keep(chunk, end)
        size = self._base + end - start
        extent = Extent(start, size, bytes(self._kept) if size <= self._limit else None)
        self._kept.clear()
        self._start, self._complete, self._advance = None, False, self._between
        if self._expected is not _TOP:
            self._expected = _AFTER
        return extent


def _end(pattern: re.Pattern[bytes], chunk: bytes, at: int) -> int:
    """Where the match of a pattern that always matches ends."""
    found = pattern.match(chunk, at)
    return at if found is None else found.end()


def _shown(byte: bytes) -> str:
    return byte.decode() if b" " < byte <= b"~" else f"0x{byte.hex()}"
