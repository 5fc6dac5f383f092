"""Events from files and from standard input, as JSON Lines: one event per line, byte for byte."""

import os
import stat
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from .descriptors import read_chunks

MAX_LINE_BYTES: Final = 16 << 20
"""More than the largest event, which a writer refuses by its own limit."""

_STDIN: Final = "-"
_BLANKS: Final = b" \t\r\n"


class Line(NamedTuple):
    """A line that is not blank: its input, its number there from 1, and its bytes."""

    input: str
    number: int
    data: bytes

    def event_id(self) -> UUID | None:
        """Return the id of an event that may be invalid otherwise."""
        with suppress(msgspec.DecodeError, RecursionError):
            return _glance.decode(self.data).event_header.uuid
        return None


class _Header(msgspec.Struct):
    uuid: UUID | None = None


class _Glance(msgspec.Struct, rename="camel"):
    event_header: _Header


_glance: Final = msgspec.json.Decoder(_Glance)


class LineTooLong(Exception):
    """A line has more than `MAX_LINE_BYTES`: probably the input is not JSON Lines."""

    def __init__(self) -> None:
        super().__init__(
            f"a line of more than {MAX_LINE_BYTES} bytes; write one event per line, as `jq -c` does"
        )


class Unreadable(Exception):
    """An input cannot be read on from a line; the cause says why."""

    def __init__(self, name: str, number: int, cause: Exception) -> None:
        super().__init__(str(cause))
        self.line = Line(name, number, b"")
        self.cause = cause


class Inputs:
    """The inputs of one command, read one after the other; "-" is standard input.

    Memory does not grow with their size. A line may have `MAX_LINE_BYTES`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names) or (_STDIN,)
        self.bytes_read = 0

    def size(self) -> int | None:
        """Bytes of all inputs, or None if one of them is a stream."""
        found = [os.fstat(0) if name == _STDIN else Path(name).stat() for name in self._names]
        if all(stat.S_ISREG(each.st_mode) for each in found):
            return sum(each.st_size for each in found)
        return None

    async def lines(self) -> AsyncGenerator[Sequence[Line]]:
        """Yield the lines of all inputs, as many at a time as could be read without a wait.

        Raises `Unreadable` for an input that cannot be read on, after its lines before that.
        """
        for name in self._names:
            number, rest = 0, b""
            try:
                with _opened(name) as descriptor:
                    async with aclosing(read_chunks(descriptor)) as chunks:
                        async for chunk in chunks:
                            self.bytes_read += len(chunk)
                            *whole, rest = (rest + chunk).split(b"\n")
                            yield _numbered(name, number, whole)
                            number += len(whole)
                            if len(rest) > MAX_LINE_BYTES:
                                raise Unreadable(name, number + 1, LineTooLong())
                yield _numbered(name, number, [rest])
            except OSError as error:
                raise Unreadable(name, number + 1, error) from error


def _numbered(name: str, before: int, lines: Sequence[bytes]) -> Sequence[Line]:
    """Number the lines of an input after so many, and leave out blank ones."""
    stripped = enumerate((line.strip(_BLANKS) for line in lines), before + 1)
    return [Line(name, number, line) for number, line in stripped if line]


@contextmanager
def _opened(name: str) -> Generator[int]:
    if name == _STDIN:
        yield 0
        return
    # Without O_NONBLOCK a named pipe without a writer would block here.
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
